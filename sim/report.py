"""The demo's report: one self-contained HTML page, and a table for the terminal."""

from html import escape
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from cbnn.model.files import write_atomically

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEADINGS = ("slices kept", "accuracy before %", "accuracy after %", "input beats", "first layer", "interval",
            "latency", "refolded interval", "cycles saved", "saved %", "LUTs (est.)")
COLOURS = ("#3b6fb6", "#e08e2b")
CAPTION = ("Cycles per image; accuracy on the test split before and after retraining; refolded: the fastest folding "
           "within the LUTs of all slices.")


def kept_text(kept: list[int]) -> str:
    """Return slices as people write them: ``4..0`` for a run, ``7, 5`` otherwise."""
    if len(kept) > 1 and kept == list(range(kept[0], kept[-1] - 1, -1)):
        return f"{kept[0]}..{kept[-1]}"
    return ", ".join(map(str, kept))


def cells(row: dict) -> list[str]:
    """Return the text of a row under `HEADINGS`; where prediction and measurement agree, as they must, one number."""
    def both(name: str) -> str:
        predicted, measured = row["predicted"][name], row["measured"][name]
        return f"{measured:,}" if predicted == measured else f"{measured:,} (predicted {predicted:,})"

    return [kept_text(row["kept_slices"]), f"{100 * row['accuracy_before']:.1f}",
            f"{100 * row['accuracy_after']:.1f}", both("input_beats"), both("first_layer_cycles"),
            both("interval_cycles"), both("latency_cycles"),
            f"{row['refolded_interval_cycles']:,}", f"{row['saved_cycles']:,}", f"{row['saved_percent']:.1f}",
            f"{row['luts']:,}"]


def terminal_tables(rows: list[dict]) -> list[Table]:
    """One table per folding."""
    tables = []
    for name, group in _by_folding(rows).items():
        table = Table(title=f"{name}: {group[0]['folding']}", title_justify="left", box=SIMPLE)
        for heading in HEADINGS:
            table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
        for row in group:
            table.add_row(*cells(row))
        tables.append(table)
    return tables


def write_report(rows: list[dict], path: Path) -> None:
    """Write the page with plots and tables, atomically; it loads nothing from anywhere.

    Plotly is imported where it is used, since it takes a third of a second.
    """
    groups = _by_folding(rows)
    figures = [_levels_figure(groups), *(_layers_figure(name, group) for name, group in groups.items())]
    plots = [figure.to_html(full_html=False, include_plotlyjs=i == 0) for i, figure in enumerate(figures)]
    tables = [_html_table(name, group) for name, group in groups.items()]
    n_images = rows[0]["n_images"]
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>cbnn: cycles saved by pruned input slices</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; margin: 1em 0 2em; }} th, td {{ padding: .3em .7em; text-align: right; }}
th {{ border-bottom: 2px solid #444; vertical-align: bottom; font-weight: 600; }}
td {{ border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }}</style></head><body>
<h1>Cycles saved by pruned input slices</h1>
<p>Handwritten digits, 8x8 pixels of 5 bits, test split of 540 images. Every row: Verilog generated, simulated by
Icarus under cocotb, every score of {n_images} images equal to the golden model's, and input beats, first-layer cycles,
interval and latency equal to their predictions. {CAPTION}</p>
{plots[0]}{"".join(tables)}{"".join(plots[1:])}</body></html>
"""
    write_atomically(path, page.encode())


def _by_folding(rows: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["folding_name"], []).append(row)
    return groups


def _html_table(name: str, rows: list[dict]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in HEADINGS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>" for row in rows)
    return f"<h2>{escape(name)}</h2><p>(PE,SIMD) per layer: {escape(rows[0]['folding'])}</p>" \
           f"<table><tr>{head}</tr>{body}</table>"


def _levels_figure(groups: dict[str, list[dict]]) -> "go.Figure":
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.4, 0.6],
                           subplot_titles=("Accuracy on the test split, %", "Interval, cycles per image"))
    for key, label, dash in (("accuracy_after", "retrained", "solid"), ("accuracy_before", "not retrained", "dot")):
        rows = next(iter(groups.values()))
        figure.add_scatter(x=_kept(rows), y=[round(100 * row[key], 1) for row in rows], name=label,
                           mode="lines+markers+text", texttemplate="%{y}",
                           textposition="top center" if dash == "solid" else "bottom center",
                           line={"dash": dash, "color": "#444"}, row=1, col=1)
    for (name, rows), colour in zip(groups.items(), cycle(COLOURS), strict=False):
        figure.add_bar(x=_kept(rows), y=[row["measured"]["interval_cycles"] for row in rows], name=name,
                       marker_color=colour, offsetgroup=name, texttemplate="%{y:,}", row=2, col=1)
        figure.add_bar(x=_kept(rows), y=[row["refolded_interval_cycles"] for row in rows],
                       name=f"{name}, refolded in the same LUTs", marker={"color": colour, "opacity": 0.4},
                       offsetgroup=f"{name} refolded", texttemplate="%{y:,}", row=2, col=1)
    figure.update_yaxes(range=[0, 108], row=1, col=1)
    figure.update_xaxes(title="slices kept", row=2, col=1)
    figure.update_layout(template="plotly_white", height=650, legend={"orientation": "h", "y": -0.12})
    return figure


def _kept(rows: list[dict]) -> list[str]:
    return [f"{len(row['kept_slices'])} ({kept_text(row['kept_slices'])})" for row in rows]


def _layers_figure(name: str, rows: list[dict]) -> "go.Figure":
    import plotly.graph_objects as go

    figure = go.Figure()
    for row in rows:
        layers = [f"layer {i}" for i in range(len(row["layer_cycles"]))]
        figure.add_bar(x=layers, y=row["layer_cycles"], name=f"{len(row['kept_slices'])} kept",
                       marker={"color": COLOURS[0], "opacity": 0.2 + 0.16 * len(row["kept_slices"])})
    figure.update_layout(title=f"Cycles per layer: {name}", barmode="group", template="plotly_white",
                         yaxis_title="cycles per image")
    return figure
