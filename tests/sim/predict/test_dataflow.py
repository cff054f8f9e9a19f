"""The dataflow simulator: the cycle of every beat, equal to the RTL's on Icarus."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from cbnn.hw.accelerator import Accelerator, accelerator, chain
from cbnn.hw.fifo import Fifo
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.stream import OUTSIDE, Link, Port, Schedule
from cbnn.hw.verilog import generate
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.predict import dataflow
from cbnn.sim.predict.dataflow import simulate, simulate_kernels
from cbnn.sim.predict.outside import NONE, Sink, Source
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

STALLS = ((0, 0), (50, 0), (0, 70), (40, 60))
N_IMAGES = 4


def with_depths(folding: Folding, depth: int | None) -> Folding:
    if depth is None:
        return folding
    return folding.with_fifo_depths([depth] * len(folding.layers))


@pytest.mark.parametrize("depth", [None, 1, 3])
@pytest.mark.parametrize("description", [
    ("4C3-MP2-6C3-8FC-5FC", (6, 6, 1), 4, (3, 2, 0), "sliced", "(2,9)(2,4)(4,6)(5,4)"),
    ("4C3S2P0-6C1-4FC", (7, 7, 3), 5, (4, 3, 1), "weighted", "(4,9)(3,2)(2,18)"),
    ("3C2P1B1-MP3-5FC", (6, 5, 2), 3, None, "sliced", "(3,4)(1,3)"),
    ("6FC-9FC-4FC", (3, 3, 2), 3, (2, 0), "weighted", "(3,6)(3,2)(2,3)"),
    ("6C3-10C3P0-3FC", (4, 4, 1), 1, None, "sliced", "(6,3)(5,54)(1,20)", 8),
    ("8FC-6FC-3FC", (4, 4, 1), 1, None, "sliced", "(8,16)(6,8)(3,6)", 16),
    ("8FC-6FC-3FC", (4, 4, 1), 1, None, "sliced", "(1,1)(1,8)(1,1)", 1),
    ("6C5S3P2-MP2-4FC", (9, 8, 2), 2, None, "sliced", "(2,5)(4,1)", 12),
    ("4C3-MP2-6C3-5FC", (6, 6, 2), 4, (3, 2), "weighted", "(2,36)(6,36,3)(5,2)"),
    ("3C3-MP2-5FC", (6, 8, 1), 8, (7, 6, 2), "sliced", "(3,27,4)(5,3)", 16, True),
], ids=lambda description: "-".join(map(str, description[:6:5])))
def test_every_beat_in_the_cycle_of_the_rtl(tmp_path: Path, description: tuple, depth: int | None) -> None:
    layers, in_shape, bits, kept, first_layer, folding, *width = description
    network = random_network(Topology.parse(layers, in_shape, bits, kept, first_layer), 1)
    unit = accelerator(network, with_depths(Folding.parse(folding, network.topology, *width), depth))
    images = np.random.default_rng(0).integers(0, 1 << bits, (N_IMAGES, *in_shape))
    beats = tuple(format(beat, "x") for beat in input_beats(unit, images))
    generate(unit, tmp_path / "v")
    lasts = image_ends(N_IMAGES, unit.input_beats)
    runs = [Run(beats, lasts, N_IMAGES * unit.m_axis.beats, idle, stall, seed=7)
            for idle, stall in STALLS]
    seen = cosimulate(Design.generated(tmp_path / "v", unit.name), runs)
    for (idle, stall), rtl in zip(STALLS, seen, strict=True):
        trace = simulate(unit, N_IMAGES, idle_percent=idle, stall_percent=stall, seed=7)
        assert trace.taken(0).tolist() == rtl.in_cycles
        assert trace.taken(-1).tolist() == rtl.out_cycles


REPEATING = Topology.parse("4C3-MP2-6C3-8FC-5FC", (6, 6, 1), 4)


@pytest.mark.parametrize("depth", [None, 1])
def test_what_repeats_is_what_would_be_simulated(depth: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = accelerator(REPEATING, with_depths(Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING), depth))
    short = simulate(unit, 50)
    monkeypatch.setattr(dataflow._Simulation, "_period", lambda self: 0)
    full = simulate(unit, 50)
    assert short.n_simulated < full.n_simulated == 50
    for link in range(len(unit.kernels) + 1):
        assert short.taken(link).tolist() == full.taken(link).tolist()
        assert short.offered(link).tolist() == full.offered(link).tolist()
    assert (short.interval_cycles, short.latency_cycles) == (full.interval_cycles, full.latency_cycles)


@pytest.mark.parametrize(("topology", "folding", "input_width"), [
    ("8x8x1u5-16C3-16C3-MP2-32C3-MP2-64FC-10FC", "(16,9)(16,16)(8,16)(8,16)(10,8)", None),
    ("14x14x3u7w:6,5,3-6C3S2P1B1-8C3-MP3-10FC", "(2,9)(4,18)(5,4)", None),
    ("6x6x2u2:1-4C3-MP2-3C1-5FC", "(1,1)(3,4)(1,1)", None),
    ("4x4x1u1-8FC-6FC-3FC", "(8,16)(6,8)(3,6)", 16),
    ("9x8x2u2-6C5S3P2-MP2-4FC", "(1,5)(4,1)", 12),
    ("8x8x1u4w-4C3-MP2-6C3-MP4-5FC", "(4,36,4)(6,36,2)(5,6)", None),
    ("8x8x3u4-4C5P0-MP2-5FC", "(4,300,4)(5,4)", 24),
])
def test_schedule_and_formulas_of_every_kernel_agree(topology: str, folding: str, input_width: int | None) -> None:
    """Each by itself, its beats always offered and always taken."""
    shapes = Topology.parse(topology)
    unit = accelerator(shapes, Folding.parse(folding, shapes, input_width))
    for kernel, after in zip(unit.kernels, (*unit.kernels[1:], None), strict=True):
        if not kernel.schedule.needs_last:
            continue  # by itself its results would wait for the end of an image that it does not let in
        replays = kernel.schedule.kind == Schedule.Kind.REPLAY  # whose rhythm is that of the unit after it
        alone = (kernel, after) if replays else (kernel,)
        trace = simulate_kernels(alone, chain(len(alone)), N_IMAGES)
        slowest = max(kernel.interval_cycles, after.interval_cycles) if replays else kernel.interval_cycles
        assert (kernel.name, trace.interval_cycles) == (kernel.name, slowest)
        if not replays:
            assert (kernel.name, trace.latency_cycles) == (kernel.name, kernel.latency_cycles)


def test_beats_inside_a_replayed_vector_are_there_too() -> None:
    unit = accelerator(REPEATING, Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING))
    trace = simulate(unit, 3)
    for i, mvtu in enumerate(unit.kernels):
        if isinstance(mvtu, Mvtu):
            read = trace.taken(i)
            assert len(read) == 3 * mvtu.s_axis.beats
            assert (np.diff(read) > 0).all()
            ends = read.reshape(-1, mvtu.synapse_fold)[:, -1]
            assert (trace.offered(i + 1) - ends >= mvtu.pipeline_cycles).all()
            assert trace.offered(i + 1)[0] - ends[0] == mvtu.pipeline_cycles


def test_a_deadlock_names_who_waits_for_what() -> None:
    """A line buffer that holds less than a window."""
    unit = accelerator(REPEATING, Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING))
    kernels = list(unit.kernels)
    i = next(i for i, kernel in enumerate(kernels) if kernel.name.endswith("window1"))
    kernels[i] = replace(kernels[i])
    kernels[i].__dict__["depth"] = 4
    with pytest.raises(dataflow.DeadlockError) as caught:
        simulate_kernels(kernels, unit.links, 2)
    sentence = str(caught.value)
    assert sentence.startswith("no beat moves any more when 0 of ")
    assert " for room in accelerator_window1, " in sentence
    assert " for beats of accelerator_window1, " in sentence


@pytest.mark.parametrize(("options", "sentence"), [
    ({"n_images": 0}, "0 images are to be simulated; at least 1 is needed"),
    ({"n_images": 1, "stall_percent": 95}, "stall is 95 percent; it must be 0 to 90"),
    ({"n_images": 10**9, "idle_percent": 0, "stall_percent": 5}, "1000000000 images move "),
    ({"n_images": 3, "frames": (36, 2)},
     "2 frames of at least 2 beats are given for 3 images; each needs a frame of at least 1 beat"),
    ({"n_images": 2, "frames": (36, 0)},
     "2 frames of at least 0 beats are given for 2 images; each needs a frame of at least 1 beat"),
])
def test_bad_input_is_refused(options: dict, sentence: str) -> None:
    unit = accelerator(REPEATING, Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING))
    with pytest.raises(ValueError) as caught:
        simulate(unit, **options)
    assert str(caught.value).startswith(sentence)


def test_frames_that_are_whole_change_nothing() -> None:
    unit = accelerator(REPEATING, Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING))
    for stalls in ({}, {"idle_percent": 40, "stall_percent": 20}):
        plain = simulate(unit, 4, **stalls)
        framed = simulate(unit, 4, frames=[unit.input_beats] * 4, **stalls)
        assert framed.entered.tolist() == plain.entered.tolist() == plain.taken(0).tolist()
        assert framed.taken(-1).tolist() == plain.taken(-1).tolist()


def test_a_fifo_of_many_images_is_full_before_images_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Topology.parse("8FC-6FC-4FC", (4, 4, 1), 1)
    unit = accelerator(topology, Folding.parse("(8,16)(1,2)(4,6)", topology, 16).with_fifo_depths([2, 60, 2]))
    short = simulate(unit, 120)
    monkeypatch.setattr(dataflow._Simulation, "_period", lambda self: 0)
    full = simulate(unit, 120)
    assert dataflow.FIRST_IMAGES < 60 // 4 < short.n_simulated < full.n_simulated
    for link in range(len(unit.kernels) + 1):
        assert short.taken(link).tolist() == full.taken(link).tolist()


SLOW_LAST = {  # so that memories are full, and pipelines stand still, from the last layer up
    "FIFO": ("8FC-6FC-4FC", "(8,16)(6,2)(1,2)", [2, 101, 2]),
    "replay buffer": ("8FC-6FC-4FC", "(8,16)(1,2)(1,2)", [2, 100, 2]),
    "pipeline": ("8FC-6FC-4FC", "(8,16)(6,8)(1,6)", [2, 1, 1]),
    "line buffer": ("4C3-6C3-4FC", "(4,9)(1,12)(1,2)", [2, 2, 2]),
}


def undisturbed(unit: Accelerator, n_images: int) -> dataflow._Simulation:
    return dataflow._Simulation(unit.kernels, unit.links, n_images, Source(NONE), Sink(0, 0))


@pytest.mark.parametrize("description", SLOW_LAST.values(), ids=SLOW_LAST)
def test_what_comes_depends_on_the_last_images(description: tuple,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Images before the last `reach` can be forgotten, and no more than these."""
    layers, folding, depths = description
    topology = Topology.parse(layers, (4, 4, 1), 1)
    unit = accelerator(topology, Folding.parse(folding, topology, 16).with_fifo_depths(depths))
    monkeypatch.setattr(dataflow._Simulation, "_period", lambda self: 0)
    whole = simulate(unit, 100)
    reach = undisturbed(unit, 1).reach
    assert same_without_the_first(unit, reach, whole)
    assert not same_without_the_first(unit, reach - 1, whole)


def same_without_the_first(unit: Accelerator, n_remembered: int, whole: dataflow.Trace) -> bool:
    """Simulate 60 images, forget all but the last; tell whether the next are those of `whole`."""
    simulation = undisturbed(unit, 60)
    simulation.finish()
    for images in simulation.per_image():
        images[: 60 - n_remembered] = 0
    simulation.n_images = whole.n_images
    more = simulation.finish()
    return all(np.array_equal(*(cycles.reshape(whole.n_images, -1)[60:] for cycles in pair))
               for link in simulation.simulated
               for pair in ((more.taken(link), whole.taken(link)),
                            (more.offered(link), whole.offered(link))))


@pytest.mark.parametrize("options", [
    {}, {"frames": (36, 2, 70, 36), "idle_percent": 40, "stall_percent": 20},
], ids=["undisturbed", "disturbed"])
def test_kernels_and_links_come_in_any_order(options: dict) -> None:
    """Beats follow the links, which are counted as they are given."""
    unit = accelerator(REPEATING, Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING))
    kernel_at = np.random.default_rng(1).permutation(len(unit.kernels)).tolist()
    link_at = np.random.default_rng(2).permutation(len(unit.links)).tolist()
    place = {i: at for at, i in enumerate(kernel_at)} | {OUTSIDE: OUTSIDE}
    links = [Link(place[unit.links[i].source], place[unit.links[i].sink]) for i in link_at]
    trace = simulate(unit, 4, **options)
    other = simulate_kernels([unit.kernels[i] for i in kernel_at], links, 4, **options)
    assert other.entered.tolist() == trace.entered.tolist()
    assert other.latency_cycles == trace.latency_cycles
    assert other.interval_cycles == trace.interval_cycles
    for at, i in enumerate(link_at):
        assert other.taken(at).tolist() == trace.taken(i).tolist()
        assert other.offered(at).tolist() == trace.offered(i).tolist()
    for at, i in enumerate(kernel_at):
        assert other.states(at).tolist() == trace.states(i).tolist()


def test_states_end_with_the_last_result() -> None:
    """Beats of rows that a stride drops still move when the last result has left."""
    topology = Topology.parse("8x7x3u7w:4,1-9C2S3-4C1S3-7FC")
    folding = Folding.parse("(9,6)(4,1)(1,1)", topology, 48).with_fifo_depths([5, 6, 1])
    trace = simulate(accelerator(topology, folding), 2)
    n_cycles = int(trace.taken(-1)[-1]) + 1
    assert any(int(trace.offered(i)[-1]) > n_cycles for i in range(len(trace.links)))
    for i in range(len(trace.kernels)):
        assert len(trace.states(i)) == n_cycles


def test_a_kernel_of_several_ports_is_refused() -> None:
    unit = accelerator(REPEATING, Folding.parse("(2,9)(2,4)(4,6)(5,4)", REPEATING))

    class Join(Fifo):
        @property
        def inputs(self) -> tuple[Port, ...]:
            return (*super().inputs, *super().inputs)

    fifo = next(kernel for kernel in unit.kernels if isinstance(kernel, Fifo))
    kernels = tuple(Join(*astuple(fifo)) if kernel is fifo else kernel for kernel in unit.kernels)
    with pytest.raises(ValueError) as caught:
        simulate_kernels(kernels, unit.links, 1)
    assert str(caught.value) == (f"{fifo.name} takes 2 streams and gives 1; the dataflow simulation "
                                 "supports one of each")
