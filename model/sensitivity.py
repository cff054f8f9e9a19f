"""Bit-level sensitivity: how much accuracy each slice of the input carries.

A slice is replaced by uniform random bits, in all colours at once, at run time, without retraining; the less
accuracy falls, the less the slice carries (arXiv 1802.00904).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cbnn.model import golden
from cbnn.model.network import Network
from cbnn.model.slices import check_images


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy with some slices randomised.

    Attributes
    ----------
    mode : "single" (one slice randomised) or "cumulative" (this slice and all kept ones below it)
    slice : the slice's number
    accuracies : fraction right in each repetition
    """

    mode: Literal["single", "cumulative"]
    slice: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over the repetitions."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Sample standard deviation over the repetitions; 0 for a single one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def randomise(images: NDArray, slices: tuple[int, ...], rng: np.random.Generator) -> NDArray:
    """Return `images` with these slices of every pixel and colour replaced by random bits; the others stay.

    Examples
    --------
    >>> import numpy as np
    >>> noisy = randomise(np.full((1, 40, 40, 1), 8), (1,), np.random.default_rng(0))
    >>> sorted(set(noisy.ravel().tolist())), 0.45 < (noisy == 8).mean() < 0.55
    ([8, 10], np.True_)
    """
    mask = sum(1 << b for b in slices)
    dtype = np.promote_types(images.dtype, np.min_scalar_type(mask))
    noise = rng.integers(0, 1 << mask.bit_length(), images.shape, dtype)
    return (images.astype(dtype) & ~np.asarray(mask, dtype)) | (noise & mask)


def sensitivity(network: Network, images: NDArray, labels: NDArray, repetitions: int = 5,
                seed: int = 0) -> Iterator[Sensitivity]:
    """Measure every kept slice by itself, then the slices cumulatively from the lowest; yields as it goes.

    Raises
    ------
    ValueError
        When images, labels, repetitions or seed do not suit; at the call, not at the first result.
    """
    check_images(images, network.topology.in_shape, network.topology.input_bits)
    golden.check_labels(labels, len(images))
    if repetitions < 1:
        raise ValueError(f"{repetitions} repetitions asked for; at least 1 is needed")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be at least 0")
    rising = tuple(sorted(network.topology.kept_slices))

    def measure(mode: Literal["single", "cumulative"], slices: tuple[int, ...]) -> Sensitivity:
        rng = np.random.default_rng([seed, mode == "cumulative", slices[-1]])
        runs = (randomise(images, slices, rng) for _ in range(repetitions))
        return Sensitivity(mode, slices[-1], tuple(golden.accuracy(network, run, labels) for run in runs))

    return chain((measure("single", (b,)) for b in rising),
                 (measure("cumulative", rising[: i + 1]) for i in range(len(rising))))
