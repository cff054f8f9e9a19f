"""Networks that nobody thought of: Hypothesis draws shapes, foldings, FIFOs and stalls; the RTL must equal the model.

CBNN_EXAMPLES says how many are drawn. A failing one is shrunk and printed as a `Case`, to be kept in REGRESSIONS.
"""

import os
import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding, pixel_bytes, pools_after
from cbnn.hw.frame_guard import guarded
from cbnn.hw.input_stream import input_beats, input_images
from cbnn.hw.layer_folding import mmv_choices
from cbnn.hw.slice_order import divisors, simd_choices, slices_together
from cbnn.hw.verilog import generate
from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.compute import golden
from cbnn.model.network import Network, random_network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.topology import Topology
from cbnn.sim.predict import dataflow
from cbnn.sim.prove.cosim import Observation, Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

N_EXAMPLES = int(os.environ.get("CBNN_EXAMPLES", "10"))
BATCH = 10
"""Examples drawn in a row; beyond ten, Hypothesis varies earlier ones instead of drawing afresh."""
MAX_INTERVAL = 120
"""Cycles per image at most, so that an example takes seconds; FIFOs of one beat may double them."""
MAX_XNORS = 256
"""XNOR bits per matrix unit at most: Icarus is slow on wide words."""
N_IMAGES, N_DISTURBED_IMAGES = 10, 3
N_SETTLED = 3
"""Last intervals that are held against the formula; before, FIFOs and line buffers fill up."""
KINDS = ("CD", "CCD", "D", "CDD", "DD", "CCCD", "CCDD", "DDD", "CDDD", "DDDD")
"""Layers of a network, convolutional and dense."""
SIZES, WIDTHS = st.sampled_from((5, 4, 6, 3, 8, 7, 2, 1, 9)), st.sampled_from((4, 6, 3, 8, 2, 5, 7, 1, 9, 10))
"""Pixels of a side, and rows of a layer; Hypothesis draws the first more often, so they are no trivial ones."""


@dataclass(frozen=True)
class Case:
    """A network, its folding, and how its two sides behave; FIFO depths of None are the default ones.

    `frames` are beats of the frames of the run with stalls; none: all of its frames are whole.
    """

    topology: str
    folding: str
    input_width: int
    whole_bytes: bool = False
    fifo_depths: tuple[int, ...] | None = None
    seed: int = 0
    idle_percent: int = 0
    stall_percent: int = 0
    reset_after: int = 1
    by_place: bool = False
    frames: tuple[int, ...] = ()
    class_only: bool = False

    def unit(self) -> tuple[Network, Accelerator]:
        topology = Topology.parse(self.topology)
        folding = Folding.parse(self.folding, topology, self.input_width, self.whole_bytes)
        if self.fifo_depths:
            folding = folding.with_fifo_depths(self.fifo_depths)
        network = random_network(topology, self.seed, self.by_place)
        return network, accelerator(network, folding, "net", class_only=self.class_only)


REGRESSIONS = [
    # Beats of a pool came faster than they were handed out, and held up the slowest unit.
    Case("5x5x1u2:0-4C2P1-MP3-4FC", "(2,4)(1,1)", 25, False, None, 0, 30, 40, 12),
    Case("4x7x1u6:3-8C2S2P1-MP2-9FC-2FC", "(4,2)(9,1)(2,3)", 14, False, None, 41, 55, 16, 3),
    Case("4x7x1u7:3,0-8C5P3B1-MP2-1C1S3-10C2P1B1-7FC", "(8,25)(1,1)(10,2)(7,12)", 8, False, None, 78),
    # The first layer still worked on rows that the pool drops when the last scores had left, and was not counted.
    Case("9x5x2u1-4C1S2-MP3-4FC", "(1,1)(1,1)", 90),
    # The line buffer of a layer as slow as the one before was too small for its padding.
    Case("16x8x3u1-2C3P0-4C4P3-MP3-2FC", "(1,27)(4,32)(1,1)", 48, False, None, 0, 20, 20, 12),
    Case("11x6x2u1w-4C1-2C4P3-2FC", "(1,2)(2,32)(1,2)", 44, False, None, 0, 0, 50, 4),
]


@st.composite
def convolutions(draw, in_shape, max_windows):
    height, width, _ = in_shape

    def sizes(kernel, stride, padding):
        return [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]

    fits = [(k, s, p) for k in range(1, 6) for s in range(1, 4) for p in range(k)
            if min(height, width) + 2 * p >= k and prod(sizes(k, s, p)) <= max_windows]
    kernel = draw(st.sampled_from(sorted({k for k, _, _ in fits})))
    stride, padding = draw(st.sampled_from([(s, p) for k, s, p in fits if k == kernel]))
    pool = draw(st.integers(1, min(3, *sizes(kernel, stride, padding))))
    conv = Conv(draw(WIDTHS), kernel, stride, padding, draw(st.integers(0, 1)))
    return [conv, MaxPool(pool)] if pool > 1 else [conv]


@st.composite
def topologies(draw):
    in_shape = draw(st.tuples(SIZES, SIZES, st.sampled_from((1, 3, 2))))
    bits = draw(st.sampled_from((2, 8, 1, 5, 3, 4, 6, 7, 10)))
    n_slices = min(bits, max(4, MAX_INTERVAL // (in_shape[0] * in_shape[1])))
    kept = draw(st.sets(st.integers(0, bits - 1), min_size=1, max_size=n_slices))
    kinds = draw(st.sampled_from(KINDS))
    layers, shape = [], in_shape
    for i in range(kinds.count("C")):
        layers += draw(convolutions(shape, MAX_INTERVAL // (1 if i else len(kept))))
        shape = Topology.chain(in_shape, bits, (0,), (*layers, Dense(1))).shapes[-2].out_shape
    layers += [Dense(draw(WIDTHS)) for _ in range(kinds.count("D"))]
    return Topology.chain(in_shape, bits, tuple(sorted(kept, reverse=True)), layers,
                          draw(st.sampled_from(["sliced", "weighted"])))


def cycles(shape: MatrixShape, pe: int, simd: int, mmv: int, together: int) -> int:
    working = shape.n_windows * shape.n_slices * shape.slice_inputs * shape.mh // (pe * simd * mmv)
    if not shape.operator.slides:
        return working
    return max(working, SlidingWindow.for_layer("", shape, simd, together, mmv).interval_cycles)


@st.composite
def foldings(draw, topology, whole_bytes):
    """Draw the numbers of every layer, neither too slow nor too wide; half of them as slow as the first layer's."""
    found, balanced, pace = [], draw(st.booleans()), MAX_INTERVAL
    for i, (shape, pool) in enumerate(zip(topology.layers, pools_after(topology), strict=True)):
        fits = []
        for simd in simd_choices(shape, whole_bytes and i == 0):
            together = shape.n_slices if whole_bytes and i == 0 else slices_together(shape, simd)
            whole = simd == shape.n_slices * shape.slice_inputs
            fits += [(pe, simd, mmv, together) for pe in divisors(shape.mh)
                     for mmv in (mmv_choices(shape, pool) if whole and pe == shape.mh else [1])
                     if pe * simd * mmv <= MAX_XNORS and cycles(shape, pe, simd, mmv, together) <= pace]
        if balanced and found and fits:
            slowest = max(cycles(shape, *numbers) for numbers in fits)
            fits = [numbers for numbers in fits if cycles(shape, *numbers) == slowest]
        # Else most would be bit serial, which most foldings are.
        kinds = [(mmv > 1, together > 1) for _, _, mmv, together in fits]
        ways = [[numbers for numbers, other in zip(fits, kinds, strict=True) if other == kind]
                for kind in sorted(set(kinds))]
        assume(ways)
        found.append(draw(st.sampled_from(draw(st.sampled_from(ways)))))
        if balanced:
            pace = cycles(topology.layers[0], *found[0])
    return "".join(f"({pe},{simd},{mmv})" for pe, simd, mmv, _ in found)


@st.composite
def cases(draw):
    topology = draw(topologies())
    whole_bytes = draw(st.booleans())
    folding = draw(foldings(topology, whole_bytes))
    colours = prod(topology.in_shape)
    elements, bits = (colours, 8 * pixel_bytes(topology)) if whole_bytes else (colours * len(topology.kept_slices), 1)
    beats = draw(st.sampled_from([n for n in divisors(elements) if n <= MAX_INTERVAL]))
    depths = draw(st.none() | st.tuples(*[st.integers(1, 8)] * len(topology.layers)))
    reset_percent = draw(st.sampled_from((150, 50, 100, 10, 190)))
    percents = draw(st.tuples(*[st.sampled_from((100, 60, 130, 1, 99, 101, 200, 250))] * N_DISTURBED_IMAGES))
    # A beat less or more, at least, where it is not to be whole.
    frames = tuple(max(1, beats * percent // 100 + (percent == 101)) for percent in percents)
    return Case(str(topology),
                folding, elements // beats * bits, whole_bytes, depths, draw(st.integers(0, 99)),
                draw(st.integers(0, 60)), draw(st.integers(0, 60)), max(1, beats * reset_percent // 100),
                draw(st.booleans()),
                frames, draw(st.booleans()))


def simulate(network: Network, unit: Accelerator, runs: list[Run]) -> list[Observation]:
    links = [part.name.removeprefix("net_") for part in unit.parts[:-1]]
    with tempfile.TemporaryDirectory(prefix="cbnn-") as folder:
        verilog = Path(folder) / "verilog"
        generate(unit, verilog)
        return cosimulate(Design.generated(verilog, "net"), runs, watch=links,
                          busy=[f"u_{unit.mvtus[0].name.removeprefix('net_')}.go"])


def malformed(beats: list[int], frames: tuple[int, ...], image_beats: int) -> tuple[list[int], tuple[bool, ...]]:
    """Cut images' beats into frames of these lengths, each from the start of an image; give them and their `tlast`."""
    sent = [beat for i, length in enumerate(frames) for beat in beats[i * image_beats :][:length]]
    return sent, tuple(last for length in frames for last in image_ends(1, length))


def check(case: Case) -> None:
    """Play images without stalls, then some frames with stalls and a reset in the middle; compare every beat."""
    network, unit = case.unit()
    topology, per_image, image_beats = network.topology, unit.m_axis.beats, unit.input_beats
    images = np.random.default_rng(case.seed).integers(0, 1 << topology.input_bits, (N_IMAGES, *topology.in_shape))
    beats, frames = input_beats(unit, images), case.frames or (image_beats,) * N_DISTURBED_IMAGES
    patience = 10 * (sum(kernel.latency_cycles for kernel in unit.kernels) + N_IMAGES * unit.interval_cycles)
    streams = [(beats, image_ends(N_IMAGES, image_beats)), malformed(beats, frames, image_beats)]
    options = [{"drain_cycles": unit.interval_cycles},
               {"idle_percent": case.idle_percent, "stall_percent": case.stall_percent, "seed": case.seed,
                "reset_after": case.reset_after}]
    runs = [Run(tuple(format(beat, "x") for beat in sent), lasts, n * per_image, max_cycles=patience, **option)
            for (sent, lasts), n, option in zip(streams, (N_IMAGES, len(frames)), options, strict=True)]
    seen = simulate(network, unit, runs)
    for (sent, lasts), run, rtl in zip(streams, runs, seen, strict=True):
        whole, marks = guarded(sent, lasts, image_beats)
        assert rtl.breaches == []
        assert rtl.out_beats == unit.classify.encoded(golden.scores(network, input_images(unit, whole)))
        assert rtl.out_last == list(image_ends(len(marks), per_image))
        assert rtl.out_user == np.repeat(marks, per_image).tolist()
        ends = np.flatnonzero(lasts) + 1
        trace = dataflow.simulate(unit, len(marks), frames=np.diff(ends, prepend=0).tolist(),
                                  idle_percent=run.idle_percent, stall_percent=run.stall_percent, seed=run.seed)
        assert rtl.out_cycles == trace.taken(-1).tolist()
        assert rtl.in_cycles == trace.entered[: len(rtl.in_cycles)].tolist()
    assert seen[0].out_beats == unit.classify.encoded(golden.scores(network, images))
    check_cycles(unit, seen[0], exact=case.fifo_depths is None)


def check_cycles(unit: Accelerator, undisturbed: Observation, exact: bool) -> None:
    """Hold cycles against the formulas; FIFOs shallower than the default ones may only cost cycles."""
    assert len(undisturbed.in_cycles) == N_IMAGES * unit.input_beats
    assert undisturbed.busy == [N_IMAGES * unit.first_layer_cycles]
    gaps = np.diff(undisturbed.out_cycles[unit.m_axis.beats - 1 :: unit.m_axis.beats])[-N_SETTLED:]
    if exact:
        assert gaps.tolist() == [unit.interval_cycles] * N_SETTLED
    else:
        assert gaps.sum() >= unit.interval_cycles * N_SETTLED


@pytest.mark.parametrize("batch", range(-(-N_EXAMPLES // BATCH)))
@settings(max_examples=BATCH, derandomize=N_EXAMPLES == BATCH, deadline=None, print_blob=True)
@given(case=cases())
def test_random_networks_equal_the_golden_model_and_the_formulas(batch, case):
    check(case)


@pytest.mark.parametrize("case", REGRESSIONS, ids=lambda case: case.topology)
def test_networks_that_once_failed_equal_the_golden_model_and_the_formulas(case):
    check(case)
