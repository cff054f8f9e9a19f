"""A network: its shapes and its parameters, integers and bits only."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbnn.model.slices import check_images
from cbnn.model.topology import Conv, LayerShape, Topology


@dataclass(frozen=True, eq=False)
class Parameters:
    """What one layer learnt.

    Attributes
    ----------
    weights : uint8 array of 0 (-1) and 1 (+1), shape (mh, mw); columns in window order
        (row, column, channel; at a sliced first layer the slice is outermost, MSB first)
    thresholds : int64 array, shape (mh,): the output bit is ``accumulator >= threshold``, for a threshold of
        0 to max_accumulator + 1; or (places, mh), one for each of `LayerShape.places`, where padding is to count
        something else than the bit it carries, as zero would. None at the last layer.
    offsets : int64 array, shape (mh,): added to the popcount to give the score. None but at the last layer.
    invert : bool array, shape (mh,): rows whose bit is inverted behind max pooling, where batch norm's scale
        is negative. None where the layer does not pool.
    """

    weights: NDArray[np.uint8]
    thresholds: NDArray[np.int64] | None = None
    offsets: NDArray[np.int64] | None = None
    invert: NDArray[np.bool_] | None = None


MAX_TABLE = 1 << 16
"""Largest number of entries of a pixel lookup table."""
OFFSET_LIMIT = 1 << 30
"""Largest magnitude of a class offset, so that scores stay far inside 32 bits."""


@dataclass(frozen=True, eq=False)
class Network:
    """A topology and the parameters of each of its layers; checks itself, and its arrays cannot be written.

    Attributes
    ----------
    pixel_table : int64 array, the pixel lookup table: ``pixel_table[v]`` is what is sliced where a
        pixel is v; None where pixels are sliced as they are
    max_pixel : the highest pixel value that the network was trained on, which stands for white: 16
        of the digits, whose pixels have 5 bits. 0 asks for the highest value that a pixel can
        have, and is replaced by it. The arithmetic is defined for all values that a pixel can have.

    Raises
    ------
    ValueError
        When an array's presence, dtype, shape or range does not suit its layer.
    """

    topology: Topology
    parameters: tuple[Parameters, ...]
    pixel_table: NDArray[np.int64] | None = None
    max_pixel: int = 0

    def __post_init__(self) -> None:
        shapes = self.topology.shapes
        if len(self.parameters) != len(shapes):
            raise ValueError(f"parameters of {len(self.parameters)} layers given; the topology has {len(shapes)}")
        for i, (shape, parameters) in enumerate(zip(shapes, self.parameters, strict=True)):
            _check_layer(i, shape, parameters, last=i == len(shapes) - 1)
        if self.pixel_table is not None:
            _check_table(self.pixel_table, (1 << self.topology.input_bits) - 1)
        highest = self.n_pixel_values - 1
        if type(self.max_pixel) is not int or not 0 <= self.max_pixel <= highest:
            raise ValueError(f"max_pixel is {self.max_pixel!r}; it must be a whole number, 1 to {highest}")
        object.__setattr__(self, "max_pixel", self.max_pixel or highest)

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

        All that takes a network and images calls this itself, once, since to look a pixel up twice is as wrong as
        not at all.

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

        For images that come from users: with such pixels they are on another scale than the network was trained on,
        and their scores would mean nothing. Golden model and hardware take all that fits the bits.
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
    table.setflags(write=False)


def _check_layer(i: int, shape: LayerShape, parameters: Parameters, last: bool) -> None:
    pooled = isinstance(shape.layer, Conv) and shape.layer.pool > 1
    rows = (shape.mh,)
    _check(i, "weights", parameters.weights, True, (shape.mh, shape.mw), np.uint8, 0, 1)
    by_place = parameters.thresholds is not None and parameters.thresholds.ndim == 2 and shape.n_places > 1
    _check(i, "thresholds", parameters.thresholds, not last, (shape.n_places, shape.mh) if by_place else rows, np.int64,
           0, shape.max_accumulator + 1)
    _check(i, "offsets", parameters.offsets, last, rows, np.int64, -OFFSET_LIMIT, OFFSET_LIMIT)
    _check(i, "invert", parameters.invert, pooled, rows, np.bool_, 0, 1)


def _check(i: int, name: str, array: NDArray | None, wanted: bool, shape: tuple[int, ...], dtype: type,
           low: int, high: int) -> None:
    if array is None or not wanted:
        if wanted or array is not None:
            raise ValueError(f"layer {i} {'lacks' if wanted else 'must not have'} {name}")
        return
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} of layer {i} are {array.dtype} {array.shape}; "
                         f"they must be {np.dtype(dtype)} {shape}")
    if array.min() < low or array.max() > high:
        raise ValueError(f"{name} of layer {i} span {array.min()} to {array.max()}; the range is {low} to {high}")
    array.setflags(write=False)


def random_network(topology: Topology, seed: int, by_place: bool = False) -> Network:
    """Return a network with random weights and thresholds near the middle, for measuring hardware without training.

    Rows of pooled layers are inverted at random, so that polarity is exercised too; thresholds differ `by_place`.
    """
    rng = np.random.default_rng(seed)

    def layers() -> Iterable[Parameters]:
        for i, shape in enumerate(topology.shapes):
            weights = rng.integers(0, 2, (shape.mh, shape.mw), np.uint8)
            if i == len(topology.layers) - 1:
                yield Parameters(weights, offsets=rng.integers(-shape.mw, shape.mw + 1, shape.mh))
                continue
            pooled = isinstance(shape.layer, Conv) and shape.layer.pool > 1
            spread = max(1, round(shape.max_accumulator**0.5 / 2))
            middle = (shape.max_accumulator + 1) // 2
            size = (shape.n_places, shape.mh) if by_place and shape.n_places > 1 else shape.mh
            thresholds = np.clip(middle + rng.integers(-spread, spread + 1, size), 0, shape.max_accumulator + 1)
            yield Parameters(weights, thresholds, invert=rng.random(shape.mh) < 0.25 if pooled else None)

    return Network(topology, tuple(layers()))


def prune_slices(network: Network, kept_slices: tuple[int, ...]) -> Network:
    """Drop slices from a trained network without retraining it.

    A pruned input is taken for an unbiased random bit, which adds half of what it counts to every accumulator. The
    thresholds fall by that much, clipped to their range; class offsets stay, since all scores fall alike. Where the
    lowest slices of a weighted first layer go, its accumulator counts in larger units, and thresholds (rounded up,
    so exact) and offsets (rounded down) are divided by them.

    Raises
    ------
    ValueError
        When no slice is to be kept, or one that the network does not have.
    """
    old, new = network.topology, network.topology.keep(kept_slices)
    if missing := set(kept_slices) - set(old.kept_slices):
        raise ValueError(f"slice {min(missing)} is not in the network, which keeps {list(old.kept_slices)}")
    first, shape = network.parameters[0], new.shapes[0]
    weights = first.weights
    if old.first_layer == "sliced":
        kept = [old.kept_slices.index(b) for b in kept_slices]
        weights = weights.reshape(shape.mh, len(old.kept_slices), -1)[:, kept].reshape(shape.mh, shape.mw)
    lost = [w for b, w in zip(old.kept_slices, old.slice_weights, strict=True) if b not in kept_slices]
    # One count of the new accumulator is `unit` of the old one (2**gap where low weighted slices went).
    unit = 1 if old.first_layer == "sliced" else 1 << (kept_slices[-1] - old.kept_slices[-1])
    half = shape.slice_inputs * sum(lost) // 2

    thresholds, offsets = first.thresholds, first.offsets
    if thresholds is not None:
        thresholds = np.clip(-((half - thresholds) // unit), 0, shape.max_accumulator + 1)
    if offsets is not None:
        offsets = offsets // unit
    pruned = Parameters(np.ascontiguousarray(weights), thresholds, offsets, first.invert)
    return Network(new, (pruned, *network.parameters[1:]), network.pixel_table, network.max_pixel)
