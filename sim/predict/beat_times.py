"""The compiled part of the dataflow simulation: when every beat is offered and when it is taken.

A link is two numbers per beat: the cycle in which it is first offered, and the cycle in which it is
taken. A kernel computes, as far as its neighbours' numbers are known, when it takes what enters and
when it offers what leaves. Kernels are run until no number is missing. This costs a few steps per
beat; simulated logic costs every kernel's work in every cycle.

Pipelines (sliding window, MVTU, max pool, classify) freeze as a whole while a beat that they offer
is not taken. Their rules therefore count in steps: a cycle in which the pipeline is frozen is no
step. The cycle of a step is the step plus the frozen cycles before it. For example, a pipeline of 3
steps takes a beat in each of the cycles 0, 1 and 2. The first beat leaves in step 3, which is cycle
3, but the sink takes it in cycle 5: cycles 3 and 4 are frozen. Step 3, which takes the fourth beat,
is cycle 5. Step 4, in which the second beat leaves, is cycle 6.

A replay buffer and the matrix unit after it are one kernel here: the words of a vector that is
replayed leave one per step, so that they need not be computed one by one.

All functions that `run` calls, and the records and tuples that they read, stand in this file,
because the cache of numba does not see a change in another one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cbnn.hw.stream import Schedule

Numbers = NDArray[np.int64]
FIFO, GATHER, HAND_OUT, EACH, FOLDS, WINDOWS = (kind.value for kind in Schedule.Kind)
"""Kinds as `Schedule` has them; FOLDS are a replay buffer and the matrix unit after it."""
NEVER = np.iinfo(np.int64).max
DONE, MORE_READY = range(2)
"""Why `run` came back: no number is missing, or `ready` is too short."""


def record(*names: str) -> np.dtype:
    """Return a record of numbers, which compiled functions read by their names."""
    return np.dtype([(name, np.int64) for name in names], align=True)


RULE = record("kind", "takes", "gives", "pipeline", "ratio", "capacity", "frees", "vector", "folds",
              "beats", "windows", "table")
"""What a kernel does; a number that its kind does not need is 0.

- kind, and the links that it takes and gives
- pipeline : steps from the last beat that is needed to the beat that leaves
- ratio : GATHER, HAND_OUT: narrow beats per wide one
- capacity : FIFO, FOLDS, WINDOWS: beats (words) that the memory holds
- frees : FOLDS, WINDOWS: how many times per image the memory gives room back
- vector, folds : FOLDS: words per vector, and how many times each vector is read
- beats : EACH: beats of an image that enter. WINDOWS: beats per window
- windows : WINDOWS: windows of an image
- table : EACH: where its part of `tables` starts; for every beat of an image that enters it says
  whether a beat leaves for it. WINDOWS: the same; the words of the image that every window needs,
  then the words that are free after each row of windows
"""
STATE = record("n_read", "n_out", "n_settled", "n_published", "n_freed", "freeing", "ending",
               "step", "frozen", "frozen_published")
"""What a pipeline remembers between runs.

- n_read : words (FOLDS) or windows (WINDOWS) that it has read
- n_out : beats for which the step in which they leave is known
- n_published : those of them for which the cycle is known too; the link has it
- n_settled : those of them that left no later than `step`
- n_freed : how many times the memory has given room back
- freeing : WINDOWS: the row of windows after which the next word that enters has room
- ending : whether the next step reads the last word before room is given back
- step : the next step
- frozen : cycles for which the beats that are settled froze the pipeline
- frozen_published : cycles for which the beats that are published froze it, but for the last one
"""


class Kernels(NamedTuple):
    """What kernels do, of `RULE` and shape (kernels,); and what they look up."""

    rules: NDArray[np.void]
    tables: Numbers


class Memory(NamedTuple):
    """What kernels remember, of `STATE` and shape (kernels,); and the cycles that give room back.

    `freed` has these cycles of one kernel after another; those of kernel k begin at `starts[k]`.
    """

    states: NDArray[np.void]
    freed: Numbers
    starts: Numbers


class Links(NamedTuple):
    """What is known of the links; `n_offered` and `n_taken` say of how many beats.

    `offered` and `taken` have the beats of one link after another; those of link i begin at
    `starts[i]`. `givers[i]` and `takers[i]` are its kernels; after the last kernel, n - 1, the
    source is n and the sink n + 1.
    """

    givers: Numbers
    takers: Numbers
    starts: Numbers
    offered: Numbers
    taken: Numbers
    n_offered: Numbers
    n_taken: Numbers


class Outside(NamedTuple):
    """What source and sink do.

    Attributes
    ----------
    entry, exit : the links that the source gives and the sink takes
    n_beats : beats that the source gives
    idles : cycles that the source idles before each beat; empty where it never does
    after : for each beat the one from whose transfer on the source idles; empty: the one before
    ready : for each cycle the first one from it on in which the sink takes a beat; empty where it
        always does
    gate : beats per image, in and out, where a result waits for its image's last beat; else zeros
    """

    entry: int
    exit: int
    n_beats: int
    idles: Numbers
    after: Numbers
    ready: Numbers
    gate: Numbers


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Compile without counting references of arrays, which took most of the time; none is made."""
    settings: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False, **options}
    return njit(**settings)


@compiled()
def run(kernels, memory, links, outside, awake):
    """Run kernels until all that follows from the source's beats is known; return why, see above.

    `awake` is room for a flag per kernel, and for source and sink. Numbers only ever follow from
    others, so the order in which kernels run changes nothing but the time that it takes.
    """
    n = len(kernels.rules)
    source, sink = n, n + 1
    awake[:] = True
    moving = True
    while moving:
        moving = False
        if awake[source]:
            awake[source] = False
            if _offer(links, outside):
                awake[links.takers[outside.entry]] = moving = True
        for k in range(n):
            if awake[k]:
                awake[k] = False
                takes, gives = kernels.rules[k].takes, kernels.rules[k].gives
                n_in, n_out = links.n_taken[takes], links.n_offered[gives]
                _step(k, kernels, memory, links)
                if links.n_taken[takes] > n_in:
                    awake[links.givers[takes]] = moving = True
                    # A result may wait at the gate for the beat that has just entered.
                    if outside.gate[0] and takes == outside.entry:
                        awake[sink] = True
                if links.n_offered[gives] > n_out:
                    awake[links.takers[gives]] = moving = True
        if awake[sink]:
            awake[sink] = False
            n_moved = _take(links, outside)
            if n_moved < 0:
                return MORE_READY
            if n_moved:
                awake[links.givers[outside.exit]] = moving = True
    return DONE


@compiled(inline="always")
def _offer(links, outside):
    """Offer, as the source, the next beat the cycle after the last was taken, idles apart."""
    link = outside.entry
    start, first, n_taken = links.starts[link], links.n_offered[link], links.n_taken[link]
    i = first
    while i < outside.n_beats and i <= n_taken:
        cycle = links.taken[start + i - 1] + 1 if i else 0
        if len(outside.idles):
            since = cycle
            # Beats with which the frame guard fills an image up do not interrupt an idle.
            if i and len(outside.after):
                since = links.taken[start + outside.after[i]] + 1
            cycle = max(cycle, since + outside.idles[i])
        links.offered[start + i] = cycle
        i += 1
    links.n_offered[link] = i
    return i - first


@compiled(inline="always")
def _take(links, outside):
    """Take, as the sink, a beat in the first cycle in which it is ready and the gate is open.

    Return the beats taken; -1 where `ready` ends before the next one.
    """
    link, ready, gate = outside.exit, outside.ready, outside.gate
    start, first, entry = links.starts[link], links.n_taken[link], links.starts[outside.entry]
    i = first
    while i < links.n_offered[link]:
        cycle = links.offered[start + i]
        if gate[0]:
            n_entered = (i // gate[1] + 1) * gate[0]
            if links.n_taken[outside.entry] < n_entered:
                break
            cycle = max(cycle, links.taken[entry + n_entered - 1] + 1)
        if len(ready):
            if cycle >= len(ready) or ready[cycle] >= len(ready):
                links.n_taken[link] = i
                return -1
            cycle = ready[cycle]
        links.taken[start + i] = cycle
        i += 1
    links.n_taken[link] = i
    return i - first


@compiled(inline="always")
def _step(k, kernels, memory, links):
    """Run one kernel as far as its neighbours are known."""
    rule, state = kernels.rules[k], memory.states[k]
    if rule.kind == FIFO:
        _fifo(rule, links)
    elif rule.kind == GATHER:
        _gather(rule, links)
    elif rule.kind == HAND_OUT:
        _hand_out(rule, links)
    else:
        # A beat that gets its cycle can settle the next step, and room that comes free lets words
        # in, so the rule is repeated until it adds nothing.
        known = -1
        while _known(rule, state, links) > known:
            known = _known(rule, state, links)
            if rule.kind == EACH:
                _each(rule, kernels.tables, state, links)
            elif rule.kind == FOLDS:
                _folds(rule, state, memory.freed, memory.starts[k], links)
            else:
                _windows(rule, kernels.tables, state, memory.freed, memory.starts[k], links)
            _publish(rule, state, links)


@compiled(inline="always")
def _known(rule, state, links):
    """How many numbers of a pipeline are known."""
    return (links.n_taken[rule.takes] + links.n_offered[rule.gives] + state.n_out + state.n_read
            + state.n_freed)


@compiled(inline="always")
def _fifo(rule, links):
    """Let a beat enter when the one `capacity` before it has left, and offer it a cycle later."""
    takes, gives, capacity, offered, taken = (rule.takes, rule.gives, rule.capacity, links.offered,
                                              links.taken)
    into, out = links.starts[takes], links.starts[gives]
    n_in, n_out, came, left = (links.n_taken[takes], links.n_offered[gives],
                               links.n_offered[takes], links.n_taken[gives])
    while True:
        if n_out < n_in and n_out <= left:
            cycle = taken[into + n_out] + 1
            if n_out:
                cycle = max(cycle, taken[out + n_out - 1] + 1)
            offered[out + n_out] = cycle
            n_out += 1
        elif n_in < came and n_in - capacity < left:
            cycle = offered[into + n_in]
            # A full FIFO is not ready in the cycle in which a beat leaves, but in the next one.
            if n_in >= capacity:
                cycle = max(cycle, taken[out + n_in - capacity] + 1)
            taken[into + n_in] = cycle
            n_in += 1
        else:
            break
    links.n_taken[takes], links.n_offered[gives] = n_in, n_out


@compiled(inline="always")
def _gather(rule, links):
    """Let a group's first beat enter when the group before leaves; its last beat completes it.

    For example, with groups of 2, beats taken in cycles 0 and 1 are offered as one in cycle 2. If
    that one is taken in cycle 5, the first beat of the next group can enter in cycle 5 too.
    """
    takes, gives, ratio = rule.takes, rule.gives, rule.ratio
    into, out = links.starts[takes], links.starts[gives]
    n_in, came, left = links.n_taken[takes], links.n_offered[takes], links.n_taken[gives]
    group, place = n_in // ratio, n_in % ratio
    while n_in < came:
        cycle = links.offered[into + n_in]
        if place == 0 and group:
            if left < group:
                break
            cycle = max(cycle, links.taken[out + group - 1])
        links.taken[into + n_in] = cycle
        n_in += 1
        place += 1
        if place == ratio:
            links.offered[out + group] = cycle + 1
            group, place = group + 1, 0
    links.n_taken[takes], links.n_offered[gives] = n_in, group


@compiled(inline="always")
def _hand_out(rule, links):
    """Let a beat enter when the last piece of the one before leaves; pieces follow one by one.

    For example, a beat taken in cycle 0 leaves as two pieces in cycles 1 and 2, and the next beat
    enters in cycle 2, so that its first piece follows in cycle 3 without a gap.
    """
    takes, gives, ratio, offered, taken = (rule.takes, rule.gives, rule.ratio, links.offered,
                                           links.taken)
    into, out = links.starts[takes], links.starts[gives]
    n_in, n_out, came, left = (links.n_taken[takes], links.n_offered[gives],
                               links.n_offered[takes], links.n_taken[gives])
    while True:
        if n_out < n_in * ratio and n_out <= left:
            first = n_out % ratio == 0
            before = taken[into + n_out // ratio] if first else taken[out + n_out - 1]
            offered[out + n_out] = before + 1
            n_out += 1
        elif n_in < came and n_in * ratio <= left:
            cycle = offered[into + n_in]
            if n_in:
                cycle = max(cycle, taken[out + n_in * ratio - 1])
            taken[into + n_in] = cycle
            n_in += 1
        else:
            break
    links.n_taken[takes], links.n_offered[gives] = n_in, n_out


@compiled(inline="always")
def _publish(rule, state, links):
    """Turn the steps in which beats leave into cycles, as far as the beats before them have left.

    Until then the link holds the step where the cycle will be.
    """
    out, left, n_out = links.starts[rule.gives], links.n_taken[rule.gives], state.n_out
    i, frozen = state.n_published, state.frozen_published
    while i < n_out and i <= left:
        if i:
            frozen += links.taken[out + i - 1] - links.offered[out + i - 1]
        links.offered[out + i] += frozen
        i += 1
    state.n_published, state.frozen_published, links.n_offered[rule.gives] = i, frozen, i


@compiled(inline="always")
def _advance(state, links, out, left, not_before):
    """Move on to the first step whose cycle is `not_before` or later; False if not yet known.

    The cycle is then `step` + `frozen`. A beat that leaves in the step or before it must have been
    taken first: how long it froze the pipeline is part of the cycle. `out` is where the beats that
    leave stand on the links, and `left` says how many of them are known to have been taken.
    """
    while True:
        i, emerges = state.n_settled, NEVER
        if i < state.n_out:
            # The step in which it leaves. A published beat has its cycle on the link instead; all
            # beats before it are settled, so `frozen` is exactly what was added.
            emerges = links.offered[out + i] - (state.frozen if i < state.n_published else 0)
            if emerges <= state.step:
                if left <= i:
                    return False
                state.frozen += links.taken[out + i] - links.offered[out + i]
                state.n_settled += 1
                continue
        missing = not_before - state.frozen - state.step
        if missing <= 0:
            return True
        # The pipeline may freeze on the way, which uses up cycles without steps, so it stops at the
        # next beat that leaves.
        state.step = min(emerges, state.step + missing)


@compiled(inline="always")
def _each(rule, tables, state, links):
    """Take a beat per step; for those that the table marks one leaves `pipeline` steps later."""
    takes, pipeline, table, size = rule.takes, rule.pipeline, rule.table, rule.beats
    into, out, left = links.starts[takes], links.starts[rule.gives], links.n_taken[rule.gives]
    n_in, came = links.n_taken[takes], links.n_offered[takes]
    place = n_in % size
    while n_in < came and _advance(state, links, out, left, links.offered[into + n_in]):
        links.taken[into + n_in] = state.step + state.frozen
        n_in += 1
        if tables[table + place]:
            links.offered[out + state.n_out] = state.step + pipeline
            state.n_out += 1
        place = 0 if place + 1 == size else place + 1
        state.step += 1
    links.n_taken[takes] = n_in


@compiled(inline="always")
def _free(state, freed, first, links, out, left):
    """Note the cycle of the read that gives room back; False if not yet known."""
    if not _advance(state, links, out, left, 0):
        return False
    freed[first + state.n_freed] = state.step + state.frozen
    state.n_freed += 1
    state.ending = 0
    state.step += 1
    return True


@compiled(inline="always")
def _folds(rule, state, freed, first, links):
    """Let words enter while the buffer has room; read a vector `folds` times.

    The first time it is read as its words come, then without a gap. It gives its room back with its
    last read. For example, a vector of 2 words enters in cycles 0 and 1. Read 3 times, it is read
    in cycles 1 to 6, and there is room for 2 words more in cycle 7.
    """
    takes, pipeline, vector, folds = rule.takes, rule.pipeline, rule.vector, rule.folds
    capacity, offered, taken = rule.capacity, links.offered, links.taken
    into, out, left = links.starts[takes], links.starts[rule.gives], links.n_taken[rule.gives]
    n_in, came = links.n_taken[takes], links.n_offered[takes]
    while n_in < came:
        cycle = offered[into + n_in]
        if n_in >= capacity:
            last = (n_in - capacity) // vector
            if last >= state.n_freed:
                break
            cycle = max(cycle, freed[first + last] + 1)
        taken[into + n_in] = cycle
        n_in += 1
    links.n_taken[takes] = n_in
    while True:
        # The cycle of the last read is only known once all beats before it have left; words may
        # enter in the meantime, so the read is a step of its own.
        if state.ending and not _free(state, freed, first, links, out, left):
            return
        i = state.n_read
        if i >= n_in or not _advance(state, links, out, left, taken[into + i] + 1):
            return
        state.n_read += 1
        if state.n_read % vector:
            state.step += 1
            continue
        for fold in range(folds):
            offered[out + state.n_out + fold] = state.step + fold * vector + pipeline
        state.n_out += folds
        state.step += (folds - 1) * vector
        state.ending = 1


@compiled(inline="always")
def _windows(rule, tables, state, freed, first, links):
    """Let words enter while the ring has room; send a window, a beat per step, once its last is in.

    Every row of windows gives back, with the last of its beats, the words that no later row needs.
    For example, rows of 3x3 windows without padding on images of 8 columns and 1 word per pixel:
    the first window needs 19 words, the second 20; after the first row of windows 8 words are free.
    """
    takes, pipeline, ring, beats = rule.takes, rule.pipeline, rule.capacity, rule.beats
    needs, n_windows, n_rows = rule.table, rule.windows, rule.frees
    frees, columns = needs + n_windows, n_windows // n_rows
    image_words = tables[frees + n_rows - 1]
    into, out, left = links.starts[takes], links.starts[rule.gives], links.n_taken[rule.gives]
    n_in, came = links.n_taken[takes], links.n_offered[takes]
    while n_in < came:
        cycle = links.offered[into + n_in]
        if n_in >= ring:
            # The first row of windows that frees the word in whose place this one goes.
            row = state.freeing
            while row // n_rows * image_words + tables[frees + row % n_rows] <= n_in - ring:
                row += 1
            state.freeing = row
            if row >= state.n_freed:
                break
            cycle = max(cycle, freed[first + row] + 1)
        links.taken[into + n_in] = cycle
        n_in += 1
    links.n_taken[takes] = n_in
    while True:
        # As in `_folds`: the last beat of a row of windows is a step of its own.
        if state.ending and not _free(state, freed, first, links, out, left):
            return
        window = state.n_read
        needed = window // n_windows * image_words + tables[needs + window % n_windows]
        if n_in < needed:
            return
        if not _advance(state, links, out, left, links.taken[into + needed - 1] + 1):
            return
        for beat in range(beats):
            links.offered[out + state.n_out + beat] = state.step + beat + pipeline
        state.n_out += beats
        state.n_read += 1
        state.ending = state.n_read % columns == 0
        state.step += beats - state.ending
