"""Compaction finds the smallest network that trying all would find, trains few, and goes on where it stopped."""

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from cbnn.model.compute import golden
from cbnn.model.compute.evaluation import mean_and_spread
from cbnn.model.data import digits
from cbnn.model.learn import compact as module
from cbnn.model.learn.compact import compact, results
from cbnn.model.learn.points import Result, baseline, read_result, train_points
from cbnn.model.learn.training import Recipe

LAYERS, RECIPE = "8C3-MP2-16FC-10FC", Recipe(epochs=1, batch=64, seed=5)
BASE = baseline("digits", LAYERS, RECIPE)
WIDTHS = (1.0, 0.75, 0.5, 0.25)


def judge(rule):
    """Stand in for training: accuracy by a rule over slices kept and weights of each layer."""
    trained = []

    def train(points, folder, data_dir=None, progress=None):
        trained.extend(point for point in points if point not in trained)
        return [Result(rule(point), None, 0.0, f"{point.name}.npz", "") for point in points]

    return train, trained


def search(monkeypatch, rule, folder):
    train, trained = judge(rule)
    monkeypatch.setattr(module, "train_points", train)
    monkeypatch.setattr(Result, "load", lambda self, folder: None)
    # Each slice carries as much as its number says.
    monkeypatch.setattr(module, "sensitivity", lambda *_: [
        module.Sensitivity("single", b, (1 - b / 10,)) for b in BASE.kept_slices])
    return compact(BASE, folder, max_drop=2.0, widths=WIDTHS), trained


RULES = {
    "all the same": lambda n, width: 0.9,
    "only the baseline": lambda n, width: 0.9 if (n, width) == (5, 1) else 0.5,
    "slices cost": lambda n, width: 0.9 - 0.009 * (5 - n),
    "widths cost": lambda n, width: 0.9 - 0.03 * (1 - width),
    "both cost": lambda n, width: 0.9 - 0.006 * (5 - n) - 0.02 * (1 - width),
    "a staircase": lambda n, width: 0.9 if n * width >= 1.4 else 0.6,
}


@pytest.mark.parametrize("name", RULES)
def test_the_smallest_of_the_whole_grid(name, monkeypatch, tmp_path):
    def rule(point):
        return RULES[name](len(point.kept_slices), sum(point.widths) / len(point.widths))

    found, trained = search(monkeypatch, rule, tmp_path)
    levels = [BASE.kept_slices[:n] for n in range(5, 0, -1)]
    grid = [replace(BASE, kept_slices=kept, widths=(width,)) for kept, width in product(levels, WIDTHS)]
    smallest = min((point for point in grid if rule(point) >= rule(BASE) - 0.02),
                   key=lambda point: (point.topology.n_weight_bits, point.topology.n_operations))
    same_width = [point for point, _ in found.grid if len(point.widths) == 1 and rule(point) >= found.budget]
    assert smallest in same_width
    assert found.found[0].topology.n_weight_bits <= smallest.topology.n_weight_bits
    assert rule(found.found[0]) >= found.budget
    assert len([point for point, _ in found.grid if len(point.widths) == 1]) <= 12
    assert [point.recipe.seed for point in found.found] == [5, 6, 7]
    assert {point for point, _ in found.grid} <= set(trained)
    assert search(monkeypatch, rule, tmp_path)[0] == found


def test_layers_are_narrowed_one_by_one(monkeypatch, tmp_path):
    def rule(point):  # the first layer cannot do with less, the second one can, by a step
        first, second = point.widths * (2 if len(point.widths) == 1 else 1)
        return 0.9 if len(point.kept_slices) == 5 and first == 1 and second >= 0.75 else 0.1

    found, _ = search(monkeypatch, rule, tmp_path)
    assert found.found[0].widths == (1.0, 0.75)
    assert found.found[0].kept_slices == BASE.kept_slices


def test_the_smallest_must_hold_with_further_seeds(monkeypatch, tmp_path):
    def rule(point):  # the narrowest were lucky with the seed of the search
        lucky = point.recipe.seed == RECIPE.seed
        return 0.9 if min(point.widths) >= 0.5 or lucky else 0.6

    found, _ = search(monkeypatch, rule, tmp_path)
    assert min(found.found[0].widths) == 0.5
    assert any(min(point.widths) < 0.5 and result.validation_accuracy >= found.budget for point, result in found.grid)


def test_front_is_what_nothing_beats(monkeypatch, tmp_path):
    found, _ = search(monkeypatch, lambda point: RULES["a staircase"](len(point.kept_slices), min(point.widths)),
                      tmp_path)
    sizes = [(point.topology.n_weight_bits, point.topology.n_operations) for point, _ in found.front]
    assert sizes == sorted(sizes)
    assert [operations for _, operations in sizes] == sorted((operations for _, operations in sizes), reverse=True)
    assert all(result.validation_accuracy >= found.budget for _, result in found.front)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"max_drop": -1.0}, "a loss of -1.0 points is allowed; it must be 0 to below 100"),
    ({"widths": (0.5,)}, "widths must decrease strictly from 1; got 0.5"),
    ({"widths": (1.0, 0.5, 0.5)}, "widths must decrease strictly from 1; got 1.0, 0.5, 0.5"),
    ({"widths": (1.0, 0.3)}, "layer 0: a width of 0.3 makes 2.4 rows; it must be a whole number of 1 to 1048576"),
])
def test_what_does_not_suit_is_refused(options, sentence, tmp_path):
    with pytest.raises(ValueError) as caught:
        compact(BASE, tmp_path, **options)
    assert str(caught.value) == sentence
    assert not list(tmp_path.iterdir())


def test_points_are_trained_once_and_kept(tmp_path: Path, request: pytest.FixtureRequest,
                                          monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # one worker: each imports PyTorch
    points = [BASE, replace(BASE, recipe=replace(RECIPE, seed=6)), BASE]
    seen: list[tuple[float, int]] = []
    first = train_points(points, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 2)
    assert seen[-1] == (2, 2)
    assert first[0] == first[2]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(stamps) == 4
    (tmp_path / f"{points[1].name}.json").unlink()  # as after an interruption
    request.getfixturevalue("points_are_trained_here")  # whose results are those of the workers
    assert [result.validation_accuracy for result in train_points(points, tmp_path)] == [
        result.validation_accuracy for result in first]
    assert (tmp_path / f"{BASE.name}.json").stat().st_mtime_ns == stamps[tmp_path / f"{BASE.name}.json"]
    network = first[0].load(tmp_path)
    assert network.topology == BASE.topology
    data = digits.load()
    assert 0 <= golden.accuracy(network, data.test_images, data.test_labels) <= 1
    assert network.max_pixel == 16
    assert results((BASE,), tmp_path) == [first[0]]


@pytest.mark.usefixtures("points_are_trained_here")
def test_controls_in_full_precision_are_judged_at_once(tmp_path: Path):
    points = [replace(BASE, precision="float", first_layer="weighted"), replace(BASE, precision="float first layer"),
              replace(BASE, teacher=True)]
    for point, result in zip(points, train_points(points, tmp_path), strict=True):
        assert (result.network is None) == (point.precision != "binary")
        assert (result.test_accuracy is None) == (point.precision == "binary")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"validation_accuracy": 1}'])
def test_a_foreign_result_is_refused(content: str, tmp_path: Path):
    path = tmp_path / f"{BASE.name}.json"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_result(BASE, tmp_path)
    assert str(caught.value).startswith(f"{path} is not the result of a training: ")


@pytest.mark.usefixtures("points_are_trained_here")
def test_a_point_that_cannot_be_trained_is_refused(tmp_path: Path):
    for point, sentence in ((replace(BASE, dataset="imagenet"), "data set 'imagenet' is not one of "),
                            (replace(BASE, widths=(0.3,)), "layer 0: a width of 0.3 makes 2.4 rows"),
                            (replace(BASE, recipe=replace(RECIPE, batch=5000)), "1007 images do not fill a batch of")):
        with pytest.raises(ValueError) as caught:
            train_points([point], tmp_path)
        assert str(caught.value).startswith(sentence)
    assert not list(tmp_path.iterdir())


def test_mean_and_spread():
    assert mean_and_spread([0.5, 0.7]) == pytest.approx((0.6, 0.1414), abs=1e-4)
    assert mean_and_spread([0.5]) == (0.5, 0.0)
