"""Result marks: mark the results of damaged images in `m_axis_tuser`, at the exit.

The frame guard says of every image whether it is damaged. These flags wait in a ring until the
image's result leaves, so that no kernel has to carry them. A network that drops the last rows or
columns of an image can have a result before it has the whole image; there the result waits until
its flag is known.
"""

from dataclasses import dataclass

from myhdl import Signal, always, always_comb, always_seq, block, instances, modbv

from cbnn.hw.stream import Stream, clock_and_reset


class Results(Stream):
    """A link of results, of as many images in flight and as early as `ResultMarks` has it."""

    def __init__(self, unit: "ResultMarks") -> None:
        super().__init__(unit.width)
        self.depth, self.early = unit.depth, unit.early


@dataclass(frozen=True)
class ResultMarks:
    """Beats of results pass in the same cycle and get the flag of their image.

    Attributes
    ----------
    images : bound of the images that have entered and whose result has not left
    early : whether a result can come before its whole image has entered; then it waits until the
        cycle after the image's last beat
    """

    name: str
    width: int
    images: int
    early: bool

    block_rams = property(lambda self: 0)

    @property
    def depth(self) -> int:
        """Flags in the ring: a power of two above `images`, so that it is never full."""
        return 1 << self.images.bit_length()

    @property
    def luts(self) -> int:
        """The ring, its addresses, and where results wait their comparison.

        Yosys on xc7: 17 LUTs for 8 flags, in flip-flops, and in LUT RAM 11 for 16, 13 for 64, 14
        for 128, 34 for 256; up to seven more where results wait. Below 64 flags the estimate is
        one number, so that it depends on no folding.
        """
        return 6 + max(64, self.depth) // 9 + (6 if self.early else 0)

    def construct(self):
        """Return the block with signals of its own; latency of a beat 0 cycles, interval 1 cycle."""
        clk, rst = clock_and_reset()
        m_axis_tuser, image_end, damaged = (Signal(bool(0)) for _ in range(3))
        return result_marks(clk, rst, Results(self), Stream(self.width), m_axis_tuser, image_end, damaged)


@block
def result_marks(clk, rst, s_axis, m_axis, m_axis_tuser, image_end, damaged):
    """Mark the results of damaged images: flags wait in a ring until their image's result leaves.

    A flag is written in the cycle of image_end and read from the next one on. The second of two images
    is damaged; results A and B are a beat each (a dot is no beat):

        image_end  0 0 1 0 0 1 0 0
        damaged    . . 0 . . 1 . .
        result     . . . . A . . B
        tuser      . . . . 0 . . 1
    """
    ring = [Signal(bool(0)) for _ in range(s_axis.depth)]
    # There are more flags than images in flight, so equal counts mean an empty ring, never a full one.
    images_in, images_out = (Signal(modbv(0)[s_axis.depth.bit_length() - 1 :]) for _ in range(2))

    if s_axis.early:
        @always_comb
        def handshake():
            # While no flag waits, that of this image has not come yet.
            m_axis.tvalid.next = s_axis.tvalid and images_in != images_out
            s_axis.tready.next = m_axis.tready and images_in != images_out
    else:
        # A result comes later than its image's last beat, so its flag is always there.
        @always_comb
        def handshake():
            m_axis.tvalid.next = s_axis.tvalid
            s_axis.tready.next = m_axis.tready

    @always_comb
    def drive():
        m_axis.tdata.next = s_axis.tdata
        m_axis.tlast.next = s_axis.tlast

    @always_comb
    def look():
        m_axis_tuser.next = ring[images_out]

    @always(clk.posedge)
    def store():
        if image_end:
            ring[images_in].next = damaged

    @always_seq(clk.posedge, reset=rst)
    def count_in():
        if image_end:
            images_in.next = images_in + 1

    @always_seq(clk.posedge, reset=rst)
    def count_out():
        if s_axis.tvalid and s_axis.tready and s_axis.tlast:
            images_out.next = images_out + 1

    return instances()
