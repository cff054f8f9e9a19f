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
from cbnn.hw.mvtu.rom import rom, rom_submodules
from cbnn.hw.stream import Kernel, Port, Rom, Schedule, counter


@dataclass(frozen=True)
class MaxPool(Kernel):
    """OR over size x size pixels, in steps of `size`; rows and columns left over are dropped.

    What enters: pixels row by row, `pe` channels of `mmv` neighbouring ones per beat. What leaves:
    pooled pixels, likewise; as many neighbouring ones per beat as lie side by side in one that
    enters, at least one.

    Attributes
    ----------
    invert : one word of `pe` bits per group of channels: which of them are inverted once pooled
    beat_cycles : cycles from one beat to the next that the unit in front of it gives
    mmv : a multiple or a divisor of `size`; divides the columns
    writable : whether a host can write `invert`
    """

    in_shape: tuple[int, int, int]
    size: int
    pe: int
    invert: tuple[int, ...]
    beat_cycles: int = 1
    mmv: int = 1
    writable: bool = False

    LUT_CONSTANTS = (1.16, 0.69, 2.8)

    @property
    def groups(self) -> int:
        """Beats per pixel."""
        return self.in_shape[2] // self.pe

    @property
    def columns(self) -> int:
        """Columns of beats, of each group of channels."""
        return self.in_shape[1] // self.mmv

    @property
    def pool_columns(self) -> int:
        """Columns of beats in a pool, or in several ones side by side."""
        return max(1, self.size // self.mmv)

    @property
    def pools(self) -> int:
        """Pools side by side in a beat."""
        return max(1, self.mmv // self.size)

    @property
    def out_beats(self) -> tuple[int, int]:
        """Rows and columns of beats that leave, of each group of channels."""
        return self.in_shape[0] // self.size, self.columns // self.pool_columns

    inputs = property(lambda self: (Port(self.mmv * self.pe, self.in_shape[0] * self.columns * self.groups),))
    outputs = property(lambda self: (Port(self.pools * self.pe, self.out_beats[0] * self.out_beats[1] * self.groups),))

    @property
    def interval_cycles(self) -> int:
        """A beat in per cycle."""
        return self.s_axis.beats

    @property
    def latency_cycles(self) -> int:
        """A beat leaves the cycle after the one that completes it."""
        rows, columns = self.out_beats
        return ((rows * self.size - 1) * self.columns + columns * self.pool_columns) * self.groups

    @property
    def memory_luts(self) -> int:
        """LUTs of the partial results."""
        return ram_luts(self.out_beats[1] * self.groups, self.pools * self.pe)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """Partial results; OR and multiplexer; counters of rows, columns and partial results.

        A LUT of six inputs has room for four pixels, the partial result and the choice; one more for five more pixels.
        """
        counts = self.in_shape[0], self.columns, self.out_beats[1] * self.groups
        n_pixels = self.mmv // self.pools
        return self.memory_luts, self.m_axis.width * -(-(n_pixels + 1) // 5), sum((n - 1).bit_length() for n in counts)

    @property
    def schedule(self) -> Schedule:
        """A beat leaves for each that completes a pool."""
        return Schedule(Schedule.Kind.EACH, (1,), tuple(self._ends.astype(int).tolist()))

    @property
    def _ends(self) -> NDArray[np.bool_]:
        """Whether a beat that enters completes a pool."""
        rows, columns = (np.arange(n) % size == size - 1 for n, size in
                         ((self.in_shape[0], self.size), (self.columns, self.pool_columns)))
        return np.repeat(np.outer(rows, columns).ravel(), self.groups)

    def most_waiting(self, width: int) -> int:
        """Beats that wait at most if they are handed out in pieces of `width` bits, one per cycle.

        What leaves comes in bursts, in the last of every `size` rows. What enters comes evenly,
        every `beat_cycles`, or as slowly as handing out takes on average.
        """
        period, left = self.s_axis.beats, self.m_axis.beats
        piece_cycles = self.m_axis.width * period  # a cycle is `period * width` units of time
        enter_cycles = max(self.beat_cycles * period * width, self.m_axis.width * left)
        unit = gcd(enter_cycles, piece_cycles)
        ends = np.flatnonzero(self._ends)
        come = np.concatenate([ends, ends + period]) * (enter_cycles // unit)
        in_turn = np.arange(len(come)) * (piece_cycles // unit)
        start = in_turn + np.maximum.accumulate(come - in_turn)
        return int(np.max(np.arange(1, len(come) + 1) - np.searchsorted(start, come, "right")))

    @property
    def flips(self) -> tuple[int, ...]:
        """What is inverted of every beat that leaves, per group; the pools of a beat have the same channels."""
        return tuple(sum(word << i * self.pe for i in range(self.pools)) for word in self.invert)

    @property
    def roms(self) -> tuple[Rom, ...]:
        """The flips, where they are writable."""
        return (Rom(f"{self.name}_flips", self.m_axis.width, self.flips, writable=True, registered=False),
                ) if self.writable else ()

    memories = property(lambda self: {"to_flips": self.roms[0]} if self.writable else {})
    kept_modules = property(lambda self: frozenset(self.submodules()))

    def submodules(self) -> dict:
        """Return what constructs the memory of the flips."""
        return rom_submodules(self.roms)

    def hardware(self, clk, rst, s_axis, m_axis, to_flips=None):
        """Return the block."""
        return max_pool(clk, rst, s_axis, m_axis, to_flips, self)


@block
def max_pool(clk, rst, s_axis, m_axis, to_flips, unit):
    """Max pooling over bits: OR of the pixels of a pool; one beat in per cycle.

    A result leaves a cycle after the beat that completes its pool. For example, rows of four pixels
    and pools of two:

        row 0  1 0 0 0    partial results 1 0
        row 1  0 0 0 1    results         1 1
    """
    size, width, groups = unit.size, unit.m_axis.width, unit.groups
    last_sub_row, last_sub_column = size - 1, unit.pool_columns - 1
    partial = [Signal(intbv(0)[width:]) for _ in range(unit.out_beats[1] * groups)]
    # A table of one entry would not convert, so it has two.
    invert = unit.flips * (1 + (groups == 1))
    advance, go = Signal(bool(0)), Signal(bool(0))
    pool_start, pool_end, dropped, image_end = (Signal(bool(0)) for _ in range(4))
    group, sub_row, sub_column = counter(groups), counter(size), counter(unit.pool_columns)
    address = counter(unit.out_beats[1] * groups)
    flip, earlier, merged = (Signal(intbv(0)[width:]) for _ in range(3))
    beat = s_axis.tdata if unit.mmv == 1 else Signal(intbv(0)[width:])
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
        pool_end.next = sub_row == last_sub_row and sub_column == last_sub_column and not dropped

    @always_comb
    def look():
        earlier.next = partial[address]

    if unit.writable:
        looking_up = rom(clk, None, group, flip, unit.roms[0], to_flips)
    else:
        @always_comb
        def look_up():
            flip.next = invert[group]

    if unit.mmv > 1:
        merging_beat = merge_pixels(s_axis.tdata, beat, unit)

    @always_comb
    def merge():
        if pool_start:
            # What an earlier pool left is overwritten, so that partial results need no reset.
            merged.next = beat
        else:
            merged.next = beat | earlier

    @always(clk.posedge)
    def store():
        # Dropped columns have the address of the last pool of their row, which must stay as it is.
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
            # The image's last beat may be dropped, so tlast goes with its last pool.
            m_axis.tlast.next = image_end

    return instances()


@block
def merge_pixels(pixels, beat, unit):
    """OR the pixels of a beat that are of the same pool.

    For example, with four pixels and pools of two, 0 1 0 0 becomes 1 0.
    """
    pools, n_pixels, pe = unit.pools, unit.mmv // unit.pools, unit.pe

    @always_comb
    def merge():
        for pool in range(pools):
            for channel in range(pe):
                merged = intbv(0)[1:]
                for i in range(n_pixels):
                    merged[:] = merged | pixels[(pool * n_pixels + i) * pe + channel]
                beat.next[pool * pe + channel] = merged

    return merge


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
    size, groups = unit.size, unit.groups
    last_sub_row, last_sub_column = size - 1, unit.pool_columns - 1
    n_rows, n_columns = unit.in_shape[0], unit.columns
    last_row, last_column = unit.out_beats[0] * size - 1, unit.out_beats[1] * unit.pool_columns - 1
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

    if last_column < n_columns - 1:
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
            if column_end or sub_column == last_sub_column:
                sub_column.next = 0
            else:
                sub_column.next = sub_column + 1

    @always_seq(clk.posedge, reset=rst)
    def step_rows():
        if go and column_end:
            if raster_end or sub_row == last_sub_row:
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
            elif sub_column != last_sub_column:
                # The next pixel of a pool has the same partial results.
                if not dropped:
                    address.next = address - to_pixel_start
            elif column < last_column:
                address.next = address + 1

    return instances()
