"""Pictures: pixels as a network takes them, slices as files, and what cannot be read."""

import numpy as np
import pytest
from PIL import Image

from cbnn.model.network import random_network
from cbnn.model.pictures import read_image, write_slices
from cbnn.model.topology import Topology

GREY = Topology.parse("4FC-3FC", (3, 4, 1), 5, (4, 2))
COLOUR = Topology.parse("4FC-3FC", (3, 4, 3), 8)
RNG = np.random.default_rng(0)


def test_a_picture_gives_its_most_significant_bits(tmp_path):
    pixels = RNG.integers(0, 256, (3, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png", random_network(GREY, 0))[0, :, :, 0].tolist() == (pixels >> 3).tolist()
    colours = RNG.integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png", random_network(COLOUR, 0))[0].tolist() == colours.tolist()


def test_an_array_is_taken_as_it_is(tmp_path):
    pixels = RNG.integers(0, 32, (3, 4, 1))
    np.save(tmp_path / "image.npy", pixels)
    assert read_image(tmp_path / "image.npy", random_network(GREY, 0))[0].tolist() == pixels.tolist()


@pytest.mark.parametrize("topology", [GREY, COLOUR])
def test_slices_are_pictures_of_their_bits(tmp_path, topology):
    image = RNG.integers(0, 1 << topology.input_bits, (1, *topology.in_shape))
    paths = write_slices(image, topology, tmp_path / "slices", scale=2)
    kept = ["kept" if b in topology.kept_slices else "pruned" for b in range(topology.input_bits - 1, -1, -1)]
    assert [path.stem.split("-")[2] for path in paths] == kept
    for b, path in zip(range(topology.input_bits - 1, -1, -1), paths, strict=True):
        with Image.open(path) as picture:
            seen = np.asarray(picture).reshape(6, 8, -1)
        assert (seen[::2, ::2] == 255 * (image[0] >> b & 1)).all()
        assert (seen[1::2, 1::2] == seen[::2, ::2]).all()


def test_what_does_not_suit_is_refused(tmp_path):
    def refused(name, topology=GREY):
        with pytest.raises(ValueError) as caught:
            read_image(tmp_path / name, random_network(topology, 0))
        return str(caught.value).replace(f"{tmp_path}/", "")

    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "large.png")
    np.save(tmp_path / "high.npy", np.full((3, 4, 1), 32))
    np.save(tmp_path / "nan.npy", np.full((3, 4, 1), np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    assert refused("text.png").startswith("text.png cannot be read: cannot identify image file")
    assert refused("none.png") == "none.png cannot be read: No such file or directory"
    assert refused("large.png") == "large.png is 4x4x1; the network takes 3x4x1"
    assert refused("high.npy") == "pixels 32 to 32 given; 5 bits hold 0 to 31"
    assert refused("nan.npy") == "images are float64; pixels must be integers"
    assert refused("objects.npy").startswith("objects.npy holds object (1,); ")
    assert refused("large.png", Topology.parse("4FC-3FC", (4, 4, 2), 5)).startswith(
        "the network takes 2 colours of 5 bits; pictures have 1 or 3 of 8")
