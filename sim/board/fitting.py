"""The fastest folding that fits a board: guessed from estimates, then measured, a few times."""

from collections.abc import Callable
from pathlib import Path

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.model.network import Network
from cbnn.model.slices import slices_text
from cbnn.sim.board.build import Build, Goal, NotPlacedError, build, measure
from cbnn.sim.board.flow import Taken
from cbnn.sim.board.stages import Stages
from cbnn.sim.predict.cycles import all_levels
from cbnn.sim.predict.search import Budget, Search

SERIAL_LINE = {"ice40": 1_000, "ecp5": 1_000, "gowin": 1_300}
"""Logic cells of shell, PLL and reset, about."""
CELLS_PER_LUT = {"ice40": 2.4, "ecp5": 2.4, "gowin": 5.1}
"""Logic cells per estimated LUT of a 7-series FPGA: the most of seven designs, see docs/boards.md."""
BLOCK_RAM_SHARE = {"ice40": 4, "ecp5": 1, "gowin": 1}
"""How many block RAMs of the family hold what one of 18 Kib does."""
FILLED = {"ice40": 0.9, "ecp5": 0.8, "gowin": 0.3}
"""Part of the logic cells that is aimed at: a fuller FPGA is placed slowly, or not at all; see docs/boards.md."""
SMALLER = 0.9
"""What part of the LUTs one has that is tried after one that was not placed."""
MAX_TRIES = 5


Hear = Callable[[Accelerator, Taken], None]
"""Is called with every folding that was synthesised, and what it takes."""


def fits(wanted: Goal, took: Taken) -> bool:
    """Return True where a board has that much."""
    return took.cells <= wanted.board.luts and took.block_rams <= wanted.board.block_rams


def fastest(network: Network, search: Search, wanted: Goal, stages: Stages, name: str, below: int | None = None,
            hear: Hear = lambda unit, took: None) -> Accelerator:
    """Return the fastest accelerator that fits the board once synthesised, of those that are tried.

    Every try corrects how many LUTs are looked for next: more where there is room, fewer where the
    last one did not fit.

    Parameters
    ----------
    name : of the accelerator
    below : estimated LUTs that it must stay below

    Raises
    ------
    NotPlacedError
        When none fits; it says which slices would have to be pruned.
    """
    board = wanted.board
    luts = int(FILLED[board.target] * (board.luts - SERIAL_LINE[board.target]) / CELLS_PER_LUT[board.target])
    best: Accelerator | None = None
    tried: tuple[Accelerator, Taken] | None = None
    for _ in range(MAX_TRIES):
        luts = max(1, min(luts, below - 1 if below else luts))
        try:
            found = search.fastest(Budget(luts, board.block_rams // BLOCK_RAM_SHARE[board.target]))
        except ValueError:
            found = search.cheapest(search.intervals[-1])  # the estimate may be too high
            if below and found.luts >= below:
                break
        if best and found.interval_cycles >= best.interval_cycles:
            break
        unit = accelerator(network, found.folding, name)
        tried = unit, measure(unit, wanted, stages)
        hear(*tried)
        if fits(wanted, tried[1]):
            best = unit
        else:
            below = unit.luts
        luts = _luts(*tried, wanted)
    if best:
        return best
    if tried is None:
        raise NotPlacedError(f"no folding of less than {below:,} LUTs (est.) is there")
    raise NotPlacedError(f"{too_large(wanted, tried[1])}; {remedy(*tried, wanted)}")


def _luts(unit: Accelerator, took: Taken, wanted: Goal) -> int:
    """Return how many estimated LUTs would fill the board, by what a design of `unit.luts` took."""
    target = wanted.board.target
    line = SERIAL_LINE[target]
    share = (took.cells - line) / (wanted.board.luts - line)
    share = max(share, took.block_rams / wanted.board.block_rams, 1 / wanted.board.luts)
    return int(FILLED[target] * unit.luts / share)


def too_large(wanted: Goal, took: Taken) -> str:
    """Say what is missing, and how much."""
    board = wanted.board
    short = [f"{n:,} {what} of {total:,}, {n - total:,} too many"
             for n, total, what in ((took.cells, board.luts, "logic cells"),
                                    (took.block_rams, board.block_rams, "block RAMs")) if n > total]
    return f"it does not fit the {board.title}: {'; '.join(short)}"


def remedy(unit: Accelerator, took: Taken, wanted: Goal) -> str:
    """Say which folding, and which pruned slices, are estimated to fit where this accelerator does not."""
    luts = min(_luts(unit, took, wanted), unit.luts - 1)
    found: list[str] = []
    for kept in all_levels(unit.topology):
        try:
            other = Search(unit.topology.keep(kept), whole_bytes=unit.folding.whole_bytes).fastest(Budget(max(1, luts)))
        except ValueError:
            continue
        quick = other.interval_cycles <= unit.interval_cycles
        if quick or not found:
            pruned = kept != unit.topology.kept_slices
            found.append(f"{other.folding}{f' with the slices {slices_text(kept)} only' if pruned else ''}, "
                         f"{other.interval_cycles:,} cycles")
        if quick:
            break
    if not found:
        return "no folding is estimated to fit, with fewer slices neither; take a narrower network"
    return f"estimated to fit: {'; or '.join(found)}"


def build_fastest(network: Network, search: Search, wanted: Goal, folder: Path, stages: Stages, name: str,
                  progress: Callable[[int, int], None] = lambda done, total: None,
                  hear: Hear = lambda unit, took: None) -> tuple[Accelerator, Build]:
    """Build the fastest accelerator that fits and reaches the clock; see `fastest` and `build`.

    Where the one that fits is not placed, a smaller one is looked for, at most twice.
    """
    below: int | None = None
    for last in (False, False, True):
        unit = fastest(network, search, wanted, stages, name, below, hear)
        try:
            return unit, build(unit, wanted, folder, stages, progress)
        except NotPlacedError:
            if last:
                raise
            below = int(SMALLER * unit.luts)
    raise AssertionError


def build_given(unit: Accelerator, wanted: Goal, folder: Path, stages: Stages,
                progress: Callable[[int, int], None]) -> Build:
    """Build this accelerator; where it does not fit, say also what would."""
    try:
        return build(unit, wanted, folder, stages, progress)
    except NotPlacedError as error:
        if error.taken is None:
            raise
        raise NotPlacedError(f"{error}; {remedy(unit, error.taken, wanted)}", error.taken) from error
