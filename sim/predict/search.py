"""Folding search: the cheapest for an interval, the fastest within a budget, and some in between.

A layer's kernels cost what its own (PE, SIMD) say; only width converters and FIFOs depend on the
layer before too. So a folding is a path through the layers, and its cost is the sum of the nodes
(layers) and edges (what joins two of them) of the path. The cheapest folding whose layers all take
at most so many cycles is the shortest path through the options that are fast enough. Dynamic
programming finds it exactly (Bellman): of all paths to an option only the cheapest is kept. Where
block RAMs are bounded too, all paths are kept of which no other is better in both.

The fastest folding within a budget is found by bisection over the cycles that a layer can take: a
longer interval never costs more.

Costs are the estimates that kernels state, so "optimal" means optimal in estimates, with default
FIFO depths, which cost no cycle. The search is over chains, as topologies are.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from cbnn.hw.accelerator import Accelerator, accelerator, entry
from cbnn.hw.builders import node_kernels, tail_kernels, widths_converted
from cbnn.hw.folding import Folding, check_input_width, default_input_width, pools_after
from cbnn.hw.frame_guard import FrameGuard
from cbnn.hw.layer_folding import (
    MAX_FIFO_BITS,
    MAX_FIFO_DEPTH,
    MAX_FOLD,
    MAX_XNORS,
    LayerFolding,
    default_fifo_depth,
    mmv_choices,
)
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.slice_order import divisors, simd_choices, slices_together
from cbnn.hw.stream import Kernel
from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.operators.max_pool import PoolShape
from cbnn.model.topology import Topology

DEVICES = {
    "xc7z010": (17_600, 120), "xc7z020": (53_200, 280), "xc7a35t": (20_800, 100), "xc7a100t": (63_400, 270),
    "xc7k325t": (203_800, 890), "xc7vx690t": (433_200, 2940),
}
"""LUTs and block RAMs of 18 Kib of some 7-series FPGAs, from their product tables."""


ROUNDING = 1e-9
"""Bounds in proportion to a budget are no whole numbers."""


@dataclass(frozen=True)
class Budget:
    """What a folding may take.

    Attributes
    ----------
    luts, block_rams : at most so many; None for any number

    Raises
    ------
    ValueError
        When there is not one LUT, or the block RAMs are fewer than none.
    """

    luts: int | None = None
    block_rams: int | None = None

    def __post_init__(self) -> None:
        for what, value, least in (("LUTs", self.luts, 1), ("block RAMs", self.block_rams, 0)):
            if value is not None and value < least:
                raise ValueError(f"a budget of {value:,} {what} is given; at least {least} must be "
                                 "allowed")

    def __str__(self) -> str:
        parts = [f"{n:,} {name}" for n, name in ((self.luts, "LUTs"), (self.block_rams, "block RAMs")) if n is not None]
        return " and ".join(parts) or "any budget"


@dataclass(frozen=True)
class _Option:
    """A folding of one layer, with its cycles and costs, without converters in front of it.

    It takes `takes` bits per beat; `slowest` is the kernel that takes `cycles`.
    """

    folding: LayerFolding
    takes: int
    slowest: Kernel
    cycles: int
    luts: int
    block_rams: int


@dataclass(frozen=True)
class _Label:
    """The cheapest path to an option: its costs, and the options on it."""

    luts: int
    block_rams: int
    chain: tuple[_Option, ...]


class Search:
    """All foldings of a topology.

    Parameters
    ----------
    input_width : bits per beat of the input; None: the default of every folding
    whole_bytes : whether the input is whole pixels, see `Folding`

    Raises
    ------
    ValueError
        When the input does not fill whole beats of `input_width`.
    """

    def __init__(self, topology: Topology, input_width: int | None = None, whole_bytes: bool = False) -> None:
        self.topology, self.input_width, self.whole_bytes = topology, input_width, whole_bytes
        if input_width is not None:
            check_input_width(topology, input_width, whole_bytes)
        self.layers, self.pools = topology.layers, pools_after(topology)
        between = [None, *self.pools, None]
        self.options = [list(_options(i, shape, between[i], between[i + 1], whole_bytes and i == 0))
                        for i, shape in enumerate(self.layers)]
        self.options[0] = [self._with_input(option) for option in self.options[0]]
        # Marks of results cost the same at every folding that has fewer than 64 images in flight; where only some
        # foldings let a result come before its whole image, six LUTs too many may be counted.
        marks = self._lay_out(_Label(0, 0, tuple(options[0] for options in self.options))).marks.luts
        self.options[0] = [replace(option, luts=option.luts + marks) for option in self.options[0]]
        self._joined = cache(self._join)
        # Of every layer what is fastest; the slowest of these limits the network, whatever it may cost.
        fastest = [min(options, key=lambda option: option.cycles) for options in self.options]
        self._limit = max(fastest, key=lambda option: option.cycles)
        # Cycles that some layer can take, from the fewest that all can meet.
        self.intervals = sorted({option.cycles for options in self.options for option in options
                                 if option.cycles >= self._limit.cycles})

    @property
    def limit(self) -> str:
        """What limits the network at any cost, as a sentence.

        It names a kernel, its cycles, and the folding of its layer, which is the fastest there is.
        """
        limit = self._limit
        return f"{limit.slowest.name} takes {limit.cycles:,} cycles at {limit.folding}, and no folding is faster"

    def cheapest(self, interval_cycles: int, budget: Budget = Budget()) -> Accelerator:
        """Return the accelerator with the fewest LUTs that takes at most so many cycles per image.

        Raises
        ------
        ValueError
            When the interval is below 1, no folding is so fast, or none within the budget.
        """
        if interval_cycles < 1:
            raise ValueError(f"an interval of {interval_cycles:,} cycles is asked for; an image "
                             "takes at least 1")
        if interval_cycles < self.intervals[0]:
            raise ValueError(f"no folding takes at most {interval_cycles:,} cycles per image: {self.limit}")
        found = self._shortest(interval_cycles, budget)
        if found is None:
            raise ValueError(f"no folding within {budget} takes at most {interval_cycles:,} cycles per image")
        return self._lay_out(found)

    def fastest(self, budget: Budget) -> Accelerator:
        """Return the fastest accelerator within the budget, of several the one with fewest LUTs.

        Raises
        ------
        ValueError
            When no folding is within the budget.
        """
        labels: dict[int, _Label | None] = {}

        def fits(i: int) -> bool:
            labels[i] = self._shortest(self.intervals[i], budget)
            return labels[i] is not None

        i = bisect_left(range(len(self.intervals)), True, key=fits)
        if i == len(self.intervals):
            raise ValueError(f"no folding is within {budget}")
        return self._lay_out(labels[i])

    def front(self, n_points: int, budget: Budget = Budget()) -> list[Accelerator]:
        """Return accelerators, the fastest first, of which none is better in both cycles and LUTs.

        At most `n_points` intervals are looked at, in equal steps among those that there are, by
        their logarithm.

        Raises
        ------
        ValueError
            When not one point is asked for.
        """
        if n_points < 1:
            raise ValueError(f"{n_points} foldings are asked for; at least 1 is needed")
        ratio = self.intervals[-1] / self.intervals[0]
        wanted = [self.intervals[0] * ratio ** (i / max(1, n_points - 1)) for i in range(n_points)]
        chosen = sorted({self.intervals[min(bisect_left(self.intervals, cycles - 0.5), len(self.intervals) - 1)]
                         for cycles in wanted})
        found = [self._lay_out(label) for cycles in chosen if (label := self._shortest(cycles, budget))]
        return [unit for i, unit in enumerate(found) if i == 0 or unit.luts < found[i - 1].luts]

    def _with_input(self, option: _Option) -> _Option:
        """Add what takes the input, which depends on the first layer only."""
        first = entry("input", self.topology, Folding((option.folding,), self._beat(option.folding), self.whole_bytes))
        converters = list(widths_converted("input", first, option.takes))
        kernels = [first, *converters] if converters or self.whole_bytes else []
        luts, rams = _cost(kernels)
        luts += FrameGuard("guard", *first.s_axis).luts
        slowest = max([option.slowest, first, *converters], key=lambda kernel: kernel.interval_cycles)
        return replace(option, slowest=slowest, cycles=slowest.interval_cycles, luts=option.luts + luts,
                       block_rams=option.block_rams + rams)

    def _join(self, i: int, pe: int, mmv: int, simd: int, takes: int) -> tuple[int, int]:
        """Cost of what joins layer `i` at such a folding to one that `takes` so many bits."""
        shape, pool = self.layers[i], self.pools[i]
        before: Kernel = RegisterSlice("rows", mmv * pe, shape.n_windows * shape.mh // (mmv * pe))
        if pool:
            before = MaxPool("pool", pool.in_shape, pool.operator.size, pe, (0,), _beat_cycles(shape, simd), mmv)
        return _converters(before, takes)

    def _between(self, i: int, option: _Option, takes: int) -> tuple[int, int]:
        # Without a pool it does not matter how fast rows come.
        folding = option.folding
        return self._joined(i, folding.pe, folding.mmv, folding.simd if self.pools[i] else 0, takes)

    def _shortest(self, interval_cycles: int, budget: Budget) -> _Label | None:
        """Return the cheapest chain within the budget, of layers of at most so many cycles."""
        if budget.block_rams is not None:
            # Without the bound one path per option is kept, which is much faster. Often it is within the bound.
            free = self._shortest(interval_cycles, Budget(budget.luts))
            if free is None or free.block_rams <= budget.block_rams:
                return free
        bounded = budget.block_rams is not None
        layers = [self._worth(i, interval_cycles, bounded) for i in range(len(self.options))]
        left = _budgets(budget, layers)
        states = [_best([_Label(option.luts, option.block_rams, (option,))], left[0], bounded) for option in layers[0]]
        for i, options in enumerate(layers[1:], 1):
            states = [_best([self._extend(label, i, option) for labels in states for label in labels], left[i], bounded)
                      for option in options]
        return min((label for labels in states for label in labels),
                   key=lambda label: (label.luts, label.block_rams), default=None)

    def _extend(self, label: _Label, i: int, option: _Option) -> _Label:
        luts, rams = self._between(i - 1, label.chain[-1], option.takes)
        return _Label(label.luts + luts + option.luts, label.block_rams + rams + option.block_rams,
                      (*label.chain, option))

    def _worth(self, i: int, interval_cycles: int, bounded: bool) -> list[_Option]:
        """Return the fast enough options of a layer that may be part of the cheapest folding.

        An option cannot be if another one costs no more, even with the most expensive converters
        that can stand before and after that one.
        """
        options = [option for option in self.options[i] if option.cycles <= interval_cycles]
        options.sort(key=lambda option: (option.luts, option.block_rams))
        kept: list[_Option] = []
        converters: list[int] = []
        for option in options:
            if not any(other.luts + extra <= option.luts and (other.block_rams <= option.block_rams or not bounded)
                       for other, extra in zip(kept, converters, strict=True)):
                kept.append(option)
                converters.append(self._most_for_converters(i, option, interval_cycles))
        return kept

    def _most_for_converters(self, i: int, option: _Option, interval_cycles: int) -> int:
        """Return the most LUTs that converters on both sides of an option can take."""
        before = after = 0
        if i:
            before = max(self._between(i - 1, other, option.takes)[0]
                         for other in self.options[i - 1] if other.cycles <= interval_cycles)
        if i + 1 < len(self.options):
            after = max(self._between(i, option, takes)[0] for takes in {other.takes for other in self.options[i + 1]
                                                                          if other.cycles <= interval_cycles})
        return before + after

    def _lay_out(self, label: _Label | None) -> Accelerator:
        assert label is not None
        layers = tuple(option.folding for option in label.chain)
        return accelerator(self.topology, Folding(layers, self._beat(layers[0]), self.whole_bytes))

    def _beat(self, first: LayerFolding) -> int:
        """Bits of the input per beat, where the first layer folds like this."""
        if self.input_width is not None:
            return self.input_width
        return default_input_width(self.topology, first, self.whole_bytes)


@lru_cache(256)
def _options(i: int, shape: MatrixShape, before: PoolShape | None, after: PoolShape | None,
             whole_bytes: bool) -> tuple[_Option, ...]:
    """Return all foldings of layer `i`, between these pools; levels of pruning share those of all but the first."""
    options = []
    for simd in simd_choices(shape, whole_bytes):
        if simd > MAX_FOLD or default_fifo_depth(shape, simd) > MAX_FIFO_DEPTH:
            continue
        together = shape.n_slices if whole_bytes else slices_together(shape, simd)
        for pe in divisors(shape.mh):
            unfolded = pe == shape.mh and simd == shape.n_slices * shape.slice_inputs
            for mmv in mmv_choices(shape, after) if unfolded else [1]:
                folding = LayerFolding(pe, simd, default_fifo_depth(shape, simd), mmv=mmv)
                if folding.n_xnors > MAX_XNORS or folding.fifo_bits > MAX_FIFO_BITS:
                    continue
                takes = SlidingWindow.word_of(shape, simd, together, mmv) if shape.operator.slides else simd
                kernels = node_kernels(f"%s{i}", shape, None, folding, together, _giving(takes, shape, before))
                if after:
                    kernels += node_kernels(f"%s{i}", after, None, folding, 1, kernels[-1])
                if shape.operator.scores:
                    kernels += tail_kernels("%s", shape, None, kernels[-1])
                slowest = max(kernels, key=lambda kernel: kernel.interval_cycles)
                options.append(_Option(folding, takes, slowest, slowest.interval_cycles, *_cost(kernels)))
    if not options:
        raise ValueError(f"layer {i}: none of its foldings is supported; it has {shape.mh} rows of {shape.mw} weights")
    return tuple(options)


def _giving(width: int, shape: MatrixShape, pool: PoolShape | None) -> Kernel:
    """Return a kernel that gives beats of just this width, so that no converter is counted after it."""
    if not (shape.operator.slides and pool):
        return RegisterSlice("before", width, shape.tensor.n_bits // width)
    size, pe = pool.operator.size, min(width, shape.in_shape[2])
    return MaxPool("before", pool.in_shape, size, pe, (0,), 1 << 16, size * width // pe if width > pe else 1)


def _budgets(budget: Budget, layers: list[list[_Option]]) -> list[list[tuple[float, float, float]]]:
    """Return bounds that a path to every layer must keep, so that the layers after it still fit.

    A bound is a price per LUT, a price per block RAM, and the highest sum. One bound is of LUTs
    only, one of block RAMs only. One is of both, each in proportion to its budget: it is the
    tightest where layers take either many LUTs or many block RAMs.
    """
    luts, rams = budget.luts, budget.block_rams
    bounds = [(1.0, 0.0, float(luts))] if luts is not None else []
    if rams is not None:
        bounds += [(0.0, 1.0, float(rams))]
        bounds += [(1 / luts, 1 / rams, 2.0)] if luts and rams else []
    left = [bounds]
    for options in reversed(layers[1:]):
        bounds = [(lut, ram, most - min(lut * option.luts + ram * option.block_rams for option in options))
                  for lut, ram, most in bounds]
        left.insert(0, bounds)
    return left


def _best(labels: list[_Label], bounds: list[tuple[float, float, float]], bounded: bool) -> list[_Label]:
    """Return the cheapest label; where block RAMs count too, those that none beats in both."""
    for lut, ram, most in bounds:
        labels = [label for label in labels if lut * label.luts + ram * label.block_rams <= most + ROUNDING]
    labels.sort(key=lambda label: (label.luts, label.block_rams))
    if not bounded:
        return labels[:1]
    best: list[_Label] = []
    for label in labels:
        if not best or label.block_rams < best[-1].block_rams:
            best.append(label)
    return best


@lru_cache(1 << 16)
def _converters(before: Kernel, takes: int) -> tuple[int, int]:
    """Cost of what joins a kernel to one that `takes` so many bits; levels of pruning share most of these."""
    return _cost(list(widths_converted("join", before, takes)))


def _cost(kernels: list[Kernel]) -> tuple[int, int]:
    return sum(kernel.luts for kernel in kernels), sum(kernel.block_rams for kernel in kernels)


def _beat_cycles(shape: MatrixShape, simd: int) -> int:
    return shape.n_slices * shape.slice_inputs // simd

