"""The shipped MNIST networks are what their model cards say."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cbnn.model import datasets, golden, storage

FOLDER = Path(storage.__file__).parent / "pretrained"
NAMES = ("mnist-cnn", "mnist-cnn-baseline", "mnist-mlp", "mnist-mlp-baseline")
needs_mnist = pytest.mark.skipif(not os.environ.get("CBNN_DATA_DIR"),
                                 reason="CBNN_DATA_DIR does not name a folder that holds MNIST")


def card(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_size_is_that_of_the_card(name: str) -> None:
    topology, facts = storage.load(FOLDER / f"{name}.npz").topology, card(name)
    assert (str(topology), list(topology.kept_slices)) == (facts["layers"], facts["kept_slices"])
    assert (topology.n_weight_bits, topology.n_operations) == (facts["weight_bits"], facts["operations"])


@pytest.mark.parametrize("kind", ["mnist-cnn", "mnist-mlp"])
def test_promises(kind: str) -> None:
    small, base = card(kind), card(f"{kind}-baseline")
    assert base["mean"] >= {"mnist-cnn": 99.0, "mnist-mlp": 98.4}[kind]
    assert base["mean"] - small["mean"] <= 1.0
    assert base["weight_bits"] >= 5 * small["weight_bits"]
    assert base["operations"] >= 5 * small["operations"]
    assert len(small["test"]) >= 3
    assert len(base["test"]) >= 3


@needs_mnist
@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_that_of_the_card_in_both_implementations(name: str) -> None:
    network, data = storage.load(FOLDER / f"{name}.npz"), datasets.load("mnist")
    scores = golden.scores(network, data.test_images, backend="compiled")
    np.testing.assert_array_equal(scores, golden.scores(network, data.test_images, backend="numpy"))
    right = int((scores.argmax(axis=1) == data.test_labels).sum())
    assert round(100 * right / len(scores), 2) == card(name)["test"][0]
