"""Folded batch norm against batch norm, at every value that an accumulator can take."""

from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.learn.batch_norm import BatchNorm, fold

N_INPUTS = 21


def norm_of(rows: list[tuple[float, float, float, float]], epsilon: float = 1e-5) -> BatchNorm:
    return BatchNorm(*(np.array(column, np.float64) for column in zip(*rows, strict=True)), epsilon)


def sign_is_positive(norm: BatchNorm, row: int, x: int) -> bool:
    """Return whether batch_norm(x), times its positive root, is >= 0, in digits enough for every float."""
    with localcontext(prec=1100):
        scale, shift, mean, variance = (Decimal(float(v[row])) for v in norm[:4])
        return scale * (x - mean) + shift * (variance + Decimal(norm.epsilon)).sqrt() >= 0


def folded_bit(norm: BatchNorm, row: int, accumulator: int, n_inputs: int = N_INPUTS) -> bool:
    """Bit of an unpooled row whose first `accumulator` inputs agree with its weight."""
    weights = np.ones((len(norm.scale), n_inputs), np.uint8)
    folded, _ = fold(weights, norm, n_inputs, pooled=False)
    inputs = np.arange(n_inputs) < accumulator
    return int((folded.weights[row] == inputs).sum()) >= folded.thresholds[row]


VALUES = st.floats(-40, 40, allow_nan=False) | st.integers(-25, 25).map(float) | st.sampled_from([0.0, -0.0, 1e-300])
NORMS = st.tuples(st.lists(st.tuples(VALUES, VALUES, VALUES, st.floats(0, 100) | st.sampled_from([0.0, 1.0, 4.0])),
                           min_size=1, max_size=4), st.sampled_from([1e-5, 1e-3, 1.0, 2.0**-60])).map(
                               lambda case: norm_of(*case))


@settings(deadline=None, max_examples=30)
@given(NORMS)
def test_every_accumulator(norm: BatchNorm) -> None:
    weights = np.random.default_rng(0).integers(0, 2, (len(norm.scale), N_INPUTS), np.uint8)
    folded, invert = fold(weights, norm, N_INPUTS, pooled=False)
    assert not invert.any()
    assert folded.thresholds.dtype == np.int64
    for row in range(len(weights)):
        assert 0 <= folded.thresholds[row] <= N_INPUTS + 1
        for accumulator in range(N_INPUTS + 1):
            inputs = weights[row] ^ (np.arange(N_INPUTS) >= accumulator)
            bit = (folded.weights[row] == inputs).sum() >= folded.thresholds[row]
            assert bit == sign_is_positive(norm, row, 2 * accumulator - N_INPUTS)


@settings(deadline=None, max_examples=30)
@given(NORMS, st.integers(0, 99))
def test_every_accumulator_pooled(norm: BatchNorm, seed: int) -> None:
    weights = np.ones((len(norm.scale), N_INPUTS), np.uint8)
    folded, invert = fold(weights, norm, N_INPUTS, pooled=True)
    np.testing.assert_array_equal(folded.weights, weights)
    groups = np.random.default_rng(seed).integers(0, N_INPUTS + 1, (20, 4))
    groups = np.concatenate([groups, np.arange(N_INPUTS + 1)[:, None].repeat(4, 1)])
    for row in range(len(weights)):
        for group in groups:
            bit = (group >= folded.thresholds[row]).any() ^ invert[row]
            assert bit == sign_is_positive(norm, row, 2 * int(group.max()) - N_INPUTS)


def test_float_evaluation_agrees_away_from_ties() -> None:
    rng = np.random.default_rng(5)
    norm = BatchNorm(rng.normal(size=200), rng.normal(size=200), rng.normal(size=200) * 8, rng.random(200) * 30, 1e-5)
    folded, invert = fold(np.ones((200, N_INPUTS), np.uint8), norm, N_INPUTS, pooled=True)
    for accumulator in range(N_INPUTS + 1):
        y = (norm.scale * (2 * accumulator - N_INPUTS - norm.mean) / np.sqrt(norm.variance + norm.epsilon) + norm.shift)
        np.testing.assert_array_equal((accumulator >= folded.thresholds) ^ invert, y >= 0)


@pytest.mark.parametrize("x", [-N_INPUTS, -1, 1, 3, N_INPUTS])
def test_a_zero_on_an_integer_counts_as_positive(x: int) -> None:
    """Variance plus epsilon is 4, so batch norm is zero at mean - 2 * shift / scale exactly, either way round."""
    for scale, shift in product((3.0, -3.0), (0.0, 4.5, -4.5)):
        norm = norm_of([(scale, shift, x + 2 * shift / scale, 3.5)], 0.5)
        at = (x + N_INPUTS) // 2
        bits = [folded_bit(norm, 0, a) for a in range(N_INPUTS + 1)]
        assert bits == [a >= at if scale > 0 else a <= at for a in range(N_INPUTS + 1)]
        pooled, invert = fold(np.ones((1, N_INPUTS), np.uint8), norm, N_INPUTS, pooled=True)
        assert [bool((a >= pooled.thresholds[0]) ^ invert[0]) for a in range(N_INPUTS + 1)] == bits


def test_the_least_move_off_an_integer_counts() -> None:
    up, down = np.nextafter(1.0, 2), np.nextafter(1.0, 0)
    assert [folded_bit(norm_of([(1, 0, mean, 1)]), 0, 11) for mean in (down, 1.0, up)] == [True, True, False]
    assert [folded_bit(norm_of([(-1, 0, mean, 1)]), 0, 11) for mean in (down, 1.0, up)] == [False, True, True]


@pytest.mark.parametrize(("scale", "shift", "accumulator", "epsilon"), [
    (1, -1, 16, 2.0**-70), (1, 1, 5, -2.0**-70), (-1, 1, 16, -2.0**-70), (-1, -1, 5, 2.0**-70)])
def test_variances_that_floats_round_count(scale: int, shift: int, accumulator: int, epsilon: float) -> None:
    """Batch norm is zero at the root of 121 + epsilon, up to sign: just past the accumulator, at it for epsilon 0."""
    bits = [folded_bit(norm_of([(scale, shift, 0, 121)], e), 0, accumulator) for e in (0.0, epsilon, -epsilon)]
    assert bits == [True, False, True]


@pytest.mark.parametrize(("scale", "shift", "low", "high"), [
    (1, 1e308, 0, 0), (1, -1e308, 22, 22), (-1, 1e308, 0, 22), (-1, -1e308, 22, 0),
    (5e-324, 1e308, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0), (-0.0, -0.0, 0, 0), (0, -1e-300, 22, 22)])
def test_extremes_are_clipped(scale: float, shift: float, low: int, high: int) -> None:
    weights = np.ones((1, N_INPUTS), np.uint8)
    norm = norm_of([(scale, shift, 0, 1e300)])
    assert fold(weights, norm, N_INPUTS, pooled=False)[0].thresholds.tolist() == [low]
    pooled, invert = fold(weights, norm, N_INPUTS, pooled=True)
    assert pooled.thresholds.tolist() == [high]
    assert invert.tolist() == [scale < 0]


def test_weights_given_stay() -> None:
    weights = np.random.default_rng(1).integers(0, 2, (2, 5), np.uint8)
    before = weights.copy()
    folded, _ = fold(weights, norm_of([(1, 0, 0, 1), (-1, 0, 0, 1)]), 5, pooled=False)
    np.testing.assert_array_equal(weights, before)
    np.testing.assert_array_equal(folded.weights, before ^ [[0], [1]])


def test_float32_as_trained() -> None:
    norm = BatchNorm(*(np.array([value], np.float32) for value in (0.1, 0.7, 3.3, 2.2)), 1e-5)
    wide = BatchNorm(*(values.astype(np.float64) for values in norm[:4]), 1e-5)
    weights = np.ones((1, N_INPUTS), np.uint8)
    narrow, _ = fold(weights, norm, N_INPUTS, False)
    assert narrow.thresholds == fold(weights, wide, N_INPUTS, False)[0].thresholds


NOT_FINITE = "batch norm holds values that are not finite"
NOT_POSITIVE = "batch norm holds a variance that is not positive"


@pytest.mark.parametrize(("row", "epsilon", "sentence"), [
    ((np.nan, 0, 0, 1), 1e-5, NOT_FINITE), ((1, np.inf, 0, 1), 1e-5, NOT_FINITE),
    ((1, 0, -np.inf, 1), 1e-5, NOT_FINITE), ((1, 0, 0, np.nan), 1e-5, NOT_FINITE),
    ((1, 0, 0, np.inf), 1e-5, NOT_FINITE), ((1, 0, 0, 1), np.nan, NOT_FINITE), ((1, 0, 0, 1), np.inf, NOT_FINITE),
    ((1, 0, 0, 0), 0.0, NOT_POSITIVE), ((1, 0, 0, -1), 1e-5, NOT_POSITIVE), ((0, 0, 0, -1e-5), 1e-5, NOT_POSITIVE)])
def test_bad_values(row: tuple[float, ...], epsilon: float, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        fold(np.ones((2, 3), np.uint8), norm_of([(1, 0, 0, 1), row], epsilon), 3, pooled=False)
    assert str(caught.value) == sentence


def test_bad_shape() -> None:
    norm = norm_of([(1, 0, 0, 1)] * 2)._replace(mean=np.zeros(3))
    with pytest.raises(ValueError) as caught:
        fold(np.ones((2, 3), np.uint8), norm, 3, pooled=False)
    assert str(caught.value) == "mean of batch norm is of shape (3,); 2 rows are folded"
