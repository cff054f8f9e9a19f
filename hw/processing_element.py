"""Processing element (PE): one row of the matrix at a time, from words of inputs to a bit or a sum."""

from myhdl import Signal, always, always_comb, block, instances, intbv, modbv

from cbnn.hw.instance import inside_is_elsewhere, instantiation, placeholder
from cbnn.hw.xnor_popcount import popcount_stages, xnor_popcount


def element_stages(simd: int) -> int:
    """Cycles from the last word of a row entering to its result."""
    return popcount_stages(simd) + 2


@block
def processing_element(clk, advance, valid, first, shift, inputs, weights, start, threshold, result, maximum,
                       popcount_module):
    """Accumulate popcounts and compare them with the threshold.

    `inputs` and `weights` enter together; `valid`, `first` (first word of the row) and `shift` (where a bit slice
    starts that counts 2**shift times less: Horner's rule) come `popcount_stages` cycles later, with the count.
    `result` is the sum, or a bit where one of these is given: `start`, with the count, from which the sum starts so
    high that its top bit is the result, which takes no comparator; or `threshold`, one cycle later, with the sum.
    All registers hold while `advance` is low. `maximum` is the largest sum.
    """
    count = Signal(intbv(0, min=0, max=len(inputs) + 1))
    accumulator = Signal(intbv(0, min=0, max=maximum + 1) if start is None else modbv(0)[len(start) :])
    carried = Signal(intbv(0, min=0, max=maximum + 1))  # the sum so far, nothing at a row's first word
    top_bit = len(accumulator) - 1
    counting = popcount_instance(clk, advance, weights, inputs, count, popcount_module)

    if start is not None:
        @always(clk.posedge)
        def accumulate():
            if advance and valid:
                if first:
                    accumulator.next = start + count
                else:
                    accumulator.next = accumulator + count
    else:
        # One addition, of what is chosen before, takes a LUT per bit; two, chosen from, take more.
        @always(clk.posedge)
        def accumulate():
            if advance and valid:
                accumulator.next = carried + count

    if start is None and shift is None:
        @always_comb
        def carry_over():
            if first:
                carried.next = 0
            else:
                carried.next = accumulator
    elif start is None:
        @always_comb
        def carry_over():
            if first:
                carried.next = 0
            else:
                carried.next = accumulator << shift

    if start is not None:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator[top_bit]
    elif threshold is None:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator
    else:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator >= threshold

    return instances()


@block
def popcount_instance(clk, advance, weights, inputs, count, module):
    """Instantiate XNOR-popcount as a module of its own."""
    popcount_instance.verilog_code = instantiation(
        module, "count_agreement", {"clk": clk, "advance": advance, "weights": weights, "inputs": inputs},
        {"count": count})
    return placeholder() if inside_is_elsewhere() else xnor_popcount(clk, advance, weights, inputs, count, module)
