"""The compiled part of the dataflow simulation: when every beat is offered and taken, from one kernel to the next.

A link is two numbers per beat: the cycle in which it is first offered and the cycle in which it is taken. A kernel
computes, as far as its neighbours' numbers are known, when it takes what comes in and when it offers what goes out;
kernels are run until no number is missing. That costs a few steps per beat instead of all kernels in every cycle.

Pipelines (sliding window, MVTU, max pool, classify) freeze as a whole while a beat that they offer is not taken. They
are computed in time of their own, which does not run while frozen; `frozen` cycles lie between it and the clock. A
replay buffer and the matrix unit behind it are one kernel here: the words of a vector that is replayed leave one per
step, so that nothing is to be computed for each of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cbnn.hw.stream import Schedule

Numbers = NDArray[np.int64]
FIFO, GATHER, HAND_OUT, EACH, FOLDS, WINDOWS = (kind.value for kind in Schedule.Kind)
"""Kinds as `Schedule` has them, but for replay buffers, which become FOLDS together with what follows."""
# What a kernel remembers between runs. Marks are cycles in which a memory gives room back.
N_OUT, TIME, SETTLED, FROZEN, PUBLISHED, PUBLISHED_FROZEN, N_READ, N_MARKS, FREEING, ENDING = range(10)
N_STATES = 10
DONE, MORE_READY = range(2)
"""Why `run` came back: no number is missing, or `ready` is too short."""


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Compile for speed: counting the references of arrays, which none of these functions make, took most of it."""
    settings: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False, **options}
    return njit(**settings)


def compile_schedules(schedules: Sequence[Schedule]) -> tuple[Numbers, Numbers, list[int], list[int]]:
    """Return the kernels' numbers, what they look up, links that are simulated, and marks per image of every kernel.

    Numbers, shape (kernels, 7), are the kind and: FIFO: depth. GATHER, HAND_OUT: ratio. EACH: pipeline cycles, start
    and end of its table. FOLDS: pipeline cycles, words per vector, folds, words held. WINDOWS: pipeline cycles, words
    of the ring, beats per window, windows, start of its table, rows of windows; the table has the words that every
    window needs, counted from the start of the image, and then the words freed with and before every row of windows.
    Marks are one per row of windows; FOLDS have one per vector, given as -1.
    """
    rows, tables, links, marks = [], [np.zeros(0, np.int64)], [0], []
    i = 0
    while i < len(schedules):
        schedule, n_marks = schedules[i], 0
        numbers, start = list(schedule.numbers), sum(map(len, tables))
        if schedule.kind == Schedule.Kind.EACH:
            tables.append(np.asarray(schedule.table, np.int64))
            numbers += [start, start + len(schedule.table)]
        elif schedule.kind == Schedule.Kind.WINDOWS:
            pipeline, ring, beats, n_marks = schedule.numbers
            freed, needed = np.split(np.asarray(schedule.table, np.int64), [n_marks])
            tables += [needed, freed]
            numbers = [pipeline, ring, beats, len(needed), start, n_marks]
        elif schedule.kind == Schedule.Kind.REPLAY:
            _, vector, folds = schedule.numbers
            i += 1
            if i == len(schedules) or schedules[i].table != (0,) * (vector - 1) + (1,):
                raise ValueError(f"kernel {i - 1} replays vectors of {vector} words; a matrix unit of {vector} words "
                                 "per vector must follow")
            numbers = [*schedules[i].numbers, vector, folds, schedule.capacity]
            n_marks = -1
        rows.append([schedule.kind.value, *numbers, *[0] * (6 - len(numbers))])
        links.append(i + 1)
        marks.append(n_marks)
        i += 1
    return np.array(rows, np.int64), np.concatenate(tables), links, marks


@compiled()
def run(kernels, tables, state, marks, mark_starts, starts, offered, taken, n_offered, n_taken,
        idles, after, ready, gate, n_source, awake):
    """Run kernels until all that follows from the source's `n_source` beats is known; return why, see above.

    Parameters
    ----------
    state : of every kernel, shape (kernels, N_STATES)
    marks, mark_starts : cycles in which room is given back, one kernel behind another
    starts, offered, taken, n_offered, n_taken : the links, one behind another, and how much of them is known
    idles : cycles that the source idles before each beat; empty where it never does
    after : for each beat that from whose transfer on the source idles; empty: the one before
    ready : for each cycle the first one from it on in which the sink takes a beat; empty where it always does
    gate : beats per image, in and out, where a result waits for its image's last beat; else zeros
    """
    n = len(kernels)
    awake[:] = True
    asleep = False
    while not asleep:
        asleep = True
        for i in range(n + 2):
            if not awake[i]:
                continue
            awake[i] = False
            if i == 0:
                moved = _offer(offered, taken, n_offered, n_taken, idles, after, n_source)
            elif i == n + 1:
                moved = _take(n, starts, offered, taken, n_offered, n_taken, ready, gate)
                if moved < 0:
                    return MORE_READY
            else:
                moved = _step(i - 1, kernels, tables, state, marks, mark_starts, starts, offered, taken, n_offered,
                              n_taken)
            if moved:
                asleep = False
                awake[max(0, i - 1)] = True
                awake[min(n + 1, i + 1)] = True
                if gate[0] and i == 1:
                    awake[n + 1] = True
    return DONE


@compiled(inline="always")
def _offer(offered, taken, n_offered, n_taken, idles, after, n_source):
    """Offer, as the source, the next beat the cycle after the last was taken, idles apart."""
    first = n_offered[0]
    i = first
    while i < n_source and i <= n_taken[0]:
        cycle = taken[i - 1] + 1 if i else 0
        if len(idles):
            start = taken[after[i]] + 1 if i and len(after) else cycle
            cycle = max(cycle, start + idles[i])
        offered[i] = cycle
        i += 1
    n_offered[0] = i
    return i - first


@compiled(inline="always")
def _take(link, starts, offered, taken, n_offered, n_taken, ready, gate):
    """Take, as the sink, a beat in the first cycle in which it is ready and the gate is open."""
    first, start, i = n_taken[link], starts[link], n_taken[link]
    while i < n_offered[link]:
        cycle = offered[start + i]
        if gate[0]:
            n_entered = (i // gate[1] + 1) * gate[0]
            if n_taken[0] < n_entered:
                break
            cycle = max(cycle, taken[n_entered - 1] + 1)
        if len(ready):
            if cycle >= len(ready) or ready[cycle] >= len(ready):
                n_taken[link] = i
                return -1
            cycle = ready[cycle]
        taken[start + i] = cycle
        i += 1
    n_taken[link] = i
    return i - first


@compiled(inline="always")
def _step(k, kernels, tables, state, marks, mark_starts, starts, offered, taken, n_offered, n_taken):
    """Run one kernel as far as its neighbours are known; return how many numbers are new."""
    before = n_taken[k] + n_offered[k + 1]
    kind = kernels[k, 0]
    if kind == FIFO:
        _fifo(k, kernels, starts, offered, taken, n_offered, n_taken)
    elif kind == GATHER:
        _gather(k, kernels, starts, offered, taken, n_offered, n_taken)
    elif kind == HAND_OUT:
        _hand_out(k, kernels, starts, offered, taken, n_offered, n_taken)
    else:
        done = -1
        while n_taken[k] + n_offered[k + 1] + state[k, N_OUT] + state[k, N_READ] + state[k, N_MARKS] > done:
            done = n_taken[k] + n_offered[k + 1] + state[k, N_OUT] + state[k, N_READ] + state[k, N_MARKS]
            if kind == EACH:
                _each(k, kernels, tables, state, starts, offered, taken, n_offered, n_taken)
            elif kind == FOLDS:
                _folds(k, kernels, state, marks, mark_starts, starts, offered, taken, n_offered, n_taken)
            else:
                _windows(k, kernels, tables, state, marks, mark_starts, starts, offered, taken, n_offered, n_taken)
            _publish(k, state, starts, offered, taken, n_offered, n_taken)
    return n_taken[k] + n_offered[k + 1] - before


@compiled(inline="always")
def _fifo(k, kernels, starts, offered, taken, n_offered, n_taken):
    """Let a beat enter when the one `depth` before it has left, and offer it a cycle later."""
    depth, a, b = kernels[k, 1], starts[k], starts[k + 1]
    n_in, n_out, came, left = n_taken[k], n_offered[k + 1], n_offered[k], n_taken[k + 1]
    while True:
        if n_out < n_in and n_out <= left:
            cycle = taken[a + n_out] + 1
            if n_out:
                cycle = max(cycle, taken[b + n_out - 1] + 1)
            offered[b + n_out] = cycle
            n_out += 1
        elif n_in < came and n_in - depth < left:
            cycle = offered[a + n_in]
            if n_in >= depth:
                cycle = max(cycle, taken[b + n_in - depth] + 1)
            taken[a + n_in] = cycle
            n_in += 1
        else:
            break
    n_taken[k], n_offered[k + 1] = n_in, n_out


@compiled(inline="always")
def _gather(k, kernels, starts, offered, taken, n_offered, n_taken):
    """Let a group's first beat enter no sooner than the group before leaves; its last beat completes it."""
    ratio, a, b = kernels[k, 1], starts[k], starts[k + 1]
    group, place = n_taken[k] // ratio, n_taken[k] % ratio
    while n_taken[k] < n_offered[k]:
        cycle = offered[a + n_taken[k]]
        if place == 0 and group:
            if n_taken[k + 1] < group:
                return
            cycle = max(cycle, taken[b + group - 1])
        taken[a + n_taken[k]] = cycle
        n_taken[k] += 1
        place += 1
        if place == ratio:
            offered[b + group] = cycle + 1
            n_offered[k + 1] += 1
            group, place = group + 1, 0


@compiled(inline="always")
def _hand_out(k, kernels, starts, offered, taken, n_offered, n_taken):
    """Let a beat enter no sooner than the last piece of the one before leaves; its pieces follow one by one."""
    ratio, a, b = kernels[k, 1], starts[k], starts[k + 1]
    while True:
        i = n_offered[k + 1]
        if i < n_taken[k] * ratio and i <= n_taken[k + 1]:
            offered[b + i] = taken[a + i // ratio] + 1 if i % ratio == 0 else taken[b + i - 1] + 1
            n_offered[k + 1] += 1
            continue
        i = n_taken[k]
        if i < n_offered[k] and n_taken[k + 1] >= i * ratio:
            taken[a + i] = max(offered[a + i], taken[b + i * ratio - 1]) if i else offered[a + i]
            n_taken[k] += 1
            continue
        return


@compiled(inline="always")
def _publish(k, state, starts, offered, taken, n_offered, n_taken):
    """Turn the pipeline's own times of finished beats into cycles, as far as earlier beats are known to have left."""
    b, i, frozen = starts[k + 1], state[k, PUBLISHED], state[k, PUBLISHED_FROZEN]
    while i < state[k, N_OUT] and n_taken[k + 1] >= i:
        if i:
            frozen += taken[b + i - 1] - offered[b + i - 1]
        offered[b + i] += frozen
        i += 1
    state[k, PUBLISHED], state[k, PUBLISHED_FROZEN], n_offered[k + 1] = i, frozen, i


@compiled(inline="always")
def _advance(k, state, not_before, starts, offered, taken, n_taken):
    """Move TIME on to the first step at or behind it whose cycle is `not_before` or later; False if not yet known.

    Then the step's cycle is TIME + FROZEN.
    """
    b, emerges = starts[k + 1], 0
    while True:
        i = state[k, SETTLED]
        pending = i < state[k, N_OUT]
        if pending:
            emerges = offered[b + i] - (state[k, FROZEN] if i < state[k, PUBLISHED] else 0)
            if emerges <= state[k, TIME]:
                if n_taken[k + 1] <= i:
                    return False
                state[k, FROZEN] += taken[b + i] - offered[b + i]
                state[k, SETTLED] += 1
                continue
        missing = not_before - state[k, FROZEN] - state[k, TIME]
        if missing <= 0:
            return True
        state[k, TIME] = min(emerges, state[k, TIME] + missing) if pending else state[k, TIME] + missing


@compiled(inline="always")
def _each(k, kernels, tables, state, starts, offered, taken, n_offered, n_taken):
    """Take a beat per step; for those that the table marks one leaves `depth` steps later."""
    depth, table, size = kernels[k, 1], kernels[k, 2], kernels[k, 3] - kernels[k, 2]
    a, b = starts[k], starts[k + 1]
    place = n_taken[k] % size
    while n_taken[k] < n_offered[k]:
        i = n_taken[k]
        if not _advance(k, state, offered[a + i], starts, offered, taken, n_taken):
            return
        taken[a + i] = state[k, TIME] + state[k, FROZEN]
        n_taken[k] += 1
        if tables[table + place]:
            offered[b + state[k, N_OUT]] = state[k, TIME] + depth
            state[k, N_OUT] += 1
        place = 0 if place + 1 == size else place + 1
        state[k, TIME] += 1


@compiled(inline="always")
def _end(k, state, marks, first_mark, starts, offered, taken, n_taken):
    """Mark the cycle of the read that gives room back; False if not yet known."""
    if not _advance(k, state, 0, starts, offered, taken, n_taken):
        return False
    marks[first_mark + state[k, N_MARKS]] = state[k, TIME] + state[k, FROZEN]
    state[k, N_MARKS] += 1
    state[k, ENDING] = 0
    state[k, TIME] += 1
    return True


@compiled(inline="always")
def _folds(k, kernels, state, marks, mark_starts, starts, offered, taken, n_offered, n_taken):
    """Let words enter while the buffer has room; read a vector `folds` times, the first time as its words come.

    A vector gives its room back with its last read. `marks` holds the cycle of that of every vector.
    """
    depth, words, folds, capacity = kernels[k, 1], kernels[k, 2], kernels[k, 3], kernels[k, 4]
    a, b, m = starts[k], starts[k + 1], mark_starts[k]
    while n_taken[k] < n_offered[k]:
        i = n_taken[k]
        cycle = offered[a + i]
        if i >= capacity:
            vector = (i - capacity) // words
            if vector >= state[k, N_MARKS]:
                break
            cycle = max(cycle, marks[m + vector] + 1)
        taken[a + i] = cycle
        n_taken[k] += 1
    while True:
        if state[k, ENDING] and not _end(k, state, marks, m, starts, offered, taken, n_taken):
            return
        i = state[k, N_READ]
        if i >= n_taken[k] or not _advance(k, state, taken[a + i] + 1, starts, offered, taken, n_taken):
            return
        state[k, N_READ] += 1
        if state[k, N_READ] % words:
            state[k, TIME] += 1
            continue
        for fold in range(folds):
            offered[b + state[k, N_OUT] + fold] = state[k, TIME] + fold * words + depth
        state[k, N_OUT] += folds
        state[k, TIME] += (folds - 1) * words
        state[k, ENDING] = 1


@compiled(inline="always")
def _windows(k, kernels, tables, state, marks, mark_starts, starts, offered, taken, n_offered, n_taken):
    """Let words enter while the ring has room; send a window, a beat per step, once its last word is in.

    `marks` holds the cycle in which every row of windows was read to its end.
    """
    depth, ring, beats, n_windows, needs = kernels[k, 1], kernels[k, 2], kernels[k, 3], kernels[k, 4], kernels[k, 5]
    frees = needs + n_windows
    a, b, m, n_rows = starts[k], starts[k + 1], mark_starts[k], kernels[k, 6]
    columns, image_words = n_windows // n_rows, tables[frees + n_rows - 1]
    while n_taken[k] < n_offered[k]:
        i = n_taken[k]
        cycle = offered[a + i]
        if i >= ring:
            row = state[k, FREEING]
            while row // n_rows * image_words + tables[frees + row % n_rows] <= i - ring:
                row += 1
            state[k, FREEING] = row
            if row >= state[k, N_MARKS]:
                break
            cycle = max(cycle, marks[m + row] + 1)
        taken[a + i] = cycle
        n_taken[k] += 1
    while True:
        if state[k, ENDING] and not _end(k, state, marks, m, starts, offered, taken, n_taken):
            return
        window = state[k, N_READ]
        needed = window // n_windows * image_words + tables[needs + window % n_windows]
        if n_taken[k] < needed or not _advance(k, state, taken[a + needed - 1] + 1, starts, offered, taken, n_taken):
            return
        for beat in range(beats):
            offered[b + state[k, N_OUT] + beat] = state[k, TIME] + beat + depth
        state[k, N_OUT] += beats
        state[k, N_READ] += 1
        state[k, ENDING] = state[k, N_READ] % columns == 0
        state[k, TIME] += beats - state[k, ENDING]


@compiled(_nrt=True)
def replayed(vector, folds, entered, out_offered, out_taken):
    """Return when the beats between a replay buffer and its matrix unit are offered, and when taken.

    Parameters
    ----------
    entered : when every word entered the buffer
    out_offered, out_taken : the matrix unit's beats; it is frozen from the one to the other
    """
    n = len(entered) * folds
    offered, taken = np.zeros(n, np.int64), np.zeros(n, np.int64)
    free, out = 0, 0
    for i in range(n):
        offered[i] = max(entered[i // (vector * folds) * vector + i % vector] + 1, free)
        cycle = offered[i]
        while out < len(out_offered) and out_offered[out] <= cycle:
            if out_taken[out] > cycle:
                cycle = out_taken[out]
            out += 1
        taken[i] = cycle
        free = cycle + 1
    return offered, taken
