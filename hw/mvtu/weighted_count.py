"""The count of bits that agree with their weights, each times what its slice counts.

Every slice of a group that shares weights has an XNOR-popcount of its own. Their counts are added
in levels of four, each registered. What a slice counts is a power of two, so that to multiply by it
is only to shift wires.
"""

from dataclasses import dataclass

from myhdl import ConcatSignal, Signal, always_comb, block, instances, intbv

from cbnn.hw.instance import Place, instance
from cbnn.hw.mvtu.xnor_popcount import (
    FAN_IN,
    add,
    added_bits,
    adder_levels,
    popcount_lut_terms,
    popcount_stages,
    xnor_popcount,
)
from cbnn.hw.stream import joined


@dataclass(frozen=True)
class WordCount:
    """How a processing element counts a word.

    Attributes
    ----------
    simd : bits of a word
    lanes : what slices side by side count, the lowest first; (1,) of a word that is counted as it
        is, by one XNOR-popcount. Bit ``i * len(lanes) + j`` is of value i and slice j
    """

    simd: int
    lanes: tuple[int, ...]

    @property
    def values(self) -> int:
        """Values in a word, and so weights that it meets."""
        return self.simd // len(self.lanes)

    @property
    def highest(self) -> int:
        """The largest count."""
        return self.values * sum(self.lanes)

    @property
    def stages(self) -> int:
        """Cycles from inputs to count."""
        return popcount_stages(self.values) + adder_levels(len(self.lanes))

    @property
    def popcount_lut_terms(self) -> tuple[int, int, int]:
        """What the LUTs of its popcounts are in proportion to, see there."""
        nines, rest, added = popcount_lut_terms(self.values)
        return nines * len(self.lanes), rest * len(self.lanes), added * len(self.lanes)

    @property
    def added_bits(self) -> int:
        """Bits that are added after the popcounts."""
        width, shifts = self.values.bit_length(), [lane.bit_length() - 1 for lane in self.lanes]
        return added_bits([range(shift, shift + width) for shift in shifts])


@block
def weighted_count(clk, advance, weights, inputs, count, unit):
    """Count agreements slice by slice, and add these counts, each times what its slice counts.

    For example, two values, both weights 1, and three slices that count 4, 2 and 1: of 6 = 110 and
    3 = 011 one bit agrees in the first slice, two in the second and one in the third. The count is
    4 * 1 + 2 * 2 + 1 * 1 = 9, which is 6 + 3.
    """
    lanes = unit.lanes
    n, n_lanes = len(weights), len(lanes)
    own_inputs = Signal(intbv(0)[len(inputs) :])
    words = [Signal(intbv(0)[n:]) for _ in lanes]
    counts = [Signal(intbv(0, min=0, max=n + 1)) for _ in lanes]
    counting = [instance(Place(unit.popcount_module, f"count_slice_{i}"), xnor_popcount,
                         clk, advance, weights, words[i], counts[i], unit.counters) for i in range(n_lanes)]
    splitting = [pick(own_inputs, words[i], i, n_lanes) for i in range(n_lanes)]
    shifted = [_times(counts[i], lanes[i]) for i in range(n_lanes)]
    most, adders = [n * lane for lane in lanes], []
    while len(shifted) > 1:
        groups = [shifted[i : i + FAN_IN] for i in range(0, len(shifted), FAN_IN)]
        most = [sum(most[i : i + FAN_IN]) for i in range(0, len(most), FAN_IN)]
        shifted = [Signal(intbv(0, min=0, max=highest + 1)) for highest in most]
        adders += [add(clk, advance, group, total) for group, total in zip(groups, shifted, strict=True)]
    total = shifted[0]

    @always_comb
    def copy():
        own_inputs.next = inputs

    @always_comb
    def drive():
        count.next = total

    return instances()


def _times(count: Signal, lane: int) -> Signal:
    """Return a count times a power of two."""
    zeros = lane.bit_length() - 1
    return ConcatSignal(count, intbv(0)[zeros:]) if zeros else count


@block
def pick(word, picked, first, step):
    """Pick every `step`-th bit of a word, from `first` on."""
    bits = joined([word(i) for i in range(first, len(word), step)])

    @always_comb
    def drive():
        picked.next = bits

    return drive
