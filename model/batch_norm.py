"""Batch norm and sign folded into integer thresholds, with no float left behind."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbnn.model.network import Parameters


class BatchNorm(NamedTuple):
    """``y = scale * (x - mean) / sqrt(variance + epsilon) + shift``, each float array of shape (mh,)."""

    scale: NDArray[np.floating]
    shift: NDArray[np.floating]
    mean: NDArray[np.floating]
    variance: NDArray[np.floating]
    epsilon: float


def fold(weights: NDArray[np.uint8], norm: BatchNorm, n_inputs: int, pooled: bool) -> Parameters:
    """Parameters of a hidden layer whose bit is ``batch_norm(x) >= 0``, for the bipolar sum x.

    Parameters
    ----------
    weights : uint8 array of 0 and 1, shape (mh, mw)
    norm : batch norm of the bipolar sums ``x = 2 * accumulator - n_inputs``
    n_inputs : what the accumulator reaches when every input agrees with its weight
    pooled : whether max pooling stands between the sum and batch norm

    Notes
    -----
    The threshold is the smallest accumulator whose normalised value is not negative, found in rationals, so it is
    the mathematical one however close to an integer it falls. A negative scale turns the comparison round. Without
    pooling the row's weights are flipped: ``n_inputs - accumulator`` counts instead. With pooling the maximum must
    be taken first, so the row is thresholded one above, pooled by OR, and inverted.

    Raises
    ------
    ValueError
        When a batch norm value is not finite, or a variance plus epsilon not positive.
    """
    if not all(np.isfinite(values).all() for values in norm[:4]):
        raise ValueError("batch norm holds values that are not finite")
    if (norm.variance + norm.epsilon <= 0).any():
        raise ValueError("batch norm holds a variance that is not positive")
    rows = weights.copy()
    thresholds = np.empty(len(rows), np.int64)
    invert = np.zeros(len(rows), np.bool_)
    for row in range(len(rows)):
        scale, zero = float(norm.scale[row]), _zero([float(v[row]) for v in norm[:4]], norm.epsilon)
        if zero is None:  # scale 0: the sign of the shift alone
            thresholds[row] = 0 if norm.shift[row] >= 0 else n_inputs + 1
            continue
        middle = (zero + n_inputs) / 2
        if scale > 0:
            threshold = math.ceil(middle)
        elif pooled:
            threshold = math.floor(middle) + 1
            invert[row] = True
        else:
            rows[row] ^= 1
            threshold = n_inputs - math.floor(middle)
        thresholds[row] = min(max(threshold, 0), n_inputs + 1)
    return Parameters(rows, thresholds, invert=invert if pooled else None)


def _zero(values: Sequence[float], epsilon: float) -> Fraction | None:
    """Return the bipolar sum at which batch norm is zero; None where its scale is."""
    scale, shift, mean, variance = values
    if scale == 0:
        return None
    return Fraction(mean) - Fraction(shift) * Fraction(math.sqrt(variance + epsilon)) / Fraction(scale)
