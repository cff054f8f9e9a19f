"""Sliding window unit: windows of padded images, cut out with numpy."""

import numpy as np
import pytest

from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.tensor import Tensor

N_IMAGES = 4


def windows(images, layer, pad_bit):
    """Windows of (images, slices, rows, columns, channels): per window slices outermost, then row, column, channel."""
    p, k, s = layer.padding, layer.kernel, layer.stride
    padded = np.pad(images, ((0, 0), (0, 0), (p, p), (p, p), (0, 0)), constant_values=pad_bit)
    rows, columns = (range(0, padded.shape[axis] - k + 1, s) for axis in (2, 3))
    return np.array([image[:, i : i + k, j : j + k] for image in padded for i in rows for j in columns], np.uint8)


@pytest.mark.parametrize(("in_shape", "layer", "n_slices", "word", "ports"), [
    ((4, 4, 3), Conv(1, 3, padding=1), 1, 3, 1),
    ((4, 5, 2), Conv(1, 3, padding=1, pad_bit=1), 1, 2, 3),
    ((4, 4, 1), Conv(1, 3, padding=1), 1, 1, 9),
    ((5, 4, 2), Conv(1, 3), 1, 2, 9),
    ((4, 4, 6), Conv(1, 3), 1, 2, 1),
    ((4, 4, 4), Conv(1, 3, padding=1, pad_bit=1), 1, 1, 1),
    ((5, 5, 1), Conv(1, 3, padding=1), 4, 1, 9),
    ((4, 4, 2), Conv(1, 3, padding=1), 3, 2, 3),
    ((4, 3, 4), Conv(1, 2, padding=1), 2, 2, 1),
    ((5, 5, 2), Conv(1, 3, stride=2, padding=1, pad_bit=1), 1, 2, 1),
    ((6, 6, 2), Conv(1, 3, stride=2), 2, 2, 9),
    ((8, 7, 1), Conv(1, 3, stride=3), 1, 1, 3),
    ((8, 8, 1), Conv(1, 2, stride=3), 1, 1, 2),
    ((5, 5, 1), Conv(1, 5, padding=2), 1, 1, 5),
    ((6, 5, 1), Conv(1, 5, padding=2, pad_bit=1), 1, 1, 25),
    ((5, 6, 2), Conv(1, 5), 1, 2, 1),
    ((4, 4, 3), Conv(1, 1), 1, 3, 1),
    ((4, 4, 4), Conv(1, 1, stride=2), 2, 2, 1),
    ((4, 4, 2), Conv(1, 2, stride=2), 1, 2, 4),
    ((3, 3, 2), Conv(1, 3), 2, 1, 1),
    ((1, 1, 2), Conv(1, 1), 1, 2, 1),
    ((1, 6, 1), Conv(1, 3, padding=1), 1, 1, 3),
    ((2, 2, 1), Conv(1, 3, padding=2, pad_bit=1), 2, 1, 9),
    ((7, 3, 1), Conv(1, 3, padding=1), 1, 1, 9),
    ((8, 7, 1), Conv(1, 7, padding=3), 1, 1, 7),
    ((9, 8, 1), Conv(1, 7, stride=2, padding=2, pad_bit=1), 1, 1, 49),
    ((7, 7, 2), Conv(1, 7), 2, 1, 1),
    ((6, 7, 1), Conv(1, 4, padding=1), 2, 1, 8),
    ((6, 6, 1), Conv(1, 6, padding=1), 1, 1, 6),
], ids=str)
def test_equals_the_windows_of_the_padded_image(rtl, in_shape, layer, n_slices, word, ports):
    unit = SlidingWindow("unit", in_shape, layer, n_slices, word, ports)
    images = np.random.default_rng(len(str(unit))).integers(0, 2, (N_IMAGES, n_slices, *in_shape), np.uint8)
    pixels = images.transpose(0, 2, 3, 1, 4).reshape(-1, word)
    expected = windows(images, layer, layer.pad_bit).reshape(-1, word * ports)
    np.testing.assert_array_equal(rtl(unit, pixels), expected)


@pytest.mark.parametrize(("in_shape", "layer", "mmv"), [
    ((4, 4, 1), Conv(1, 3, padding=1), 2), ((4, 4, 3), Conv(1, 3, padding=1, pad_bit=1), 4),
    ((5, 8, 2), Conv(1, 5), 4), ((6, 8, 1), Conv(1, 5, padding=2), 2), ((4, 6, 1), Conv(1, 3, padding=2), 2),
    ((5, 8, 2), Conv(1, 3, stride=2, padding=1, pad_bit=1), 4), ((6, 8, 1), Conv(1, 2, stride=2), 4),
    ((3, 6, 2), Conv(1, 1), 3), ((5, 5, 1), Conv(1, 3, padding=1), 5), ((9, 9, 1), Conv(1, 5, stride=3, padding=2), 3),
    ((6, 12, 1), Conv(1, 7, padding=3, pad_bit=1), 2), ((4, 8, 1), Conv(1, 4, stride=4), 2),
    ((4, 8, 1), Conv(1, 5, stride=2, padding=2), 2),
], ids=str)
def test_equals_them_several_at_once(rtl, in_shape, layer, mmv):
    shape = layer.shape(Tensor(in_shape))
    unit = SlidingWindow.for_layer("unit", shape, shape.mw, mmv=mmv)
    images = np.random.default_rng(mmv).integers(0, 2, (N_IMAGES, 1, *in_shape), np.uint8)
    pixels = images.transpose(0, 2, 3, 1, 4).reshape(-1, mmv * in_shape[2])
    expected = windows(images, layer, layer.pad_bit).reshape(-1, mmv * shape.mw)
    np.testing.assert_array_equal(rtl(unit, pixels), expected)
