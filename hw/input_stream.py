"""What `s_axis` carries: images as beats, and back."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.folding import takes_pixels
from cbnn.hw.stream import packed_beats
from cbnn.model.slices import bit_slices


def input_beats(accelerator: Accelerator, images: NDArray) -> list[int]:
    """`s_axis_tdata` of every beat of every image, kept slices only, in the order that the first layer takes them.

    For a convolution that is row, column, slice (MSB first), colour; for a dense layer slice, row,
    column, colour.

    Parameters
    ----------
    images : integer array (N, height, width, colours), of pixels as data sets have them

    Raises
    ------
    ValueError
        When the images' shape, dtype or range is not the network's, or a bare topology was laid
        out.
    """
    if accelerator.network is None:
        raise ValueError("the accelerator of a topology without weights takes no images")
    slices = bit_slices(accelerator.network.look_up(images), accelerator.topology.kept_slices)
    if takes_pixels(accelerator.topology):
        slices = slices.transpose(0, 2, 3, 1, 4)
    return list(packed_beats(slices.reshape(-1, accelerator.folding.input_width)))


def input_images(accelerator: Accelerator, beats: Sequence[int]) -> NDArray[np.int64]:
    """Return the images (N, height, width, colours) that beats hold; their pruned bits are 0.

    It undoes `input_beats`, and tells what is expected of an image that the frame guard filled up.
    """
    topology, width = accelerator.topology, accelerator.folding.input_width
    n_bytes = (width + 7) // 8
    packed = np.frombuffer(b"".join(beat.to_bytes(n_bytes, "little") for beat in beats), np.uint8)
    bits = np.unpackbits(packed.reshape(-1, n_bytes), axis=1, count=width, bitorder="little")
    (height, columns, colours), n_slices = topology.in_shape, len(topology.kept_slices)
    if takes_pixels(topology):
        slices = bits.reshape(-1, height, columns, n_slices, colours).transpose(0, 3, 1, 2, 4)
    else:
        slices = bits.reshape(-1, n_slices, height, columns, colours)
    weights = np.left_shift(1, np.array(topology.kept_slices, np.int64))
    return (slices * weights[:, np.newaxis, np.newaxis, np.newaxis]).sum(axis=1)


def input_order(accelerator: Accelerator) -> str:
    """How the elements of an image come, in words."""
    inner = "row, column, slice (MSB first), colour" if takes_pixels(accelerator.topology) else (
        "slice (MSB first), row, column, colour")
    return f"{inner}; element 0 in bit 0"
