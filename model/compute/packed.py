"""The golden model's fast implementation: XNOR and popcount on packed words of 64 bits, compiled by numba.

A window's words are gathered once and held against all rows. ``n - popcount(w ^ x)`` bits agree,
and a sum reaches its threshold where few enough disagree. A first layer whose slices share weights
takes whole pixels: of a row in which all weights are 0, ``sum(v)`` bits disagree, each as often as
it counts, and a weight 1 adds ``full - 2 v``. Images are shared out over threads.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.compute.packed_kernels import (
    ROWS,
    TILE,
    Sweep,
    lay_out,
    pool,
    score_windows,
    set_bits,
    threshold_windows,
)
from cbnn.model.network import Network
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import PoolParameters, PoolShape
from cbnn.model.operators.operator import OperatorShape, Parameters
from cbnn.model.topology import INPUT

Words = NDArray[np.uint64]
BATCH = 32
"""Images that a thread works on at once; bounds the memory, and keeps it in the caches."""


@dataclass(frozen=True)
class PackedMatrix:
    """A matrix operator.

    Attributes
    ----------
    shape : its sizes
    weights : (blocks of `ROWS` rows, words of a window, `ROWS`), uint64; where pixels enter whole
        (blocks, pixels and colours of a window), uint16, a bit per row
    pixel_bits : bits of a pixel where rows of pixels are packed without gaps; 0 where every pixel
        has its own words
    most : (places, rows) how many weighted bits may disagree for a row's bit to be 1; of the last
        layer, the score of a row with which no bit disagrees; filled up to whole blocks
    places : of every window, its row in `most`
    full : what all bits of a pixel count, where pixels enter whole; else 0
    kernel : rows and columns of a window
    pad : words of a pixel outside the image, or what its colours add
    """

    shape: MatrixShape
    weights: NDArray[np.uint64 | np.uint16]
    pixel_bits: int
    most: NDArray[np.int64]
    places: NDArray[np.int64]
    full: int
    kernel: tuple[int, int]
    pad: NDArray[np.uint64 | np.int32]

    def apply(self, words: NDArray[np.uint64 | np.int32]) -> Words:
        """Bits of every window, packed, (N, rows, columns, words); or scores, int64 seen as words.

        Scores of rows that only fill a block follow the others.
        """
        stride, edge = self.shape.operator.stride, self.shape.operator.padding
        n, height, width, pixel_words = words.shape
        row_words = (width + 2 * edge) * pixel_words
        if self.pixel_bits:
            row_words = _n_words((width + 2 * edge) * self.pixel_bits) + 1  # one to spare
        pixel_rows = np.zeros((n, height + 2 * edge, row_words), words.dtype)
        lay_out(words, self.pixel_bits, edge, self.pad, pixel_rows)

        rows, columns, mh = self.shape.out_shape
        scores = self.shape.operator.scores
        n_blocks, window_words = self.weights.shape[:2]
        windows = np.empty((TILE, window_words + 1), words.dtype)  # one to spare, or for what all rows add
        # The last tile may write further windows than there are.
        out = np.zeros((n * rows * columns + TILE, n_blocks * ROWS if scores else _n_words(mh)), np.uint64)
        geometry = rows, columns, stride, *self.kernel, pixel_words, self.pixel_bits, self.full
        sweep = Sweep(self.weights, self.most, self.places, geometry, windows, np.zeros(TILE, np.int64))
        (score_windows if scores else threshold_windows)(pixel_rows, sweep, n * rows * columns, out)
        return out[: n * rows * columns].reshape(n, rows, columns, -1)


@dataclass(frozen=True)
class PackedPool:
    """A pool; `invert` holds words of the bits that are inverted after it."""

    shape: PoolShape
    invert: Words

    def apply(self, words: Words) -> Words:
        """OR over squares of words; rows and columns that fill none are dropped."""
        out = np.empty((len(words), *self.shape.out_shape[:2], words.shape[-1]), np.uint64)
        pool(words, self.shape.operator.size, self.invert, out)
        return out


Packed = PackedMatrix | PackedPool


def pack(bits: NDArray[np.uint8]) -> Words:
    """Pack the last axis into words of 64 bits, the first bit lowest, filled up with 0."""
    padded = np.zeros((*bits.shape[:-1], _n_words(bits.shape[-1]) * 64), np.uint8)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def _n_words(n_bits: int) -> int:
    return -(-n_bits // 64)


@lru_cache(8)
def pack_network(network: Network) -> tuple[Packed, ...]:
    """Pack a network's operators; the last few networks are remembered."""
    first = network.topology.taker(INPUT)
    nodes = zip(network.topology.shapes, network.parameters, strict=True)
    return tuple(_packed(shape, parameters, takes_pixels=i == first) for i, (shape, parameters) in enumerate(nodes))


def _packed(shape: OperatorShape, parameters: Parameters, takes_pixels: bool) -> Packed:
    if isinstance(shape, PoolShape) and isinstance(parameters, PoolParameters):
        return PackedPool(shape, pack(parameters.invert.astype(np.uint8)))
    assert isinstance(shape, MatrixShape)
    assert isinstance(parameters, MatrixParameters)
    return _pack_matrix(shape, parameters, whole=takes_pixels and _is_whole(shape))


def _is_whole(shape: MatrixShape) -> bool:
    """Whether a single window takes the whole image, which then need not be cut into pixels."""
    return shape.kernel == shape.in_shape[:2] and not shape.operator.padding


def _pack_matrix(shape: MatrixShape, parameters: MatrixParameters, whole: bool) -> PackedMatrix:
    full = shape.tensor.highest if shape.tensor.shared and shape.n_slices > 1 else 0
    kernel = (1, 1) if whole else shape.kernel
    if whole:
        weights = parameters.weights.reshape(shape.mh, 1, 1, shape.mw)
    else:
        by_pixel = shape.ordered(parameters.weights, ("row", "column", "slice", "channel"))
        weights = by_pixel.reshape(shape.mh, *kernel, -1)
    bits = weights.shape[-1]
    n_blocks = -(-shape.mh // ROWS)
    weights = np.concatenate([weights, np.zeros((n_blocks * ROWS - shape.mh, *weights.shape[1:]), np.uint8)])
    if parameters.thresholds is not None:
        allowed = np.atleast_2d(shape.max_accumulator - parameters.thresholds)
    else:
        assert parameters.offsets is not None
        allowed = np.atleast_2d(shape.max_accumulator + parameters.offsets)
    most = np.full((len(allowed), n_blocks * ROWS), -1, np.int64)  # no bit of a row that fills a block is ever 1
    most[:, : shape.mh] = allowed
    places = shape.places.ravel() if len(most) > 1 else np.zeros(shape.n_windows, np.int64)
    pad_bit = shape.operator.pad_bit
    blocks: NDArray
    pad: NDArray
    if full:
        gapless, pad = False, np.full(bits, full * (1 - 2 * pad_bit), np.int32)
        blocks = np.packbits(weights.reshape(n_blocks, ROWS, -1), axis=1, bitorder="little")
        blocks = np.ascontiguousarray(blocks.transpose(0, 2, 1)).view("<u2")[..., 0]
    else:
        gapless = _n_words(weights[0].size) < weights[0].size // bits * _n_words(bits)
        pad = pack(np.full(bits, pad_bit, np.uint8))
        packed = pack(weights.reshape(len(weights), -1) if gapless else weights)
        blocks = np.ascontiguousarray(packed.reshape(n_blocks, ROWS, -1).transpose(0, 2, 1))
    return PackedMatrix(shape, blocks, bits if gapless else 0, most, places, full, kernel, pad)


def scores(network: Network, images: NDArray, n_threads: int | None = None) -> NDArray[np.int64]:
    """Score of every class for every image, as `golden.scores`.

    Parameters
    ----------
    n_threads : None: one per core

    Raises
    ------
    ValueError
        When the images' shape, dtype or range is not the network's.
    """
    values = network.look_up(images)
    packed = pack_network(network)
    starts = range(0, len(values), BATCH)
    with ThreadPoolExecutor(n_threads or os.cpu_count()) as pool:
        batches = pool.map(lambda i: _forward(network, packed, values[i : i + BATCH]), starts)
        return np.concatenate(list(batches))


def _forward(network: Network, packed: tuple[Packed, ...], values: NDArray) -> NDArray[np.int64]:
    topology = network.topology
    outputs: dict[int, Any] = {INPUT: pack_images(network, values)}
    for i, (node, operator) in enumerate(zip(topology.nodes, packed, strict=True)):
        # Taken once, so that its memory is free again.
        outputs[i] = operator.apply(*(outputs.pop(source) for source in node.inputs))
    words: Words = outputs[len(packed) - 1]
    return words.view(np.int64)[:, 0, 0, : topology.n_classes]


def pack_images(network: Network, images: NDArray) -> NDArray[np.uint64 | np.int32]:
    """Words of (N, height, width, words), slices as channels; or what a weight 1 of every pixel and colour adds.

    An image that a single window takes is one pixel.
    """
    topology = network.topology
    first = pack_network(network)[topology.taker(INPUT)]
    assert isinstance(first, PackedMatrix)
    height, width, colours = (1, 1, images[0].size) if _is_whole(first.shape) else images.shape[1:]
    if first.full:
        values = np.arange(1 << topology.input_bits)
        counts = (values[:, np.newaxis] >> np.array(topology.kept_slices) & 1) @ np.array(topology.tensor.slices)
        return (first.full - 2 * counts).astype(np.int32)[images].reshape(len(images), height, width, colours)
    words = np.zeros((len(images), height * width, _n_words(colours * len(topology.kept_slices))), np.uint64)
    values = np.ascontiguousarray(images.reshape(len(images), height * width, colours), np.uint16)
    set_bits(values, np.array(topology.kept_slices), words)
    return words.reshape(len(images), height, width, -1)
