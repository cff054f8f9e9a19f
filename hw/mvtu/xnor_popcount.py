"""XNOR-popcount: how many inputs agree with their weights.

It is built of two modules that each fill LUTs of six inputs exactly: one counts three agreements (two LUTs), one adds
three such counts (four LUTs). Their boundaries are kept in synthesis, which would otherwise trade them for more and
smaller LUTs. Counts of nine are registered, and added up in levels of four, each registered too.
"""

from collections.abc import Callable
from typing import Any

from myhdl import Signal, always, always_comb, block, instances, intbv, modbv

from cbnn.hw.instance import inside_is_elsewhere, instantiation, placeholder

NINE = 9
"""Bits counted behind one register."""
FAN_IN = 4
"""Counts added in one step of the later stages."""


def popcount_stages(simd: int) -> int:
    """Return the cycles from inputs to count: a register behind counts of nine, one behind every level of adders."""
    stages, counts = 1, -(-simd // NINE)
    while counts > 1:
        stages, counts = stages + 1, -(-counts // FAN_IN)
    return stages


def popcount_lut_terms(simd: int) -> tuple[int, int, int]:
    """Return what its LUTs are in proportion to: nines of bits, bits beyond them, bits added."""
    n_nines = (simd + 1) // NINE
    rest = max(0, simd - NINE * n_nines)
    widths, adders = [4] * n_nines + [rest.bit_length()] * (rest > 0), 0
    while len(widths) > 1:
        groups = [widths[i : i + FAN_IN] for i in range(0, len(widths), FAN_IN)]
        adders += sum(sum(sorted(group)[:-1]) + len(group) // 3 for group in groups)
        widths = [max(group) + (len(group) - 1).bit_length() for group in groups]
    return n_nines, rest, adders


def popcount_submodules(module: str) -> dict[str, Callable[[], Any]]:
    """Return constructors of the modules that `xnor_popcount` instantiates, by name, when it is called `module`."""
    def bits(n: int) -> Any:
        return Signal(intbv(0)[n:])

    return {f"{module}_count_three": lambda: count_three(bits(3), bits(3), bits(2)),
            f"{module}_add_three": lambda: add_three(bits(2), bits(2), bits(2), bits(4))}


@block
def xnor_popcount(clk, advance, weights, inputs, count, module):
    """Count the equal bits of `weights` and `inputs`: one word per cycle, `popcount_stages(simd)` cycles of latency.

    All registers hold while `advance` is low. `module` is the name of its own module, and prefix of those inside.
    """
    n_nines = (len(inputs) + 1) // NINE
    simd = max(len(inputs), NINE * n_nines)
    # Copies, since slices of a module's own ports do not convert. Eight bits count as nine, of which one disagrees:
    # counters that fill their LUTs take fewer.
    own_weights, own_inputs = Signal(intbv(0)[simd:]), Signal(intbv(0)[simd:])
    missing = (1 << simd) - (1 << len(inputs))
    counts = [Signal(intbv(0, min=0, max=min(NINE, simd - i) + 1)) for i in range(0, simd, NINE)]
    nines = [count_nine(clk, advance, own_weights(NINE * (i + 1), NINE * i), own_inputs(NINE * (i + 1), NINE * i),
                        counts[i], module, i) for i in range(n_nines)]
    if simd > NINE * n_nines:
        rest = count_rest(clk, advance, own_weights, own_inputs, counts[-1], NINE * n_nines)
    adders = []
    while len(counts) > 1:
        inner = [counts[i : i + FAN_IN] for i in range(0, len(counts), FAN_IN)]
        counts = [Signal(intbv(0, min=0, max=sum(c.max - 1 for c in addends) + 1)) for addends in inner]
        adders += [add(clk, advance, addends, total) for addends, total in zip(inner, counts, strict=True)]
    total = counts[0]

    @always_comb
    def copy():
        own_weights.next = weights
        own_inputs.next = inputs | missing

    @always_comb
    def drive():
        count.next = total

    return instances()


@block
def count_nine(clk, advance, weights, inputs, count, module, index):
    """Count the agreements of nine bits, registered."""
    own_weights, own_inputs = Signal(intbv(0)[NINE:]), Signal(intbv(0)[NINE:])
    a, b, c = threes = [Signal(intbv(0)[2:]) for _ in range(3)]
    nine = Signal(intbv(0)[4:])
    counting = [count_three_instance(own_weights(3 * i + 3, 3 * i), own_inputs(3 * i + 3, 3 * i), threes[i],
                                     f"{module}_count_three", 3 * index + i) for i in range(3)]
    adding = add_three_instance(a, b, c, nine, f"{module}_add_three", index)

    @always_comb
    def copy():
        own_weights.next = weights
        own_inputs.next = inputs

    @always(clk.posedge)
    def hold():
        if advance:
            count.next = nine

    return counting, adding, copy, hold


@block
def count_rest(clk, advance, weights, inputs, count, start):
    """Count the agreements from bit `start` on, fewer than nine, registered."""
    end, top = len(inputs), len(inputs) - start + 1
    number = Signal(intbv(0, min=0, max=top))
    agree = Signal(modbv(0)[end:])

    @always_comb
    def compare():
        agree.next = ~(weights ^ inputs)

    @always_comb
    def count_agreements():
        sum_ = intbv(0, min=0, max=top)
        for i in range(start, end):
            sum_[:] = sum_ + agree[i]
        number.next = sum_

    @always(clk.posedge)
    def hold():
        if advance:
            count.next = number

    return compare, count_agreements, hold


@block
def count_three(weights, inputs, count):
    """Count the agreements of three bits."""
    a, b, c = (Signal(bool(0)) for _ in range(3))

    @always_comb
    def compare():
        a.next = weights[0] == inputs[0]
        b.next = weights[1] == inputs[1]
        c.next = weights[2] == inputs[2]

    @always_comb
    def add_bits():
        count.next[0] = a ^ b ^ c
        count.next[1] = (a and b) or (a and c) or (b and c)

    return instances()


@block
def add_three(a, b, c, total):
    """Add three counts of 0 to 3."""
    carry, any_pair, all_four = (Signal(bool(0)) for _ in range(3))

    @always_comb
    def add_ones():
        carry.next = (a[0] and b[0]) or (a[0] and c[0]) or (b[0] and c[0])

    @always_comb
    def add_twos():
        any_pair.next = (((a[1] or b[1]) and (c[1] or carry)) or (a[1] and b[1])) or (c[1] and carry)
        all_four.next = a[1] and b[1] and c[1] and carry

    @always_comb
    def join_bits():
        total.next[0] = a[0] ^ b[0] ^ c[0]
        total.next[1] = a[1] ^ b[1] ^ c[1] ^ carry
        total.next[2] = any_pair and not all_four
        total.next[3] = all_four

    return instances()


@block
def count_three_instance(weights, inputs, count, module, index):
    """Instantiate the counter of three as a module of its own."""
    count_three_instance.verilog_code = instantiation(
        module, f"count_three_{index}", {"weights": weights, "inputs": inputs}, {"count": count})
    return placeholder() if inside_is_elsewhere() else count_three(weights, inputs, count)


@block
def add_three_instance(a, b, c, total, module, index):
    """Instantiate the adder of three as a module of its own."""
    add_three_instance.verilog_code = instantiation(
        module, f"add_three_{index}", {"a": a, "b": b, "c": c}, {"total": total})
    return placeholder() if inside_is_elsewhere() else add_three(a, b, c, total)


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
