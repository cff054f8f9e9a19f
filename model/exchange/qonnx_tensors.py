"""What a tensor of a QONNX graph is on the way through it, while it has no weights yet.

Pixels, of which a table says what each of their values has become; bits, ``slope * z + shift`` of bipolar z; or sums,
``slope * (X + extra) + shift`` of a layer's integer bipolar sums X, row by row, until a sign turns them into bits
again. A shift of pixels or bits adds a constant to the sums that follow, `extra`, which thresholds take in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.exchange.onnx_file import Refusal
from cbnn.model.operators.matrix import Matrix
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.operators.operator import Operator, Parameters

# isort: split
import onnx  # after onnx_file, which says what to install where it is missing


@dataclass(frozen=True)
class Padding:
    """Pixels around an image, and their value."""

    n: int = 0
    value: float = 0.0


@dataclass(frozen=True)
class Pixels:
    """What every value of a pixel has become.

    `shape` is (channels, rows, columns) or (features,); `order` that of `Bits`.
    """

    table: NDArray[np.float32]
    shape: tuple[int, ...]
    order: tuple[int, ...]
    padding: Padding = Padding()


@dataclass(frozen=True)
class Bits:
    """``slope * z + shift`` for z of -most, -most + 2 … most; `order`: (channels, rows, columns) before flattening."""

    slope: float
    shift: float
    most: int
    shape: tuple[int, ...]
    order: tuple[int, ...]
    padding: Padding = Padding()


@dataclass(frozen=True)
class Sums:
    """``slope * (X + extra) + shift`` of each row's sums; of pooled rows X is the largest of the pool.

    `extra` is what inputs add that are not -1 and +1, a whole number as a rule, so that a sum of
    zero is zero exactly. It and `shift` are (rows,) or, where windows differ by place
    (`MatrixShape.places`), (places, rows). `places` is empty after dense layers.
    """

    weights: NDArray[np.uint8]
    most: int
    slope: NDArray[np.float64]
    extra: NDArray[np.float64]
    shift: NDArray[np.float64]
    operator: Matrix
    shape: tuple[int, ...]
    places: NDArray[np.int64]
    pool: MaxPool | None = None

    def turned(self, rows: NDArray[np.bool_]) -> "Sums":
        """Return the same sums with other weights, and so X and its slope, turned round in some rows."""
        return replace(self, weights=np.where(rows[:, np.newaxis], 1 - self.weights, self.weights).astype(np.uint8),
                       slope=np.where(rows, -self.slope, self.slope), extra=np.where(rows, -self.extra, self.extra))


@dataclass
class Chain:
    """What was read so far: operators in order, and what each learnt."""

    operators: list[Operator] = field(default_factory=list)
    parameters: list[Parameters] = field(default_factory=list)
    codes: NDArray[np.int64] | None = None
    bits: int = 1


def attribute(node: Any, name: str, default: Any) -> Any:
    """Value of a node's attribute."""
    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return default


def quantised(node: Any, operands: list[NDArray]) -> NDArray:
    """Value of a Quant."""
    from qonnx.custom_op.general.quant import quant

    rounding = attribute(node, "rounding_mode", b"ROUND")
    return quant(*operands, attribute(node, "signed", 1), attribute(node, "narrow", 0),
                 rounding.decode() if isinstance(rounding, bytes) else rounding)


def elementwise(node: Any, at: int, operands: list[Any], pixels: Pixels) -> Pixels:
    """Apply a node to every value of a pixel."""
    return replace(pixels, table=np.asarray(_applied(node, at, operands, pixels.table), np.float32))


def _applied(node: Any, at: int, operands: list[Any], table: NDArray[np.float32]) -> NDArray:
    others = [operand for i, operand in enumerate(operands) if i != at]
    if node.op_type != "MultiThreshold":
        if any(operand.size != 1 for operand in others):
            raise Refusal(node, "it treats pixels of different places or colours differently")
        operands = [np.asarray(operand).reshape(()) if operand is not None else table for operand in operands]
    if node.op_type == "Quant":
        return quantised(node, operands)
    if node.op_type == "BipolarQuant":
        return np.where(table >= 0, 1, -1) * operands[1]
    if node.op_type == "MultiThreshold":
        steps = np.unique(np.asarray(operands[1]), axis=0)
        if len(steps) != 1:
            raise Refusal(node, "it treats pixels of different colours differently")
        n_passed = (table[:, np.newaxis] >= steps[0]).sum(axis=1)
        return attribute(node, "out_scale", 1.0) * n_passed + attribute(node, "out_bias", 0.0)
    if node.op_type == "Sign":
        return np.sign(table)
    if node.op_type == "Identity":
        return table
    operation: Callable = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[node.op_type]
    return operation(operands[0], operands[1])


def looked_up(node: Any, at: int, operands: list[Any], pixels: Pixels) -> Pixels:
    """Take pixels for indices into a table, as an export of ours does."""
    whole = np.round(pixels.table).astype(np.int64)
    if (whole != pixels.table).any():
        raise Refusal(node, "pixels are not whole numbers here")
    if node.op_type == "Cast":
        return pixels
    if at != 1 or np.ndim(operands[0]) != 1 or attribute(node, "axis", 0) != 0 or whole.min() < 0 or (
            whole.max() >= len(operands[0])):
        raise Refusal(node, "it does not look up every pixel in one table")
    return replace(pixels, table=np.asarray(operands[0], np.float32)[whole])


def as_bits(node: Any, state: Any, chain: Chain) -> Bits:
    """Return what a layer takes: bits, or pixels, which get their codes here."""
    if isinstance(state, Bits):
        return state
    if not isinstance(state, Pixels):
        raise Refusal(node, "its inputs were not made binary; only a first layer takes more than bits")
    values = np.unique(state.table.astype(np.float64))
    if len(values) < 2 or not np.isfinite(values).all():
        raise Refusal(node, f"all pixels become {values[0] + 0:g}, or values that are not finite")
    unit = (values[-1] - values[0]) / round((values[-1] - values[0]) / np.diff(values).min())
    codes = (state.table - values[0]) / unit
    if np.abs(codes - np.round(codes)).max() > 1e-3:
        raise Refusal(node, "the values of pixels are not evenly spaced, as those of a fixed point are")
    chain.codes = np.round(codes).astype(np.int64)
    most = int(chain.codes.max())
    chain.bits = most.bit_length()
    if chain.bits > 16:
        raise Refusal(node, f"pixels take {chain.bits} bits; at most 16 are supported")
    most = (1 << chain.bits) - 1
    slope = (values[-1] - values[0]) / int(chain.codes.max()) / 2
    return Bits(slope, values[0] + slope * most, most, state.shape, state.order, state.padding)


def padded(node: Any, operands: list[Any], state: Any) -> Any:
    """Note what a Pad adds around the image, for the convolution after it."""
    pads = np.ravel(operands[1]).tolist()
    value = float(np.ravel(operands[2])[0]) if len(operands) > 2 and operands[2] is not None else 0.0
    around = [0, 0, pads[2], pads[2]] * 2 if len(pads) == 8 else []
    if isinstance(state, Sums) or attribute(node, "mode", b"constant") != b"constant" or len(operands) > 3:
        raise Refusal(node, "only padding of pixels and bits with a constant is supported")
    if pads != around or pads[2] < 0 or not math.isfinite(value):
        raise Refusal(node, f"it pads by {pads} with {value}; only the same on all four sides of an image is supported")
    return replace(state, padding=Padding(pads[2], value))


def reshaped(node: Any, operands: list[Any], state: Any) -> Any:
    """Flatten; an image's channels stay in the order that `Bits.order` tells."""
    if isinstance(state, Sums):
        if len(state.shape) == 1 or state.shape[1:] == (1, 1):
            return replace(state, shape=state.shape[:1])
        raise Refusal(node, "sums are reshaped before their sign")
    n = math.prod(state.shape)
    if node.op_type == "Reshape":
        wanted = [int(size) for size in np.ravel(operands[1])]
        if len(wanted) != 2 or wanted[0] not in (0, 1, -1) or wanted[1] not in (-1, n):
            raise Refusal(node, f"it reshapes {state.shape} to {wanted}; only flattening all but the first axis "
                                "is supported")
    elif node.op_type == "Flatten" and attribute(node, "axis", 1) != 1:
        raise Refusal(node, "only flattening all but the first axis is supported")
    elif node.op_type in ("Squeeze", "Unsqueeze") and n != state.shape[0]:
        raise Refusal(node, "it changes an axis that is longer than 1")
    return replace(state, shape=(n,))
