"""Max pooling: over bits it is OR, row by row with one row of partial results."""

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np
from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv
from numpy.typing import NDArray

from cbnn.hw.cost import ram_luts
from cbnn.hw.delay import advance_when_free
from cbnn.hw.loops import loop_signals, nested_loops
from cbnn.hw.stream import Kernel, Port, Schedule, counter


@dataclass(frozen=True)
class MaxPool(Kernel):
    """OR over size x size pixels, in steps of `size`; rows and columns that fill no pool are dropped.

    What enters and leaves: pixels row by row, `pe` channels per beat.

    Attributes
    ----------
    invert : one word of `pe` bits per group of channels: which of them are inverted once pooled
    beat_cycles : cycles from one beat to the next that the unit in front of it gives
    """

    in_shape: tuple[int, int, int]
    size: int
    pe: int
    invert: tuple[int, ...]
    beat_cycles: int = 1

    LUT_CONSTANTS = (1.16, 0.69, 2.8)

    @property
    def groups(self) -> int:
        """Beats per pixel."""
        return self.in_shape[2] // self.pe

    @property
    def out_shape(self) -> tuple[int, int]:
        """Rows and columns that leave."""
        return self.in_shape[0] // self.size, self.in_shape[1] // self.size

    inputs = property(lambda self: (Port(self.pe, self.in_shape[0] * self.in_shape[1] * self.groups),))
    outputs = property(lambda self: (Port(self.pe, self.out_shape[0] * self.out_shape[1] * self.groups),))

    @property
    def interval_cycles(self) -> int:
        """A beat in per cycle."""
        return self.s_axis.beats

    @property
    def latency_cycles(self) -> int:
        """A beat leaves the cycle after the one that completes it."""
        height, width = (n // self.size * self.size for n in self.in_shape[:2])
        return ((height - 1) * self.in_shape[1] + width) * self.groups

    @property
    def memory_luts(self) -> int:
        """LUTs of the partial results."""
        return ram_luts(self.in_shape[1] // self.size * self.groups, self.pe)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """Partial results; OR and multiplexer; counters of rows, columns and partial results."""
        height, width, _ = self.in_shape
        counts = height, width, width // self.size * self.groups
        return self.memory_luts, self.pe, sum((n - 1).bit_length() for n in counts)

    @property
    def schedule(self) -> Schedule:
        """A beat leaves for each that completes a pool."""
        return Schedule(Schedule.Kind.EACH, (1,), tuple(self._ends.astype(int).tolist()))

    @property
    def _ends(self) -> NDArray[np.bool_]:
        """Whether a beat that enters completes a pool."""
        rows, columns = (np.arange(n) % self.size == self.size - 1 for n in self.in_shape[:2])
        return np.repeat(np.outer(rows, columns).ravel(), self.groups)

    def most_waiting(self, width: int) -> int:
        """Beats that wait at most where those that leave are handed out in pieces of `width` bits, one per cycle.

        What leaves comes in bursts, in the last of every `size` rows; what enters comes evenly, every `beat_cycles`
        or as slowly as handing out takes on average.
        """
        period, left = self.s_axis.beats, self.m_axis.beats
        piece_cycles = self.pe * period  # a cycle is `period * width` units of time
        enter_cycles = max(self.beat_cycles * period * width, self.pe * left)
        unit = gcd(enter_cycles, piece_cycles)
        ends = np.flatnonzero(self._ends)
        come = np.concatenate([ends, ends + period]) * (enter_cycles // unit)
        in_turn = np.arange(len(come)) * (piece_cycles // unit)
        start = in_turn + np.maximum.accumulate(come - in_turn)
        return int(np.max(np.arange(1, len(come) + 1) - np.searchsorted(start, come, "right")))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block."""
        return max_pool(clk, rst, s_axis, m_axis, self)


@block
def max_pool(clk, rst, s_axis, m_axis, unit):
    """Max pooling over bits: OR of the pixels of a pool; one beat in per cycle.

    A result leaves a cycle after the beat that completes its pool. Rows of four pixels, pools of two:

        row 0  1 0 0 0    partial results 1 0
        row 1  0 0 0 1    results         1 1
    """
    size, pe, groups = unit.size, unit.pe, unit.groups
    pool_columns, last_sub = unit.in_shape[1] // size, size - 1
    partial = [Signal(intbv(0)[pe:]) for _ in range(pool_columns * groups)]
    invert = unit.invert if len(unit.invert) > 1 else unit.invert * 2
    advance, go = Signal(bool(0)), Signal(bool(0))
    pool_start, pool_end, dropped, image_end = (Signal(bool(0)) for _ in range(4))
    group, sub_row, sub_column = counter(groups), counter(size), counter(size)
    address = counter(pool_columns * groups)
    flip, earlier, merged = (Signal(intbv(0)[pe:]) for _ in range(3))
    s_axis.tlast.read = True  # pixels are counted instead

    walk = Walk(group, sub_row, sub_column, address, dropped, image_end)
    walking = walk_pools(clk, rst, go, walk, unit)

    handshaking = advance_when_free(m_axis, advance)

    @always_comb
    def take():
        s_axis.tready.next = advance
        go.next = s_axis.tvalid and advance

    @always_comb
    def find_pool():
        pool_start.next = sub_row == 0 and sub_column == 0
        pool_end.next = sub_row == last_sub and sub_column == last_sub and not dropped

    @always_comb
    def look():
        earlier.next = partial[address]

    @always_comb
    def look_up():
        flip.next = invert[group]

    @always_comb
    def merge():
        if pool_start:
            merged.next = s_axis.tdata
        else:
            merged.next = s_axis.tdata | earlier

    @always(clk.posedge)
    def store():
        if go and not dropped:
            partial[address].next = merged

    @always_seq(clk.posedge, reset=rst)
    def finish():
        if advance:
            m_axis.tvalid.next = s_axis.tvalid and pool_end

    @always(clk.posedge)
    def move_data():
        if advance:
            m_axis.tdata.next = merged ^ flip
            m_axis.tlast.next = image_end

    return instances()


class Walk(NamedTuple):
    """Where a beat lies: its group of channels, its pixel within a pool, its partial result.

    Attributes
    ----------
    dropped : it belongs to no pool
    image_end : it completes the last pool of the image
    """

    group: Signal
    sub_row: Signal
    sub_column: Signal
    address: Signal
    dropped: Signal
    image_end: Signal


@block
def walk_pools(clk, rst, go, walk, unit):
    """Count through the raster: which pool a beat belongs to, and where in it.

    Five columns of one group, pools of two; the fifth column fills no pool:

        column      0 1 2 3 4
        sub column  0 1 0 1 0
        address     0 0 1 1 1
        dropped     0 0 0 0 1
    """
    group, sub_row, sub_column, address, dropped, image_end = walk
    size, groups, last_sub = unit.size, unit.groups, unit.size - 1
    n_rows, n_columns = unit.in_shape[0], unit.in_shape[1]
    last_row, last_column = n_rows // size * size - 1, n_columns // size * size - 1
    to_pixel_start = groups - 1
    loops = range(groups), range(n_columns), range(n_rows)
    (_, column, row), (group_end, column_end, raster_end) = loop_signals(*loops)
    walking = nested_loops(clk, rst, go, (group, column, row), (group_end, column_end, raster_end), loops)

    row_dropped, column_dropped = Signal(bool(0)), Signal(bool(0))

    # What fills no pool is dropped, so an image's last pool may end before its raster.
    if n_rows % size:
        @always_comb
        def drop_rows():
            row_dropped.next = row > last_row

    if n_columns % size:
        @always_comb
        def drop_columns():
            column_dropped.next = column > last_column

    @always_comb
    def find_ends():
        dropped.next = row_dropped or column_dropped
        image_end.next = group_end and column == last_column and row == last_row

    @always_seq(clk.posedge, reset=rst)
    def step_columns():
        if go and group_end:
            if column_end or sub_column == last_sub:
                sub_column.next = 0
            else:
                sub_column.next = sub_column + 1

    @always_seq(clk.posedge, reset=rst)
    def step_rows():
        if go and column_end:
            if raster_end or sub_row == last_sub:
                sub_row.next = 0
            else:
                sub_row.next = sub_row + 1

    @always_seq(clk.posedge, reset=rst)
    def step_address():
        if go:
            if column_end:
                address.next = 0
            elif not group_end:
                if not dropped:
                    address.next = address + 1
            elif sub_column != last_sub:
                # The next pixel of a pool has the same partial results.
                if not dropped:
                    address.next = address - to_pixel_start
            elif column < last_column:
                address.next = address + 1

    return instances()
