"""What every operator has: what leaves for a tensor that enters, which parameters it takes, what it computes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cbnn.model.operators.tensor import MAX_SIDE, Shape, Tensor


class Parameters:
    """What one operator learnt: a frozen dataclass of arrays, None where it has no such array."""

    @property
    def arrays(self) -> dict[str, NDArray]:
        """The arrays that there are, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: array for name, array in values.items() if array is not None}


class OperatorShape(ABC):
    """An operator with the tensor that enters it, and all that follows from the two.

    Attributes
    ----------
    operator : what it does
    tensor : what enters
    out_shape : (height, width, channels) leaving
    integers : names of the parameters that are integers; they may be missing
    """

    integers: ClassVar[tuple[str, ...]] = ()
    operator: "Operator"
    tensor: Tensor
    out_shape: Shape

    @property
    def in_shape(self) -> Shape:
        """(height, width, channels) entering."""
        return self.tensor.shape

    @property
    def out(self) -> Tensor:
        """What leaves: bits, or scores, of which only the shape means anything."""
        return Tensor(self.out_shape)

    @abstractmethod
    def check(self, parameters: Parameters) -> None:
        """Make arrays read-only; raise ValueError where presence, dtype, shape or range of one does not suit."""

    @abstractmethod
    def compute(self, parameters: Parameters, bits: NDArray[np.uint8]) -> NDArray:
        """Return what leaves.

        Parameters
        ----------
        bits : 0 and 1, (N, slices, height, width, channels)

        Returns
        -------
        uint8 array (N, 1, height, width, channels); of scores int64 (N, classes)
        """

    @property
    @abstractmethod
    def n_bits(self) -> dict[str, int]:
        """Sizes of the parameters that are bits, by name."""

    @abstractmethod
    def parameters(self, arrays: Mapping[str, NDArray]) -> Parameters:
        """Return parameters of arrays of one axis, by name, as storage has them."""


class Operator(ABC):
    """A step of a network, for any tensor that it suits."""

    @abstractmethod
    def shape(self, tensor: Tensor) -> OperatorShape:
        """Return the operator for what enters.

        Raises
        ------
        ValueError
            When the operator does not suit it.
        """

    def infer(self, tensor: Tensor) -> Tensor:
        """Return what leaves when this enters; see `shape` for what is refused."""
        return self.shape(tensor).out


def check_array(name: str, array: NDArray | None, wanted: bool, shape: tuple[int, ...], dtype: type,
                low: int, high: int) -> None:
    """Check one array of an operator's parameters; see `OperatorShape.check`."""
    if array is None or not wanted:
        if wanted or array is not None:
            raise ValueError(f"it {'lacks' if wanted else 'must not have'} {name}")
        return
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} are {array.dtype} {array.shape}; they must be {np.dtype(dtype)} {shape}")
    if array.min() < low or array.max() > high:
        raise ValueError(f"{name} span {array.min()} to {array.max()}; the range is {low} to {high}")
    array.setflags(write=False)


def check_range(name: str, value: int, low: int = 1, high: int = MAX_SIDE) -> None:
    """Raise ValueError unless a number of a description is in its range."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be {low} to {high}")
