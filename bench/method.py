"""Train and measure CBNN and its controls on MNIST and on a narrow CIFAR-10 network; ship the MNIST ones.

    python bench/method.py [--data-dir DIR] [mnist-cnn] [mnist-mlp] [cifar10-narrow]

Every network is a point on disk under out/method, trained once; interrupt and go on as you like. Accuracies are of the
test split, which nothing is chosen by, in percent, mean and spread (standard deviation) over seeds. Results go to
bench/results/method.json, the table to docs/cbnn-method.md. Of the networks named in SHIPPED, seed 0 is copied to
model/pretrained with a model card beside it. Cycles per image are found anew by bench/account.py, without training.
"""

import argparse
import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from account import interval_cycles
from golden import float_call, rates
from matplotlib import pyplot
from studies import (
    BASELINE,
    CBNN,
    COPIES,
    DEVICE,
    PRUNED,
    RESULTS,
    ROOT,
    SHIPPED,
    STUDIES,
    WEIGHTED,
    topologies_of,
    write_cards,
    write_results,
)

from cbnn.model.compute import golden
from cbnn.model.compute.evaluation import mean_and_spread
from cbnn.model.data import datasets
from cbnn.model.exchange import storage
from cbnn.model.learn import points
from cbnn.model.learn.binary_module import export
from cbnn.model.learn.points import Point
from cbnn.model.learn.sensitivity import sensitivity
from cbnn.model.learn.training import classes, train
from cbnn.model.network import prune_slices, random_network

FOLDER = ROOT / "out" / "method"
PLOT = ROOT / "docs" / "cbnn-method.svg"


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
    topologies = topologies_of(study)
    networks = {row: random_network(topology, 0) for row, topology in topologies.items()}
    images = datasets.load(study.dataset, data_dir).test_images[:2048]
    batches = {batch: rates({"": float_call(topologies[WEIGHTED], batch)})[""]["median"] for batch in (16, 64, 256)}
    best = max(batches, key=lambda batch: batches[batch])
    calls = {f"PyTorch float32, batch {best}": float_call(topologies[WEIGHTED], best)}
    calls |= {row: partial(lambda network: len(golden.scores(network, images)), network)
              for row, network in networks.items()}
    return {"images_per_second": rates(calls), "interval_cycles": interval_cycles(name), "device": DEVICE}


def carried(name: str, data_dir: Path | None) -> list[dict]:
    """Sensitivity of the baseline of seed 0, on the images set apart."""
    study = STUDIES[name]
    network = points.read_result(study.rows()[BASELINE][0], FOLDER).load(FOLDER)
    images, labels = points.split(study.dataset, datasets.load(study.dataset, data_dir))[2:]
    return [{"mode": s.mode, "slice": s.slice, "colour": s.colour, "mean": s.mean, "spread": s.spread}
            for s in sensitivity(network, images, labels)]


def ship(name: str, results: dict) -> None:
    """Copy the networks of seed 0 into the package, with a model card each."""
    for suffix, row in COPIES:
        result = points.read_result(STUDIES[name].rows()[row][0], FOLDER)
        storage.save(result.load(FOLDER), ROOT / "model" / "pretrained" / f"{name}{suffix}.npz")
    write_cards(name, results)


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
        write_results(results)
        if name in SHIPPED:
            ship(name, results[name])
    plot(results)


if __name__ == "__main__":
    main()
