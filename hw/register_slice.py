"""Register slice: cuts every path between its two sides, `tready` included, and costs no throughput."""

from dataclasses import dataclass

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.stream import Kernel, Port, Schedule


@dataclass(frozen=True)
class RegisterSlice(Kernel):
    """A link with all of its outputs registered, the classic skid buffer of two entries."""

    width: int
    beats: int

    inputs = property(lambda self: (Port(self.width, self.beats),))
    outputs = property(lambda self: (Port(self.width, self.beats),))
    interval_cycles = property(lambda self: self.beats)
    latency_cycles = property(lambda self: self.beats)
    LUT_CONSTANTS = (1, 5)
    lut_terms = property(lambda self: (self.width, 1))
    schedule = property(lambda self: Schedule(Schedule.Kind.FIFO, (2,)))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block; latency of a beat 1 cycle, interval 1 cycle."""
        return register_slice(clk, rst, s_axis, m_axis)


@block
def register_slice(clk, rst, s_axis, m_axis):
    """Register slice: one cycle of latency, one beat per cycle, no path from side to side.

    s_axis_tready falls a cycle after m_axis_tready. The beat that comes in between waits in the
    skid register.
    """
    width = len(s_axis.tdata)
    skid_valid = Signal(bool(0))
    skid_data = Signal(intbv(0)[width:])
    skid_last = Signal(bool(0))

    @always_comb
    def ready():
        s_axis.tready.next = not skid_valid

    @always_seq(clk.posedge, reset=rst)
    def handshake():
        if m_axis.tready or not m_axis.tvalid:
            m_axis.tvalid.next = s_axis.tvalid or skid_valid
            skid_valid.next = False
        elif s_axis.tvalid:
            skid_valid.next = True

    @always(clk.posedge)
    def move_data():
        if m_axis.tready or not m_axis.tvalid:
            if skid_valid:
                m_axis.tdata.next = skid_data
                m_axis.tlast.next = skid_last
            else:
                m_axis.tdata.next = s_axis.tdata
                m_axis.tlast.next = s_axis.tlast
        if not skid_valid:
            skid_data.next = s_axis.tdata
            skid_last.next = s_axis.tlast

    return instances()
