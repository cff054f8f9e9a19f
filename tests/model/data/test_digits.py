"""The digits, always the same."""

import hashlib

import numpy as np

from cbnn.model.data import digits
from cbnn.model.slices import bit_slices, check_images


def test_sizes_and_values() -> None:
    data = digits.load()
    assert data.train_images.shape == (1257, 8, 8, 1)
    assert data.test_images.shape == (540, 8, 8, 1)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert labels.shape == (len(images),)
        assert set(np.unique(images).tolist()) == set(range(17))
        check_images(images, digits.IN_SHAPE, digits.INPUT_BITS)


def test_stratified() -> None:
    data = digits.load()
    train, test = np.bincount(data.train_labels, minlength=10), np.bincount(data.test_labels, minlength=10)
    assert np.abs(test - digits.TEST_FRACTION * (train + test)).max() < 1


def test_five_slices_all_in_use() -> None:
    slices = bit_slices(digits.load().train_images, (4, 3, 2, 1, 0))
    assert (slices.min(axis=(0, 2, 3, 4)) == 0).all()
    assert (slices.max(axis=(0, 2, 3, 4)) == 1).all()


def test_split_is_whole() -> None:
    from sklearn.datasets import load_digits
    data, (pixels, labels) = digits.load(), load_digits(return_X_y=True)

    def counted(images: np.ndarray, classes: np.ndarray) -> list[tuple[bytes, int]]:
        return sorted((i.astype(np.uint8).tobytes(), int(c)) for i, c in zip(images, classes, strict=True))

    ours = np.concatenate([data.train_images, data.test_images]), np.concatenate([data.train_labels, data.test_labels])
    assert counted(*ours) == counted(pixels, labels)


def test_always_the_same() -> None:
    first, second = digits.load(), digits.load()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    digest = hashlib.sha256(first.test_images.tobytes() + first.test_labels.astype("<i8").tobytes()).hexdigest()
    assert digest == "3f68e61685b907d9a84aaf3cda965c735a62bc798b1b0f743d677581dd75537a"
