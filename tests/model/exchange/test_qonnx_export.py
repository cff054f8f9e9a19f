"""What is written as QONNX gives the golden model's scores, to the integer, in qonnx's own execution."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from cbnn.model.compute import golden
from cbnn.model.exchange import qonnx, qonnx_export
from cbnn.model.network import Network, random_network
from cbnn.model.topology import Topology

SHAPE = (9, 8, 3)
TOPOLOGIES = {
    "sliced": Topology.parse("6C3-MP2-7C3B1-12FC-4FC", SHAPE, 5, (4, 2, 1)),
    "weighted": Topology.parse("6C3B1-5C3P0-MP3-4FC", SHAPE, 8, first_layer="weighted"),
    "weighted, pruned": Topology.parse("6C3-5C3S2-4FC", SHAPE, 8, (7, 5, 4), "weighted"),
    "one bit": Topology.parse("6C2S2P1-MP2-4FC", SHAPE, 1),
    "dense": Topology.parse("9FC-8FC-4FC", SHAPE, 3, (2, 0)),
    "scores alone": Topology.parse("4FC", SHAPE, 8, (7, 6), "weighted"),
}


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "coded"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_scores_are_equal(name: str, coded: bool, tmp_path: Path, executed: Callable) -> None:
    topology = TOPOLOGIES[name]
    rng, network = np.random.default_rng(1), random_network(topology, 2, by_place=coded)
    if coded:
        network = Network(topology, network.parameters, rng.integers(0, 1 << topology.input_bits, 256))
    images = rng.integers(0, 1 << network.pixel_bits, (12, *SHAPE))
    qonnx_export.save(network, tmp_path / "network.onnx")
    np.testing.assert_array_equal(executed(tmp_path / "network.onnx", images),
                                  golden.scores(network, images))


def test_there_and_back(tmp_path: Path) -> None:
    topology = Topology.parse("6C3B1-5C3-MP2-9FC-4FC", SHAPE, 8, first_layer="weighted")
    network = random_network(topology, 3, by_place=True)
    assert network.parameters[2].invert.any()
    qonnx_export.save(network, tmp_path / "network.onnx")
    again = qonnx.load(tmp_path / "network.onnx", 0, 255)
    assert again.topology == topology
    assert again.pixel_table is not None
    np.testing.assert_array_equal(again.pixel_table, np.arange(256))
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE))
    difference = golden.scores(again, images) - golden.scores(network, images)
    assert (difference == difference[:, :1]).all()


def test_codes_there_and_back(tmp_path: Path) -> None:
    topology = Topology.parse("6C3-4FC", SHAPE, 4, first_layer="weighted")
    codes = np.arange(256) // 16
    network = Network(topology, random_network(topology, 3).parameters, codes)
    qonnx_export.save(network, tmp_path / "network.onnx")
    again = qonnx.load(tmp_path / "network.onnx", 0, 255)
    np.testing.assert_array_equal(again.pixel_table, codes)
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE))
    difference = golden.scores(again, images) - golden.scores(network, images)
    assert (difference == difference[:, :1]).all()


def test_what_float32_does_not_hold_is_refused(tmp_path: Path) -> None:
    network = random_network(Topology.parse("4FC", (28, 28, 1), 16, first_layer="weighted"), 0)
    with pytest.raises(ValueError, match=r"layer 0: sums reach \d+; float32, which ONNX computes in, is exact to"):
        qonnx_export.save(network, tmp_path / "network.onnx")
    assert not (tmp_path / "network.onnx").exists()


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    network = random_network(TOPOLOGIES["sliced"], 0)
    for name in ("a.onnx", "b.onnx"):
        qonnx_export.save(network, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert onnx.load(tmp_path / "a.onnx").producer_name == "cbnn"
