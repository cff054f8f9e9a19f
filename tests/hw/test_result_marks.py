"""Result marks: every result gets the mark of its own image, however many are in flight."""

import random
from fractions import Fraction

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator, chain
from cbnn.hw.folding import Folding
from cbnn.hw.frame_guard import guarded
from cbnn.hw.input_stream import input_beats, input_images
from cbnn.hw.verilog import generate
from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.predict.dataflow import simulate, simulate_kernels
from cbnn.sim.prove.cosim import Run, cosimulate
from cbnn.sim.prove.design import Design


def unit_of(layers, in_shape, folding, width, depths):
    topology = Topology.parse(layers, in_shape, 1)
    network = random_network(topology, 3)
    return network, accelerator(network, Folding.parse(folding, topology, width).with_fifo_depths(depths), "net")


def in_flight(unit, trace):
    """The most images whose last beat has entered and whose last beat has not left, in any cycle."""
    entered = trace.taken(0)[unit.input_beats - 1 :: unit.input_beats]
    left = trace.taken(-1)[unit.m_axis.beats - 1 :: unit.m_axis.beats]
    # After each entrance; an image that leaves in the same cycle still needs its flag in that cycle.
    return int(max(np.arange(1, len(entered) + 1) - np.searchsorted(left, entered, "left")))


def test_images_of_one_beat_fill_the_whole_chain_and_keep_their_marks(tmp_path):
    """More images are in flight than the smallest ring holds, and nothing moves for long."""
    network, unit = unit_of("3FC-2FC", (2, 2, 1), "(3,4)(2,3)", 4, (50, 20))
    n_images, options = 150, {"idle_percent": 0, "stall_percent": 80, "seed": 4}
    draw = random.Random(1)
    lengths = draw.choices((1, 2, 3), (3, 1, 1), k=n_images)
    pixels = np.random.default_rng(0).integers(0, 2, (sum(lengths), 2, 2, 1))
    beats, lasts = input_beats(unit, pixels), [i == n - 1 for n in lengths for i in range(n)]
    images, marks = guarded(beats, lasts, 1)
    assert marks == [length != 1 for length in lengths]
    trace = simulate(unit, n_images, frames=lengths, **options)
    assert 64 < in_flight(unit, trace) <= unit.marks.images < unit.marks.depth == 128
    generate(unit, tmp_path / "v")
    run = Run(tuple(format(beat, "x") for beat in beats), tuple(lasts), n_images, **options)
    [seen] = cosimulate(Design.generated(tmp_path / "v", "net"), [run])
    assert seen.out_user == marks
    assert seen.out_beats == unit.classify.encoded(golden.scores(network, input_images(unit, images)))
    assert seen.out_cycles == trace.taken(-1).tolist()
    assert seen.frame_errors == sum(marks)
    assert seen.breaches == []


@pytest.mark.parametrize(("layers", "in_shape", "folding", "width", "depths"), [
    ("8FC-6FC-3FC", (4, 4, 1), "(8,16)(6,8)(3,6)", 16, (1, 1, 1)),
    ("8FC-6FC-3FC", (4, 4, 1), "(1,1)(1,1)(1,1)", 1, (9, 50, 90)),
    ("8FC-6FC-3FC", (4, 4, 1), "(8,8)(6,2)(1,6)", 4, (7, 80, 80)),
    ("2C1-3FC", (1, 1, 1), "(2,1)(3,2)", 1, (40, 40)),
    ("2C3-MP2-3C1-4FC", (3, 3, 1), "(2,9)(3,2)(1,3)", 3, (5, 30, 40)),
    ("2C2S3P1B1-4C2P1-3FC", (4, 5, 2), "(2,8)(4,8)(3,4)", 2, (9, 9, 9)),
    ("2C1S3-3FC", (3, 3, 1), "(1,1)(3,2)", 9, (1, 99)),
    ("5FC-5FC", (8, 8, 3), "(5,24)(1,5)", 96, (8, 2)),
])
def test_no_more_images_are_in_flight_than_stated(layers, in_shape, folding, width, depths):
    _, unit = unit_of(layers, in_shape, folding, width, depths)
    free = simulate(unit, 300, stall_percent=90, seed=2)
    assert in_flight(unit, free) <= unit.marks.images


@pytest.mark.parametrize("in_shape", [(5, 2, 1), (7, 3, 1), (7, 1, 1)])
def test_a_window_unit_holds_all_that_it_states(in_shape):
    """A stride frees rows faster than their windows leave."""
    topology = Topology.parse("2C1S2-2FC", in_shape, 1)
    unit = SlidingWindow.for_layer("unit", topology.layers[0], 1)
    trace = simulate_kernels((unit,), chain(1), 60, stall_percent=90, seed=3)
    left = np.searchsorted(trace.taken(-1), trace.taken(0), "left")
    assert unit.images_held == max(Fraction(i + 1, unit.s_axis.beats) - Fraction(int(n), unit.m_axis.beats)
                                   for i, n in enumerate(left))


def test_bound_is_reached():
    """One-beat images, and a FIFO that takes its last beat in the cycle that its first one leaves."""
    _, unit = unit_of("8FC-6FC-3FC", (4, 4, 1), "(8,16)(6,8)(3,6)", 16, (20, 20, 20))
    assert in_flight(unit, simulate(unit, 400, stall_percent=90, seed=2)) == unit.marks.images


@pytest.mark.parametrize(("layers", "in_shape", "early"), [
    ("3C3-4FC", (4, 4, 1), False), ("3C3-MP2-4FC", (4, 4, 1), False), ("4FC", (4, 4, 1), False),
    ("3C3-MP2-4FC", (5, 4, 1), True), ("3C3-MP2-4FC", (4, 5, 1), True), ("3C1S2-4FC", (4, 4, 1), True),
    ("3C1S2-4FC", (5, 5, 1), False), ("3C3-MP2-3C1S3-4FC", (6, 6, 1), True),
    ("3C2S2P0-4FC", (5, 4, 1), True), ("3C2S2P1-4FC", (4, 4, 1), False),
])
def test_results_wait_only_where_the_end_of_an_image_is_dropped(layers, in_shape, early):
    topology = Topology.parse(layers, in_shape, 1)
    unit = accelerator(topology, Folding.of(topology, ((1, 1),) * len(topology.layers)))
    assert unit.marks.early is early
