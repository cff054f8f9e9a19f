"""Evaluation of a network on labelled images: accuracy and how sure it is, and which classes are taken for which."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from cbnn.model import golden
from cbnn.model.network import Network

BATCH = 256
"""Images between two calls of `progress`."""
Z = 1.959964
"""Standard deviations of a normal distribution that 95 % of it lie within."""


@dataclass(frozen=True)
class Evaluation:
    """What was counted.

    Attributes
    ----------
    confusion : int64 array (classes, classes): images by their label (rows) and by the class found (columns)
    seconds : time that the golden model took
    """

    confusion: NDArray[np.int64]
    seconds: float

    @property
    def n_images(self) -> int:
        """Images evaluated."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of images whose class is their label."""
        return float(np.trace(self.confusion) / self.n_images)

    @property
    def confidence(self) -> tuple[float, float]:
        """Interval of 95 % for the accuracy on further images (Wilson, JASA 22, 1927)."""
        n, p = self.n_images, self.accuracy
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2)
        return max(0.0, middle - half), min(1.0, middle + half)


def evaluate(network: Network, images: NDArray, labels: NDArray,
             progress: Callable[[int, int], None] = lambda done, total: None) -> Evaluation:
    """Classify labelled images, batch by batch.

    Parameters
    ----------
    images : integer array (N, height, width, colours); a memory map will do
    labels : integer array (N,), 0 to classes - 1
    progress : called with the images done and all of them

    Raises
    ------
    ValueError
        When images or labels do not suit the network or each other.
    """
    golden.check_labels(labels, len(images))
    n_classes = network.topology.n_classes
    if not len(images):
        raise ValueError("no image given; at least one is needed")
    if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels are {labels.dtype}, {labels.min()} to {labels.max()}; the network has classes 0 to "
                         f"{n_classes - 1}")
    confusion, seconds = np.zeros((n_classes, n_classes), np.int64), 0.0
    for i in range(0, len(images), BATCH):
        progress(i, len(images))
        start = time.perf_counter()
        found = golden.classes(network, np.asarray(images[i : i + BATCH]))
        seconds += time.perf_counter() - start
        np.add.at(confusion, (labels[i : i + BATCH], found), 1)
    progress(len(images), len(images))
    return Evaluation(confusion, seconds)
