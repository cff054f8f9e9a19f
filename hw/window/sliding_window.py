"""Sliding window unit (SWU): a line buffer that turns a raster of pixels into windows.

The line buffer is a ring of words. Rows are freed as soon as no window needs them, and rows of the next image are
taken in while the last windows of this one leave, so that images follow each other without a gap. Padding costs no
cycle: words outside the image are replaced on their way out. In the first layer a pixel holds several bit slices,
and every window leaves once per slice.

A unit that must deliver several pixels per cycle keeps a copy of the ring per pixel, all read at once.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

import numpy as np
from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.cost import memory_block_rams, memory_luts
from cbnn.hw.delay import advance_when_free
from cbnn.hw.stream import Kernel, Port, Schedule
from cbnn.hw.window.line_buffer import fill_level, line_buffer
from cbnn.hw.window.window_walk import Walk, select_padding, walk_windows
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.matrix import MatrixShape


@dataclass(frozen=True)
class SlidingWindow(Kernel):
    """Windows of one convolution.

    What enters: pixels row by row; of each pixel every slice, MSB first; of each slice all channels, `word` per beat.
    What leaves: windows row by row; of each window every slice; of each slice rows, columns, channels,
    ``ports * word`` bits per beat.

    Attributes
    ----------
    word : bits of the line buffer's words; divides the channels
    ports : pixels delivered per cycle; above 1 only where `word` holds all channels
    pooled_from : rows and columns before the pooling that pixels come from, and its size, where they do; they come
        in bursts then
    """

    in_shape: tuple[int, int, int]
    layer: Conv
    n_slices: int
    word: int
    ports: int
    pooled_from: tuple[int, int, int] | None = None

    @staticmethod
    def word_of(shape: MatrixShape, simd: int) -> int:
        """Bits of a word of the line buffer of a layer's unit, which it takes per beat."""
        channels = shape.in_shape[2]
        return simd if channels % simd == 0 else channels

    @classmethod
    @lru_cache(4096)
    def for_layer(cls, name: str, shape: MatrixShape, simd: int,
                  pooled_from: tuple[int, int, int] | None = None) -> "SlidingWindow":
        """Build the narrowest unit that delivers `simd` inputs per cycle to the matrix unit of a convolution."""
        layer = cast(Conv, shape.operator)
        word = cls.word_of(shape, simd)
        ports = next(n for n in _port_counts(layer.kernel) if n * word >= simd)
        return cls(name, shape.in_shape, layer, shape.n_slices, word, ports, pooled_from)

    @property
    def words_per_tap(self) -> int:
        """Words that the channels of one pixel and slice fill."""
        return self.in_shape[2] // self.word

    @property
    def pixel_words(self) -> int:
        """Words of a pixel, all slices."""
        return self.n_slices * self.words_per_tap

    @property
    def row_words(self) -> int:
        """Words of a row of the image."""
        return self.in_shape[1] * self.pixel_words

    @property
    def window_beats(self) -> int:
        """Beats of a window, all slices."""
        return self.layer.kernel**2 // self.ports * self.pixel_words

    @cached_property
    def n_windows(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        edge = 2 * self.layer.padding - self.layer.kernel
        height, width, _ = self.in_shape
        return (height + edge) // self.layer.stride + 1, (width + edge) // self.layer.stride + 1

    @cached_property
    def first_rows(self) -> tuple[int, ...]:
        """For each row of windows the first row of the image that it needs."""
        return tuple(max(0, i * self.layer.stride - self.layer.padding) for i in range(self.n_windows[0]))

    @cached_property
    def end_rows(self) -> tuple[int, ...]:
        """For each row of windows the row of the image behind the last one that it needs."""
        return _ends(self.n_windows[0], self.in_shape[0], self.layer)

    @cached_property
    def end_columns(self) -> tuple[int, ...]:
        """For each column of windows the column of the image behind the last one that it needs."""
        return _ends(self.n_windows[1], self.in_shape[1], self.layer)

    @cached_property
    def depth(self) -> int:
        """Words of the ring, a power of two.

        Where both sides take the whole interval for an image, neither ever waits for the other: windows leave evenly,
        the first one as late as it must so that no other waits for its pixels. Room is needed for what has come or is
        coming when a row of windows has left, less the rows freed before.
        """
        height, width, _ = self.in_shape
        rows, columns, pool = self.pooled_from or (height, width, 1)
        row_windows, n_windows, n_pixels = self.n_windows[1], self.n_windows[0] * self.n_windows[1], rows * columns
        # An image takes n_windows * n_pixels units of time, and a pixel before pooling comes every n_windows.
        last_rows, last_columns = (np.arange(1, n + 1) * pool - 1 for n in (height, width))
        came = (last_rows[:, np.newaxis] * columns + last_columns + 1) * n_windows
        needed = came[np.ix_(np.array(self.end_rows) - 1, np.array(self.end_columns) - 1)].ravel()
        start = np.max(needed - np.arange(n_windows) * n_pixels)
        images, rest = np.divmod(start + np.arange(1, self.n_windows[0] + 1) * row_windows * n_pixels,
                                 n_windows * n_pixels)
        coming = images * height * width + np.searchsorted(came.ravel() - n_windows, rest)
        held = int(np.max(coming * self.pixel_words - np.array(self.first_rows) * self.row_words))
        return 1 << (held - 1).bit_length()

    @cached_property
    def most_owed(self) -> int:
        """Words that may be freed before they come, since no window needs them: a stride passes them over."""
        return max(0, *(after * self.row_words - self.stored_words(i, self.n_windows[1] - 1)
                        for i, after in enumerate([*self.first_rows[1:], self.in_shape[0]])))

    def stored_words(self, i: int, j: int) -> int:
        """Words of the image that have come once window row `i`, column `j` is complete."""
        return (self.end_rows[i] - 1) * self.row_words + self.end_columns[j] * self.pixel_words

    LUT_CONSTANTS = (1.01, 1.19, 7.53)
    inputs = property(lambda self: (Port(self.word, self.in_shape[0] * self.row_words),))
    outputs = property(lambda self: (
        Port(self.word * self.ports, self.n_windows[0] * self.n_windows[1] * self.window_beats),))

    @property
    def interval_cycles(self) -> int:
        """A word in and a beat out per cycle, at once."""
        return max(self.s_axis.beats, self.m_axis.beats)

    @property
    def latency_cycles(self) -> int:
        """A window starts when its last pixel has been stored and the window before has left; then a beat a cycle."""
        start = -self.window_beats
        for i in range(self.n_windows[0]):
            for j in range(self.n_windows[1]):
                start = max(start + self.window_beats, self.stored_words(i, j))
        return start + self.window_beats

    @property
    def memory_luts(self) -> int:
        """LUTs of the copies of the ring, where they are not block RAM."""
        return self.ports * memory_luts(self.depth, self.word)

    @property
    def block_rams(self) -> int:
        """A copy of the ring per port."""
        return self.ports * memory_block_rams(self.depth, self.word)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """Ring; bits that may be padding; addresses and loops."""
        padded = self.m_axis.width if self.layer.padding else 0
        return self.memory_luts, padded, (self.depth - 1).bit_length()

    @property
    def schedule(self) -> Schedule:
        """Windows leave as their words come, words come as rows are freed."""
        rows, columns = self.n_windows
        freed = tuple(first * self.row_words for first in (*self.first_rows[1:], self.in_shape[0]))
        needed = tuple(self.stored_words(i, j) for i in range(rows) for j in range(columns))
        return Schedule(Schedule.Kind.WINDOWS, (1, self.depth, self.window_beats, rows), freed + needed)

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block."""
        return sliding_window(clk, rst, s_axis, m_axis, self)


def _port_counts(kernel: int) -> list[int]:
    """Pixels that can be delivered per cycle: parts of a window row, or whole rows, in equal steps."""
    square = kernel**2
    return [n for n in range(1, square + 1) if square % n == 0 and (kernel % n == 0 or n % kernel == 0)]


def _ends(n: int, size: int, layer: Conv) -> tuple[int, ...]:
    return tuple(min(size, i * layer.stride - layer.padding + layer.kernel) for i in range(n))


@block
def sliding_window(clk, rst, s_axis, m_axis, unit):
    """Sliding window unit: pixels in, windows out; one word in and one beat out per cycle.

    Two cycles pass from the last word of a window coming in to its first word leaving. The line
    buffer is read synchronously, so that it may be block RAM.
    """
    depth, ports = unit.depth, unit.ports
    advance, read = Signal(bool(0)), Signal(bool(0))
    write, available = Signal(bool(0)), Signal(bool(0))
    write_address = Signal(modbv(0)[depth.bit_length() - 1 :])
    walk = Walk(unit)
    (*_, column, row), (*_, row_end, image_end), read_address = walk.indices, walk.ends, walk.address
    taps = [Signal(intbv(0)[unit.word :]) for _ in range(ports)]
    s_axis.tlast.read = True  # pixels are counted instead

    level_keeper = fill_level(clk, rst, write, row_end, read, row, column, available, s_axis.tready, unit)
    walker = walk_windows(clk, rst, read, walk, unit)
    rings = [line_buffer(clk, write, write_address, s_axis.tdata, advance, read_address, taps[port],
                         _port_offset(unit, port), depth) for port in range(ports)]
    edges = [select_padding(clk, advance, walk, taps, m_axis.tdata, unit)]

    handshaking = advance_when_free(m_axis, advance)

    @always_comb
    def handshake():
        read.next = available and advance
        write.next = s_axis.tvalid and s_axis.tready

    @always_seq(clk.posedge, reset=rst)
    def move():
        if write:
            write_address.next = write_address + 1
        if advance:
            m_axis.tvalid.next = available

    @always(clk.posedge)
    def mark_last():
        if advance:
            m_axis.tlast.next = image_end

    return instances()


def _port_offset(unit: SlidingWindow, port: int) -> int:
    return port // unit.layer.kernel * unit.row_words + port % unit.layer.kernel * unit.pixel_words
