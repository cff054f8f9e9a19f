"""A network: its shapes and its parameters, integers and bits only."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbnn.model.checks import check_kind, check_range, check_tuple
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import PoolParameters, PoolShape
from cbnn.model.operators.operator import OperatorShape, Parameters, own_array
from cbnn.model.slices import check_images
from cbnn.model.topology import INPUT, Topology

MAX_BOUND = 1e300
"""Of features and their ranges; twice as much is still a number."""
MAX_TABLE = 1 << 16
"""Largest number of entries of a pixel lookup table."""


class Origin(NamedTuple):
    """The data that a network was trained on, where they are somebody's own.

    Attributes
    ----------
    data : where they were, an absolute path
    name : of the set, see `cbnn.model.data.own`
    class_names : of all classes
    ranges : lowest and highest value of each feature, which pixels 0 and 255 stand for; empty where
        pixels are what the data hold
    """

    data: str
    name: str
    class_names: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Network:
    """A topology and the parameters of each of its nodes; checks itself, and its arrays cannot be written.

    Attributes
    ----------
    pixel_table : int64 array, the pixel lookup table: ``pixel_table[v]`` is what is sliced where a
        pixel is v; None where pixels are sliced as they are
    max_pixel : the highest pixel value that the network was trained on, which stands for white: 16
        of the digits, whose pixels have 5 bits. 0 asks for the highest value that a pixel can
        have, and is replaced by it. The arithmetic is defined for all values that a pixel can have.
    origin : the data that it was trained on; None where they are no one's own

    Raises
    ------
    ValueError
        When something is of another type, or an array's presence, dtype, shape or range does not
        suit its node.
    """

    topology: Topology
    parameters: tuple[Parameters, ...]
    pixel_table: NDArray[np.int64] | None = None
    max_pixel: int = 0
    origin: Origin | None = None

    def __post_init__(self) -> None:
        check_kind("topology", self.topology, Topology)
        check_tuple("parameters", self.parameters, Parameters)
        topology = self.topology
        if len(self.parameters) != len(topology.nodes):
            raise ValueError(f"parameters of {len(self.parameters)} operators given; the topology has "
                             f"{len(topology.nodes)}")
        for name, shape, parameters in zip(topology.names, topology.shapes, self.parameters, strict=True):
            try:
                shape.check(parameters)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if self.pixel_table is not None:
            check_kind("pixel lookup table", self.pixel_table, np.ndarray)
            _check_table(self.pixel_table, (1 << self.topology.input_bits) - 1)
            object.__setattr__(self, "pixel_table", own_array(self.pixel_table))
        highest = self.n_pixel_values - 1
        check_range("max_pixel", self.max_pixel, 0, highest)
        object.__setattr__(self, "max_pixel", self.max_pixel or highest)
        if self.origin is not None:
            _check_origin(self.origin, topology)

    @property
    def layers(self) -> tuple[MatrixParameters, ...]:
        """Parameters of the matrix operators only, in order."""
        return tuple(parameters for parameters in self.parameters if isinstance(parameters, MatrixParameters))

    @property
    def n_pixel_values(self) -> int:
        """Number of values that a pixel can have: 0 to one less."""
        return 1 << self.topology.input_bits if self.pixel_table is None else len(self.pixel_table)

    @property
    def pixel_bits(self) -> int:
        """Bits of a pixel, before the pixel lookup table."""
        return (self.n_pixel_values - 1).bit_length()

    @property
    def without_table(self) -> "Network":
        """The same network without its pixel lookup table: its pixels are what `look_up` returns."""
        return Network(self.topology, self.parameters)

    def look_up(self, images: NDArray) -> NDArray:
        """Return the values that are sliced: the table's, or the pixels themselves where there is none.

        All that takes a network and images calls this itself, once, since to look a pixel up twice
        is as wrong as not at all.

        Raises
        ------
        ValueError
            When the images' shape, dtype or range is not the network's.
        """
        check_images(images, self.topology.in_shape, self.pixel_bits)
        if self.pixel_table is None:
            return images
        if (highest := int(images.max())) >= len(self.pixel_table):
            raise ValueError(f"a pixel is {highest}; the network's pixel lookup table holds 0 to "
                             f"{len(self.pixel_table) - 1}")
        return self.pixel_table.astype(np.uint16)[images]

    def check_pixels(self, images: NDArray) -> None:
        """Raise ValueError unless the images suit the network and no pixel is above `max_pixel`.

        For images that come from users: with such pixels they are on another scale than the network
        was trained on, and their scores would mean nothing. Golden model and hardware take all that
        fits the bits.
        """
        check_images(images, self.topology.in_shape, self.pixel_bits)
        if (highest := int(images.max())) > self.max_pixel:
            raise ValueError(f"a pixel is {highest}; the network was trained on pixels of 0 to {self.max_pixel}")


def _check_table(table: NDArray, highest: int) -> None:
    if table.ndim != 1 or table.dtype != np.int64 or not 2 <= len(table) <= MAX_TABLE:
        raise ValueError(f"the pixel lookup table is {table.dtype} {table.shape}; it must be int64 and hold 2 to "
                         f"{MAX_TABLE} values")
    if table.min() < 0 or table.max() > highest:
        raise ValueError(f"the pixel lookup table spans {table.min()} to {table.max()}; sliced values span 0 to "
                         f"{highest}")


def _check_origin(origin: Origin, topology: Topology) -> None:
    if len(origin.class_names) != topology.n_classes:
        raise ValueError(f"{len(origin.class_names)} class names given; the network has {topology.n_classes} classes")
    if not PurePath(origin.data).is_absolute():
        raise ValueError(f"the data are said to be in {origin.data[:80]!r}, which is no absolute path")
    if not all(abs(bound) <= MAX_BOUND for bounds in origin.ranges for bound in bounds):
        raise ValueError(f"a range of a feature goes beyond {MAX_BOUND:g}")
    if origin.ranges and len(origin.ranges) != topology.tensor.n_values:
        raise ValueError(f"{len(origin.ranges)} ranges given; the network takes {topology.tensor.n_values} features")


def random_network(topology: Topology, seed: int, by_place: bool = False) -> Network:
    """Return a network with random weights and thresholds near the middle, for measuring hardware without training.

    Rows of pooled layers are inverted at random, so that polarity is exercised too; thresholds
    differ `by_place`.
    """
    rng = np.random.default_rng(seed)

    def drawn(shape: OperatorShape) -> Parameters:
        if isinstance(shape, PoolShape):
            return PoolParameters(rng.random(shape.in_shape[2]) < 0.25)
        assert isinstance(shape, MatrixShape)
        weights = rng.integers(0, 2, (shape.mh, shape.mw), np.uint8)
        if shape.operator.scores:
            return MatrixParameters(weights, offsets=rng.integers(-shape.mw, shape.mw + 1, shape.mh))
        spread = max(1, round(shape.max_accumulator**0.5 / 2))
        middle = (shape.max_accumulator + 1) // 2
        size = (shape.n_places, shape.mh) if by_place and shape.n_places > 1 else shape.mh
        thresholds = np.clip(middle + rng.integers(-spread, spread + 1, size), 0, shape.max_accumulator + 1)
        return MatrixParameters(weights, thresholds)

    return Network(topology, tuple(map(drawn, topology.shapes)))


def prune_slices(network: Network, kept_slices: tuple[int, ...]) -> Network:
    """Drop slices from a trained network without retraining it.

    A pruned input is taken for an unbiased random bit, which adds half of what it counts to every
    accumulator. The thresholds fall by that much, clipped to their range; class offsets stay, since
    all scores fall alike. Where the lowest slices of a weighted first layer go, its accumulator
    counts in larger units, and thresholds (rounded up, so exact) and offsets (rounded down) are
    divided by them.

    Raises
    ------
    ValueError
        When no slice is to be kept, or one that the network does not have.
    """
    old, new = network.topology, network.topology.keep(kept_slices)
    if missing := set(kept_slices) - set(old.kept_slices):
        raise ValueError(f"slice {min(missing)} is not in the network, which keeps {list(old.kept_slices)}")
    at = new.taker(INPUT)
    first, shape = network.parameters[at], new.shapes[at]
    assert isinstance(first, MatrixParameters)
    assert isinstance(shape, MatrixShape)
    kept = [old.kept_slices.index(b) for b in kept_slices]
    weights = first.weights
    if not old.tensor.shared:
        by_slice = weights.reshape(shape.mh, len(old.kept_slices), -1)
        weights = np.ascontiguousarray(by_slice[:, kept].reshape(shape.mh, shape.mw))
    counts = old.tensor.slices
    # One count of the new accumulator is `unit` of the old one, 2**gap where low slices went that count 2**b.
    unit = counts[kept[-1]]
    half = shape.slice_inputs * (sum(counts) - sum(counts[i] for i in kept)) // 2

    thresholds, offsets = first.thresholds, first.offsets
    if thresholds is not None:
        thresholds = np.clip(-((half - thresholds) // unit), 0, shape.max_accumulator + 1)
    if offsets is not None:
        offsets = offsets // unit
    parameters = list(network.parameters)
    parameters[at] = MatrixParameters(weights, thresholds, offsets)
    return Network(new, tuple(parameters), network.pixel_table, network.max_pixel, network.origin)
