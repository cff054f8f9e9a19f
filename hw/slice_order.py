"""The order of the bits of a tensor of several slices, which the folding chooses.

A matrix unit takes words of `simd` bits. How many slices lie side by side in them is called
`together`. With one it works bit serially: slice after slice, the highest first. With more,
neighbouring slices form groups, which come the highest first. Within a group the bits of a value
lie side by side, the lowest slice in the lowest bit. With all slices together a value comes as the
number that its bits make.

A window comes group by group, and in each of them row by row, column by column, channel by channel.
"""

from math import gcd, isqrt

import numpy as np
from numpy.typing import NDArray

from cbnn.model.operators.matrix import MatrixShape


def slices_together(shape: MatrixShape, simd: int) -> int:
    """Return the fewest slices side by side with which whole words of `simd` bits fill a window.

    A 3x3 window has 9 bits in one slice. Words of 3 or 9 bits divide these, so that slices come one
    after another. Words of 24 bits do not, and hold 8 slices of 3 values.
    """
    return simd // gcd(simd, shape.slice_inputs)


def lanes(shape: MatrixShape, together: int) -> tuple[int, ...]:
    """Return what each slice of a group counts, relative to the lowest one, which comes first.

    One number where slices have weights of their own, since each counts 1 then.

    Raises
    ------
    ValueError
        When groups of slices that share weights differ in this.
    """
    if not shape.tensor.shared:
        return (1,)
    groups = {tuple(count // group[-1] for count in reversed(group)) for group in _groups(shape, together)}
    if len(groups) > 1:
        raise ValueError(f"slices that count {', '.join(map(str, shape.tensor.slices))} are not alike in groups of "
                         f"{together}")
    return groups.pop()


def group_counts(shape: MatrixShape, together: int) -> tuple[int, ...]:
    """Return what the lowest slice of every group counts.

    One number where slices have weights of their own, since each counts 1 then.
    """
    if not shape.tensor.shared:
        return (1,)
    return tuple(group[-1] for group in _groups(shape, together))


def _groups(shape: MatrixShape, together: int) -> list[tuple[int, ...]]:
    counts = shape.tensor.slices
    return [counts[i : i + together] for i in range(0, len(counts), together)]


def simd_choices(shape: MatrixShape, whole_bytes: bool = False) -> list[int]:
    """Return the SIMD that a layer can have, rising.

    They divide the bits of a window in all slices. Where slices share weights, a word also holds
    equally many bits of each of its values, and all groups of slices are alike. `whole_bytes`: all
    slices of a value come together.
    """
    return [simd for simd in divisors(shape.n_slices * shape.slice_inputs) if _suits(shape, simd, whole_bytes)]


def _suits(shape: MatrixShape, simd: int, whole_bytes: bool) -> bool:
    if not shape.tensor.shared:
        return True
    if whole_bytes:
        return simd % shape.n_slices == 0
    try:
        lanes(shape, slices_together(shape, simd))
    except ValueError:
        return False
    return True


def divisors(n: int) -> list[int]:
    """Return the divisors of a number, rising."""
    low = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return low + [n // d for d in reversed(low) if d * d != n]


def in_order(bits: NDArray, together: int, by_pixel: bool) -> NDArray:
    """Put the bits of images in the order in which they come.

    Parameters
    ----------
    bits : array (N, slices, height, width, channels), slices from the highest on
    together : slices side by side
    by_pixel : True where all groups of a pixel come before the next pixel, as windows need it.
        False where all pixels of a group come before the next group, as a dense layer takes them

    Returns
    -------
    array (N, bits of an image)
    """
    groups = bits.reshape(len(bits), -1, together, *bits.shape[2:])[:, :, ::-1]
    axes = (0, 3, 4, 1, 5, 2) if by_pixel else (0, 1, 3, 4, 5, 2)
    return groups.transpose(axes).reshape(len(bits), -1)


def out_of_order(stream: NDArray, shape: tuple[int, ...], together: int, by_pixel: bool) -> NDArray:
    """Undo `in_order`; return bits (N, slices, height, width, channels), `shape` without N."""
    places = in_order(np.arange(np.prod(shape)).reshape(1, *shape), together, by_pixel)[0]
    return stream[:, np.argsort(places)].reshape(-1, *shape)


def ordered_weights(shape: MatrixShape, weights: NDArray, together: int) -> NDArray:
    """Put weights (mh, mw) from window order into the order of the bits that they meet."""
    if shape.tensor.shared:
        return weights
    groups = weights.reshape(shape.mh, -1, together, shape.slice_inputs)[:, :, ::-1]
    return groups.transpose(0, 1, 3, 2).reshape(shape.mh, shape.mw)
