"""The golden model's fast implementation: XNOR and popcount on packed words of 64 bits, compiled by numba.

Bits of a pixel's channels are packed into words, those that fill no word are 0 in inputs and weights, so that they
agree. A window's words are gathered once and held against every row: ``n - popcount(w ^ x)`` bits agree, and the sum
reaches a threshold where few enough disagree. LLVM makes of these loops what the CPU has: VPOPCNTDQ, AVX-512 or AVX2
byte shuffles, or POPCNT. Images are shared out over threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cbnn.model.network import Network, Parameters
from cbnn.model.slices import bit_slices
from cbnn.model.topology import Conv, LayerShape

Words = NDArray[np.uint64]
BATCH = 32
"""Images that a thread works on at once; bounds the memory, and keeps it in the caches."""
TILE = 8
"""Windows that the same rows are held against."""
NARROW_WORDS = 3
"""Words of a window below which rows are worked on side by side, rather than a row's words."""


@dataclass(frozen=True)
class PackedLayer:
    """One layer.

    Attributes
    ----------
    shape : its sizes
    weights : (rows, words of a window), a window row by row, in it column by column; of narrow windows transposed
    pixel_bits : bits of a pixel that a window is packed from without gaps; 0 where every pixel has words of its own
    most : of every row how many weighted bits may disagree for its bit to be 1; of the last layer, the score of a row
        with which no bit disagrees
    counts : what a bit of each slice counts that shares its weights with others; else (1,)
    kernel : rows and columns of a window
    pad_words : words of a pixel outside the image
    invert : words of the bits that are inverted behind pooling; None where there is no pooling
    last : whether it gives scores
    narrow : whether its weights are transposed
    """

    shape: LayerShape
    weights: Words
    pixel_bits: int
    most: NDArray[np.int64]
    counts: NDArray[np.int64]
    kernel: tuple[int, int]
    pad_words: Words
    invert: Words | None
    last: bool
    narrow: bool


def pack(bits: NDArray[np.uint8]) -> Words:
    """Pack the last axis into words of 64 bits, the first bit lowest, filled up with 0."""
    padded = np.zeros((*bits.shape[:-1], -(-bits.shape[-1] // 64) * 64), np.uint8)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


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
    n_window_bits = weights[0].size
    pixel_bits = bits if bits < 64 and -(-n_window_bits // 64) < weights[0].size // bits else 0
    packed = pack(weights.reshape(shape.mh, -1) if pixel_bits else weights).reshape(shape.mh, -1)
    last = parameters.offsets is not None
    narrow = packed.shape[1] < NARROW_WORDS and not last
    if narrow:
        packed = packed.T
    most = parameters.offsets if parameters.offsets is not None else -_thresholds(parameters)
    pad_bit = layer.pad_bit if isinstance(layer, Conv) else 0
    pad_words = pack(np.full(weights.shape[-1], pad_bit, np.uint8))
    return PackedLayer(shape, np.ascontiguousarray(packed), pixel_bits, shape.max_accumulator + most,
                       np.array(slice_weights, np.int64), kernel, pad_words,
                       None if parameters.invert is None else pack(parameters.invert.astype(np.uint8)), last, narrow)


def _thresholds(parameters: Parameters) -> NDArray[np.int64]:
    assert parameters.thresholds is not None
    return parameters.thresholds


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
    words: NDArray[Any] = _pack_images(network, layers[0], images)
    for layer in layers:
        words = _apply(layer, words)
        if layer.last:
            return words
        words = _pool(layer, words)[:, np.newaxis]
    raise AssertionError("the last layer gives scores")


def _pack_images(network: Network, first: PackedLayer, images: NDArray) -> Words:
    """Words of (N, passes, height, width, words): slices that share weights one by one, others as channels."""
    slices = bit_slices(images, network.topology.kept_slices)
    n, n_slices, height, width, colours = slices.shape
    shared = len(first.counts) > 1
    if not isinstance(first.shape.layer, Conv):
        return pack(slices.reshape(n, n_slices if shared else 1, 1, 1, -1))
    if shared:
        return pack(slices)
    return pack(slices.transpose(0, 2, 3, 1, 4).reshape(n, 1, height, width, n_slices * colours))


def _apply(layer: PackedLayer, words: Words) -> NDArray:
    """Bits of every window, packed, (N, rows, columns, words); of the last layer scores, int64 (N, rows)."""
    conv = layer.shape.layer if isinstance(layer.shape.layer, Conv) else None
    if conv and conv.padding:
        n, passes, height, width, n_words = words.shape
        edge = conv.padding
        padded = np.empty((n, passes, height + 2 * edge, width + 2 * edge, n_words), np.uint64)
        padded[:] = layer.pad_words
        padded[:, :, edge:-edge, edge:-edge] = words
        words = padded
    words = np.ascontiguousarray(words)
    rows, columns, mh = layer.shape.window_shape
    windows = np.empty((TILE, len(layer.counts), layer.weights.shape[0 if layer.narrow else 1]), np.uint64)
    gathering = (*layer.kernel, layer.pixel_bits)
    if layer.last:
        totals = np.empty((len(words), mh), np.int64)
        _scores(words, layer.weights, layer.most, layer.counts, gathering, windows[0], totals)
        return totals
    bits = np.empty((len(words), rows, columns, -(-mh // 64)), np.uint64)
    stride = conv.stride if conv else 1
    if layer.narrow:
        _narrow_bits(words, layer.weights, layer.most, layer.counts, gathering, stride, windows[0],
                     np.empty(64, np.int64), bits)
    else:
        _bits(words, layer.weights, layer.most, layer.counts, gathering, stride, windows, bits)
    return bits


def _pool(layer: PackedLayer, words: Words) -> Words:
    """OR over pool x pool words; rows and columns that fill no pool are dropped; `invert` acts behind it."""
    if layer.invert is None:
        return words
    assert isinstance(layer.shape.layer, Conv)
    pool = layer.shape.layer.pool
    rows, columns, _ = layer.shape.out_shape
    tiles = words[:, : rows * pool, : columns * pool].reshape(len(words), rows, pool, columns, pool, -1)
    return np.bitwise_or.reduce(np.bitwise_or.reduce(tiles, axis=4), axis=2) ^ layer.invert


@intrinsic
def _popcount(_context: Any, word: Any) -> tuple[Any, Callable]:
    """Bits that are set in a word: one instruction of LLVM's."""
    def generate(_generator: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _compiled(function: Callable) -> Callable:
    """Compile to code that holds no lock, counts no references, and is kept on disk."""
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)  # type: ignore[call-overload]


@_compiled
def _gather(words, n, top, left, gathering, window):
    """Copy a window's words, pass by pass, or pack its pixels' bits without gaps."""
    kernel_rows, kernel_columns, pixel_bits = gathering
    pixel_words = words.shape[4]
    for s in range(words.shape[1]):
        at = 0
        if pixel_bits:
            window[s, :] = 0
            for i in range(kernel_rows):
                for j in range(kernel_columns):
                    bits, shift = words[n, s, top + i, left + j, 0], at & 63
                    window[s, at >> 6] |= bits << np.uint64(shift)
                    if shift + pixel_bits > 64:
                        window[s, (at >> 6) + 1] |= bits >> np.uint64(64 - shift)
                    at += pixel_bits
        else:
            for i in range(kernel_rows):
                for j in range(kernel_columns):
                    for k in range(pixel_words):
                        window[s, at] = words[n, s, top + i, left + j, k]
                        at += 1


@_compiled
def _disagreeing(window, weights, row, counts):
    """Count the bits that disagree with a row's weights, each as its slice counts."""
    total = np.int64(0)
    for s in range(len(counts)):
        n = np.uint64(0)
        for k in range(weights.shape[1]):
            n += _popcount(window[s, k] ^ weights[row, k])
        total += counts[s] * np.int64(n)
    return total


@_compiled
def _bits(words, weights, most, counts, gathering, stride, windows, bits):
    """Set the bits of all rows, of all windows, in which few enough bits disagree.

    Rows are taken 64 at a time, a word of bits, and held against several windows while they are in the cache.
    """
    n_rows, window_words = weights.shape
    columns, tile = bits.shape[2], windows.shape[0]
    for n in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            for first in range(0, columns, tile):
                last = min(columns, first + tile)
                for j in range(first, last):
                    _gather(words, n, i * stride, j * stride, gathering, windows[j - first])
                for start in range(0, n_rows, 64):
                    end = min(n_rows, start + 64)
                    for j in range(first, last):
                        word = np.uint64(0)
                        if len(counts) == 1:
                            for row in range(start, end):
                                count = np.uint64(0)
                                for k in range(window_words):
                                    count += _popcount(windows[j - first, 0, k] ^ weights[row, k])
                                word |= np.uint64(np.int64(count) <= most[row]) << np.uint64(row - start)
                        else:
                            for row in range(start, end):
                                few = _disagreeing(windows[j - first], weights, row, counts) <= most[row]
                                word |= np.uint64(few) << np.uint64(row - start)
                        bits[n, i, j, start >> 6] = word


@_compiled
def _narrow_bits(words, weights, most, counts, gathering, stride, window, sums, bits):
    """Do what `_bits` does for windows of few words: with transposed weights, 64 rows side by side."""
    n_words, n_rows = weights.shape
    for n in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            for j in range(bits.shape[2]):
                _gather(words, n, i * stride, j * stride, gathering, window)
                for start in range(0, n_rows, 64):
                    size = min(64, n_rows - start)
                    for row in range(size):
                        sums[row] = 0
                    for s in range(len(counts)):
                        for k in range(n_words):
                            inputs, count = window[s, k], counts[s]
                            for row in range(size):
                                sums[row] += count * np.int64(_popcount(inputs ^ weights[k, start + row]))
                    word = np.uint64(0)
                    for row in range(size):
                        word |= np.uint64(sums[row] <= most[start + row]) << np.uint64(row)
                    bits[n, i, j, start >> 6] = word


@_compiled
def _scores(words, weights, most, counts, gathering, window, totals):
    """Subtract the bits that disagree from the score of a row with which none does; a window is the whole image."""
    for n in range(totals.shape[0]):
        _gather(words, n, 0, 0, gathering, window)
        for row in range(len(most)):
            totals[n, row] = most[row] - _disagreeing(window, weights, row, counts)
