"""Max pooling against loops over single bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.operators.max_pool import MaxPool, PoolParameters
from cbnn.model.operators.tensor import Tensor


@settings(deadline=None, max_examples=60)
@given(sides=st.tuples(st.integers(2, 9), st.integers(2, 9)), channels=st.integers(1, 3), size=st.integers(2, 4),
       seed=st.integers(0, 99))
def test_bit_by_bit(sides: tuple[int, int], channels: int, size: int, seed: int) -> None:
    if size > min(sides):
        return
    rng = np.random.default_rng(seed)
    shape = MaxPool(size).shape(Tensor((*sides, channels)))
    bits = (rng.random((2, 1, *sides, channels)) < 0.3).astype(np.uint8)
    invert = rng.integers(0, 2, channels).astype(bool)
    out = shape.compute(PoolParameters(invert), bits)
    assert out.shape == (2, 1, *shape.out_shape) == (2, 1, sides[0] // size, sides[1] // size, channels)
    for n, _, y, x, c in np.ndindex(out.shape):
        ones = [bits[n, 0, y * size + i, x * size + j, c] for i in range(size) for j in range(size)]
        assert out[n, 0, y, x, c] == (any(ones) != invert[c])


def test_what_cannot_be_pooled() -> None:
    for tensor, sentence in ((Tensor((3, 1, 2)), "MP2 does not fit an input of 3x1"),
                             (Tensor((4, 4, 2), (2, 1)), "MP2 takes bits; 2 slices enter")):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            MaxPool(2).infer(tensor)
    with pytest.raises(ValueError, match=r"^size of a pool is 1; it must be 2 to 1048576$"):
        MaxPool(1)
