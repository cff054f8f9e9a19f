"""Processing element (PE): one row of the matrix at a time, from words of inputs to a bit or a sum."""

from myhdl import Signal, always, always_comb, block, instances, intbv, modbv

from cbnn.hw.instance import Place, instance
from cbnn.hw.mvtu.weighted_count import weighted_count
from cbnn.hw.mvtu.xnor_popcount import xnor_popcount

ACCUMULATOR_STAGES = 2
"""Cycles from the count of the last word of a row to the row's result: add, and decide."""


@block
def processing_element(clk, advance, valid, first, shift, inputs, weights, row, result, unit):
    """Accumulate popcounts over the words of a row, and give a bit or a score.

    inputs and weights enter together. The flags valid and first (first word of the row) come with
    the count, after the popcount's pipeline. All registers hold while advance is low.

    Without shift: row comes with the count. The sum starts from it, so that its top bit is the
    result, or the sum is the score; that takes no comparator. Threshold 5, counts 2 and 4 of a row,
    5 bits: the sum starts at 16 - 5 = 11 and is 13, then 17, whose top bit is set since 6 >= 5.

    With shift: it is the bits by which the sum is shifted where a bit slice starts (Horner's rule).
    Slices that count 2 and 1, counts 3 and 1: the sum is 3, then 2 * 3 + 1 = 7. row comes with the
    sum, a cycle after the count, and is the threshold, or is added.
    """
    sum_width = unit.sum_width
    count = Signal(intbv(0, min=0, max=unit.count.highest + 1))
    accumulator, carried = Signal(modbv(0)[sum_width:]), Signal(modbv(0)[sum_width:])
    top_bit, scores = sum_width - 1, isinstance(result.val, intbv)
    place = Place(unit.count_module, "count_agreement")
    if len(unit.lanes) == 1:
        counting = instance(place, xnor_popcount, clk, advance, weights, inputs, count, unit.counters)
    else:
        counting = instance(place, weighted_count, clk, advance, weights, inputs, count, unit)

    # What is added is chosen before the one adder, a LUT per bit; two adders and a choice may take more.
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
