"""Bit-level sensitivity: how much accuracy each slice of the input carries.

A slice is replaced by uniform random bits, in all colours at once, at run time, without retraining;
the less accuracy falls, the less the slice carries (arXiv 1802.00904). Beside that, slices are set
to 0, and slices of a single colour are randomised.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cbnn.model.compute import golden
from cbnn.model.compute.evaluation import mean_and_spread
from cbnn.model.network import Network
from cbnn.model.topology import Topology

Mode = Literal["single", "cumulative", "zeroed", "zeroed cumulative", "colour"]
MODES = get_args(Mode)


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy with some slices replaced.

    Attributes
    ----------
    mode : "single" (one slice randomised), "cumulative" (this slice and all kept ones below it),
        "zeroed" and "zeroed cumulative" (likewise, but set to 0), or "colour" (one slice of one
        colour randomised)
    slice : the slice's number
    accuracies : fraction right in each repetition; zeros need none
    colour : its number; None where all colours are replaced at once
    """

    mode: Mode
    slice: int
    accuracies: tuple[float, ...]
    colour: int | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over the repetitions."""
        return mean_and_spread(self.accuracies)[0]

    @property
    def spread(self) -> float:
        """Sample standard deviation over the repetitions; 0 for a single one."""
        return mean_and_spread(self.accuracies)[1]


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
    """Measure every mode in turn, every kept slice from the lowest; yields as it goes, see `n_steps`.

    Slices are those of the values that the pixel lookup table gives, where the network has one.

    Raises
    ------
    ValueError
        When images, labels, repetitions or seed do not suit; at the call, not at the first result.
    """
    images, network = network.look_up(images), network.without_table
    golden.check_labels(labels, len(images))
    if repetitions < 1:
        raise ValueError(f"{repetitions} repetitions asked for; at least 1 is needed")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be at least 0")
    rising = tuple(sorted(network.topology.kept_slices))

    def randomised(mode: Mode, slices: tuple[int, ...], colour: int | None = None) -> Sensitivity:
        rng = np.random.default_rng([seed, MODES.index(mode), slices[-1], colour or 0])
        runs = (randomise(images, slices, rng) for _ in range(repetitions))
        if colour is not None:
            runs = (_colour_of(images, run, colour) for run in runs)
        return Sensitivity(mode, slices[-1], tuple(golden.accuracy(network, run, labels) for run in runs), colour)

    def zeroed(mode: Mode, slices: tuple[int, ...]) -> Sensitivity:
        mask = np.asarray(sum(1 << b for b in slices)).astype(images.dtype)
        return Sensitivity(mode, slices[-1], (golden.accuracy(network, images & ~mask, labels),))

    up_to = [rising[: i + 1] for i in range(len(rising))]
    return chain((randomised("single", (b,)) for b in rising), (randomised("cumulative", slices) for slices in up_to),
                 (zeroed("zeroed", (b,)) for b in rising), (zeroed("zeroed cumulative", slices) for slices in up_to),
                 (randomised("colour", (b,), colour) for b in rising for colour in _colours(network.topology)))


def n_steps(topology: Topology) -> int:
    """Results that `sensitivity` yields."""
    return len(topology.kept_slices) * (4 + len(_colours(topology)))


def pruning_order(results: Iterable[Sensitivity], kept_slices: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Kept slices of every level of pruning, all first: the slice that carries least by itself goes next.

    Of slices that carry alike the lower one goes first.

    Examples
    --------
    >>> pruning_order([Sensitivity("single", b, (a,)) for b, a in enumerate((0.9, 0.2, 0.4))], (2, 1, 0))
    [(2, 1, 0), (2, 1), (1,)]
    """
    means = {result.slice: result.mean for result in results if result.mode == "single"}
    order = sorted(kept_slices, key=lambda b: (-means[b], b))
    return [tuple(b for b in kept_slices if b not in order[:n]) for n in range(len(order))]


def _colours(topology: Topology) -> range:
    return range(topology.in_shape[2] if topology.in_shape[2] > 1 else 0)


def _colour_of(images: NDArray, noisy: NDArray, colour: int) -> NDArray:
    mixed = images.astype(noisy.dtype)
    mixed[..., colour] = noisy[..., colour]
    return mixed
