"""The golden model's fast implementation: XNOR and popcount on packed words of 64 bits, compiled by numba.

A window's words are gathered once and held against all rows: `TILE` windows against `ROWS` rows at a time, rows side
by side in vectors, sums in registers, so that nothing is added across a vector. ``n - popcount(w ^ x)`` bits agree, and
a sum reaches its threshold where few enough disagree. The innermost loop is written in LLVM's own language, whose
popcount of a vector becomes what the CPU has: VPOPCNTDQ, byte shuffles of AVX-512 or AVX2, or POPCNT. Images are
shared out over threads.

Source of the register tile: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS
34(3), 2008; of counting bits by byte shuffles: Muła, Kurz and Lemire, "Faster Population Counts Using AVX2
Instructions", arXiv 1611.07612.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from cbnn.model.network import Network, Parameters
from cbnn.model.topology import Conv, LayerShape

Words = NDArray[np.uint64]
BATCH = 32
"""Images that a thread works on at once; bounds the memory, and keeps it in the caches."""
TILE = 8
"""Windows held against `ROWS` rows at a time."""
LANES, VECTORS = 8, 2
"""Rows side by side in a vector (512 bits; LLVM splits it where the CPU has less), and vectors of them."""
ROWS = LANES * VECTORS


@dataclass(frozen=True)
class PackedLayer:
    """One layer.

    Attributes
    ----------
    shape : its sizes
    weights : (blocks of `ROWS` rows, words of a window, `ROWS`); a window row by row, in it column by column
    pixel_bits : bits of a pixel where rows of pixels are packed without gaps; 0 where every pixel has its own words
    most : of every row how many weighted bits may disagree for its bit to be 1; of the last layer, the score of a row
        with which no bit disagrees; filled up to whole blocks
    shifts : by how much the sum is shifted left before each pass over a window; a pass is a slice that shares its
        weights with others, or everything
    kernel : rows and columns of a window
    pad_words : words of a pixel outside the image
    invert : words of the bits that are inverted behind pooling; None where there is no pooling
    last : whether it gives scores
    """

    shape: LayerShape
    weights: Words
    pixel_bits: int
    most: NDArray[np.int64]
    shifts: NDArray[np.int64]
    kernel: tuple[int, int]
    pad_words: Words
    invert: Words | None
    last: bool


def instructions() -> str:
    """Name what this CPU counts bits with, in LLVM's words."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return next((name for name in ("avx512vpopcntdq", "avx512bw", "avx2", "popcnt") if f"+{name}" in features),
                "no instruction for it")


def pack(bits: NDArray[np.uint8]) -> Words:
    """Pack the last axis into words of 64 bits, the first bit lowest, filled up with 0."""
    padded = np.zeros((*bits.shape[:-1], _n_words(bits.shape[-1]) * 64), np.uint8)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def _n_words(n_bits: int) -> int:
    return -(-n_bits // 64)


@lru_cache(8)
def pack_network(network: Network) -> tuple[PackedLayer, ...]:
    """Pack a network's layers; the last few networks are remembered."""
    topology = network.topology
    layers = []
    for i, (shape, parameters) in enumerate(zip(topology.shapes, network.parameters, strict=True)):
        slice_weights = topology.slice_weights if i == 0 and topology.first_layer == "weighted" else (1,)
        layers.append(_pack_layer(shape, parameters, slice_weights, first=i == 0))
    return tuple(layers)


def _pack_layer(shape: LayerShape, parameters: Parameters, slice_weights: tuple[int, ...], first: bool) -> PackedLayer:
    height, width, channels = shape.in_shape
    n_own = shape.mw // shape.slice_inputs  # slices with weights of their own
    layer, kernel = shape.layer, (1, 1)
    if isinstance(layer, Conv):
        kernel = layer.kernel, layer.kernel
        weights = parameters.weights.reshape(shape.mh, n_own, *kernel, channels).transpose(0, 2, 3, 1, 4)
        weights = weights.reshape(shape.mh, *kernel, n_own * channels)
    elif first:
        weights = parameters.weights.reshape(shape.mh, 1, 1, shape.mw)
    else:
        kernel = height, width
        weights = parameters.weights.reshape(shape.mh, height, width, channels)
    bits = weights.shape[-1]
    gapless = _n_words(weights[0].size) < weights[0].size // bits * _n_words(bits)
    packed = pack(weights.reshape(shape.mh, -1) if gapless else weights).reshape(shape.mh, -1)
    n_blocks = -(-shape.mh // ROWS)
    blocks = np.zeros((n_blocks * ROWS, packed.shape[1]), np.uint64)
    blocks[: shape.mh] = packed
    most = np.full(n_blocks * ROWS, -1, np.int64)  # no bit of a row that only fills a block is ever 1
    if parameters.thresholds is not None:
        most[: shape.mh] = shape.max_accumulator - parameters.thresholds
    elif parameters.offsets is not None:
        most[: shape.mh] = shape.max_accumulator + parameters.offsets
    pad_bit = layer.pad_bit if isinstance(layer, Conv) else 0
    shifts = [(before // after).bit_length() - 1 for before, after in pairwise((slice_weights[0], *slice_weights))]
    return PackedLayer(
        shape, np.ascontiguousarray(blocks.reshape(n_blocks, ROWS, -1).transpose(0, 2, 1)), bits if gapless else 0,
        most, np.array(shifts, np.int64), kernel, pack(np.full(bits, pad_bit, np.uint8)),
        None if parameters.invert is None else pack(parameters.invert.astype(np.uint8)), parameters.offsets is not None)


def scores(network: Network, images: NDArray, n_threads: int | None = None) -> NDArray[np.int64]:
    """Score of every class for every image, as `golden.scores`, which checks the images.

    Parameters
    ----------
    n_threads : None: one per core
    """
    layers = pack_network(network)
    starts = range(0, len(images), BATCH)
    with ThreadPoolExecutor(n_threads or os.cpu_count()) as pool:
        batches = pool.map(lambda i: _forward(network, layers, images[i : i + BATCH]), starts)
        return np.concatenate(list(batches))


def _forward(network: Network, layers: tuple[PackedLayer, ...], images: NDArray) -> NDArray[np.int64]:
    words = _pack_images(network, layers[0], images)
    for layer in layers[:-1]:
        words = _pooled(layer, _apply(layer, words))
    return _apply(layers[-1], words).view(np.int64)[:, 0, 0, 0, : layers[-1].shape.mh]


def _pack_images(network: Network, first: PackedLayer, images: NDArray) -> Words:
    """Words of (N, passes, height, width, words): slices that share weights one by one, others as channels.

    A dense layer takes the whole image as one pixel.
    """
    kept = network.topology.kept_slices
    n_passes = len(first.shifts)
    height, width, colours = images.shape[1:] if isinstance(first.shape.layer, Conv) else (1, 1, images[0].size)
    words = np.zeros((len(images), n_passes, height * width, _n_words(colours * len(kept) // n_passes)), np.uint64)
    values = np.ascontiguousarray(images.reshape(len(images), height * width, colours), np.uint16)
    _set_bits(values, np.array(kept), words)
    return words.reshape(len(images), n_passes, height, width, -1)


def _apply(layer: PackedLayer, words: Words) -> Words:
    """Bits of every window, packed, (N, 1, rows, columns, words); of the last layer scores, int64 seen as words.

    Scores of rows that only fill a block lie behind the others.
    """
    conv = layer.shape.layer if isinstance(layer.shape.layer, Conv) else None
    stride, edge = (conv.stride, conv.padding) if conv else (1, 0)
    n, n_passes, height, width, pixel_words = words.shape
    row_words = (width + 2 * edge) * pixel_words
    if layer.pixel_bits:
        row_words = _n_words((width + 2 * edge) * layer.pixel_bits) + 1  # one to spare
    pixel_rows = np.zeros((n, n_passes, height + 2 * edge, row_words), np.uint64)
    _lay_out(words, layer.pixel_bits, edge, layer.pad_words, pixel_rows)

    rows, columns, mh = layer.shape.window_shape
    kernel_rows, kernel_columns = layer.kernel
    n_blocks, window_words, _ = layer.weights.shape
    windows = np.empty((TILE, n_passes, window_words + 1), np.uint64)  # one to spare in each pass
    # The last tile may write further windows than there are.
    out = np.zeros((n * rows * columns + TILE, n_blocks * ROWS if layer.last else _n_words(mh)), np.uint64)
    geometry = rows, columns, stride, kernel_rows, kernel_columns, pixel_words, layer.pixel_bits
    sweep = _score_windows if layer.last else _threshold_windows
    sweep(pixel_rows, layer.weights, layer.shifts, layer.most, geometry, windows, n * rows * columns, out)
    return out[: n * rows * columns].reshape(n, 1, rows, columns, -1)


def _pooled(layer: PackedLayer, words: Words) -> Words:
    """OR over pool x pool words; rows and columns that fill no pool are dropped; `invert` acts behind it."""
    if layer.invert is None:
        return words
    assert isinstance(layer.shape.layer, Conv)
    out = np.empty((len(words), 1, *layer.shape.out_shape[:2], words.shape[-1]), np.uint64)
    _pool(words, layer.shape.layer.pool, layer.invert, out)
    return out


def _compiled(function: Callable) -> Callable:
    """Compile to code that holds no lock, counts no references, and is kept on disk."""
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)  # type: ignore[call-overload]


def _tile(last: bool) -> Callable:
    """Hold `TILE` windows against a block of `ROWS` rows: an intrinsic of numba's.

    It takes the windows, (TILE, passes, words and one to spare); weights, number of the block, shifts and most as in
    `PackedLayer`; and writes to `out` from the window `first`: a bit per row or, where the layer is the last, the row's
    score.
    """
    integer = ir.IntType(64)
    vector = ir.VectorType(integer, LANES)

    @intrinsic
    def tile(_context: Any, windows: Any, weights: Any, block: Any, shifts: Any, most: Any, out: Any,
             first: Any) -> tuple[Any, Callable]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def array(i: int) -> Any:
                return context.make_array(signature.args[i])(context, builder, arguments[i])

            def constant(n: int) -> Any:
                return ir.Constant(integer, n)

            def load(pointer: Any, at: Any) -> Any:
                return builder.load(builder.gep(pointer, [at]))

            def load_rows(pointer: Any, at: Any, v: int) -> Any:
                here = builder.gep(pointer, [builder.add(at, constant(v * LANES))])
                return builder.load(builder.bitcast(here, vector.as_pointer()), align=8)

            def spread(value: Any) -> Any:
                undefined = ir.Constant(vector, ir.Undefined)
                lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                return builder.shuffle_vector(builder.insert_element(undefined, value, constant(0)), undefined, lanes)

            block, first = arguments[2], arguments[6]
            _, n_passes, pass_words = cgutils.unpack_tuple(builder, array(0).shape)
            _, n_words, _ = cgutils.unpack_tuple(builder, array(1).shape)
            inputs, rows, shift_by, most_of, written = (array(i).data for i in (0, 1, 3, 4, 5))
            count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]),
                                                   f"llvm.ctpop.v{LANES}i64")
            sums = [[cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * LANES)) for _ in range(VECTORS)]
                    for _ in range(TILE)]
            window = builder.mul(n_passes, pass_words)
            with cgutils.for_range(builder, n_passes, intp=integer) as of_passes:
                shift = spread(load(shift_by, of_passes.index))
                for places in sums:
                    for place in places:
                        builder.store(builder.shl(builder.load(place), shift), place)
                with cgutils.for_range(builder, n_words, intp=integer) as of_words:
                    line = builder.mul(builder.add(builder.mul(block, n_words), of_words.index), constant(ROWS))
                    weights_of = [load_rows(rows, line, v) for v in range(VECTORS)]
                    at = builder.add(builder.mul(of_passes.index, pass_words), of_words.index)
                    for t, places in enumerate(sums):
                        word = spread(load(inputs, builder.add(builder.mul(window, constant(t)), at)))
                        for place, those in zip(places, weights_of, strict=True):
                            differing = builder.call(count, [builder.xor(word, those)])
                            builder.store(builder.add(builder.load(place), differing), place)
            stride = cgutils.unpack_tuple(builder, array(5).shape)[1]
            for t, places in enumerate(sums):
                line = builder.gep(written, [builder.mul(builder.add(first, constant(t)), stride)])
                for v, place in enumerate(places):
                    allowed = load_rows(most_of, builder.mul(block, constant(ROWS)), v)
                    if last:
                        value, kind = builder.sub(allowed, builder.load(place)), vector
                    else:
                        few = builder.icmp_signed("<=", builder.load(place), allowed)
                        value, kind = builder.bitcast(few, ir.IntType(LANES)), ir.IntType(LANES)
                    parts = builder.bitcast(line, kind.as_pointer())
                    at = builder.add(builder.mul(block, constant(VECTORS)), constant(v))
                    builder.store(value, builder.gep(parts, [at]), align=8 if last else 1)
            return context.get_dummy_value()

        return types.void(windows, weights, block, shifts, most, out, first), generate

    return tile


_threshold_tile, _score_tile = _tile(last=False), _tile(last=True)


@_compiled
def _set_bits(values, kept, words):
    """Pack the kept slices of (N, pixels, colours), each in a pass of its own or all as a pixel's bits."""
    n_values = values.shape[2]
    for n in range(values.shape[0]):
        for pixel in range(values.shape[1]):
            for s in range(len(kept)):
                own = words.shape[1] > 1
                at = 0 if own else s * n_values
                for c in range(n_values):
                    bit = (np.uint64(values[n, pixel, c]) >> np.uint64(kept[s])) & np.uint64(1)
                    words[n, s if own else 0, pixel, (at + c) >> 6] |= bit << np.uint64((at + c) & 63)


@_compiled
def _deposit(word, target, at):
    """Write a word to bit `at` of `target`, which is 0 from there on and has a word to spare."""
    here, shift = at >> 6, np.uint64(at & 63)
    target[here] |= word << shift
    target[here + 1] |= word >> np.uint64(1) >> (np.uint64(63) - shift)


@_compiled
def _extract(source, at, n):
    """Read 1 to 64 bits from bit `at` of `source` on, which has a word to spare."""
    here, shift = at >> 6, np.uint64(at & 63)
    word = source[here] >> shift | source[here + 1] << np.uint64(1) << (np.uint64(63) - shift)
    return word & ~np.uint64(0) >> np.uint64(64 - n)


@_compiled
def _lay_out(words, pixel_bits, edge, pad_words, pixel_rows):
    """Surround images with padding, and close the gaps between pixels where `pixel_bits` is not 0."""
    n_images, n_passes, height, width, pixel_words = words.shape
    for n in range(n_images):
        for s in range(n_passes):
            for i in range(-edge, height + edge):
                row = pixel_rows[n, s, i + edge]
                for j in range(-edge, width + edge):
                    inside = 0 <= i < height and 0 <= j < width
                    pixel = words[n, s, i, j] if inside else pad_words
                    for k in range(pixel_words):
                        if pixel_bits:
                            _deposit(pixel[k], row, (j + edge) * pixel_bits + 64 * k)
                        else:
                            row[(j + edge) * pixel_words + k] = pixel[k]


@_compiled
def _gather(pixel_rows, top, left, geometry, window):
    """Copy a window out of the rows of (passes, rows, words)."""
    _, _, _, kernel_rows, kernel_columns, pixel_words, pixel_bits = geometry
    for s in range(window.shape[0]):
        if pixel_bits:
            for k in range(window.shape[1]):
                window[s, k] = 0
            n = kernel_columns * pixel_bits
            for i in range(kernel_rows):
                for k in range(0, n, 64):
                    word = _extract(pixel_rows[s, top + i], left * pixel_bits + k, min(64, n - k))
                    _deposit(word, window[s], i * n + k)
        else:
            n = kernel_columns * pixel_words
            for i in range(kernel_rows):
                for k in range(n):
                    window[s, i * n + k] = pixel_rows[s, top + i, left * pixel_words + k]


@_compiled
def _gather_tile(pixel_rows, first, n_windows, geometry, windows):
    rows, columns, stride = geometry[:3]
    for t in range(min(TILE, n_windows - first)):
        n, place = divmod(first + t, rows * columns)
        i, j = divmod(place, columns)
        _gather(pixel_rows[n], i * stride, j * stride, geometry, windows[t])


@_compiled
def _threshold_windows(pixel_rows, weights, shifts, most, geometry, windows, n_windows, out):
    """Set the bits of all rows, of all windows, in which few enough bits disagree."""
    for first in range(0, n_windows, TILE):
        _gather_tile(pixel_rows, first, n_windows, geometry, windows)
        for block in range(len(weights)):
            _threshold_tile(windows, weights, block, shifts, most, out, first)


@_compiled
def _score_windows(pixel_rows, weights, shifts, most, geometry, windows, n_windows, out):
    """Subtract the bits that disagree from the score of a row with which none does."""
    for first in range(0, n_windows, TILE):
        _gather_tile(pixel_rows, first, n_windows, geometry, windows)
        for block in range(len(weights)):
            _score_tile(windows, weights, block, shifts, most, out, first)


@_compiled
def _pool(words, pool, invert, out):
    for n in range(out.shape[0]):
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                for k in range(out.shape[4]):
                    word = np.uint64(0)
                    for y in range(i * pool, i * pool + pool):
                        for x in range(j * pool, j * pool + pool):
                            word |= words[n, 0, y, x, k]
                    out[n, 0, i, j, k] = word ^ invert[k]
