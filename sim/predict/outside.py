"""What source and sink do to an accelerator: idles, malformed frames, and stalls.

The frame guard is part of the source here. It fills up a short frame without idles, and the beats
that it swallows of a long one delay the next image.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cbnn.sim.predict.beat_times import Numbers

MAX_PERCENT = 90
"""Bound of idles and stalls, in percent: with more, a pattern would hardly let anything pass."""
NONE = np.zeros(0, np.int64)


def check_percentages(idle_percent: int, stall_percent: int) -> None:
    """Raise ValueError unless both are 0 to 90."""
    for name, percent in (("idle", idle_percent), ("stall", stall_percent)):
        if not 0 <= percent <= MAX_PERCENT:
            raise ValueError(f"{name} is {percent} percent; it must be 0 to {MAX_PERCENT}")


class Source(NamedTuple):
    """When the first kernel is offered beats.

    Attributes
    ----------
    idles, after : see `beat_times.Outside`
    enters_with, enters_late : for every beat of the source the beat into the first kernel with
        which it is taken, and how many cycles later; empty where they are the same beats
    """

    idles: Numbers
    after: Numbers = NONE
    enters_with: Numbers = NONE
    enters_late: Numbers = NONE


def whole_frames(n_beats: int, idle_percent: int, seed: int) -> Source:
    """Return a source whose frames need no guard; it idles as in `cosim.Run`."""
    if not idle_percent:
        return Source(NONE)
    idles = np.zeros(n_beats, np.int64)
    draw = random.Random(seed)
    for i in range(n_beats):
        while draw.randrange(100) < idle_percent:
            idles[i] += 1
    return Source(idles)


def guarded_frames(lengths: Sequence[int], beats: int, idle_percent: int, seed: int) -> Source:
    """Return what the frame guard makes of frames of these lengths: images of `beats` beats.

    Idles count from the transfer of the source's own last beat, also while a frame is filled up.
    For example, images have 3 beats, and the first frame has only one, taken in cycle 0. The guard
    gives the other two in cycles 1 and 2. A source that idles for 4 cycles offers its next beat in
    cycle 5, one that does not idle in cycle 3.
    """
    idles = whole_frames(sum(lengths), idle_percent, seed).idles
    idles = idles if len(idles) else np.zeros(sum(lengths), np.int64)
    guard_idles: list[int] = []
    after: list[int] = []
    enters_with: list[int] = []
    enters_late: list[int] = []
    # Beats of the source; cycles that swallowed beats took; the last beat of the source.
    sent, late, origin = 0, 0, -1
    for length in lengths:
        for beat in range(beats):
            i = len(after)
            real = beat < length
            after.append(origin if real else i - 1)
            guard_idles.append(late + int(idles[sent]) if real else 0)
            if real:
                enters_with.append(i)
                enters_late.append(0)
                sent, late, origin = sent + 1, 0, i
        for _ in range(beats, length):
            late += 1 + int(idles[sent])
            enters_with.append(origin)
            enters_late.append(late)
            sent += 1
    return Source(*(np.array(numbers, np.int64)
                     for numbers in (guard_idles, after, enters_with, enters_late)))


class Sink:
    """When the sink takes a beat, drawn as far as it is needed, as in `cosim.Run`."""

    def __init__(self, stall_percent: int, seed: int) -> None:
        self.stall_percent = stall_percent
        self._draw = random.Random(seed + 1)
        self._ready = np.zeros(0, np.bool_)

    def ready(self) -> Numbers:
        """Draw more cycles; return for each the first one from it on in which the sink is ready.

        The numbers are empty for a sink that never stalls.
        """
        if not self.stall_percent:
            return NONE
        n_more = max(4096, 3 * len(self._ready))
        more = [self._draw.randrange(100) >= self.stall_percent for _ in range(n_more)]
        self._ready = np.concatenate([self._ready, np.array(more, np.bool_)])
        n = len(self._ready)
        cycles = np.where(self._ready, np.arange(n), n)
        return np.minimum.accumulate(cycles[::-1])[::-1].astype(np.int64)
