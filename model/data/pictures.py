"""Pictures in and out: an image file as a network takes it, and its bit slices as a person sees them."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from cbnn.model.data import own
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


def read_image(path: Path, network: Network) -> NDArray:
    """Return an image that suits the network, shape (1, height, width, colours).

    Parameters
    ----------
    path : a picture of one of `FORMATS`, of exactly the network's size, whose white becomes the
        network's highest pixel; or an .npy array (height, width, colours) of pixels just as they are;
        (height, width) where the network takes one colour; or features (n,), as an array or as a CSV
        of one row, where it takes those, scaled as those that it was trained on

    Raises
    ------
    ValueError
        When the file cannot be read, or the image does not suit the network.
    """
    height, width, colours = network.topology.in_shape
    if path.suffix in (".npy", ".csv"):
        pixels = read_array(path) if path.suffix == ".npy" else own.example(path)
        if pixels.ndim == 1 and (height, colours) == (1, 1):
            pixels = pixels[np.newaxis]
        if pixels.ndim == 2 and colours == 1:
            pixels = pixels[..., np.newaxis]
        if network.origin is not None and network.origin.ranges and pixels.shape == network.topology.in_shape:
            pixels = own.coded(pixels[0, :, 0], network.origin.ranges).reshape(pixels.shape)
        elif path.suffix == ".csv" and (pixels == np.rint(pixels)).all():
            pixels = pixels.astype(np.int64)
    else:
        if colours not in (1, 3):
            raise ValueError(f"the network takes {colours} colours; pictures have 1 or 3, others come as an .npy array")
        bright = _read_picture(path, (height, width), "L" if colours == 1 else "RGB", "the network takes")
        pixels = (2 * network.max_pixel * bright.astype(np.int64) + WHITE) // (2 * WHITE)  # rounded
        pixels = pixels.reshape(*pixels.shape[:2], colours)
    if pixels.shape != (height, width, colours):
        raise ValueError(f"{path} is {'x'.join(map(str, pixels.shape))}; the network takes {height}x{width}x{colours}")
    images = pixels[np.newaxis]
    network.check_pixels(images)
    return images


def read_pictures(paths: Sequence[Path], max_bytes: int) -> NDArray[np.uint8]:
    """Return pictures of one size, shape (N, height, width, 3).

    Raises
    ------
    ValueError
        When a file cannot be read, is of another size than the first, or all of them take more than `max_bytes`.
    """
    first = _read_picture(paths[0], None, "RGB", "")
    if (n_bytes := len(paths) * first.nbytes) > max_bytes:
        raise ValueError(f"{len(paths)} pictures of {first.shape[0]}x{first.shape[1]} pixels take {n_bytes} bytes; at "
                         f"most {max_bytes} are read")
    size = first.shape[0], first.shape[1]
    return np.stack([first, *(_read_picture(path, size, "RGB", f"{paths[0]} is") for path in paths[1:])])


def _read_picture(path: Path, size: tuple[int, int] | None, mode: str, wanted: str) -> NDArray[np.uint8]:
    """Return the pixels of a picture, 0 to 255, checked as far as can be before anything is decoded.

    Parameters
    ----------
    size : height and width that it must have; None: any
    wanted : in messages, the words before that size
    """
    content = io.BytesIO(read_bounded(path, MAX_BYTES))
    try:
        # Pillow raises a dozen types on damaged files, and warns of what else is wrong with them.
        with warnings.catch_warnings(action="error"):
            with Image.open(content, formats=FORMATS) as picture:
                fault = _fault(picture, size, wanted)
                if fault is None:
                    picture.verify()  # checksums, which decoding skips; the picture cannot be used after it
            if fault is None:
                content.seek(0)
                with Image.open(content, formats=FORMATS) as picture:
                    opaque = _upright_and_opaque(picture)
                if opaque is not None:
                    pixels = np.asarray(opaque.convert(mode))
                    if size is None or pixels.shape[:2] == size:
                        return pixels
                    fault = _other_size(pixels.shape[0], pixels.shape[1], size, wanted)
                else:
                    fault = "is transparent in places; save it on a background"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is far too large" if size is None else
                         f"{path} is far larger; {wanted} {size[0]}x{size[1]} pixels") from error
    except Exception as error:
        raise ValueError(f"{path} is not a whole picture of a kind that is read: {', '.join(FORMATS)}") from error
    raise ValueError(f"{path} {fault}")


def _fault(picture: ImageFile.ImageFile, size: tuple[int, int] | None, wanted: str) -> str | None:
    """Say what a picture that was opened, but not decoded, has that cannot be read exactly."""
    if size is not None and picture.size not in (size, size[::-1]):  # it may lie on its side
        return _other_size(picture.height, picture.width, size, wanted)
    if getattr(picture, "n_frames", 1) != 1:
        return "holds several pictures; it must hold one"
    # What has 16 bits per colour is RGB to Pillow too, which drops 8 of them; only the decoder's arguments tell.
    if picture.mode not in MODES or any(";16" in str(tile[3]) for tile in picture.tile):
        return "is not grey or RGB of at most 8 bits per colour"
    return None


def _other_size(height: int, width: int, size: tuple[int, int], wanted: str) -> str:
    return f"is {height}x{width} pixels; {wanted} {size[0]}x{size[1]}"


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
