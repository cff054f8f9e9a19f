"""What `s_axis` carries: images as beats, and back."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.folding import pixel_bytes, takes_pixels
from cbnn.hw.slice_order import in_order, out_of_order
from cbnn.hw.stream import packed_beats
from cbnn.model.slices import bit_slices


def input_beats(accelerator: Accelerator, images: NDArray) -> list[int]:
    """`s_axis_tdata` of every beat of every image, see `input_order`.

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
    slices = bit_slices(accelerator.network.look_up(images), slices_on_bus(accelerator))
    stream = in_order(slices, slices_together(accelerator), takes_pixels(accelerator.topology))
    return list(packed_beats(stream.reshape(-1, accelerator.folding.input_width)))


def input_images(accelerator: Accelerator, beats: Sequence[int]) -> NDArray[np.int64]:
    """Return the images (N, height, width, colours) that beats hold; slices that they lack are 0.

    It undoes `input_beats`, and tells what is expected of an image that the frame guard filled up.
    """
    topology, width = accelerator.topology, accelerator.folding.input_width
    n_bytes, kept = (width + 7) // 8, slices_on_bus(accelerator)
    packed = np.frombuffer(b"".join(beat.to_bytes(n_bytes, "little") for beat in beats), np.uint8)
    bits = np.unpackbits(packed.reshape(-1, n_bytes), axis=1, count=width, bitorder="little")
    slices = out_of_order(bits.reshape(-1, len(kept) * topology.tensor.n_values), (len(kept), *topology.in_shape),
                          slices_together(accelerator), takes_pixels(topology))
    return (slices * np.left_shift(1, np.array(kept, np.int64))[:, *[np.newaxis] * 3]).sum(axis=1)


def slices_on_bus(accelerator: Accelerator) -> tuple[int, ...]:
    """Return the slices on the bus, the highest first; pruned ones too, where the input is whole bytes."""
    topology = accelerator.topology
    if accelerator.folding.whole_bytes:
        return tuple(reversed(range(8 * pixel_bytes(topology))))
    return topology.kept_slices


def slices_together(accelerator: Accelerator) -> int:
    """Return how many slices lie side by side on the bus."""
    if accelerator.folding.whole_bytes:
        return len(slices_on_bus(accelerator))
    return accelerator.folding.together(accelerator.topology, 0)


def input_order(accelerator: Accelerator) -> str:
    """How the bits of an image come, in words.

    That is the order in which the first layer takes them: of packed slices row, column, slice,
    colour for a convolution, slice, row, column, colour for a dense layer, or the same with groups
    of slices that lie side by side.
    """
    together, n = slices_together(accelerator), len(slices_on_bus(accelerator))
    if accelerator.folding.whole_bytes:
        n_bytes = pixel_bytes(accelerator.topology)
        return (f"row, column, colour, {n_bytes} byte{'s' if n_bytes > 1 else ''} per colour, the lowest bit first; "
                "element 0 in bit 0")
    if together == 1:
        outer, inner = "slice (MSB first)", ""
    else:
        outer = f"group of {together} slices (MSB first)" if together < n else ""
        inner = "slice" + (" of the group" if together < n else "") + " (LSB first)"
    place = ["row, column", outer] if takes_pixels(accelerator.topology) else [outer, "row, column"]
    return ", ".join(filter(None, [*place, "colour", inner])) + "; element 0 in bit 0"
