"""Width converters: the same bits in other beats."""

import re

import numpy as np
import pytest

from cbnn.hw.width_converter import WidthConverter


@pytest.mark.parametrize(("in_width", "out_width", "beats"), [
    (4, 8, 2), (4, 8, 10), (3, 9, 6), (1, 7, 14), (1, 2, 2), (5, 35, 7),
    (8, 4, 1), (8, 4, 6), (9, 3, 4), (7, 1, 2), (2, 1, 1), (35, 5, 3),
])
def test_equals_the_same_bits_in_other_beats(rtl, in_width, out_width, beats):
    bits = np.random.default_rng(beats).integers(0, 2, (3 * beats, in_width), np.uint8)
    unit = WidthConverter("unit", in_width, out_width, beats)
    np.testing.assert_array_equal(rtl(unit, bits), bits.reshape(-1, out_width))


@pytest.mark.parametrize(("sizes", "message"), [
    ((6, 6, 4), "unit: beats of 6 bits do not convert to 6 bits"),
    ((6, 4, 4), "unit: beats of 6 bits do not convert to 4 bits"),
    ((2, 8, 6), "unit: 6 beats of 2 bits do not fill beats of 8"),
])
def test_refuses_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WidthConverter("unit", *sizes)
