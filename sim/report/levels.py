"""Rows of pruning levels as tables, for the terminal and for a page, and the demo's page.

A row is a `Level` as JSON has it (a dict); it may have further keys.
"""

import re
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from cbnn.model.files import OwnFolder
from cbnn.model.slices import slices_text
from cbnn.sim.report.page import Grid, Heading, Part, page

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEADINGS = {
    "topology": "topology", "kept_slices": "slices kept", "width": "width",
    "max_interval_cycles": "at most", "device": "device", "accuracy_before": "accuracy before %",
    "accuracy_after": "accuracy after %", "validation_accuracy": "validation accuracy %",
    "input_beats": "input beats", "byte_beats": "beats of bytes", "first_layer_cycles": "first layer",
    "interval_cycles": "interval", "latency_cycles": "latency", "slowest": "slowest kernel",
    "refolded_interval_cycles": "refolded interval", "smallest_luts": "refolded LUTs", "saved_cycles": "cycles saved",
    "saved_percent": "saved %", "luts": "LUTs (est.)", "block_rams": "block RAMs",
    "weight_bits": "weight bits", "operations": "operations", "folding": "folding",
}
"""The heading of every column, everywhere."""
INPUT = re.compile("^[0-9x]+u[^-]*-")
"""The input in front of a topology."""
LONG = ("topology", "folding")
"""Columns that hold long text: set left, and broken into lines where there is no room."""
LEVELS = ("kept_slices", "accuracy_before", "accuracy_after", "input_beats", "byte_beats",
          "first_layer_cycles", "interval_cycles", "latency_cycles", "slowest", "saved_percent",
          "luts", "refolded_interval_cycles", "smallest_luts")
"""Columns of a report of levels."""
CYCLES = ("Cycles per image. Beats of bytes: of whole pixels on a bus no wider, which saves none. Saved: "
          "cycles of the interval, against all slices. Refolded: the fastest folding within the "
          "LUTs of all slices, and the smallest one that takes no more cycles than all slices.")
BEFORE = f"Accuracy on the test split, before retraining. {CYCLES}"
CAPTION = f"Accuracy on the test split, before and after retraining. {CYCLES}"
"""What the columns mean: with accuracies of pruned networks that were not retrained, and of both."""
COLOURS = (("#3b6fb6", "#a9c3e6"), ("#d9822b", "#f3cf9f"))
"""Of the foldings: as given, and refolded."""


def caption_of(rows: Sequence[dict], text: str) -> str:
    """Return a caption that also says what the input of the rows is."""
    return f"Input: {rows[0]['input']}. {text}"


def breakable(folding: str) -> str:
    """Return a folding that lines break between layers; it can be typed like this too."""
    return folding.replace(")(", ") (")


def percent(fraction: float) -> str:
    """Return a fraction as people read it, in percent."""
    return f"{100 * fraction:.2f}"


def cell(row: dict, name: str) -> str:
    """Return the text of one column: one number where prediction and measurement agree."""
    value = row.get(name)
    if value is None:
        # Where no folding fits, a sweep says why.
        return row.get("why") or "-" if name == "folding" else "-"
    if name == "folding":
        return breakable(value)
    if name == "kept_slices":
        return slices_text(value)
    if name == "topology":
        return INPUT.sub("", value)  # which stands in other columns
    if "accuracy" in name:
        return percent(value) + (f" ± {percent(row['spread'])}" if "spread" in row else "")
    if name == "saved_percent":
        return f"{value:.1f}"
    measured = (row.get("measured") or {}).get(name, value)
    text = _number(measured)
    return text if measured == value else f"{text} (predicted {_number(value)})"


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def level_grid(rows: Sequence[dict], columns: Sequence[str] = LEVELS) -> Grid:
    """Return rows as a table, without the columns for which no row has a value."""
    names = [name for name in columns if any(cell(row, name) != "-" for row in rows)]
    return Grid([HEADINGS[name] for name in names],
                [[cell(row, name) for name in names] for row in rows],
                [name in LONG for name in names])


def level_table(rows: Sequence[dict], columns: Sequence[str] = LEVELS, *, title: str = "",
                caption: str = "") -> Table:
    """Return the same for the terminal, with headings of several lines."""
    grid = level_grid(rows, columns)
    headings = [heading.replace(" ", "\n") for heading in grid.headings]
    return text_table(headings, grid.rows, grid.is_text, title=title, caption=caption)


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], is_text: Sequence[bool], *,
               title: str = "", caption: str = "") -> Table:
    """Return a table for the terminal; brackets are printed, not taken for markup.

    Where there is no room, text goes on in the next line, and an ellipsis marks cut numbers.
    """
    table = Table(box=SIMPLE, collapse_padding=True, title=Text(title) if title else None, title_justify="left",
                  caption=Text(caption) if caption else None, caption_justify="left")
    for heading, left in zip(headings, is_text, strict=True):
        table.add_column(Text(heading), justify="left" if left else "right", no_wrap=not left,
                         overflow="fold" if left else "ellipsis")
    for cells in rows:
        table.add_row(*map(Text, cells))
    return table


def terminal_tables(rows: Sequence[dict]) -> list[Table]:
    """Return the demo's tables, one per folding."""
    return [level_table(group, title=f"{name}: {group[0]['folding']}")
            for name, group in _by_folding(rows).items()]


def write_report(rows: Sequence[dict], path: Path) -> None:
    """Write the demo's page with plots and tables, atomically; it loads nothing from anywhere."""
    groups = _by_folding(rows)
    parts: list[Part] = [
        "Handwritten digits, 8x8 pixels of 5 bits, test split of 540 images. For every row Verilog "
        "was generated and simulated by Icarus under cocotb. Every score of "
        f"{rows[0]['n_images']} images equals the golden model's, and input beats, first-layer "
        "cycles, interval and latency equal their predictions.",
        caption_of(rows, CAPTION), _levels_figure(groups)]
    for name, group in groups.items():
        parts += [Heading(name), f"(PE,SIMD) per layer: {group[0]['folding']}", level_grid(group),
                  _layers_figure(name, group)]
    OwnFolder(path.parent).write(path.name, page("Cycles saved by pruned input slices", parts).encode())


def _by_folding(rows: Sequence[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["folding_name"], []).append(row)
    return groups


def _levels_figure(groups: dict[str, list[dict]]) -> "go.Figure":
    """Draw accuracy and intervals over levels."""
    from plotly.subplots import make_subplots  # imported here, since that takes a third of a second

    figure = make_subplots(
        rows=2, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.4, 0.6],
        subplot_titles=("Accuracy on the test split, %", "Interval, cycles per image"))
    first = next(iter(groups.values()))
    for key, label, dash, place in (("accuracy_after", "retrained", "solid", "top center"),
                                    ("accuracy_before", "not retrained", "dot", "bottom center")):
        figure.add_scatter(x=_kept(first), y=[100 * row[key] for row in first], name=label,
                           mode="lines+markers+text", texttemplate="%{y:.2f}", textposition=place,
                           line={"dash": dash, "color": "#444"}, row=1, col=1)
    for (name, rows), (colour, lighter) in zip(groups.items(), cycle(COLOURS), strict=False):
        figure.add_bar(x=_kept(rows), y=[row["measured"]["interval_cycles"] for row in rows],
                       name=name, marker_color=colour, offsetgroup=name, texttemplate="%{y:,}",
                       row=2, col=1)
        figure.add_bar(x=_kept(rows), y=[row["refolded_interval_cycles"] for row in rows],
                       name=f"{name}, refolded in the same LUTs", marker_color=lighter,
                       offsetgroup=f"{name} refolded", texttemplate="%{y:,}", row=2, col=1)
    figure.update_yaxes(range=[0, 112], row=1, col=1)
    figure.update_xaxes(title="slices kept", row=2, col=1)
    figure.update_layout(template="plotly_white", height=650,
                         legend={"orientation": "h", "y": -0.12})
    return figure


def _kept(rows: Sequence[dict]) -> list[str]:
    return [f"{len(row['kept_slices'])} ({slices_text(row['kept_slices'])})" for row in rows]


def _layers_figure(name: str, rows: Sequence[dict]) -> "go.Figure":
    import plotly.graph_objects as go
    from plotly.colors import sample_colorscale

    # A legend shows no opacity, so that each level has a colour of its own.
    places = [0.9 * i / max(1, len(rows) - 1) for i in range(len(rows))]
    colours = sample_colorscale("Viridis", places)
    figure = go.Figure()
    for row, colour in zip(rows, colours, strict=True):
        layers = [f"layer {i}" for i in range(len(row["layer_cycles"]))]
        figure.add_bar(x=layers, y=row["layer_cycles"], marker_color=colour,
                       name=f"slices {slices_text(row['kept_slices'])}")
    figure.update_layout(title=f"Cycles per layer: {name}", barmode="group",
                         template="plotly_white", yaxis_title="cycles per image", showlegend=True)
    return figure
