"""Operators fed directly, with tensors of several slices that no network gives yet, against loops over single bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import WINDOW_ORDER, Matrix, MatrixParameters, MatrixShape
from cbnn.model.operators.tensor import Tensor


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)))
    if draw(st.booleans()):
        return Tensor(shape, (1,) * draw(st.integers(1, 3)), shared=False)
    counts = draw(st.lists(st.sampled_from((1, 2, 4, 16)), max_size=2))
    return Tensor(shape, (*sorted(counts, reverse=True), 1))


@st.composite
def operators(draw: st.DrawFn) -> Matrix:
    if draw(st.booleans()):
        return Dense(draw(st.integers(1, 3)))
    kernel = draw(st.integers(1, 3))
    return Conv(draw(st.integers(1, 3)), kernel, draw(st.integers(1, 2)), draw(st.integers(0, kernel - 1)),
                draw(st.integers(0, 1)))


def sums_bit_by_bit(shape: MatrixShape, weights: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Popcount sums of one image, (rows, columns, mh), its bits being (slices, height, width, channels)."""
    layer, tensor = shape.operator, shape.tensor
    height, width, channels = tensor.shape
    sums = np.zeros(shape.out_shape, int)
    for y, x, m in np.ndindex(*sums.shape):
        i = 0
        for s, count in enumerate(tensor.slices):
            if tensor.shared:
                i = 0  # the same weights again
            for row in range(shape.kernel[0]):
                for column in range(shape.kernel[1]):
                    at = y * layer.stride - layer.padding + row, x * layer.stride - layer.padding + column
                    for c in range(channels):
                        inside = 0 <= at[0] < height and 0 <= at[1] < width
                        bit = bits[(s, *at, c)] if inside else layer.pad_bit
                        sums[y, x, m] += count * (weights[m, i] == bit)
                        i += 1
    return sums


@settings(deadline=None, max_examples=60)
@given(tensor=tensors(), layer=operators(), seed=st.integers(0, 99))
def test_any_operator_takes_any_slices(tensor: Tensor, layer: Matrix, seed: int) -> None:
    try:
        shape = layer.shape(tensor)
    except ValueError:
        return
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (2, len(tensor.slices), *tensor.shape), np.uint8)
    weights = rng.integers(0, 2, (shape.mh, shape.mw), np.uint8)
    sums = np.stack([sums_bit_by_bit(shape, weights, image) for image in bits])
    assert sums.max() <= shape.max_accumulator

    offsets = rng.integers(-5, 5, shape.mh)
    if not layer.slides:
        scores = shape.compute(MatrixParameters(weights, offsets=offsets), bits)
        np.testing.assert_array_equal(scores, sums[:, 0, 0] + offsets)
    thresholds = rng.integers(0, shape.max_accumulator + 2, shape.mh)
    given_bits = shape.compute(MatrixParameters(weights, thresholds), bits)
    assert given_bits.shape == (2, 1, *layer.infer(tensor).shape)
    np.testing.assert_array_equal(given_bits[:, 0], sums >= thresholds)


@settings(deadline=None)
@given(tensor=tensors(), layer=operators(), order=st.permutations(WINDOW_ORDER))
def test_orders_of_weights_there_and_back(tensor: Tensor, layer: Matrix, order: list[str]) -> None:
    try:
        shape = layer.shape(tensor)
    except ValueError:
        return
    weights = np.arange(shape.mh * shape.mw).reshape(shape.mh, shape.mw)
    turned = shape.ordered(weights, order)
    sizes = dict(zip(WINDOW_ORDER, (tensor.n_weighted, *shape.kernel, tensor.shape[2]), strict=True))
    assert turned.shape == (shape.mh, *(sizes[name] for name in order))
    np.testing.assert_array_equal(shape.in_window_order(turned.reshape(shape.mh, -1), order), weights)


def test_slices_that_have_weights_of_their_own_count_one() -> None:
    for slices, shared in (((), True), ((2, 1), False), ((0,), True), ((2,), True), ((1, 2), True), ((3, 1), True)):
        with pytest.raises(ValueError, match="share weights count powers of two"):
            Tensor((1, 1, 1), slices, shared)
