"""Folding search: the fastest folding within a LUT budget.

Layers of a pipeline are independent but for the budget: at a given interval every layer takes its cheapest folding
that is fast enough. So the fastest interval within the budget is found by bisecting over the intervals that any
layer can have. Costs are the estimates that the kernels state (`Kernel.luts`).
"""

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.mvtu import Mvtu
from cbnn.hw.sliding_window import SlidingWindow
from cbnn.model.folding import Folding
from cbnn.model.topology import Conv, LayerShape, Topology


def refold(topology: Topology, start: Folding, lut_budget: int) -> Accelerator:
    """Return the fastest accelerator for `topology` of at most `lut_budget` estimated LUTs.

    Parameters
    ----------
    start : a folding known to fit, kept where nothing faster does; its input width is kept in any case

    Raises
    ------
    ValueError
        When `start` itself is beyond the budget.
    """
    best = accelerator(topology, start)
    if best.luts > lut_budget:
        raise ValueError(f"the folding {start} takes {best.luts} LUTs by estimate; the budget is {lut_budget}")
    options = [_options(shape, topology) for shape in topology.shapes]
    intervals = sorted({cycles for layer in options for cycles, *_ in layer})
    low, high = 0, len(intervals)
    while low < high:
        middle = (low + high) // 2
        candidate = _fold(topology, options, intervals[middle], start.input_width)
        if candidate is not None and candidate.luts <= lut_budget:
            high = middle
            if (candidate.interval_cycles, candidate.luts) < (best.interval_cycles, best.luts):
                best = candidate
        else:
            low = middle + 1
    return best


def _fold(topology: Topology, options: list[list[tuple[int, int, int, int]]], interval: int,
          input_width: int) -> Accelerator | None:
    """Every layer at its cheapest folding within `interval`; None where a layer has none."""
    pairs = []
    for layer in options:
        fitting = [(luts, pe, simd) for cycles, luts, pe, simd in layer if cycles <= interval]
        if not fitting:
            return None
        pairs.append(min(fitting)[1:])
    return accelerator(topology, Folding.of(topology, tuple(pairs), input_width))


def _options(shape: LayerShape, topology: Topology) -> list[tuple[int, int, int, int]]:
    """Cycles per image, LUTs, PE and SIMD of every folding of a layer."""
    options = []
    n_slices = shape.n_slices * shape.slice_inputs // shape.mw
    for simd in _divisors(shape.slice_inputs):
        window = SlidingWindow.for_layer("window", shape, simd) if isinstance(shape.layer, Conv) else None
        for pe in _divisors(shape.mh):
            weights = topology.slice_weights if n_slices > 1 else (1,)
            mvtu = Mvtu("mvtu", pe, simd, shape.mw // simd, shape.mh // pe, weights, shape.max_accumulator,
                        shape.n_windows)
            cycles = max(mvtu.interval_cycles, window.interval_cycles if window else 0)
            options.append((cycles, mvtu.luts + (window.luts if window else 0), pe, simd))
    return options


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
