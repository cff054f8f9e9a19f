"""Bit slices of fixed-point images: what CBNN prunes.

A pixel of ``n_bits`` bits gives the slices 0 (LSB) to ``n_bits - 1`` (MSB); slice ``b`` is bit
``b`` of every pixel and colour. A bit 1 stands for +1, a bit 0 for -1.

Source of the method: Li and Ren, "Build a Compact Binary Neural Network through Bit-level
Sensitivity and Data Pruning", arXiv 1802.00904.
"""

import re

import numpy as np
from numpy.typing import NDArray

from cbnn.model.checks import check_tuple


def check_kept(kept: tuple[int, ...], n_bits: int) -> None:
    """Raise ValueError unless `kept` lists existing slices, each once, the MSB first."""
    check_tuple("kept slices", kept, int)
    if not kept:
        raise ValueError("no slice is kept; a network needs at least one")
    for b in kept:
        if not 0 <= b < n_bits:
            raise ValueError(f"slice {b} does not exist; pixels of {n_bits} bits have 0 to {n_bits - 1}")
    if list(kept) != sorted(set(kept), reverse=True):
        raise ValueError(f"kept slices {list(kept)} must be listed once each, the MSB first")


def slices_text(kept: tuple[int, ...]) -> str:
    """Return slices as people write them: ``4..0`` for a run, ``7,5`` otherwise."""
    if len(kept) > 1 and list(kept) == list(range(kept[0], kept[-1] - 1, -1)):
        return f"{kept[0]}..{kept[-1]}"
    return ",".join(map(str, kept))


def parse_slices(text: str) -> tuple[int, ...]:
    """Read the slices of one level, by number, the highest first: ``3``, ``4,3,2`` or ``4..2``.

    Raises
    ------
    ValueError
        When the text is written otherwise, or the numbers do not fall.
    """
    kept: list[int] = []
    for part in text.split(","):
        run = re.fullmatch(r" *([0-9]{1,4})(?:\.\.([0-9]{1,4}))? *", part)
        first, last = (int(run[1]), int(run[2] or run[1])) if run else (0, 1)
        if first < last or (kept and kept[-1] <= first):
            raise ValueError(f"slices {text!r} are not written like 3, 4,3,2 or 4..2: "
                             "numbers of slices, the highest first")
        kept += range(first, last - 1, -1)
    return tuple(kept)


def check_images(images: NDArray, shape: tuple[int, int, int], n_bits: int) -> None:
    """Raise ValueError unless `images` is (N, height, width, colours), integer, 0 to 2**n_bits - 1."""
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(f"images of shape {images.shape} given; the network takes (N, {', '.join(map(str, shape))})")
    if len(images) == 0:
        raise ValueError("no image given; at least one is needed")
    if images.dtype.kind not in "ui":
        raise ValueError(f"images are {images.dtype}; pixels must be integers")
    low, high = int(images.min()), int(images.max())
    if low < 0 or high >= 1 << n_bits:
        raise ValueError(f"pixels {low} to {high} given; {n_bits} bits hold 0 to {(1 << n_bits) - 1}")


def bit_slices(images: NDArray, kept: tuple[int, ...]) -> NDArray[np.uint8]:
    """Kept slices of `images`, the MSB first.

    Parameters
    ----------
    images : integer array, shape (N, height, width, colours)
    kept : slice numbers, descending

    Returns
    -------
    uint8 array of 0 and 1, shape (N, slices, height, width, colours)

    Examples
    --------
    >>> import numpy as np
    >>> bit_slices(np.array([[[[6]]]]), (2, 0)).ravel().tolist()
    [1, 0]
    """
    return np.stack([(images >> b) & 1 for b in kept], axis=1).astype(np.uint8)
