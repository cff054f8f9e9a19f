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


def sums_of(weights, vectors, slice_weights, lanes):
    """Popcount sums (vectors, rows) of vectors (vectors, groups, inputs, lanes): where input and weight agree."""
    agreeing = (vectors[:, :, np.newaxis] == weights[..., np.newaxis]).sum(axis=3)
    return (agreeing * np.outer(slice_weights, lanes)[:, np.newaxis]).sum(axis=(1, 3))


def matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, last, seed, ram_style="auto",
                place_ends=((0,), (0,)), lanes=(1,), mmv=1):
    """Give a unit with random contents, its weights (rows, inputs) and its thresholds (places, vectors, rows)."""
    rng = np.random.default_rng(seed)
    values = simd // len(lanes)
    rows, inputs = pe * neuron_fold, values * pass_words
    maximum = inputs * sum(slice_weights) * sum(lanes)
    width = maximum.bit_length() + 2 if last else (maximum + 1).bit_length()
    weights = rng.integers(0, 2, (rows, inputs), np.uint8)
    # Or offsets, in the last layer. One row always fires, one never does.
    n_places = len(place_ends[0]) * len(place_ends[1])
    thresholds = rng.integers(maximum // 3, 2 * maximum // 3 + 2, (n_places, mmv, rows))
    thresholds[0, 0, 0], thresholds[-1, -1, -1] = 0, maximum + 1
    weight_words = tuple(number(weights[f * pe : (f + 1) * pe, w * values : (w + 1) * values])
                         for f in range(neuron_fold) for w in range(pass_words))
    threshold_words = tuple(number(bits_of(fold, width)) for fold in thresholds.reshape(-1, mmv * pe))
    return Mvtu("unit", pe, simd, pass_words, neuron_fold, slice_weights, maximum, n_vectors, width if last else 0,
                weight_words, threshold_words, place_ends, ram_style, lanes, mmv), weights, thresholds


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
])
def test_equals_it_wherever_the_weights_are(rtl, ram_style, pe, simd, pass_words, neuron_fold, slice_weights,
                                            n_vectors, last):
    check(rtl, matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, n_vectors, last, simd, ram_style))


@pytest.mark.parametrize(("pe", "simd", "pass_words", "neuron_fold", "slice_weights", "last", "per_row"), [
    (1, 2, 1, 2100, (1,), False, {"unit_weights": 2, "unit_starts": 2}),
    (1, 12, 515, 2, (1,), True, {"unit_weights": 3, "unit_starts": 1}),
])
def test_chooses_words_from_rows_of_block_ram(rtl, pe, simd, pass_words, neuron_fold, slice_weights, last, per_row):
    made = matrix_unit(pe, simd, pass_words, neuron_fold, slice_weights, 1, last, simd, "block")
    assert {rom.name: rom.shape.per_row for rom in made[0].roms} == per_row
    check(rtl, made)


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


@pytest.mark.parametrize("last", [False, True], ids=["bits", "sums"])
@pytest.mark.parametrize(("pe", "values", "pass_words", "neuron_fold", "slice_weights", "lanes"), [
    (2, 3, 1, 1, (1,), (1, 2, 4)), (1, 9, 2, 3, (1,), (1, 2, 4, 8, 16, 32, 64, 128)), (3, 1, 2, 1, (16, 4, 1), (1, 2)),
    (2, 20, 1, 2, (1,), (1, 1, 1, 2, 8)), (1, 5, 1, 1, (4, 1), (1, 8)), (2, 2, 1, 1, (1,), (1,) * 17),
])
def test_slices_side_by_side(rtl, pe, values, pass_words, neuron_fold, slice_weights, lanes, last):
    check(rtl, matrix_unit(pe, values * len(lanes), pass_words, neuron_fold, slice_weights, 3, last, values,
                           lanes=lanes))


@pytest.mark.parametrize("place_ends", [((0,), (0,)), ((0, 2, 3), (0, 3, 4)), ((1,), (1, 2))], ids=str)
@pytest.mark.parametrize(("pe", "values", "lanes", "mmv"), [
    (3, 5, (1,), 2), (1, 9, (1, 2), 3), (2, 20, (1, 2, 4), 4), (2, 1, (1,), 7)])
def test_several_vectors_at_once(rtl, pe, values, lanes, mmv, place_ends):
    n_beats = (place_ends[0][-1] + 1) * (place_ends[1][-1] + 1)
    n_beats = n_beats if n_beats > 1 else 3
    check(rtl, matrix_unit(pe, values * len(lanes), 1, 1, (1,), mmv * n_beats, False, mmv, "auto", place_ends, lanes,
                           mmv))


def place_of(vector, place_ends):
    """Place of a vector of one image: of its row and its column the first run that has not ended."""
    y, x = divmod(vector, place_ends[1][-1] + 1)
    row_run, column_run = (next(i for i, end in enumerate(ends) if at <= end)
                           for at, ends in zip((y, x), place_ends, strict=True))
    return row_run * len(place_ends[1]) + column_run


def check(rtl, made):
    unit, weights, thresholds = made
    slice_weights, lanes, mmv, n_vectors = unit.slice_weights, unit.lanes, unit.mmv, unit.n_vectors
    rng = np.random.default_rng(unit.pe)
    vectors = rng.integers(0, 2, (N_IMAGES * n_vectors, len(slice_weights), weights.shape[1], len(lanes)), np.uint8)
    # A vector that agrees with a row everywhere reaches the largest sum, its opposite none at all.
    vectors[0], vectors[-1] = weights[0][:, np.newaxis], 1 - weights[0][:, np.newaxis]
    sums = sums_of(weights, vectors, slice_weights, lanes)
    places = [place_of(vector // mmv, unit.place_ends) if thresholds.shape[0] > 1 else 0
              for vector in range(n_vectors)] * N_IMAGES
    thresholds = thresholds[places, list(range(mmv)) * (len(vectors) // mmv)]
    expected = bits_of(sums + thresholds, unit.score_width) if unit.last else (sums >= thresholds).astype(np.uint8)
    words = vectors.reshape(len(vectors), -1).repeat(unit.neuron_fold, axis=0).reshape(-1, unit.s_axis.width)
    np.testing.assert_array_equal(rtl(unit, words), expected.reshape(-1, unit.m_axis.width))
