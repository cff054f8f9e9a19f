"""CBNN, the whole method: baseline, sensitivity, pruned slices, shrunk layers, retraining, within a loss of accuracy.

The source of the method is arXiv 1802.00904. The steps are:

1. Train the baseline, which keeps all slices and has the full width.
2. Order the slices by how little accuracy falls when one of them is randomised.
3. Levels of pruning and widths span a grid of networks. Train networks of it anew and judge them by images set apart,
   never by the test split. More slices, or a larger width, are assumed never to lose accuracy. So a
   network within the allowed loss decides all larger ones, and one outside it all smaller ones.
   Those that decide most are trained first.
4. Take the network with the fewest weights that is within the loss, and narrow its layers one by one.
5. Train the smallest network of all with further seeds, as many as the baseline had. If their mean is outside the loss,
   go on with the next larger one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from cbnn.model.data import datasets
from cbnn.model.learn.points import Point, Progress, Result, read_result, split, train_points
from cbnn.model.learn.sensitivity import Sensitivity, pruning_order, sensitivity
from cbnn.model.topology import Topology

WIDTHS = (1.0, 0.75, 0.5, 0.375, 0.25)
"""Widths that are tried where none are named, as far as they make whole numbers of rows."""
AT_ONCE = 2
"""Networks trained before the grid is looked at again: fixed, so that the result does not depend on the machine."""
SEEDS = 3
"""Trainings of the baseline and of the network found, for the spread."""
REPETITIONS = 5
Stage = Callable[[str], None]
"""Told what is being done."""
Cell = tuple[int, int]
"""A network of the grid: number of the level, number of the width; both count from the largest."""


@dataclass(frozen=True)
class Compaction:
    """What `compact` found.

    Attributes
    ----------
    baseline, found : the points of the two networks, one per seed
    grid : every point that was tried, with its result
    budget : the lowest accuracy that was allowed, on the images set apart
    slices : the baseline's sensitivity
    """

    baseline: tuple[Point, ...]
    found: tuple[Point, ...]
    grid: tuple[tuple[Point, Result], ...]
    budget: float
    slices: tuple[Sensitivity, ...]

    @property
    def front(self) -> list[tuple[Point, Result]]:
        """Points within the budget; no other of them has both fewer weights and fewer operations."""
        inside = [(point, result) for point, result in self.grid if result.validation_accuracy >= self.budget]

        def beaten(topology: Topology) -> bool:
            size = topology.n_weight_bits, topology.n_operations
            others = [(p.topology.n_weight_bits, p.topology.n_operations) for p, _ in inside]
            return any(o != size and o[0] <= size[0] and o[1] <= size[1] for o in others)

        return sorted((entry for entry in inside if not beaten(entry[0].topology)),
                      key=lambda entry: entry[0].topology.n_weight_bits)


def compact(full: Point, folder: Path, *, max_drop: float = 1.0, widths: tuple[float, ...] | None = None,
            data_dir: Path | None = None, progress: Progress = lambda done, total: None,
            stage: Stage = lambda text: None) -> Compaction:
    """Find the smallest network that loses no more accuracy than `max_drop` percentage points.

    Parameters
    ----------
    full : the baseline, see `points.baseline`; the search has the seed of its recipe, the next
        seeds give the spread
    folder : where trained networks are kept; called again with the same folder, nothing is trained
        twice
    widths : tried for all layers at once, descending, the first 1

    Raises
    ------
    ValueError
        When the loss is negative, widths do not suit, or a network cannot be trained.
    """
    recipe = full.recipe
    widths = checked_widths(full.topology, max_drop, widths)

    def train(points: list[Point]) -> list[Result]:
        return train_points(points, folder, data_dir, progress)

    def repeated(point: Point) -> tuple[Point, ...]:
        return tuple(replace(point, recipe=replace(recipe, seed=recipe.seed + i)) for i in range(SEEDS))

    stage("baseline")
    baseline = repeated(full)
    trained = train(list(baseline))
    base, budget = trained[0], _mean(trained) - max_drop / 100
    stage("sensitivity")
    images, labels = split(full.dataset, datasets.load(full.dataset, data_dir))[2:]
    slices = tuple(sensitivity(base.load(folder), images, labels, REPETITIONS, recipe.seed))
    levels = pruning_order(slices, full.kept_slices)

    stage("slices and widths")
    grid = {full: base}
    judged: dict[Cell, bool] = {(0, 0): True}
    while cells := _next(judged, len(levels), len(widths)):
        points = [replace(full, kept_slices=levels[level], widths=(widths[width],)) for level, width in cells]
        for cell, point, result in zip(cells, points, train(points), strict=True):
            grid[point] = result
            judged[cell] = result.validation_accuracy >= budget

    stage("layer by layer")
    for points in _narrowed(_within(grid, full, budget)[0], widths, grid, budget):
        grid |= dict(zip(points, train(points), strict=True))

    # The smallest of many networks that were judged once was probably lucky.
    stage("further seeds")
    found = next(repeated(point) for point in _within(grid, full, budget)
                 if point == full or _mean(train(list(repeated(point)))) >= budget)
    return Compaction(baseline, found, tuple(grid.items()), budget, slices)


def results(points: tuple[Point, ...], folder: Path) -> list[Result]:
    """Read the results of points that were trained."""
    found = [read_result(point, folder) for point in points]
    return [result for result in found if result is not None]


def _mean(results: list[Result]) -> float:
    return sum(result.validation_accuracy for result in results) / len(results)


def _within(grid: dict[Point, Result], full: Point, budget: float) -> list[Point]:
    """Return the points within the budget, the smallest first; the baseline always is."""
    return sorted((point for point, result in grid.items() if point == full or result.validation_accuracy >= budget),
                  key=_size)


def _size(point: Point) -> tuple[int, int]:
    return point.topology.n_weight_bits, point.topology.n_operations


def checked_widths(topology: Topology, max_drop: float, widths: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the widths to try for a baseline; raise ValueError where `compact` could not begin with what is given."""
    if not 0 <= max_drop < 100:
        raise ValueError(f"a loss of {max_drop} points is allowed; it must be 0 to below 100")
    if widths is None:
        return tuple(width for width in WIDTHS if _fits(topology, width))
    if not widths or widths[0] != 1 or list(widths) != sorted(set(widths), reverse=True) or widths[-1] <= 0:
        raise ValueError(f"widths must decrease strictly from 1; got {', '.join(map(str, widths))}")
    for width in widths:
        topology.scaled(width)
    return widths


def _fits(topology: Topology, width: float) -> bool:
    try:
        topology.scaled(width)
    except ValueError:
        return False
    return True


def _next(judged: dict[Cell, bool], n_levels: int, n_widths: int) -> list[Cell]:
    """Return the undecided cells to train next: those that decide most cells if the result is the less helpful one.

    None of them may decide another one of them.
    """
    undecided = [cell for cell in product(range(n_levels), range(n_widths)) if not _decided(cell, judged)]

    def worth(cell: Cell) -> tuple[int, Cell]:
        larger = sum(other[0] <= cell[0] and other[1] <= cell[1] for other in undecided)
        smaller = sum(other[0] >= cell[0] and other[1] >= cell[1] for other in undecided)
        return min(larger, smaller), cell

    chosen: list[Cell] = []
    for cell in sorted(undecided, key=worth, reverse=True):
        if len(chosen) < AT_ONCE and not any(_comparable(cell, other) for other in chosen):
            chosen.append(cell)
    return chosen


def _comparable(a: Cell, b: Cell) -> bool:
    return (a[0] <= b[0] and a[1] <= b[1]) or (a[0] >= b[0] and a[1] >= b[1])


def _decided(cell: Cell, judged: dict[Cell, bool]) -> bool:
    """Whether the result of a trained network decides this one."""
    return any((passed and cell[0] <= level and cell[1] <= width) or (not passed and cell[0] >= level and
                                                                      cell[1] >= width)
               for (level, width), passed in judged.items())


def _narrowed(best: Point, widths: tuple[float, ...], grid: dict[Point, Result],
              budget: float) -> Iterator[list[Point]]:
    """Give points to train: each layer by itself one width narrower, then all at once that stayed within the budget.

    As long as those are outside it together, the one that lost most is left out.
    """
    n_hidden = len(best.topology.layers) - 1
    own = best.widths * (n_hidden if len(best.widths) == 1 else 1)
    narrower = [widths[widths.index(width) + 1] if width != widths[-1] else width for width in own]
    singles = {i: replace(best, widths=(*own[:i], narrower[i], *own[i + 1 :])) for i in range(n_hidden)
               if narrower[i] != own[i]}
    if not singles:
        return
    yield list(singles.values())
    able = sorted((i for i, point in singles.items() if grid[point].validation_accuracy >= budget),
                  key=lambda i: grid[singles[i]].validation_accuracy)
    while len(able) > 1:
        point = replace(best, widths=tuple(narrower[i] if i in able else own[i] for i in range(n_hidden)))
        yield [point]
        if grid[point].validation_accuracy >= budget:
            return
        able = able[1:]
