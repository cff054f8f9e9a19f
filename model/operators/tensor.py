"""What flows between operators: a raster of values, each of a bit per slice."""

from dataclasses import dataclass
from itertools import pairwise

from cbnn.model.checks import check_kind, check_tuple

Shape = tuple[int, int, int]
"""Height, width, channels."""

MAX_SIDE = 1 << 20
"""Largest height, width, number of channels, number of rows of a matrix, stride and pool."""
MAX_VALUES = 1 << 26
"""Most values of a tensor."""


@dataclass(frozen=True)
class Tensor:
    """Shape and slices of what an operator takes or gives.

    Attributes
    ----------
    shape : (height, width, channels)
    slices : what a set bit of each slice counts; a binary activation has one that counts 1
    shared : whether all slices of a channel share one weight; they count powers of two, the most
        first, down to 1: the bits of a number, or a thermometer code (1, 1, 1). Else each slice has
        weights of its own and counts 1, as if it were a further channel (CBNN)

    Raises
    ------
    ValueError
        When the shape is none, there is no slice, or slices count otherwise.
    """

    shape: Shape
    slices: tuple[int, ...] = (1,)
    shared: bool = True

    def __post_init__(self) -> None:
        check_shape("shape of a tensor", self.shape, MAX_VALUES)
        check_tuple("slices", self.slices, int)
        check_kind("shared", self.shared, bool)
        falling = all(high >= low for high, low in pairwise(self.slices))
        powers = all(n > 0 and n & (n - 1) == 0 for n in self.slices)
        if not self.slices or self.slices[-1] != 1 or not (falling and powers) or not (self.shared or self.highest ==
                                                                                       len(self.slices)):
            raise ValueError(f"slices count {self.slices}; those that share weights count powers of two, the most "
                             "first, down to 1, others 1")

    @property
    def n_values(self) -> int:
        """Values, each of a bit per slice."""
        height, width, channels = self.shape
        return height * width * channels

    @property
    def n_bits(self) -> int:
        """Bits: one per value and slice."""
        return self.n_values * len(self.slices)

    @property
    def highest(self) -> int:
        """What a value counts of which all bits are set and that meets weights of 1."""
        return sum(self.slices)

    @property
    def n_weighted(self) -> int:
        """Weights that meet a value: one per slice that has its own, else one."""
        return 1 if self.shared else len(self.slices)


def check_shape(name: str, shape: Shape, most: int) -> None:
    """Raise ValueError unless a shape is three integers of 1 to `most`."""
    check_tuple(name, shape, int)
    if len(shape) != 3 or not 1 <= min(shape) <= max(shape) <= most:
        raise ValueError(f"{name} {shape} is not (height, width, channels), each 1 to {most}")
