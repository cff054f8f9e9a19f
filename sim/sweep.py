"""Sweeps: every combination of slices kept, widths, intervals and devices, in one SQLite table that can be continued.

Points are computed by processes of this machine, or on a Dask cluster; rows are written as they come, by this process
alone, so that a worker that dies, or an interruption, loses no more than what was under way.
"""

import itertools
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cbnn.model.processes import WorkerError, completed
from cbnn.model.topology import Topology
from cbnn.sim.dataflow import simulate
from cbnn.sim.search import DEVICES, Budget, Search

TRIES = 3
"""How often a point is tried whose worker died."""


@dataclass(frozen=True)
class Point:
    """What is asked.

    Attributes
    ----------
    topology, in_shape, input_bits, first_layer : the network at full width
    n_slices : slices kept, the most significant ones
    width : factor of the channels of every layer but the last
    interval_cycles : cycles per image at most, with the fewest LUTs; 0: as fast as the device allows
    device : name of the FPGA
    """

    topology: str
    in_shape: str
    input_bits: int
    first_layer: str
    n_slices: int
    width: float
    interval_cycles: int
    device: str


@dataclass(frozen=True)
class Result:
    """What was found; empty where nothing fits, and then `why` says so. Cycles and beats per image."""

    folding: str | None = None
    interval: int | None = None
    latency: int | None = None
    input_beats: int | None = None
    first_layer_cycles: int | None = None
    weights: int | None = None
    luts: int | None = None
    block_rams: int | None = None
    why: str | None = None


def points(topology: Topology, slices: Sequence[int], widths: Sequence[float], intervals: Sequence[int],
           devices: Sequence[str]) -> list[Point]:
    """Return all combinations.

    Raises
    ------
    ValueError
        When a level of slices, a width or a device does not exist.
    """
    for n in slices:
        if not 1 <= n <= len(topology.kept_slices):
            raise ValueError(f"{n} slices are to be kept; the network has 1 to {len(topology.kept_slices)}")
    for width in widths:
        topology.scaled(width)
    for device in devices:
        if device not in DEVICES:
            raise ValueError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    shape = "x".join(map(str, topology.in_shape))
    return [Point(str(topology), shape, topology.input_bits, topology.first_layer, *combination)
            for combination in itertools.product(slices, widths, intervals, devices)]


def evaluate(point: Point) -> Result:
    """Find the folding of one point, and what it takes."""
    height, width, colours = map(int, point.in_shape.split("x"))
    full = Topology.parse(point.topology, (height, width, colours), point.input_bits,
                          first_layer=point.first_layer)  # type: ignore[arg-type]
    topology = full.keep(full.kept_slices[: point.n_slices]).scaled(point.width)
    budget = Budget(*DEVICES[point.device])
    try:
        search = Search(topology)
        unit = search.cheapest(point.interval_cycles, budget) if point.interval_cycles else search.fastest(budget)
    except ValueError as error:
        return Result(why=str(error))
    return Result(str(unit.folding), unit.interval_cycles, simulate(unit, 1).latency_cycles, unit.input_beats,
                  unit.first_layer_cycles, sum(shape.mw * shape.mh for shape in topology.shapes),
                  unit.luts, unit.block_rams)


def sweep(asked: Sequence[Point], path: Path, scheduler: str | None = None,
          progress: Callable[[int, int], None] = lambda done, total: None) -> list[dict]:
    """Evaluate what the table at `path` does not have yet, and return all rows asked for, in order.

    Parameters
    ----------
    scheduler : address of a Dask scheduler; None: processes of this machine

    Raises
    ------
    ValueError
        When `path` is no such table.
    WorkerError
        When the workers of a point died again and again.
    """
    with closing(_open(path)) as table:
        known = {Point(*row): True for row in table.execute(f"SELECT {_columns(Point)} FROM sweep")}  # noqa: S608
        missing = [point for point in asked if point not in known]
        progress(len(asked) - len(missing), len(asked))
        for done, (point, result) in enumerate(_evaluate_all(missing, scheduler), 1):
            values = (*asdict(point).values(), *asdict(result).values())
            with table:
                table.execute(f"INSERT OR REPLACE INTO sweep VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
            progress(len(asked) - len(missing) + done, len(asked))
        names = [field.name for kind in (Point, Result) for field in fields(kind)]
        rows = [dict(zip(names, row, strict=True)) for row in table.execute("SELECT * FROM sweep")]
    by_point = {tuple(row[field.name] for field in fields(Point)): row for row in rows}
    return [by_point[tuple(asdict(point).values())] for point in asked]


def _columns(kind: type) -> str:
    return ", ".join(field.name for field in fields(kind))


def _open(path: Path) -> sqlite3.Connection:
    """Open the table, or make it."""
    table = sqlite3.connect(path)
    try:
        with table:
            table.execute(f"CREATE TABLE IF NOT EXISTS sweep ({_columns(Point)}, {_columns(Result)}, "
                          f"PRIMARY KEY ({_columns(Point)}))")
        found = [row[1] for row in table.execute("PRAGMA table_info(sweep)")]
    except sqlite3.DatabaseError as error:
        table.close()
        raise ValueError(f"{path} is no table of a sweep: {error}") from error
    if found != [field.name for kind in (Point, Result) for field in fields(kind)]:
        table.close()
        raise ValueError(f"{path} is no table of a sweep: its columns are others")
    return table


def _evaluate_all(missing: list[Point], scheduler: str | None) -> Iterator[tuple[Point, Result]]:
    """Give results as they come; points whose worker died are tried again."""
    for tries_left in reversed(range(TRIES)):
        lost = dict.fromkeys(missing)
        try:
            given = completed(evaluate, missing) if scheduler is None else _on_cluster(missing, scheduler)
            with closing(given):
                for point, result in given:
                    yield point, result
                    del lost[point]
        except WorkerError as error:
            if not tries_left:
                raise WorkerError(f"workers died {TRIES} times; {len(lost)} points are not done") from error
        missing = list(lost)


def _on_cluster(points: list[Point], scheduler: str) -> Generator[tuple[Point, Result], None, None]:
    import distributed  # an extra, and slow to import

    with distributed.Client(scheduler) as client:
        futures = {client.submit(evaluate, point): point for point in points}
        for future in distributed.as_completed(futures):
            yield futures[future], future.result()
