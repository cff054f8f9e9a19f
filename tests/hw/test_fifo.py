"""FIFO: gives what it takes, at every depth."""

import numpy as np
import pytest

from cbnn.hw.fifo import Fifo


@pytest.mark.parametrize(("width", "depth", "beats"),
                         [(3, 1, 1), (8, 1, 6), (1, 2, 7), (8, 2, 1), (5, 3, 10), (9, 5, 4), (4, 16, 20)])
def test_equals_its_input(rtl, width, depth, beats):
    bits = np.random.default_rng(depth).integers(0, 2, (3 * beats, width), np.uint8)
    np.testing.assert_array_equal(rtl(Fifo("unit", width, depth, beats), bits), bits)
