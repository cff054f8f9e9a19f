"""Frame guard: makes a whole image of every frame, so that a bad frame harms itself and no other.

A frame is what lies between two `s_axis_tlast`. A frame with as many beats as an image passes as
it is, in the same cycle.

- Too short: `tlast` is withheld, and beats of zeros follow, a beat per cycle, until the image is
  whole. The source waits meanwhile.
- Too long: the image ends with its last beat. What follows is swallowed, a beat per cycle, up to
  and with `tlast`.

So every frame gives one image, and a bad frame does not move the start of the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from myhdl import Signal, always_comb, always_seq, block, instances, modbv

from cbnn.hw.stream import Stream, clock_and_reset, counter

ERROR_BITS = 16
"""Bits of the counter of bad frames, which wraps."""


class Images(Stream):
    """A link whose images have `beats` beats."""

    def __init__(self, width: int, beats: int) -> None:
        super().__init__(width)
        self.beats = beats


@dataclass(frozen=True)
class FrameGuard:
    """Frames of any length in, images of `beats` beats of `width` bits out.

    It is no `Kernel`: it takes no cycle of an image, and it has outputs beside its link.
    `image_end` is high in the cycle in which the last beat of an image passes; `damaged` then says
    whether its frame is too short or too long. `frame_errors` counts these frames.
    """

    name: str
    width: int
    beats: int

    block_rams = property(lambda self: 0)

    @property
    def luts(self) -> int:
        """A gate per bit, flags and a counter of beats; bad frames are counted by a carry chain.

        Yosys on xc7, for widths of 1, 8, 32, 49 and 832 bits: 18, 25, 49, 66 and 849 LUTs at 40
        beats per image, two more at 784 beats, 7 at 1 beat, where nothing is ever filled up.
        """
        return self.width + 9 + (self.beats - 1).bit_length() if self.beats > 1 else 7

    def construct(self):
        """Return the block with signals of its own; latency of a beat 0 cycles, interval 1 cycle."""
        clk, rst = clock_and_reset()
        image_end, damaged, frame_errors = Signal(bool(0)), Signal(bool(0)), Signal(modbv(0)[ERROR_BITS:])
        return frame_guard(clk, rst, Stream(self.width), Images(self.width, self.beats), image_end, damaged,
                           frame_errors)


@block
def frame_guard(clk, rst, s_axis, m_axis, image_end, damaged, frame_errors):
    """Make whole images of frames; no path leads from `s_axis_tlast` to `m_axis`.

    Images of three beats, frames of two and of four (a `|` follows `tlast`, a dot is no beat):

        s_axis  a b| . c d e f| g
        m_axis  a b  0|c d e| . g
    """
    beat, last_beat = counter(m_axis.beats), m_axis.beats - 1
    # filling: the frame has ended before its image. cutting: the image has ended before its frame.
    # Never both; a frame of the right length needs neither.
    filling, cutting = Signal(bool(0)), Signal(bool(0))
    last, offered, moved = (Signal(bool(0)) for _ in range(3))

    @always_comb
    def find_last():
        last.next = beat == last_beat

    @always_comb
    def find_offered():
        offered.next = filling or (s_axis.tvalid and not cutting)

    @always_comb
    def find_moved():
        moved.next = offered and m_axis.tready

    @always_comb
    def handshake():
        m_axis.tvalid.next = offered
        # Beats are counted: were it s_axis.tlast, a frame of the wrong length would reach the kernels.
        m_axis.tlast.next = last
        # What is cut is taken whatever the sink does; what fills up lets the source wait.
        s_axis.tready.next = cutting or (m_axis.tready and not filling)

    @always_comb
    def drive():
        if filling:
            m_axis.tdata.next = 0
        else:
            m_axis.tdata.next = s_axis.tdata

    @always_comb
    def report():
        image_end.next = moved and last
        # The tlast of a frame that is filled up came with an earlier beat.
        damaged.next = filling or not s_axis.tlast

    @always_seq(clk.posedge, reset=rst)
    def count_beats():
        if moved:
            if last:
                beat.next = 0
            else:
                beat.next = beat + 1

    @always_seq(clk.posedge, reset=rst)
    def choose():
        if moved:
            # A frame that ends before its image is filled up; one that goes on after it is cut.
            filling.next = (filling or s_axis.tlast) and not last
            cutting.next = last and not filling and not s_axis.tlast
        elif cutting and s_axis.tvalid and s_axis.tlast:
            cutting.next = False

    @always_seq(clk.posedge, reset=rst)
    def count_errors():
        if moved and last and (filling or not s_axis.tlast):
            frame_errors.next = frame_errors + 1

    return instances()


def guarded(beats: Sequence[int], lasts: Sequence[bool],
            image_beats: int) -> tuple[list[int], list[bool]]:
    """Return what the guard makes of a stream: the images' beats, and which images are damaged.

    Parameters
    ----------
    beats, lasts : `tdata` and `tlast` of every beat; the last frame need not have ended yet

    Examples
    --------
    >>> guarded([1, 2, 3, 4, 5, 6, 7], [False, True, False, False, False, True, False], 3)
    ([1, 2, 0, 3, 4, 5], [True, True])
    """
    images: list[int] = []
    marks: list[bool] = []
    frame: list[int] = []
    for beat, last in zip(beats, lasts, strict=True):
        frame.append(beat)
        if last:
            images += (frame + [0] * image_beats)[:image_beats]
            marks.append(len(frame) != image_beats)
            frame = []
    if len(frame) >= image_beats:
        images += frame[:image_beats]
        marks.append(True)
    return images, marks
