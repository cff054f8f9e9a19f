"""Networks check themselves; pruning without retraining does what it says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.compute import golden
from cbnn.model.network import Network, prune_slices, random_network
from cbnn.model.operators.matrix import OFFSET_LIMIT, MatrixParameters
from cbnn.model.operators.max_pool import PoolParameters
from cbnn.model.operators.operator import Parameters
from cbnn.model.topology import Topology

TOPOLOGY = Topology.parse("5C3-MP2-6FC-4FC", (4, 4, 2), 6, (5, 3, 2, 0))
WEIGHTED = replace(TOPOLOGY, first_layer="weighted")


def random_images(topology: Topology, n: int = 8) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 1 << topology.input_bits, (n, *topology.in_shape))


@pytest.mark.parametrize("topology", [TOPOLOGY, WEIGHTED, Topology.parse("3FC", (2, 2, 1), 3)])
def test_random_network(topology: Topology) -> None:
    network, same, other = (random_network(topology, seed) for seed in (1, 1, 2))
    for ours, again in zip(network.parameters, same.parameters, strict=True):
        for name, array in ours.arrays.items():
            np.testing.assert_array_equal(array, again.arrays[name])
    assert (network.parameters[0].weights != other.parameters[0].weights).any()
    assert network.topology.n_weight_bits == sum(s.mw * s.mh for s in topology.layers)


def test_arrays_cannot_be_written() -> None:
    network = random_network(TOPOLOGY, 0)
    for parameters in network.parameters:
        for array in parameters.arrays.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_arrays_are_not_those_that_were_given() -> None:
    """Not through the array, a view or a base of it, marked read-only or not."""
    weights, thresholds, offsets = np.zeros((4, 9), np.uint8), np.zeros(4, np.int64), np.zeros((2, 3), np.int64)
    invert, table, alias = np.zeros(4, bool), np.array([0, 1]), weights[:]
    weights.setflags(write=False)
    network = Network(Topology.parse("4C3-MP2-3FC", (2, 2, 1), 1), (
        MatrixParameters(weights, thresholds), PoolParameters(invert),
        MatrixParameters(np.zeros((3, 4), np.uint8), offsets=offsets[1])), table)
    for array in (alias, thresholds, offsets, invert, table):
        array[...] = 1
    assert not any(array.any() for parameters in network.parameters for array in parameters.arrays.values())
    assert network.pixel_table.tolist() == [0, 1]


W, T, I, O = np.zeros((5, 72), np.uint8), np.zeros(5, np.int64), np.zeros(5, bool), np.zeros(4, np.int64)  # noqa: E741
LAST = MatrixParameters(np.zeros((4, 6), np.uint8), offsets=O)


@pytest.mark.parametrize(("node", "parameters", "sentence"), [
    (0, MatrixParameters(W), "layer 0: it lacks thresholds"),
    (0, PoolParameters(I), "layer 0: it takes parameters of a matrix"),
    (1, MatrixParameters(W, T), "the pool after layer 0: it takes parameters of a pool"),
    (1, PoolParameters(None), "the pool after layer 0: it lacks invert"),
    (1, PoolParameters(I[1:]), "the pool after layer 0: invert are bool (4,); they must be bool (5,)"),
    (1, PoolParameters(I.astype(np.uint8)), "the pool after layer 0: invert are uint8 (5,); they must be bool (5,)"),
    (0, MatrixParameters(W, T, T), "layer 0: it must not have offsets"),
    (0, MatrixParameters(None, T), "layer 0: it lacks weights"),
    (3, MatrixParameters(LAST.weights), "layer 2: it lacks offsets"),
    (3, MatrixParameters(LAST.weights, O, O), "layer 2: it must not have thresholds"),
    (0, MatrixParameters(W[:, 1:], T), "layer 0: weights are uint8 (5, 71); they must be uint8 (5, 72)"),
    (0, MatrixParameters(W.astype(int), T), "layer 0: weights are int64 (5, 72); they must be uint8 (5, 72)"),
    (0, MatrixParameters(W, T.astype(float)), "layer 0: thresholds are float64 (5,); they must be int64 (5,)"),
    (0, MatrixParameters(W + 2, T), "layer 0: weights span 2 to 2; the range is 0 to 1"),
    (0, MatrixParameters(W, T - 1), "layer 0: thresholds span -1 to -1; the range is 0 to 73"),
    (0, MatrixParameters(W, T + 74), "layer 0: thresholds span 74 to 74; the range is 0 to 73"),
    (3, MatrixParameters(LAST.weights, offsets=O + OFFSET_LIMIT + 1),
     "layer 2: offsets span 1073741825 to 1073741825; the range is -1073741824 to 1073741824"),
])
def test_bad_parameters(node: int, parameters: Parameters, sentence: str) -> None:
    given_parameters = list(random_network(TOPOLOGY, 0).parameters)
    given_parameters[node] = parameters
    with pytest.raises(ValueError) as caught:
        Network(TOPOLOGY, tuple(given_parameters))
    assert str(caught.value) == sentence


def test_wrong_number_of_layers() -> None:
    with pytest.raises(ValueError) as caught:
        Network(TOPOLOGY, random_network(TOPOLOGY, 0).parameters[:2])
    assert str(caught.value) == "parameters of 2 operators given; the topology has 4"


def test_extreme_thresholds_are_allowed() -> None:
    first, *others = random_network(TOPOLOGY, 0).parameters
    Network(TOPOLOGY, (replace(first, thresholds=np.array([0, 73, 0, 73, 1])), *others))
    Network(WEIGHTED, (MatrixParameters(np.zeros((5, 18), np.uint8), np.full(5, 18 * 45 + 1)), *others))


def test_thresholds_by_place() -> None:
    topology = Topology.parse("4C3-3FC", (5, 5, 1), 1)
    network = random_network(topology, 0, by_place=True)
    first, last = network.parameters
    assert first.thresholds.shape == (9, 4)
    with pytest.raises(ValueError, match=r"layer 0: thresholds are int64 \(3, 4\); they must be int64 \(9, 4\)"):
        Network(topology, (replace(first, thresholds=first.thresholds[:3]), last))
    unpadded = Topology.parse("4C3P0-3FC", (7, 7, 1), 1)
    with pytest.raises(ValueError, match=r"layer 0: thresholds are int64 \(9, 4\); they must be int64 \(4,\)"):
        Network(unpadded, (first, last))


def accumulators(network: Network, images: np.ndarray) -> np.ndarray:
    """First layer's popcount sums, as the scores of a network that has but this layer, dense."""
    topology = Topology.parse(f"{network.topology.layers[0].mh}FC", network.topology.in_shape,
                              network.topology.input_bits, network.topology.kept_slices, network.topology.first_layer)
    weights = network.parameters[0].weights
    only = MatrixParameters(weights, offsets=np.zeros(len(weights), np.int64))
    return golden.scores(Network(topology, (only,)), images)


@pytest.mark.parametrize("kept", [(5,), (0,), (3, 2), (5, 0), (5, 3, 2, 0)])
def test_pruning_sliced_drops_columns(kept: tuple[int, ...]) -> None:
    network = random_network(TOPOLOGY, 3)
    pruned = prune_slices(network, kept)
    assert pruned.topology == TOPOLOGY.keep(kept)
    columns = [i for i in range(72) if (5, 3, 2, 0)[i // 18] in kept]
    np.testing.assert_array_equal(pruned.parameters[0].weights, network.parameters[0].weights[:, columns])
    fallen = network.parameters[0].thresholds - 9 * (4 - len(kept))
    np.testing.assert_array_equal(pruned.parameters[0].thresholds, np.clip(fallen, 0, 18 * len(kept) + 1))
    assert pruned.parameters[1:] == network.parameters[1:]


DENSE = Topology.parse("9FC-4FC", (3, 1, 1), 6, (5, 4, 2, 1, 0))
KEPT = st.sets(st.sampled_from(DENSE.kept_slices), min_size=1).map(lambda kept: tuple(sorted(kept, reverse=True)))


@settings(deadline=None, max_examples=40)
@given(KEPT, st.sampled_from(["sliced", "weighted"]), st.integers(0, 99))
def test_a_pruned_slice_counts_half(kept: tuple[int, ...], first_layer: str, seed: int) -> None:
    """The pruned bit is the whole network's, with half its largest sum for every pruned slice."""
    network = random_network(replace(DENSE, first_layer=first_layer), seed)
    thresholds = np.random.default_rng(seed).integers(0, network.topology.layers[0].max_accumulator + 2, 9)
    network = Network(network.topology, (replace(network.parameters[0], thresholds=thresholds), network.parameters[1]))
    pruned, images = prune_slices(network, kept), random_images(DENSE)
    small = accumulators(pruned, images)
    unit = 2 ** kept[-1] if first_layer == "weighted" else 1  # the lowest of all kept slices is slice 0
    lost = [b for b in DENSE.kept_slices if b not in kept]
    half = 3 / 2 * sum(2**b if first_layer == "weighted" else 1 for b in lost)
    wanted = small * unit + half >= thresholds
    np.testing.assert_array_equal(golden.activations(pruned, images)[0].reshape(wanted.shape), wanted)
    # The whole sum of an image is what is kept and what is lost of it.
    if first_layer == "weighted":
        whole = small * unit + sum(2**b * accumulators(prune_slices(network, (b,)), images) for b in lost)
        np.testing.assert_array_equal(whole, accumulators(network, images))


def test_pruned_thresholds_are_clipped() -> None:
    first, last = random_network(DENSE, 0).parameters
    network = Network(DENSE, (replace(first, thresholds=np.array([0, 1, 5, 6, 7, 8, 14, 15, 16])), last))
    assert prune_slices(network, (5,)).parameters[0].thresholds.tolist() == [0, 0, 0, 0, 1, 2, 4, 4, 4]


@pytest.mark.parametrize(("first_layer", "offsets"), [("sliced", [-9, -8, 7, 8]), ("weighted", [-3, -2, 1, 2])])
def test_pruning_a_network_of_scores_alone(first_layer: str, offsets: list[int]) -> None:
    topology = Topology.parse("4FC", (2, 1, 1), 4, (3, 2, 0), first_layer)
    weights = random_network(topology, 0).parameters[0].weights
    network = Network(topology, (MatrixParameters(weights, offsets=np.array([-9, -8, 7, 8])),))
    assert prune_slices(network, (3, 2)).parameters[0].offsets.tolist() == offsets


def test_pruning_keeps_the_whole_network_as_it_was() -> None:
    network = random_network(WEIGHTED, 3)
    before = [p.weights.copy() for p in network.layers]
    prune_slices(network, (5,))
    for parameters, weights in zip(network.layers, before, strict=True):
        np.testing.assert_array_equal(parameters.weights, weights)


@pytest.mark.parametrize(("kept", "sentence"), [
    ((5, 4, 1), "slice 1 is not in the network, which keeps [5, 3, 2, 0]"),
    ((), "no slice is kept; a network needs at least one"),
    ((6,), "slice 6 does not exist; pixels of 6 bits have 0 to 5"),
    ((3, 5), "kept slices [3, 5] must be listed once each, the MSB first"),
])
def test_bad_slices(kept: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        prune_slices(random_network(TOPOLOGY, 0), kept)
    assert str(caught.value) == sentence


# Pixels: the pixel lookup table, and the highest pixel

TABLE = np.array([5, 0, 63, 7, 9])
PARAMETERS = random_network(TOPOLOGY, 3).parameters
TABLED = Network(TOPOLOGY, PARAMETERS, TABLE)


def test_pixels_are_looked_up() -> None:
    images = np.random.default_rng(0).integers(0, 5, (7, 4, 4, 2), np.uint8)
    np.testing.assert_array_equal(TABLED.look_up(images), TABLE[images])
    assert (TABLED.n_pixel_values, TABLED.pixel_bits, TABLED.max_pixel) == (5, 3, 4)
    plain = TABLED.without_table
    np.testing.assert_array_equal(plain.look_up(TABLE[images]), TABLE[images])
    assert (plain.pixel_table, plain.n_pixel_values, plain.pixel_bits, plain.max_pixel) == (None, 64, 6, 63)
    with pytest.raises(ValueError, match="read-only"):
        TABLED.pixel_table[0] = 1


@pytest.mark.parametrize(("network", "pixel", "sentence"), [
    (TABLED, 5, "a pixel is 5; the network's pixel lookup table holds 0 to 4"),
    (TABLED, 8, "pixels 8 to 8 given; 3 bits hold 0 to 7"), (TABLED, -1, "pixels -1 to -1 given; 3 bits hold 0 to 7"),
    (TABLED.without_table, 64, "pixels 64 to 64 given; 6 bits hold 0 to 63")])
def test_pixels_that_cannot_be_looked_up(network: Network, pixel: int, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        network.look_up(np.full((1, 4, 4, 2), pixel))
    assert str(caught.value) == sentence


def test_pixels_above_the_highest_are_computed_with_but_not_taken_from_users() -> None:
    network, images = Network(TOPOLOGY, PARAMETERS, max_pixel=16), np.full((1, 4, 4, 2), 17)
    np.testing.assert_array_equal(golden.scores(network, images), golden.scores(Network(TOPOLOGY, PARAMETERS), images))
    network.check_pixels(images - 1)
    for wrong, sentence in ((images, "a pixel is 17; the network was trained on pixels of 0 to 16"),
                            (images + 50, "pixels 67 to 67 given; 6 bits hold 0 to 63")):
        with pytest.raises(ValueError) as caught:
            network.check_pixels(wrong)
        assert str(caught.value) == sentence


def test_pruning_keeps_what_pixels_mean() -> None:
    pruned = prune_slices(replace(TABLED, max_pixel=3), (5, 3))
    assert (pruned.pixel_table.tolist(), pruned.max_pixel) == (TABLE.tolist(), 3)


@pytest.mark.parametrize(("table", "max_pixel", "sentence"), [
    (TABLE, 5, "max_pixel is 5; it must be 0 to 4"),
    (None, 64, "max_pixel is 64; it must be 0 to 63"),
    (None, -1, "max_pixel is -1; it must be 0 to 63"),
    (None, 2.0, "max_pixel is of type float; it must be int"),
    (None, True, "max_pixel is of type bool; it must be int"),
    (None, None, "max_pixel is of type NoneType; it must be int"),
    (TABLE[:1], 0, "the pixel lookup table is int64 (1,); it must be int64 and hold 2 to 65536 values"),
    (TABLE[None], 0, "the pixel lookup table is int64 (1, 5); it must be int64 and hold 2 to 65536 values"),
    (TABLE * 1.0, 0, "the pixel lookup table is float64 (5,); it must be int64 and hold 2 to 65536 values"),
    (TABLE + 1, 0, "the pixel lookup table spans 1 to 64; sliced values span 0 to 63"),
    (TABLE - 1, 0, "the pixel lookup table spans -1 to 62; sliced values span 0 to 63")])
def test_what_pixels_cannot_mean(table: np.ndarray | None, max_pixel: object, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Network(TOPOLOGY, PARAMETERS, table, max_pixel)
    assert str(caught.value) == sentence
