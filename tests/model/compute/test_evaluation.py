"""Evaluation: counts, and how sure they are."""

import json
import re
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytest

from cbnn.model.compute import evaluation, golden
from cbnn.model.compute.evaluation import Evaluation, evaluate
from cbnn.model.network import Network, random_network
from cbnn.model.topology import Topology

NETWORK = random_network(Topology.parse("6FC-3FC", (2, 2, 1), 3), 1)
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 8, (600, 2, 2, 1)), RNG.integers(0, 3, 600)


def test_counts_every_image_once():
    seen = []
    result = evaluate(NETWORK, IMAGES, LABELS, lambda done: seen.append(done.n_images))
    found = golden.classes(NETWORK, IMAGES)
    assert result.confusion.tolist() == [[int(((label == LABELS) & (found == other)).sum()) for other in range(3)]
                                         for label in range(3)]
    assert result.accuracy == golden.accuracy(NETWORK, IMAGES, LABELS)
    assert seen == [256, 512, 600]


@pytest.mark.parametrize(("right", "wrong", "low", "high"), [
    # Wilson's intervals, as in R's prop.test(right, right + wrong, correct = FALSE).
    (90, 10, 0.8256, 0.9448), (0, 10, 0.0, 0.2775), (10, 0, 0.7225, 1.0), (50, 50, 0.4038, 0.5962),
])
def test_interval_is_wilsons(right, wrong, low, high):
    interval = Evaluation(np.array([[right, wrong], [0, 0]]), 1.0).confidence
    assert interval == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("images", "labels", "sentence"), [
    (IMAGES, LABELS[1:], "labels of shape (599,) given for 600 images; one label per image is needed"),
    (IMAGES[:0], LABELS[:0], "no image given; at least one is needed"),
    (IMAGES, LABELS + 1, "labels are int64, 1 to 3; the network has classes 0 to 2"),
    (IMAGES, LABELS * 0.5, "labels are float64, 0.0 to 1.0; the network has classes 0 to 2"),
])
def test_what_does_not_suit_is_refused(images, labels, sentence):
    with pytest.raises(ValueError) as caught:
        evaluate(NETWORK, images, labels)
    assert str(caught.value) == sentence


class StopError(Exception):
    pass


@pytest.fixture
def partial(tmp_path, monkeypatch):
    """A file of an evaluation that was stopped after 512 images, and a list that notes how many are classified."""

    def interrupt(done):
        if done.n_images > 256:
            raise StopError

    path = tmp_path / "partial.json"
    with pytest.raises(StopError):
        evaluate(NETWORK, IMAGES, LABELS, interrupt, path)
    sent = []
    monkeypatch.setattr(golden, "classes", lambda network, images, classes=golden.classes: sent.append(len(images))
                        or classes(network, images))
    return path, sent


def test_goes_on_where_it_was_interrupted(partial):
    path, sent = partial
    seen = []
    result = evaluate(NETWORK, IMAGES, LABELS, lambda done: seen.append(done.n_images), path)
    assert (seen, sent) == ([512, 600], [88])
    assert result.confusion.tolist() == evaluate(NETWORK, IMAGES, LABELS).confusion.tolist()
    sent.clear()
    again = evaluate(NETWORK, IMAGES, LABELS, partial=path)
    assert (again.confusion.tolist(), sent) == (result.confusion.tolist(), [])


def test_images_that_came_later_are_counted_too(partial):
    path, sent = partial
    evaluate(NETWORK, IMAGES, LABELS, partial=path)
    more, labels = np.concatenate([IMAGES, IMAGES]), np.concatenate([LABELS, LABELS])
    for wanted in ([256, 256, 88], []):  # counted now, and what another call finds counted
        sent.clear()
        assert evaluate(NETWORK, more, labels, partial=path).n_images == 1200
        assert sent == wanted


OTHER = IMAGES.copy()
OTHER[511, 1, 1, 0] ^= 1


@pytest.mark.parametrize(("network", "images", "labels"), [
    (NETWORK, OTHER, LABELS),  # one pixel of the last image counted
    (NETWORK, IMAGES[::-1], LABELS), (NETWORK, IMAGES.astype(np.uint8), LABELS),
    (NETWORK, IMAGES, LABELS[::-1]), (NETWORK, IMAGES[:500], LABELS[:500]),
    (random_network(NETWORK.topology, 2), IMAGES, LABELS),
    (Network(NETWORK.topology, NETWORK.parameters, np.arange(8)[::-1].copy()), IMAGES, LABELS),
])
def test_only_the_same_network_and_images_are_gone_on_with(partial, network, images, labels):
    path, sent = partial
    before = path.read_bytes()
    with pytest.raises(ValueError) as caught:
        evaluate(network, images, labels, partial=path)
    assert str(caught.value) == f"{path} holds the evaluation of another network or of other images; name another file"
    assert (path.read_bytes(), sent) == (before, [])


def test_a_killed_run_loses_no_more_than_a_batch_and_the_time_between_savings(tmp_path, monkeypatch):
    path, saved, clock = tmp_path / "partial.json", [], iter(np.arange(0, 100, 0.6))
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(monotonic=lambda: next(clock), perf_counter=perf_counter))
    images, labels = np.concatenate([IMAGES] * 4), np.concatenate([LABELS] * 4)
    evaluate(NETWORK, images, labels, lambda done: saved.append(
        np.sum(json.loads(path.read_text())["confusion"]) if path.exists() else 0), path)
    # Savings 1.2 seconds apart, every second batch; never more behind.
    assert saved == [0, 512, 512, 1024, 1024, 1536, 1536, 2048, 2048, 2400]


COUNTS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("content", [
    "", "[]", "{}", "[" * 4000, "\udcff", '{"key": "a", "confusion": [[1, 2]], "seconds": 1}',
    *(json.dumps({"key": "a", "confusion": COUNTS, "seconds": 1.5} | {name: value}) for name, value in (
        ("key", 1), ("seconds", float("nan")), ("seconds", float("inf")), ("seconds", 1e308), ("seconds", "1"),
        ("seconds", -1), ("seconds", 10**400), ("seconds", True), ("confusion", 3), ("confusion", COUNTS[:2]),
        ("confusion", [[0] * 3] * 3), ("confusion", [[-1, 2, 3], *COUNTS[1:]]), ("confusion", [[1.5] * 3] * 3),
        ("confusion", [["a"] * 3] * 3), ("confusion", [[True] * 3] * 3), ("confusion", [[10**400] * 3] * 3),
        ("confusion", [[2**63 - 1] * 3] * 3), ("confusion", [COUNTS] * 3), ("more", 1)))])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "partial.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as caught:
        evaluate(NETWORK, IMAGES, LABELS, partial=path)
    assert re.fullmatch(rf"{re.escape(str(path))} holds no evaluation(: its JSON is wrong: .+| of a network of 3 "
                        "classes); name another file", str(caught.value))
    assert path.read_bytes() == content.encode(errors="surrogateescape")


def test_pixels_above_what_was_trained_on_are_refused():
    trained = Network(NETWORK.topology, NETWORK.parameters, max_pixel=5)
    assert evaluate(trained, IMAGES.clip(max=5), LABELS).n_images == 600
    with pytest.raises(ValueError) as caught:
        evaluate(trained, IMAGES, LABELS)
    assert str(caught.value) == "a pixel is 7; the network was trained on pixels of 0 to 5"


def test_images_larger_than_memory_come_batch_by_batch(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    mapped = np.load(path, mmap_mode="r")
    assert evaluate(NETWORK, mapped, LABELS).confusion.tolist() == evaluate(NETWORK, IMAGES, LABELS).confusion.tolist()
