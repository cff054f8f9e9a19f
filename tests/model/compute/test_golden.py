"""The golden model against loops over single bits, written from the arithmetic contract alone."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.compute import golden
from cbnn.model.network import Network, random_network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixParameters
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.topology import Topology


@pytest.fixture(autouse=True, scope="module", params=golden.BACKENDS)
def backend(request):
    """Both implementations are held against the loops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBNN_BACKEND", request.param)
        yield


def random_images(topology: Topology, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << topology.input_bits, (n, *topology.in_shape))


@dataclass(frozen=True)
class Pooled(Conv):
    """A convolution and the pool after it, 1 where there is none."""

    pool: int = 1


def layered(network: Network) -> Any:
    """The network as the loops take it: a pool, and what it inverts, belong to the convolution before it."""
    layers: list[Conv | Dense] = []
    learnt: list[SimpleNamespace] = []
    for node, parameters in zip(network.topology.nodes, network.parameters, strict=True):
        if isinstance(node.operator, MaxPool):
            layers[-1] = replace(layers[-1], pool=node.operator.size)
            learnt[-1].invert = parameters.invert
        else:
            operator = node.operator
            layers.append(Pooled(**vars(operator)) if isinstance(operator, Conv) else operator)
            learnt.append(SimpleNamespace(**vars(parameters)))
    topology = network.topology
    return SimpleNamespace(parameters=learnt, topology=SimpleNamespace(
        in_shape=topology.in_shape, kept_slices=topology.kept_slices, first_layer=topology.first_layer, layers=layers))


def brute_force(network: Network, image: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Bits of every hidden layer, and the scores, of one image: popcount(XNOR) bit by bit."""
    topology, outputs = network.topology, []
    # Planes entering a layer: (bits, what a set bit counts, first weight column).
    height, width, colours = topology.in_shape
    lowest = min(topology.kept_slices)
    first = topology.layers[0]
    size = colours * (first.kernel**2 if isinstance(first, Conv) else height * width)
    planes = []
    for position, b in enumerate(sorted(topology.kept_slices, reverse=True)):
        sliced = topology.first_layer == "sliced"
        bits = [[[(int(image[y, x, c]) // 2**b) % 2 for c in range(colours)] for x in range(width)]
                for y in range(height)]
        planes.append((bits, 1 if sliced else 2 ** (b - lowest), position * size if sliced else 0))
    for layer, parameters in zip(topology.layers, network.parameters, strict=True):
        weights = parameters.weights.tolist()
        rows, columns, channels = len(planes[0][0]), len(planes[0][0][0]), len(planes[0][0][0][0])
        if isinstance(layer, Dense):
            kernel_rows, kernel_columns, stride, padding, pad_bit, pool = rows, columns, 1, 0, 0, 1
        else:
            kernel_rows = kernel_columns = layer.kernel
            stride, padding, pad_bit, pool = layer.stride, layer.padding, layer.pad_bit, layer.pool
        sums, outside = [], []
        for top in range(-padding, rows + padding - kernel_rows + 1, stride):
            sums.append([])
            for left in range(-padding, columns + padding - kernel_columns + 1, stride):
                counted = [0] * len(weights)
                for bits, count, column in planes:
                    i = column
                    for y in range(top, top + kernel_rows):
                        for x in range(left, left + kernel_columns):
                            for c in range(channels):
                                inside = 0 <= y < rows and 0 <= x < columns
                                bit = bits[y][x][c] if inside else pad_bit
                                for m in range(len(weights)):
                                    counted[m] += count * (weights[m][i] == bit)
                                i += 1
                sums[-1].append(counted)
                outside.append((tuple(0 <= y < rows for y in range(top, top + kernel_rows)),
                                tuple(0 <= x < columns for x in range(left, left + kernel_columns))))
        if parameters.offsets is not None:
            return outputs, [s + int(o) for s, o in zip(sums[0][0], parameters.offsets, strict=True)]
        thresholds = parameters.thresholds.tolist()
        if parameters.thresholds.ndim == 2:  # one for each way of lying over the edge, in the order of first windows
            ways = list(dict.fromkeys(outside))
            thresholds = [thresholds[ways.index(way)] for way in outside]
        else:
            thresholds = [thresholds] * len(outside)
        own = iter(thresholds)
        bits = [[[int(s >= t) for s, t in zip(pixel, next(own), strict=True)] for pixel in row] for row in sums]
        if pool > 1:
            bits = [[[int(any(bits[y * pool + i][x * pool + j][m] for i in range(pool) for j in range(pool)))
                      != int(parameters.invert[m]) for m in range(len(weights))]
                     for x in range(len(bits[0]) // pool)] for y in range(len(bits) // pool)]
            bits = [[[int(bit) for bit in pixel] for pixel in row] for row in bits]
        outputs.append(np.array(bits, np.uint8))
        planes = [(bits, 1, 0)]
    raise AssertionError("no layer gave scores")


CASES = {
    "sliced": Topology.parse("3C3-4C3P0-5FC-4FC", (6, 5, 2), 4, (3, 1)),
    "weighted": Topology.parse("3C3-4C3P0-5FC-4FC", (6, 5, 2), 6, (5, 3, 2), "weighted"),
    "stride and ones around": Topology.parse("4C3S2P2B1-3C2S2P1B1-3FC", (7, 6, 1), 3),
    "weighted, ones around": Topology.parse("4C5S3B1-3FC", (7, 6, 3), 3, (2, 0), "weighted"),
    "pool 2, a row and a column dropped": Topology.parse("5C3-MP2-4C3-MP2-3FC", (7, 5, 1), 2),
    "pool 3, rows and columns dropped": Topology.parse("6C3-MP3-4FC", (8, 7, 1), 2, (1,)),
    "even kernel": Topology.parse("3C2-3C4-MP2-3FC", (6, 6, 1), 2),
    "kernel 1": Topology.parse("5C1-6C1-3FC", (3, 4, 2), 3),
    "kernel as large as the input": Topology.parse("5C4P0-6C1-3FC", (4, 4, 2), 2),
    "dense first": Topology.parse("7FC-6FC-5FC", (3, 2, 3), 3, (2, 0)),
    "dense first, weighted": Topology.parse("7FC-5FC", (3, 2, 3), 5, (4, 0), "weighted"),
    "one layer": Topology.parse("5FC", (3, 3, 1), 4, (3, 2)),
    "one layer, weighted": Topology.parse("5FC", (3, 3, 1), 4, (3, 1), "weighted"),
    "one slice": Topology.parse("5C3-3FC", (4, 4, 1), 8, (6,)),
    "16 bits": Topology.parse("5C3-3FC", (4, 4, 1), 16, None, "weighted"),
    "one pixel, one bit": Topology.parse("1FC-1FC", (1, 1, 1), 1),
}


def assert_equal(network: Network, images: np.ndarray) -> None:
    activations, scores = golden.activations(network, images), golden.scores(network, images)
    for n, image in enumerate(images):
        hidden, wanted = brute_force(layered(network), image)
        # What a pool takes does not leave its layer.
        nodes = network.topology.nodes
        leaving = [i for i in range(len(nodes) - 1) if not isinstance(nodes[i + 1].operator, MaxPool)]
        for ours, bits in zip([activations[i] for i in leaving], hidden, strict=True):
            np.testing.assert_array_equal(ours[n], bits.reshape(ours.shape[1:]))
        assert scores[n].tolist() == activations[-1][n].tolist() == wanted
        assert golden.classes(network, images[n : n + 1])[0] == wanted.index(max(wanted))


@pytest.mark.parametrize("name", CASES)
def test_bit_by_bit(name: str) -> None:
    topology = CASES[name]
    for seed in range(3):
        assert_equal(random_network(topology, seed, by_place=seed == 2), random_images(topology, 3, seed))


def test_the_cases_reach_both_polarities_and_both_bits() -> None:
    topology = CASES["pool 3, rows and columns dropped"]
    network = random_network(topology, 0)
    assert set(network.parameters[1].invert.tolist()) == {False, True}
    assert set(golden.activations(network, random_images(topology, 9, 0))[1].ravel().tolist()) == {0, 1}


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_random_topologies(data: st.DataObject) -> None:
    bits = data.draw(st.integers(1, 4), "bits")
    kept = tuple(sorted(data.draw(st.sets(st.integers(0, bits - 1), min_size=1), "kept"), reverse=True))
    kernel = data.draw(st.integers(1, 3), "kernel")
    conv = Conv(data.draw(st.integers(1, 3), "channels"), kernel, data.draw(st.integers(1, 2), "stride"),
                data.draw(st.integers(0, kernel - 1), "padding"), data.draw(st.integers(0, 1), "pad bit"))
    operators = [conv, *data.draw(st.sampled_from([[], [MaxPool(2)]]), "pool"), Dense(3)]
    in_shape = (data.draw(st.integers(5, 7)), data.draw(st.integers(5, 7)), data.draw(st.integers(1, 2)))
    topology = Topology.chain(in_shape, bits, kept, operators, data.draw(st.sampled_from(["sliced", "weighted"])))
    network = random_network(topology, data.draw(st.integers(0, 99), "seed"), data.draw(st.booleans(), "by place"))
    assert_equal(network, random_images(topology, 2, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64])
def test_every_integer_dtype(dtype: type) -> None:
    topology = CASES["sliced"]
    network, images = random_network(topology, 1), random_images(topology, 2, 1)
    np.testing.assert_array_equal(golden.scores(network, images.astype(dtype)), golden.scores(network, images))


def test_thresholds_at_both_ends() -> None:
    topology = Topology.parse("2FC-2FC", (2, 2, 1), 1)
    weights = np.ones((2, 4), np.uint8)
    network = Network(topology, (MatrixParameters(weights, np.array([0, 5])),
                                 MatrixParameters(weights[:, :2], offsets=np.array([-3, 4]))))
    for images in (np.zeros((1, 2, 2, 1), int), np.ones((1, 2, 2, 1), int)):
        hidden, scores = golden.activations(network, images)
        assert hidden.ravel().tolist() == [1, 0]
        assert scores.tolist() == [[-2, 5]]


def test_more_images_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = CASES["pool 2, a row and a column dropped"]
    network, images = random_network(topology, 4), random_images(topology, 2 * golden.BATCH + 1, 4)
    whole = golden.scores(network, images)
    assert whole.shape == (len(images), 3)
    assert whole.dtype == np.int64
    monkeypatch.setattr(golden, "BATCH", 100)
    np.testing.assert_array_equal(golden.scores(network, images), whole)
    np.testing.assert_array_equal(golden.activations(network, images)[-1], whole)
    for n in (0, golden.BATCH, len(images) - 1):
        np.testing.assert_array_equal(golden.scores(network, images[n : n + 1])[0], whole[n])


def test_of_equal_scores_the_first_wins() -> None:
    topology = Topology.parse("4FC", (1, 2, 1), 1)
    weights = np.array([[0, 0], [1, 1], [1, 1], [0, 1]], np.uint8)
    network = Network(topology, (MatrixParameters(weights, offsets=np.zeros(4, np.int64)),))
    images = np.array([[1, 1], [0, 0], [1, 0]]).reshape(3, 1, 2, 1)
    assert golden.scores(network, images).tolist() == [[0, 2, 2, 1], [2, 0, 0, 1], [1, 1, 1, 0]]
    assert golden.classes(network, images).tolist() == [1, 0, 0]
    assert golden.accuracy(network, images, np.array([1, 0, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("images", "sentence"), [
    (np.zeros((6, 5, 2), int), "images of shape (6, 5, 2) given; the network takes (N, 6, 5, 2)"),
    (np.zeros((1, 2, 6, 5), int), "images of shape (1, 2, 6, 5) given; the network takes (N, 6, 5, 2)"),
    (np.zeros((0, 6, 5, 2), int), "no image given; at least one is needed"),
    (np.zeros((1, 6, 5, 2), np.float32), "images are float32; pixels must be integers"),
    (np.full((1, 6, 5, 2), 16), "pixels 16 to 16 given; 4 bits hold 0 to 15"),
    (np.full((1, 6, 5, 2), -1), "pixels -1 to -1 given; 4 bits hold 0 to 15"),
])
def test_bad_images(images: np.ndarray, sentence: str) -> None:
    network = random_network(CASES["sliced"], 0)
    for run in (golden.scores, golden.classes, golden.activations):
        with pytest.raises(ValueError) as caught:
            run(network, images)
        assert str(caught.value) == sentence


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1,), ()])
def test_bad_labels(shape: tuple[int, ...]) -> None:
    topology = CASES["sliced"]
    with pytest.raises(ValueError) as caught:
        golden.accuracy(random_network(topology, 0), random_images(topology, 3, 0), np.zeros(shape, int))
    assert str(caught.value) == f"labels of shape {shape} given for 3 images; one label per image is needed"


@pytest.mark.parametrize("name", ["sliced", "weighted"])
def test_pixels_are_looked_up_once(name: str) -> None:
    topology = CASES[name]
    high, rng = 1 << topology.input_bits, np.random.default_rng(4)
    table = rng.permutation(high)[: high - 3]
    plain = random_network(topology, 3)
    network = Network(topology, plain.parameters, table)
    images = rng.integers(0, len(table), (30, *topology.in_shape))
    wanted = golden.scores(plain, table[images])
    assert (wanted != golden.scores(plain, images)).any()
    np.testing.assert_array_equal(golden.scores(network, images), wanted)
    np.testing.assert_array_equal(golden.classes(network, images), wanted.argmax(axis=1))
    np.testing.assert_array_equal(golden.activations(network, images)[-1], wanted)
    assert golden.accuracy(network, images, wanted.argmax(axis=1)) == 1
    images[0, 0, 0, 0] = len(table)
    for run in (golden.scores, golden.classes, golden.activations,
                lambda *arguments: golden.accuracy(*arguments, np.zeros(30, int))):
        with pytest.raises(ValueError) as caught:
            run(network, images)
        assert str(caught.value) == (f"a pixel is {len(table)}; the network's pixel lookup table holds 0 to "
                                     f"{len(table) - 1}")
