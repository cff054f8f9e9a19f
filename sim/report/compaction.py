"""Report of a compaction: rows of the baseline, of what was found and tried; a page with plots."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from cbnn.hw.folding import Folding
from cbnn.model.compute import golden
from cbnn.model.compute.evaluation import mean_and_spread
from cbnn.model.data import datasets
from cbnn.model.exchange.storage import encoded
from cbnn.model.files import OwnFolder
from cbnn.model.learn.compact import Compaction, results
from cbnn.model.learn.points import Point, Result
from cbnn.model.learn.sensitivity import Sensitivity
from cbnn.model.network import Network
from cbnn.model.slices import slices_text
from cbnn.sim.predict.cycles import full_level, level
from cbnn.sim.predict.search import DEVICES, Budget, Search
from cbnn.sim.report.levels import cell, level_grid, level_table, percent, text_table
from cbnn.sim.report.page import Heading, page

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUMMARY, PAGE = "compact.json", "compact.html"
NETWORKS = ("baseline.npz", "compact.npz")
MODES = {"single": "randomised", "cumulative": "randomised with all below", "zeroed": "zeroed",
         "zeroed cumulative": "zeroed with all below"}
LINES = (("#0072b2", "circle"), ("#d55e00", "x"), ("#009e73", "diamond"), ("#cc79a7", "square"),
         ("#e69f00", "triangle-up"), ("#56b4e9", "cross"), ("#000000", "star"))
"""Colours of Okabe and Ito, which can be told apart by all, and markers."""
SIZES = ("topology", "kept_slices", "accuracy_after", "validation_accuracy", "weight_bits",
         "operations", "interval_cycles")
"""Columns for the terminal."""
JUDGED = "The loss allowed is judged by images set apart (validation), so that the test split stays unseen."
COLUMNS = (*SIZES[:-1], "input_beats", "byte_beats", "first_layer_cycles", "interval_cycles", "latency_cycles",
           "saved_percent", "luts", "block_rams", "refolded_interval_cycles", "smallest_luts")
"""Columns for the page."""
GROUPS = {"smallest of these": ("#0072b2", "circle"),
          "within the loss allowed": ("#009e73", "diamond"),
          "loses too much": ("#d55e00", "x")}
"""Groups of what was tried: colour (blue, green and red of `LINES`) and marker."""


def summary(compaction: Compaction, folder: Path, data_dir: Path | None, device: str) -> dict:
    """Return what is reported.

    Only here is the test split looked at, for the baseline and for what was found. Every network is
    folded as fast as the LUTs and block RAMs of the device allow, by their estimates.
    """
    test = datasets.load(compaction.baseline[0].dataset, data_dir)

    def folding(network: Network) -> Folding:
        return Search(network.topology).fastest(Budget(*DEVICES[device])).folding

    first = results(compaction.baseline[:1], folder)[0].load(folder)
    full = full_level(first, folding(first))

    def seeds(points: tuple[Point, ...]) -> dict:
        found = results(points, folder)
        networks = [result.load(folder) for result in found]
        seen = [golden.accuracy(network, test.test_images, test.test_labels)
                for network in networks]
        mean, spread = mean_and_spread(seen)
        row = level(networks[0], folding(networks[0]), full, accuracy_after=mean)
        return asdict(row) | {
            "spread": spread, "test_accuracies": seen,
            "validation_accuracies": [result.validation_accuracy for result in found]}

    def tried(result: Result) -> dict:
        network = result.load(folder)
        return asdict(level(network, folding(network), full)) | {
            "validation_accuracy": result.validation_accuracy,
            "within_budget": result.validation_accuracy >= compaction.budget,
            "front": id(result) in front}

    front = {id(result) for _, result in compaction.front}
    base, small = seeds(compaction.baseline), seeds(compaction.found)
    return {"dataset": compaction.baseline[0].dataset, "note": test.note, "device": device,
            "budget": compaction.budget, "baseline": base, "compact": small,
            "points_lost": 100 * (base["accuracy_after"] - small["accuracy_after"]),
            "times_fewer_weight_bits": base["weight_bits"] / small["weight_bits"],
            "times_fewer_operations": base["operations"] / small["operations"],
            "times_fewer_cycles": base["interval_cycles"] / small["interval_cycles"],
            "tried": [tried(result) for _, result in compaction.grid],
            "sensitivity": [{"mode": s.mode, "slice": s.slice, "colour": s.colour, "mean": s.mean,
                             "spread": s.spread} for s in compaction.slices]}


def write(compaction: Compaction, facts: dict, folder: Path, out: Path) -> None:
    """Write the summary, the page, and both networks of the first seed."""
    own = OwnFolder(out)
    for name, points in zip(NETWORKS, (compaction.baseline, compaction.found), strict=True):
        own.write(name, encoded(results(points[:1], folder)[0].load(folder)))
    own.write(SUMMARY, (json.dumps(facts, indent=1) + "\n").encode())
    own.write(PAGE, page_text(facts).encode())


def tables(facts: dict) -> list[Table]:
    """Return a table of both networks, and one of the front of what was tried."""
    both = level_table([facts["baseline"], facts["compact"]], SIZES,
                       title=f"{_data(facts)}, on {facts['device']}:",
                       caption=f"{_outcome(facts)}. {_fewer(facts)}. {JUDGED}")
    front = level_table(_front(facts), SIZES, title="smallest within the loss allowed:",
                        caption="One training each.")
    return [both, front]


def page_text(facts: dict) -> str:
    """Return the page: outcome, tables and plots."""
    base, small = facts["baseline"], facts["compact"]
    became = (f"{_data(facts)}: {cell(base, 'topology')} became {cell(small, 'topology')} with slices "
              f"{slices_text(small['kept_slices'])}. Test accuracy {_accuracy(base)} became "
              f"{_accuracy(small)}, mean and standard deviation of "
              f"{len(small['test_accuracies'])} trainings each. {_fewer(facts)}.")
    folded = ("Cycles per image, LUTs and block RAMs are those of the fastest folding within an "
              f"{facts['device']}, whose input is {base['input']}; refolded: within the LUTs of the baseline.")
    return page(f"Compaction: {_outcome(facts)}", [
        became, Heading("Baseline, and what it became"), folded,
        level_grid([base, small], COLUMNS), Heading("Smallest within the loss allowed"),
        f"One training each. {JUDGED}",
        level_grid(_front(facts), COLUMNS), _front_figure(facts),
        sensitivity_figure(facts["sensitivity"])])


def _front(facts: dict) -> list[dict]:
    front = [row for row in facts["tried"] if row["front"]]
    return sorted(front, key=lambda row: row["weight_bits"])


def _data(facts: dict) -> str:
    return f"{facts['dataset']} ({facts['note']})" if facts["note"] else facts["dataset"]


def _outcome(facts: dict) -> str:
    return (f"{facts['times_fewer_weight_bits']:.1f} times smaller, "
            f"{facts['points_lost']:.2f} points of test accuracy lost")


def _fewer(facts: dict) -> str:
    times = (f"{facts[f'times_fewer_{key}']:.1f} x fewer {text}" for key, text in (
        ("weight_bits", "weight bits"), ("operations", "operations"), ("cycles", "cycles")))
    return ", ".join(times)


def _accuracy(row: dict) -> str:
    return f"{percent(row['accuracy_after'])} ± {percent(row['spread'])} %"


def _front_figure(facts: dict) -> "go.Figure":
    import plotly.graph_objects as go

    groups: dict[str, list[dict]] = {name: [] for name in GROUPS}
    for row in facts["tried"]:
        inside = "smallest of these" if row["front"] else "within the loss allowed"
        groups[inside if row["within_budget"] else "loses too much"].append(row)
    figure = go.Figure()
    for name, rows in groups.items():
        colour, symbol = GROUPS[name]
        texts = [f"{cell(row, 'topology')}, slices {slices_text(row['kept_slices'])}" for row in rows]
        figure.add_scatter(x=[row["weight_bits"] for row in rows],
                           y=[100 * row["validation_accuracy"] for row in rows], hovertext=texts,
                           mode="markers", name=name,
                           marker={"size": 10, "color": colour, "symbol": symbol})
    figure.add_hline(100 * facts["budget"], line_dash="dot", annotation_text="least allowed")
    figure.update_layout(title="What was tried", template="plotly_white", showlegend=True,
                         xaxis_title="weight bits", xaxis_type="log",
                         yaxis_title="accuracy on images set apart (validation), %")
    return figure


def sensitivity_figure(rows: list[dict]) -> "go.Figure":
    """Draw accuracy over slices, a line per mode."""
    import plotly.graph_objects as go

    figure = go.Figure()
    lines = [(text, [row for row in rows if row["mode"] == mode]) for mode, text in MODES.items()]
    lines += [(f"randomised, colour {colour}", [row for row in rows if row["colour"] == colour])
              for colour in sorted({row["colour"] for row in rows if row["colour"] is not None})]
    for i, (name, points) in enumerate(lines):
        colour, symbol = LINES[i % len(LINES)]
        figure.add_scatter(x=[row["slice"] for row in points],
                           y=[100 * row["mean"] for row in points], name=name,
                           error_y={"array": [100 * row["spread"] for row in points]},
                           marker={"color": colour, "symbol": symbol, "size": 8})
    figure.update_layout(title="What each slice carries", template="plotly_white",
                         xaxis_title="slice (0: LSB)", xaxis_dtick=1, yaxis_title="accuracy, %")
    return figure


def sensitivity_table(results: list[Sensitivity]) -> Table:
    """Return a row per slice, a column per mode."""
    rows: dict[int, dict[str, str]] = {}
    for result in results:
        column = MODES.get(result.mode, f"colour {result.colour}")
        spread = f" ± {percent(result.spread)}" if len(result.accuracies) > 1 else ""
        rows.setdefault(result.slice, {})[column] = f"{percent(result.mean)}{spread}"
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[str(b), *(row[column] for column in columns)] for b, row in rows.items()]
    return text_table(["slice", *columns], cells, [False] * (1 + len(columns)), title="accuracy, %")


def sensitivity_page(rows: list[dict]) -> str:
    """Return the plot of `sensitivity_figure` as a page."""
    return page("Sensitivity of slices", [sensitivity_figure(rows)])
