"""What verbs print: results on stdout as tables or JSON, messages on stderr, text of users escaped."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cbnn.model.files import visible
from cbnn.sim.report.levels import breakable

for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:  # whoever started us closed it
        setattr(sys, _name, Path(os.devnull).open("w"))
# Into a file or a pipe tables go at full width, not at the 80 columns that rich would assume.
stdout, stderr = Console(width=None if sys.stdout.isatty() else 120), Console(stderr=True)

MAX_SENTENCE = 600
"""Longest error, in characters; a longer one loses its middle, since the rule is at its end."""
EXTRAS = {"torch": "train", "onnx": "onnx", "qonnx": "onnx", "onnxruntime": "onnx",
          "distributed": "sweep"}
"""Which extra of cbnn installs a package that is not always there."""


def sentence_of(error: object) -> str:
    """Return what a user reads of an error: one line of bounded length, in no words of Python's."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = EXTRAS.get(error.name.split(".")[0])
        install = f"; pip install 'cbnn[{extra}]'" if extra else ""
        text = f"the Python package {error.name} is not installed{install}"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    text = visible(text)
    if len(text) > MAX_SENTENCE:
        text = f"{text[: MAX_SENTENCE // 2]} … {text[-MAX_SENTENCE // 2 :]}"
    return text


def tell(text: object) -> None:
    """Print a message on stderr, on one line however long."""
    stderr.print(escape(visible(text)), soft_wrap=True, highlight=False)


def tell_command(words: Sequence[object]) -> None:
    """Print on stderr which command comes next, as it can be typed."""
    tell(f"next: {shlex.join(['cbnn', *map(str, words)])}")


def progress_bar() -> Progress:
    """Return a progress bar on stderr, where that is a terminal."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                    TimeElapsedColumn(), console=stderr, disable=not stderr.is_terminal)


def print_result(result: Any, as_json: bool, *tables: Table | str) -> None:
    """Print a result as JSON, or as tables and lines; without any, a dictionary as its own table."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for table in tables or facts_tables(result):
        stdout.print(escape(table) if isinstance(table, str) else table)


def cell(name: str, value: object) -> str:
    """Return a value as people read it: numbers with commas, accuracies (fractions) in percent."""
    if value is None:
        text = "-"
    elif isinstance(value, list | tuple):
        text = ", ".join(cell(name, part) for part in value) or "none"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float) and name.startswith("accuracy"):
        text = f"{100 * value:.2f} %"
    elif isinstance(value, int | float):
        text = f"{value:,}"
    else:
        text = breakable(str(value)) if name == "folding" else str(value)
    return escape(visible(text))


def facts_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Return a row per name and value; below, side by side, the dictionaries among the values."""
    inner = {name: value for name, value in facts.items() if isinstance(value, Mapping)}
    table = Table(show_header=False, box=SIMPLE)
    for name, value in facts.items():
        if name not in inner:
            table.add_row(name.replace("_", " "), cell(name, value))
    if not inner:
        return [table]
    names = dict.fromkeys(key for value in inner.values() for key in value)
    rows = [{"": name.replace("_", " ")} | {key: value.get(name) for key, value in inner.items()}
            for name in names]
    return [table, rows_table(rows, {"": ""} | {name: name.replace("_", " ") for name in inner})]


def rows_table(rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str],
               total: bool = False) -> Table:
    """Return a table with a column for each of `headings`; `total`: the last row is of all others."""
    table = Table(box=SIMPLE)
    for name, heading in headings.items():
        words = any(isinstance(row[name], str) for row in rows)
        table.add_column(escape(heading).replace(" ", "\n"), justify="left" if words else "right",
                         overflow="fold", no_wrap=name != "folding", vertical="bottom")
    for i, row in enumerate(rows):
        table.add_row(*(cell(name, row[name]) for name in headings),
                      end_section=total and i == len(rows) - 2)
    return table
