"""Sweeps: every combination of slices, widths, intervals and devices, in one SQLite table.

Points are computed by processes of this machine, or on a Dask cluster. Only this process writes to
the table, each row as soon as it is there. So a worker that dies, or an interruption, loses no more
than the points that were being computed, and the same sweep goes on from the table.
"""

import itertools
import json
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from cbnn.hw.folding import Folding
from cbnn.model.files import check_file, decode_json, visible
from cbnn.model.processes import WorkerError, completed
from cbnn.model.topology import Topology
from cbnn.sim.predict.cycles import Level, check_level, full_level, level
from cbnn.sim.predict.search import DEVICES, Budget, Search

TRIES = 3
"""How often a point is tried if its worker dies."""


class TableError(Exception):
    """A database is not the table of a sweep."""


@dataclass(frozen=True)
class Point:
    """What is asked.

    Attributes
    ----------
    network : the topology at full width, with all slices
    kept_slices : slices kept, by number, the highest first
    width : factor of the channels of every layer but the last
    max_interval_cycles : cycles per image at most, with the fewest LUTs; 0: as fast as the device
        allows
    device : name of the FPGA
    """

    network: str
    kept_slices: tuple[int, ...]
    width: float
    max_interval_cycles: int
    device: str

    @property
    def topology(self) -> Topology:
        """The network that is asked for."""
        return Topology.parse(self.network).keep(self.kept_slices).scaled(self.width)

    @property
    def folding(self) -> Folding:
        """The best folding; raises ValueError where nothing fits."""
        search, budget = Search(self.topology), Budget(*DEVICES[self.device])
        if self.max_interval_cycles:
            return search.cheapest(self.max_interval_cycles, budget).folding
        return search.fastest(budget).folding


@dataclass(frozen=True)
class Result:
    """What was found; no row where nothing fits, and then `why` says so."""

    level: Level | None = None
    why: str | None = None


COLUMNS = ("kept_slices", "width", "max_interval_cycles", "device", "input_beats", "byte_beats",
           "first_layer_cycles", "interval_cycles", "latency_cycles", "saved_cycles",
           "saved_percent", "luts", "block_rams", "folding")
"""Columns of what is printed."""
POINT_COLUMNS = tuple(field.name for field in fields(Point))
NAMES = (*POINT_COLUMNS,
         *(field.name for field in fields(Level) if field.name not in POINT_COLUMNS), "why")
"""Columns of the table: those of the point, of its level, and `why`."""
LISTS = ("kept_slices", "layer_cycles")
"""Those that are stored as JSON."""


_POINT = get_type_hints(Point)
FOUND = msgspec.defstruct("Found", [*(_POINT | get_type_hints(Level, include_extras=True)).items(), ("why", None)],
                          forbid_unknown_fields=True)
NOTHING_FITS = msgspec.defstruct("NothingFits", [(name, _POINT.get(name)) for name in NAMES[:-1]] + [("why", str)],
                                 forbid_unknown_fields=True)
"""Types of a row of the table, as JSON has it: the point and its level, or why there is none."""


def points(topology: Topology, levels: Sequence[tuple[int, ...]], widths: Sequence[float],
           intervals: Sequence[int], devices: Sequence[str]) -> list[Point]:
    """Return all combinations.

    Parameters
    ----------
    levels : slices kept at each level, by number, the highest first
    widths, intervals, devices : see `Point`

    Raises
    ------
    ValueError
        When a slice, a width or a device does not exist.
    """
    for kept in levels:
        check_level(topology, kept)
    for width in widths:
        topology.scaled(width)
    for device in devices:
        if device not in DEVICES:
            raise ValueError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    return [Point(str(topology), *combination)
            for combination in itertools.product(levels, widths, intervals, devices)]


def evaluate(point: Point) -> Result:
    """Find the folding of one point; return its row, against that of all slices."""
    try:
        folding = point.folding
    except ValueError as error:
        return Result(why=str(error))
    baseline = _baseline(replace(point, kept_slices=Topology.parse(point.network).kept_slices))
    return Result(level(point.topology, folding, baseline))


@cache
def _baseline(point: Point) -> Level | None:
    """Return the row of a point with all slices; None where that does not fit."""
    try:
        return full_level(point.topology, point.folding)
    except ValueError:
        return None


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
    check_file(path)
    try:
        with _cluster(scheduler) as client, closing(_open(path)) as table:
            return _continued(table, asked, client, progress)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes a damaged file as it is, in whatever bytes
        raise ValueError(f"{path} is no table of a sweep that can be used: {visible(error)}") from error
    except TableError as error:
        raise ValueError(f"{path} is no table of a sweep: {error}") from error


@contextmanager
def _cluster(scheduler: str | None) -> Iterator[Any]:
    """Give a client of a Dask scheduler, before anything is written; None without one."""
    if scheduler is None:
        yield None
        return
    import distributed  # an extra, and slow to import

    with distributed.Client(scheduler) as client:
        yield client


def _continued(table: sqlite3.Connection, asked: Sequence[Point], client: Any,
               progress: Callable[[int, int], None]) -> list[dict]:
    known = {row[: len(POINT_COLUMNS)]: _row(row) for row in table.execute("SELECT * FROM sweep")}
    missing = [point for point in asked if _stored(asdict(point), POINT_COLUMNS) not in known]
    progress(len(asked) - len(missing), len(asked))
    for done, (point, result) in enumerate(_evaluate_all(missing, client), 1):
        found = {} if result.level is None else asdict(result.level)
        values = _stored(asdict(point) | found | {"why": result.why}, NAMES)
        with table:
            table.execute(f"INSERT OR REPLACE INTO sweep VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
        known[values[: len(POINT_COLUMNS)]] = _row(values)
        progress(len(asked) - len(missing) + done, len(asked))
    return [known[_stored(asdict(point), POINT_COLUMNS)] for point in asked]


def _stored(row: dict, names: Sequence[str]) -> tuple:
    """Return values of a row as they are stored."""
    return tuple(json.dumps(row[name]) if name in LISTS and name in row else row.get(name)
                 for name in names)


def _row(values: tuple) -> dict:
    """Return a row of the table as JSON has it; somebody else may have written it."""
    try:
        row = {name: decode_json(str(value).encode(), list) if name in LISTS and value is not None else value
               for name, value in zip(NAMES, values, strict=True)}
        text = json.dumps(row, allow_nan=False).encode()
        decode_json(text, NOTHING_FITS if row["why"] is not None else FOUND, "row")
    except (ValueError, TypeError) as error:
        raise TableError(f"a row is not what a sweep writes: {error}") from error
    return row


def _open(path: Path) -> sqlite3.Connection:
    """Open the table, or make it; a database of something else is left as it is."""
    table = sqlite3.connect(path)
    try:
        if not table.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            with table:
                table.execute(f"CREATE TABLE sweep ({', '.join(NAMES)}, PRIMARY KEY ({', '.join(POINT_COLUMNS)}))")
        if [row[1] for row in table.execute("PRAGMA table_info(sweep)")] != list(NAMES):
            raise TableError("its columns are others")
    except BaseException:
        table.close()
        raise
    return table


def _evaluate_all(missing: list[Point], client: Any) -> Iterator[tuple[Point, Result]]:
    """Give results as they come; points whose worker died are tried again."""
    for tries_left in reversed(range(TRIES)):
        lost = dict.fromkeys(missing)
        try:
            given = completed(evaluate, missing) if client is None else _on_cluster(missing, client)
            with closing(given):
                for point, result in given:
                    yield point, result
                    del lost[point]
        except WorkerError as error:
            if not tries_left:
                raise WorkerError(f"workers died {TRIES} times; {len(lost)} points are not done") from error
        missing = list(lost)


def _on_cluster(points: list[Point], client: Any) -> Generator[tuple[Point, Result], None, None]:
    import distributed

    futures = {client.submit(evaluate, point): point for point in points}
    for future in distributed.as_completed(futures):
        yield futures[future], future.result()
