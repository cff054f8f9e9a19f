"""Matrix-vector-threshold unit: products of -1 and +1, and their comparison with thresholds."""

import numpy as np
import pytest

from cbnn.hw.mvtu.mvtu import Mvtu

N_IMAGES = 3


def bits_of(values, width):
    """Bits of each value, the lowest first."""
    return (np.asarray(values)[..., np.newaxis] >> np.arange(width) & 1).astype(np.uint8)


def number(bits):
    """Integer of these bits, the first one lowest."""
    return sum(int(bit) << i for i, bit in enumerate(np.ravel(bits)))


def sums_of(weights, vectors, slice_weights):
    """Popcount sums (vectors, rows) of vectors (vectors, slices, inputs): where input and weight agree."""
    agreeing = (vectors[:, :, np.newaxis] == weights).sum(axis=3)
    return (agreeing * np.array(slice_weights)[:, np.newaxis]).sum(axis=1)


def matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, last, seed, ram_style="auto",
                place_ends=((0,), (0,))):
    """Give a unit with random contents, its weights (rows, inputs) and its thresholds."""
    rng = np.random.default_rng(seed)
    rows, inputs = pe * neuron_fold, simd * pass_words
    maximum = inputs * sum(slice_weights)
    width = maximum.bit_length() + 2 if last else (maximum + 1).bit_length()
    weights = rng.integers(0, 2, (rows, inputs), np.uint8)
    # Or offsets, in the last layer. One row always fires, one never does.
    n_places = len(place_ends[0]) * len(place_ends[1])
    thresholds = rng.integers(maximum // 3, 2 * maximum // 3 + 2, (n_places, rows))
    thresholds[0, 0], thresholds[-1, -1] = 0, maximum + 1
    weight_words = tuple(number(weights[f * pe : (f + 1) * pe, w * simd : (w + 1) * simd])
                         for f in range(neuron_fold) for w in range(pass_words))
    threshold_words = tuple(number(bits_of(fold, width)) for fold in thresholds.reshape(-1, pe))
    return Mvtu("unit", pe, simd, pass_words, neuron_fold, slice_weights, maximum, n_vectors, width if last else 0,
                weight_words, threshold_words, place_ends, ram_style), weights, thresholds


@pytest.mark.parametrize("last", [False, True], ids=["bits", "sums"])
@pytest.mark.parametrize(("pe", "simd", "pass_words", "neuron_fold", "slice_weights", "n_vectors"), [
    (4, 8, 1, 1, (1,), 3),
    (1, 1, 1, 1, (1,), 5),
    (1, 3, 2, 3, (1,), 1),
    (3, 5, 4, 1, (1,), 4),
    (2, 4, 3, 2, (1,), 4),
    (5, 2, 1, 4, (1,), 3),
    (2, 17, 2, 2, (1,), 2),
    (1, 70, 1, 2, (1,), 3),
    (1, 130, 1, 1, (1,), 2),
    (2, 9, 1, 1, (4, 2, 1), 3),
    (2, 3, 2, 2, (8, 4, 1), 2),
    (1, 6, 1, 3, (128, 1), 3),
    (3, 4, 2, 1, (64, 16, 8, 1), 2),
])
def test_equals_the_matrix_product(rtl, pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, last):
    check(rtl, matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, last, simd))


@pytest.mark.parametrize("last", [False, True], ids=["bits", "sums"])
@pytest.mark.parametrize("ram_style", ["block", "distributed"])
@pytest.mark.parametrize(("pe", "simd", "pass_words", "neuron_fold", "slice_weights", "n_vectors"), [
    (2, 4, 1, 1, (1,), 3), (2, 5, 3, 2, (1,), 2), (3, 20, 1, 4, (1,), 2), (2, 3, 2, 2, (8, 4, 1), 2),
    (1, 2, 1, 2100, (1,), 1), (2, 1, 1100, 2, (2, 1), 1),
])
def test_equals_it_wherever_the_weights_are(rtl, ram_style, pe, simd, pass_words, neuron_fold, slice_weights,
                                            n_vectors, last):
    check(rtl, matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, last, simd, ram_style))


@pytest.mark.parametrize("place_ends", [((0, 2, 3), (0, 3, 4)), ((1,), (0, 1, 2, 3, 4, 5)), ((0, 1, 2, 3), (2,)),
                                        ((1, 3), (5, 6))])
@pytest.mark.parametrize(("pe", "simd", "pass_words", "neuron_fold", "slice_weights", "ram_style"), [
    (2, 5, 2, 1, (1,), "auto"), (1, 4, 1, 3, (1,), "auto"), (3, 3, 2, 2, (1,), "block"),
    (2, 3, 1, 2, (8, 4, 1), "auto"),
])
def test_thresholds_of_every_place(rtl, pe, simd, pass_words, neuron_fold, slice_weights, ram_style, place_ends):
    n_vectors = (place_ends[0][-1] + 1) * (place_ends[1][-1] + 1)
    check(rtl, matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, False, simd, ram_style,
                           place_ends))


def place_of(vector, place_ends):
    """Place of a vector of one image: of its row and its column the first run that has not ended."""
    y, x = divmod(vector, place_ends[1][-1] + 1)
    row_run, column_run = (next(i for i, end in enumerate(ends) if at <= end)
                           for at, ends in zip((y, x), place_ends, strict=True))
    return row_run * len(place_ends[1]) + column_run


def check(rtl, made):
    unit, weights, thresholds = made
    pe, simd, slice_weights, n_vectors = unit.pe, unit.simd, unit.slice_weights, unit.n_vectors
    rng = np.random.default_rng(pe)
    vectors = rng.integers(0, 2, (N_IMAGES * n_vectors, len(slice_weights), simd * unit.pass_words), np.uint8)
    # A vector that agrees with a row everywhere reaches the largest sum, its opposite none at all.
    vectors[0], vectors[-1] = weights[0], 1 - weights[0]
    sums = sums_of(weights, vectors, slice_weights)
    thresholds = thresholds[[place_of(vector, unit.place_ends) if thresholds.shape[0] > 1 else 0
                             for vector in range(n_vectors)] * N_IMAGES]
    expected = bits_of(sums + thresholds, unit.score_width) if unit.last else (sums >= thresholds).astype(np.uint8)
    words = vectors.reshape(len(vectors), -1).repeat(unit.neuron_fold, axis=0).reshape(-1, simd)
    np.testing.assert_array_equal(rtl(unit, words), expected.reshape(-1, unit.m_axis.width))
