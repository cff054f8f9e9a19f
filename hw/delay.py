"""Delays: flags and words that wait as long as a pipeline beside them takes."""

from myhdl import Signal, always, always_comb, block, instances, intbv


@block
def delay(clk, rst, advance, source, delayed, stages):
    """Delay flags, as pipelines beside them take."""
    line = [Signal(intbv(0)[len(source) :]) for _ in range(stages)]

    @always_comb
    def drive():
        delayed.next = line[stages - 1]

    @always(clk.posedge)
    def step():
        if rst:
            for i in range(stages):
                line[i].next = 0
        elif advance:
            line[0].next = source
            for i in range(1, stages):
                line[i].next = line[i - 1]

    return instances()


@block
def hold(clk, advance, word, held):
    """Register a word."""

    @always(clk.posedge)
    def register():
        if advance:
            held.next = word

    return register
