"""Sensitivity: the right slices are randomised, without bias, and the numbers repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.compute import golden
from cbnn.model.learn.sensitivity import Sensitivity, n_steps, pruning_order, randomise, sensitivity
from cbnn.model.network import Network, random_network
from cbnn.model.operators.matrix import MatrixParameters
from cbnn.model.topology import Topology

TOPOLOGY = Topology.parse("6C3-MP2-4FC", (4, 4, 2), 6, (5, 3, 2, 0))
RANDOM = random_network(TOPOLOGY, 1)
SCORES = MatrixParameters(RANDOM.layers[-1].weights, offsets=np.zeros(4, int))
NETWORK = Network(TOPOLOGY, (*RANDOM.parameters[:-1], SCORES))
IMAGES = np.random.default_rng(0).integers(0, 64, (40, 4, 4, 2), np.uint8)
LABELS = golden.classes(NETWORK, IMAGES)


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 7), min_size=1), st.integers(0, 255),
       st.sampled_from([np.uint8, np.int16, np.int64, ">u2"]))
def test_only_the_chosen_slices_change(slices: set[int], pixel: int, dtype: type) -> None:
    images = np.full((20, 10, 10, 2), pixel, dtype)
    before, mask = images.copy(), sum(1 << b for b in slices)
    noisy = randomise(images, tuple(slices), np.random.default_rng(3))
    np.testing.assert_array_equal(images, before)
    assert noisy.shape == images.shape
    assert set(np.unique(noisy.astype(int) ^ pixel).tolist()) <= {m for m in range(256) if m & ~mask == 0}


@pytest.mark.parametrize("pixel", [0, 0b10110101, 255])
@pytest.mark.parametrize("slices", [(0,), (7,), (5, 3, 0), (1, 6), (0, 1, 2, 3), tuple(range(8))], ids=str)
def test_bits_are_unbiased_and_independent(slices: tuple[int, ...], pixel: int) -> None:
    n = 40_000
    noisy = randomise(np.full((n, 1, 1, 1), pixel, np.uint8), slices, np.random.default_rng(9)).ravel()
    bits = np.array([noisy >> b & 1 for b in slices])
    within = 5 * 0.5 / n**0.5  # five standard deviations
    assert np.abs(bits.mean(axis=1) - 0.5).max() < within
    for i in range(len(slices)):
        for j in range(i):
            assert abs((bits[i] == bits[j]).mean() - 0.5) < within


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16])
def test_slices_above_the_dtype_of_small_pixels(dtype: type) -> None:
    top = 7 if dtype == np.int8 else 15
    noisy = randomise(np.full((30, 3, 3, 1), 5, dtype), (top,), np.random.default_rng(0))
    assert set(noisy.ravel().tolist()) == {5, 5 + (1 << top)}


def test_colours_and_pixels_differ() -> None:
    noisy = randomise(np.zeros((4, 16, 16, 2), np.uint8), (0,), np.random.default_rng(0))
    assert (noisy[..., 0] != noisy[..., 1]).any()
    assert (noisy[0] != noisy[1]).any()


def test_order_and_number() -> None:
    results = list(sensitivity(NETWORK, IMAGES, LABELS, repetitions=3))
    assert [(r.mode, r.slice, r.colour) for r in results] == [
        *((mode, b, None) for mode in ("single", "cumulative", "zeroed", "zeroed cumulative") for b in (0, 2, 3, 5)),
        *(("colour", b, colour) for b in (0, 2, 3, 5) for colour in (0, 1))]
    assert len(results) == n_steps(TOPOLOGY)
    assert all(len(r.accuracies) == (1 if "zeroed" in r.mode else 3) for r in results)
    assert all(0 <= min(r.accuracies) <= max(r.accuracies) <= 1 for r in results)


def test_seed_decides() -> None:
    first, again, other = (list(sensitivity(NETWORK, IMAGES, LABELS, 2, seed)) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_results_come_one_by_one() -> None:
    results = sensitivity(NETWORK, IMAGES, LABELS, 2, 4)
    assert [next(results), next(results)] == list(sensitivity(NETWORK, IMAGES, LABELS, 2, 4))[:2]
    assert len(list(results)) == n_steps(TOPOLOGY) - 2


def one_slice_decides(b: int) -> Network:
    """Two classes: the bit of slice `b` of the only pixel; every other slice counts alike for both."""
    topology = Topology.parse("2FC", (1, 1, 1), 4)
    column = topology.kept_slices.index(b)
    weights = np.ones((2, 4), np.uint8)
    weights[0, column] = 0
    return Network(topology, (MatrixParameters(weights, offsets=np.zeros(2, np.int64)),))


@pytest.mark.parametrize("b", range(4))
def test_accuracy_falls_where_the_slice_decides(b: int) -> None:
    images = np.random.default_rng(1).integers(0, 16, (2000, 1, 1, 1), np.uint8)
    results = list(sensitivity(one_slice_decides(b), images, images.ravel() >> b & 1, 2))
    assert [r.mean < 0.6 for r in results[:4]] == [i == b for i in range(4)]
    assert [r.mean < 0.6 for r in results[4:8]] == [i >= b for i in range(4)]
    assert [r.mean < 0.6 for r in results[8:12]] == [i == b for i in range(4)]
    assert [r.mean < 0.6 for r in results[12:]] == [i >= b for i in range(4)]
    assert pruning_order(results, (3, 2, 1, 0))[-1] == (b,)
    assert all(r.mean == 1 and r.spread == 0 for r in results[:4] if r.slice != b)


def test_mean_and_spread() -> None:
    result = Sensitivity("single", 3, (0.5, 0.7, 0.9))
    assert result.mean == pytest.approx(0.7)
    assert result.spread == pytest.approx(0.2)
    assert Sensitivity("single", 3, (0.5,)).spread == 0


@pytest.mark.parametrize(("images", "labels", "repetitions", "seed", "sentence"), [
    (IMAGES, LABELS, 0, 0, "0 repetitions asked for; at least 1 is needed"),
    (IMAGES, LABELS, 1, -1, "seed is -1; it must be at least 0"),
    (IMAGES, LABELS[:-1], 1, 0, "labels of shape (39,) given for 40 images; one label per image is needed"),
    (IMAGES, LABELS[:, None], 1, 0, "labels of shape (40, 1) given for 40 images; one label per image is needed"),
    (IMAGES[:0], LABELS[:0], 1, 0, "no image given; at least one is needed"),
    (IMAGES.astype(float), LABELS, 1, 0, "images are float64; pixels must be integers"),
    (IMAGES + 64, LABELS, 1, 0, f"pixels {IMAGES.min() + 64} to {IMAGES.max() + 64} given; 6 bits hold 0 to 63"),
    (IMAGES[..., :1], LABELS, 1, 0, "images of shape (40, 4, 4, 1) given; the network takes (N, 4, 4, 2)"),
])
def test_bad_input_is_refused_at_the_call(images: np.ndarray, labels: np.ndarray, repetitions: int, seed: int,
                                          sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        sensitivity(NETWORK, images, labels, repetitions, seed)
    assert str(caught.value) == sentence


def test_a_colour_by_itself() -> None:
    topology = Topology.parse("2FC", (1, 1, 3), 1)  # two classes: the bit of colour 1
    weights = np.array([[1, 0, 1], [1, 1, 1]], np.uint8)
    network = Network(topology, (MatrixParameters(weights, offsets=np.zeros(2, int)),))
    images = np.random.default_rng(1).integers(0, 2, (2000, 1, 1, 3), np.uint8)
    results = [r for r in sensitivity(network, images, images[:, 0, 0, 1].astype(int), 1) if r.mode == "colour"]
    assert [r.mean < 0.6 for r in results] == [False, True, False]


def test_slices_are_those_of_the_values_looked_up() -> None:
    table = np.random.default_rng(5).permutation(64)[:50]
    network = Network(TOPOLOGY, NETWORK.parameters, table)
    images = np.random.default_rng(6).integers(0, 50, (40, 4, 4, 2), np.uint8)
    labels = golden.classes(network, images)
    values = table.astype(np.uint16)[images]
    assert list(sensitivity(network, images, labels, 2)) == list(sensitivity(NETWORK, values, labels, 2))
    with pytest.raises(ValueError) as caught:
        sensitivity(network, images + 1, labels)
    assert str(caught.value) == "a pixel is 50; the network's pixel lookup table holds 0 to 49"
