"""What flows between operators: a raster of values, each of a bit per slice."""

from dataclasses import dataclass

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
    slices : what a set bit of each slice counts, the MSB first; a binary activation has one that counts 1
    shared : whether all slices of a channel share one weight, as the bits of a number do; else each slice has weights
        of its own and counts 1, as if it were a further channel (CBNN)

    Raises
    ------
    ValueError
        When there is no slice, or slices with weights of their own count other than 1.
    """

    shape: Shape
    slices: tuple[int, ...] = (1,)
    shared: bool = True

    def __post_init__(self) -> None:
        if not self.slices or min(self.slices) < 1 or not (self.shared or set(self.slices) == {1}):
            raise ValueError(f"slices that count {self.slices} are not whole numbers, or 1 with weights of their own")

    @property
    def n_values(self) -> int:
        """Values, each of a bit per slice."""
        height, width, channels = self.shape
        return height * width * channels

    @property
    def highest(self) -> int:
        """What a value counts of which all bits are set and that meets weights of 1."""
        return sum(self.slices)

    @property
    def n_weighted(self) -> int:
        """Weights that meet a value: one per slice that has its own, else one."""
        return 1 if self.shared else len(self.slices)
