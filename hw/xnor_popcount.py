"""XNOR-popcount: how many inputs agree with their weights."""

from myhdl import Signal, always, always_comb, block, instances, intbv, modbv

GROUP = 16
"""Bits counted in one step of the first stage."""
FAN_IN = 4
"""Counts added in one step of the later stages."""


def popcount_stages(simd: int) -> int:
    """Return the cycles from inputs to count: a register behind the groups, one behind every level of adders."""
    stages, counts = 1, -(-simd // GROUP)
    while counts > 1:
        stages, counts = stages + 1, -(-counts // FAN_IN)
    return stages


@block
def xnor_popcount(clk, advance, weights, inputs, count):
    """Count the equal bits of `weights` and `inputs`: one word per cycle, `popcount_stages(simd)` cycles of latency.

    All registers hold while `advance` is low.
    """
    simd = len(inputs)
    agree = Signal(modbv(0)[simd:])
    starts = range(0, simd, GROUP)
    sizes = [min(GROUP, simd - start) for start in starts]
    counts = [Signal(intbv(0, min=0, max=size + 1)) for size in sizes]
    groups = [count_group(clk, advance, agree, counts[i], start, sizes[i]) for i, start in enumerate(starts)]
    adders = []
    while len(counts) > 1:
        inner = [counts[i : i + FAN_IN] for i in range(0, len(counts), FAN_IN)]
        counts = [Signal(intbv(0, min=0, max=sum(c.max - 1 for c in addends) + 1)) for addends in inner]
        adders += [add(clk, advance, addends, total) for addends, total in zip(inner, counts, strict=True)]
    total = counts[0]

    @always_comb
    def compare():
        agree.next = ~(weights ^ inputs)

    @always_comb
    def drive():
        count.next = total

    return groups, adders, compare, drive


@block
def count_group(clk, advance, bits, count, start, size):
    """Count the set bits of ``bits[start + size : start]``."""
    top = size + 1

    @always(clk.posedge)
    def accumulate():
        if advance:
            number = intbv(0, min=0, max=top)
            for i in range(size):
                number[:] = number + bits[start + i]
            count.next = number

    return instances()


@block
def add(clk, advance, addends, total):
    """Add up to four counts."""
    a, b, c, d = (*addends, None, None, None)[:4]
    if len(addends) == 4:
        @always(clk.posedge)
        def accumulate():
            if advance:
                total.next = (a + b) + (c + d)
    elif len(addends) == 3:
        @always(clk.posedge)
        def accumulate():
            if advance:
                total.next = (a + b) + c
    elif len(addends) == 2:
        @always(clk.posedge)
        def accumulate():
            if advance:
                total.next = a + b
    else:
        @always(clk.posedge)
        def accumulate():
            if advance:
                total.next = a
    return accumulate
