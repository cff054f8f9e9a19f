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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cbnn.model import datasets, golden, points, storage
from cbnn.model.network import prune_slices
from cbnn.model.points import Point, mean_and_spread
from cbnn.model.training import DEFAULTS, Recipe

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "bench" / "results" / "method.json", ROOT / "docs" / "cbnn-method.md"
FOLDER = ROOT / "out" / "method"
SEEDS = 3


@dataclass(frozen=True)
class Study:
    """A topology, and what CBNN makes of it.

    Attributes
    ----------
    dataset, layers, recipe : of the baseline
    kept_slices, widths : of CBNN
    control_seeds : trainings of each control, 0: none; baseline and CBNN have `SEEDS`
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
              precision: Literal["binary", "float first layer", "float"] = "binary") -> Point:
        """One network of the study; all slices where `kept` is None."""
        kept = kept or tuple(range(datasets.find(self.dataset).input_bits - 1, -1, -1))
        return Point(self.dataset, self.layers, kept, widths, replace(self.recipe, seed=seed), first_layer, precision)

    def rows(self) -> dict[str, list[Point]]:
        """Points of every row of the table, a seed each."""
        def points(n: int, *arguments: object, **options: object) -> list[Point]:
            return [self.point(seed, *arguments, **options) for seed in range(n)]  # type: ignore[arg-type]

        controls = self.control_seeds
        return {
            BASELINE: points(self.seeds),
            CBNN: points(self.seeds, self.kept_slices, self.widths),
            "slices pruned and retrained": points(controls, self.kept_slices),
            "baseline BNN, weighted first layer": points(controls, first_layer="weighted"),
            "full precision": points(controls, first_layer="weighted", precision="float"),
            "all slices, first layer's weights in full precision": points(controls, precision="float first layer")}


BASELINE, CBNN, PRUNED = "sliced, all slices", "CBNN: pruned, shrunk, retrained", "slices pruned, not retrained"
STUDIES = {
    "mnist-cnn": Study("mnist", *DEFAULTS["mnist"], (7,), (0.4375,), 1),
    "mnist-mlp": Study("mnist", "1024FC-1024FC-1024FC-10FC", Recipe(15, 128, 0.005, shift=1), (7,), (0.625,), 0),
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
    return {"layers": str(topology), "kept_slices": list(topology.kept_slices), "first_layer": topology.first_layer,
            "precision": point.precision, "test": [round(100 * value, 2) for value in tests],
            "mean": round(100 * mean, 2), "spread": round(100 * spread, 2),
            "validation": [round(100 * value, 2) for value in validations],
            "weight_bits": topology.n_weight_bits, "operations": topology.n_operations,
            "seconds": [round(value) for value in seconds], "note": note, "recipe": point.recipe.__dict__}


def ship(name: str) -> None:
    """Copy the networks of seed 0 into the package."""
    for suffix, row in (("", CBNN), ("-baseline", BASELINE)):
        result = points.read_result(STUDIES[name].rows()[row][0], FOLDER)
        storage.save(result.load(FOLDER), ROOT / "model" / "pretrained" / f"{name}{suffix}.npz")


def main() -> None:
    """Measure what is named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", choices=[*STUDIES], default=[])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get(datasets.VARIABLE))
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.names or STUDIES:
        results[name] = measure(name, arguments.data_dir)
        storage.write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        if name in SHIPPED:
            ship(name)


if __name__ == "__main__":
    main()
