"""Max pooling of bits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbnn.model.checks import check_range
from cbnn.model.operators.operator import Operator, OperatorShape, Parameters, check_array
from cbnn.model.operators.tensor import MAX_SIDE, Shape, Tensor


@dataclass(frozen=True, eq=False)
class PoolParameters(Parameters):
    """What max pooling has to know.

    Attributes
    ----------
    invert : bool array, shape (channels,): channels whose bit is inverted after pooling. Where sums
        were pooled before a batch norm of negative scale, a large sum makes a 0: the bits are ``sum
        > limit``, and what leaves is the inverse of their OR.
    """

    invert: NDArray[np.bool_]


@dataclass(frozen=True)
class MaxPool(Operator):
    """OR over squares of `size` x `size` bits that do not overlap; rows and columns that fill none are dropped."""

    size: int

    def __post_init__(self) -> None:
        check_range("size of a pool", self.size, 2, MAX_SIDE)

    def shape(self, tensor: Tensor) -> "PoolShape":
        """Return the sizes for what enters.

        Raises
        ------
        ValueError
            When it is smaller than a pool, or has several slices.
        """
        height, width, channels = tensor.shape
        if height < self.size or width < self.size:
            raise ValueError(f"{self} does not fit an input of {height}x{width}")
        if tensor.slices != (1,):
            raise ValueError(f"{self} takes bits; {len(tensor.slices)} slices enter")
        return PoolShape(self, tensor, (height // self.size, width // self.size, channels))

    def __str__(self) -> str:
        return f"MP{self.size}"


@dataclass(frozen=True)
class PoolShape(OperatorShape):
    """Sizes of a pool for the tensor that enters it.

    Attributes
    ----------
    operator : the pool
    tensor : what enters
    out_shape : (height, width, channels) leaving
    """

    operator: MaxPool
    tensor: Tensor
    out_shape: Shape

    @property
    def n_bits(self) -> dict[str, int]:
        """What is inverted."""
        return {"invert": self.in_shape[2]}

    def parameters(self, arrays: Mapping[str, NDArray]) -> PoolParameters:
        """Return parameters of arrays of one axis."""
        return PoolParameters.taking(invert=arrays["invert"].astype(np.bool_))

    def check(self, parameters: Parameters) -> None:
        """Raise ValueError where dtype or shape of an array does not suit."""
        if not isinstance(parameters, PoolParameters):
            raise ValueError("it takes parameters of a pool")
        check_array("invert", parameters.invert, True, self.in_shape[2:], np.bool_, 0, 1)

    def compute(self, parameters: Parameters, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the bits that leave; see `OperatorShape.compute`."""
        assert isinstance(parameters, PoolParameters)
        size, (rows, columns, channels) = self.operator.size, self.out_shape
        tiles = bits[:, 0, : rows * size, : columns * size].reshape(len(bits), rows, size, columns, size, channels)
        return (tiles.max(axis=(2, 4)) ^ parameters.invert)[:, np.newaxis]
