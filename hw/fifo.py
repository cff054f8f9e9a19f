"""FIFO: holds beats so that kernels of uneven rhythm do not wait for each other."""

from dataclasses import dataclass

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.cost import memory_block_rams, memory_luts
from cbnn.hw.stream import Kernel, Port, Schedule, counter


@dataclass(frozen=True)
class Fifo(Kernel):
    """A FIFO of `depth` beats; with a depth of 1 it passes a beat every other cycle."""

    width: int
    depth: int
    beats: int

    LUT_CONSTANTS = (0.93, 1.26, 4.8)
    inputs = property(lambda self: (Port(self.width, self.beats),))
    outputs = property(lambda self: (Port(self.width, self.beats),))

    @property
    def interval_cycles(self) -> int:
        """One cycle per beat, two at depth 1: a full FIFO accepts nothing, even while it is read."""
        return self.beats if self.depth > 1 else 2 * self.beats

    @property
    def latency_cycles(self) -> int:
        """Cycle of the last beat in, and one more."""
        return self.interval_cycles if self.depth > 1 else 2 * self.beats - 1

    @property
    def memory_luts(self) -> int:
        """LUTs of its memory, `tlast` included."""
        return memory_luts(self.depth, self.width + 1)

    @property
    def block_rams(self) -> int:
        """Block RAMs of its memory."""
        return memory_block_rams(self.depth, self.width + 1)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """Memory; what passes a slow block RAM by; two addresses and a counter."""
        return self.memory_luts, self.width + 1 if self.block_rams else 0, self.depth.bit_length()

    schedule = property(lambda self: Schedule(Schedule.Kind.FIFO, (self.depth,)))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block; latency of a beat 1 cycle, interval 1 cycle."""
        return fifo(clk, rst, s_axis, m_axis, self.depth)


@block
def fifo(clk, rst, s_axis, m_axis, depth):
    """First-in first-out memory, read asynchronously (LUT RAM); tlast is the top bit of its words.

    A full FIFO accepts nothing even while it is read, so that no path leads from m_axis_tready to
    s_axis_tready. Two words deep, the sink beginning in the fourth cycle (level before each edge):

        in     a b . . c d
        level  0 1 2 2 1 1
        out    . . . a b c
    """
    width, last_word = len(s_axis.tdata), depth - 1
    # Any depth is possible, so addresses are compared with the last word, and beats are counted.
    memory = [Signal(intbv(0)[width + 1 :]) for _ in range(depth)]
    write_address, read_address = counter(depth), counter(depth)
    level = counter(depth + 1)
    write, read = Signal(bool(0)), Signal(bool(0))
    not_full, not_empty = Signal(bool(0)), Signal(bool(0))
    entry, head = ConcatSignal(s_axis.tlast, s_axis.tdata), Signal(intbv(0)[width + 1 :])

    @always_comb
    def flags():
        not_full.next = level != depth
        not_empty.next = level != 0

    @always_comb
    def handshake():
        s_axis.tready.next = not_full
        m_axis.tvalid.next = not_empty
        write.next = s_axis.tvalid and not_full
        read.next = not_empty and m_axis.tready

    # Read in the same cycle: the head waits on m_axis, and its successor follows without a gap.
    @always_comb
    def look():
        head.next = memory[read_address]

    @always_comb
    def split_head():
        m_axis.tdata.next = head[width:]
        m_axis.tlast.next = head[width]

    @always(clk.posedge)
    def store():
        if write:
            memory[write_address].next = entry

    @always_seq(clk.posedge, reset=rst)
    def count():
        if write:
            if write_address == last_word:
                write_address.next = 0
            else:
                write_address.next = write_address + 1
        if read:
            if read_address == last_word:
                read_address.next = 0
            else:
                read_address.next = read_address + 1
        # A beat in and a beat out in the same cycle leave the level as it is.
        if write and not read:
            level.next = level + 1
        elif read and not write:
            level.next = level - 1

    return instances()
