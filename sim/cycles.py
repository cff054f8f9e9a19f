"""Cycles per image at each pruning level, without simulating logic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cbnn.hw.accelerator import accelerator
from cbnn.hw.mvtu import Mvtu
from cbnn.model.folding import Folding
from cbnn.model.topology import Topology
from cbnn.sim.dataflow import simulate
from cbnn.sim.search import Budget, Search


@dataclass(frozen=True)
class LevelCycles:
    """Predictions for one pruning level; cycles per image.

    Attributes
    ----------
    latency_cycles : of the first image, first beat in to last beat out, by dataflow simulation
    slowest : the kernel that sets the interval
    layer_cycles : cycles of every layer's matrix unit
    refolded, refolded_interval_cycles : the fastest folding within the LUTs of all slices, and its interval
    saved_cycles, saved_percent : interval saved against all slices at the same folding
    luts : estimate at the given folding
    """

    kept_slices: list[int]
    input_beats: int
    first_layer_cycles: int
    interval_cycles: int
    latency_cycles: int
    slowest: str
    layer_cycles: list[int]
    refolded: str
    refolded_interval_cycles: int
    saved_cycles: int
    saved_percent: float
    luts: int


def level_cycles(topology: Topology, fold: Callable[[Topology], Folding], levels: Sequence[int]) -> list[LevelCycles]:
    """Predict every level of pruning, the most significant slices kept.

    Parameters
    ----------
    topology : the network with all slices
    fold : gives the folding for a pruned topology
    levels : numbers of slices kept

    Raises
    ------
    ValueError
        When a level does not exist or the folding does not fit.
    """
    full = accelerator(topology, fold(topology))
    rows = []
    for n in levels:
        if not 1 <= n <= len(topology.kept_slices):
            raise ValueError(f"{n} slices are to be kept; the network has 1 to {len(topology.kept_slices)}")
        pruned = topology.keep(topology.kept_slices[:n])
        unit = accelerator(pruned, fold(pruned))
        faster = Search(pruned, unit.folding.input_width).fastest(Budget(full.luts))
        # Of equals the matrix unit is named: it is what a folding can change.
        slowest = max(unit.kernels, key=lambda kernel: (kernel.interval_cycles, isinstance(kernel, Mvtu)))
        saved = full.interval_cycles - unit.interval_cycles
        rows.append(LevelCycles(
            list(pruned.kept_slices), unit.input_beats, unit.first_layer_cycles, unit.interval_cycles,
            simulate(unit, 1).latency_cycles,
            slowest.name.removeprefix(f"{unit.name}_"), [mvtu.interval_cycles for mvtu in unit.mvtus],
            str(faster.folding), faster.interval_cycles, saved, 100 * saved / full.interval_cycles, unit.luts))
    return rows
