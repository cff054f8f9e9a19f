"""Networks in QONNX, as Brevitas exports them, turned into integers; what cannot be represented exactly is refused.

The graph must be a chain. On the way through it a tensor is one of three things: pixels, of which a table says what
each of their values has become; bits, ``slope * z + shift`` of bipolar z; or sums, ``slope * X + shift`` of a layer's
integer bipolar sums X, row by row, until a sign turns them into bits again. A shift of pixels or bits adds a constant
to the sums behind them, which thresholds take in. Slopes and shifts are worked out in float64; a sum that lies within
rounding of a threshold may fall on the other side of it than in an execution in float32.

Formats: https://github.com/fastmachinelearning/qonnx. onnx and qonnx read, clean up and infer shapes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.network import Network, Parameters
from cbnn.model.onnx_file import Refusal, read
from cbnn.model.topology import Conv, Dense, Shape, Topology

# isort: split
import onnx  # behind onnx_file, which says what to install where it is missing
from onnx import numpy_helper

PIXELS = 256
"""Values of a pixel of the images that a network is for."""
AFFINE = ("Add", "Sub", "Mul", "Div", "BatchNormalization", "Identity")
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Identity", "Quant", "BipolarQuant", "Sign")
OPERATORS = (*AFFINE, "Quant", "BipolarQuant", "MultiThreshold", "Sign", "MatMul", "Gemm", "Conv", "MaxPool", "Reshape",
             "Flatten", "Squeeze", "Unsqueeze", "Transpose", "TopK", "ArgMax", "Constant", "Shape", "Gather", "Concat",
             "Pow", "Sqrt", "Cast", "Slice")


@dataclass(frozen=True)
class _Pixels:
    """What every value of a pixel has become; `shape` is (channels, rows, columns) or (features,)."""

    table: NDArray[np.float32]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Bits:
    """``slope * z + shift`` for z of -most, -most + 2 … most; `order`: (channels, rows, columns) before flattening."""

    slope: float
    shift: float
    most: int
    shape: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class _Sums:
    """``slope * X + shift`` of each row's sums; of pooled rows X is the largest of the pool."""

    weights: NDArray[np.uint8]
    most: int
    slope: NDArray[np.float64]
    shift: NDArray[np.float64]
    layer: Conv | Dense
    shape: tuple[int, ...]


@dataclass
class _Chain:
    """What was read so far."""

    layers: list[Conv | Dense] = field(default_factory=list)
    parameters: list[Parameters] = field(default_factory=list)
    codes: NDArray[np.int64] | None = None
    bits: int = 1


def load(path: Path, low: float = 0.0, high: float = 1.0, in_shape: Shape | None = None) -> Network:
    """Read a network whose input are pixels of 8 bits, spread evenly over `low` to `high`.

    Parameters
    ----------
    in_shape : (height, width, colours) where the graph's input is flat

    Raises
    ------
    ValueError
        When the file is not a QONNX network, or does what cannot be represented exactly; the node is named then.
    """
    model = read(path, OPERATORS)
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer}]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"{path} has {len(inputs)} inputs and {len(graph.output)} outputs; one of each is read")
    shape = tuple(dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim)
    if len(shape) not in (2, 4) or min(shape[1:]) < 1 or shape[0] > 1:
        raise ValueError(f"{path} takes an input of shape {shape}; (1, features) or (1, colours, rows, columns) is "
                         "read")
    table = (np.float32(low) + np.float32(high - low) * np.arange(PIXELS, dtype=np.float32) / np.float32(PIXELS - 1))
    state: Any = _Pixels(table.astype(np.float32), shape[1:])
    if len(shape) == 2:
        height, width, colours = in_shape or (1, 1, shape[1])
        if height * width * colours != shape[1]:
            raise ValueError(f"{path} takes {shape[1]} pixels; {height}x{width}x{colours} are named")
        # A flat input counts rows, columns, colours, as ours do.
        own: Shape = (height, width, colours)
    else:
        own = (shape[2], shape[3], shape[1])
    state, chain = _walk(path, graph, inputs[0].name, state)
    if not isinstance(state, _Sums):
        raise ValueError(f"{path} does not end in the sums of a layer, which are its scores")
    _finish(path, chain, state)
    topology = Topology(own, chain.bits, tuple(range(chain.bits - 1, -1, -1)), tuple(chain.layers),
                        "sliced" if chain.bits == 1 else "weighted")
    return Network(topology, tuple(chain.parameters), chain.codes)


def _walk(path: Path, graph: Any, name: str, state: Any) -> tuple[Any, _Chain]:
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    chain = _Chain()
    current = name
    for node in graph.node:
        dynamic = [value for value in node.input if value and value not in known]
        if not dynamic:
            known[node.output[0]] = _constant(node, [known[value] for value in node.input if value])
            continue
        if dynamic != [current]:
            raise Refusal(node, "the network is not a chain of layers here")
        at = list(node.input).index(current)
        operands = [known.get(value) for value in node.input]
        if node.op_type in ("TopK", "ArgMax"):
            continue
        state = _step(node, at, operands, state, chain)
        current = node.output[0]
    return state, chain


def _attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _constant(node: Any, operands: list[NDArray]) -> NDArray:
    """Value of a node all of whose inputs are known and that cleaning up has left: weights on their way."""
    if node.op_type == "BipolarQuant":
        return np.where(operands[0] >= 0, 1, -1) * operands[1]
    if node.op_type == "Quant":
        return _quantised(node, operands)
    if node.op_type == "Transpose":
        return operands[0].transpose(_attribute(node, "perm", None))
    raise Refusal(node, "weights that it makes are not read")


def _quantised(node: Any, operands: list[NDArray]) -> NDArray:
    from qonnx.custom_op.general.quant import quant

    rounding = _attribute(node, "rounding_mode", b"ROUND")
    return quant(*operands, _attribute(node, "signed", 1), _attribute(node, "narrow", 0),
                 rounding.decode() if isinstance(rounding, bytes) else rounding)


def _step(node: Any, at: int, operands: list[Any], state: Any, chain: _Chain) -> Any:
    """Apply a node to what the tensor is."""
    kind = node.op_type
    if kind in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return _reshaped(node, operands, state)
    if kind in ("MatMul", "Gemm", "Conv"):
        if at != 0:
            raise Refusal(node, "weights stand in front of their inputs")
        return _layer(node, operands, _as_bits(node, state, chain), chain)
    if kind == "MaxPool":
        return _pooled(node, state, chain)
    if isinstance(state, _Pixels) and kind in ELEMENTWISE:
        return replace(state, table=_elementwise(node, at, operands, state.table))
    if kind in AFFINE:
        return _affine(node, at, operands, state)
    if kind in ("BipolarQuant", "MultiThreshold", "Sign") and isinstance(state, _Sums):
        return _signed(node, operands, state, chain)
    raise Refusal(node, "it is not read at this place")


def _elementwise(node: Any, at: int, operands: list[Any], table: NDArray[np.float32]) -> NDArray[np.float32]:
    others = [operand for i, operand in enumerate(operands) if i != at]
    if any(operand.size != 1 for operand in others):
        raise Refusal(node, "pixels are treated differently by place or colour")
    operands = [np.asarray(operand).reshape(()) if operand is not None else table for operand in operands]
    if node.op_type == "Quant":
        return np.asarray(_quantised(node, operands), np.float32)
    if node.op_type == "BipolarQuant":
        return (np.where(table >= 0, 1, -1) * operands[1]).astype(np.float32)
    if node.op_type == "Sign":
        return np.sign(table)
    if node.op_type == "Identity":
        return table
    operation: Callable = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[node.op_type]
    return np.asarray(operation(operands[0], operands[1]), np.float32)


def _as_bits(node: Any, state: Any, chain: _Chain) -> _Bits:
    """Return what a layer takes: bits, or pixels, which get their codes here."""
    if isinstance(state, _Bits):
        return state
    if not isinstance(state, _Pixels):
        raise Refusal(node, "its inputs were not made binary; only a first layer takes more than bits")
    values = np.unique(state.table.astype(np.float64))
    if len(values) < 2 or not np.isfinite(values).all():
        raise Refusal(node, f"pixels of all values become {values.tolist()}")
    unit = np.diff(values).min()
    codes = (state.table - values[0]) / unit
    if np.abs(codes - np.round(codes)).max() > 1e-3:
        raise Refusal(node, "pixels are not spread evenly, as a fixed point would be")
    chain.codes = np.round(codes).astype(np.int64)
    most = int(chain.codes.max())
    chain.bits = most.bit_length()
    if chain.bits > 16:
        raise Refusal(node, f"pixels take {chain.bits} bits; at most 16 are supported")
    most = (1 << chain.bits) - 1
    slope = (values[-1] - values[0]) / int(chain.codes.max()) / 2
    return _Bits(slope, values[0] + slope * most, most, state.shape, state.shape)


def _reshaped(node: Any, operands: list[Any], state: Any) -> Any:
    if isinstance(state, _Sums):
        if len(state.shape) == 1 or state.shape[1:] == (1, 1):
            return replace(state, shape=state.shape[:1])
        raise Refusal(node, "sums are reshaped before their sign")
    n = math.prod(state.shape)
    if node.op_type == "Reshape":
        wanted = [int(size) for size in np.ravel(operands[1])]
        if len(wanted) != 2 or wanted[0] not in (0, 1, -1) or wanted[1] not in (-1, n):
            raise Refusal(node, f"it reshapes {state.shape} to {wanted}; flattening all but the first axis is read")
    elif node.op_type == "Flatten" and _attribute(node, "axis", 1) != 1:
        raise Refusal(node, "it does not flatten all but the first axis")
    elif node.op_type in ("Squeeze", "Unsqueeze") and n != state.shape[0]:
        raise Refusal(node, "it changes more than axes of one")
    return replace(state, shape=(n,))


def _bipolar(node: Any, weights: NDArray) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Bits and a positive scale per row of weights, (rows, ...)."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    scales = np.abs(flat[:, 0])
    if not np.isfinite(flat).all() or (scales == 0).any() or (np.abs(flat) != scales[:, np.newaxis]).any():
        raise Refusal(node, "its weights are not binary: a row holds more than -s and s")
    return (weights > 0).astype(np.uint8), scales


def _layer(node: Any, operands: list[Any], bits: _Bits, chain: _Chain) -> _Sums:
    kernel = operands[1]
    layer: Conv | Dense
    if node.op_type == "Conv":
        weights, scales = _bipolar(node, kernel)
        layer = _conv(node, kernel, bits)
        weights = weights.transpose(0, 2, 3, 1)
        rows, columns = ((n + 2 * layer.padding - layer.kernel) // layer.stride + 1 for n in bits.shape[1:])
        shape: tuple[int, ...] = (len(weights), rows, columns)
    else:
        if node.op_type == "Gemm" and _attribute(node, "transB", 0):
            kernel = kernel.T
        if node.op_type == "Gemm" and (_attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0),
                                       _attribute(node, "transA", 0)) != (1.0, 1.0, 0):
            raise Refusal(node, "alpha, beta or transA are not the usual ones")
        if kernel.ndim != 2 or len(bits.shape) != 1 or kernel.shape[0] != bits.shape[0]:
            raise Refusal(node, f"weights of shape {kernel.shape} do not suit inputs of shape {bits.shape}")
        weights, scales = _bipolar(node, np.ascontiguousarray(kernel.T))
        if len(bits.order) == 3:  # flattened by channel, row, column; here channels are fastest
            weights = weights.reshape(-1, *bits.order).transpose(0, 2, 3, 1)
        layer, shape = Dense(len(weights)), (len(weights),)
    weights = np.ascontiguousarray(weights.reshape(len(weights), -1))
    shift = bits.shift * scales * (2 * weights.astype(np.float64) - 1).sum(axis=1)
    if len(operands) > 2 and operands[2] is not None:
        shift = shift + np.ravel(operands[2]).astype(np.float64)
    return _Sums(weights, bits.most * weights.shape[1], scales * bits.slope, shift, layer, shape)


def _conv(node: Any, kernel: NDArray, bits: _Bits) -> Conv:
    if kernel.ndim != 4 or len(bits.shape) != 3 or kernel.shape[1] != bits.shape[0]:
        raise Refusal(node, f"weights of shape {kernel.shape} do not suit inputs of shape {bits.shape}")
    strides, pads = _attribute(node, "strides", [1, 1]), _attribute(node, "pads", [0, 0, 0, 0])
    if kernel.shape[2] != kernel.shape[3] or len(set(strides)) != 1 or len(set(pads)) != 1:
        raise Refusal(node, "its kernel, strides or padding are not square")
    if _attribute(node, "group", 1) != 1 or set(_attribute(node, "dilations", [1, 1])) != {1}:
        raise Refusal(node, "groups and dilations are not supported")
    if _attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Refusal(node, "auto_pad is not supported; export with explicit padding")
    pad_bit = 0
    if pads[0]:
        z = -bits.shift / bits.slope / bits.most
        if abs(abs(z) - 1) > 1e-6:
            raise Refusal(node, "it pads with zeros, which its inputs are not; pad with a value that they take")
        pad_bit = int(z > 0)
    return Conv(len(kernel), kernel.shape[2], strides[0], pads[0], pad_bit)


def _per_row(node: Any, operand: NDArray, state: Any) -> NDArray[np.float64]:
    """Operand of an affine step, a value per row, or one for all."""
    values = np.asarray(operand, np.float64)
    if values.size == 1:
        return values.reshape(())
    if not isinstance(state, _Sums):
        raise Refusal(node, "it treats bits differently by channel")
    aligned = values.reshape((1,) * (len(state.shape) + 1 - values.ndim) + values.shape)
    if aligned.shape[:2] not in ((1, state.shape[0]), (state.shape[0],)) or values.size != state.shape[0]:
        raise Refusal(node, "it treats sums differently by place")
    return values.ravel()


def _affine(node: Any, at: int, operands: list[Any], state: Any) -> Any:
    if node.op_type == "Identity":
        return state
    if node.op_type == "BatchNormalization":
        if not isinstance(state, _Sums):
            raise Refusal(node, "it treats bits differently by channel")
        scale, shift, mean, variance = (np.ravel(operand).astype(np.float64) for operand in operands[1:5])
        if (variance + _attribute(node, "epsilon", 1e-5) <= 0).any():
            raise Refusal(node, "a variance is not positive")
        factor = scale / np.sqrt(variance + _attribute(node, "epsilon", 1e-5))
        return replace(state, slope=state.slope * factor, shift=(state.shift - mean) * factor + shift)
    other = _per_row(node, operands[1 - at], state)
    if node.op_type == "Add":
        return replace(state, shift=state.shift + other)
    if node.op_type == "Sub":
        sign = 1 if at == 0 else -1
        return replace(state, slope=sign * state.slope, shift=sign * (state.shift - other))
    if node.op_type == "Div" and (at != 0 or (other == 0).any()):
        raise Refusal(node, "it divides by what comes in, or by zero")
    factor = other if node.op_type == "Mul" else 1 / other
    return replace(state, slope=state.slope * factor, shift=state.shift * factor)


def _pooled(node: Any, state: Any, chain: _Chain) -> Any:
    kernel = list(_attribute(node, "kernel_shape", []))
    if len(state.shape) != 3 or len(set(kernel)) != 1 or list(_attribute(node, "strides", [1, 1])) != kernel:
        raise Refusal(node, "only pools of squares that do not overlap are supported")
    if any(_attribute(node, "pads", [0])) or _attribute(node, "ceil_mode", 0) or set(
            _attribute(node, "dilations", [1, 1])) != {1}:
        raise Refusal(node, "padding, dilations and ceil_mode are not supported")
    pool = kernel[0]
    channels, rows, columns = state.shape
    shape = (channels, rows // pool, columns // pool)
    if isinstance(state, _Sums) and isinstance(state.layer, Conv) and state.layer.pool == 1:
        turned = state.slope < 0  # a row's largest value is at its smallest sum: turn it round first
        weights = np.where(turned[:, np.newaxis], 1 - state.weights, state.weights).astype(np.uint8)
        return replace(state, weights=weights, slope=np.abs(state.slope), layer=replace(state.layer, pool=pool),
                       shape=shape)
    last = chain.layers[-1] if chain.layers else None
    if isinstance(state, _Bits) and isinstance(last, Conv) and last.pool == 1 and state.slope > 0:
        chain.layers[-1] = replace(last, pool=pool)
        chain.parameters[-1] = replace(chain.parameters[-1], invert=np.zeros(channels, np.bool_))
        return replace(state, shape=shape, order=shape)
    raise Refusal(node, "pooling is supported once behind a convolution, before or behind its sign")


def _signed(node: Any, operands: list[Any], state: _Sums, chain: _Chain) -> _Bits:
    """Thresholds for the sign of the sums, or for those of a MultiThreshold of one step."""
    slope, shift, strict = 1.0, 0.0, node.op_type == "Sign"
    if node.op_type == "BipolarQuant":
        if np.size(operands[1]) != 1 or float(np.ravel(operands[1])[0]) <= 0:
            raise Refusal(node, "its scale is not one positive number")
        slope = float(np.ravel(operands[1])[0])
    elif node.op_type == "MultiThreshold":
        thresholds = np.asarray(operands[1], np.float64)
        if thresholds.ndim != 2 or thresholds.shape[1] != 1 or thresholds.shape[0] not in (1, state.shape[0]):
            raise Refusal(node, f"thresholds of shape {thresholds.shape} make no bits")
        state = replace(state, shift=state.shift - thresholds[:, 0])
        step, bias = _attribute(node, "out_scale", 1.0), _attribute(node, "out_bias", 0.0)
        if step <= 0:
            raise Refusal(node, "its out_scale is not positive")
        slope, shift = step / 2, bias + step / 2
    pooled = isinstance(state.layer, Conv) and state.layer.pool > 1
    chain.layers.append(state.layer)
    chain.parameters.append(_thresholds(node, state, strict, pooled))
    return _Bits(slope, shift, 1, state.shape, state.shape)


def _thresholds(node: Any, state: _Sums, zero_counts: bool, pooled: bool) -> Parameters:
    """Rows whose bit is ``slope * X + shift >= 0``; ONNX's Sign gives 0 for 0, which no bit is, so X must miss it."""
    weights = state.weights.copy()
    thresholds = np.empty(len(weights), np.int64)
    invert = np.zeros(len(weights), np.bool_)
    n = state.most
    for row, (slope, shift) in enumerate(zip(np.broadcast_to(state.slope, len(weights)),
                                             np.broadcast_to(state.shift, len(weights)), strict=True)):
        if not math.isfinite(slope) or not math.isfinite(shift):
            raise Refusal(node, f"row {row} is scaled by {slope} and shifted by {shift}")
        sums = 2 * np.arange(n + 1) - n
        values = slope * sums + shift
        if zero_counts and (values == 0).any():
            raise Refusal(node, f"sums of row {row} can be 0, whose sign is neither bit")
        n_set = int((values >= 0).sum())
        if slope >= 0:
            thresholds[row] = n + 1 - n_set
        elif pooled:
            thresholds[row] = n_set
            invert[row] = True
        else:
            weights[row] ^= 1
            thresholds[row] = n + 1 - n_set
    return Parameters(weights, thresholds, invert=invert if pooled else None)


def _finish(path: Path, chain: _Chain, state: _Sums) -> None:
    """Take the last layer's sums as scores: all rows in one positive unit, so that integers order them alike."""
    slope = np.broadcast_to(state.slope, len(state.weights))
    if isinstance(state.layer, Conv):
        raise ValueError(f"{path} ends in a convolution; the last layer must be dense")
    if (slope <= 0).any() or not np.allclose(slope, slope[0], rtol=1e-9, atol=0):
        raise ValueError(f"{path}: scores of the classes are in units of {slope.min():.6g} to {slope.max():.6g}; they "
                         "must be one positive number")
    # A score is slope (2 acc - most) + shift, in units of 2 slope: acc + shift / (2 slope), less what all share.
    offsets = np.broadcast_to(state.shift, len(state.weights)) / (2 * slope)
    whole = np.floor(offsets - offsets.min() + 1e-9)
    rest = offsets - offsets.min() - whole
    if (np.diff(rest) > 1e-6).any():
        raise ValueError(f"{path}: classes' offsets differ by parts of a count, {rest.max():.3f}, so that integers do "
                         "not order the scores alike")
    chain.layers.append(state.layer)
    chain.parameters.append(Parameters(state.weights, offsets=whole.astype(np.int64)))
