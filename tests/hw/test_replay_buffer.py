"""Replay buffer: gives every vector as often as there are folds, at every depth."""

import numpy as np
import pytest

from cbnn.hw.replay_buffer import ReplayBuffer

N_IMAGES = 3


@pytest.mark.parametrize(("width", "depth", "vector", "folds", "n_vectors"), [
    (3, 1, 1, 2, 1), (8, 2, 1, 3, 4), (4, 1, 2, 2, 3), (1, 2, 2, 5, 2), (5, 3, 4, 2, 3), (8, 8, 8, 8, 1),
    (6, 2, 13, 2, 2), (9, 5, 3, 4, 2), (4, 1, 7, 3, 1),
])
def test_gives_every_vector_once_per_fold(rtl, width, depth, vector, folds, n_vectors):
    vectors = np.random.default_rng(depth).integers(0, 2, (N_IMAGES * n_vectors, vector, width), np.uint8)
    unit = ReplayBuffer("unit", width, depth, n_vectors * vector, vector, folds)
    np.testing.assert_array_equal(rtl(unit, vectors.reshape(-1, width)),
                                  vectors.repeat(folds, axis=0).reshape(-1, width))
