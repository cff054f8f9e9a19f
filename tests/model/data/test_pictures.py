"""Pictures: pixels as a network takes them, slices as files, and what cannot be read."""

import io
import resource
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cbnn.model.data import digits
from cbnn.model.data.pictures import read_image, write_slices
from cbnn.model.exchange import storage
from cbnn.model.exchange.shipped import shipped
from cbnn.model.network import random_network
from cbnn.model.topology import Topology

GREY = Topology.parse("4FC-3FC", (3, 4, 1), 5, (4, 2))
COLOUR = Topology.parse("4FC-3FC", (3, 4, 3), 8)
RNG = np.random.default_rng(0)


def test_white_is_the_highest_pixel(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 23
    pixels[2, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    for network, high in ((random_network(GREY, 0), 31), (replace(random_network(GREY, 0), max_pixel=16), 16)):
        seen = read_image(tmp_path / "grey.png", network)[0, :, :, 0]
        assert seen.tolist() == np.floor(pixels.astype(int) * high / 255 + 0.5).tolist()
    colours = RNG.integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png", random_network(COLOUR, 0))[0].tolist() == colours.tolist()


def test_white_is_the_highest_pixel_of_more_than_eight_bits_and_of_a_table(tmp_path):
    Image.fromarray(np.full((3, 4), 255, np.uint8)).save(tmp_path / "white.png")
    many = random_network(Topology.parse("4FC-3FC", (3, 4, 1), 16), 0)
    assert (read_image(tmp_path / "white.png", many) == 65535).all()
    table = replace(random_network(GREY, 0), pixel_table=np.arange(200) // 10, max_pixel=0)
    assert (read_image(tmp_path / "white.png", table) == 199).all()


def test_digits_as_ordinary_pictures_score_as_their_arrays(tmp_path):
    network = storage.load(shipped()["digits-5"])
    for image in digits.load().test_images:
        bright = np.floor(image[:, :, 0] * 255.0 / 16 + 0.5).astype(np.uint8)
        Image.fromarray(bright).save(tmp_path / "digit.png")
        assert read_image(tmp_path / "digit.png", network)[0].tolist() == image.tolist()


def test_an_array_is_taken_as_it_is(tmp_path):
    pixels = RNG.integers(0, 32, (3, 4, 1))
    np.save(tmp_path / "image.npy", pixels)
    assert read_image(tmp_path / "image.npy", random_network(GREY, 0))[0].tolist() == pixels.tolist()


@pytest.mark.parametrize("topology", [GREY, COLOUR])
def test_slices_are_pictures_of_their_bits(tmp_path, topology):
    image = RNG.integers(0, 1 << topology.input_bits, (1, *topology.in_shape))
    backwards = np.arange(1 << topology.input_bits)[::-1].copy()
    network = replace(random_network(topology, 0), pixel_table=backwards)
    paths = write_slices(backwards[image], network, tmp_path / "slices", scale=2)
    kept = ["kept" if b in topology.kept_slices else "pruned" for b in range(topology.input_bits - 1, -1, -1)]
    assert [path.stem.split("-")[2] for path in paths] == kept
    for b, path in zip(range(topology.input_bits - 1, -1, -1), paths, strict=True):
        with Image.open(path) as picture:
            seen = np.asarray(picture).reshape(6, 8, -1)
        assert (seen[::2, ::2] == 255 * (image[0] >> b & 1)).all()
        assert (seen[1::2, 1::2] == seen[::2, ::2]).all()


def test_what_does_not_suit_is_refused(tmp_path):
    def refused(name, topology=GREY, max_pixel=0):
        with pytest.raises(ValueError) as caught:
            read_image(tmp_path / name, replace(random_network(topology, 0), max_pixel=max_pixel))
        return str(caught.value).replace(f"{tmp_path}/", "")

    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "large.png")
    np.save(tmp_path / "high.npy", np.full((3, 4, 1), 32))
    np.save(tmp_path / "nan.npy", np.full((3, 4, 1), np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "above.npy", np.full((3, 4, 1), 17))
    assert refused("text.png") == f"text.png {DAMAGED}"
    assert refused("none.png") == "none.png cannot be read: No such file or directory"
    assert refused("large.png") == "large.png is 4x4 pixels; the network takes 3x4"
    assert refused("high.npy") == "pixels 32 to 32 given; 5 bits hold 0 to 31"
    assert refused("nan.npy") == "images are float64; pixels must be integers"
    assert refused("objects.npy").startswith("objects.npy holds object (1,); ")
    assert refused("above.npy", max_pixel=16) == "a pixel is 17; the network was trained on pixels of 0 to 16"
    assert refused("large.png", Topology.parse("4FC-3FC", (4, 4, 2), 5)) == (
        "the network takes 2 colours; pictures have 1 or 3, others come as an .npy array")


# What pictures are, and what they are taken for

BRIGHT = RNG.integers(0, 256, (3, 4), np.uint8)
DAMAGED = "is not a whole picture of a kind that is read: PNG, JPEG, BMP"
DEEP = "is not grey or RGB of at most 8 bits per colour"


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(depth, colour_type, rows, size=(4, 3), extra=b""):
    """A PNG by hand, for what Pillow does not write."""
    head = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


GREY_PICTURE = Image.fromarray(BRIGHT)
RGBA = np.dstack([BRIGHT, BRIGHT, BRIGHT, np.full((3, 4), 255, np.uint8)])
PALETTE = GREY_PICTURE.convert("P")


@pytest.mark.parametrize(("content", "wanted"), [
    (encoded(Image.fromarray(BRIGHT > 99)), 255 * (BRIGHT > 99)), (encoded(PALETTE), BRIGHT),
    (encoded(Image.fromarray(RGBA)), BRIGHT), (encoded(Image.fromarray(RGBA).convert("LA")), BRIGHT),
    (encoded(PALETTE, transparency=bytes([255]) * 256), BRIGHT),
    (encoded(GREY_PICTURE.convert("RGB")), BRIGHT), (encoded(GREY_PICTURE, "BMP"), BRIGHT),
    (png(4, 0, b"\0\x0f\xf0" * 3), np.array([[0, 255, 255, 0]] * 3)),
    (png(2, 0, b"\0\x1b" * 3), np.array([[0, 85, 170, 255]] * 3)),
    *((encoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif(number)), BRIGHT) for number, turned in (
        (1, BRIGHT), (2, BRIGHT[:, ::-1]), (3, BRIGHT[::-1, ::-1]), (6, np.rot90(BRIGHT)), (8, np.rot90(BRIGHT, 3)))),
    (encoded(Image.fromarray(np.full((3, 4), 60, np.uint8)), "JPEG"), np.full((3, 4), 60))])
def test_pictures_that_are_right(tmp_path, content, wanted):
    (tmp_path / "picture.png").write_bytes(content)
    network = random_network(Topology.parse("4FC-3FC", (3, 4, 1), 8), 0)
    assert read_image(tmp_path / "picture.png", network)[0, :, :, 0].tolist() == wanted.tolist()


CLEAR = RGBA.copy()
CLEAR[1, 1, 3] = 254


@pytest.mark.parametrize(("content", "sentence"), [
    (encoded(Image.fromarray(BRIGHT.astype(np.uint16) * 257)), DEEP), (png(16, 2, (b"\0" + bytes(24)) * 3), DEEP),
    (png(16, 6, (b"\0" + bytes(32)) * 3), DEEP), (png(16, 4, (b"\0" + bytes(16)) * 3), DEEP),
    (encoded(GREY_PICTURE.convert("CMYK"), "JPEG"), DEEP),
    *((encoded(picture, **options), "is transparent in places; save it on a background") for picture, options in (
        (Image.fromarray(CLEAR), {}), (Image.fromarray(CLEAR).convert("LA"), {}),
        (PALETTE, {"transparency": int(BRIGHT[0, 0])}), (GREY_PICTURE, {"transparency": int(BRIGHT[0, 0])}),
        (Image.fromarray(RGBA[..., :3]), {"transparency": tuple(map(int, RGBA[0, 0, :3]))}))),
    (encoded(GREY_PICTURE, save_all=True, append_images=[Image.fromarray(255 - BRIGHT)]),
     "holds several pictures; it must hold one"),
    *((encoded(GREY_PICTURE, kind), DAMAGED) for kind in ("GIF", "TIFF", "PPM", "WEBP", "ICO", "EPS", "PDF")),
    (encoded(Image.fromarray(BRIGHT / np.float32(255)), "TIFF"), DAMAGED),
    (b"", DAMAGED), (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n", DAMAGED),
    (png(8, 0, b"", (60_000, 60_000)), "is far larger; the network takes 3x4 pixels"),
    (png(8, 0, b"", (10_000, 10_000)), "is far larger; the network takes 3x4 pixels"),
    (png(8, 0, b"", (6_000, 6_000)), "is 6000x6000 pixels; the network takes 3x4"),
    (png(8, 0, (b"\x09" + bytes(4)) * 3), DAMAGED),
    (png(8, 0, (b"\0" + bytes(4)) * 3, extra=chunk(b"eXIf", b"MM\0*" + b"\xff" * 40)), DAMAGED),
    (png(8, 0, (b"\0" + bytes(4)) * 3, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))), DAMAGED)])
def test_pictures_that_are_refused(tmp_path, monkeypatch, content, sentence):
    monkeypatch.setattr("subprocess.Popen", None)
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_image(path, random_network(GREY, 0))
    assert str(caught.value) == f"{path} {sentence}"


def test_a_large_picture_is_not_decoded(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(8, 2, bytes((1 + 3 * 9000) * 9000), (9000, 9000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="is 9000x9000 pixels; the network takes 3x4"):
        read_image(path, random_network(COLOUR, 0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_damaged_pictures(tmp_path, kind):
    """Cut short they are refused; with bytes changed they are refused, or read whole."""
    picture = Image.fromarray(RNG.integers(0, 256, (3, 4, 3), np.uint8))
    whole, path, rng = encoded(picture, kind, exif=exif(3)), tmp_path / "picture", np.random.default_rng(0)
    network = random_network(COLOUR, 0)
    for _ in range(300):
        spoilt = bytearray(whole)
        if rng.random() < 0.3:
            del spoilt[int(rng.integers(len(whole))) :]
        else:
            for at in rng.integers(0, len(spoilt), int(rng.integers(1, 4))).tolist():
                spoilt[at] = int(rng.integers(256))
        path.write_bytes(spoilt)
        try:
            image = read_image(path, network)
        except ValueError as error:
            assert str(error).startswith(f"{path} ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert image.shape == (1, 3, 4, 3)
            assert len(spoilt) == len(whole) or kind != "BMP"
            assert kind != "PNG" or (image[0] == np.asarray(picture)[::-1, ::-1]).all()


def test_a_pixel_changed_where_the_checksum_of_the_rows_is_not_looked_at(tmp_path):
    """It is in a chunk of its own, which the decoder does not read once it has all rows."""
    rows = zlib.compress((b"\0" + bytes(4)) * 3, 0)
    ends = b"".join(chunk(b"IDAT", rows[i:j]) for i, j in ((0, len(rows) - 4), (len(rows) - 4, len(rows))))
    whole = png(8, 0, b"").replace(chunk(b"IDAT", zlib.compress(b"")), ends)
    path, network = tmp_path / "picture.png", random_network(GREY, 0)
    path.write_bytes(whole)
    assert (read_image(path, network) == 0).all()
    path.write_bytes(whole.replace(rows[-9:-4], b"\0\0\0\0\xff"))
    with pytest.raises(ValueError) as caught:
        read_image(path, network)
    assert str(caught.value) == f"{path} {DAMAGED}"
