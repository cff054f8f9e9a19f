"""Slice selection: whole bytes in, their kept slices out, through the input's register slice."""

from dataclasses import dataclass

from myhdl import Signal, always_comb, block, instances, intbv

from cbnn.hw.register_slice import register_slice
from cbnn.hw.stream import Kernel, Port, Schedule, Stream, joined


@dataclass(frozen=True)
class SliceSelect(Kernel):
    """Select the kept slices of whole bytes.

    What enters: colours of pixels, each in `value_bits`. What leaves: the same colours, each with a
    bit per kept slice, the lowest slice in the lowest bit. Selection costs wires only; the beats
    then pass through a register slice.

    Attributes
    ----------
    values : colours per beat
    value_bits : bits of a colour as it enters, whole bytes
    kept : slices, rising
    beats : per image
    """

    values: int
    value_bits: int
    kept: tuple[int, ...]
    beats: int

    LUT_CONSTANTS = (1, 5)
    inputs = property(lambda self: (Port(self.values * self.value_bits, self.beats),))
    outputs = property(lambda self: (Port(self.values * len(self.kept), self.beats),))
    interval_cycles = property(lambda self: self.beats)
    latency_cycles = property(lambda self: self.beats)
    lut_terms = property(lambda self: (self.m_axis.width, 1))
    schedule = property(lambda self: Schedule(Schedule.Kind.FIFO, (2,)))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block; latency of a beat 1 cycle, interval 1 cycle."""
        return slice_select(clk, rst, s_axis, m_axis, self)


@block
def slice_select(clk, rst, s_axis, m_axis, unit):
    """Select the kept slices of every value, and register the beat.

    For example, slices 7 and 6 of two values of 8 bits: 10110011 01000000 becomes 10 01.
    """
    kept = Stream(unit.m_axis.width)
    # A copy, since slices of a module's own ports do not convert.
    pixels = Signal(intbv(0)[unit.s_axis.width :])
    selected = joined([pixels(i * unit.value_bits + b) for i in range(unit.values) for b in unit.kept])
    registering = register_slice(clk, rst, kept, m_axis)

    @always_comb
    def copy():
        pixels.next = s_axis.tdata

    @always_comb
    def select():
        kept.tdata.next = selected
        kept.tvalid.next = s_axis.tvalid
        kept.tlast.next = s_axis.tlast
        s_axis.tready.next = kept.tready

    return instances()
