"""Replay buffer: a FIFO that gives every vector several times, once per fold of rows.

FINN's input buffer of a matrix unit and the FIFO in front of it, in one memory: words of the next vector come in
while the present one is replayed.
"""

from dataclasses import dataclass

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.cost import memory_block_rams, memory_luts
from cbnn.hw.stream import Kernel, Port, Schedule, counter


@dataclass(frozen=True)
class ReplayBuffer(Kernel):
    """Vectors of `vector` beats enter, and each leaves `folds` times; meanwhile `depth` beats more may enter.

    A vector is freed as a whole, when its last beat has left for the last time.
    """

    width: int
    depth: int
    beats: int
    vector: int
    folds: int

    LUT_CONSTANTS = (1.06, 1, 6.8)
    inputs = property(lambda self: (Port(self.width, self.beats),))
    outputs = property(lambda self: (Port(self.width, self.beats * self.folds),))

    @property
    def capacity(self) -> int:
        """Beats that it holds."""
        return self.depth + self.vector

    @property
    def ring(self) -> int:
        """Words of its memory, a power of two."""
        return 1 << (self.capacity - 1).bit_length()

    @property
    def interval_cycles(self) -> int:
        """A beat out per cycle."""
        return self.m_axis.beats

    @property
    def latency_cycles(self) -> int:
        """The first beat leaves a cycle after it came, the others one by one."""
        return self.m_axis.beats

    @property
    def memory_luts(self) -> int:
        """LUTs of its memory, `tlast` included."""
        return memory_luts(self.ring, self.width + 1)

    @property
    def block_rams(self) -> int:
        """Block RAMs of its memory."""
        return memory_block_rams(self.ring, self.width + 1)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """Memory; what passes a slow block RAM by; addresses and counters."""
        passing = self.width + 1 if self.block_rams else 0
        return self.memory_luts, passing, (self.ring - 1).bit_length()

    schedule = property(lambda self: Schedule(Schedule.Kind.REPLAY, (self.depth, self.vector, self.folds)))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block; latency of a beat 1 cycle, interval 1 cycle per beat out."""
        return replay_buffer(clk, rst, s_axis, m_axis, self)


@block
def replay_buffer(clk, rst, s_axis, m_axis, unit):
    """Replay buffer: a FIFO that gives every vector several times; read asynchronously (LUT RAM).

    Vectors of two beats, each twice:

        in   a b c d . . .
        out  . a b a b c d c d

    A vector is freed as a whole, so held falls by its beats when its last one leaves for the last
    time. A beat can leave once more beats are held than its position in the vector.
    """
    width, address_width = unit.width, unit.ring.bit_length() - 1
    capacity, vector, folds, to_start = unit.capacity, unit.vector, unit.folds, unit.vector - 1
    last_fold_number = folds - 1
    memory = [Signal(intbv(0)[width + 1 :]) for _ in range(unit.ring)]
    write_address, read_address = (Signal(modbv(0)[address_width:]) for _ in range(2))
    held, position, fold = counter(capacity + 1), counter(vector), counter(folds)
    write, read, not_full, not_empty = (Signal(bool(0)) for _ in range(4))
    fold_end, last_fold, vector_end = (Signal(bool(0)) for _ in range(3))
    entry, head = ConcatSignal(s_axis.tlast, s_axis.tdata), Signal(intbv(0)[width + 1 :])

    @always_comb
    def flags():
        not_full.next = held != capacity
        # Beats that have left are held for the next fold, so those before the position do not count.
        not_empty.next = held > position
        last_fold.next = fold == last_fold_number

    @always_comb
    def handshake():
        s_axis.tready.next = not_full
        m_axis.tvalid.next = not_empty
        write.next = s_axis.tvalid and not_full
        read.next = not_empty and m_axis.tready

    @always_comb
    def find_ends():
        fold_end.next = position == to_start
        vector_end.next = read and position == to_start and last_fold

    @always_comb
    def look():
        head.next = memory[read_address]

    @always_comb
    def split_head():
        m_axis.tdata.next = head[width:]
        # The last beat of an image leaves once per fold, but ends the image only once.
        m_axis.tlast.next = head[width] and last_fold

    @always(clk.posedge)
    def store():
        if write:
            memory[write_address].next = entry

    @always_seq(clk.posedge, reset=rst)
    def count():
        if write:
            write_address.next = write_address + 1
        # One beat more, a vector of beats less, or both at once.
        if write and vector_end:
            held.next = held - to_start
        elif write:
            held.next = held + 1
        elif vector_end:
            held.next = held - vector

    @always_seq(clk.posedge, reset=rst)
    def replay():
        if read:
            if fold_end:
                position.next = 0
                if last_fold:
                    # The next vector stands after this one.
                    fold.next = 0
                    read_address.next = read_address + 1
                else:
                    # The vector begins again.
                    fold.next = fold + 1
                    read_address.next = read_address - to_start
            else:
                position.next = position + 1
                read_address.next = read_address + 1

    return instances()
