"""Evaluation of a network on labelled images: accuracy and how sure it is, and which classes are taken for which."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from cbnn.model.compute import golden
from cbnn.model.files import decode_json, read_bounded, write_atomically
from cbnn.model.network import Network

BATCH = 256
"""Images between two calls of `progress`."""
SAVE_SECONDS = 1.0
"""Time between two savings of what was counted so far."""
MAX_COUNT, MAX_SECONDS = 1 << 48, 1e12
"""Bounds of what a file may claim, so that no sum overflows."""
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
    confusion : int64 array (classes, classes): images by their label (rows) and by the class found
        (columns)
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


class _State(NamedTuple):
    """What was counted, and the SHA-256 of the images counted: one object, so that an interruption finds both alike."""

    result: Evaluation
    images_sum: "hashlib._Hash"


def evaluate(network: Network, images: NDArray, labels: NDArray,
             progress: Callable[[Evaluation], None] = lambda done: None, partial: Path | None = None) -> Evaluation:
    """Classify labelled images, batch by batch, in their order.

    Parameters
    ----------
    images : integer array (N, height, width, colours); a memory map larger than memory will do
    labels : integer array (N,), 0 to classes - 1
    progress : called after every batch with what was counted so far, and with what is gone on with
    partial : file that keeps what was counted so far, at most a second and a batch late; where it
        is there, an earlier evaluation of the same network and images goes on

    Raises
    ------
    ValueError
        When images or labels do not suit the network or each other, or the file `partial` holds
        something else, or the evaluation of another network or of other images.
    """
    _check_labels(network, images, labels)
    state = _begun(network, images, labels, partial)
    n_saved, saved_at = state.result.n_images, time.monotonic()
    if n_saved:
        progress(state.result)
    try:
        for i in range(n_saved, len(images), BATCH):
            state = _counted(network, np.asarray(images[i : i + BATCH]), labels[i : i + BATCH], state)
            if partial and time.monotonic() - saved_at >= SAVE_SECONDS:
                _write(state, network, labels, partial)
                n_saved, saved_at = state.result.n_images, time.monotonic()
            progress(state.result)
    finally:
        if partial and state.result.n_images > n_saved:
            _write(state, network, labels, partial)
    return state.result


def _check_labels(network: Network, images: NDArray, labels: NDArray) -> None:
    golden.check_labels(labels, len(images))
    n_classes = network.topology.n_classes
    if not len(images):
        raise ValueError("no image given; at least one is needed")
    if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels are {labels.dtype}, {labels.min()} to {labels.max()}; the network has classes 0 to "
                         f"{n_classes - 1}")


def _counted(network: Network, images: NDArray, labels: NDArray, before: _State) -> _State:
    network.check_pixels(images)
    start = time.perf_counter()
    found = golden.classes(network, images)
    seconds = before.result.seconds + time.perf_counter() - start
    confusion, images_sum = before.result.confusion.copy(), before.images_sum.copy()
    np.add.at(confusion, (labels, found), 1)
    images_sum.update(images.tobytes())
    return _State(Evaluation(confusion, seconds), images_sum)


def _begun(network: Network, images: NDArray, labels: NDArray, partial: Path | None) -> _State:
    """Return what the file says was counted, if these images were; without a file, that nothing was."""
    n_classes = network.topology.n_classes
    images_sum = hashlib.sha256(repr((images.dtype.str, images.shape[1:])).encode())
    if partial is None or not partial.exists():
        return _State(Evaluation(np.zeros((n_classes, n_classes), np.int64), 0.0), images_sum)
    key, result = _read(partial, n_classes)
    if result.n_images <= len(images):
        for i in range(0, result.n_images, BATCH):
            images_sum.update(images[i : min(i + BATCH, result.n_images)].tobytes())
    state = _State(result, images_sum)
    if key != _key(state, network, labels):
        raise ValueError(f"{partial} holds the evaluation of another network or of other images; name another file")
    return state


def _key(state: _State, network: Network, labels: NDArray) -> str:
    """Fingerprint of all that the counts depend on: the network, and the images and labels that were counted."""
    key = hashlib.sha256(repr(network.topology).encode() + state.images_sum.digest())
    arrays: list[NDArray | None] = [labels[: state.result.n_images].astype(np.int64), network.pixel_table]
    for parameters in network.parameters:
        arrays += parameters.arrays.values()
    for array in arrays:
        key.update(b"none" if array is None else repr((array.dtype.str, array.shape)).encode() + array.tobytes())
    return key.hexdigest()


def _write(state: _State, network: Network, labels: NDArray, path: Path) -> None:
    content = {"key": _key(state, network, labels), "confusion": state.result.confusion.tolist(),
               "seconds": state.result.seconds}
    write_atomically(path, (json.dumps(content) + "\n").encode())


class _Partial(msgspec.Struct, forbid_unknown_fields=True):
    """What was counted so far, on disk."""

    key: str
    confusion: list[list[Annotated[int, Meta(ge=0, lt=MAX_COUNT)]]]
    seconds: Annotated[float, Meta(gt=0, lt=MAX_SECONDS)]


def _read(path: Path, n_classes: int) -> tuple[str, Evaluation]:
    """Key and counts of a file that `_write` wrote; raise ValueError where it is something else."""
    content = read_bounded(path, 4096 + 32 * n_classes**2)
    try:
        partial = decode_json(content, _Partial)
    except ValueError as error:
        raise ValueError(f"{path} holds no evaluation: {error}; name another file") from error
    if [len(row) for row in partial.confusion] != [n_classes] * n_classes or not any(map(any, partial.confusion)):
        raise ValueError(f"{path} holds no evaluation of a network of {n_classes} classes; name another file")
    return partial.key, Evaluation(np.array(partial.confusion, np.int64), partial.seconds)
