"""Line buffer: the ring of words that a sliding window unit reads from, and what it holds."""

from itertools import pairwise
from typing import NamedTuple

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.stream import counter


class RingPort(NamedTuple):
    """A port of the ring: where `enable` is high, the word at `address` is read or written."""

    enable: Signal
    address: Signal
    data: Signal


@block
def line_buffer(clk, write_port, read_port, offset, depth):
    """One copy of the ring: a write port and a read port, read `offset` words further on.

    A word comes a cycle after its address, and stays while `advance` is low; words 5 to 7 are a to c:

        advance  1 1 0 1 .
        address  5 6 7 7 .
        data     . a b b c
    """
    write, write_address, write_data = write_port
    advance, read_address, read_data = read_port
    memory = [Signal(intbv(0)[len(write_data) :]) for _ in range(depth)]
    address = Signal(modbv(0)[len(read_address) :])

    @always_comb
    def move_on():
        address.next = read_address + offset

    # Both ports are synchronous, so that the ring may be block RAM. No word is read in the cycle in which it is
    # written, since it counts from the next one on: what a RAM gives then does not matter.
    @always(clk.posedge)
    def access():
        if write:
            memory[write_address].next = write_data
        if advance:
            read_data.next = memory[address]

    return instances()


class Side(NamedTuple):
    """A side of the ring: whether a word, or a window, can pass it, and whether one does."""

    free: Signal
    moves: Signal


@block
def fill_level(clk, rst, walk, entering, leaving, unit):
    """Count the words held since the first row in use; tell whether a word fits and whether the window is complete.

    For example, windows of 3 x 3 without padding, rows of 8 words: two rows and three words complete
    the first window, 2 * 8 + 3 = 19 words, and one word more the second. The last window of the row
    frees 8 words, and of the 24 that it needed 16 are left for the first window below.
    """
    (*_, column, row), (*_, row_end, _) = walk.indices, walk.ends
    (ready, write), (available, read) = entering, leaving
    freed_words = tuple(n * unit.row_words for n in _freed_rows(unit))
    row_words = tuple((end - 1 - first) * unit.row_words
                      for end, first in zip(unit.end_rows, unit.first_rows, strict=True))
    # Rows that no window needs may be freed before they come, so counting starts at the most that can be owed.
    empty, full = unit.most_owed, unit.most_owed + unit.depth
    column_words = tuple(empty + end * unit.pixel_words for end in unit.end_columns)
    level = Signal(intbv(empty, min=0, max=full + 1))
    freed, needed_rows, needed_columns = (counter(full + 1) for _ in range(3))

    @always_comb
    def look_up_freed():
        freed.next = freed_words[row]

    @always_comb
    def look_up_rows():
        needed_rows.next = row_words[row]

    @always_comb
    def look_up_columns():
        needed_columns.next = column_words[column]

    @always_comb
    def compare():
        # A full ring takes no word even while rows are freed, so that tready depends on registers only.
        ready.next = level != full
        available.next = level >= needed_rows + needed_columns

    @always_seq(clk.posedge, reset=rst)
    def count():
        # Words count one by one; a row of windows frees its rows all at once, with its last beat.
        if write and read and row_end:
            level.next = level + 1 - freed
        elif write:
            level.next = level + 1
        elif read and row_end:
            level.next = level - freed

    return instances()


def _freed_rows(unit) -> list[int]:
    """Rows of the image that are free once each row of windows has left; with the last one all of them."""
    firsts = [*unit.first_rows, unit.in_shape[0]]
    return [after - before for before, after in pairwise(firsts)]
