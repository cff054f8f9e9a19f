"""Cycles per image, and levels of pruning: what a network costs with some of its input slices.

The one place where rows of levels are made: the demo, and the verbs `cycles`, `sweep` and `compact`
all print these. Cycles are predicted by the dataflow simulation; no logic is simulated.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding, Input, default_input_width, input_widths
from cbnn.hw.layer_folding import MAX_FIFO_DEPTH, default_fifo_depth
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.slice_order import simd_choices
from cbnn.hw.stream import Kernel
from cbnn.model.files import Fraction
from cbnn.model.network import Network, prune_slices
from cbnn.model.topology import Topology
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.predict.fifos import MAX_IMAGES
from cbnn.sim.predict.search import Budget, Search

FoldingRule = Callable[[Topology], Folding]
"""Gives the folding of a pruned network."""


@dataclass(frozen=True)
class Cycles:
    """Counts per image.

    Attributes
    ----------
    input_beats : beats of `s_axis`
    first_layer_cycles : cycles in which the first layer's matrix unit works
    interval_cycles : cycles between the last two images
    latency_cycles : from the first beat of an image in to its last beat out, for the first image
    """

    input_beats: float
    first_layer_cycles: float
    interval_cycles: int
    latency_cycles: int


@dataclass(frozen=True)
class Level:
    """One level of pruning at one folding; counts are per image.

    Attributes
    ----------
    kept_slices : numbers of the slices kept, the highest first
    topology, folding : as text
    accuracy_before, accuracy_after : fraction of test images classified rightly, with slices pruned
        but not retrained, and retrained; None where not known
    input : what the input is, see `Folding.whole_bytes`
    input_beats, first_layer_cycles, interval_cycles, latency_cycles : predicted, see `Cycles`
    byte_beats : beats of an input of whole pixels, of default width, whatever this one's input is
    slowest : name of the slowest kernel, see `slowest_kernel`
    layer_cycles : cycles of every layer's matrix unit
    refolded, refolded_interval_cycles : the fastest folding within the LUTs of the baseline, and
        its interval; None where none fits
    smallest, smallest_luts : the folding of the fewest LUTs that takes no more cycles than the
        baseline, and its LUTs
    luts, block_rams : estimates at the given folding
    weight_bits, operations : of all layers
    saved_cycles, saved_percent : how much shorter the interval is than the baseline's
    measured : the same counts as seen on the RTL; None where no RTL ran

    The baseline has all slices, folded by the same rule. What is relative to it is None where there
    is no baseline.
    """

    kept_slices: tuple[int, ...]
    topology: str
    folding: str
    accuracy_before: Fraction | None
    accuracy_after: Fraction | None
    input: Input
    input_beats: float
    first_layer_cycles: float
    interval_cycles: int
    latency_cycles: int
    byte_beats: int
    slowest: str
    layer_cycles: tuple[int, ...]
    refolded: str | None
    refolded_interval_cycles: int | None
    smallest: str | None
    smallest_luts: int | None
    luts: int
    block_rams: int
    weight_bits: int
    operations: int
    saved_cycles: int | None
    saved_percent: float | None
    measured: Cycles | None


def predict(accelerator: Accelerator) -> Cycles:
    """Cycles in the long run, from the dataflow simulation, so that shallow FIFOs count too."""
    trace = simulate(accelerator, MAX_IMAGES)
    return Cycles(accelerator.input_beats, accelerator.first_layer_cycles, trace.interval_cycles,
                  trace.latency_cycles)


def level(network: Network | Topology, folding: Folding, baseline: Level | None, *,
          accuracy_before: float | None = None, accuracy_after: float | None = None,
          measured: Cycles | None = None) -> Level:
    """Return the row of a pruned network.

    Raises
    ------
    ValueError
        When the folding does not fit.
    """
    unit = accelerator(network, folding)
    predicted = predict(unit)
    refolded, refolded_interval, smallest, smallest_luts, saved = None, None, None, None, None
    if baseline is not None:
        search = Search(unit.topology, folding.input_width, folding.whole_bytes)
        refolded, refolded_interval = _refolded(search, unit, predicted.interval_cycles, baseline.luts)
        smallest, smallest_luts = _smallest(search, unit, predicted.interval_cycles, baseline.interval_cycles)
        saved = baseline.interval_cycles - predicted.interval_cycles
    return Level(
        unit.topology.kept_slices, str(unit.topology), str(folding), accuracy_before,
        accuracy_after, folding.input, predicted.input_beats, predicted.first_layer_cycles,
        predicted.interval_cycles, predicted.latency_cycles, byte_beats(unit.topology, folding),
        slowest_kernel(unit.kernels).name.removeprefix(f"{unit.name}_"),
        tuple(mvtu.interval_cycles for mvtu in unit.mvtus), refolded, refolded_interval, smallest,
        smallest_luts, unit.luts, unit.block_rams, unit.topology.n_weight_bits,
        unit.topology.n_operations, saved,
        100 * saved / baseline.interval_cycles if baseline and saved is not None else None,
        measured)


def full_level(network: Network | Topology, folding: Folding) -> Level:
    """Return the row of a network with all its slices, which is its own baseline."""
    return level(network, folding, level(network, folding, None))


def level_cycles(network: Network | Topology, rule: FoldingRule, levels: Sequence[tuple[int, ...]],
                 accuracy: Callable[[Network], float] | None = None) -> list[Level]:
    """Return the rows of several levels of one network, against the network with all its slices.

    Parameters
    ----------
    network : with all slices; a bare topology has no accuracy
    levels : slices kept at each level, by number, the highest first
    accuracy : gives the accuracy of a pruned network that was not retrained; None: not wanted

    Raises
    ------
    ValueError
        When the network does not have a slice, or the folding does not fit.
    """
    pruned = [_pruned(network, kept) for kept in levels]
    baseline = level(network, rule(_topology(network)), None)
    rows = []
    for kept in pruned:
        before = accuracy(kept) if accuracy and isinstance(kept, Network) else None
        rows.append(level(kept, rule(_topology(kept)), baseline, accuracy_before=before))
    return rows


def all_levels(topology: Topology) -> list[tuple[int, ...]]:
    """Return the levels that drop the lowest slice each time, from all slices to one."""
    return [topology.kept_slices[:n] for n in range(len(topology.kept_slices), 0, -1)]


def check_level(topology: Topology, kept: tuple[int, ...]) -> None:
    """Raise ValueError unless the network has these slices, and they are listed highest first."""
    if missing := set(kept) - set(topology.kept_slices):
        raise ValueError(f"slice {max(missing)} cannot be kept; the network has the slices "
                         f"{', '.join(map(str, topology.kept_slices))}")
    topology.keep(kept)


def slowest_kernel(kernels: Sequence[Kernel]) -> Kernel:
    """Return the kernel with the longest interval.

    Of equals it is a matrix unit, which is what a folding can change; of these the first one.
    """
    return max(kernels, key=lambda kernel: (kernel.interval_cycles, isinstance(kernel, Mvtu)))


def _topology(network: Network | Topology) -> Topology:
    return network if isinstance(network, Topology) else network.topology


def _pruned(network: Network | Topology, kept: tuple[int, ...]) -> Network | Topology:
    check_level(_topology(network), kept)
    return network.keep(kept) if isinstance(network, Topology) else prune_slices(network, kept)


def byte_beats(topology: Topology, folding: Folding) -> int:
    """Return the beats of an image of whole pixels on a bus that is no wider than the input's."""
    return input_widths(topology, whole_bytes=True)[-1] // _widest(topology, folding.input_width, whole_bytes=True)


def _widest(topology: Topology, most: int, whole_bytes: bool) -> int:
    """Return the widest input of at most so many bits; the narrowest where there is none."""
    widths = input_widths(topology, whole_bytes)
    return max([width for width in widths if width <= most] or widths[:1])


def at_level(folding: Folding, full: Topology, pruned: Topology) -> Folding:
    """Return what a folding of the network `full` is with slices pruned: no slower, where that can be.

    Only the first layer and the input can change. SIMD stays where it still divides the bits of a
    window. Else, or where the network would be slower than with all slices, the next lower one is
    taken that is not, else the next higher one. The input gets no wider than it is.
    """
    first, shape = folding.layers[0], pruned.layers[0]
    choices = simd_choices(shape, folding.whole_bytes)
    below, above = [n for n in choices if n < first.simd], [n for n in choices if n > first.simd]
    interval = accelerator(full, folding).interval_cycles
    fastest: tuple[int, Folding] | None = None
    for simd in [n for n in choices if n == first.simd] + below[::-1] + above:
        for at in _with_first(folding, full, pruned, simd):
            try:
                cycles = accelerator(pruned, at).interval_cycles
            except ValueError:
                continue  # larger than is supported
            if cycles <= interval:
                return at
            if fastest is None or cycles < fastest[0]:
                fastest = cycles, at
    assert fastest is not None
    return fastest[1]


def _with_first(folding: Folding, full: Topology, pruned: Topology, simd: int) -> Iterator[Folding]:
    """Yield the folding with another SIMD of the first layer, and the widths of input that there are for it."""
    old, shape = folding.layers[0], pruned.layers[0]
    depth = old.fifo_depth
    if depth == default_fifo_depth(full.layers[0], old.simd):
        depth = default_fifo_depth(shape, simd)
    if depth > MAX_FIFO_DEPTH or (old.mmv > 1 and simd != shape.n_slices * shape.slice_inputs):
        return
    first = replace(old, simd=simd, fifo_depth=depth)
    widths = [_widest(pruned, folding.input_width, folding.whole_bytes)]
    if not folding.whole_bytes and folding.input_width == default_input_width(full, old):
        widths.insert(0, min(folding.input_width, default_input_width(pruned, first)))
    for width in widths:
        if width in input_widths(pruned, folding.whole_bytes):
            yield replace(folding, layers=(first, *folding.layers[1:]), input_width=width)


def _refolded(search: Search, unit: Accelerator, interval_cycles: int,
              luts: int) -> tuple[str | None, int | None]:
    """Return the fastest folding within so many LUTs, which may be the one that `unit` has."""
    found = [(interval_cycles, str(unit.folding))] if unit.luts <= luts else []
    try:
        other = search.fastest(Budget(luts))
        found.append((predict(other).interval_cycles, str(other.folding)))
    except ValueError:
        pass  # FIFOs of default depth take more LUTs than those of `unit`
    interval, folding = min(found, default=(None, None), key=lambda entry: entry[0])
    return folding, interval


def _smallest(search: Search, unit: Accelerator, interval_cycles: int,
              most_cycles: int) -> tuple[str | None, int | None]:
    """Return the folding of the fewest LUTs that takes at most so many cycles; maybe that of `unit`."""
    found = [(unit.luts, str(unit.folding))] if interval_cycles <= most_cycles else []
    try:
        other = accelerator(unit.network or unit.topology, search.cheapest(most_cycles).folding)
        found.append((other.luts, str(other.folding)))
    except ValueError:
        pass  # with shallow FIFOs the baseline may be slower than the fastest folding of this level
    luts, folding = min(found, default=(None, None), key=lambda entry: entry[0])
    return folding, luts
