"""Meter: counts images and results, and measures interval and latency, without touching a stream.

It watches beats that are transferred. The link after the frame guard carries whole images, so that
the first beat of an image is known there however malformed its frame is.

Several images can be in flight. The cycle in which each of them began waits in a ring until its
result leaves, as the flags of the result marks do.
"""

from dataclasses import dataclass

from myhdl import Signal, always, always_seq, block, instances, intbv, modbv

from cbnn.hw.cost import memory_block_rams, memory_luts
from cbnn.hw.stream import clock_and_reset

COUNT_BITS = 32
"""Bits of every counter, which wraps."""


class Events:
    """What happens in a cycle.

    `entered`: a beat of an image enters; `image_end`: it is the last one, and `damaged` says
    whether its frame was malformed. `left`: the last beat of a result leaves, and `result_class`
    and `malformed` are what it says.
    """

    def __init__(self, class_bits: int) -> None:
        self.entered, self.image_end, self.damaged, self.left, self.malformed = (
            Signal(bool(0)) for _ in range(5))
        self.result_class = Signal(intbv(0)[class_bits:])


class Readings:
    """What is measured, as `cbnn.hw.registers` explains it."""

    def __init__(self, class_bits: int) -> None:
        self.images_in, self.images_out, self.malformed_frames, self.interval, self.latency = (
            Signal(modbv(0)[COUNT_BITS:]) for _ in range(5))
        self.last_class = Signal(intbv(0)[class_bits:])
        self.last_malformed = Signal(bool(0))


@dataclass(frozen=True)
class Meter:
    """Counters and time stamps.

    Attributes
    ----------
    images : bound of the images whose last beat has entered and whose result has not left, see
        `ResultMarks`
    class_bits : bits of a class
    """

    name: str
    images: int
    class_bits: int

    @property
    def depth(self) -> int:
        """Time stamps in the ring: a power of two, and at least one more than `images`.

        The one more is of an image whose last beat has not entered yet.
        """
        return 1 << self.images.bit_length()

    @property
    def luts(self) -> int:
        """Counters, two differences, and the ring; exact, as Yosys maps it on xc7."""
        return 74 + memory_luts(self.depth, COUNT_BITS)

    @property
    def block_rams(self) -> int:
        """Block RAMs of the ring."""
        return memory_block_rams(self.depth, COUNT_BITS)

    def construct(self):
        """Return the block with signals of its own, to be converted."""
        clk, rst = clock_and_reset()
        return self.hardware(clk, rst, Events(self.class_bits), Readings(self.class_bits))

    def hardware(self, clk, rst, events, measured):
        """Return the block."""
        return meter(clk, rst, events, measured, self.depth)


@block
def meter(clk, rst, events, measured, depth):
    """Count and measure; interval and latency are there two cycles after the last beat of a result.

    Both numbers of images are the addresses of the ring: an image begins when as many have entered
    whole as came before it, and its result leaves when as many results have left.
    """
    address_bits = depth.bit_length() - 1
    ring = [Signal(modbv(0)[COUNT_BITS:]) for _ in range(depth)]
    cycle, began, ended, earlier = (Signal(modbv(0)[COUNT_BITS:]) for _ in range(4))
    entering, measuring, any_result, two_results = (Signal(bool(0)) for _ in range(4))

    @always_seq(clk.posedge, reset=rst)
    def count_cycles():
        cycle.next = cycle + 1

    @always_seq(clk.posedge, reset=rst)
    def count_in():
        if events.entered:
            entering.next = not events.image_end
        if events.image_end:
            measured.images_in.next = measured.images_in + 1
            if events.damaged:
                measured.malformed_frames.next = measured.malformed_frames + 1

    @always(clk.posedge)
    def store():
        if events.entered and not entering:
            ring[measured.images_in[address_bits:]].next = cycle

    @always(clk.posedge)
    def look():
        if events.left:
            began.next = ring[measured.images_out[address_bits:]]
            ended.next = cycle
            earlier.next = ended

    @always_seq(clk.posedge, reset=rst)
    def count_out():
        measuring.next = events.left
        if events.left:
            measured.images_out.next = measured.images_out + 1
            measured.last_class.next = events.result_class
            measured.last_malformed.next = events.malformed
            any_result.next = True
            two_results.next = any_result

    # The differences have a cycle of their own, since a ring is slow to answer.
    @always_seq(clk.posedge, reset=rst)
    def subtract():
        if measuring:
            measured.latency.next = ended - began
            if two_results:
                measured.interval.next = ended - earlier

    return instances()
