"""Layers of a QONNX graph: what weights, batch norm, pooling and signs make of a tensor, down to integer thresholds.

A convolution that pads with a value which is neither of its bits, as with zero, pads with the
nearer bit; what the taps outside the image count too much then goes into thresholds that differ by
the window's place, exactly.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.exchange.onnx_file import Refusal
from cbnn.model.exchange.qonnx_tensors import Bits, Chain, Padding, Sums, attribute
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import Matrix, MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import MaxPool, PoolParameters
from cbnn.model.operators.tensor import Tensor

MAX_PLACES = 1 << 10
"""Most places of windows with thresholds of their own; a kernel of 11x11 has 121."""


def _bipolar(node: Any, weights: NDArray) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Bits and a positive scale per row of weights, (rows, ...)."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    scales = np.abs(flat[:, 0])
    if not np.isfinite(flat).all() or (scales == 0).any() or (np.abs(flat) != scales[:, np.newaxis]).any():
        raise Refusal(node, "its weights are not binary: a row holds more than -s and s")
    return (weights > 0).astype(np.uint8), scales


def _check_padding_explicit(node: Any) -> None:
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Refusal(node, "auto_pad is not supported; export with explicit padding")


def layer_sums(node: Any, operands: list[Any], bits: Bits) -> Sums:
    """Return the sums of a convolution or a dense layer."""
    if not bits.slope or not np.isfinite((bits.slope, bits.shift)).all():
        raise Refusal(node, f"its inputs are scaled by {bits.slope:.6g} and shifted by {bits.shift:.6g}")
    layer: Matrix
    if node.op_type == "Conv":
        rows, scales = _bipolar(node, operands[1])
        layer, excess = _conv(node, operands[1], bits)
        channels, height, width = bits.shape
    else:
        rows, scales = _bipolar(node, _dense_weights(node, operands[1], bits))
        layer, excess = Dense(len(rows)), 0.0
        # Flattened by channel, row, column, or without any order but our own.
        channels, height, width = bits.order if len(bits.order) == 3 else (bits.shape[0], 1, 1)
    own = layer.shape(Tensor((height, width, channels)))
    weights = own.in_window_order(rows, ("slice", "channel", "row", "column"))
    shape, places = ((len(weights), *own.places.shape), own.places) if layer.slides else (
        (len(weights),), np.zeros((0, 0), np.int64))
    signs = 2 * weights.astype(np.float64) - 1
    extra = _whole(bits.shift / bits.slope, bits.most) * signs.sum(axis=1)
    if excess:
        extra = extra + excess * _signs_outside(node, own, signs)
        extra = extra if len(extra) > 1 else extra[0]
    shift = np.zeros(len(weights))
    if len(operands) > 2 and operands[2] is not None:
        shift = shift + np.ravel(operands[2]).astype(np.float64)
    return Sums(weights, bits.most * weights.shape[1], scales * bits.slope, extra, shift, layer, shape, places)


def _dense_weights(node: Any, kernel: NDArray, bits: Bits) -> NDArray:
    """Weights of a dense layer, (rows, inputs)."""
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        kernel = kernel.T
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0),
                                   attribute(node, "transA", 0)) != (1.0, 1.0, 0):
        raise Refusal(node, "only alpha = 1, beta = 1 and transA = 0 are supported")
    if kernel.ndim != 2 or len(bits.shape) != 1 or kernel.shape[0] != bits.shape[0]:
        raise Refusal(node, f"weights of shape {kernel.shape} do not suit inputs of shape {bits.shape}")
    return np.ascontiguousarray(kernel.T)


def _signs_outside(node: Any, own: MatrixShape, signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the weights whose taps are outside the image, (places, rows).

    In the network such a tap carries another value than the bit that it carries in hardware.
    """
    if own.n_places > MAX_PLACES:
        raise Refusal(node, f"its windows cross the border in {own.n_places} ways; at most {MAX_PLACES} are supported")
    by_tap = own.ordered(signs, ("slice", "row", "column", "channel")).sum(axis=(1, 4))
    outside: NDArray[np.float64] = np.tensordot(own.taps_outside.astype(float), by_tap, ((1, 2), (1, 2)))
    return outside


def _whole(value: float, most: int) -> float:
    """Return the whole number that a quotient of floats was meant to be, where it is next to one."""
    return float(round(value)) if abs(value - round(value)) < 1e-6 * most else value


def _conv(node: Any, kernel: NDArray, bits: Bits) -> tuple[Conv, float]:
    """Return the layer, and by how much padding counts more than the bit that it carries there."""
    if kernel.ndim != 4 or len(bits.shape) != 3 or kernel.shape[1] != bits.shape[0]:
        raise Refusal(node, f"weights of shape {kernel.shape} do not suit inputs of shape {bits.shape}")
    strides, pads = attribute(node, "strides", [1, 1]), attribute(node, "pads", [0, 0, 0, 0])
    if kernel.shape[2] != kernel.shape[3] or len(set(strides)) != 1 or len(set(pads)) != 1:
        raise Refusal(node, "its kernel, strides or padding are not square")
    if attribute(node, "auto_pad", b"NOTSET") == b"VALID" and any(pads):
        raise Refusal(node, "auto_pad and pads contradict each other")
    if attribute(node, "group", 1) != 1 or set(attribute(node, "dilations", [1, 1])) != {1}:
        raise Refusal(node, "groups and dilations are not supported")
    _check_padding_explicit(node)
    padding = bits.padding
    if pads[0] and padding.n:
        raise Refusal(node, "its input is padded already")
    padding = Padding(pads[0]) if pads[0] else padding
    if not padding.n:
        return Conv(len(kernel), kernel.shape[2], strides[0]), 0.0
    z = _whole((padding.value - bits.shift) / bits.slope, bits.most)
    pad_bit = int(z > 0)
    if padding.n >= kernel.shape[2]:
        raise Refusal(node, f"padding of {padding.n} puts windows outside the image")
    layer = Conv(len(kernel), kernel.shape[2], strides[0], padding.n, pad_bit)
    return layer, z - (bits.most if pad_bit else -bits.most)


def _per_row(node: Any, operand: NDArray, state: Any) -> NDArray[np.float64]:
    """Operand of an affine step, a value per row, (places, rows), or one for all."""
    values = np.asarray(operand, np.float64)
    if values.size == 1:
        return values.reshape(())
    if not isinstance(state, Sums):
        raise Refusal(node, "it treats the bits of a channel differently")
    aligned = values.reshape((1,) * (len(state.shape) + 1 - values.ndim) + values.shape)
    if state.places.size and aligned.shape == (1, state.shape[0], *state.places.shape):
        at = [np.argwhere(state.places == place)[0] for place in range(state.places.max() + 1)]
        by_place = np.array([aligned[0, :, y, x] for y, x in at])
        if (by_place[state.places].transpose(2, 0, 1) == aligned[0]).all():
            return by_place
    if aligned.shape[:2] not in ((1, state.shape[0]), (state.shape[0],)) or values.size != state.shape[0]:
        raise Refusal(node, "it treats sums differently at different places")
    return values.ravel()


def affine(node: Any, at: int, operands: list[Any], state: Any, chain: Chain) -> Any:
    """Scale and shift bits or sums."""
    if node.op_type == "Identity":
        return state
    if node.op_type == "Mul" and isinstance(state, Bits) and np.size(operands[1 - at]) > 1:
        return _turned(node, np.asarray(operands[1 - at], np.float64), state, chain)
    if node.op_type == "BatchNormalization":
        if not isinstance(state, Sums):
            raise Refusal(node, "it treats the bits of a channel differently")
        scale, shift, mean, variance = (np.ravel(operand).astype(np.float64) for operand in operands[1:5])
        if (variance + attribute(node, "epsilon", 1e-5) <= 0).any():
            raise Refusal(node, "a variance is not positive")
        factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        return replace(state, slope=state.slope * factor, shift=(state.shift - mean) * factor + shift)
    other = _per_row(node, operands[1 - at], state)
    if node.op_type == "Add":
        return replace(state, shift=state.shift + other)
    if node.op_type == "Sub":
        sign = 1 if at == 0 else -1
        return replace(state, slope=sign * state.slope, shift=sign * (state.shift - other))
    if node.op_type == "Div" and (at != 0 or (other == 0).any()):
        raise Refusal(node, "it divides by its input, or by zero")
    factor = other if node.op_type == "Mul" else 1 / other
    return replace(state, slope=state.slope * factor, shift=state.shift * factor)


def _turned(node: Any, signs: NDArray[np.float64], state: Bits, chain: Chain) -> Bits:
    """Invert bits of some channels after their pool, where they are multiplied by -s, and others by s."""
    scale, last = np.abs(signs).max(), chain.parameters[-1] if chain.parameters else None
    if (not isinstance(last, PoolParameters) or state.shift or signs.shape[-3:] != (len(last.invert), 1, 1)
            or (np.abs(signs) != scale).any()):
        raise Refusal(node, "it treats the bits of a channel differently")
    chain.parameters[-1] = PoolParameters(last.invert ^ (signs.ravel() < 0))
    return replace(state, slope=state.slope * scale)


def pool(node: Any, state: Any, chain: Chain) -> Any:
    """Pool sums before their sign, or bits after it."""
    kernel = list(attribute(node, "kernel_shape", []))
    _check_padding_explicit(node)
    strides = list(attribute(node, "strides", [1, 1]))
    if kernel == strides == [1, 1] and not any(attribute(node, "pads", [0])):
        return state
    if len(state.shape) != 3 or len(set(kernel)) != 1 or strides != kernel:
        raise Refusal(node, "only pools of squares that do not overlap are supported")
    if any(attribute(node, "pads", [0])) or attribute(node, "ceil_mode", 0) or set(
            attribute(node, "dilations", [1, 1])) != {1}:
        raise Refusal(node, "padding, dilations and ceil_mode are not supported")
    size = kernel[0]
    channels, rows, columns = state.shape
    shape = (channels, rows // size, columns // size)
    if isinstance(state, Sums) and state.operator.slides and state.pool is None:
        turned = state.turned(state.slope < 0)  # a row's largest value is at its smallest sum
        return replace(turned, shape=shape, pool=MaxPool(size))
    last = chain.operators[-1] if chain.operators else None
    if isinstance(state, Bits) and isinstance(last, Matrix) and last.slides and state.slope > 0:
        chain.operators.append(MaxPool(size))
        chain.parameters.append(PoolParameters(np.zeros(channels, np.bool_)))
        return replace(state, shape=shape, order=shape)
    raise Refusal(node, "pooling is supported once after a convolution, before or after its sign")


def take_sign(node: Any, operands: list[Any], state: Sums, chain: Chain) -> Bits:
    """Thresholds for the sign of the sums, or for those of a MultiThreshold of one step."""
    slope, shift, strict = 1.0, 0.0, node.op_type == "Sign"
    if node.op_type == "BipolarQuant":
        if np.size(operands[1]) != 1 or float(np.ravel(operands[1])[0]) <= 0:
            raise Refusal(node, "its scale is not one positive number")
        slope = float(np.ravel(operands[1])[0])
    elif node.op_type == "MultiThreshold":
        if attribute(node, "data_layout", b"NCHW") not in (b"NCHW", b"NC"):
            raise Refusal(node, "channels do not come first in its data_layout")
        thresholds = np.asarray(operands[1], np.float64)
        if thresholds.ndim != 2 or thresholds.shape[1] != 1 or thresholds.shape[0] not in (1, state.shape[0]):
            raise Refusal(node, f"thresholds of shape {thresholds.shape} do not give one bit per channel")
        state = replace(state, shift=state.shift - thresholds[:, 0])
        step, bias = attribute(node, "out_scale", 1.0), attribute(node, "out_bias", 0.0)
        if step <= 0:
            raise Refusal(node, "its out_scale is not positive")
        slope, shift = step / 2, bias + step / 2
    parameters, invert = _thresholds(node, state, strict)
    chain.operators.append(state.operator)
    chain.parameters.append(parameters)
    if state.pool:
        chain.operators.append(state.pool)
        chain.parameters.append(PoolParameters(invert))
    return Bits(slope, shift, 1, state.shape, state.shape)


def _thresholds(node: Any, state: Sums, zero_counts: bool) -> tuple[MatrixParameters, NDArray[np.bool_]]:
    """Rows whose bit is ``slope * (X + extra) + shift >= 0``, and those that a pool inverts.

    ONNX's Sign makes 0 of 0, no bit, so X must miss it.
    """
    state = replace(state, slope=np.broadcast_to(state.slope, len(state.weights)))
    turned = np.signbit(state.slope)  # of zero too: a pool in front of it is one of AND then
    if state.pool is None:
        state, turned = state.turned(turned), np.zeros_like(turned)
    n, slope = state.most, state.slope
    if not np.isfinite(slope).all() or not np.isfinite(state.shift).all():
        raise Refusal(node, "its sums are scaled or shifted by a number that is not finite")

    def value(accumulator: NDArray[np.int64]) -> NDArray[np.float64]:
        return slope * (2 * accumulator - n + state.extra) + state.shift

    # The least accumulator from which on the bit is what it is at the largest, by halving.
    low = np.zeros(np.broadcast_shapes(state.extra.shape, state.shift.shape), np.int64)
    high = np.full(low.shape, n + 1)
    while (low < high).any():
        middle = (low + high) // 2
        reached = ((value(middle) >= 0) != turned) | (middle > n)
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    if zero_counts and (zero := (value(low - turned) == 0) & (low - turned >= 0) & (low - turned <= n)).any():
        raise Refusal(node, f"sums of row {np.argwhere(zero)[0][-1]} can be 0, which is neither -1 nor +1")
    return MatrixParameters(state.weights, low), turned
