"""Word sequencer: which word of which row a matrix unit works on, and what the row needs.

It counts words through slices and rows, addresses the weights, and marks where rows start and end.
"""

from typing import NamedTuple

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.loops import loop_signals, nested_loops
from cbnn.hw.mvtu.rom import rom
from cbnn.hw.stream import counter


class Flags:
    """What is known of a word: the bits of one signal, which goes along with the word."""

    def __init__(self, flags):
        self.image_last, self.last, self.first, self.valid = (flags(i) for i in range(4))
        # Only where slices share their weights; else every word would be in the same slice.
        self.slice_start = flags(4) if len(flags) > 4 else None


class Issued(NamedTuple):
    """A word that was taken and its `flags`; of the one being taken `go`, and the address of its weights."""

    go: Signal
    word: Signal
    weight_address: Signal
    flags: Signal


@block
def issue_words(clk, rst, s_axis, advance, taken, unit):
    """Take a word per cycle, mark it, and address its weights.

    Vectors of three words, two folds of rows, no slices that share weights:

        word     a b c a b c d
        address  0 1 2 3 4 5 0
        first    1 0 0 1 0 0 1
        last     0 0 1 0 0 1 0

    The flags come with the registered word, a cycle after the address.
    """
    go, word, weight_address, issued = taken
    n_slices = len(unit.slice_weights)
    loops = range(unit.pass_words), range(n_slices)
    (in_slice, slice_), (slice_end, row_end) = loop_signals(*loops)
    walking = nested_loops(clk, rst, go, (in_slice, slice_), (slice_end, row_end), loops)
    slice_start, row_start = Signal(bool(0)), Signal(bool(0))
    flags = [go, row_start, row_end, s_axis.tlast]
    all_flags = ConcatSignal(*([slice_start, *flags] if n_slices > 1 else flags))

    @always_comb
    def handshake():
        go.next = advance and s_axis.tvalid
        s_axis.tready.next = advance

    @always(clk.posedge)
    def take():
        if advance:
            word.next = s_axis.tdata

    # In a cycle without a word `go` is low, and marks it as none on its way through the pipeline.
    @always_seq(clk.posedge, reset=rst)
    def flag():
        if advance:
            issued.next = all_flags

    if n_slices == 1:
        @always_comb
        def find_start():
            row_start.next = in_slice == 0

        # Each word of each fold of rows has weights of its own, in the order in which words come.
        addressing = nested_loops(clk, rst, go, (weight_address,), (None,), (range(unit.n_weight_words),))
    else:
        to_slice_start, last_address = unit.pass_words - 1, unit.n_weight_words - 1

        @always_comb
        def find_starts():
            slice_start.next = in_slice == 0
            row_start.next = in_slice == 0 and slice_ == 0

        @always_seq(clk.posedge, reset=rst)
        def step_address():
            if go:
                # All slices read the same weights, so the address falls back until the last of them.
                if slice_end and not row_end:
                    weight_address.next = weight_address - to_slice_start
                elif weight_address == last_address:
                    weight_address.next = 0
                else:
                    weight_address.next = weight_address + 1

    return instances()


@block
def find_shift(clk, rst, advance, flags, shift, gaps):
    """Tell the sum by how many bits to shift: none, but where a further bit slice starts.

    Slices that count 8, 4 and 1, of two words each, shift by 0 0 1 0 2 0.
    """
    valid, first, last, slice_start = flags.valid, flags.first, flags.last, flags.slice_start
    slice_ = counter(len(gaps) + 1)
    gap = Signal(intbv(0, min=0, max=shift.max))

    @always_comb
    def look_up():
        gap.next = gaps[slice_]

    @always_comb
    def choose():
        # A row's first slice has no sum before it that could be shifted.
        if slice_start and not first:
            shift.next = gap
        else:
            shift.next = 0

    @always_seq(clk.posedge, reset=rst)
    def step():
        if advance and valid:
            # Counts the shifts of a row: its n slices have n - 1.
            if last:
                slice_.next = 0
            elif slice_start and not first:
                slice_.next = slice_ + 1

    return instances()


@block
def find_row(clk, rst, advance, flags, row_word, to_rows, unit):
    """Read what each fold of rows needs: the next fold's, once `flags` show the last word of this one."""
    valid, last = flags.valid, flags.last
    n_rows = unit.n_row_words
    row, go = counter(n_rows), Signal(bool(0))
    reading = rom(clk, advance, row, row_word, unit.roms[1], to_rows)
    if n_rows == 1:
        return reading

    @always_comb
    def find_last():
        go.next = advance and valid and last

    # Where windows share their thresholds the words of the folds follow each other, again and again.
    if n_rows == unit.neuron_fold:
        stepping = nested_loops(clk, rst, go, (row,), (None,), (range(n_rows),))
    else:
        stepping = step_places(clk, rst, go, row, unit.neuron_fold, *unit.place_ends)

    return reading, find_last, stepping


@block
def step_places(clk, rst, go, row, neuron_fold, row_ends, column_ends):
    """Address what a fold of rows needs where that depends on the window's border class.

    Words stand class by class, in each of them fold by fold. Windows of a class follow each other in
    runs of rows and of columns; `row_ends` and `column_ends` are the last row or column of each run.
    With two folds, four columns, and runs that end at columns 0, 2 and 3, the addresses of a row are

        column    0   1   2   3
        run       0   1   1   2
        address  0 1 2 3 2 3 4 5

    so that within a run the address falls back to the run's first fold, and at the end of a row of
    windows to the first run of columns.
    """
    n_row_runs, n_column_runs = len(row_ends), len(column_ends)
    to_run_start, to_row_start = neuron_fold - 1, neuron_fold * n_column_runs - 1
    loops = range(neuron_fold), range(column_ends[-1] + 1), range(row_ends[-1] + 1)
    (fold, x, y), (fold_end, x_end, y_end) = loop_signals(*loops)
    walking = nested_loops(clk, rst, go, (fold, x, y), (fold_end, x_end, y_end), loops)
    # A table of one entry would not convert, so it has two.
    row_ends, column_ends = row_ends * (1 + (n_row_runs == 1)), column_ends * (1 + (n_column_runs == 1))
    row_run, column_run = counter(n_row_runs), counter(n_column_runs)
    row_end, column_end = counter(row_ends[-1] + 1), counter(column_ends[-1] + 1)

    @always_comb
    def look_up_row():
        row_end.next = row_ends[row_run]

    @always_comb
    def look_up_column():
        column_end.next = column_ends[column_run]

    @always_seq(clk.posedge, reset=rst)
    def step_runs():
        if go and fold_end:
            # A new row of windows begins in the first run of columns, a new image in the first of rows.
            if x_end:
                column_run.next = 0
                if y_end:
                    row_run.next = 0
                elif y == row_end:
                    row_run.next = row_run + 1
            elif x == column_end:
                column_run.next = column_run + 1

    @always_seq(clk.posedge, reset=rst)
    def step():
        if go:
            # Back where the next window, or row of windows, is of the same class; else forward.
            if y_end:
                row.next = 0
            elif x_end and y != row_end:
                row.next = row - to_row_start
            elif fold_end and not x_end and x != column_end:
                row.next = row - to_run_start
            else:
                row.next = row + 1

    return instances()
