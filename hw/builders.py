"""What each kind of operator becomes: its kernels, in stream order.

    convolution   [width converter] -> sliding window -> [width converter] -> buffer -> MVTU
    dense layer   [width converter] -> buffer -> MVTU
    max pool      max pool
    last          scores and class -> register slice

The buffer is a FIFO, or, where the matrix unit takes every vector several times, a replay buffer.
After a pool that gives wider beats than are taken, a FIFO holds its bursts.

A tensor of several slices comes one slice after another: the window unit sends every window once
per slice, and the matrix unit treats the slices as further words of the vector, so that cycles are
proportional to the slices kept.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.classify import Classify, signed_width
from cbnn.hw.fifo import Fifo
from cbnn.hw.folding import LayerFolding
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.replay_buffer import ReplayBuffer
from cbnn.hw.stream import Kernel, packed_beats
from cbnn.hw.width_converter import WidthConverter
from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import MaxPool as Pool
from cbnn.model.operators.max_pool import PoolParameters, PoolShape
from cbnn.model.operators.operator import Operator, OperatorShape, Parameters


def node_kernels(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
                 before: Kernel) -> list[Kernel]:
    """Return the kernels of one operator after the kernel `before`; `name` has a place for the kind of kernel.

    Without `parameters` only cycles and sizes can be asked of them.
    """
    return list(BUILDERS[type(shape.operator)](name, shape, parameters, folding, before))


def _convolution(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
                 before: Kernel) -> Iterator[Kernel]:
    """Windows in front of the matrix unit."""
    assert isinstance(shape, MatrixShape)
    pooled_from = (*before.in_shape[:2], before.size) if isinstance(before, MaxPool) else None
    window = SlidingWindow.for_layer(name % "window", shape, folding.simd, pooled_from)
    yield from widths_converted(name % "pixels", before, window.word)
    yield window
    yield from _matrix(name, shape, parameters, folding, window)


def _matrix(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
            before: Kernel) -> Iterator[Kernel]:
    """Words, a buffer of them, and the matrix unit."""
    assert isinstance(shape, MatrixShape)
    neuron_fold = shape.mh // folding.pe
    for converter in widths_converted(name % "words", before, folding.simd):
        before = converter
        yield converter
    yield _buffer(name % "buffer", folding, before.m_axis.beats, shape.n_windows, neuron_fold)
    weights: tuple[int, ...] = ()
    thresholds: tuple[int, ...] = ()
    place_ends: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (0,))
    score_width = signed_width(*_score_range(shape, parameters)) if shape.operator.scores else 0
    if parameters is not None:
        assert isinstance(parameters, MatrixParameters)
        weights = _weight_words(shape, parameters, folding)
        # Half the range more, and no offset, and so no score, is negative.
        rows = parameters.thresholds if parameters.offsets is None else parameters.offsets + (1 << score_width - 1)
        assert rows is not None
        width = score_width or (shape.max_accumulator + 1).bit_length()
        thresholds = packed_beats(_bits(rows.ravel(), width).reshape(-1, folding.pe * width))
        place_ends = shape.place_ends if rows.ndim == 2 else place_ends
    slice_weights = shape.tensor.slices if shape.tensor.shared else (1,)
    yield Mvtu(name % "mvtu", folding.pe, folding.simd, shape.mw // folding.simd, neuron_fold, slice_weights,
               shape.max_accumulator, shape.n_windows, score_width, weights, thresholds, place_ends, folding.ram_style)


def _pool(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
          before: Kernel) -> Iterator[Kernel]:
    assert isinstance(shape, PoolShape)
    groups = shape.in_shape[2] // folding.pe
    invert: tuple[int, ...] = (0,) * groups
    if parameters is not None:
        assert isinstance(parameters, PoolParameters)
        invert = packed_beats(parameters.invert.reshape(groups, folding.pe))
    beat_cycles = before.synapse_fold if isinstance(before, Mvtu) else 1
    yield MaxPool(name % "pool", shape.in_shape, shape.operator.size, folding.pe, invert, beat_cycles)


BUILDERS: dict[type[Operator], Callable[[str, OperatorShape, Parameters | None, LayerFolding, Kernel],
                                        Iterator[Kernel]]] = {Conv: _convolution, Dense: _matrix, Pool: _pool}
"""What makes the kernels of every kind of operator."""


def tail_kernels(name: str, shape: OperatorShape, parameters: Parameters | None, before: Kernel) -> list[Kernel]:
    """Return the kernels after the last matrix unit, `before`, which gives scores."""
    assert isinstance(shape, MatrixShape)
    assert isinstance(before, Mvtu)
    low, high = _score_range(shape, parameters)
    classify = Classify(name % "classify", before.pe, low, high, shape.mh)
    return [classify, RegisterSlice(name % "output", classify.m_axis.width, classify.m_axis.beats)]


def widths_converted(name: str, before: Kernel, width: int) -> Iterator[Kernel]:
    """Give the converters from what leaves `before` to beats of `width`: none, one, or up and down again.

    A pool sends its pixels in bursts; those that come faster than they can be handed out wait in a
    FIFO.
    """
    given = before.m_axis
    common = math.lcm(given.width, width)
    if isinstance(before, MaxPool) and (waiting := before.most_waiting(width)):
        before = Fifo(f"{name}_burst", given.width, waiting + common // given.width, given.beats)
        yield before
    if common != given.width:
        before = WidthConverter(f"{name}_gather", given.width, common, given.beats)
        yield before
    if common != width:
        yield WidthConverter(f"{name}_hand_out", common, width, before.m_axis.beats)


def _buffer(name: str, folding: LayerFolding, n_beats: int, n_vectors: int, neuron_fold: int) -> Kernel:
    """Hold beats in front of a matrix unit, and give them once per fold of rows."""
    if neuron_fold == 1:
        return Fifo(name, folding.simd, folding.fifo_depth, n_beats)
    return ReplayBuffer(name, folding.simd, folding.fifo_depth, n_beats, n_beats // n_vectors, neuron_fold)


def _score_range(shape: MatrixShape, parameters: Parameters | None) -> tuple[int, int]:
    """Bounds of the scores of a last layer."""
    given = parameters.offsets if isinstance(parameters, MatrixParameters) else None
    offsets = [0] if given is None else given.tolist()
    return min(offsets), max(offsets) + shape.max_accumulator


def _weight_words(shape: MatrixShape, parameters: MatrixParameters, folding: LayerFolding) -> tuple[int, ...]:
    """ROM words in the order of use: folds of rows outermost, then words; in a word PE 0 in the low bits."""
    folds = parameters.weights.reshape(shape.mh // folding.pe, folding.pe, shape.mw // folding.simd, folding.simd)
    return packed_beats(folds.transpose(0, 2, 1, 3).reshape(-1, folding.pe * folding.simd))


def _bits(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    return ((values[:, np.newaxis] >> np.arange(width)) & 1).astype(np.uint8)
