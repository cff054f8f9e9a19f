"""What happened: the cycles of all beats on all links, and what can be asked of them."""

from dataclasses import dataclass, field

import numpy as np

from cbnn.hw.stream import OUTSIDE, Kernel, Link, Schedule
from cbnn.sim.predict.beat_times import Numbers, compiled
from cbnn.sim.predict.rules import ends

STARVED, BLOCKED, BUSY = range(3)


@dataclass(frozen=True)
class Trace:
    """What happens on every link. Links and kernels are counted as in `Accelerator`.

    Attributes
    ----------
    kernels, links : see `Accelerator`; cycles count as in `cosim`
    n_images : images asked for
    n_simulated : images, the first ones, that were simulated; the others repeat the last of them
    period_cycles : cycles from one to the next of those that repeat
    """

    kernels: tuple[Kernel, ...]
    links: tuple[Link, ...]
    n_images: int
    n_simulated: int
    period_cycles: int
    _offered: dict[int, Numbers] = field(repr=False)
    _taken: dict[int, Numbers] = field(repr=False)
    _entered: Numbers | None = field(default=None, repr=False)

    @property
    def entered(self) -> Numbers:
        """The cycle in which every beat of the source is taken over `s_axis`, int64.

        Those that the frame guard adds are not among them, those that it swallows are.
        """
        if self._entered is not None:
            return self._entered
        _, gives = ends(self.links)
        return self.taken(gives[OUTSIDE])

    def taken(self, link: int) -> Numbers:
        """Return the cycle in which every beat of all images moves over a link, int64.

        Negative numbers count from the end: -1 is the last link.
        """
        return self._all_images(self._known(link)[1])

    def offered(self, link: int) -> Numbers:
        """Return the cycle from which on every beat of all images is offered on a link, int64."""
        return self._all_images(self._known(link)[0])

    def _known(self, link: int) -> tuple[Numbers, Numbers]:
        """Cycles of the images that were simulated.

        Those between a replay buffer and its matrix unit are made here.
        """
        link %= len(self.links)
        if link in self._taken:
            return self._offered[link], self._taken[link]
        takes, gives = ends(self.links)
        buffer, unit = self.links[link].source, self.links[link].sink
        _, vector, folds = self.kernels[buffer].schedule.numbers
        entered, out = self._taken[takes[buffer]], gives[unit]
        return replayed(vector, folds, entered, self._offered[out], self._taken[out])

    def _all_images(self, cycles: Numbers) -> Numbers:
        n_more = self.n_images - self.n_simulated
        last = cycles[len(cycles) // self.n_simulated * (self.n_simulated - 1) :]
        more = last + self.period_cycles * np.arange(1, n_more + 1)[:, np.newaxis]
        return np.concatenate([cycles, more.ravel()])

    def states(self, i: int) -> np.ndarray:
        """Return what kernel `i` does in every cycle of the images that were simulated, uint8.

        A kernel is BUSY when it moves a beat, in or out. It is BLOCKED when it only offers one that
        is not taken, and STARVED when it does neither.
        """
        takes, gives = ends(self.links)
        n_cycles = int(self._taken[takes[OUTSIDE]][-1]) + 1
        offered, taken = self._known(gives[i])
        # Beats of rows that a stride or a pool drops may move after the last result.
        began, ended = (np.bincount(cycles[cycles < n_cycles], minlength=n_cycles)
                        for cycles in (offered, taken))
        states = np.where(np.cumsum(began - ended) > 0, BLOCKED, STARVED).astype(np.uint8)
        for moved in (self._known(takes[i])[1], taken):
            states[moved[moved < n_cycles]] = BUSY
        return states

    def held(self, i: int) -> tuple[Numbers, Numbers]:
        """Return when the memory of kernel `i` changes, and what it holds from the next cycle on.

        It holds beats, or words of a line buffer.

        Raises
        ------
        ValueError
            When the kernel has no memory.
        """
        takes, gives = ends(self.links)
        kernel, schedule = self.kernels[i], self.kernels[i].schedule
        offered, taken = self._known(gives[i])
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
        entered = self._known(takes[i])[1]
        cycles = np.concatenate([entered, taken])
        order = np.argsort(cycles, kind="stable")
        levels = np.cumsum(np.concatenate([np.ones(len(entered), np.int64), -freed])[order])
        cycles = cycles[order]
        last = np.append(np.diff(cycles) > 0, True)
        return cycles[last], levels[last]

    @property
    def latency_cycles(self) -> int:
        """From the first beat of the first image in to its last beat out."""
        _, gives = ends(self.links)
        return int(self._image_ends()[0] - self._taken[gives[OUTSIDE]][0])

    @property
    def interval_cycles(self) -> int:
        """Between the last beats of the last two images."""
        if self.n_images > self.n_simulated:
            return self.period_cycles
        cycles = self._image_ends()
        return int(cycles[-1] - cycles[-2])

    def _image_ends(self) -> Numbers:
        """When the last beat of every image that was simulated leaves."""
        takes, _ = ends(self.links)
        return self._taken[takes[OUTSIDE]].reshape(self.n_simulated, -1)[:, -1]


@compiled(_nrt=True)
def replayed(vector, folds, entered, out_offered, out_taken):
    """Return when the beats from a replay buffer to its matrix unit are offered, and when taken.

    Parameters
    ----------
    entered : when every word entered the buffer
    out_offered, out_taken : the matrix unit's beats; it is frozen from the one to the other
    """
    n = len(entered) * folds
    offered, taken = np.zeros(n, np.int64), np.zeros(n, np.int64)
    free, out = 0, 0
    for i in range(n):
        word = i // (vector * folds) * vector + i % vector
        # Only the first fold can wait for words; in later ones `free`, the next cycle, is later.
        offered[i] = max(entered[word] + 1, free)
        cycle = offered[i]
        while out < len(out_offered) and out_offered[out] <= cycle:
            cycle = max(cycle, out_taken[out])
            out += 1
        taken[i] = cycle
        free = cycle + 1
    return offered, taken
