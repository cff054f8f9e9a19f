"""Pipelines: when their registers move on, and words and flags that wait beside them."""

from itertools import pairwise

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv


@block
def advance_when_free(m_axis, advance):
    """Let a pipeline move on unless its last register holds a beat that is not taken.

        tvalid   0 1 1 1 0
        tready   0 1 0 0 0
        advance  1 1 0 0 1

    `advance` is low while a beat waits, and so is `tready` of a stream that enters the pipeline.
    """

    @always_comb
    def find_advance():
        advance.next = m_axis.tready or not m_axis.tvalid

    return instances()


@block
def delay(clk, rst, advance, source, delayed, cycles):
    """Delay a word by `cycles` in which `advance` is high; none at all if `cycles` is 0.

    `rst` clears flags. It is None for data, whose flags say whether they count.
    """
    if cycles == 0:
        @always_comb
        def drive():
            delayed.next = source
        return drive
    # A register per cycle: all of them stand still together, so that words and flags stay side by side.
    line = [source, *(Signal(intbv(0)[len(source) :]) for _ in range(cycles - 1)), delayed]
    return [register(clk, rst, advance, before, after) for before, after in pairwise(line)]


@block
def register(clk, rst, advance, word, held):
    """Register a word."""
    if rst is None:
        @always(clk.posedge)
        def hold():
            if advance:
                held.next = word
    else:
        @always_seq(clk.posedge, reset=rst)
        def hold():
            if advance:
                held.next = word

    return hold
