"""Whole test sets through the RTL: one small network, compiled once."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.stream import Kernel
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.network import Network, random_network
from cbnn.model.operators.matrix import MatrixParameters
from cbnn.model.topology import Topology
from cbnn.sim.prove import volume
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.verify import Traffic
from cbnn.sim.prove.verilated import MismatchError, SimulationError

TOPOLOGY = Topology.parse("4C3-MP2-6FC-4FC", (4, 4, 2), 3, (2, 0))
NETWORK = random_network(TOPOLOGY, 5)
UNIT = accelerator(NETWORK, Folding.parse("(2,9)(3,4)(2,2)", TOPOLOGY))
IMAGES = np.random.default_rng(1).integers(0, 8, (300, 4, 4, 2))


@pytest.mark.slow(25)
def test_every_class_where_only_that_leaves() -> None:
    unit = accelerator(NETWORK, UNIT.folding, class_only=True)
    seen = volume.stream(NETWORK, unit, IMAGES, traffic=Traffic(20, 90, 9))
    assert seen.differences == []
    assert seen.classes.tolist() == golden.classes(NETWORK, IMAGES).tolist()
    assert seen.out_cycles.shape == (len(IMAGES), 1)


@pytest.fixture(scope="module")
def executable() -> Iterator[Path]:
    with volume.compiled(UNIT) as path:
        yield path


@pytest.mark.parametrize(("idle", "stall"), [(0, 0), (50, 0), (0, 70), (40, 50)])
def test_every_score_and_every_cycle(executable: Path, idle: int, stall: int) -> None:
    seen = volume.stream(NETWORK, UNIT, IMAGES, traffic=Traffic(idle, stall, 9), executable=executable)
    assert seen.differences == []
    assert seen.classes.tolist() == golden.classes(NETWORK, IMAGES).tolist()
    if idle == stall == 0:
        assert seen.interval_cycles == UNIT.interval_cycles


@pytest.mark.parametrize(("idle", "stall"), [(0, 0), (40, 60)])
def test_the_same_cycles_and_beats_as_icarus(executable: Path, tmp_path: Path, idle: int, stall: int) -> None:
    images = IMAGES[:6]
    seen = volume.stream(NETWORK, UNIT, images, traffic=Traffic(idle, stall, 3), executable=executable)
    generate(UNIT, tmp_path / "v")
    beats = tuple(format(beat, "x") for beat in input_beats(UNIT, images))
    lasts = image_ends(len(images), UNIT.input_beats)
    run = Run(beats, lasts, seen.out_cycles.size, idle, stall, seed=3)
    [icarus] = cosimulate(Design.generated(tmp_path / "v", UNIT.name), [run])
    assert seen.out_cycles.ravel().tolist() == icarus.out_cycles
    assert seen.in_cycles.tolist() == icarus.in_cycles[:: UNIT.input_beats]
    assert icarus.out_beats == UNIT.classify.encoded(golden.scores(NETWORK, images))


def test_one_wrong_weight_is_reported_with_the_images_it_spoils(executable: Path) -> None:
    parameters = list(NETWORK.parameters)
    at = next(i for i, shape in enumerate(TOPOLOGY.shapes) if shape == TOPOLOGY.layers[1])
    hidden = parameters[at]
    weights = hidden.weights.copy()
    weights[2, 3] ^= 1
    parameters[at] = MatrixParameters(weights, hidden.thresholds)
    other = Network(TOPOLOGY, tuple(parameters))
    spoilt = (golden.scores(other, IMAGES) != golden.scores(NETWORK, IMAGES)).any(axis=1)
    assert 0 < spoilt.sum() < len(IMAGES)
    seen = volume.stream(other, UNIT, IMAGES, executable=executable)
    assert seen.wrong_images == np.flatnonzero(spoilt).tolist()
    assert seen.differences[0] == \
        f"image {spoilt.argmax()}: the result of the RTL differs from the golden model's"


def test_one_wrong_cycle_is_reported(executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = volume._predict

    def late(*arguments):
        in_cycles, out_cycles = predict(*arguments)
        out_cycles[2, 0] += 1
        return in_cycles, out_cycles

    monkeypatch.setattr(volume, "_predict", late)
    seen = volume.stream(NETWORK, UNIT, IMAGES[:5], executable=executable)
    assert seen.differences == ["image 2: its beats moved in other cycles than predicted"]


def with_kernels(kernels: tuple[Kernel, ...]) -> Accelerator:
    """Return `UNIT` with kernels that do not fit each other, which it would refuse."""
    unit = copy(UNIT)
    vars(unit)["kernels"] = kernels
    return unit


def test_missing_beats_end_the_run(executable: Path) -> None:
    """The bench waits for three beats of each image, and two come."""
    waiting = with_kernels((*UNIT.kernels[:-1], replace(UNIT.kernels[-1], beats=3)))
    with pytest.raises(MismatchError, match=r"^accelerator hangs: 4 of 4 beats in, 4 of 6 out after \d+ cycles$"):
        volume.stream(NETWORK, waiting, IMAGES[:2], executable=executable)


def test_a_bench_that_fails_is_reported(executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "_write_draws", lambda folder, seed: (folder / "draws.bin").unlink(missing_ok=True))
    with pytest.raises(SimulationError) as caught:
        volume.stream(NETWORK, UNIT, IMAGES[:2], executable=executable)
    assert str(caught.value) == "simulation of accelerator failed: draws.bin: No such file or directory"


def test_an_interruption_ends_the_bench(executable: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        volume.stream(NETWORK, UNIT, IMAGES, executable=executable, progress=interrupt)


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"images": IMAGES[:0]}, "0 images given; at least 1 is needed"),
    ({"images": IMAGES, "traffic": Traffic(91)}, "idle is 91 percent; it must be 0 to 90"),
    ({"images": IMAGES + 8}, "pixels 8 to 15 given; 3 bits hold 0 to 7"),
])
def test_bad_input(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        volume.stream(NETWORK, UNIT, **arguments)
    assert str(caught.value) == sentence


def test_marks_of_malformed_frames_are_reported(executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench sends images of one beat to hardware that takes two."""
    n_images, n_out = 4, UNIT.m_axis.beats
    short = with_kernels((replace(UNIT.kernels[0], beats=1), *UNIT.kernels[1:]))
    monkeypatch.setattr(volume, "input_beats", lambda unit, images: [0] * len(images))
    monkeypatch.setattr(volume, "_predict", lambda *_: (np.zeros(n_images, int), np.zeros((n_images, n_out), int)))
    seen = volume.stream(NETWORK, short, IMAGES[:n_images], executable=executable)
    assert seen.breaches == [*(f"m_axis: tuser marks image {i}, whose frame was whole" for i in range(n_images)),
                             f"frame_errors is {n_images} after {n_images} frames that were whole"]


def test_breaches_of_the_bench_come_first(executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = volume._play
    monkeypatch.setattr(volume, "_play", lambda *arguments: (play(*arguments)[0], 3, 0))
    seen = volume.stream(NETWORK, UNIT, IMAGES[:2], executable=executable)
    assert seen.differences == ["m_axis: 3 beats offered and not taken were changed or withdrawn"]
