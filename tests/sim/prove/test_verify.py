"""Verification finds every kind of difference."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cbnn.hw import accelerator as hw
from cbnn.hw import verilog
from cbnn.hw.folding import Folding
from cbnn.model.network import Network, random_network
from cbnn.model.operators.matrix import MatrixParameters
from cbnn.model.topology import Topology
from cbnn.sim.predict.cycles import predict
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.predict.fifos import size_fifos
from cbnn.sim.predict.trace import Trace
from cbnn.sim.prove import verify as verifying
from cbnn.sim.prove.verify import Traffic, mark_breaches, verify
from cbnn.sim.prove.verilated import MismatchError

TOPOLOGY = Topology.parse("4C3-MP2-6FC-3FC", (4, 4, 2), 3, (2, 0))
NETWORK = random_network(TOPOLOGY, 5)
FOLDING = Folding.parse("(2,9)(3,4)(1,2)", TOPOLOGY)
IMAGES = np.random.default_rng(1).integers(0, 8, (5, 4, 4, 2))


@pytest.mark.parametrize("class_only", [False, True])
def test_equal_in_every_score_and_cycle(tmp_path: Path, class_only: bool) -> None:
    unit = hw.accelerator(NETWORK, FOLDING, class_only=class_only)
    result = verify(NETWORK, unit, IMAGES, tmp_path / "v")
    assert result.differences == []
    assert result.measured == result.predicted == predict(unit)
    manifest = json.loads((tmp_path / "v" / verilog.MANIFEST).read_text())
    assert manifest["predicted"] == asdict(result.predicted)
    assert result.measured.first_layer_cycles == 2 * 2 * 2 * 16  # slices, words, folds of rows, windows


@pytest.mark.parametrize("class_only", [False, True])
def test_equal_under_idles_and_stalls(tmp_path: Path, class_only: bool) -> None:
    unit = hw.accelerator(NETWORK, FOLDING, class_only=class_only)
    result = verify(NETWORK, unit, IMAGES, tmp_path / "v", traffic=Traffic(40, 60, 3))
    assert result.differences == []
    assert result.measured is None


def test_hardware_that_hangs_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was simulated comes out in the cycles that it is given."""
    monkeypatch.setattr(verifying, "_patience", lambda trace, first: {"max_cycles": 3})
    with pytest.raises(MismatchError, match="accelerator hangs: 3 of 10 beats in, 0 of 15 out after 3 cycles"):
        verify(NETWORK, hw.accelerator(NETWORK, FOLDING), IMAGES, tmp_path / "v")


def test_one_wrong_weight_is_found(tmp_path: Path) -> None:
    last = NETWORK.parameters[-1]
    weights = last.weights.copy()
    weights[1, 2] ^= 1
    other = Network(TOPOLOGY, (*NETWORK.parameters[:-1], MatrixParameters(weights, offsets=last.offsets)))
    result = verify(NETWORK, hw.accelerator(other, FOLDING), IMAGES, tmp_path / "v")
    assert result.wrong_images == [0, 1, 2, 3, 4]
    assert result.differences[0] == "image 0: the result of the RTL differs from the golden model's"


def late(unit: hw.Accelerator, n_images: int, **options: int) -> Trace:
    """Give a trace whose third image has a beat that leaves a cycle late."""
    trace = simulate(unit, n_images, **options)
    trace._taken[len(unit.kernels)][2 * unit.m_axis.beats] += 1
    return trace


@pytest.mark.parametrize("idle_percent", [0, 30])
def test_one_wrong_cycle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle_percent: int) -> None:
    monkeypatch.setattr("cbnn.sim.prove.verify.simulate", late)
    result = verify(NETWORK, hw.accelerator(NETWORK, FOLDING), IMAGES, tmp_path / "v", traffic=Traffic(idle_percent))
    assert result.differences == ["image 2: its beats moved in other cycles than predicted"]


def tied(signal: str, value: int) -> Callable[[str], str]:
    """Tie an output of the top module, and leave the port that drives it open."""
    def tie(text: str) -> str:
        assert text.count(f"({signal})") == 1
        return text.replace(f"({signal})", "()").replace("endmodule", f"assign {signal} = {value};\nendmodule")

    return tie


@pytest.mark.parametrize(("fault", "sentences"), [
    (tied("m_axis_tlast", 0), [f"m_axis: tlast of image {i} is not in its last beat" for i in range(5)]),
    (tied("m_axis_tlast", 1), [f"m_axis: tlast of image {i} is not in its last beat" for i in range(5)]),
    (tied("m_axis_tuser", 1), [f"m_axis: tuser marks image {i}, whose frame was whole" for i in range(5)]),
    (tied("frame_errors", 2), ["frame_errors is 2 after 5 frames that were whole"]),
    (lambda text: text.replace("s_axis_tlast : ", "!s_axis_tlast : "), None),
], ids=["tlast is low", "tlast is high", "tuser is high", "errors are counted", "every frame is wrong"])
def test_one_wrong_mark_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[str], str],
                                 sentences: list[str] | None) -> None:
    top_module = verilog.top_module
    monkeypatch.setattr(verilog, "top_module", lambda *what: fault(top_module(*what)))
    result = verify(NETWORK, hw.accelerator(NETWORK, FOLDING), IMAGES, tmp_path / "v")
    if sentences is None:
        assert result.wrong_images
        assert result.mistimed_images
        assert result.breaches[-1].startswith("frame_errors is ")
    else:
        assert result.differences == sentences


def test_wrong_marks_are_said_in_words() -> None:
    last, user = np.array([[0, 1], [1, 1], [0, 0]]), np.array([[0, 0], [0, 0], [0, 1]])
    assert mark_breaches(last, user, None) == [
        "m_axis: tlast of image 1 is not in its last beat", "m_axis: tlast of image 2 is not in its last beat",
        "m_axis: tuser marks image 2, whose frame was whole", "frame_errors is None after 3 frames that were whole"]


@pytest.mark.parametrize("interval", [14, 20])
def test_fifos_that_limit_the_interval_are_predicted(tmp_path: Path, interval: int) -> None:
    topology = Topology.parse("8FC-6FC-4FC", (4, 4, 1), 1)
    network, folding = random_network(topology, 0), Folding.parse("(2,8)(2,2)(1,3)", topology)
    unit = hw.accelerator(network, size_fifos(topology, folding, interval).folding)
    images = np.random.default_rng(0).integers(0, 2, (8, 4, 4, 1))
    result = verify(network, unit, images, tmp_path / "v")
    assert result.differences == []
    assert unit.interval_cycles < result.measured.interval_cycles <= interval
    assert predict(unit).interval_cycles == result.measured.interval_cycles


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"images": IMAGES[:3]}, "3 images given; at least 4 are needed to see a steady interval"),
    ({"images": IMAGES, "traffic": Traffic(91)}, "idle is 91 percent; it must be 0 to 90"),
    ({"images": IMAGES, "traffic": Traffic(stall_percent=-1)}, "stall is -1 percent; it must be 0 to 90"),
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
