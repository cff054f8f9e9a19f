"""Pictures in and out: an image file as a network takes it, and its bit slices as a person sees them."""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from cbnn.model.files import folder_written, read_array, read_bounded
from cbnn.model.network import Network
from cbnn.model.slices import bit_slices

FORMATS = ("PNG", "JPEG", "BMP")
"""Kinds of pictures that are read. Pillow knows others that start programs, or whose pixels have no fixed range."""
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
"""Pillow's names for grey and RGB of at most 8 bits, by themselves, from a palette, or with transparency."""
WHITE = 255
"""The highest value of a colour in a picture."""
MAX_BYTES = 1 << 24
"""Largest file that is read."""


def read_image(path: Path, network: Network) -> NDArray[np.integer]:
    """Return an image that suits the network, shape (1, height, width, colours).

    Parameters
    ----------
    path : a picture of one of `FORMATS`, of exactly the network's size, whose white becomes the
        network's highest pixel; or an .npy array (height, width, colours) of pixels just as they are;
        (height, width) where the network takes one colour

    Raises
    ------
    ValueError
        When the file cannot be read, or the image does not suit the network.
    """
    height, width, colours = network.topology.in_shape
    if path.suffix == ".npy":
        pixels = read_array(path)
        if pixels.ndim == 2 and colours == 1:
            pixels = pixels[..., np.newaxis]
    else:
        if colours not in (1, 3):
            raise ValueError(f"the network takes {colours} colours; pictures have 1 or 3, others come as an .npy array")
        bright = _read_picture(path, height, width, "L" if colours == 1 else "RGB")
        pixels = (2 * network.max_pixel * bright.astype(np.int64) + WHITE) // (2 * WHITE)  # rounded
        pixels = pixels.reshape(*pixels.shape[:2], colours)
    if pixels.shape != (height, width, colours):
        raise ValueError(f"{path} is {'x'.join(map(str, pixels.shape))}; the network takes {height}x{width}x{colours}")
    images = pixels[np.newaxis]
    network.check_pixels(images)
    return images


def _read_picture(path: Path, height: int, width: int, mode: str) -> NDArray[np.uint8]:
    """Return the pixels of a picture, 0 to 255, checked as far as can be before anything is decoded."""
    content = io.BytesIO(read_bounded(path, MAX_BYTES))
    try:
        # Pillow raises a dozen types on damaged files, and warns of what else is wrong with them.
        with warnings.catch_warnings(action="error"):
            with Image.open(content, formats=FORMATS) as picture:
                fault = _fault(picture, height, width)
                if fault is None:
                    picture.verify()  # checksums, which decoding skips; the picture cannot be used after it
            if fault is None:
                content.seek(0)
                with Image.open(content, formats=FORMATS) as picture:
                    opaque = _upright_and_opaque(picture)
                if opaque is not None:
                    return np.asarray(opaque.convert(mode))
                fault = "is transparent in places; save it on a background"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is far larger than the {height}x{width} pixels that the network takes") from error
    except Exception as error:
        raise ValueError(f"{path} is not a whole picture of a kind that is read: {', '.join(FORMATS)}") from error
    raise ValueError(f"{path} {fault}")


def _fault(picture: ImageFile.ImageFile, height: int, width: int) -> str | None:
    """Say what a picture that was opened, but not decoded, has that cannot be read exactly."""
    if picture.size not in ((width, height), (height, width)):  # it may lie on its side
        return f"is {picture.height}x{picture.width} pixels; the network takes {height}x{width}"
    if getattr(picture, "n_frames", 1) != 1:
        return "holds several pictures; it must hold one"
    # What has 16 bits per colour is RGB to Pillow too, which drops 8 of them; only the decoder's arguments tell.
    if picture.mode not in MODES or any(";16" in str(tile[3]) for tile in picture.tile):
        return "is not grey or RGB of at most 8 bits per colour"
    return None


def _upright_and_opaque(picture: Image.Image) -> Image.Image | None:
    """Turn a picture as its EXIF says, and make it RGB; None where a pixel is transparent."""
    upright = ImageOps.exif_transpose(picture)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema() != (WHITE, WHITE):
            return None
    return upright.convert("RGB")


def write_slices(image: NDArray[np.integer], network: Network, folder: Path, scale: int = 8) -> list[Path]:
    """Write every slice of an image, kept or pruned, as a PNG, and return the files, MSB first.

    Parameters
    ----------
    image : shape (1, height, width, colours), as `read_image` returns it
    scale : pixels of the picture per pixel of the image
    """
    topology, values = network.topology, network.look_up(image)
    pictures = {}
    numbers = range(topology.input_bits - 1, -1, -1)
    for b, plane in zip(numbers, bit_slices(values, tuple(numbers))[0], strict=True):
        picture = np.kron(255 * plane, np.ones((scale, scale, 1), np.uint8))
        content = io.BytesIO()
        Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(content, "PNG")
        state = "kept" if b in topology.kept_slices else "pruned"
        pictures[f"slice-{b}-{state}.png"] = content.getvalue()
    with folder_written(folder) as fresh:
        for name, png in pictures.items():
            (fresh / name).write_bytes(png)
    return [folder / name for name in pictures]
