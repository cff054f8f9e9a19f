"""Evaluation: counts, and how sure they are."""

import numpy as np
import pytest

from cbnn.model import golden
from cbnn.model.evaluation import Evaluation, evaluate, read_partial, write_partial
from cbnn.model.network import random_network
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


def test_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    path, whole = tmp_path / "partial.json", evaluate(NETWORK, IMAGES, LABELS)

    def interrupt(done):
        write_partial(done, "these", path)
        if done.n_images > 256:
            raise StopError

    with pytest.raises(StopError):
        evaluate(NETWORK, IMAGES, LABELS, interrupt)
    begun, sent = read_partial("these", path), []
    assert begun is not None
    assert begun.n_images == 512
    monkeypatch.setattr(golden, "classes", lambda _, images, classes=golden.classes: sent.append(len(images))
                        or classes(NETWORK, images))
    result = evaluate(NETWORK, IMAGES, LABELS, begun=begun)
    assert result.confusion.tolist() == whole.confusion.tolist()
    assert sent == [88]


def test_only_what_was_begun_can_be_gone_on_with(tmp_path):
    path = tmp_path / "partial.json"
    assert read_partial("these", path) is None
    write_partial(evaluate(NETWORK, IMAGES[:300], LABELS[:300]), "these", path)
    with pytest.raises(ValueError) as caught:
        read_partial("those", path)
    assert str(caught.value) == f"{path} holds the evaluation of another network or of other images; name another file"
    begun = read_partial("these", path)
    for labels in (LABELS[::-1], LABELS[:200]):
        with pytest.raises(ValueError) as caught:
            evaluate(NETWORK, IMAGES[: len(labels)], labels, begun=begun)
        assert str(caught.value) == ("the evaluation to go on with is not of these images: it counted 300 others")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "these", "confusion": [[1, 2]], "seconds": 1}',
                                     '{"key": "these", "confusion": [[-1]], "seconds": 1}',
                                     '{"key": "these", "confusion": [["a"]], "seconds": 1}'])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "partial.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="holds no evaluation"):
        read_partial("these", path)
    assert path.read_text() == content


def test_images_larger_than_memory_come_batch_by_batch(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    mapped = np.load(path, mmap_mode="r")
    assert evaluate(NETWORK, mapped, LABELS).confusion.tolist() == evaluate(NETWORK, IMAGES, LABELS).confusion.tolist()
