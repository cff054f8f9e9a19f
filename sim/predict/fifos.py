"""FIFO sizing: the smallest FIFOs in front of the matrix units that keep an interval, proven by simulation.

More depth never costs a cycle, since a beat's cycle is a maximum of sums of those before it. So the
smallest depth of each FIFO with all others deep is needed in any case; where these depths together
keep the interval, nothing smaller does. Where they do not, FIFOs are made as shallow as they can be
one after the other, the most expensive first.
"""

from dataclasses import dataclass

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.layer_folding import default_fifo_depth
from cbnn.model.topology import Topology
from cbnn.sim.predict.dataflow import simulate

MAX_IMAGES = 400
"""Images after which a network that has not settled is taken for what it then is."""


@dataclass(frozen=True)
class Sizing:
    """What was found.

    Attributes
    ----------
    bits, bits_before : memory of all FIFOs in front of matrix units, found and before
    smallest : whether no others are smaller in sum; else none of them can be made shallower by
        itself
    n_simulations : simulations that it took
    """

    folding: Folding
    interval_cycles: int
    bits: int
    bits_before: int
    smallest: bool
    n_simulations: int


def steady_interval(unit: Accelerator) -> int:
    """Cycles between images in the long run, by simulation: FIFOs that are too shallow included."""
    return simulate(unit, MAX_IMAGES).interval_cycles


class _Fifos:
    """Depths of a network's FIFOs, and what they keep."""

    def __init__(self, topology: Topology, folding: Folding, interval_cycles: int) -> None:
        self.topology, self.folding, self.interval_cycles, self.n_simulations = topology, folding, interval_cycles, 0
        self.known: dict[tuple[int, ...], bool] = {}

    def keep(self, depths: tuple[int, ...]) -> bool:
        if depths not in self.known:
            self.n_simulations += 1
            unit = accelerator(self.topology, self.folding.with_fifo_depths(depths))
            self.known[depths] = steady_interval(unit) <= self.interval_cycles
        return self.known[depths]

    def shallowest(self, depths: tuple[int, ...], i: int) -> int:
        """Return the least depth of FIFO `i` with the others as they are, which keep the interval."""
        low, high = 1, depths[i]
        while low < high:
            middle = (low + high) // 2
            if self.keep((*depths[:i], middle, *depths[i + 1 :])):
                high = middle
            else:
                low = middle + 1
        return low


def size_fifos(topology: Topology, folding: Folding, interval_cycles: int | None = None) -> Sizing:
    """Return the folding with the smallest FIFOs that keep an interval.

    Parameters
    ----------
    interval_cycles : what to keep; None: what the slowest kernel takes

    Raises
    ------
    ValueError
        When FIFOs of default depth do not keep it either.
    """
    folding.check(topology)
    start = folding.with_fifo_depths([max(layer.fifo_depth, default_fifo_depth(shape, layer.simd))
                                      for layer, shape in zip(folding.layers, topology.layers, strict=True)])
    best = accelerator(topology, start).interval_cycles
    fifos = _Fifos(topology, start, best if interval_cycles is None else interval_cycles)
    deep = tuple(layer.fifo_depth for layer in start.layers)
    if not fifos.keep(deep):
        raise ValueError(f"no FIFOs give an interval of {fifos.interval_cycles:,} cycles; with the deepest it is "
                         f"{steady_interval(accelerator(topology, start)):,}")
    needed = tuple(fifos.shallowest(deep, i) for i in range(len(deep)))
    depths, smallest = needed, fifos.keep(needed)
    if not smallest:
        depths = deep
        for i in sorted(range(len(deep)), key=lambda i: -(deep[i] - needed[i]) * start.layers[i].width):
            depths = (*depths[:i], fifos.shallowest(depths, i), *depths[i + 1 :])
    found = start.with_fifo_depths(depths)
    return Sizing(found, steady_interval(accelerator(topology, found)), fifo_bits(found), fifo_bits(folding), smallest,
                  fifos.n_simulations)


def fifo_bits(folding: Folding) -> int:
    """Bits that the FIFOs in front of the matrix units hold, the vector that is worked on apart."""
    return sum(layer.fifo_bits for layer in folding.layers)
