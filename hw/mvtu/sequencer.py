"""Word sequencer: which word of which row a matrix unit works on, and what the row needs.

It counts words through slices and rows, addresses the weights, and marks where rows start and end.
"""

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.mvtu.rom import rom
from cbnn.hw.stream import counter


@block
def issue_words(clk, rst, s_axis, advance, go, word, weight_address, issued, unit):
    """Take a word per cycle.

    `issued` says of `word`, bit by bit: last of the image, last of a row, first of a row, valid, and, where there are
    several, first of a bit slice.
    """
    n_words, n_slices, n_addresses = unit.pass_words, len(unit.slice_weights), unit.n_weight_words
    to_slice_start = n_words - 1
    in_slice, slice_ = counter(n_words), counter(n_slices)
    slice_start, slice_end, row_start, row_end = (Signal(bool(0)) for _ in range(4))
    flags = [go, row_start, row_end, s_axis.tlast]
    all_flags = ConcatSignal(*([slice_start, *flags] if n_slices > 1 else flags))

    @always_comb
    def handshake():
        go.next = advance and s_axis.tvalid
        s_axis.tready.next = advance

    @always_comb
    def find_ends():
        row_start.next = in_slice == 0 and slice_ == 0
        slice_end.next = in_slice == n_words - 1
        row_end.next = in_slice == n_words - 1 and slice_ == n_slices - 1

    @always(clk.posedge)
    def take():
        if advance:
            word.next = s_axis.tdata

    if n_slices > 1:
        @always_comb
        def find_slice_start():
            slice_start.next = in_slice == 0

    @always_seq(clk.posedge, reset=rst)
    def flag():
        if advance:
            issued.next = all_flags

    @always_seq(clk.posedge, reset=rst)
    def step():
        if go:
            if not slice_end:
                in_slice.next = in_slice + 1
            else:
                in_slice.next = 0
                if not row_end:
                    slice_.next = slice_ + 1
                else:
                    slice_.next = 0

    @always_seq(clk.posedge, reset=rst)
    def step_address():
        if go:
            if slice_end and not row_end:
                weight_address.next = weight_address - to_slice_start
            elif weight_address == n_addresses - 1:
                weight_address.next = 0
            else:
                weight_address.next = weight_address + 1

    return instances()


@block
def find_shift(clk, rst, advance, valid, first, slice_start, last, shift, gaps):
    """Tell the sum by how many bits to shift: none, but where a further bit slice starts."""
    slice_ = counter(len(gaps) + 1)
    gap = Signal(intbv(0, min=0, max=shift.max))

    @always_comb
    def look_up():
        gap.next = gaps[slice_]

    @always_comb
    def choose():
        if slice_start and not first:
            shift.next = gap
        else:
            shift.next = 0

    @always_seq(clk.posedge, reset=rst)
    def step():
        if advance and valid:
            if last:
                slice_.next = 0
            elif slice_start and not first:
                slice_.next = slice_ + 1

    return instances()


@block
def find_row(clk, rst, advance, valid, last, row_word, unit):
    """Read what each fold of rows needs, from the second cycle after the one before has its last word."""
    n_rows = unit.n_row_words
    row = counter(n_rows)
    reading = rom(clk, advance, row, row_word, unit.roms[1])
    if n_rows == unit.neuron_fold:
        @always_seq(clk.posedge, reset=rst)
        def step():
            if advance and valid and last:
                if row == n_rows - 1:
                    row.next = 0
                else:
                    row.next = row + 1
    else:
        go = Signal(bool(0))

        @always_comb
        def find_last():
            go.next = advance and valid and last

        stepping = step_places(clk, rst, go, row, unit.neuron_fold, *unit.place_ends)

    return instances()


@block
def step_places(clk, rst, go, row, neuron_fold, row_ends, column_ends):
    """Address what a fold of rows needs where that depends on the window's place: places row by row, in each its folds.

    Within a run of windows the address falls back to the first fold of the run, at the end of a row of windows to the
    first run of columns.
    """
    last_row, last_column, n_row_runs, n_column_runs = row_ends[-1], column_ends[-1], len(row_ends), len(column_ends)
    to_run_start, to_row_start = neuron_fold - 1, neuron_fold * n_column_runs - 1
    row_ends, column_ends = row_ends * (1 + (n_row_runs == 1)), column_ends * (1 + (n_column_runs == 1))  # for a ROM
    fold, y, x = counter(neuron_fold), counter(last_row + 1), counter(last_column + 1)
    row_run, column_run = counter(n_row_runs), counter(n_column_runs)
    row_end, column_end = counter(last_row + 1), counter(last_column + 1)

    @always_comb
    def look_up_row():
        row_end.next = row_ends[row_run]

    @always_comb
    def look_up_column():
        column_end.next = column_ends[column_run]

    @always_seq(clk.posedge, reset=rst)
    def step():
        if go:
            if fold != neuron_fold - 1:
                fold.next = fold + 1
                row.next = row + 1
            else:
                fold.next = 0
                if x != last_column:
                    x.next = x + 1
                    if x == column_end:
                        column_run.next = column_run + 1
                        row.next = row + 1
                    else:
                        row.next = row - to_run_start
                else:
                    x.next = 0
                    column_run.next = 0
                    if y == last_row:
                        y.next = 0
                        row_run.next = 0
                        row.next = 0
                    else:
                        y.next = y + 1
                        if y == row_end:
                            row_run.next = row_run + 1
                            row.next = row + 1
                        else:
                            row.next = row - to_row_start

    return instances()
