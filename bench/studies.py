"""The networks of bench/method.py, and the table and model cards of what was measured of them; nothing is trained."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rtl import write_table

from cbnn.model import files
from cbnn.model.data import datasets
from cbnn.model.learn.points import Point
from cbnn.model.learn.training import DEFAULTS, Recipe
from cbnn.model.slices import slices_text
from cbnn.model.topology import Topology

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "bench" / "results" / "method.json", ROOT / "docs" / "cbnn-method.md"
SEEDS = 3
DEVICE = "xc7k325t"
"""FPGA that all networks are folded for: the smallest of those known that holds the weights of the MLP."""


@dataclass(frozen=True)
class Study:
    """A topology, and what CBNN makes of it.

    Attributes
    ----------
    dataset, layers, recipe : of the baseline
    kept_slices, widths : of CBNN
    control_seeds : trainings of each control, 0: none; baseline and CBNN have `seeds`
    """

    dataset: str
    layers: str
    recipe: Recipe
    kept_slices: tuple[int, ...]
    widths: tuple[float, ...]
    control_seeds: int
    seeds: int = SEEDS

    def point(self, seed: int, kept: tuple[int, ...] | None = None, widths: tuple[float, ...] = (1.0,),
              first_layer: Literal["sliced", "weighted"] = "sliced",
              precision: Literal["binary", "float first layer", "float"] = "binary", teacher: bool = False) -> Point:
        """One network of the study; all slices where `kept` is None."""
        kept = kept or tuple(range(datasets.find(self.dataset).input_bits - 1, -1, -1))
        return Point(self.dataset, self.layers, kept, widths, replace(self.recipe, seed=seed), first_layer, precision,
                     teacher)

    def rows(self) -> dict[str, list[Point]]:
        """Points of every row of the table, a seed each."""
        def seeded(n: int, *arguments: object, **options: object) -> list[Point]:
            return [self.point(seed, *arguments, **options) for seed in range(n)]  # type: ignore[arg-type]

        controls = self.control_seeds
        return {
            BASELINE: seeded(self.seeds),
            CBNN: seeded(self.seeds, self.kept_slices, self.widths),
            TAUGHT: seeded(controls, self.kept_slices, self.widths, teacher=True),
            RETRAINED: seeded(controls, self.kept_slices),
            WEIGHTED: seeded(controls, first_layer="weighted"),
            FLOAT: seeded(controls, first_layer="weighted", precision="float"),
            FLOAT_FIRST: seeded(controls, precision="float first layer")}


ORDER = FLOAT, WEIGHTED, FLOAT_FIRST, BASELINE, PRUNED, RETRAINED, CBNN, TAUGHT = (
    "full precision", "baseline BNN, weighted first layer", "all slices, first layer's weights in full precision",
    "sliced, all slices (baseline)", "slices pruned, not retrained", "slices pruned, retrained",
    "CBNN: slices pruned, shrunk, retrained", "CBNN, learning from full precision too (--teacher)")
STUDIES = {
    "mnist-cnn": Study("mnist", *DEFAULTS["mnist"], (7,), (0.375,), SEEDS),
    "mnist-mlp": Study("mnist", "1024FC-1024FC-1024FC-10FC", Recipe(15, 128, 0.005, shift=1), (7,), (0.375,), 0),
    "cifar10-narrow": Study("cifar10", "16C3-16C3-MP2-32C3-32C3-MP2-64C3-64C3-MP2-128FC-128FC-10FC",
                            Recipe(10, 64, 0.005, shift=4, flip=True), (7, 6, 5, 4), (0.5,), 0, 1),
}
SHIPPED = ("mnist-cnn", "mnist-mlp")
COPIES = ("", CBNN), ("-baseline", BASELINE)
"""How the names of shipped networks end, and the rows that they are of."""


def topologies_of(study: Study) -> dict[str, Topology]:
    """Topologies of the rows that are timed."""
    return {WEIGHTED: study.point(0, first_layer="weighted").topology, BASELINE: study.point(0).topology,
            CBNN: study.point(0, study.kept_slices, study.widths).topology}


def write_results(results: dict) -> None:
    """Write the numbers, and the table of the page."""
    files.write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    write_table("method", table(results), PAGE)


def write_cards(name: str, results: dict) -> None:
    """Write the model cards of a study's shipped networks."""
    for suffix, row in COPIES:
        card = {**results["rows"][row], "dataset": STUDIES[name].dataset, "trained_by": "python bench/method.py",
                "shipped_seed": 0, "interval_cycles": results["interval_cycles"][row], "device": results["device"]}
        files.write_atomically(ROOT / "model" / "pretrained" / f"{name}{suffix}.json",
                                 (json.dumps(card, indent=1) + "\n").encode())


def table(results: dict) -> str:
    """Rows of the page."""
    lines = []
    for name, result in results.items():
        rows, note = result["rows"], next(iter(result["rows"].values()))["note"]
        base = rows[BASELINE]
        lines += [f"**{name}**{f' ({note})' if note else ''}, baseline {base['layers']}", "",
                  "| network | slices | test accuracy, % | trainings | weight bits | operations |", "|" + "---|" * 6]
        for row, facts in sorted(rows.items(), key=lambda item: ORDER.index(item[0])):
            spread = f" ± {facts['spread']:.2f}" if len(facts["test"]) > 1 else ""
            sizes = [f"{facts[key]:,}" + (f" ({base[key] / facts[key]:.1f} x fewer)" if row == CBNN else "")
                     for key in ("weight_bits", "operations")]
            if facts["precision"] != "binary":
                sizes = [f"{facts['weight_bits']:,} weights", "not binary"]
            lines.append("| " + " | ".join([row, slices_text(facts["kept_slices"]), f"{facts['mean']:.2f}{spread}",
                                            str(len(facts["test"])), *sizes]) + " |")
        rates_ = result["images_per_second"]
        cycles = {row: f"{n:,}" for row, n in result["interval_cycles"].items()}
        reference = next(rate["median"] for row, rate in rates_.items() if row.startswith("PyTorch"))
        lines += ["", f"| run time | images per second, {os.cpu_count()} cores | beside PyTorch | cycles per image, "
                  f"{result['device']} |", "|" + "---|" * 4]
        lines += [f"| {row} | {rate['median']:,.0f} ({rate['least']:,.0f} to {rate['most']:,.0f}) | "
                  f"{rate['median'] / reference:.1f} x | {cycles.get(row, '')} |" for row, rate in rates_.items()]
        lines.append("")
    return "\n".join(lines).rstrip()
