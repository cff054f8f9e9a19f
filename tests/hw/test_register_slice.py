"""Register slice: gives what it takes."""

import numpy as np
import pytest

from cbnn.hw.register_slice import RegisterSlice


@pytest.mark.parametrize(("width", "beats"), [(1, 1), (7, 5), (64, 12)])
def test_equals_its_input(rtl, width, beats):
    bits = np.random.default_rng(width).integers(0, 2, (3 * beats, width), np.uint8)
    np.testing.assert_array_equal(rtl(RegisterSlice("unit", width, beats), bits), bits)
