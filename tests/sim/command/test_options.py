"""Options: those without effect are refused, each has a range and one meaning, help, and the verb that comes next."""

import json
import re
import shlex
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import typer

from cbnn.hw.folding import Folding
from cbnn.model.exchange import storage
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.command import exchange, main, options, verbs
from cbnn.sim.predict.search import DEVICES, Budget, Search

TOPOLOGY = Topology.parse("6x6x1u3-8C3-MP2-12FC-4FC")
WORDS = (str(TOPOLOGY),)
FOLDING = ("--folding", "(8,9)(2,8)(1,4)")
DIGITS = ("digits-5", "--folding", "(8,9)(16,16)(8,16)(4,16)(5,8)")
NINES = "9" * 5000
ROOT = typer.main.get_command(main.app)


def all_verbs() -> dict[str, Any]:
    """Commands by the words that call them."""
    found = {}
    for name, of_root in ROOT.commands.items():
        inner = getattr(of_root, "commands", None)
        found |= {f"{name} {below}": one for below, one in inner.items()} if inner else {name: of_root}
    return found


def parse(words: list[str]) -> None:
    """Read the words of a call as the command does, without running it."""
    at: Any = ROOT
    while hasattr(at, "commands"):
        at, words = at.commands[words[0]], words[1:]
    at.make_context("", words)


def hints() -> Iterator[tuple[str, str, Any, Any]]:
    """Verb, option, type and typer's information of every option."""
    for group in (main.app, exchange.imports, exchange.exports):
        for one in group.registered_commands:
            for name, hint in get_type_hints(one.callback, include_extras=True).items():
                if name != "return":
                    yield one.name, name, *get_args(hint)


def plain(kind: Any) -> Any:
    """Return the type of one value: of a list, or of what may be None."""
    while get_origin(kind) in (list, Union, type(int | None)):
        [kind] = [part for part in get_args(kind) if part is not type(None)]
    return kind


def test_every_number_has_a_range() -> None:
    numbers = [(verb, name, info) for verb, name, kind, info in hints() if plain(kind) in (int, float)]
    assert len(numbers) > 35
    assert [(verb, name) for verb, name, info in numbers if info.callback is None] == []


def test_every_option_means_one_thing() -> None:
    kinds: dict[str, set] = {}
    for _, name, kind, _ in hints():
        kinds.setdefault(name, set()).add(plain(kind))
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_help_has_every_verb_in_the_order_of_work(cbnn) -> None:
    _, out, _ = cbnn("--help")
    shown = re.findall(r"^│ ([a-z]+) ", out, re.MULTILINE)
    assert shown == [verb for panel in verbs.VERBS.values() for verb in panel]
    assert re.findall(r"^╭─ (\w+) ─", out, re.MULTILINE) == ["Options", *verbs.VERBS]


@pytest.mark.parametrize("verb", all_verbs())
def test_help_is_whole_and_its_example_works(cbnn, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = cbnn(*verb.split(), "--help")
    assert code == 0
    written = " ".join([all_verbs()[verb].callback.__doc__, *(p.help or "" for p in all_verbs()[verb].params)])
    for extra in re.findall(r"cbnn\\?(\[\w+\])", written):
        assert f"cbnn{extra}" in out
    [example] = re.findall(r"^ *Example: (cbnn .*?) *$", out, re.MULTILINE)
    parse(shlex.split(example)[1:])
    assert example.startswith(f"cbnn {verb} ")


@pytest.mark.parametrize("verb", ["evaluate", "cycles", "simulate", "fold", "fifos", "generate", "export finn-folding"])
def test_examples_run(cbnn, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cbnn(*shlex.split(all_verbs()[verb].epilog.removeprefix("Example: "))[1:])
    assert code == 0
    assert out
    following = re.findall("^next: cbnn (.*)$", err, re.MULTILINE)
    assert len(following) == 1
    parse(shlex.split(following[0]))


def test_version(cbnn) -> None:
    assert cbnn("--version") == (0, f"cbnn {version('cbnn')}\n", "")


@pytest.mark.parametrize(("words", "sentence"), [
    (("frobnicate",), "No such command 'frobnicate'; see cbnn --help"),
    (("cycles",), "Missing argument '"),
    (("cycles", "digits-5", "--foo"), "No such option: --foo"),
    (("import", "foo"), "No such command 'foo'; see cbnn import --help"),
    (("simulate", *DIGITS, "--images", "many"), "Invalid value for '--images': "),
    (("simulate", *DIGITS, "--images", NINES), "Invalid value for '--images': "),
])
def test_wrong_words_are_one_sentence(cbnn, words: tuple, sentence: str) -> None:
    code, out, err = cbnn(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"cbnn: {sentence}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a network that takes no digits, a folding, and an image."""
    monkeypatch.chdir(tmp_path)
    storage.save(random_network(TOPOLOGY, 1), Path("net.npz"))
    Folding.parse(FOLDING[1], TOPOLOGY).save(Path("f.json"))
    np.save("i.npy", np.zeros((4, 6, 6, 1), np.uint8))
    return tmp_path


@pytest.mark.parametrize(("words", "option"), [
    (("simulate", *DIGITS, "--seed", 0), "--seed"),
    *(((verb, "net.npz", "--folding", "f.json", "--input-width", 1, *more), "--input-width")
      for verb, *more in (("simulate",), ("cycles",), ("fifos",), ("volume",), ("synth",), ("generate", "--out", "v"),
                          ("verify", "--out", "v"))),
    (("fold", *WORDS, "--front", 3, "--interval", 400), "--interval"),
    (("fold", *WORDS, "--front", 3, "--fps", 400), "--fps"),
    (("simulate", *WORDS, *FOLDING, "--seed", 1), "--seed"),
    (("verify", *DIGITS, "--out", "v", "--seed", 1), "--seed"),
    (("synth", *DIGITS, "--seed", 1), "--seed"),
    (("cycles", *WORDS, *FOLDING, "--dataset", "digits"), "--dataset"),
    (("cycles", *WORDS, *FOLDING, "--data-dir", "."), "--data-dir"),
    (("cycles", *DIGITS, "--data-dir", "."), "--data-dir"),
    (("evaluate", "digits-5", "--data-dir", "."), "--data-dir"),
    (("sensitivity", "digits-5", "--data-dir", "."), "--data-dir"),
    (("train", "--data-dir", ".", "--out", "x.npz"), "--data-dir"),
    (("compact", "--data-dir", ".", "--out", "x"), "--data-dir"),
    (("evaluate", "net.npz", "--images-file", "i.npy", "--labels-file", "i.npy", "--dataset", "digits"), "--dataset"),
    (("import", "qonnx", "x.onnx", "--out", "x.npz", "--slices", "7", "--low", 0), "--low"),
    (("import", "qonnx", "x.onnx", "--out", "x.npz", "--slices", "7", "--high", 1), "--high"),
])
def test_an_option_without_effect_is_refused(cbnn, folder: Path, words: tuple, option: str) -> None:
    before = sorted(folder.iterdir())
    code, out, err = cbnn(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"cbnn: {option} has no effect ")
    assert err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(("words", "sentence"), [
    *((("fold", *WORDS, "--interval", 99, "--mhz", value), f"--mhz is {float(value)}; it must be 0.001 to 10,000")
      for value in ("0", "nan", "inf", "-1")),
    (("fold", *WORDS, "--fps", 1e9), "--fps 1e+09 leaves less than a cycle per image at 100 MHz; at most 100,000,000 "),
    (("fold", *WORDS, "--device", "xc7z010", "--luts", 17_601), "--luts is 17,601; the xc7z010 has 17,600"),
    (("fold", *WORDS, "--device", "xc7z010", "--block-rams", 999), "--block-rams is 999; the xc7z010 has 120"),
    (("cycles", *WORDS, "--folding", "8,9"), "folding '8,9' is not written like (16,9)(8,16)(10,8): one (PE,SIMD) per"),
    (("fold", *WORDS, "--interval", -3), "--interval is -3; it must be 1 to 1,099,511,627,776"),
    (("fold", *WORDS, "--interval", 99, "--input-width", 0), "--input-width is 0; it must be 1 to 16,777,216"),
    (("simulate", *WORDS, *FOLDING, "--idle", 91), "--idle is 91; it must be 0 to 90"),
    (("simulate", *WORDS, *FOLDING, "--idle", 9, "--seed", -1), "--seed is -1; it must be 0 to 2,147,483,647"),
    (("volume", *WORDS, *FOLDING, "--images", 10**7), "--images is 10000000; it must be 1 to 1,000,000"),
    (("volume", "999x999x3u8-4FC", "--folding", "(1,999)", "--images", 1000),
     "--images is 1000; of images of 999x999x3 at most 44 are supported"),
    (("verify", *DIGITS, "--out", "v", "--images", 10**5), "--images is 100000; it must be 4 to 10,000"),
    (("train", "--width", "nan", "--out", "x"), "--width is nan; it must be 0.001 to 1,000"),
    (("train", "--epochs", "0", "--out", "x"), "--epochs is 0; it must be 1 to 100,000"),
    (("compact", "--max-drop", "nan", "--out", "x"), "--max-drop is nan; it must be 0 to 99"),
    (("compact", "--widths", "1,nan", "--out", "x"), "--widths has nan; each must be 0.001 to 1"),
    (("sweep", *WORDS, "--widths", "inf", "--out", "x"), "--widths has inf; each must be 0.001 to 1,000"),
    (("sweep", *WORDS, "--intervals", "-4", "--out", "x"), "--intervals has -4; each must be 0 to 1,099,511,627,776"),
    (("sweep", *WORDS, "--intervals", f"1{',1' * 40000}", "--out", "x"),
     "the sweep has 120003 points; at most 100000 are supported"),
    (("simulate", *WORDS, "--folding", f"({NINES},1)"), "folding '(9999"),
    (("simulate", f"8x8x1u8-{NINES}FC", "--folding", "(1,1)"), "a number of the topology has more than 12 digits"),
    (("simulate", f"1x1x{NINES}u8-9FC", "--folding", "(1,1)"), "a number of the topology has more than 12 digits"),
    (("simulate", "4C3-3FC", "--folding", "(1,1)"), "'4C3' does not describe an input; a topology begins with one, "),
    (("cycles", "8x8x1u8-99999999999C3-3FC", "--folding", "auto"),
     "out_channels of a convolution is 99999999999; it must be 1 to 1048576"),
    (("cycles", "999999x999999x1u8-4C3-3FC", "--folding", "auto"),
     "input shape (999999, 999999, 1) has 999998000001 values; at most 67108864 are supported"),
    (("generate", *DIGITS, "--out", "v", "--name", "module"),
     "'module' is a reserved word of Verilog; it cannot be the name of a module"),
    (("generate", *DIGITS, "--out", "v", "--name", "s_axis_tdata"),
     "'s_axis_tdata' is the name of a port; it cannot be the name of the top module"),
    (("evaluate", "digit-5"), "there is no network 'digit-5'; name an .npz file, or one of digits-1, "),
    (("cycles", "digit-5", *FOLDING), "there is no network 'digit-5'; name an .npz file, or one of digits-1, "),
    (("evaluate", "4FC-3FC"), "'4FC-3FC' is a topology; a trained network is needed here: an .npz file, or one of "),
    (("cycles", "no\nnet[red]", *FOLDING), "there is no network 'no\\nnet[red]'; "),
    (("evaluate", "a\nb.npz"), "a\\nb.npz cannot be read: No such file or directory"),
])
def test_out_of_range_is_refused_at_once(cbnn, folder: Path, words: tuple, sentence: str) -> None:
    before, started = sorted(folder.iterdir()), time.process_time()
    code, out, err = cbnn(*words)
    assert time.process_time() - started < 2
    assert (code, out) == (2, "")
    assert err.startswith(f"cbnn: {sentence}")
    assert err.count("\n") == 1
    assert len(err) < 700
    assert sorted(folder.iterdir()) == before


LARGE = Topology.parse("256FC-10FC", (16, 16, 1), 1)
"""A network that is folded otherwise for each device."""


@pytest.mark.parametrize(("text", "unit"), [
    ("auto", lambda search: search.fastest(Budget(*DEVICES["xc7z020"]))),
    ("auto:xc7z010", lambda search: search.fastest(Budget(*DEVICES["xc7z010"]))),
    ("auto:400", lambda search: search.cheapest(400)),
])
def test_auto_finds_the_folding_and_tells_it(cbnn, text: str, unit) -> None:
    found = unit(Search(LARGE))
    code, out, err = cbnn("simulate", str(LARGE), "--folding", text, "--json")
    assert code == 0
    assert json.loads(out)["network"]["max_cycles"] == found.interval_cycles
    assert err.startswith(f"folding {text}: {found.folding}, {found.interval_cycles:,} cycles per image")
    assert options.read_folding(text, LARGE, None, False) == Folding.parse(str(found.folding), LARGE)


@pytest.mark.parametrize(("text", "sentence"), [
    ("auto:", "device '' is not one of xc7z010, "), ("auto:z80", "device 'z80' is not one of xc7z010, "),
    ("auto:3", "no folding takes at most 3 cycles per image: "),
    ("automatic", "automatic cannot be read: No such file or directory")])
def test_auto_refuses(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        options.read_folding(text, TOPOLOGY, None, False)


def test_cycles_takes_one_folding_for_all_levels(cbnn) -> None:
    found = Search(TOPOLOGY).cheapest(400).folding
    rows = json.loads(cbnn("cycles", *WORDS, "--folding", "auto:400", "--json")[1])
    assert rows == json.loads(cbnn("cycles", *WORDS, "--folding", str(found), "--json")[1])


@pytest.mark.parametrize(("words", "sent"), [((), "kept slices"), (("--whole-bytes",), "whole bytes")])
def test_tables_say_what_the_input_is(cbnn, words: tuple[str, ...], sent: str) -> None:
    assert f"Input: {sent}. Cycles per image." in " ".join(cbnn("cycles", *WORDS, *FOLDING, *words)[1].split())
    assert {row["input"] for row in json.loads(cbnn("cycles", *WORDS, *FOLDING, *words, "--json")[1])} == {sent}


def test_the_next_verb_gets_what_was_given(cbnn, folder: Path) -> None:
    _, _, err = cbnn("cycles", *WORDS, *FOLDING, "--input-width", 4)
    assert err == f"next: cbnn simulate {' '.join(WORDS)} --folding '{FOLDING[1]}' --input-width 4\n"
    _, _, err = cbnn("cycles", *WORDS, *FOLDING, "--whole-bytes")
    assert err == f"next: cbnn simulate {' '.join(WORDS)} --folding '{FOLDING[1]}' --whole-bytes\n"
    _, _, err = cbnn("fold", "net.npz", "--interval", 400, "--input-width", 4, "--out", "my folding.json")
    assert err.splitlines()[-1] == "next: cbnn fifos net.npz --folding 'my folding.json' --out 'my folding.json'"
    words = shlex.split(err.splitlines()[-1].removeprefix("next: cbnn "))
    code, _, err = cbnn(*words)
    assert code == 0
    assert err.splitlines()[-1] == "next: cbnn generate net.npz --folding 'my folding.json' --out verilog"
    assert cbnn(*words, "--json")[2] == ""
