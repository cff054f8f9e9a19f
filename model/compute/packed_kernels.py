"""Loops of the compiled golden model: packing, windows, the register tile, pooling.

`TILE` windows are held against `ROWS` rows at a time, rows side by side in vectors, sums in
registers, so that nothing is added across a vector. The innermost loops are written in LLVM's own
language. Where the CPU counts the bits of a vector's words (VPOPCNTDQ), each word is counted; where
it has shuffles of bytes instead, carry-save adders make one word to count of eight. All that is
compiled stands in this one file, since numba's cache sees no change in another.

Sources: of the register tile, Goto and van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34(3), 2008; of carry-save adders before the count (Harley and Seal's),
Muła, Kurz and Lemire, "Faster Population Counts Using AVX2 Instructions", arXiv 1611.07612.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

TILE = 8
"""Windows held against `ROWS` rows at a time."""
LANES, VECTORS = 8, 2
"""Rows side by side in a vector (512 bits; LLVM splits it where the CPU has less), and vectors of them."""
ROWS = LANES * VECTORS
CARRYING = 4
"""Windows whose carry-save adders share the registers."""


class Sweep(NamedTuple):
    """What all windows of a matrix operator are held against, and where one tile of them is worked on.

    Attributes
    ----------
    weights, most, places : see `packed.PackedMatrix`
    geometry : rows and columns of windows, stride, rows and columns of a window, words of a pixel,
        bits of a pixel where pixels have no gaps, what all bits of a pixel count where pixels enter
        whole
    windows : a tile of windows, (TILE, words or pixels of a window and one more)
    their_places : place of every window of the tile
    """

    weights: Any
    most: Any
    places: Any
    geometry: tuple[int, ...]
    windows: Any
    their_places: Any


def instructions() -> str:
    """Name what this CPU counts bits with, in LLVM's words."""
    return next((name for name in ("avx512vpopcntdq", "avx512bw", "avx2", "popcnt") if f"+{name}" in _features()),
                "no instruction for it")


def _features() -> list[str]:
    return cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def _compiled(function: Callable) -> Callable:
    """Compile to code that holds no lock, counts no references, and is kept on disk."""
    return njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)  # type: ignore[call-overload]


class _Code:
    """LLVM code that holds `TILE` windows against a block of `ROWS` rows.

    `counted`, `carried` and `added` return vectors of `LANES` sums, of bits that disagree:
    `VECTORS` of every window.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        windows, weights = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1))
        self.builder, self.block, self.windows, self.weights = builder, arguments[2], windows.data, weights.data
        self.window = cgutils.unpack_tuple(builder, windows.shape)[1]
        self.n = cgutils.unpack_tuple(builder, weights.shape)[1]
        self.element = windows.data.type.pointee
        self.vector = ir.VectorType(self.element, ROWS * 32 // self.element.width)

    def index(self, n: int) -> Any:
        """Write a number to count with."""
        return ir.Constant(ir.IntType(64), n)

    def sums(self, n: int) -> list:
        """Make places for vectors, all 0."""
        zero = ir.Constant(self.vector, [0] * self.vector.count)
        return [cgutils.alloca_once_value(self.builder, zero) for _ in range(n)]

    def load(self, pointer: Any, at: Any) -> Any:
        """Load an element of an array."""
        return self.builder.load(self.builder.gep(pointer, [at]))

    def spread(self, t: int, at: Any) -> Any:
        """Load a window's word to all lanes."""
        value = self.load(self.windows, self.builder.add(self.builder.mul(self.window, self.index(t)), at))
        undefined = ir.Constant(self.vector, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.vector.count), [0] * self.vector.count)
        return self.builder.shuffle_vector(self.builder.insert_element(undefined, value, self.index(0)), undefined,
                                           lanes)

    def rows(self, at: Any, v: int) -> Any:
        """Load a word of each row of a vector."""
        builder = self.builder
        line = builder.mul(builder.add(builder.mul(self.block, self.n), at), self.index(ROWS))
        here = builder.gep(self.weights, [builder.add(line, self.index(v * LANES))])
        return builder.load(builder.bitcast(here, self.vector.as_pointer()), align=8)

    def add(self, place: Any, value: Any, shift: int = 0) -> None:
        """Add ``value << shift`` to a place."""
        if shift:
            value = self.builder.shl(value, ir.Constant(self.vector, [shift] * self.vector.count))
        self.builder.store(self.builder.add(self.builder.load(place), value), place)

    def count(self, value: Any) -> Any:
        """Count the bits of every lane."""
        kind = ir.FunctionType(self.vector, [self.vector])
        name = f"llvm.ctpop.v{self.vector.count}i{self.element.width}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [value])

    def digits(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """Add three vectors bit by bit: the sums' lower digits, and the carries."""
        builder = self.builder
        if "+avx512f" in _features():  # LLVM finds only one of the two ternary instructions
            kind = ir.FunctionType(self.vector, [self.vector] * 3 + [ir.IntType(32)])
            f = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pternlog.q.512")
            odd, most = (builder.call(f, [a, b, c, ir.Constant(ir.IntType(32), table)]) for table in (0x96, 0xE8))
            return odd, most
        odd = builder.xor(a, b)
        return builder.xor(odd, c), builder.or_(builder.and_(a, b), builder.and_(odd, c))

    def counted(self) -> list[list]:
        """Count every word."""
        places = [self.sums(VECTORS) for _ in range(TILE)]
        with cgutils.for_range(self.builder, self.n) as words:
            rows = [self.rows(words.index, v) for v in range(VECTORS)]
            for t in range(TILE):
                word = self.spread(t, words.index)
                for place, row in zip(places[t], rows, strict=True):
                    self.add(place, self.count(self.builder.xor(word, row)))
        return [[self.builder.load(place) for place in pair] for pair in places]

    def carried(self) -> list[list]:
        """Add words bit by bit, and count a carry of every eight."""
        found: list[list] = [[None] * VECTORS for _ in range(TILE)]
        for v in range(VECTORS):
            for first in range(0, TILE, CARRYING):
                group = range(first, first + CARRYING)
                for t, value in zip(group, self._carried(group, v), strict=True):
                    found[t][v] = value
        return found

    def _carried(self, group: range, v: int) -> list:
        """Hold some windows against one vector of rows; a sum has three binary digits and what eights were counted."""
        builder = self.builder
        states = [self.sums(4) for _ in group]
        rest = builder.and_(self.n, self.index(7))
        single = builder.and_(rest, self.index(1))

        def differing(first: Any, n: int) -> list[list]:
            at = [builder.add(first, self.index(k)) for k in range(n)]
            rows = [self.rows(here, v) for here in at]
            return [[builder.xor(self.spread(t, here), row) for here, row in zip(at, rows, strict=True)]
                    for t in group]

        def full_adder(place: Any, a: Any, b: Any) -> Any:
            """Add two vectors to a digit; return the carry."""
            digit, carry = self.digits(builder.load(place), a, b)
            builder.store(digit, place)
            return carry

        def half_adder(place: Any, a: Any) -> Any:
            digit = builder.load(place)
            builder.store(builder.xor(digit, a), place)
            return builder.and_(digit, a)

        # Up to seven words fit the first three digits.
        with cgutils.for_range(builder, single):
            for (ones, *_), (word,) in zip(states, differing(self.index(0), 1), strict=True):
                builder.store(word, ones)
        with cgutils.for_range(builder, builder.lshr(rest, self.index(1))) as pairs:
            at = builder.add(single, builder.mul(pairs.index, self.index(2)))
            for (ones, twos, fours, _), words in zip(states, differing(at, 2), strict=True):
                half_adder(fours, half_adder(twos, full_adder(ones, *words)))
        with cgutils.for_range(builder, builder.lshr(self.n, self.index(3))) as eights:
            at = builder.add(rest, builder.mul(eights.index, self.index(8)))
            for (ones, twos, fours, total), words in zip(states, differing(at, 8), strict=True):
                carries = [full_adder(ones, *words[k : k + 2]) for k in range(0, 8, 2)]
                carries = [full_adder(twos, *carries[k : k + 2]) for k in range(0, 4, 2)]
                self.add(total, self.count(full_adder(fours, *carries)), 3)
        for ones, twos, fours, total in states:
            for shift, place in enumerate((ones, twos, fours)):
                self.add(total, self.count(builder.load(place)), shift)
        return [builder.load(total) for *_, total in states]

    def added(self) -> list[list]:
        """Add what pixels add where a row's weight is 1 to what every row adds, which follows the pixels."""
        builder = self.builder
        places = self.sums(TILE)
        for t, place in enumerate(places):
            builder.store(self.spread(t, self.n), place)
        bits, zero = ir.VectorType(ir.IntType(1), ROWS), ir.Constant(self.vector, [0] * ROWS)
        with cgutils.for_range(builder, self.n) as pixels:
            at = builder.add(builder.mul(self.block, self.n), pixels.index)
            rows = builder.bitcast(self.load(self.weights, at), bits)
            for t, place in enumerate(places):
                self.add(place, builder.select(rows, self.spread(t, pixels.index), zero))
        wide = ir.VectorType(ir.IntType(64), LANES)

        def part(value: Any, v: int) -> Any:
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(v * LANES, (v + 1) * LANES)))
            return builder.sext(builder.shuffle_vector(value, value, lanes), wide)

        return [[part(builder.load(place), v) for v in range(VECTORS)] for place in places]


def _tile(last: bool) -> Callable:
    """Hold `TILE` windows against a block of `ROWS` rows: an intrinsic of numba's.

    It takes the windows, (TILE, words or pixels and one more); weights, number of the block and
    most as in `PackedMatrix`, and places; and writes to `out`, which begins with these windows: a bit
    per row or, where the layer is the last, the row's score.
    """

    @intrinsic
    def tile(_context: Any, windows: Any, weights: Any, block: Any, most: Any, places: Any,
             out: Any) -> tuple[Any, Callable]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = _Code(context, builder, signature, arguments)
            if windows.dtype == types.int32:
                sums = code.added()
            else:
                sums = code.carried() if instructions() in ("avx512bw", "avx2") else code.counted()
            most_of, place_of, written = (context.make_array(signature.args[i])(context, builder, arguments[i])
                                          for i in (3, 4, 5))
            most_stride, stride = (cgutils.unpack_tuple(builder, array.shape)[1] for array in (most_of, written))
            vector, bits = ir.VectorType(ir.IntType(64), LANES), ir.IntType(LANES)
            for t, vectors in enumerate(sums):
                line = builder.gep(written.data, [builder.mul(code.index(t), stride)])
                limits = builder.gep(most_of.data, [builder.mul(code.load(place_of.data, code.index(t)), most_stride)])
                for v, value in enumerate(vectors):
                    at = builder.add(builder.mul(code.block, code.index(VECTORS)), code.index(v))
                    allowed = builder.load(builder.gep(builder.bitcast(limits, vector.as_pointer()), [at]), align=8)
                    if last:
                        result = builder.sub(allowed, value)
                    else:
                        result = builder.bitcast(builder.icmp_signed("<=", value, allowed), bits)
                    there = builder.gep(builder.bitcast(line, result.type.as_pointer()), [at])
                    builder.store(result, there, align=8 if last else 1)
            return context.get_dummy_value()

        return types.void(windows, weights, block, most, places, out), generate

    return tile


_threshold_tile, _score_tile = _tile(last=False), _tile(last=True)


@_compiled
def set_bits(values, kept, words):
    """Pack the kept slices of (N, pixels, colours) as a pixel's bits."""
    n_values = values.shape[2]
    for n in range(values.shape[0]):
        for pixel in range(values.shape[1]):
            for s in range(len(kept)):
                for c in range(n_values):
                    at = s * n_values + c
                    bit = (np.uint64(values[n, pixel, c]) >> np.uint64(kept[s])) & np.uint64(1)
                    words[n, pixel, at >> 6] |= bit << np.uint64(at & 63)


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
def lay_out(words, pixel_bits, edge, pad, pixel_rows):
    """Surround images with padding, and close the gaps between pixels where `pixel_bits` is not 0."""
    n_images, height, width, pixel_words = words.shape
    for n in range(n_images):
        for i in range(-edge, height + edge):
            row = pixel_rows[n, i + edge]
            for j in range(-edge, width + edge):
                inside = 0 <= i < height and 0 <= j < width
                pixel = words[n, i, j] if inside else pad
                for k in range(pixel_words):
                    if pixel_bits:
                        _deposit(np.uint64(pixel[k]), row, (j + edge) * pixel_bits + 64 * k)
                    else:
                        row[(j + edge) * pixel_words + k] = pixel[k]


@_compiled
def _gather(pixel_rows, top, left, geometry, window):
    """Copy a window out of the rows of (rows, words); after whole pixels comes what disagrees with weights 0."""
    _, _, _, kernel_rows, kernel_columns, pixel_words, pixel_bits, full = geometry
    if pixel_bits:
        n = kernel_columns * pixel_bits
        word, filled, k = np.uint64(0), 0, 0
        for i in range(kernel_rows):
            for at in range(0, n, 64):
                size = min(64, n - at)
                bits = np.uint64(_extract(pixel_rows[top + i], left * pixel_bits + at, size))
                word |= bits << np.uint64(filled)
                filled += size
                if filled >= 64:
                    window[k] = word
                    k, filled = k + 1, filled - 64
                    word = bits >> np.uint64(size - filled - 1) >> np.uint64(1)
        if filled:
            window[k] = word
        return
    n = kernel_columns * pixel_words
    for i in range(kernel_rows):
        for k in range(n):
            window[i * n + k] = pixel_rows[top + i, left * pixel_words + k]
    if full:
        total = np.int64(0)
        for k in range(kernel_rows * n):
            total += full - np.int64(window[k])
        window[kernel_rows * n] = total >> 1


@_compiled
def _gather_tile(pixel_rows, first, n_windows, sweep):
    """Copy the next windows, row by row, image by image; fewer than a tile at the end."""
    rows, columns, stride = sweep.geometry[:3]
    n, place = divmod(first, rows * columns)
    i, j = divmod(place, columns)
    for t in range(min(TILE, n_windows - first)):
        sweep.their_places[t] = sweep.places[i * columns + j]
        _gather(pixel_rows[n], i * stride, j * stride, sweep.geometry, sweep.windows[t])
        j += 1
        if j == columns:
            i, j = i + 1, 0
        if i == rows:
            n, i = n + 1, 0


@_compiled
def threshold_windows(pixel_rows, sweep, n_windows, out):
    """Set the bits of all rows, of all windows, in which few enough bits disagree."""
    for first in range(0, n_windows, TILE):
        _gather_tile(pixel_rows, first, n_windows, sweep)
        for block in range(len(sweep.weights)):
            _threshold_tile(sweep.windows, sweep.weights, block, sweep.most, sweep.their_places, out[first:])


@_compiled
def score_windows(pixel_rows, sweep, n_windows, out):
    """Subtract the bits that disagree from the score of a row with which none does."""
    for first in range(0, n_windows, TILE):
        _gather_tile(pixel_rows, first, n_windows, sweep)
        for block in range(len(sweep.weights)):
            _score_tile(sweep.windows, sweep.weights, block, sweep.most, sweep.their_places, out[first:])


@_compiled
def pool(words, size, invert, out):
    """OR over size x size pixels; `invert` acts after it."""
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for k in range(out.shape[3]):
                    word = np.uint64(0)
                    for y in range(i * size, i * size + size):
                        for x in range(j * size, j * size + size):
                            word |= words[n, y, x, k]
                    out[n, i, j, k] = word ^ invert[k]
