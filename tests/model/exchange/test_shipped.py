"""The shipped networks are as they were trained, and those of MNIST are what their model cards say."""

import hashlib
import json
import os

import numpy as np
import pytest

from cbnn.model.compute import golden
from cbnn.model.data import datasets
from cbnn.model.exchange import storage
from cbnn.model.exchange.shipped import shipped, shipped_digits

FOLDER = shipped()["digits-5"].parent
NAMES = ("mnist-cnn", "mnist-cnn-baseline", "mnist-mlp", "mnist-mlp-baseline")
needs_mnist = pytest.mark.skipif(not os.environ.get("CBNN_DATA_DIR"),
                                 reason="CBNN_DATA_DIR does not name a folder that holds MNIST")


LEARNT = {"digits-1": "0c45fb57268efbad", "digits-2": "7d48e875af118e0a", "digits-3": "2630acc7ff08850b",
          "digits-4": "e36e0feb3528bd2d", "digits-5": "cb644e1aa7a0f725", "mnist-cnn": "773b71c494988025",
          "mnist-cnn-baseline": "bc198834d01e387e", "mnist-mlp": "e5ba92a428a8afc0",
          "mnist-mlp-baseline": "9cb0268aec20433d"}
"""What each learnt, as it was when it was trained: the start of a SHA-256 sum of all its parameters."""


def test_all_are_found_by_name() -> None:
    assert shipped().keys() == LEARNT.keys()
    assert [len(network.topology.kept_slices) for network in shipped_digits()] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("name", LEARNT)
def test_weights_are_those_that_were_trained_and_pixels_those_of_the_data(name: str) -> None:
    network, digest = storage.load(FOLDER / f"{name}.npz"), hashlib.sha256()
    for parameters in network.parameters:
        for array in parameters.arrays.values():
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == LEARNT[name]
    assert network.max_pixel == datasets.find(name.split("-")[0]).max_pixel


def card(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_size_is_that_of_the_card(name: str) -> None:
    topology, facts = storage.load(FOLDER / f"{name}.npz").topology, card(name)
    assert (topology.layers_text, list(topology.kept_slices)) == (facts["layers"], facts["kept_slices"])
    assert (topology.n_weight_bits, topology.n_operations) == (facts["weight_bits"], facts["operations"])


@pytest.mark.parametrize("kind", ["mnist-cnn", "mnist-mlp"])
def test_compact_networks_are_five_times_smaller(kind: str) -> None:
    small, base = (storage.load(FOLDER / f"{name}.npz").topology for name in (kind, f"{kind}-baseline"))
    assert base.n_weight_bits >= 5 * small.n_weight_bits
    assert base.n_operations >= 5 * small.n_operations


@needs_mnist
@pytest.mark.parametrize(("kind", "least"), [("mnist-cnn", 0.99), ("mnist-mlp", 0.984)])
def test_compact_networks_lose_a_point_at_most(kind: str, least: float) -> None:
    data = datasets.load("mnist")
    small, base = (golden.accuracy(storage.load(FOLDER / f"{name}.npz"), data.test_images, data.test_labels)
                   for name in (kind, f"{kind}-baseline"))
    assert base >= least
    assert base - small <= 0.01


@needs_mnist
@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_that_of_the_card_in_both_implementations(name: str) -> None:
    network, data = storage.load(FOLDER / f"{name}.npz"), datasets.load("mnist")
    scores = golden.scores(network, data.test_images, backend="compiled")
    np.testing.assert_array_equal(scores, golden.scores(network, data.test_images, backend="numpy"))
    right = int((scores.argmax(axis=1) == data.test_labels).sum())
    assert round(100 * right / len(scores), 2) == card(name)["test"][0]
