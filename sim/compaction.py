"""Report of a compaction: accuracy, size, operations and, within one device, cycles; tables and a page with plots."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from cbnn.model import datasets, golden
from cbnn.model.compact import Compaction, results
from cbnn.model.evaluation import mean_and_spread
from cbnn.model.files import write_atomically
from cbnn.model.points import Point
from cbnn.model.sensitivity import Sensitivity
from cbnn.model.storage import save
from cbnn.model.topology import Topology
from cbnn.sim.report import kept_text
from cbnn.sim.search import DEVICES, Budget, Search

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUMMARY, PAGE = "compact.json", "compact.html"
NETWORKS = ("baseline.npz", "compact.npz")
MODES = {"single": "randomised", "cumulative": "randomised with all below", "zeroed": "zeroed",
         "zeroed cumulative": "zeroed with all below"}


def summary(compaction: Compaction, folder: Path, data_dir: Path | None, device: str) -> dict:
    """Return what is reported; here, and only here, the test split is looked at, for the baseline and what was found.

    Cycles per image are of the fastest folding whose estimated LUTs and block RAMs the device has.
    """
    test = datasets.load(compaction.baseline[0].dataset, data_dir)
    rows = {}
    for name, points in (("baseline", compaction.baseline), ("compact", compaction.found)):
        found = results(points, folder)
        accuracies = [golden.accuracy(result.load(folder), test.test_images, test.test_labels) for result in found]
        mean, spread = mean_and_spread(accuracies)
        rows[name] = _point(points[0], device) | {
            "test_accuracies": accuracies, "mean": mean, "spread": spread,
            "validation_accuracies": [result.validation_accuracy for result in found]}
    front = {id(result) for _, result in compaction.front}
    tried = [{**_size(point.topology), "validation_accuracy": result.validation_accuracy,
              "within_budget": result.validation_accuracy >= compaction.budget, "front": id(result) in front}
             | ({"interval_cycles": _interval(point.topology, device)} if id(result) in front else {})
             for point, result in compaction.grid]
    base, small = rows["baseline"], rows["compact"]
    return {"dataset": compaction.baseline[0].dataset, "note": test.note, "device": device, "budget": compaction.budget,
            "baseline": base, "compact": small, "points_lost": 100 * (base["mean"] - small["mean"]),
            "times_fewer_weight_bits": base["weight_bits"] / small["weight_bits"],
            "times_fewer_operations": base["operations"] / small["operations"],
            "times_fewer_cycles": base["interval_cycles"] / small["interval_cycles"],
            "tried": tried, "sensitivity": [{"mode": s.mode, "slice": s.slice, "colour": s.colour, "mean": s.mean,
                                             "spread": s.spread} for s in compaction.slices]}


def write(compaction: Compaction, facts: dict, folder: Path, out: Path) -> None:
    """Write the summary, the page, and both networks of the first seed."""
    for name, points in zip(NETWORKS, (compaction.baseline, compaction.found), strict=True):
        save(results(points[:1], folder)[0].load(folder), out / name)
    write_atomically(out / SUMMARY, (json.dumps(facts, indent=1) + "\n").encode())
    write_atomically(out / PAGE, page(facts).encode())


def tables(facts: dict) -> list[Table]:
    """Both networks, and the front of what was tried."""
    copy = f" ({facts['note']})" if facts["note"] else ""
    both = Table(title=f"{facts['dataset']}{copy}", title_justify="left", box=SIMPLE)
    for heading in ("", "topology", "slices", "test accuracy %", "weight bits", "operations",
                    f"cycles in {facts['device']}"):
        both.add_column(heading, justify="left" if heading in ("", "topology") else "right")
    for name in ("baseline", "compact"):
        row = facts[name]
        both.add_row(name, row["layers"], kept_text(row["kept_slices"]),
                     f"{100 * row['mean']:.2f} ± {100 * row['spread']:.2f}", f"{row['weight_bits']:,}",
                     f"{row['operations']:,}", f"{row['interval_cycles']:,}")
    both.add_row("", "", "", f"{-facts['points_lost']:+.2f}", *(
        f"{facts[f'times_fewer_{what}']:.1f} x fewer" for what in ("weight_bits", "operations", "cycles")))
    front = Table(title="smallest within the loss allowed, one training each, by images set apart",
                  title_justify="left", box=SIMPLE)
    for heading in ("topology", "slices", "accuracy %", "weight bits", "operations", "cycles"):
        front.add_column(heading, justify="left" if heading == "topology" else "right")
    for row in sorted((row for row in facts["tried"] if row["front"]), key=lambda row: row["weight_bits"]):
        front.add_row(row["layers"], kept_text(row["kept_slices"]), f"{100 * row['validation_accuracy']:.2f}",
                      f"{row['weight_bits']:,}", f"{row['operations']:,}", f"{row['interval_cycles']:,}")
    return [both, front]


def page(facts: dict) -> str:
    """One self-contained page."""
    copy = f", {facts['note']}" if facts["note"] else ""
    plots = "".join(figure.to_html(full_html=False, include_plotlyjs=i == 0)
                    for i, figure in enumerate((_front_figure(facts), sensitivity_figure(facts["sensitivity"]))))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>cbnn: compaction</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }}</style>
</head><body><h1>{facts['times_fewer_weight_bits']:.1f} times smaller, {facts['points_lost']:.2f} points lost</h1>
<p>{facts['dataset']}{copy}: {facts['baseline']['layers']} became {facts['compact']['layers']} with slices
{kept_text(facts['compact']['kept_slices'])}. Test accuracy {100 * facts['baseline']['mean']:.2f} ±
{100 * facts['baseline']['spread']:.2f} % became {100 * facts['compact']['mean']:.2f} ±
{100 * facts['compact']['spread']:.2f} %, mean and standard deviation of
{len(facts['compact']['test_accuracies'])} trainings each.</p>{plots}</body></html>
"""


def _front_figure(facts: dict) -> "go.Figure":
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, chosen in (("loses too much", lambda row: not row["within_budget"]),
                         ("within the loss allowed", lambda row: row["within_budget"] and not row["front"]),
                         ("smallest of these", lambda row: row["front"])):
        rows = [row for row in facts["tried"] if chosen(row)]
        figure.add_scatter(x=[row["weight_bits"] for row in rows], y=[100 * row["validation_accuracy"] for row in rows],
                           mode="markers", name=name, marker={"size": 10}, hovertext=[
                               f"{row['layers']}, slices {kept_text(row['kept_slices'])}" for row in rows])
    figure.add_hline(100 * facts["budget"], line_dash="dot", annotation_text="least allowed")
    figure.update_layout(title="What was tried", template="plotly_white", xaxis_title="weight bits", xaxis_type="log",
                         yaxis_title="accuracy on images set apart, %")
    return figure


def sensitivity_figure(rows: list[dict]) -> "go.Figure":
    """Draw accuracy over slices, a line per mode."""
    import plotly.graph_objects as go

    figure = go.Figure()
    lines = [(text, [row for row in rows if row["mode"] == mode]) for mode, text in MODES.items()]
    lines += [(f"randomised, colour {colour}", [row for row in rows if row["colour"] == colour])
              for colour in sorted({row["colour"] for row in rows if row["colour"] is not None})]
    for name, points in lines:
        figure.add_scatter(x=[row["slice"] for row in points], y=[100 * row["mean"] for row in points], name=name,
                           error_y={"array": [100 * row["spread"] for row in points]})
    figure.update_layout(title="What each slice carries", template="plotly_white", xaxis_title="slice (0: LSB)",
                         xaxis_dtick=1, yaxis_title="accuracy, %")
    return figure


def sensitivity_table(results: list[Sensitivity]) -> Table:
    """Return a row per slice, a column per mode."""
    rows: dict[int, dict[str, str]] = {}
    for result in results:
        column = MODES.get(result.mode, f"colour {result.colour}")
        spread = f" ± {100 * result.spread:.1f}" if len(result.accuracies) > 1 else ""
        rows.setdefault(result.slice, {})[column] = f"{100 * result.mean:.1f}{spread}"
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("slice", *columns, title="accuracy, %", title_justify="left", box=SIMPLE)
    for b, row in rows.items():
        table.add_row(str(b), *(row[column] for column in columns))
    return table


def _point(point: Point, device: str) -> dict:
    return {**_size(point.topology), "interval_cycles": _interval(point.topology, device)}


def _size(topology: Topology) -> dict:
    return {"layers": str(topology), "kept_slices": list(topology.kept_slices), "weight_bits": topology.n_weight_bits,
            "operations": topology.n_operations}


def _interval(topology: Topology, device: str) -> int:
    return Search(topology).fastest(Budget(*DEVICES[device])).interval_cycles
