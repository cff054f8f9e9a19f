"""Dataflow simulation: the cycle of every beat on every link, as on the RTL, without simulating any logic.

Kernels are static: when a beat moves follows from when its neighbours move, never from its value. So each kernel is
its schedule (`Kernel.schedule`, stated next to the hardware), and a link is two numbers per beat: the cycle in which
it is first offered and the cycle in which it is taken. A kernel computes, as far as its neighbours' numbers are
known, when it takes what comes in and when it offers what goes out; kernels are run until no number is missing. That
costs a few steps per beat instead of all kernels in every cycle, and is exact, stalls included.

Pipelines (sliding window, MVTU, max pool, classify) freeze as a whole while a beat that they offer is not taken. They
are computed in time of their own, which does not run while frozen; `frozen` cycles lie between it and the clock.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.stream import Kernel, Schedule

FIFO, GATHER, HAND_OUT, EACH, REPLAY, WINDOWS = (kind.value for kind in Schedule.Kind)
# What a kernel remembers between runs.
N_OUT, TIME, SETTLED, FROZEN, PUBLISHED, PUBLISHED_FROZEN, N_READ, ROWS_READ, FREEING, ROW_ENDING = range(10)


@dataclass(frozen=True)
class Trace:
    """What happened on every link; link 0 is `s_axis`, link i leaves kernel i - 1. Cycles count as in `cosim`.

    Attributes
    ----------
    offered, taken : per link the cycle of every beat of all images, int64
    n_images : images
    """

    kernels: tuple[Kernel, ...]
    offered: list[NDArray[np.int64]]
    taken: list[NDArray[np.int64]]
    n_images: int

    @property
    def latency_cycles(self) -> int:
        """From the first beat of the first image in to its last beat out."""
        return int(self.taken[-1][len(self.taken[-1]) // self.n_images - 1] - self.taken[0][0])

    @property
    def interval_cycles(self) -> int:
        """Between the last beats of the last two images."""
        period = len(self.taken[-1]) // self.n_images
        return int(self.taken[-1][-1] - self.taken[-1][-1 - period])


class DeadlockError(ValueError):
    """No beat can move any more."""


def simulate(accelerator: Accelerator, n_images: int, *, idle_percent: int = 0, stall_percent: int = 0,
             seed: int = 0) -> Trace:
    """Return the cycles of every beat of `n_images` images, back to back.

    Parameters
    ----------
    idle_percent, stall_percent, seed : idles of the source and stalls of the sink, the same as in `cosim.Run`

    Raises
    ------
    DeadlockError
        When nothing can move any more; the message names the kernels that wait.
    """
    return simulate_kernels(accelerator.kernels, n_images, idle_percent=idle_percent, stall_percent=stall_percent,
                            seed=seed)


def simulate_kernels(kernels: Sequence[Kernel], n_images: int, *, idle_percent: int = 0, stall_percent: int = 0,
                     seed: int = 0) -> Trace:
    """Do the same for any chain of kernels."""
    schedules = [kernel.schedule for kernel in kernels]
    beats = np.array([kernels[0].s_beats, *(kernel.m_beats for kernel in kernels)], np.int64) * n_images
    starts = np.concatenate([[0], np.cumsum(beats)])
    numbers = np.array([[schedule.kind.value, *schedule.numbers, *[0] * (4 - len(schedule.numbers))]
                        for schedule in schedules], np.int64)
    tables = np.concatenate([np.asarray(schedule.table, np.int64) for schedule in schedules] + [np.zeros(1, np.int64)])
    table_starts = np.concatenate([[0], np.cumsum([len(schedule.table) for schedule in schedules])]).astype(np.int64)
    n_rows = [schedule.numbers[3] * n_images if schedule.kind == Schedule.Kind.WINDOWS else 0
              for schedule in schedules]
    row_starts = np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64)
    offered, taken = (np.zeros(starts[-1], np.int64) for _ in range(2))
    idles = _idles(int(beats[0]), idle_percent, seed)
    n_cycles = 1024
    while True:
        ready = _ready(n_cycles, stall_percent, seed + 1)
        done = _run(numbers, tables, table_starts, row_starts, beats, starts, offered, taken, idles, ready)
        if done >= 0:
            break
        n_cycles *= 4
    if done < beats[-1]:
        raise DeadlockError(f"no beat moves any more when {done} of {beats[-1]} have left")
    cuts = starts[1:-1]
    return Trace(tuple(kernels), np.split(offered, cuts), np.split(taken, cuts), n_images)


def _idles(n_beats: int, percent: int, seed: int) -> NDArray[np.int64]:
    """Cycles for which the source idles before each beat."""
    idles = np.zeros(n_beats, np.int64)
    draw = random.Random(seed)
    if percent:
        for i in range(n_beats):
            while draw.randrange(100) < percent:
                idles[i] += 1
    return idles


def _ready(n_cycles: int, percent: int, seed: int) -> NDArray[np.int64]:
    """For each cycle the first one from it on in which the sink is ready; empty where it always is."""
    if not percent:
        return np.zeros(0, np.int64)
    draw = random.Random(seed)
    stalled = np.array([draw.randrange(100) < percent for _ in range(n_cycles)])
    cycles = np.where(stalled, n_cycles, np.arange(n_cycles))
    return np.minimum.accumulate(cycles[::-1])[::-1].astype(np.int64)


@njit(cache=True)
def _run(numbers, tables, table_starts, row_starts, beats, starts, offered, taken, idles, ready):
    """Run kernels until all beats are known; return the beats that left, or -1 if `ready` is too short."""
    n = len(numbers)
    n_offered, n_taken = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    state = np.zeros((n, 10), np.int64)
    rows = np.zeros(row_starts[n], np.int64)
    awake = np.ones(n + 2, np.bool_)
    while awake.any():
        for i in range(n + 2):
            if not awake[i]:
                continue
            awake[i] = False
            if i == 0:
                moved = _offer(beats[0], offered, taken, n_offered, n_taken, idles)
            elif i == n + 1:
                moved = _take(starts[n], offered, taken, n_offered, n_taken, ready, n)
                if moved < 0:
                    return -1
            else:
                k = i - 1
                table = tables[table_starts[k]:table_starts[k + 1]]
                into, out = slice(starts[k], starts[k + 1]), slice(starts[k + 1], starts[k + 2])
                moved = _step(numbers[k], table, rows[row_starts[k]:row_starts[k + 1]], state[k], k, offered[into],
                              taken[into], offered[out], taken[out], n_offered, n_taken)
            if moved:
                awake[max(0, i - 1)] = True
                awake[min(n + 1, i + 1)] = True
    return n_taken[n]


@njit(cache=True)
def _offer(n_beats, offered, taken, n_offered, n_taken, idles):
    """Offer, as the source, the next beat the cycle after the last was taken, idles apart."""
    start = n_offered[0]
    while n_offered[0] < n_beats and n_offered[0] <= n_taken[0]:
        i = n_offered[0]
        offered[i] = idles[i] + (taken[i - 1] + 1 if i else 0)
        n_offered[0] += 1
    return n_offered[0] - start


@njit(cache=True)
def _take(start, offered, taken, n_offered, n_taken, ready, link):
    """Take, as the sink, a beat in the first cycle in which it is ready."""
    before = n_taken[link]
    while n_taken[link] < n_offered[link]:
        i = start + n_taken[link]
        cycle = offered[i]
        if len(ready):
            if cycle >= len(ready) or ready[cycle] >= len(ready):
                return -1
            cycle = ready[cycle]
        taken[i] = cycle
        n_taken[link] += 1
    return n_taken[link] - before


@njit(cache=True)
def _step(numbers, table, rows, state, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Run one kernel as far as its neighbours are known; return whether anything new is."""
    before = n_taken[k] + n_offered[k + 1]
    kind = numbers[0]
    if kind == FIFO:
        _fifo(numbers[1], k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken)
    elif kind == REPLAY:
        _replay(numbers, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken)
    elif kind == GATHER:
        _gather(numbers[1], k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken)
    elif kind == HAND_OUT:
        _hand_out(numbers[1], k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken)
    else:
        moving = True
        while moving:
            done = n_taken[k] + n_offered[k + 1] + state[N_OUT] + state[ROWS_READ]
            if kind == EACH:
                _each(numbers[1], table, state, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken)
            else:
                _windows(numbers, table, rows, state, k, in_offered, in_taken, out_offered, out_taken, n_offered,
                         n_taken)
            _publish(state, k, out_offered, out_taken, n_offered, n_taken)
            moving = n_taken[k] + n_offered[k + 1] + state[N_OUT] + state[ROWS_READ] > done
    return n_taken[k] + n_offered[k + 1] > before


@njit(cache=True)
def _fifo(depth, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Let a beat enter when the one `depth` before it has left, and offer it a cycle later."""
    while True:
        i = n_offered[k + 1]
        if i < n_taken[k] and i <= n_taken[k + 1]:
            out_offered[i] = max(in_taken[i] + 1, out_taken[i - 1] + 1 if i else 0)
            n_offered[k + 1] += 1
            continue
        i = n_taken[k]
        if i < n_offered[k] and i - depth < n_taken[k + 1]:
            cycle = in_offered[i]
            if i >= depth:
                cycle = max(cycle, out_taken[i - depth] + 1)
            in_taken[i] = cycle
            n_taken[k] += 1
            continue
        return


@njit(cache=True)
def _replay(numbers, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Let a beat enter when there is room, which a vector gives back once its last beat has left for the last time."""
    depth, vector, folds = numbers[1], numbers[2], numbers[3]
    capacity, leaving = depth + vector, vector * folds
    while True:
        i = n_offered[k + 1]
        word = i // leaving * vector + i % vector
        if word < n_taken[k] and i <= n_taken[k + 1]:
            out_offered[i] = max(in_taken[word] + 1, out_taken[i - 1] + 1 if i else 0)
            n_offered[k + 1] += 1
            continue
        i = n_taken[k]
        if i < n_offered[k]:
            freed = max(0, (i - capacity + vector) // vector) * leaving
            if freed <= n_taken[k + 1]:
                cycle = in_offered[i]
                if freed:
                    cycle = max(cycle, out_taken[freed - 1] + 1)
                in_taken[i] = cycle
                n_taken[k] += 1
                continue
        return


@njit(cache=True)
def _gather(ratio, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Let a group's first beat enter no sooner than the group before leaves; its last beat completes it."""
    while n_taken[k] < n_offered[k]:
        i = n_taken[k]
        group = i // ratio
        cycle = in_offered[i]
        if i % ratio == 0 and group:
            if n_taken[k + 1] < group:
                return
            cycle = max(cycle, out_taken[group - 1])
        in_taken[i] = cycle
        n_taken[k] += 1
        if i % ratio == ratio - 1:
            out_offered[group] = cycle + 1
            n_offered[k + 1] += 1


@njit(cache=True)
def _hand_out(ratio, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Let a beat enter no sooner than the last piece of the one before leaves; its pieces follow one by one."""
    while True:
        i = n_offered[k + 1]
        if i < n_taken[k] * ratio and (i == 0 or i <= n_taken[k + 1]):
            out_offered[i] = in_taken[i // ratio] + 1 if i % ratio == 0 else out_taken[i - 1] + 1
            n_offered[k + 1] += 1
            continue
        i = n_taken[k]
        if i < n_offered[k] and n_taken[k + 1] >= i * ratio:
            in_taken[i] = max(in_offered[i], out_taken[i * ratio - 1]) if i else in_offered[i]
            n_taken[k] += 1
            continue
        return


@njit(cache=True)
def _publish(state, k, out_offered, out_taken, n_offered, n_taken):
    """Turn the pipeline's own times of finished beats into cycles, as far as earlier beats are known to have left."""
    while state[PUBLISHED] < state[N_OUT]:
        i = state[PUBLISHED]
        if i:
            if n_taken[k + 1] < i:
                return
            state[PUBLISHED_FROZEN] += out_taken[i - 1] - out_offered[i - 1]
        out_offered[i] += state[PUBLISHED_FROZEN]
        state[PUBLISHED] += 1
        n_offered[k + 1] = state[PUBLISHED]


@njit(cache=True)
def _advance(state, k, not_before, out_offered, out_taken, n_taken):
    """Move TIME on to the first step at or behind it whose cycle is `not_before` or later; False if not yet known.

    Then the step's cycle is TIME + FROZEN.
    """
    emerges = 0
    while True:
        i = state[SETTLED]
        pending = i < state[N_OUT]
        if pending:
            emerges = out_offered[i] - (state[FROZEN] if i < state[PUBLISHED] else 0)
            if emerges <= state[TIME]:
                if n_taken[k + 1] <= i:
                    return False
                state[FROZEN] += out_taken[i] - out_offered[i]
                state[SETTLED] += 1
                continue
        missing = not_before - state[FROZEN] - state[TIME]
        if missing <= 0:
            return True
        state[TIME] = min(emerges, state[TIME] + missing) if pending else state[TIME] + missing


@njit(cache=True)
def _each(depth, table, state, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Take a beat per step; for those that the table marks one leaves `depth` steps later."""
    while n_taken[k] < n_offered[k]:
        i = n_taken[k]
        if not _advance(state, k, in_offered[i], out_offered, out_taken, n_taken):
            return
        in_taken[i] = state[TIME] + state[FROZEN]
        n_taken[k] += 1
        if table[i % len(table)]:
            out_offered[state[N_OUT]] = state[TIME] + depth
            state[N_OUT] += 1
        state[TIME] += 1


@njit(cache=True)
def _windows(numbers, table, rows, state, k, in_offered, in_taken, out_offered, out_taken, n_offered, n_taken):
    """Let words enter while the ring has room; send a window, a beat per step, once its last word is in.

    The table holds, for one image, the words freed up to and with every row of windows, then the words that every
    window needs. `rows` holds the cycle in which every row of windows was read to its end.
    """
    depth, ring, beats, n_rows = numbers[1], numbers[2], numbers[3], numbers[4]
    n_windows = len(table) - n_rows
    columns, image_words = n_windows // n_rows, table[n_rows - 1]
    while n_taken[k] < n_offered[k]:
        i = n_taken[k]
        cycle = in_offered[i]
        if i >= ring:
            row = state[FREEING]
            while row // n_rows * image_words + table[row % n_rows] <= i - ring:
                row += 1
            state[FREEING] = row
            if row >= state[ROWS_READ]:
                break
            cycle = max(cycle, rows[row] + 1)
        in_taken[i] = cycle
        n_taken[k] += 1
    while True:
        if state[ROW_ENDING]:
            if not _advance(state, k, 0, out_offered, out_taken, n_taken):
                return
            rows[state[ROWS_READ]] = state[TIME] + state[FROZEN]
            state[ROWS_READ] += 1
            state[ROW_ENDING] = 0
            state[TIME] += 1
        window = state[N_READ]
        if window >= len(rows) * columns:
            return
        needed = window // n_windows * image_words + table[n_rows + window % n_windows]
        if n_taken[k] < needed or not _advance(state, k, in_taken[needed - 1] + 1, out_offered, out_taken, n_taken):
            return
        for beat in range(beats):
            out_offered[state[N_OUT] + beat] = state[TIME] + beat + depth
        state[N_OUT] += beats
        state[N_READ] += 1
        state[ROW_ENDING] = state[N_READ] % columns == 0
        state[TIME] += beats - state[ROW_ENDING]
