"""What each kind of operator becomes: its kernels, in stream order.

    convolution   [width converter] -> sliding window -> [width converter] -> buffer -> MVTU
    dense layer   [width converter] -> buffer -> MVTU
    max pool      max pool
    last          scores and class, or class only -> register slice

The buffer is a FIFO, or, where the matrix unit takes every vector several times, a replay buffer.
After a pool that gives wider beats than are taken, a FIFO holds its bursts.

A tensor of several slices comes slice by slice, or group by group, see `slice_order`: the window
unit sends every window once per group, and the matrix unit treats the groups as further words of
the vector. So, at the same SIMD, cycles are proportional to the bits of a window in all slices.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.classify import Classify, signed_width
from cbnn.hw.fifo import Fifo
from cbnn.hw.layer_folding import LayerFolding
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.replay_buffer import ReplayBuffer
from cbnn.hw.slice_order import group_counts, lanes, ordered_weights
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
                 together: int, before: Kernel, writable: bool = False) -> list[Kernel]:
    """Return the kernels of one operator after the kernel `before`.

    Parameters
    ----------
    name : has a place for the kind of kernel
    parameters : without them only cycles and sizes can be asked of the kernels
    together : slices of what enters that lie side by side
    writable : whether a host can write what depends on the parameters
    """
    return list(BUILDERS[type(shape.operator)](name, shape, parameters, folding, together, before, writable))


def _convolution(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
                 together: int, before: Kernel, writable: bool) -> Iterator[Kernel]:
    """Windows in front of the matrix unit."""
    assert isinstance(shape, MatrixShape)
    pooled_from = (*before.in_shape[:2], before.size) if isinstance(before, MaxPool) else None
    window = SlidingWindow.for_layer(name % "window", shape, folding.simd, together, folding.mmv, pooled_from)
    yield from widths_converted(name % "pixels", before, window.word)
    yield window
    yield from _matrix(name, shape, parameters, folding, together, window, writable)


def _matrix(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
            together: int, before: Kernel, writable: bool) -> Iterator[Kernel]:
    """Words, a buffer of them, and the matrix unit."""
    assert isinstance(shape, MatrixShape)
    neuron_fold = shape.mh // folding.pe
    for converter in widths_converted(name % "words", before, folding.width):
        before = converter
        yield converter
    n_beats = before.m_axis.beats
    if neuron_fold == 1:
        yield Fifo(name % "buffer", folding.width, folding.fifo_depth, n_beats)
    else:
        yield ReplayBuffer(name % "buffer", folding.width, folding.fifo_depth, n_beats, n_beats // shape.n_windows,
                           neuron_fold)
    unit = Mvtu(name % "mvtu", folding.pe, folding.simd, 1, neuron_fold, group_counts(shape, together),
                shape.max_accumulator, shape.n_windows,
                signed_width(*_score_range(shape, parameters, writable)) if shape.operator.scores else 0,
                ram_style=folding.ram_style, lanes=lanes(shape, together), mmv=folding.mmv, writable=writable)
    unit = replace(unit, pass_words=shape.mw // unit.count.values)
    yield unit if parameters is None else _with_contents(unit, shape, parameters, together)


def _with_contents(unit: Mvtu, shape: MatrixShape, parameters: Parameters, together: int) -> Mvtu:
    """Return a matrix unit with its weights, and with thresholds or offsets."""
    assert isinstance(parameters, MatrixParameters)
    # ROM words in the order of use: folds of rows outermost, then words; in a word PE 0 in the low bits.
    ordered = ordered_weights(shape, parameters.weights, together)
    folds = ordered.reshape(unit.neuron_fold, unit.pe, unit.pass_words, unit.count.values)
    weights = packed_beats(folds.transpose(0, 2, 1, 3).reshape(-1, unit.pe * unit.count.values))
    # Half the range more, and no offset, and so no score, is negative.
    rows = parameters.thresholds if parameters.offsets is None else parameters.offsets + (1 << unit.score_width - 1)
    assert rows is not None
    place_ends = shape.place_ends if rows.ndim == 2 else unit.place_ends
    if unit.mmv > 1:
        rows, place_ends = _of_beats(rows, shape, unit.mmv)
    bits = _bits(rows.ravel(), unit.threshold_width)
    thresholds = packed_beats(bits.reshape(-1, unit.mmv * unit.pe * unit.threshold_width))
    return replace(unit, weights=weights, thresholds=thresholds, place_ends=place_ends)


def _of_beats(rows: NDArray[np.int64], shape: MatrixShape,
              mmv: int) -> tuple[NDArray[np.int64], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return thresholds of `mmv` neighbouring windows side by side, and where they change.

    That is the last row of windows, and the last column of beats, of each run that shares them.
    """
    if rows.ndim == 1:
        return np.tile(rows, mmv), ((0,), (0,))
    row_ends, column_ends = shape.place_ends
    runs = np.searchsorted(column_ends, np.arange(column_ends[-1] + 1)).reshape(-1, mmv)
    ends = (*np.flatnonzero((runs[1:] != runs[:-1]).any(axis=1)).tolist(), len(runs) - 1)
    by_place = rows.reshape(len(row_ends), len(column_ends), shape.mh)
    return by_place[:, runs[list(ends)]], (row_ends, ends)


def _pool(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
          _: int, before: Kernel, writable: bool) -> Iterator[Kernel]:
    assert isinstance(shape, PoolShape)
    groups = shape.in_shape[2] // folding.pe
    invert: tuple[int, ...] = (0,) * groups
    if parameters is not None:
        assert isinstance(parameters, PoolParameters)
        invert = packed_beats(parameters.invert.reshape(groups, folding.pe))
    beat_cycles = before.synapse_fold if isinstance(before, Mvtu) else 1
    yield MaxPool(name % "pool", shape.in_shape, shape.operator.size, folding.pe, invert, beat_cycles, folding.mmv,
                  writable)


BUILDERS: dict[type[Operator], Callable[[str, OperatorShape, Parameters | None, LayerFolding, int, Kernel, bool],
                                        Iterator[Kernel]]] = {Conv: _convolution, Dense: _matrix, Pool: _pool}
"""What makes the kernels of every kind of operator."""


def tail_kernels(name: str, shape: OperatorShape, parameters: Parameters | None, before: Kernel,
                 class_only: bool = False, writable: bool = False) -> list[Kernel]:
    """Return the kernels after the last matrix unit, `before`, which gives scores."""
    assert isinstance(shape, MatrixShape)
    assert isinstance(before, Mvtu)
    low, high = _score_range(shape, parameters, writable)
    classify = Classify(name % "classify", before.pe, low, high, shape.mh, class_only)
    return [classify, RegisterSlice(name % "output", classify.m_axis.width, classify.m_axis.beats)]


def widths_converted(name: str, before: Kernel, width: int) -> Iterator[Kernel]:
    """Give the converters from what leaves `before` to beats of `width`: none, one, or two.

    Two go up to a common multiple, and down. A pool sends its pixels in bursts; those that come
    faster than they can be handed out wait in a FIFO.
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


def _score_range(shape: MatrixShape, parameters: Parameters | None, writable: bool) -> tuple[int, int]:
    """Bounds of the scores of a last layer, of any network where it is writable.

    A class whose offset is the largest sum below another's can hardly win, and one that is as much above it always
    does: no more is of use.
    """
    given = parameters.offsets if isinstance(parameters, MatrixParameters) else None
    offsets, most = [0] if given is None else given.tolist(), shape.max_accumulator
    if not writable:
        return min(offsets), max(offsets) + most
    if min(offsets) < -most or max(offsets) >= most:
        raise ValueError(f"class offsets span {min(offsets)} to {max(offsets)}; where they are writable they must be "
                         f"{-most} to {most - 1}")
    return -most, 2 * most - 1


def _bits(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    return ((values[:, np.newaxis] >> np.arange(width)) & 1).astype(np.uint8)
