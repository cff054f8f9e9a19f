"""Bit slices of fixed-point images: what CBNN prunes.

A pixel of ``n_bits`` bits gives the slices 0 (LSB) to ``n_bits - 1`` (MSB); slice ``b`` is bit
``b`` of every pixel and colour. A bit 1 stands for +1, a bit 0 for -1.

Source of the method: Li and Ren, "Build a Compact Binary Neural Network through Bit-level
Sensitivity and Data Pruning", arXiv 1802.00904.
"""

import numpy as np
from numpy.typing import NDArray


def check_kept(kept: tuple[int, ...], n_bits: int) -> None:
    """Raise ValueError unless `kept` lists existing slices, each once, the MSB first."""
    if not kept:
        raise ValueError("no slice is kept; a network needs at least one")
    for b in kept:
        if type(b) is not int or not 0 <= b < n_bits:
            raise ValueError(f"slice {b} does not exist; pixels of {n_bits} bits have 0 to {n_bits - 1}")
    if list(kept) != sorted(set(kept), reverse=True):
        raise ValueError(f"kept slices {list(kept)} must be listed once each, the MSB first")


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
