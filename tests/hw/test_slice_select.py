"""Slice selection: the bits of the kept slices, of every colour."""

import numpy as np
import pytest

from cbnn.hw.slice_select import SliceSelect

N_IMAGES, N_BEATS = 3, 5


@pytest.mark.parametrize(("values", "value_bits", "kept"), [
    (1, 8, (7,)), (3, 8, (2, 3, 7)), (2, 16, (0, 9)), (8, 8, tuple(range(8))), (1, 8, (0, 1)),
], ids=str)
def test_gives_the_kept_bits_of_every_colour(rtl, values, value_bits, kept):
    pixels = np.random.default_rng(values).integers(0, 1 << value_bits, (N_IMAGES * N_BEATS, values))
    bits = pixels[..., np.newaxis] >> np.arange(value_bits) & 1
    unit = SliceSelect("unit", values, value_bits, kept, N_BEATS)
    expected = np.stack([pixels >> b & 1 for b in kept], axis=2).reshape(len(pixels), -1)
    np.testing.assert_array_equal(rtl(unit, bits.reshape(len(pixels), -1).astype(np.uint8)), expected)
