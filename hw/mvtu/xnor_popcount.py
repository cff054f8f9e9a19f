"""XNOR-popcount: how many inputs agree with their weights.

It is built of two circuits that each fill LUTs of six inputs exactly: one counts three agreements
(two LUTs), one adds three such counts (four LUTs). They are the same for all matrix units, so a
design has one module of each. Synthesis keeps their boundaries, since it would otherwise trade them
for more and smaller LUTs. Counts of nine are registered, and added up in levels of four, each
registered too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from myhdl import Signal, always, always_comb, block, instances, intbv, modbv

from cbnn.hw.instance import Place, instance

NINE = 9
"""Bits counted before one register."""
FAN_IN = 4
"""Counts added in one step of the later stages."""


def popcount_stages(simd: int) -> int:
    """Return the cycles from inputs to count: one for the nines, and one for every level of adders."""
    return 1 + adder_levels(-(-simd // NINE))


def adder_levels(n: int) -> int:
    """Return the levels of adders that make one of `n` numbers."""
    levels = 0
    while n > 1:
        levels, n = levels + 1, -(-n // FAN_IN)
    return levels


def popcount_lut_terms(simd: int) -> tuple[int, int, int]:
    """Return what its LUTs are in proportion to: nines of bits, bits beyond them, bits added.

    Up to three bits are counted by a LUT per bit of the count.
    """
    if simd <= 3:
        return 0, simd.bit_length(), 0
    n_nines = (simd + 1) // NINE
    rest = max(0, simd - NINE * n_nines)
    return n_nines, rest, added_bits([range(4)] * n_nines + [range(rest.bit_length())] * (rest > 0))


def added_bits(numbers: list[range]) -> int:
    """Return the bits that adders add where numbers become one, which is only where they overlap.

    Each number is given by the places of its bits: one of 2 bits that is shifted by 3 is range(3, 5).
    """
    added = 0
    while len(numbers) > 1:
        sums = []
        for i in range(0, len(numbers), FAN_IN):
            group = numbers[i : i + FAN_IN]
            overlapping = sum(map(len, group)) - len(set().union(*group))
            added += overlapping + len(group) // 3 if overlapping else 0
            carries = (len(group) - 1).bit_length() if overlapping else 0
            sums.append(range(min(n.start for n in group), max(n.stop for n in group) + carries))
        numbers = sums
    return added


@dataclass(frozen=True)
class Counters:
    """The two fixed circuits of a design, as one popcount instantiates them.

    Attributes
    ----------
    design : prefix of the modules' names, so that two designs in one project do not clash
    kept : True if synthesis is to keep the boundaries of these instances. False where weights are
        constant, which shrinks the circuits if they are optimised together with the weights
    """

    design: str
    kept: bool = True

    count_three = property(lambda self: f"{self.design}_count_three")
    add_three = property(lambda self: f"{self.design}_add_three")

    def modules(self, simd: int) -> dict[str, Callable[[], Any]]:
        """Return what constructs the modules that a popcount of `simd` bits instantiates, by name."""
        def bits(n: int) -> Any:
            return Signal(intbv(0)[n:])

        if simd + 1 < NINE:
            return {}
        return {self.count_three: lambda: count_three(bits(3), bits(3), bits(2)),
                self.add_three: lambda: add_three(bits(2), bits(2), bits(2), bits(4))}


@block
def xnor_popcount(clk, advance, weights, inputs, count, counters):
    """Count the bits in which weights and inputs agree, one word per cycle.

    Nines of bits are counted and registered, then added four by four, each level registered: of 40
    bits, counts of nine, nine, nine, nine and four after a cycle, of 36 and 4 after two, and of 40
    after three. All registers hold while advance is low.
    """
    n_nines = (len(inputs) + 1) // NINE
    simd = max(len(inputs), NINE * n_nines)
    # Copies, since slices of a module's own ports do not convert. Eight bits count as nine, of which
    # one disagrees, since counters that fill their LUTs take fewer.
    own_weights, own_inputs = Signal(intbv(0)[simd:]), Signal(intbv(0)[simd:])
    missing = (1 << simd) - (1 << len(inputs))
    counts = [Signal(intbv(0, min=0, max=min(NINE, simd - i) + 1)) for i in range(0, simd, NINE)]
    nines = [count_nine(clk, advance, own_weights(NINE * (i + 1), NINE * i), own_inputs(NINE * (i + 1), NINE * i),
                        counts[i], counters, i) for i in range(n_nines)]
    if simd > NINE * n_nines:
        rest = count_rest(clk, advance, own_weights, own_inputs, counts[-1], NINE * n_nines)
    adders = []
    while len(counts) > 1:
        inner = [counts[i : i + FAN_IN] for i in range(0, len(counts), FAN_IN)]
        counts = [Signal(intbv(0, min=0, max=sum(c.max - 1 for c in addends) + 1)) for addends in inner]
        adders += [add(clk, advance, addends, total) for addends, total in zip(inner, counts, strict=True)]
    total = counts[0]

    if missing:
        @always_comb
        def copy():
            own_weights.next = weights
            own_inputs.next = inputs | missing
    else:
        @always_comb
        def copy():
            own_weights.next = weights
            own_inputs.next = inputs

    @always_comb
    def drive():
        count.next = total

    return instances()


@block
def count_nine(clk, advance, weights, inputs, count, counters, index):
    """Count the agreements of nine bits, registered."""
    own_weights, own_inputs = Signal(intbv(0)[NINE:]), Signal(intbv(0)[NINE:])
    a, b, c = threes = [Signal(intbv(0)[2:]) for _ in range(3)]
    nine = Signal(intbv(0)[4:])
    counting = [instance(Place(counters.count_three, f"count_three_{3 * index + i}", counters.kept), count_three,
                         own_weights(3 * i + 3, 3 * i), own_inputs(3 * i + 3, 3 * i), threes[i]) for i in range(3)]
    adding = instance(Place(counters.add_three, f"add_three_{index}", counters.kept), add_three, a, b, c, nine)

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
    """Count the agreements of three bits, 0 to 3: a sum and a carry, a LUT of six inputs each."""
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
    """Add three counts of 0 to 3, for example 3 + 3 + 2 = 8: four LUTs of six inputs.

    Twos and the carry of the ones are four bits of weight 2. Of these, total[2] says that two or
    three are set, and total[3] that all four are.
    """
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
