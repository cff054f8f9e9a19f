"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, values 0 to 16, in five bit slices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IN_SHAPE = (8, 8, 1)
INPUT_BITS = 5
MAX_PIXEL = 16
KEPT_SLICES = {5: (4, 3, 2, 1, 0), 4: (4, 3, 2, 1), 3: (4, 3, 2), 2: (4, 3), 1: (3,)}
"""Slices of every pruning level. Of one slice it is not the MSB: bit 4 is set only in pixels of exactly 16."""
TEST_FRACTION = 0.3
SPLIT_SEED = 0


class Data(NamedTuple):
    """Images uint8 (N, height, width, colours), labels int64 (N,); `note` says where they are not the original."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    note: str = ""


def load() -> Data:
    """Return the digits, split 70 to 30, stratified, always alike: 1,257 to train and 540 to test."""
    # Imported here since it takes half a second, which only users of the digits should pay.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, *IN_SHAPE)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_FRACTION, random_state=SPLIT_SEED, stratify=labels)
    return Data(train_images, train_labels, test_images, test_labels)
