"""Nested loops: counters that walk through words, rows, slices and windows."""

from myhdl import Signal, always_comb, always_seq, block, instances

from cbnn.hw.stream import counter


@block
def loop(clk, rst, step, inner_end, index, end, values):
    """Count one loop of several nested ones through `values`, a range from 0; then it begins again.

    It steps when `step` is high at the end of all loops inside it, `inner_end`, which is None of the innermost one.
    `end` is high in the last step of this loop and of all inside it; it is None of a single loop whose end nobody
    needs. A loop of one value has no counter.

    Two of three values and two, `step` being high throughout:

        inner index  0 1 2 0 1 2 0
        inner end    0 0 1 0 0 1 0
        outer index  0 0 0 1 1 1 0
        outer end    0 0 0 0 0 1 0
    """
    last, stride = values[-1], values.step

    if inner_end is None:
        if end is not None:
            @always_comb
            def find_end():
                end.next = index == last

        @always_seq(clk.posedge, reset=rst)
        def count():
            if step:
                if index == last:
                    index.next = 0
                else:
                    index.next = index + stride
    elif last == 0:
        @always_comb
        def find_end():
            end.next = inner_end
        return find_end
    else:
        @always_comb
        def find_end():
            end.next = inner_end and index == last

        @always_seq(clk.posedge, reset=rst)
        def count():
            if step and inner_end:
                if index == last:
                    index.next = 0
                else:
                    index.next = index + stride

    return instances()


@block
def nested_loops(clk, rst, step, indices, ends, ranges):
    """Count nested loops, the innermost first, see `loop`.

    Loops of one value inside all others take nothing: their `ends` keep the 1 that they begin with.
    """
    loops, inner_end = [], None
    for index, end, values in zip(indices, ends, ranges, strict=True):
        if inner_end is not None or len(values) > 1:
            loops.append(loop(clk, rst, step, inner_end, index, end, values))
            inner_end = end
    return loops


def loop_signals(*ranges):
    """Return indices and ends of nested loops, the innermost first."""
    return tuple(counter(values[-1] + 1) for values in ranges), tuple(Signal(bool(1)) for _ in ranges)
