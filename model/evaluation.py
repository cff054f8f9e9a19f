"""Evaluation of a network on labelled images: accuracy and how sure it is, and which classes are taken for which."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbnn.model import golden
from cbnn.model.files import read_bounded, write_atomically
from cbnn.model.network import Network

BATCH = 256
"""Images between two calls of `progress`; those after an interruption are counted again."""
Z = 1.959964
"""Standard deviations of a normal distribution that 95 % of it lie within."""


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and sample standard deviation: 0 for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


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
             progress: Callable[[Evaluation], None] = lambda done: None, begun: Evaluation | None = None) -> Evaluation:
    """Classify labelled images, batch by batch, in their order.

    Parameters
    ----------
    images : integer array (N, height, width, colours), not coded yet; a memory map larger than memory will do
    labels : integer array (N,), 0 to classes - 1
    progress : called behind every batch with what was counted so far
    begun : what an earlier call counted of the same images before it was interrupted; they are not looked at again

    Raises
    ------
    ValueError
        When images or labels do not suit the network or each other, or `begun` counted more images than there are.
    """
    golden.check_labels(labels, len(images))
    n_classes = network.topology.n_classes
    if not len(images):
        raise ValueError("no image given; at least one is needed")
    if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels are {labels.dtype}, {labels.min()} to {labels.max()}; the network has classes 0 to "
                         f"{n_classes - 1}")
    result = begun or Evaluation(np.zeros((n_classes, n_classes), np.int64), 0.0)
    counted = np.bincount(labels[: result.n_images], minlength=n_classes)
    if result.n_images > len(images) or result.confusion.sum(axis=1).tolist() != counted.tolist():
        raise ValueError(f"the evaluation to go on with is not of these images: it counted {result.n_images} others")
    for i in range(result.n_images, len(images), BATCH):
        start = time.perf_counter()
        found = golden.classes(network, network.coded(np.asarray(images[i : i + BATCH])))
        seconds = time.perf_counter() - start
        confusion = result.confusion.copy()
        np.add.at(confusion, (labels[i : i + BATCH], found), 1)
        result = Evaluation(confusion, result.seconds + seconds)
        progress(result)
    return result


def write_partial(result: Evaluation, key: str, path: Path) -> None:
    """Write what was counted so far, with a `key` that says of what."""
    content = {"key": key, "confusion": result.confusion.tolist(), "seconds": result.seconds}
    write_atomically(path, (json.dumps(content) + "\n").encode())


def read_partial(key: str, path: Path) -> Evaluation | None:
    """Read what `write_partial` wrote; None where there is no file.

    Raises
    ------
    ValueError
        When the file holds something else, or the evaluation of something else.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(read_bounded(path, 1 << 20))
        found, seconds = content["key"], float(content["seconds"])
        confusion = np.array(content["confusion"], np.int64)
        if confusion.ndim != 2 or len(set(confusion.shape)) != 1 or confusion.min() < 0 or seconds < 0:
            raise ValueError("its counts are not a square of numbers")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} holds no evaluation: {error}") from error
    if found != key:
        raise ValueError(f"{path} holds the evaluation of another network or of other images; name another file")
    return Evaluation(confusion, seconds)
