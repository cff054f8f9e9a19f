"""Networks in QONNX, as Brevitas exports them, turned into integers; what cannot be represented exactly is refused.

The graph must be a chain. On the way through it a tensor is pixels, bits or sums, see
`qonnx_tensors`. Slopes and shifts are worked out in float64; a sum that lies within rounding of a
threshold may fall on the other side of it than in an execution in float32.

Formats: https://github.com/fastmachinelearning/qonnx. onnx and qonnx read, clean up and infer
shapes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.exchange.onnx_file import Refusal, read
from cbnn.model.exchange.qonnx_layers import affine, layer_sums, pool, take_sign
from cbnn.model.exchange.qonnx_tensors import (
    Chain,
    Pixels,
    Sums,
    as_bits,
    attribute,
    elementwise,
    looked_up,
    padded,
    quantised,
    reshaped,
)
from cbnn.model.network import Network
from cbnn.model.operators.matrix import OFFSET_LIMIT, MatrixParameters, MatrixShape
from cbnn.model.operators.tensor import Shape
from cbnn.model.slices import check_kept
from cbnn.model.topology import INPUT, Topology

# isort: split
from onnx import numpy_helper  # after onnx_file, which says what to install where it is missing

PIXEL_BITS = 8
"""Bits of a pixel of the images that a network is for."""
AFFINE = ("Add", "Sub", "Mul", "Div", "BatchNormalization", "Identity")
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Identity", "Quant", "BipolarQuant", "MultiThreshold", "Sign")
FLATTENING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
OPERATORS = (*AFFINE, "Quant", "BipolarQuant", "MultiThreshold", "Sign", "MatMul", "Gemm", "Conv", "Pad", "MaxPool",
             *FLATTENING, "Transpose", "TopK", "ArgMax", "Constant", "Shape", "Gather",
             "Concat", "Pow", "Sqrt", "Cast", "Slice")


def load(path: Path, low: float = 0.0, high: float = 1.0, in_shape: Shape | None = None,
         slices: tuple[int, ...] = ()) -> Network:
    """Read a network for images whose pixels are of 8 bits.

    Parameters
    ----------
    low, high : the graph's input are pixels, spread evenly over this range
    in_shape : (height, width, colours) where the graph's input is flat
    slices : or its input are bit slices, these, as -1 and +1: channels of an image, all colours of
        one slice side by side, or parts of a flat input

    Raises
    ------
    ValueError
        When the file is not a QONNX network, or does what cannot be represented exactly; the node
        is named then.
    """
    if slices:
        check_kept(slices, PIXEL_BITS)
    if not math.isfinite(low) or not math.isfinite(high) or low == high:
        raise ValueError(f"pixels of 0 and 255 stand for {low} and {high}; two different numbers are needed")
    model = read(path, OPERATORS)
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer}]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"{path} has {len(inputs)} inputs and {len(graph.output)} outputs; one of each is needed")
    shape = tuple(dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim)
    if len(shape) not in (2, 4) or min(shape[1:]) < 1 or shape[0] > 1:
        raise ValueError(f"{path} takes an input of shape {shape}; (1, features) or (1, colours, rows, columns) is "
                         "needed")
    own = _image_shape(path, shape, in_shape, max(1, len(slices)))
    table = np.array([-1, 1], np.float32)
    if not slices:
        steps = np.arange(1 << PIXEL_BITS, dtype=np.float32) / np.float32((1 << PIXEL_BITS) - 1)
        table = np.float32(low) + np.float32(high - low) * steps
    state, chain = _walk(path, model, inputs[0].name, Pixels(table.astype(np.float32), shape[1:], shape[1:]))
    if not isinstance(state, Sums):
        raise ValueError(f"{path} does not end with the sums of a layer, which would be its scores")
    _finish(path, chain, state)
    if slices:
        return _sliced(path, own, slices, chain, flat=len(shape) == 2)
    topology = Topology.chain(own, chain.bits, tuple(range(chain.bits - 1, -1, -1)), chain.operators,
                              "sliced" if chain.bits == 1 else "weighted")
    return Network(topology, tuple(chain.parameters), chain.codes)


def _image_shape(path: Path, shape: tuple[int, ...], in_shape: Shape | None, n_slices: int) -> Shape:
    """Height, width and colours of an image; a flat input counts rows, columns, colours, as ours do."""
    if len(shape) == 2:
        height, width, colours = in_shape or (1, 1, shape[1] // n_slices)
        if height * width * colours * n_slices != shape[1]:
            raise ValueError(f"{path} takes {shape[1]} pixels; the shape given is {height}x{width}x{colours}"
                             + (f", in {n_slices} slices" if n_slices > 1 else ""))
        return height, width, colours
    if in_shape is not None:
        raise ValueError(f"{path} takes images of {shape[1:]}; a shape is given only for flat inputs")
    if shape[1] % n_slices:
        raise ValueError(f"{path} takes {shape[1]} channels, which {n_slices} slices do not share evenly")
    return shape[2], shape[3], shape[1] // n_slices


def _sliced(path: Path, own: Shape, slices: tuple[int, ...], chain: Chain, flat: bool) -> Network:
    """Take the channels that entered for bit slices, which are outermost in the first layer's weights here."""
    if chain.codes is None or chain.codes.tolist() != [0, 1]:
        raise ValueError(f"{path} does not tell -1 and +1 of a slice apart as the bits 0 and 1")
    topology = Topology.chain(own, PIXEL_BITS, slices, chain.operators)
    if not flat:
        at = topology.taker(INPUT)
        first, shape = chain.parameters[at], topology.shapes[at]
        assert isinstance(first, MatrixParameters)
        assert isinstance(shape, MatrixShape)
        by_pixel = ("row", "column", "slice", "channel")
        chain.parameters[at] = replace(first, weights=shape.in_window_order(first.weights, by_pixel))
    return Network(topology, tuple(chain.parameters))


def _walk(path: Path, model: Any, name: str, state: Any) -> tuple[Any, Chain]:
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    chain = Chain()
    current, ended = name, False
    for node in graph.node:
        dynamic = [value for value in node.input if value and value not in known]
        if not dynamic:
            with _refusing(node):
                known[node.output[0]] = _constant(node, [known[value] for value in node.input if value])
            continue
        if dynamic != [current] or ended:
            raise Refusal(node, "the network branches or ends here; only a chain of layers is supported")
        at = list(node.input).index(current)
        operands = [known.get(value) for value in node.input]
        if node.op_type in ("TopK", "ArgMax"):
            _check_class(node)
            ended = graph.output[0].name in node.output
            continue
        with _refusing(node), np.errstate(all="ignore"):
            state = _step(node, at, operands, state, chain)
        current = node.output[0]
        made = model.get_tensor_shape(current)
        if node.op_type not in ("Pad", *FLATTENING) and made is not None and tuple(made[1:]) != state.shape:
            raise Refusal(node, f"its output is said to have the shape {list(made)}; it has {list(state.shape)}")
    if not ended and graph.output[0].name != current:
        raise ValueError(f"{path} has an output that is not that of its last layer")
    return state, chain


@contextmanager
def _refusing(node: Any) -> Iterator[None]:
    """Refuse a node whose operands or attributes are missing, or of a wrong kind or shape, whatever that raises."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(node, "its inputs or attributes are not as the operator needs them") from error


def _check_class(node: Any) -> None:
    """Refuse what does not name the highest score, of equal ones the first."""
    kind = node.op_type
    if attribute(node, "axis", -1 if kind == "TopK" else 0) not in (1, -1) or not attribute(node, "largest", 1) or (
            attribute(node, "select_last_index", 0)):
        raise Refusal(node, "it does not give the highest score, and of equal ones the first")


def _constant(node: Any, operands: list[NDArray]) -> NDArray:
    """Value of a node all of whose inputs are known and that cleaning up has left: weights on their way."""
    if node.op_type == "BipolarQuant":
        return np.where(operands[0] >= 0, 1, -1) * operands[1]
    if node.op_type == "Quant":
        return quantised(node, operands)
    if node.op_type == "Transpose":
        return operands[0].transpose(attribute(node, "perm", None))
    raise Refusal(node, "weights that it computes are not supported")


def _step(node: Any, at: int, operands: list[Any], state: Any, chain: Chain) -> Any:
    """Apply a node to what the tensor is."""
    kind = node.op_type
    if not isinstance(state, Sums) and state.padding.n and kind != "Conv":
        raise Refusal(node, "padding is supported only directly before a convolution")
    if kind == "Pad":
        return padded(node, operands, state)
    if kind in ("Cast", "Gather") and isinstance(state, Pixels):
        return looked_up(node, at, operands, state)
    if kind in FLATTENING:
        return reshaped(node, operands, state)
    if kind in ("MatMul", "Gemm", "Conv"):
        if at != 0:
            raise Refusal(node, "the weights are the first operand; they must be the second")
        return layer_sums(node, operands, as_bits(node, state, chain))
    if kind == "MaxPool":
        return pool(node, state, chain)
    if isinstance(state, Pixels) and kind in ELEMENTWISE:
        return elementwise(node, at, operands, state)
    if kind in AFFINE:
        return affine(node, at, operands, state, chain)
    if kind in ("BipolarQuant", "MultiThreshold", "Sign") and isinstance(state, Sums):
        return take_sign(node, operands, state, chain)
    raise Refusal(node, "it is not supported at this place")


def _finish(path: Path, chain: Chain, state: Sums) -> None:
    """Take the last layer's sums as scores: all rows in one positive unit, so that integers order them alike."""
    slope = np.broadcast_to(state.slope, len(state.weights))
    if (slope < 0).all():
        state = state.turned(slope < 0)
        slope = -slope
    if state.operator.slides:
        raise ValueError(f"{path} ends in a convolution; the last layer must be dense")
    if (slope <= 0).any() or not np.allclose(slope, slope[0], rtol=1e-9, atol=0):
        raise ValueError(f"{path}: the scores of the classes are scaled by {slope.min():.6g} to {slope.max():.6g}; the "
                         "scale must be one positive number")
    # A score is slope (2 acc - most + extra) + shift; in units of 2 slope, and less what all share:
    with np.errstate(all="ignore"):
        offsets = (state.extra + state.shift / slope) / 2
        above = offsets - offsets.min()
    if not (above <= OFFSET_LIMIT).all():  # nor where one is not a number
        raise ValueError(f"{path}: offsets of the classes are up to {above.max():.6g} counts apart; at most "
                         f"{OFFSET_LIMIT} are supported")
    whole = np.floor(above + 1e-9)
    rest = above - whole
    # Parts that fall only make scores equal, of which the first wins, as it did.
    if (rest - np.minimum.accumulate(rest) > 1e-6).any():
        raise ValueError(f"{path}: offsets of the classes differ by {rest.max():.3f} of a count; with whole numbers "
                         "another class could win")
    chain.operators.append(state.operator)
    chain.parameters.append(MatrixParameters(state.weights, offsets=whole.astype(np.int64)))
