"""Max pooling: the highest bit of every pool, then the inversion."""

import numpy as np
import pytest

from cbnn.hw.max_pool import MaxPool

N_IMAGES = 3


def pooled(images, size, inverted):
    """Pools of (images, rows, columns, channels), cut out one by one."""
    rows, columns = images.shape[1] // size, images.shape[2] // size
    highest = [image[i * size : (i + 1) * size, j * size : (j + 1) * size].max(axis=(0, 1))
               for image in images for i in range(rows) for j in range(columns)]
    return np.array(highest) ^ inverted


@pytest.mark.parametrize(("in_shape", "size", "pe"), [
    ((4, 4, 4), 2, 4), ((4, 4, 6), 2, 2), ((2, 2, 3), 2, 1), ((5, 4, 2), 2, 2), ((4, 5, 4), 2, 2),
    ((5, 5, 3), 2, 1), ((6, 6, 2), 3, 2), ((8, 7, 2), 3, 1), ((5, 8, 3), 3, 3), ((2, 6, 1), 2, 1), ((3, 3, 1), 3, 1),
], ids=str)
def test_equals_the_highest_bit_of_every_pool(rtl, in_shape, size, pe):
    check(rtl, in_shape, size, pe, 1)


@pytest.mark.parametrize(("in_shape", "size", "pe", "mmv"), [
    ((4, 4, 2), 2, 2, 2), ((4, 8, 3), 2, 3, 4), ((5, 8, 1), 2, 1, 8), ((8, 12, 2), 4, 2, 2), ((9, 10, 1), 4, 1, 2),
    ((3, 6, 2), 3, 2, 6), ((6, 9, 1), 3, 1, 3),
], ids=str)
def test_equals_it_several_pixels_at_once(rtl, in_shape, size, pe, mmv):
    check(rtl, in_shape, size, pe, mmv)


def check(rtl, in_shape, size, pe, mmv):
    rng = np.random.default_rng(size + pe)
    images = (rng.random((N_IMAGES, *in_shape)) < 0.25).astype(np.uint8)
    inverted = rng.integers(0, 2, in_shape[2], np.uint8)
    words = tuple(sum(int(bit) << i for i, bit in enumerate(group)) for group in inverted.reshape(-1, pe))
    unit = MaxPool("unit", in_shape, size, pe, words, mmv=mmv)
    np.testing.assert_array_equal(rtl(unit, images.reshape(-1, mmv * pe)),
                                  pooled(images, size, inverted).reshape(-1, unit.m_axis.width))
