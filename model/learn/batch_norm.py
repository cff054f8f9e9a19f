"""Batch norm and sign folded into integer thresholds, with no float left over."""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbnn.model.operators.matrix import MatrixParameters


class BatchNorm(NamedTuple):
    """``y = scale * (x - mean) / sqrt(variance + epsilon) + shift``, each float array of shape (mh,)."""

    scale: NDArray[np.floating]
    shift: NDArray[np.floating]
    mean: NDArray[np.floating]
    variance: NDArray[np.floating]
    epsilon: float


def fold(weights: NDArray[np.uint8], norm: BatchNorm, max_accumulator: int,
         pooled: bool) -> tuple[MatrixParameters, NDArray[np.bool_]]:
    """Parameters of a hidden layer whose bit is ``batch_norm(x) >= 0``, and which rows its pool inverts.

    x is the bipolar sum.

    Parameters
    ----------
    weights : uint8 array of 0 and 1, shape (mh, mw)
    norm : batch norm of the bipolar sums ``x = 2 * accumulator - max_accumulator``
    max_accumulator : what the accumulator reaches when every input agrees with its weight
    pooled : whether max pooling stands between the sum and batch norm

    Notes
    -----
    The threshold is the smallest accumulator whose normalised value is not negative. It is found in integers, the
    square root included, so it is the mathematical one however close to an integer it falls. A negative scale turns
    the comparison round. Without pooling the row's weights are flipped, and ``max_accumulator - accumulator`` counts
    instead. With pooling the maximum must be taken first, so the row is thresholded one above, pooled by OR, and
    inverted.

    Raises
    ------
    ValueError
        When a batch norm array's shape is not (mh,), a value is not finite, or a variance plus
        epsilon not positive.
    """
    for name, values in zip(norm._fields[:4], norm[:4], strict=True):
        if values.shape != (len(weights),):
            raise ValueError(f"{name} of batch norm is of shape {values.shape}; {len(weights)} rows are folded")
    if not all(np.isfinite(values).all() for values in norm):
        raise ValueError("batch norm holds values that are not finite")
    if (norm.variance.astype(np.float64) + norm.epsilon <= 0).any():
        raise ValueError("batch norm holds a variance that is not positive")
    rows = weights.copy()
    thresholds = np.empty(len(rows), np.int64)
    invert = np.zeros(len(rows), np.bool_)
    for row in range(len(rows)):
        if norm.scale[row] == 0:  # only the sign of the shift
            thresholds[row] = 0 if norm.shift[row] >= 0 else max_accumulator + 1
            continue
        floor, ceiling = _zero(norm, row, max_accumulator)
        if norm.scale[row] > 0:
            threshold = ceiling
        elif pooled:
            threshold = floor + 1
            invert[row] = True
        else:
            rows[row] ^= 1
            threshold = max_accumulator - floor
        thresholds[row] = min(max(threshold, 0), max_accumulator + 1)
    return MatrixParameters(rows, thresholds), invert


def _zero(norm: BatchNorm, row: int, max_accumulator: int) -> tuple[int, int]:
    """Floor and ceiling of the accumulator at which the row's batch norm is zero, exact."""
    scale, shift, mean, variance = (Fraction(float(values[row])) for values in norm[:4])
    # It lies at centre - gap, where |gap| is the root of a rational; over a common denominator, of an integer.
    centre, gap = (mean + max_accumulator) / 2, shift / scale / 2
    square = gap**2 * (variance + Fraction(float(norm.epsilon)))
    denominator = centre.denominator * square.denominator
    root = math.isqrt(int(square * denominator**2))
    inexact = root**2 != square * denominator**2
    whole = int(centre * denominator)
    low, high = (whole - root - inexact, whole - root) if gap > 0 else (whole + root, whole + root + inexact)
    return low // denominator, -(-high // denominator)
