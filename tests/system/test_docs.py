"""What README and docs name is there: verbs and their options, functions, files; README's code runs."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.exchange.shipped import shipped_digits
from cbnn.sim.command.main import app
from cbnn.sim.predict.dataflow import simulate

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = typer.main.get_command(app)
TEXTS = {path.name: path.read_text() for path in PAGES}


def commands(text: str) -> list[list[str]]:
    """Words of every command that a page shows, set in or by itself; those of a sentence, without a verb, are none."""
    shown = re.findall(r"`cbnn ([a-z][^`]*)`", text) + re.findall(r"^ {4}cbnn (.*)$", text, re.MULTILINE)
    return [shlex.split(words) for words in shown]


def test_commands_are_found() -> None:
    assert len(commands(TEXTS["README.md"])) > 20


@pytest.mark.parametrize("page", TEXTS)
def test_commands_have_the_options_that_are_shown(page: str) -> None:
    for words in commands(TEXTS[page]):
        at: Any = COMMAND
        rest = list(words)
        while hasattr(at, "commands"):
            assert rest[0] in at.commands, words
            at = at.commands[rest.pop(0)]
        known = {option for parameter in at.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", TEXTS)
def test_functions_that_are_named_are_there(page: str) -> None:
    for name in re.findall(r"`(cbnn\.[A-Za-z_.]+)`", TEXTS[page]):
        parts = name.split(".")
        at = importlib.import_module(".".join(parts[:2]))
        for i, part in enumerate(parts[2:], 3):
            if not hasattr(at, part):
                importlib.import_module(".".join(parts[:i]))
            at = getattr(at, part)


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_linked_or_named_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXTS[page]):
        if "://" not in target:
            assert ((ROOT / page if page in ("README.md", "CONTRIBUTING.md") else ROOT / "docs" / page).parent
                    / target).exists(), target
    for name in re.findall(r"`((?:model|hw|sim|tests|bench|examples)/[A-Za-z0-9_./]+)`", TEXTS[page]):
        assert (ROOT / name).exists(), name


def test_code_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.DOTALL)
    assert blocks
    for code in blocks:
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102


def test_the_walk_through_shows_the_kernels_as_they_are() -> None:
    full, pruned = (accelerator(network, Folding.parse("(8,9)(16,16)(8,16)(4,16)(5,8)", network.topology), "digits")
                    for network in shipped_digits()[:3:2])
    for kernel, after in zip(full.kernels, pruned.kernels, strict=True):
        (in_width, in_beats), (out_width, out_beats) = kernel.s_axis, kernel.m_axis
        row = (f"| `{kernel.name.removeprefix('digits_')}` | {in_beats} x {in_width} | {out_beats} x {out_width} | "
               f"{kernel.interval_cycles} | {after.interval_cycles} | ")
        assert row in TEXTS["architecture.md"], row
    for unit in (full, pruned):
        assert f" {unit.interval_cycles} " in TEXTS["architecture.md"]
        assert f"{simulate(unit, 4).latency_cycles:,}" in TEXTS["architecture.md"]
