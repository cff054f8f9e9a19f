"""Bit slices: what every pixel gives, and what is refused."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.slices import bit_slices, check_images, check_kept, parse_slices, slices_text


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 16).flatmap(lambda n: st.tuples(
    st.just(n), st.sets(st.integers(0, n - 1), min_size=1), st.lists(st.integers(0, (1 << n) - 1), min_size=6,
                                                                     max_size=6))))
def test_every_bit_lands_in_its_slice(case: tuple[int, set[int], list[int]]) -> None:
    n_bits, chosen, pixels = case
    kept = tuple(sorted(chosen, reverse=True))
    for dtype in (np.uint16, np.int32, np.int64, np.uint64, ">u4"):
        images = np.array(pixels, dtype).reshape(1, 1, 2, 3)
        check_images(images, (1, 2, 3), n_bits)
        slices = bit_slices(images, kept)
        assert slices.dtype == np.uint8
        assert slices.shape == (1, len(kept), 1, 2, 3)
        for position, b in enumerate(kept):
            assert slices[0, position].ravel().tolist() == [int(f"{p:016b}"[-1 - b]) for p in pixels]


@pytest.mark.parametrize(("kept", "sentence"), [
    ((), "no slice is kept; a network needs at least one"),
    ((5,), "slice 5 does not exist; pixels of 5 bits have 0 to 4"),
    ((4, -1), "slice -1 does not exist; pixels of 5 bits have 0 to 4"),
    ((2.0,), "one of kept slices is of type float; it must be int"),
    (("3",), "one of kept slices is of type str; it must be int"),
    ((True,), "one of kept slices is of type bool; it must be int"),
    ([4, 3], "kept slices is of type list; it must be tuple"),
    ((3, 4), "kept slices [3, 4] must be listed once each, the MSB first"),
    ((4, 4, 3), "kept slices [4, 4, 3] must be listed once each, the MSB first"),
])
def test_bad_slices(kept: object, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_kept(kept, 5)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("images", "sentence"), [
    (np.zeros((2, 3, 1), int), "images of shape (2, 3, 1) given; the network takes (N, 2, 3, 1)"),
    (np.zeros((1, 3, 2, 1), int), "images of shape (1, 3, 2, 1) given; the network takes (N, 2, 3, 1)"),
    (np.zeros((0, 2, 3, 1), int), "no image given; at least one is needed"),
    (np.zeros((1, 2, 3, 1)), "images are float64; pixels must be integers"),
    (np.zeros((1, 2, 3, 1), bool), "images are bool; pixels must be integers"),
    (np.zeros((1, 2, 3, 1), object), "images are object; pixels must be integers"),
    (np.full((1, 2, 3, 1), 8), "pixels 8 to 8 given; 3 bits hold 0 to 7"),
    (np.arange(-1, 5).reshape(1, 2, 3, 1), "pixels -1 to 4 given; 3 bits hold 0 to 7"),
    (np.full((1, 2, 3, 1), 2**64 - 1, np.uint64),
     "pixels 18446744073709551615 to 18446744073709551615 given; 3 bits hold 0 to 7"),
])
def test_bad_images(images: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_images(images, (2, 3, 1), 3)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("text", "kept"), [
    ("3", (3,)), ("4,3,2", (4, 3, 2)), ("4..2", (4, 3, 2)), ("7, 5", (7, 5)), ("7..5,3,1..0", (7, 6, 5, 3, 1, 0)),
    ("4..4", (4,)),
])
def test_slices_are_read_by_number(text: str, kept: tuple[int, ...]) -> None:
    assert parse_slices(text) == kept


@pytest.mark.parametrize("text", ["", "four", "2..4", "2,3", "3,3", "4..2,3", "4...2", "-1", "4,", "99999..0", "³"])
def test_slices_written_otherwise_are_one_sentence(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_slices(text)
    assert str(caught.value) == (f"slices {text!r} are not written like 3, 4,3,2 or 4..2: "
                                 "numbers of slices, the highest first")


def test_slices_one_by_one_are_read_at_once() -> None:
    """Ten thousand in 10 ms, and not in 3 s, as where all that was read is sorted once more for every one."""
    start = time.process_time()
    assert len(parse_slices(",".join(map(str, range(9999, -1, -1))))) == 10_000
    assert time.process_time() - start < 1


@pytest.mark.parametrize(("kept", "text"), [((4, 3, 2), "4..2"), ((3,), "3"), ((7, 5), "7,5"), ((1, 0), "1..0")])
def test_slices_are_shown_as_they_are_typed(kept: tuple[int, ...], text: str) -> None:
    assert slices_text(kept) == text
    assert parse_slices(text) == kept
