"""Sliding window unit (SWU): a line buffer that turns a raster of pixels into windows.

The line buffer is a ring of words. Rows are freed as soon as no window needs them, and rows of the
next image are taken in while the last windows of this one leave, so that images follow each other
without a gap. Padding costs no cycle: pixels outside the image are replaced on their way out. Where
slices of a tensor come one after another, or group by group, every window leaves once per slice, or
group.

A unit that must deliver several words per cycle keeps a copy of the ring per word, all read at
once. A unit that gives several neighbouring windows per cycle has words of as many pixels, and so
also takes as many pixels per cycle.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

import numpy as np
from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.cost import memory_block_rams, memory_luts
from cbnn.hw.delay import advance_when_free
from cbnn.hw.stream import Kernel, Port, Schedule
from cbnn.hw.window.line_buffer import RingPort, Side, fill_level, line_buffer
from cbnn.hw.window.neighbours import join_windows
from cbnn.hw.window.window_walk import Walk, inside_masks, select_padding, walk_windows
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.matrix import MatrixShape


@dataclass(frozen=True)
class SlidingWindow(Kernel):
    """Windows of one convolution.

    What enters: pixels row by row; of each pixel every slice, or group of slices side by side, the
    highest first; of these all channels, `word` bits per beat. What leaves: windows row by row; of
    each window every slice, or group; of these rows, columns, channels, ``ports * word`` bits per
    beat.

    With `mmv` above 1 a word that enters has `mmv` neighbouring pixels, and a beat that leaves has
    `mmv` whole neighbouring windows.

    Attributes
    ----------
    in_shape : rows, columns, and bits of a pixel in one slice, or group of slices
    n_slices : slices, or groups, that come one after another
    word : bits of the line buffer's words; divides the bits of a pixel, or is `mmv` times these
    ports : words delivered per cycle; above 1 only where `word` holds a whole pixel
    pooled_from : None, or, where pixels come from a pool, the rows and columns before it, and its
        size; they come in bursts then
    mmv : neighbouring windows per beat
    """

    in_shape: tuple[int, int, int]
    layer: Conv
    n_slices: int
    word: int
    ports: int
    pooled_from: tuple[int, int, int] | None = None
    mmv: int = 1

    @staticmethod
    def word_of(shape: MatrixShape, simd: int, together: int, mmv: int) -> int:
        """Bits of a word of the line buffer of a layer's unit, which it takes per beat."""
        bits = together * shape.in_shape[2]
        return simd if bits % simd == 0 and mmv == 1 else mmv * bits

    @classmethod
    @lru_cache(4096)
    def for_layer(cls, name: str, shape: MatrixShape, simd: int, together: int = 1, mmv: int = 1,
                  pooled_from: tuple[int, int, int] | None = None) -> "SlidingWindow":
        """Build the narrowest unit that gives a matrix unit words of `simd` bits of `mmv` windows.

        `together` slices lie side by side.
        """
        layer = cast(Conv, shape.operator)
        word = cls.word_of(shape, simd, together, mmv)
        if mmv == 1:
            ports = next(n for n in _port_counts(layer.kernel) if n * word >= simd)
        else:
            ports = layer.kernel * len(_span_words(layer, mmv))
        height, width, channels = shape.in_shape
        return cls(name, (height, width, together * channels), layer, shape.n_slices // together, word, ports,
                   pooled_from, mmv)

    @property
    def words_per_tap(self) -> int:
        """Words that one pixel, or `mmv` pixels, fill in one slice, or group."""
        return self.mmv * self.in_shape[2] // self.word

    @property
    def pixel_words(self) -> int:
        """Words of a pixel, or of `mmv` pixels, all slices."""
        return self.n_slices * self.words_per_tap

    @property
    def row_words(self) -> int:
        """Words of a row of the image."""
        return self.in_shape[1] // self.mmv * self.pixel_words

    @property
    def window_beats(self) -> int:
        """Beats of a window, or of `mmv` windows, all slices."""
        if self.mmv > 1:
            return 1
        return self.layer.kernel**2 // self.ports * self.pixel_words

    @cached_property
    def n_windows(self) -> tuple[int, int]:
        """Rows and columns of windows, of which `mmv` in a row count as one."""
        edge = 2 * self.layer.padding - self.layer.kernel
        height, width, _ = self.in_shape
        return (height + edge) // self.layer.stride + 1, ((width + edge) // self.layer.stride + 1) // self.mmv

    @cached_property
    def first_rows(self) -> tuple[int, ...]:
        """For each row of windows the first row of the image that it needs."""
        return tuple(max(0, i * self.layer.stride - self.layer.padding) for i in range(self.n_windows[0]))

    @cached_property
    def end_rows(self) -> tuple[int, ...]:
        """For each row of windows the row of the image after the last one that it needs."""
        return _ends(self.n_windows[0], self.in_shape[0], self.layer)

    @cached_property
    def end_columns(self) -> tuple[int, ...]:
        """For each column of windows the column of words after the last one that it needs."""
        ends = _ends(self.n_windows[1] * self.mmv, self.in_shape[1], self.layer)
        return tuple(-(-end // self.mmv) for end in ends[self.mmv - 1 :: self.mmv])

    @cached_property
    def depth(self) -> int:
        """Words of the ring, a power of two.

        Where both sides take the whole interval for an image, neither ever waits for the other:
        windows leave evenly, the first one as late as it must so that no other waits for its
        pixels. Room is needed for what has come or is coming when a row of windows has left, less
        the rows freed before.
        """
        height, width, _ = self.in_shape
        rows, columns, pool = self.pooled_from or (height, width, 1)
        row_windows, n_windows, n_pixels = self.n_windows[1], self.n_windows[0] * self.n_windows[1], rows * columns
        # An image takes n_windows * n_pixels units of time, and a pixel before pooling comes every n_windows.
        # Pixels that fill a word come together.
        last_rows = np.arange(1, height + 1) * pool - 1
        last_columns = np.arange(1, width // self.mmv + 1) * self.mmv * pool - 1
        came = (last_rows[:, np.newaxis] * columns + last_columns + 1) * n_windows
        needed = came[np.ix_(np.array(self.end_rows) - 1, np.array(self.end_columns) - 1)].ravel()
        start = np.max(needed - np.arange(n_windows) * n_pixels)
        images, rest = np.divmod(start + np.arange(1, self.n_windows[0] + 1) * row_windows * n_pixels,
                                 n_windows * n_pixels)
        words_coming = np.searchsorted(came.ravel() - self.mmv * n_windows, rest)
        coming = images * height * (width // self.mmv) + words_coming
        held = int(np.max(coming * self.pixel_words - np.array(self.first_rows) * self.row_words))
        return 1 << (held - 1).bit_length()

    @cached_property
    def most_owed(self) -> int:
        """Words that may be freed before they come, since a stride skips them."""
        return max(0, *(after * self.row_words - self.stored_words(i, self.n_windows[1] - 1)
                        for i, after in enumerate([*self.first_rows[1:], self.in_shape[0]])))

    def stored_words(self, i: int, j: int) -> int:
        """Words of the image that have come once window row `i`, column `j` is complete."""
        return (self.end_rows[i] - 1) * self.row_words + self.end_columns[j] * self.pixel_words

    LUT_CONSTANTS = (1.01, 1.19, 7.53)
    inputs = property(lambda self: (Port(self.word, self.in_shape[0] * self.row_words),))
    outputs = property(lambda self: (
        Port(self.beat_bits, self.n_windows[0] * self.n_windows[1] * self.window_beats),))

    @property
    def beat_bits(self) -> int:
        """Bits of a beat that leaves."""
        return self.mmv * self.layer.kernel**2 * self.in_shape[2] if self.mmv > 1 else self.ports * self.word

    @property
    def span_words(self) -> range:
        """Columns of the words that the windows of a beat reach over, see `_span_words`."""
        return _span_words(self.layer, self.mmv)

    @property
    def span_pixels(self) -> int:
        """Columns of pixels that the windows of a beat reach over."""
        return (self.mmv - 1) * self.layer.stride + self.layer.kernel

    @property
    def tap_steps(self) -> tuple[int, int]:
        """By how many rows and columns of a window a beat moves on."""
        kernel = self.layer.kernel
        return (kernel, kernel) if self.mmv > 1 else (max(1, self.ports // kernel), min(self.ports, kernel))

    @cached_property
    def port_places(self) -> tuple[tuple[int, int], ...]:
        """Row and column, in words, of what each port reads, relative to the first port's."""
        columns = len(self.span_words)
        return tuple(divmod(port, columns) for port in range(self.ports))

    @property
    def interval_cycles(self) -> int:
        """A word in and a beat out per cycle, at once."""
        return max(self.s_axis.beats, self.m_axis.beats)

    @property
    def latency_cycles(self) -> int:
        """A beat a cycle, once a window's last pixel is stored and the one before has left."""
        start = -self.window_beats
        for i in range(self.n_windows[0]):
            for j in range(self.n_windows[1]):
                start = max(start + self.window_beats, self.stored_words(i, j))
        return start + self.window_beats

    @property
    def memory_luts(self) -> int:
        """LUTs of the copies of the ring, where they are not block RAM."""
        return sum(memory_luts(self.depth, self.word, bits) for bits in self._bits_read)

    @property
    def block_rams(self) -> int:
        """A copy of the ring per port."""
        return sum(memory_block_rams(self.depth, self.word, bits) for bits in self._bits_read)

    @cached_property
    def _bits_read(self) -> list[range]:
        """Bits of its words that each port reads; ports that read nothing but padding are left out.

        Of several windows the first and the last reach over parts of words.
        """
        if self.mmv == 1:
            return [range(self.word)] * self.ports
        rows, columns = self._reached(any)
        bits, places = self.in_shape[2], [divmod(column - self.layer.padding, self.mmv) for column in columns]
        in_words = [[place for word_read, place in places if word_read == word] for word in self.span_words]
        return [range(pixels[0] * bits, (pixels[-1] + 1) * bits) for pixels in in_words if pixels] * len(rows)

    def _reached(self, which: Callable[[Iterable[int]], bool]) -> tuple[list[int], list[int]]:
        """Return rows and columns that a beat's windows reach over and the image has, in any or in all beats."""
        layer = self.layer
        row_masks = inside_masks(self.n_windows[0], self.in_shape[0], layer.stride, layer.kernel, layer.padding)
        column_masks = inside_masks(self.n_windows[1], self.in_shape[1], self.mmv * layer.stride, self.span_pixels,
                                    layer.padding)
        columns = sorted({i * layer.stride + j for i in range(self.mmv) for j in range(layer.kernel)})
        return ([i for i in range(layer.kernel) if which(mask >> i & 1 for mask in row_masks)],
                [j for j in columns if which(mask >> j & 1 for mask in column_masks)])

    @cached_property
    def _padded_bits(self) -> int:
        """Bits that may be padding; of several windows, which share them, those that are not always the same."""
        if self.mmv == 1:
            return self.m_axis.width if self.layer.padding else 0
        (rows, columns), (rows_inside, columns_inside) = self._reached(any), self._reached(all)
        return self.in_shape[2] * (len(rows) * len(columns) - len(rows_inside) * len(columns_inside))

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """Ring; bits that may be padding; addresses and loops."""
        return self.memory_luts, self._padded_bits, (self.depth - 1).bit_length()

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
    """Pixels that can be delivered per cycle: an equal part of a window's row, or of its rows."""
    square = kernel**2
    return [n for n in range(1, square + 1) if square % n == 0 and (kernel % n == 0 or n % kernel == 0)]


def _span_words(layer: Conv, mmv: int) -> range:
    """Columns of words that `mmv` neighbouring windows reach over.

    Column 0 is where the first window would start without padding. For example, four 3x3 windows
    with padding of 1 reach over pixels -1 to 4, and so over words -1 to 1 of four pixels.
    """
    last = (mmv - 1) * layer.stride + layer.kernel - 1
    return range(-layer.padding // mmv, (last - layer.padding) // mmv + 1)


def _ends(n: int, size: int, layer: Conv) -> tuple[int, ...]:
    return tuple(min(size, i * layer.stride - layer.padding + layer.kernel) for i in range(n))


@block
def sliding_window(clk, rst, s_axis, m_axis, unit):
    """Sliding window unit: pixels in, windows out; one word in and one beat out per cycle.

    Two cycles pass from the last word of a window coming in to its first word leaving. The line
    buffer is read synchronously, so that it may be block RAM. Windows of 2 x 2, each a beat, of an
    image of 3 x 3 pixels a to i (a dot is no beat):

        in   a b c d e f g h i . .
        out  . . . . . . 1 2 . 3 4     window 1 is a b d e, window 3 is d e g h
    """
    depth, ports = unit.depth, unit.ports
    advance, read = Signal(bool(0)), Signal(bool(0))
    write, available = Signal(bool(0)), Signal(bool(0))
    write_address = Signal(modbv(0)[depth.bit_length() - 1 :])
    walk = Walk(unit)
    (*_, column, row), (*_, row_end, image_end), read_address = walk.indices, walk.ends, walk.address
    taps = [Signal(intbv(0)[unit.word :]) for _ in range(ports)]
    s_axis.tlast.read = True  # pixels are counted instead

    level_keeper = fill_level(clk, rst, walk, Side(s_axis.tready, write), Side(available, read), unit)
    walker = walk_windows(clk, rst, read, walk, unit)
    rings = [line_buffer(clk, RingPort(write, write_address, s_axis.tdata), RingPort(advance, read_address, taps[port]),
                         _port_offset(unit, port), depth) for port in range(ports)]
    if unit.mmv > 1:
        edges = join_windows(clk, advance, row, column, taps, m_axis.tdata, unit)
    else:
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
    row, column = unit.port_places[port]
    return row * unit.row_words + column * unit.pixel_words
