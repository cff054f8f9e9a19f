"""Scores and class: the first of the highest scores found."""

import numpy as np
import pytest

from cbnn.hw.classify import Classify
from cbnn.hw.stream import Port

N_IMAGES = 4


def lanes(values, width):
    """Two's complement lanes of whole bytes, as bits."""
    return (values[..., np.newaxis] >> np.arange(width) & 1).astype(np.uint8)


CASES = pytest.mark.parametrize(("pe", "maximum", "offsets", "score_bits"), [
    (1, 5, (0,), 8),
    (1, 9, (3, -4, 0, 2), 8),
    (1, 1, (0, 0, 1), 8),
    (2, 100, (0, 30, -5, 7, 1, 1), 16),
    (3, 6, (-3, -3, -3, -9, 2, 2), 8),
    (5, 40, (0,) * 10, 8),
    (5, 255, (-300, 20, 44, -128, 3, 9, -1, 0, 0, 5), 16),
    (10, 12, (5, -5, 5, -5, 0, 0, 1, 2, 3, 4), 8),
    (4, 3, (-20, -19, -18, -17), 8),
    (3, 7, (1 << 20, 0, -(1 << 20)), 24),
    pytest.param(26, 9, (0,) * 130, 8, id="classes of two bytes"),
], ids=str)


def unit_and_scores(pe, maximum, offsets, class_only=False):
    """Give a kernel, scores, and the beats that enter it."""
    unit = Classify("unit", pe, min(offsets), maximum + max(offsets), len(offsets), class_only)
    rng = np.random.default_rng(pe)
    sums = rng.integers(0, maximum + 1, (N_IMAGES, len(offsets)))
    sums[0], sums[1] = 0, maximum
    # All scores equal as far as the sums allow: ties.
    sums[2] = np.clip(max(offsets) - np.array(offsets), 0, maximum)
    scores = sums + np.array(offsets)
    lifted = scores + (1 << unit.width - 1)
    return unit, scores, lanes(lifted, unit.width).reshape(-1, unit.s_axis.width)


@CASES
def test_equals_the_scores_and_the_first_highest(rtl, pe, maximum, offsets, score_bits):
    unit, scores, beats = unit_and_scores(pe, maximum, offsets)
    assert (unit.lane, unit.class_lane) == (score_bits, 16 if len(offsets) > 128 else 8)
    best = [[row[: i + pe].argmax() for i in range(0, len(offsets), pe)] for row in scores]
    expected = np.concatenate([lanes(scores.reshape(-1, pe), score_bits).reshape(-1, pe * score_bits),
                               lanes(np.array(best).reshape(-1), unit.class_lane)], axis=1)
    np.testing.assert_array_equal(rtl(unit, beats), expected)


@CASES
def test_class_only_is_one_beat_when_the_last_would_leave(rtl, pe, maximum, offsets, score_bits):
    unit, scores, beats = unit_and_scores(pe, maximum, offsets, class_only=True)
    assert unit.m_axis == Port(16 if len(offsets) > 128 else 8, 1)
    assert unit.latency_cycles == unit_and_scores(pe, maximum, offsets)[0].latency_cycles
    np.testing.assert_array_equal(rtl(unit, beats), lanes(scores.argmax(axis=1), unit.class_lane))
