"""Matrix operators fed directly, with tensors of several slices that no network gives yet: golden, RTL and dataflow.

A chain of one or two operators is drawn at random; what enters the first one has any slices, with weights of their own
or shared. It must be what the first layer of a network is, and nothing else.
"""

import os
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cbnn.hw.accelerator import accelerator, chain
from cbnn.hw.builders import node_kernels
from cbnn.hw.folding import Folding
from cbnn.hw.layer_folding import LayerFolding, default_fifo_depth, mmv_choices
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.slice_order import divisors, in_order, simd_choices, slices_together
from cbnn.hw.stream import Kernel
from cbnn.hw.verilog import top_module, write_part
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import MaxPool, PoolParameters, PoolShape
from cbnn.model.operators.operator import Operator, OperatorShape, Parameters
from cbnn.model.operators.tensor import Tensor
from cbnn.model.topology import Topology
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

N_EXAMPLES = max(1, int(os.environ.get("CBNN_EXAMPLES", "10")) // 2)
N_IMAGES = 3
DUMMY = Topology.parse("2FC", (1, 1, 1), 1)


@dataclass(frozen=True)
class Case:
    """Operators, what enters the first, the folding of every one, and bits per beat of the input."""

    tensor: Tensor
    operators: tuple[Operator, ...]
    foldings: tuple[LayerFolding, ...]
    width: int
    seed: int


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    kernel = draw(st.integers(1, 3))
    return Conv(draw(st.sampled_from((3, 4, 2))), kernel, draw(st.integers(1, 2)), draw(st.integers(0, kernel - 1)),
                draw(st.integers(0, 1)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(3, 5), st.integers(3, 5), st.sampled_from((2, 1, 3))))
    counts = draw(st.lists(st.sampled_from((1, 2, 8)), min_size=1, max_size=2))
    slices, own = (*sorted(counts, reverse=True), 1), draw(st.booleans())
    tensor = Tensor(shape, (1,) * len(slices) if own else slices, shared=not own)
    operators = draw(st.sampled_from([
        (draw(convs()),), (Dense(draw(st.sampled_from((4, 6, 3)))),), (draw(convs()), draw(convs())),
        (draw(convs()), MaxPool(2)), (draw(convs()), Dense(4)), (Dense(6), Dense(4))]))
    foldings, now = [], tensor
    for operator in operators:
        try:
            bound = operator.shape(now)
        except ValueError:
            assume(False)
        if isinstance(bound, MatrixShape):
            simd = draw(st.sampled_from(simd_choices(bound)))
            pe = draw(st.sampled_from(divisors(bound.mh)))
            pool = operators[-1] if isinstance(operators[-1], MaxPool) else None
            mmv = 1
            if simd == bound.n_slices * bound.slice_inputs and draw(st.booleans()):
                pe, mmv = bound.mh, draw(st.sampled_from(mmv_choices(bound, pool and pool.shape(bound.out))))
            foldings.append(LayerFolding(pe, simd, default_fifo_depth(bound, simd), mmv=mmv))
        else:
            foldings.append(foldings[-1])
        now = bound.out
    width = draw(st.sampled_from(divisors(prod(shape) * len(slices))))
    return Case(tensor, operators, tuple(foldings), width, draw(st.integers(0, 99)))


def drawn(shape: OperatorShape, rng: np.random.Generator) -> Parameters:
    if isinstance(shape, PoolShape):
        return PoolParameters(rng.random(shape.in_shape[2]) < 0.5)
    assert isinstance(shape, MatrixShape)
    middle, spread = shape.max_accumulator // 2, 1 + shape.max_accumulator // 6
    rows = (shape.n_places, shape.mh) if shape.n_places > 1 and rng.random() < 0.5 else shape.mh
    thresholds = np.clip(middle + rng.integers(-spread, spread + 1, rows), 0, shape.max_accumulator + 1)
    return MatrixParameters(rng.integers(0, 2, (shape.mh, shape.mw), np.uint8), thresholds)


def beats_of(bits: np.ndarray, width: int) -> list[int]:
    return [int("".join(map(str, beat[::-1])), 2) for beat in bits.reshape(-1, width).tolist()]


@settings(deadline=None, max_examples=N_EXAMPLES)
@given(case=cases())
def test_any_slices_anywhere(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng, folder = np.random.default_rng(case.seed), tmp_path_factory.mktemp("operators")
    bits = rng.integers(0, 2, (N_IMAGES, len(case.tensor.slices), *case.tensor.shape), np.uint8)
    first = case.operators[0].shape(case.tensor)
    assert isinstance(first, MatrixShape)
    together = slices_together(first, case.foldings[0].simd)
    sent = beats_of(in_order(bits, together, by_pixel=first.operator.slides), case.width)

    kernels: list[Kernel] = [RegisterSlice("dut_input", case.width, len(sent) // N_IMAGES)]
    tensor = case.tensor
    for i, (operator, folding) in enumerate(zip(case.operators, case.foldings, strict=True)):
        shape = operator.shape(tensor)
        parameters = drawn(shape, rng)
        shape.check(parameters)
        side_by_side = slices_together(shape, folding.simd) if isinstance(shape, MatrixShape) else 1
        kernels += node_kernels(f"dut_%s{i}", shape, parameters, folding, side_by_side, kernels[-1])
        bits, tensor = shape.compute(parameters, bits), shape.out
    expected = beats_of(bits, kernels[-1].m_axis.width)

    unit = replace(accelerator(DUMMY, Folding.parse("(1,1)", DUMMY), "dut"), kernels=tuple(kernels),
                   links=chain(len(kernels)))
    modules = [module for part in unit.parts for module in write_part(part, folder)]
    Path(folder / "dut.v").write_text(top_module(unit))
    lasts = image_ends(N_IMAGES, unit.input_beats)
    words = tuple(format(beat, "x") for beat in sent)
    runs = [Run(words, lasts, len(expected), idle, stall, seed=case.seed, max_cycles=400_000, drain_cycles=2_000)
            for idle, stall in ((0, 0), (40, 50))]
    design = Design(folder, "dut", tuple(f"{module}.v" for module in [*modules, "dut"]))
    for run, seen in zip(runs, cosimulate(design, runs), strict=True):
        assert seen.breaches == []
        assert seen.out_beats == expected
        trace = simulate(unit, N_IMAGES, idle_percent=run.idle_percent, stall_percent=run.stall_percent, seed=run.seed)
        assert seen.in_cycles == trace.entered.tolist()
        assert seen.out_cycles == trace.taken(-1).tolist()
