"""What every operator has: what leaves for a tensor that enters, which parameters it takes, what it computes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cbnn.model.checks import check_kind
from cbnn.model.operators.tensor import Shape, Tensor


class Parameters:
    """What one operator learnt: a frozen dataclass of arrays, None where it has no such array.

    The arrays are copies, and cannot be written.

    Raises
    ------
    ValueError
        When something else than arrays is given.
    """

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            check_kind(name, array, np.ndarray)
            object.__setattr__(self, name, own_array(array))

    @classmethod
    def taking(cls, **arrays: NDArray) -> Self:
        """Return parameters that hold these arrays themselves, which nobody else may go on to use."""
        parameters = object.__new__(cls)
        for name, array in arrays.items():
            (array if array.base is None else array.base).setflags(write=False)
            array.setflags(write=False)
            object.__setattr__(parameters, name, array)
        return parameters

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
        """Raise ValueError where presence, dtype, shape or range of an array does not suit."""

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
        """Return parameters of arrays of one axis, by name, as storage has them; it takes the arrays over."""


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


def own_array(array: NDArray) -> NDArray:
    """Return a copy that cannot be written."""
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy
