"""Pictures in and out: an image file as a network takes it, and its bit slices as a person sees them."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cbnn.model.files import read_array, write_atomically
from cbnn.model.network import Network
from cbnn.model.slices import bit_slices, check_images
from cbnn.model.topology import Topology

FILE_BITS = 8
"""Bits per pixel and colour of the files that are read."""


def read_image(path: Path, network: Network) -> NDArray[np.integer]:
    """Return an image that suits the network, not coded yet, shape (1, height, width, colours).

    Parameters
    ----------
    path : a picture (PNG, JPEG, …) of 8 bits, of which a network of fewer takes the most significant ones; or an .npy
        array (height, width, colours) of pixels just as they are

    Raises
    ------
    ValueError
        When the file cannot be read, or the image does not suit the network.
    """
    height, width, colours = in_shape = network.topology.in_shape
    n_bits = network.pixel_bits
    if path.suffix == ".npy":
        pixels = read_array(path)
    else:
        if colours not in (1, 3) or n_bits > FILE_BITS:
            raise ValueError(f"the network takes {colours} colours of {n_bits} bits; pictures have 1 or 3 "
                             f"of {FILE_BITS}, others come as an .npy array")
        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("L" if colours == 1 else "RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        pixels = pixels.reshape(*pixels.shape[:2], colours) >> (FILE_BITS - n_bits)
    if pixels.shape != in_shape:
        raise ValueError(f"{path} is {'x'.join(map(str, pixels.shape))}; the network takes {height}x{width}x{colours}")
    images = pixels[np.newaxis]
    check_images(images, in_shape, n_bits)
    return images


def write_slices(image: NDArray[np.integer], topology: Topology, folder: Path, scale: int = 8) -> list[Path]:
    """Write every slice of an image, kept or pruned, as a PNG, and return the files, MSB first.

    Parameters
    ----------
    image : shape (1, height, width, colours)
    scale : pixels of the picture per pixel of the image
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    numbers = range(topology.input_bits - 1, -1, -1)
    for b, plane in zip(numbers, bit_slices(image, tuple(numbers))[0], strict=True):
        picture = np.kron(255 * plane, np.ones((scale, scale, 1), np.uint8))
        content = io.BytesIO()
        Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(content, "PNG")
        state = "kept" if b in topology.kept_slices else "pruned"
        paths.append(folder / f"slice-{b}-{state}.png")
        write_atomically(paths[-1], content.getvalue())
    return paths
