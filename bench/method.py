"""Train and measure CBNN and its controls on MNIST and on a narrow CIFAR-10 network; ship the MNIST ones.

    python bench/method.py [--data-dir DIR] [mnist-cnn] [mnist-mlp] [cifar10-narrow]

Every network is a point on disk under out/method, trained once; interrupt and go on as you like. Accuracies are of the
test split, which nothing is chosen by, in percent, mean and spread (standard deviation) over seeds. Results go to
bench/results/method.json, the table to docs/cbnn-method.md. Of the networks named in SHIPPED, seed 0 is copied to
model/pretrained with a model card beside it.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from golden import float_call, rates
from matplotlib import pyplot
from rtl import write_table

from cbnn.model import files
from cbnn.model.compute import golden
from cbnn.model.compute.evaluation import mean_and_spread
from cbnn.model.data import datasets
from cbnn.model.exchange import storage
from cbnn.model.learn import points
from cbnn.model.learn.binary_module import export
from cbnn.model.learn.points import Point
from cbnn.model.learn.sensitivity import sensitivity
from cbnn.model.learn.training import DEFAULTS, Recipe, classes, train
from cbnn.model.network import prune_slices, random_network
from cbnn.model.slices import slices_text
from cbnn.sim.predict.search import DEVICES, Budget, Search

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "bench" / "results" / "method.json", ROOT / "docs" / "cbnn-method.md"
FOLDER = ROOT / "out" / "method"
PLOT = ROOT / "docs" / "cbnn-method.svg"
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


def measure(name: str, data_dir: Path | None) -> dict:
    """Train what is missing of a study; return its table."""
    study = STUDIES[name]
    rows = {row: chosen for row, chosen in study.rows().items() if chosen}
    flat = [point for chosen in rows.values() for point in chosen]
    points.train_points(flat, FOLDER, data_dir, lambda done, total: print(f"{name}: {done:.2f} of {total}", flush=True))
    data = datasets.load(study.dataset, data_dir)
    table = {}
    for row, chosen in rows.items():
        results = [points.read_result(point, FOLDER) for point in chosen]
        tests = [result.test_accuracy if result.network is None
                 else golden.accuracy(result.load(FOLDER), data.test_images, data.test_labels) for result in results]
        table[row] = entry(chosen[0], tests, [result.validation_accuracy for result in results],
                           [result.seconds for result in results], data.note)
    base = points.read_result(rows[BASELINE][0], FOLDER).load(FOLDER)
    pruned = prune_slices(base, study.kept_slices)
    table[PRUNED] = entry(study.point(0, study.kept_slices),
                          [golden.accuracy(pruned, data.test_images, data.test_labels)], [], [], data.note)
    return table


def entry(point: Point, tests: list[float], validations: list[float], seconds: list[float], note: str) -> dict:
    """One row."""
    topology = point.topology
    mean, spread = mean_and_spread(tests)
    return {"layers": topology.layers_text, "kept_slices": list(topology.kept_slices),
            "first_layer": topology.first_layer,
            "precision": point.precision, "test": [round(100 * value, 2) for value in tests],
            "mean": round(100 * mean, 2), "spread": round(100 * spread, 2),
            "validation": [round(100 * value, 2) for value in validations],
            "weight_bits": topology.n_weight_bits, "operations": topology.n_operations,
            "seconds": [round(value) for value in seconds], "note": note, "recipe": asdict(point.recipe)}


def speeds(name: str, data_dir: Path | None) -> dict:
    """Images per second on this CPU, runs taken in turn, and cycles per image on one FPGA, for every seed 0."""
    study = STUDIES[name]
    topologies = {WEIGHTED: study.point(0, first_layer="weighted").topology, BASELINE: study.point(0).topology,
                  CBNN: study.point(0, study.kept_slices, study.widths).topology}
    networks = {row: random_network(topology, 0) for row, topology in topologies.items()}
    images = datasets.load(study.dataset, data_dir).test_images[:2048]
    batches = {batch: rates({"": float_call(topologies[WEIGHTED], batch)})[""]["median"] for batch in (16, 64, 256)}
    best = max(batches, key=lambda batch: batches[batch])
    calls = {f"PyTorch float32, batch {best}": float_call(topologies[WEIGHTED], best)}
    calls |= {row: partial(lambda network: len(golden.scores(network, images)), network)
              for row, network in networks.items()}
    cycles = {row: Search(topology).fastest(Budget(*DEVICES[DEVICE])).interval_cycles
              for row, topology in topologies.items()}
    return {"images_per_second": rates(calls), "interval_cycles": cycles, "device": DEVICE}


def carried(name: str, data_dir: Path | None) -> list[dict]:
    """Sensitivity of the baseline of seed 0, on the images set apart."""
    study = STUDIES[name]
    network = points.read_result(study.rows()[BASELINE][0], FOLDER).load(FOLDER)
    images, labels = points.split(study.dataset, datasets.load(study.dataset, data_dir))[2:]
    return [{"mode": s.mode, "slice": s.slice, "colour": s.colour, "mean": s.mean, "spread": s.spread}
            for s in sensitivity(network, images, labels)]


def ship(name: str, results: dict) -> None:
    """Copy the networks of seed 0 into the package, with a model card each."""
    for suffix, row in (("", CBNN), ("-baseline", BASELINE)):
        result = points.read_result(STUDIES[name].rows()[row][0], FOLDER)
        storage.save(result.load(FOLDER), ROOT / "model" / "pretrained" / f"{name}{suffix}.npz")
        card = {**results["rows"][row], "dataset": STUDIES[name].dataset, "trained_by": "python bench/method.py",
                "shipped_seed": 0, "interval_cycles": results["interval_cycles"][row], "device": results["device"]}
        files.write_atomically(ROOT / "model" / "pretrained" / f"{name}{suffix}.json",
                                 (json.dumps(card, indent=1) + "\n").encode())


def prove(name: str, data_dir: Path | None) -> None:
    """Train the shipped networks once more: the same bits, and all classes of the test images as the module's own."""
    study = STUDIES[name]
    data = datasets.load(study.dataset, data_dir)
    images, labels = points.split(study.dataset, data)[:2]
    for row in (CBNN, BASELINE):
        point = study.rows()[row][0]
        module = train(point.topology, images, labels, point.recipe)
        network = points.read_result(point, FOLDER).load(FOLDER)
        again = export(module)
        same = all(np.array_equal(a.weights, b.weights) and np.array_equal(a.thresholds, b.thresholds)
                   for a, b in zip(network.layers[:-1], again.layers[:-1], strict=True))
        found = classes(module, data.test_images)
        n = int((found == golden.classes(again, data.test_images)).sum())
        print(f"{name}, {row}: trained again the same: {same}; classes that agree: {n} of {len(found)}", flush=True)


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
        rates_, cycles = result["images_per_second"], result["interval_cycles"]
        reference = next(rate["median"] for row, rate in rates_.items() if row.startswith("PyTorch"))
        lines += ["", f"| run time | images per second, {os.cpu_count()} cores | beside PyTorch | cycles per image, "
                  f"{result['device']} |", "|" + "---|" * 4]
        lines += [f"| {row} | {rate['median']:,.0f} ({rate['least']:,.0f} to {rate['most']:,.0f}) | "
                  f"{rate['median'] / reference:.1f} x | {cycles.get(row, '')} |" for row, rate in rates_.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def plot(results: dict) -> None:
    """Draw what the slices carry, and accuracy over size."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4), layout="constrained")
    for name, result in results.items():
        for mode, style in (("single", "-o"), ("cumulative", "--s")):
            rows = [row for row in result["sensitivity"] if row["mode"] == mode]
            left.plot([row["slice"] for row in rows], [100 * row["mean"] for row in rows], style,
                      label=f"{name}, {'this slice' if mode == 'single' else 'and all below'}")
        facts = [result["rows"][row] for row in (BASELINE, CBNN)]
        right.errorbar([row["weight_bits"] for row in facts], [row["mean"] for row in facts],
                       [row["spread"] for row in facts], fmt="o--", capsize=4, label=f"{name}: baseline, CBNN")
    left.set(title="accuracy with slices randomised, not retrained", xlabel="slice (0: LSB)", ylabel="%")
    right.set(title="test accuracy", xlabel="weight bits", ylabel="%", xscale="log")
    for axes in (left, right):
        axes.legend(fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    """Measure what is named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get(datasets.VARIABLE))
    parser.add_argument("--prove", action="store_true", help="train the shipped networks again, and compare")
    arguments = parser.parse_args()
    names = arguments.names or list(STUDIES)
    if arguments.prove:
        for name in names:
            prove(name, arguments.data_dir)
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        results[name] = {"rows": measure(name, arguments.data_dir), "sensitivity": carried(name, arguments.data_dir),
                         **speeds(name, arguments.data_dir)}
        files.write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        if name in SHIPPED:
            ship(name, results[name])
    write_table("method", table(results), PAGE)
    plot(results)


if __name__ == "__main__":
    main()
