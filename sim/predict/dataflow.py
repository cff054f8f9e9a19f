"""Dataflow simulation: the cycle of every beat on every link, as on the RTL, without its logic.

Kernels are static: when a beat moves follows from when its neighbours move, never from its value.
So each kernel is its schedule (`Kernel.schedule`, stated next to the hardware), each link joins two
of them, and `beat_times` computes when beats move. The cycles are those of the RTL, with finite
FIFOs, idles and stalls. A chain that is not disturbed soon repeats itself, image after image, and
what follows is known exactly without simulating it.

What comes from `outside` includes the frame guard; the gate of the result marks is part of the sink
here. What happened is a `Trace`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.stream import OUTSIDE, Kernel, Link, Schedule
from cbnn.sim.predict.beat_times import DONE, STATE, Links, Memory, Numbers, Outside, run
from cbnn.sim.predict.outside import (
    Sink,
    Source,
    check_percentages,
    guarded_frames,
    whole_frames,
)
from cbnn.sim.predict.rules import ends, kernel_rules
from cbnn.sim.predict.trace import Trace

MAX_BEATS = 1 << 27
"""Bound of the beats of all links whose cycles are kept, 2 GiB; repeated images are not kept."""
FIRST_IMAGES = 8
"""Images simulated before looking whether they repeat."""


class DeadlockError(ValueError):
    """No beat can move any more."""


def simulate(accelerator: Accelerator, n_images: int, *, frames: Sequence[int] | None = None,
             idle_percent: int = 0, stall_percent: int = 0, seed: int = 0) -> Trace:
    """Return the cycles of the beats of `n_images` images, back to back.

    Parameters
    ----------
    frames : beats of every image's frame, up to and with `s_axis_tlast`; None: all are whole
    idle_percent, stall_percent, seed : idles of the source and stalls of the sink, the same as in
        `cosim.Run`

    Raises
    ------
    ValueError
        When there is no image, a percentage is not 0 to 90, there is not a frame of at least one
        beat for every image, or there are more beats than can be kept.
    DeadlockError
        When nothing can move any more; the message names the kernels that wait, and for what.
    """
    return simulate_kernels(accelerator.kernels, accelerator.links, n_images, frames=frames,
                            idle_percent=idle_percent, stall_percent=stall_percent, seed=seed)


def simulate_kernels(kernels: Sequence[Kernel], links: Sequence[Link], n_images: int, *,
                     frames: Sequence[int] | None = None, idle_percent: int = 0,
                     stall_percent: int = 0, seed: int = 0) -> Trace:
    """Do the same for any kernels, joined as in `Accelerator`, with guard and marks around them.

    Where a kernel drops the end of what it takes, a dense layer must follow: its results wait.
    Otherwise the end of a network may be missing. Kernels and links may come in any order.
    """
    if n_images < 1:
        raise ValueError(f"{n_images} images are to be simulated; at least 1 is needed")
    if frames is not None and (len(frames) != n_images or min(frames) < 1):
        raise ValueError(f"{len(frames)} frames of at least {min(frames, default=0)} beats are "
                         f"given for {n_images} images; each needs a frame of at least 1 beat")
    check_percentages(idle_percent, stall_percent)
    beats = next(kernels[link.sink].inputs[link.sink_port].beats for link in links
                 if link.source == OUTSIDE)
    if frames is not None and any(length != beats for length in frames):
        source = guarded_frames(frames, beats, idle_percent, seed)
    else:
        source = whole_frames(n_images * beats, idle_percent, seed)
    return _Simulation(kernels, links, n_images, source, Sink(stall_percent, seed)).finish()


class _Simulation:
    """Kernels at work, and what is known of their links so far."""

    def __init__(self, kernels: Sequence[Kernel], links: Sequence[Link], n_images: int,
                 source: Source, sink: Sink) -> None:
        self.kernels, self.links, self.n_images = tuple(kernels), tuple(links), n_images
        self.source, self.sink, self.n_simulated = source, sink, 0
        schedules = [kernel.schedule for kernel in kernels]
        self.rules = kernel_rules(kernels, schedules, links)
        # The others lie between a replay buffer and its matrix unit.
        self.simulated = sorted({*self.rules.rules["takes"].tolist(),
                                 *self.rules.rules["gives"].tolist()})
        self.beats = np.zeros(len(links), np.int64)
        for i in self.simulated:
            self.beats[i] = _beats(kernels, links[i])
        # How many images back a cycle can depend on directly: as many as one kernel holds.
        self.reach = max(-(-_beats_inside(schedule) // kernel.s_axis.beats)
                         for schedule, kernel in zip(schedules, kernels, strict=True))
        # Where a result could come before its whole image, it waits, as the result marks do it.
        self.waits = not all(schedule.needs_last for schedule in schedules)
        self.disturbed = bool(len(source.idles) or sink.stall_percent)
        n, none = len(self.rules.rules), np.zeros(0, np.int64)
        givers, takers = np.full((2, len(links)), -1)
        takes, gives = ends(links)
        givers[self.rules.rules["gives"]] = takers[self.rules.rules["takes"]] = np.arange(n)
        givers[gives[OUTSIDE]], takers[takes[OUTSIDE]] = n, n + 1
        self.memory = Memory(np.zeros(n, STATE), none, none)
        self.known = Links(givers, takers, none, none, none,
                           *np.zeros((2, len(links)), np.int64))

    def finish(self) -> Trace:
        """Simulate images until they repeat, or all."""
        takes, gives = ends(self.links)
        entry, last = gives[OUTSIDE], takes[OUTSIDE]
        gate = self.beats[[entry, last]] * self.waits
        awake = np.ones(len(self.rules.rules) + 2, np.bool_)
        ready = self.sink.ready()
        while self.n_simulated < self.n_images:
            more = max(FIRST_IMAGES, 5 * self.n_simulated // 4)
            self._grow(self.n_images if self.disturbed else min(self.n_images, more))
            outside = Outside(entry, last, int(self.beats[entry]) * self.n_simulated,
                              self.source.idles, self.source.after, ready, gate)
            while run(self.rules, self.memory, self.known, outside, awake) != DONE:
                outside = outside._replace(ready=self.sink.ready())
            ready = outside.ready
            if self.known.n_taken[last] < self.beats[last] * self.n_simulated:
                raise DeadlockError(self._why())
            if not self.disturbed and (period := self._period()):
                return self._trace(period)
        return self._trace(0)

    def _grow(self, n_images: int) -> None:
        """Make room for more images."""
        n_beats = int(self.beats.sum()) * n_images
        if n_beats > MAX_BEATS:
            raise ValueError(f"{n_images} images move {n_beats} beats; at most {MAX_BEATS} are "
                             "supported")
        before, frees = self.n_simulated, self.rules.rules["frees"]
        self.memory = self.memory._replace(
            freed=_spread(self.memory.freed, frees, before, n_images),
            starts=_starts(frees, n_images))
        self.known = self.known._replace(
            offered=_spread(self.known.offered, self.beats, before, n_images),
            taken=_spread(self.known.taken, self.beats, before, n_images),
            starts=_starts(self.beats, n_images))
        self.n_simulated = n_images

    def per_image(self) -> Iterator[Numbers]:
        """Yield all cycles, as arrays of shape (images, cycles of one image).

        These are, of every link, when its beats are offered and when they are taken, and, of every
        kernel, when its memory gives room back.
        """
        for cycles, n_per_image in ((self.known.offered, self.beats),
                                    (self.known.taken, self.beats),
                                    (self.memory.freed, self.rules.rules["frees"])):
            for start, n in zip(_starts(n_per_image, self.n_simulated), n_per_image, strict=True):
                if n:
                    yield cycles[start : start + n * self.n_simulated].reshape(-1, n)

    def _period(self) -> int:
        """Return by how many cycles images follow each other from the last one on, or 0.

        That is known when each of the last `reach` images came equally long after the one before,
        in every number: when a beat is offered, when it is taken, and when memory is freed. Proof.
        Every rule in `beat_times` delays such numbers and keeps the latest: where all that it takes
        is later by a constant, so is what it gives. What it takes is of the same image, of the one
        before, or of a beat that had to leave first:

        - a beat enters a memory when the beat that came as many before it as the memory holds has
          left;
        - a pipeline stands still while a beat that it offers is not taken. What is inside then, and
          what enters next, came at most as many beats after that one as the pipeline has steps.

        Neither is more than `reach` images back. So the rule by which the numbers of image n
        followed from those of images n - reach to n - 1 gives those of image n + 1 from those of
        images n + 1 - reach to n. Where the latter are all later than the former by one period,
        image n + 1 is a period after image n, and so on.
        """
        if self.n_simulated <= self.reach:
            return 0
        period = 0
        for images in self.per_image():
            shifts = images[-self.reach :] - images[-self.reach - 1 : -1]
            period = period or int(shifts[0, 0])
            if (shifts != period).any():
                return 0
        return period

    def _trace(self, period_cycles: int) -> Trace:
        starts, n_beats = self.known.starts, self.beats * self.n_simulated
        offered, taken = ({i: cycles[starts[i] : starts[i] + n_beats[i]] for i in self.simulated}
                          for cycles in (self.known.offered, self.known.taken))
        entered = None
        if len(self.source.enters_with):
            _, gives = ends(self.links)
            entered = taken[gives[OUTSIDE]][self.source.enters_with] + self.source.enters_late
        return Trace(self.kernels, self.links, self.n_images, self.n_simulated, period_cycles,
                     offered, taken, entered)

    def _why(self) -> str:
        """Say which kernels wait for what."""
        waits = []
        for i, link in enumerate(self.links):
            giver = "the source" if link.source == OUTSIDE else self.kernels[link.source].name
            taker = "the sink" if link.sink == OUTSIDE else self.kernels[link.sink].name
            if self.known.n_taken[i] < self.known.n_offered[i]:
                waits.append(f"{giver} for room in {taker}")
            elif self.known.n_taken[i] < self.beats[i] * self.n_simulated:
                waits.append(f"{taker} for beats of {giver}")
        takes, _ = ends(self.links)
        last = takes[OUTSIDE]
        return (f"no beat moves any more when {self.known.n_taken[last]} of "
                f"{self.beats[last] * self.n_simulated} have left; waiting: " + ", ".join(waits))


def _beats(kernels: Sequence[Kernel], link: Link) -> int:
    """Beats of an image on a link."""
    if link.sink == OUTSIDE:
        return kernels[link.source].m_axis.beats
    return kernels[link.sink].s_axis.beats


def _beats_inside(schedule: Schedule) -> int:
    """Beats (words) that a kernel holds at most, in its memory or in the steps of its pipeline."""
    pipelined = schedule.kind == Schedule.Kind.EACH
    return schedule.numbers[0] if pipelined else max(1, schedule.capacity)


def _starts(per_image: Numbers, n_images: int) -> Numbers:
    """Where those of every kernel, or link, start in an array that holds one after another."""
    return np.concatenate([[0], np.cumsum(per_image * n_images)[:-1]])


def _spread(values: Numbers, per_image: Numbers, old: int, new: int) -> Numbers:
    """Move what such an array holds to where it stands in one for more images."""
    larger = np.zeros(int(per_image.sum()) * new, np.int64)
    for n, before, after in zip(per_image, _starts(per_image, old), _starts(per_image, new),
                                strict=True):
        larger[after : after + n * old] = values[before : before + n * old]
    return larger
