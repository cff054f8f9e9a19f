"""Dataflow simulation: the cycle of every beat on every link, as on the RTL, without simulating any logic.

Kernels are static: when a beat moves follows from when its neighbours move, never from its value. So each kernel is
its schedule (`Kernel.schedule`, stated next to the hardware), and `beat_times` computes when beats move; the same
cycles as the RTL's, with finite FIFOs, idles and stalls. A chain that nobody disturbs soon repeats itself, image for
image, and what follows need not be simulated to be known exactly.

The frame guard is part of the source here: it fills up a short frame without idles, and what it
swallows of a long one delays the next image. The gate of the result marks is part of the sink.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.stream import OUTSIDE, Kernel, Link, Schedule
from cbnn.sim.predict.beat_times import DONE, N_STATES, compile_schedules, replayed, run

MAX_PERCENT = 90
"""Most idles or stalls, in percent: with more a pattern would hardly let go."""
MAX_BEATS = 1 << 27
"""Most beats of all links whose cycles are kept, 2 GiB; what repeats itself is not."""
STARVED, BLOCKED, BUSY = range(3)
FIRST_IMAGES = 8
"""Images simulated before looking whether they repeat."""


@dataclass(frozen=True)
class Trace:
    """What happens on every link; link 0 enters the first kernel, link i leaves kernel i - 1.

    Cycles count as in `cosim`.

    Attributes
    ----------
    n_images : images asked for
    n_simulated : images, the first ones, that were simulated; the others repeat the last of them
    period_cycles : cycles from one to the next of those that repeat
    """

    kernels: tuple[Kernel, ...]
    n_images: int
    n_simulated: int
    period_cycles: int
    _offered: dict[int, NDArray[np.int64]] = field(repr=False)
    _taken: dict[int, NDArray[np.int64]] = field(repr=False)
    _entered: NDArray[np.int64] | None = field(default=None, repr=False)

    @property
    def entered(self) -> NDArray[np.int64]:
        """The cycle in which every beat of the source is taken over `s_axis`, int64.

        Those that the frame guard adds are not among them, those that it swallows are.
        """
        return self.taken(0) if self._entered is None else self._entered

    def taken(self, link: int) -> NDArray[np.int64]:
        """Return the cycle in which every beat of all images moves over a link, int64; -1 is the last link."""
        return self._all_images(self._known(link)[1])

    def offered(self, link: int) -> NDArray[np.int64]:
        """Return the cycle from which on every beat of all images is offered on a link."""
        return self._all_images(self._known(link)[0])

    def _known(self, link: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cycles of the images that were simulated; those between a replay buffer and its matrix unit are made here."""
        link %= len(self.kernels) + 1
        if link not in self._taken:
            _, vector, folds = self.kernels[link - 1].schedule.numbers
            return replayed(vector, folds, self._taken[link - 1], self._offered[link + 1], self._taken[link + 1])
        return self._offered[link], self._taken[link]

    def _all_images(self, cycles: NDArray[np.int64]) -> NDArray[np.int64]:
        n_more = self.n_images - self.n_simulated
        last = cycles[len(cycles) // self.n_simulated * (self.n_simulated - 1) :]
        more = last + self.period_cycles * np.arange(1, n_more + 1)[:, np.newaxis]
        return np.concatenate([cycles, more.ravel()])

    def states(self, i: int) -> NDArray[np.uint8]:
        """Return what kernel `i` does in every cycle of the images that were simulated: STARVED, BLOCKED or BUSY.

        Busy is who moves a beat, in or out; blocked who only offers one that is not taken; starved who does neither.
        """
        n_cycles = int(self._taken[len(self.kernels)][-1]) + 1
        offered, taken = self._known(i + 1)
        changes = np.bincount(offered, minlength=n_cycles + 1) - np.bincount(taken, minlength=n_cycles + 1)
        states = np.where(np.cumsum(changes)[:n_cycles] > 0, BLOCKED, STARVED).astype(np.uint8)
        for moved in (self._known(i)[1], taken):
            states[moved[moved < n_cycles]] = BUSY
        return states

    def held(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return when the memory of kernel `i` changes, and how many beats (words) it holds from the next cycle on.

        Raises
        ------
        ValueError
            When the kernel has no memory.
        """
        kernel, schedule = self.kernels[i], self.kernels[i].schedule
        offered, taken = self._known(i + 1)
        freed = np.ones(len(taken), np.int64)
        if schedule.kind == Schedule.Kind.REPLAY:
            _, vector, folds = schedule.numbers
            taken = taken[vector * folds - 1 :: vector * folds]
            freed = np.full(len(taken), vector)
        elif schedule.kind == Schedule.Kind.WINDOWS:
            # A row is freed when its last beat is read, a cycle before it is offered.
            n_rows = schedule.numbers[3]
            taken = offered.reshape(-1, kernel.m_axis.beats // n_rows)[:, -1] - 1
            freed = np.tile(np.diff(np.array(schedule.table[:n_rows]), prepend=0), self.n_simulated)
        elif schedule.kind != Schedule.Kind.FIFO:
            raise ValueError(f"{kernel.name} holds no beats")
        entered = self._known(i)[1]
        cycles = np.concatenate([entered, taken])
        order = np.argsort(cycles, kind="stable")
        levels = np.cumsum(np.concatenate([np.ones(len(entered), np.int64), -freed])[order])
        cycles = cycles[order]
        last = np.append(np.diff(cycles) > 0, True)
        return cycles[last], levels[last]

    @property
    def latency_cycles(self) -> int:
        """From the first beat of the first image in to its last beat out."""
        return int(self._taken[len(self.kernels)][self.kernels[-1].m_axis.beats - 1] - self._taken[0][0])

    @property
    def interval_cycles(self) -> int:
        """Between the last beats of the last two images."""
        if self.n_images > self.n_simulated:
            return self.period_cycles
        ends = self._taken[len(self.kernels)][self.kernels[-1].m_axis.beats - 1 :: self.kernels[-1].m_axis.beats]
        return int(ends[-1] - ends[-2])


class DeadlockError(ValueError):
    """No beat can move any more."""


def check_percentages(idle_percent: int, stall_percent: int) -> None:
    """Raise ValueError unless both are 0 to 90."""
    for name, percent in (("idle", idle_percent), ("stall", stall_percent)):
        if not 0 <= percent <= MAX_PERCENT:
            raise ValueError(f"{name} is {percent} percent; it must be 0 to {MAX_PERCENT}")


def simulate(accelerator: Accelerator, n_images: int, *, frames: Sequence[int] | None = None,
             idle_percent: int = 0, stall_percent: int = 0, seed: int = 0) -> Trace:
    """Return the cycles of the beats of `n_images` images, back to back.

    Parameters
    ----------
    frames : beats of every image's frame, up to and with `s_axis_tlast`; None: all are whole
    idle_percent, stall_percent, seed : idles of the source and stalls of the sink, the same as in `cosim.Run`

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
    """Do the same for any chain of kernels, guard and marks around it, that ends in a dense layer.

    The end may be missing where no kernel drops the end of what it takes, so that nothing waits.
    """
    if n_images < 1:
        raise ValueError(f"{n_images} images are to be simulated; at least 1 is needed")
    if frames is not None and (len(frames) != n_images or min(frames) < 1):
        raise ValueError(f"{len(frames)} frames of at least {min(frames, default=0)} beats are given "
                         f"for {n_images} images; each needs a frame of at least 1 beat")
    check_percentages(idle_percent, stall_percent)
    kernels = _in_order(kernels, links)
    beats = kernels[0].s_axis.beats
    n_beats = n_images * beats if frames is None else sum(frames)
    source = _Source(_idles(n_beats, idle_percent, seed))
    if frames is not None and any(length != beats for length in frames):
        source = _guarded_source(frames, beats, source.idles)
    return _Simulation(kernels, n_images, source, stall_percent, seed).finish()


def _in_order(kernels: Sequence[Kernel], links: Sequence[Link]) -> list[Kernel]:
    """Follow the links from the outside to the outside."""
    after = {link.source: link.sink for link in links}
    order, at = [], after[OUTSIDE]
    while at != OUTSIDE:
        order.append(kernels[at])
        at = after[at]
    return order


@dataclass(frozen=True)
class _Source:
    """When the first kernel is offered beats, as `beat_times.run` takes it.

    Attributes
    ----------
    idles, after : see there
    enters_with, enters_late : for every beat of the source the beat into the first kernel with
        which it is taken, and how many cycles later; empty where they are the same beats
    """

    idles: NDArray[np.int64]
    after: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    enters_with: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    enters_late: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def _guarded_source(frames: Sequence[int], beats: int, idles: NDArray[np.int64]) -> _Source:
    """Return what the frame guard makes of frames; `idles` are those of the source.

    Idles count from the transfer of the source's own last beat, also while a frame is filled up.
    """
    guard_idles: list[int] = []
    after: list[int] = []
    enters_with: list[int] = []
    enters_late: list[int] = []
    # Beats of the source; cycles that swallowed beats took; the last beat of the source.
    sent, late, origin = 0, 0, -1
    idle = idles if len(idles) else np.zeros(sum(frames), np.int64)
    for length in frames:
        for beat in range(beats):
            i = len(after)
            real = beat < length
            after.append(origin if real else i - 1)
            guard_idles.append(late + int(idle[sent]) if real else 0)
            if real:
                enters_with.append(i)
                enters_late.append(0)
                sent, late, origin = sent + 1, 0, i
        for _ in range(beats, length):
            late += 1 + int(idle[sent])
            enters_with.append(origin)
            enters_late.append(late)
            sent += 1
    return _Source(*(np.array(numbers, np.int64)
                     for numbers in (guard_idles, after, enters_with, enters_late)))


class _Simulation:
    """A chain on its way."""

    def __init__(self, kernels: Sequence[Kernel], n_images: int, source: _Source,
                 stall_percent: int, seed: int) -> None:
        self.kernels, self.n_images, self.source = tuple(kernels), n_images, source
        schedules = [kernel.schedule for kernel in kernels]
        # Where a result could come before its whole image, it waits, as the result marks do it.
        early = not all(schedule.needs_last for schedule in schedules)
        self.gate = np.array([kernels[0].s_axis.beats, kernels[-1].m_axis.beats]) * early
        self.compiled, self.tables, self.links, marks = compile_schedules(schedules)
        every_link = [kernels[0].s_axis.beats, *(kernel.m_axis.beats for kernel in kernels)]
        self.beats = np.array([every_link[link] for link in self.links], np.int64)
        self.marks_per_image = np.array([beats // row[2] if n < 0 else n for n, row, beats in
                                         zip(marks, self.compiled, self.beats[:-1], strict=True)], np.int64)
        # How many images back a cycle can depend on directly: as many as one kernel holds.
        self.reach = max(-(-_beats_inside(schedule) // kernel.s_axis.beats)
                         for schedule, kernel in zip(schedules, kernels, strict=True))
        self.state = np.zeros((len(self.compiled), N_STATES), np.int64)
        self.n_offered, self.n_taken = np.zeros((2, len(self.beats)), np.int64)
        self.disturbed = bool(len(source.idles) or stall_percent)
        self.stall_percent, self.draw, self.ready = stall_percent, random.Random(seed + 1), np.zeros(0, np.bool_)
        self.room, self.awake = 0, np.ones(len(self.compiled) + 2, np.bool_)
        self.offered = self.taken = self.marks = np.zeros(0, np.int64)

    def finish(self) -> Trace:
        """Simulate images until they repeat, or all."""
        next_ready = self._stall() if self.stall_percent else np.zeros(0, np.int64)
        while self.room < self.n_images:
            self._grow(self.n_images if self.disturbed else min(self.n_images, max(FIRST_IMAGES, 5 * self.room // 4)))
            while run(self.compiled, self.tables, self.state, self.marks, _starts(self.marks_per_image, self.room),
                      _starts(self.beats, self.room), self.offered, self.taken, self.n_offered, self.n_taken,
                      self.source.idles, self.source.after, next_ready, self.gate,
                      int(self.beats[0]) * self.room, self.awake) != DONE:
                next_ready = self._stall()
            if self.n_taken[-1] < self.beats[-1] * self.room:
                raise DeadlockError(self._why())
            if not self.disturbed and (period := self._period()):
                return self._trace(period)
        return self._trace(0)

    def _stall(self) -> NDArray[np.int64]:
        """Draw more cycles; return for each the first one from it on in which the sink is ready."""
        n_more = max(4096, 3 * len(self.ready))
        more = np.array([self.draw.randrange(100) >= self.stall_percent for _ in range(n_more)], np.bool_)
        self.ready = np.concatenate([self.ready, more])
        cycles = np.where(self.ready, np.arange(len(self.ready)), len(self.ready))
        return np.minimum.accumulate(cycles[::-1])[::-1].astype(np.int64)

    def _grow(self, room: int) -> None:
        """Make room for more images."""
        if int(self.beats.sum()) * room > MAX_BEATS:
            raise ValueError(f"{room} images move {int(self.beats.sum()) * room} beats; at most {MAX_BEATS} are "
                             "supported")
        self.offered = _spread(self.offered, self.beats, self.room, room)
        self.taken = _spread(self.taken, self.beats, self.room, room)
        self.marks = _spread(self.marks, self.marks_per_image, self.room, room)
        self.room = room

    def _period(self) -> int:
        """Return by how many cycles images follow each other from the last one on, or 0.

        That is known when each of the last `reach` images came equally long after the one before,
        in every number: when a beat is offered, when it is taken, and when memory is freed (the
        marks). Proof. Every rule in `beat_times` delays such numbers and keeps the latest: where
        all that it takes is later by a constant, so is what it gives. What it takes is of the same
        image, of the one before, or of a beat that had to leave first:

        - a beat enters a memory when the beat that came as many before it as the memory holds has
          left;
        - a pipeline stands still while a beat that it offers is not taken. What is inside then, and
          what enters next, came at most as many beats after that one as the pipeline has steps.

        Neither is more than `reach` images back. So the rule by which the numbers of image n
        followed from those of images n - reach to n - 1 gives those of image n + 1 from those of
        images n + 1 - reach to n. Where the latter are all later than the former by one period,
        image n + 1 is a period after image n, and so on.
        """
        if self.room <= self.reach:
            return 0
        period = 0
        for values, per_image in ((self.offered, self.beats), (self.taken, self.beats),
                                  (self.marks, self.marks_per_image)):
            for start, n in zip(_starts(per_image, self.room), per_image, strict=True):
                images = values[start : start + n * self.room].reshape(self.room, n)
                shifts = np.diff(images[-self.reach - 1 :], axis=0)
                period = period or int(shifts[0, 0])
                if (shifts != period).any():
                    return 0
        return period

    def _trace(self, period_cycles: int) -> Trace:
        def links(values: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
            starts = _starts(self.beats, self.room)
            return {link: values[start : start + beats * self.room]
                    for link, start, beats in zip(self.links, starts, self.beats, strict=True)}

        taken, source = links(self.taken), self.source
        entered = None
        if len(source.enters_with):
            entered = taken[0][source.enters_with] + source.enters_late
        return Trace(self.kernels, self.n_images, self.room, period_cycles, links(self.offered),
                     taken, entered)

    def _why(self) -> str:
        """Say which kernels wait for what."""
        names = ["the source", *(kernel.name for kernel in self.kernels), "the sink"]
        waits = []
        for i, link in enumerate(self.links):
            if self.n_taken[i] < self.n_offered[i]:
                waits.append(f"{names[link]} for room in {names[link + 1]}")
            elif self.n_taken[i] < self.beats[i] * self.room:
                waits.append(f"{names[link + 1]} for beats of {names[link]}")
        return (f"no beat moves any more when {self.n_taken[-1]} of {self.beats[-1] * self.room} have left; waiting: "
                + ", ".join(waits))


def _beats_inside(schedule: Schedule) -> int:
    """Beats (words) that a kernel holds at most, in its memory or in the steps of its pipeline."""
    pipelined = schedule.kind == Schedule.Kind.EACH
    return schedule.numbers[0] if pipelined else max(1, schedule.capacity)


def _starts(per_image: NDArray[np.int64], n_images: int) -> NDArray[np.int64]:
    """Where those of every kernel, or link, start in an array that holds them one behind another."""
    return np.concatenate([[0], np.cumsum(per_image * n_images)[:-1]])


def _spread(values: NDArray[np.int64], per_image: NDArray[np.int64], old: int, new: int) -> NDArray[np.int64]:
    """Move what such an array holds to where it stands in one for more images."""
    larger = np.zeros(int(per_image.sum()) * new, np.int64)
    for n, before, after in zip(per_image, _starts(per_image, old), _starts(per_image, new), strict=True):
        larger[after : after + n * old] = values[before : before + n * old]
    return larger


def _idles(n_beats: int, percent: int, seed: int) -> NDArray[np.int64]:
    """Cycles for which the source idles before each beat; empty where it never does."""
    if not percent:
        return np.zeros(0, np.int64)
    idles = np.zeros(n_beats, np.int64)
    draw = random.Random(seed)
    for i in range(n_beats):
        while draw.randrange(100) < percent:
            idles[i] += 1
    return idles
