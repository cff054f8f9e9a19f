"""What convolution and dense layer have in common: rows of weights held against windows, and thresholds.

A dense layer is a single window over everything, so that no pass needs to know which of the two it
has.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cbnn.model.operators.operator import Operator, OperatorShape, Parameters, check_array
from cbnn.model.operators.tensor import MAX_VALUES, Shape, Tensor

MAX_WINDOW = 1 << 24
"""Most inputs of a window in one slice: float32 counts products of -1 and +1 exactly up to here."""
MAX_ACCUMULATOR = 1 << 30
"""Largest popcount sum of a row, so that thresholds and scores fit 32 bits."""
OFFSET_LIMIT = 1 << 30
"""Largest magnitude of a class offset, so that scores stay far inside 32 bits."""
WINDOW_ORDER = ("slice", "row", "column", "channel")
"""How the inputs of a window, and so the weights of a row, are ordered; the channel changes fastest.

Slices that share weights meet the same ones and are no axis of them.
"""


@dataclass(frozen=True, eq=False)
class MatrixParameters(Parameters):
    """What a matrix operator learnt.

    Attributes
    ----------
    weights : uint8 array of 0 (-1) and 1 (+1), shape (mh, mw); columns in `WINDOW_ORDER`
    thresholds : int64 array, shape (mh,): the output bit is ``accumulator >= threshold``, for a
        threshold of 0 to max_accumulator + 1; or (places, mh), one for each of
        `MatrixShape.places`, where padding is to count something else than the bit it carries, as
        zero would. None where scores are given.
    offsets : int64 array, shape (mh,): added to the popcount to give the score. None where bits are
        given.
    """

    weights: NDArray[np.uint8]
    thresholds: NDArray[np.int64] | None = None
    offsets: NDArray[np.int64] | None = None


class Matrix(Operator):
    """A binary matrix operator: XNOR and popcount of every window with every row.

    Attributes
    ----------
    stride, padding, pad_bit : how windows lie; `padding` pixels on each side carry the constant bit
        `pad_bit`
    slides : whether windows slide over what enters; else a single one covers it
    scores : whether it gives integer scores, one per row, instead of bits
    """

    slides: ClassVar[bool]
    stride: int
    padding: int
    pad_bit: int
    scores: bool

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Rows of the matrix: channels that it gives."""

    @abstractmethod
    def with_rows(self, n: int) -> "Matrix":
        """Return the same operator with other rows."""

    @abstractmethod
    def kernel_of(self, shape: Shape) -> tuple[int, int]:
        """Return rows and columns of a window over a tensor of this shape."""

    def shape(self, tensor: Tensor) -> "MatrixShape":
        """Return the sizes for what enters.

        Raises
        ------
        ValueError
            When the operator does not suit it.
        """
        height, width, channels = tensor.shape
        kernel = self.kernel_of(tensor.shape)
        rows, columns = ((size + 2 * self.padding - taps) // self.stride + 1
                         for size, taps in zip((height, width), kernel, strict=True))
        if rows < 1 or columns < 1:
            raise ValueError(f"{self} does not fit an input of {height}x{width}")
        if (n := rows * columns * self.n_rows) > MAX_VALUES:
            raise ValueError(f"{self} gives {n} bits per image; at most {MAX_VALUES} are supported")
        slice_inputs = kernel[0] * kernel[1] * channels
        most = slice_inputs * tensor.highest
        if slice_inputs > MAX_WINDOW or most > MAX_ACCUMULATOR:
            raise ValueError(f"{self} has {slice_inputs} inputs, whose sum is at most {most}; the limits are "
                             f"{MAX_WINDOW} and {MAX_ACCUMULATOR}")
        return MatrixShape(self, tensor, kernel, (rows, columns, self.n_rows), slice_inputs,
                           slice_inputs * tensor.n_weighted, self.n_rows, most)


@dataclass(frozen=True)
class MatrixShape(OperatorShape):
    """Sizes of one matrix operator for the tensor that enters it.

    Attributes
    ----------
    operator : the operator
    tensor : what enters
    kernel : rows and columns of a window
    out_shape : (height, width, channels) leaving: a pixel per window, a channel per row
    slice_inputs : inputs of one window in one slice
    mw, mh : matrix width (weights per row) and height (rows)
    max_accumulator : the largest popcount sum a row can reach
    """

    integers = ("thresholds", "offsets")
    operator: Matrix
    tensor: Tensor
    kernel: tuple[int, int]
    out_shape: Shape
    slice_inputs: int
    mw: int
    mh: int
    max_accumulator: int

    @property
    def n_slices(self) -> int:
        """Bit slices entering one after another."""
        return len(self.tensor.slices)

    @property
    def n_windows(self) -> int:
        """Windows, and so pixels that leave, per image."""
        return self.out_shape[0] * self.out_shape[1]

    @cached_property
    def place_ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Last row of every run of rows of windows with the same taps outside the image, and last columns likewise.

        Windows of one run of rows and one of columns are of one *place*; places count row by row.
        """
        rows, columns = (_place_ends(size, taps, self.operator.stride, self.operator.padding)
                         for size, taps in zip(self.in_shape[:2], self.kernel, strict=True))
        return rows, columns

    @property
    def n_places(self) -> int:
        """Places of windows that differ in the taps outside the image; 1 without padding."""
        row_ends, column_ends = self.place_ends
        return len(row_ends) * len(column_ends)

    @property
    def places(self) -> NDArray[np.int64]:
        """Place of every window, (rows, columns)."""
        row_ends, column_ends = self.place_ends
        rows, columns = (np.searchsorted(ends, np.arange(ends[-1] + 1)) for ends in (row_ends, column_ends))
        return rows[:, np.newaxis] * len(column_ends) + columns

    @property
    def taps_outside(self) -> NDArray[np.bool_]:
        """Which taps are outside the image, (places, kernel rows, kernel columns)."""
        stride, padding = self.operator.stride, self.operator.padding
        rows, columns = (
            ((first := np.array(ends)[:, np.newaxis] * stride + np.arange(taps) - padding) < 0) | (first >= size)
            for ends, taps, size in zip(self.place_ends, self.kernel, self.in_shape[:2], strict=True))
        return (rows[:, np.newaxis, :, np.newaxis] | columns[:, np.newaxis]).reshape(-1, *self.kernel)

    def ordered(self, weights: NDArray, order: Sequence[str]) -> NDArray:
        """Return weights (mh, mw) with an axis for each of `WINDOW_ORDER` after the first, in another order."""
        axes = weights.reshape(-1, self.tensor.n_weighted, *self.kernel, self.in_shape[2])
        return axes.transpose(0, *(1 + WINDOW_ORDER.index(name) for name in order))

    def in_window_order(self, weights: NDArray, order: Sequence[str]) -> NDArray:
        """Return weights (mh, mw) of what `ordered` gives, or of an array that joins neighbours of its axes."""
        sizes = dict(zip(WINDOW_ORDER, (self.tensor.n_weighted, *self.kernel, self.in_shape[2]), strict=True))
        axes = weights.reshape(-1, *(sizes[name] for name in order))
        turned = axes.transpose(0, *(1 + list(order).index(name) for name in WINDOW_ORDER))
        return np.ascontiguousarray(turned.reshape(-1, self.mw))

    @property
    def n_bits(self) -> dict[str, int]:
        """Weights."""
        return {"weights": self.mh * self.mw}

    def parameters(self, arrays: Mapping[str, NDArray]) -> MatrixParameters:
        """Thresholds may be those of every place, one place after another."""
        given = {"weights": arrays["weights"].reshape(self.mh, self.mw)}
        for name in arrays.keys() - given:
            by_place = name == "thresholds" and arrays[name].size == self.n_places * self.mh > self.mh
            given[name] = arrays[name].reshape(-1, self.mh) if by_place else arrays[name]
        return MatrixParameters.taking(**given)

    def check(self, parameters: Parameters) -> None:
        """Raise ValueError where presence, dtype, shape or range of an array does not suit."""
        if not isinstance(parameters, MatrixParameters):
            raise ValueError("it takes parameters of a matrix")
        rows, scores = (self.mh,), self.operator.scores
        by_place = parameters.thresholds is not None and parameters.thresholds.ndim == 2 and self.n_places > 1
        check_array("weights", parameters.weights, True, (self.mh, self.mw), np.uint8, 0, 1)
        check_array("thresholds", parameters.thresholds, not scores, (self.n_places, self.mh) if by_place else rows,
                    np.int64, 0, self.max_accumulator + 1)
        check_array("offsets", parameters.offsets, scores, rows, np.int64, -OFFSET_LIMIT, OFFSET_LIMIT)

    def compute(self, parameters: Parameters, bits: NDArray[np.uint8]) -> NDArray:
        """Return the bits that leave, or the scores; see `OperatorShape.compute`.

        Popcounts are taken from products of -1 and +1: over n inputs
        ``popcount(XNOR(w, x)) = (n + w . x) / 2``, exact in float32 for up to `MAX_WINDOW` inputs.
        """
        assert isinstance(parameters, MatrixParameters)
        sums = self._sums(parameters.weights, bits)
        if parameters.offsets is not None:
            return sums.reshape(len(bits), self.mh) + parameters.offsets
        assert parameters.thresholds is not None
        thresholds = parameters.thresholds
        ones = sums >= (thresholds if thresholds.ndim == 1 else thresholds[self.places])
        return ones.astype(np.uint8)[:, np.newaxis]

    def _sums(self, weights: NDArray[np.uint8], bits: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Popcount sums, (N, rows, columns, mh)."""
        total = np.zeros((len(bits), *self.out_shape), np.int64)
        for s, count in enumerate(self.tensor.slices):
            columns = slice(None) if self.tensor.shared else slice(s * self.slice_inputs, (s + 1) * self.slice_inputs)
            signs = 2 * weights[:, columns].astype(np.float32) - 1
            products = self._windows(bits[:, s]) @ signs.T
            total += count * ((self.slice_inputs + products.astype(np.int64)) // 2)
        return total

    def _windows(self, bits: NDArray[np.uint8]) -> NDArray[np.float32]:
        """-1 and +1 under every window of one slice, (N, rows, columns, slice_inputs), in window order."""
        edge, stride = (self.operator.padding, self.operator.padding), self.operator.stride
        padded = np.pad(2 * bits.astype(np.float32) - 1, ((0, 0), edge, edge, (0, 0)),
                        constant_values=2 * self.operator.pad_bit - 1)
        views = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, (1, 2))
        windows = views[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
        return windows.reshape(*windows.shape[:3], -1)


def _place_ends(size: int, taps: int, stride: int, padding: int) -> tuple[int, ...]:
    """See `MatrixShape.place_ends`; windows that reach over an edge are runs of one each."""
    n = (size + 2 * padding - taps) // stride + 1
    inside = min(n, -(-padding // stride))
    below = min(n, max(inside, (size + padding - taps) // stride + 1))
    return *range(inside), *((below - 1,) if below > inside else ()), *range(below, n)
