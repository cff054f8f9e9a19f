"""Verification finds every kind of difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbnn.hw import accelerator as hw
from cbnn.model.folding import Folding
from cbnn.model.network import Network, Parameters, random_network
from cbnn.model.topology import Topology
from cbnn.sim.verify import predict, verify

TOPOLOGY = Topology.parse("4C3-MP2-6FC-3FC", (4, 4, 2), 3, (2, 0))
NETWORK = random_network(TOPOLOGY, 5)
FOLDING = Folding.parse("(2,9)(3,4)(1,2)", TOPOLOGY)
IMAGES = np.random.default_rng(1).integers(0, 8, (5, 4, 4, 2))


def test_equal_in_every_score_and_cycle(tmp_path: Path) -> None:
    result = verify(NETWORK, hw.accelerator(NETWORK, FOLDING), IMAGES, tmp_path / "v")
    assert result.differences == []
    assert result.measured == result.predicted
    assert result.measured.first_layer_cycles == 2 * 2 * 2 * 16  # slices, words, folds of rows, windows


def test_equal_under_idles_and_stalls(tmp_path: Path) -> None:
    result = verify(NETWORK, hw.accelerator(NETWORK, FOLDING), IMAGES, tmp_path / "v", idle_percent=40,
                    stall_percent=60, seed=3)
    assert result.differences == []
    assert result.measured is None


def test_one_wrong_weight_is_found(tmp_path: Path) -> None:
    last = NETWORK.parameters[-1]
    weights = last.weights.copy()
    weights[1, 2] ^= 1
    other = Network(TOPOLOGY, (*NETWORK.parameters[:-1], Parameters(weights, offsets=last.offsets)))
    result = verify(NETWORK, hw.accelerator(other, FOLDING), IMAGES, tmp_path / "v")
    assert result.wrong_images == [0, 1, 2, 3, 4]
    assert result.differences[0] == "image 0: the scores of the RTL differ from the golden model's"


def test_one_wrong_cycle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbnn.sim.verify.predict", lambda unit: replace(predict(unit), input_beats=1))
    result = verify(NETWORK, hw.accelerator(NETWORK, FOLDING), IMAGES, tmp_path / "v")
    assert result.differences == [f"input_beats: {result.measured.input_beats} measured, 1 predicted"]


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"images": IMAGES[:3]}, "3 images given; at least 4 are needed to see a steady interval"),
    ({"images": IMAGES, "idle_percent": 91}, "idle is 91 percent; it must be 0 to 90"),
    ({"images": IMAGES, "stall_percent": -1}, "stall is -1 percent; it must be 0 to 90"),
    ({"images": IMAGES + 8}, "pixels 8 to 15 given; 3 bits hold 0 to 7"),
])
def test_bad_input(tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        verify(NETWORK, hw.accelerator(NETWORK, FOLDING), verilog=tmp_path / "v", **arguments)
    assert str(caught.value) == sentence
    assert not (tmp_path / "v").exists()


def test_counts_work_on_rows_that_no_score_waits_for(tmp_path):
    topology = Topology.parse("4C1S2-MP3-4FC", (9, 5, 2), 1)
    network = random_network(topology, 0)
    images = np.random.default_rng(0).integers(0, 2, (4, 9, 5, 2))
    unit = hw.accelerator(network, Folding.parse("(1,1)(1,1)", topology))
    assert verify(network, unit, images, tmp_path / "v").differences == []
