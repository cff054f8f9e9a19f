"""Evaluation: counts, and how sure they are."""

import numpy as np
import pytest

from cbnn.model import golden
from cbnn.model.evaluation import Evaluation, evaluate
from cbnn.model.network import random_network
from cbnn.model.topology import Topology

NETWORK = random_network(Topology.parse("6FC-3FC", (2, 2, 1), 3), 1)
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 8, (600, 2, 2, 1)), RNG.integers(0, 3, 600)


def test_counts_every_image_once():
    seen = []
    result = evaluate(NETWORK, IMAGES, LABELS, lambda done, total: seen.append((done, total)))
    found = golden.classes(NETWORK, IMAGES)
    assert result.confusion.tolist() == [[int(((label == LABELS) & (found == other)).sum()) for other in range(3)]
                                         for label in range(3)]
    assert result.accuracy == golden.accuracy(NETWORK, IMAGES, LABELS)
    assert seen == [(0, 600), (256, 600), (512, 600), (600, 600)]


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
