"""Processing element (PE): one row of the matrix at a time, from words of inputs to a bit or a sum."""

from myhdl import Signal, always, always_comb, block, instances, intbv, modbv

from cbnn.hw.instance import Place, instance
from cbnn.hw.mvtu.xnor_popcount import popcount_stages, xnor_popcount


def element_stages(simd: int) -> int:
    """Cycles from the last word of a row entering to its result."""
    return popcount_stages(simd) + 2


@block
def processing_element(clk, advance, valid, first, shift, inputs, weights, row, result, unit):
    """Accumulate popcounts and tell whether they reach the threshold, or give the score.

    `inputs` and `weights` enter together; `valid` and `first` (first word of the row) come `popcount_stages` cycles
    later, with the count. So does `row`, from which the sum starts, so high that its top bit is the result, or that
    it is the score, which takes no comparator and no second adder. Where there is `shift` (it says that a bit slice
    starts that counts 2**shift times less: Horner's rule), `row` comes one cycle later, with the sum, and is the
    threshold, or added. `result` is a bit, or the score. All registers hold while `advance` is low.
    """
    sum_width = unit.sum_width
    count = Signal(intbv(0, min=0, max=len(inputs) + 1))
    accumulator, carried = Signal(modbv(0)[sum_width:]), Signal(modbv(0)[sum_width:])
    top_bit, scores = sum_width - 1, isinstance(result.val, intbv)
    counting = instance(Place(unit.popcount_module, "count_agreement"), xnor_popcount,
                        clk, advance, weights, inputs, count, unit.counters)

    # One addition, of what is chosen before, takes a LUT per bit; two, chosen from, may take more.
    if shift is None:
        @always(clk.posedge)
        def accumulate():
            if advance and valid:
                if first:
                    accumulator.next = row + count
                else:
                    accumulator.next = accumulator + count
    else:
        @always_comb
        def carry_over():
            if first:
                carried.next = 0
            else:
                carried.next = accumulator << shift

        @always(clk.posedge)
        def accumulate():
            if advance and valid:
                accumulator.next = carried + count

    if scores and shift is None:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator
    elif scores:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator + row
    elif shift is None:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator[top_bit]
    else:
        @always(clk.posedge)
        def decide():
            if advance:
                result.next = accumulator >= row

    return instances()
