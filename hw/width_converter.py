"""Width converters: gather narrow beats into wide ones, or hand wide ones out in pieces.

The first piece is the low bits. Widths that do not divide each other are joined by two converters, up to the least
common multiple and down again. Gathering shifts words into place and so costs registers, but no multiplexer.
"""

from dataclasses import dataclass

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.stream import Kernel, Port, Schedule, counter, part


@dataclass(frozen=True)
class WidthConverter(Kernel):
    """Beats of `in_width` bits to beats of `out_width` bits, where one width divides the other.

    Raises
    ------
    ValueError
        When neither width is a proper multiple of the other, or the image does not fill whole beats.
    """

    in_width: int
    out_width: int
    in_beats: int

    def __post_init__(self) -> None:
        wide, narrow = max(self.in_width, self.out_width), min(self.in_width, self.out_width)
        if wide == narrow or wide % narrow:
            raise ValueError(f"{self.name}: beats of {self.in_width} bits do not convert to {self.out_width} bits")
        if (self.in_beats * self.in_width) % self.out_width:
            raise ValueError(f"{self.name}: {self.in_beats} beats of {self.in_width} bits do not fill "
                             f"beats of {self.out_width}")

    LUT_CONSTANTS = (1.14, 6.9)
    inputs = property(lambda self: (Port(self.in_width, self.in_beats),))
    outputs = property(lambda self: (Port(self.out_width, self.in_beats * self.in_width // self.out_width),))

    @property
    def interval_cycles(self) -> int:
        """One cycle per narrow beat."""
        return max(self.s_axis.beats, self.m_axis.beats)

    @property
    def latency_cycles(self) -> int:
        """One cycle per narrow beat: the last one leaves, or is gathered, a cycle after the others."""
        return max(self.s_axis.beats, self.m_axis.beats)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """A multiplexer per bit that is handed out later, none where words are gathered; control."""
        return max(0, self.s_axis.width - self.m_axis.width), 1

    @property
    def schedule(self) -> Schedule:
        """A group of narrow beats for each wide one."""
        if self.in_width < self.out_width:
            return Schedule(Schedule.Kind.GATHER, (self.out_width // self.in_width,))
        return Schedule(Schedule.Kind.HAND_OUT, (self.in_width // self.out_width,))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block; a cycle per narrow beat, latency 1 cycle."""
        if self.s_axis.width < self.m_axis.width:
            return gather(clk, rst, s_axis, m_axis, self.m_axis.width // self.s_axis.width)
        return hand_out(clk, rst, s_axis, m_axis, self.s_axis.width // self.m_axis.width)


@block
def gather(clk, rst, s_axis, m_axis, ratio):
    """Narrow beats in, one wide beat out; the first one in is the low bits.

    Three beats to one, the sink always ready:

        in      a b c d e f
        filled  0 1 2 3 1 2
        out     . . . cba . .
    """
    narrow, wide = len(s_axis.tdata), len(m_axis.tdata)
    filled = counter(ratio + 1)
    ready = Signal(bool(0))
    words = Signal(intbv(0)[wide:])
    shifted = ConcatSignal(s_axis.tdata, part(words, wide, narrow))
    last = Signal(bool(0))

    @always_comb
    def handshake():
        # A full register takes a word in the cycle in which its beat leaves, so that no cycle is lost.
        ready.next = filled != ratio or m_axis.tready
        m_axis.tvalid.next = filled == ratio

    @always_comb
    def drive():
        s_axis.tready.next = ready
        m_axis.tdata.next = words
        m_axis.tlast.next = last

    @always_seq(clk.posedge, reset=rst)
    def count():
        if filled == ratio:
            if m_axis.tready:
                # What comes in while the beat leaves is the first word of the next one.
                if s_axis.tvalid:
                    filled.next = 1
                else:
                    filled.next = 0
        elif s_axis.tvalid:
            filled.next = filled + 1

    @always(clk.posedge)
    def shift():
        if s_axis.tvalid and ready:
            words.next = shifted
            # An image fills whole beats, so its tlast comes with the last word of one.
            last.next = s_axis.tlast

    return instances()


@block
def hand_out(clk, rst, s_axis, m_axis, ratio):
    """One wide beat in, narrow beats out, the low bits first.

    One beat to three, the sink always ready; the next beat comes in while the last piece leaves:

        in         cba . . fed
        remaining  0 3 2 1 3
        out        . a b c d
    """
    wide, narrow = len(s_axis.tdata), len(m_axis.tdata)
    remaining = counter(ratio + 1)
    load = Signal(bool(0))
    ready = Signal(bool(0))
    words = Signal(intbv(0)[wide:])
    last = Signal(bool(0))

    @always_comb
    def handshake():
        # The next beat is loaded in the cycle in which the last piece leaves.
        ready.next = remaining == 0 or (remaining == 1 and m_axis.tready)
        m_axis.tvalid.next = remaining != 0

    @always_comb
    def drive():
        s_axis.tready.next = ready
        load.next = ready and s_axis.tvalid
        m_axis.tdata.next = words[narrow:]
        m_axis.tlast.next = last and remaining == 1

    @always_seq(clk.posedge, reset=rst)
    def count():
        if load:
            remaining.next = ratio
        elif remaining != 0 and m_axis.tready:
            remaining.next = remaining - 1

    @always(clk.posedge)
    def shift():
        if load:
            words.next = s_axis.tdata
            last.next = s_axis.tlast
        elif m_axis.tready:
            # The lowest piece stands on m_axis. Where none remains, what is shifted does not matter.
            words.next = words >> narrow

    return instances()
