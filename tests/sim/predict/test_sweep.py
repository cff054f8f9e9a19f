"""Sweeps: the same table whoever computes it, continued after interruptions, nothing lost with a worker."""

import contextlib
import json
import os
import sqlite3
from dataclasses import asdict
from functools import partial

import pytest

from cbnn.model.topology import Topology
from cbnn.sim.predict import sweep as sweeping
from cbnn.sim.predict.cycles import level_cycles
from cbnn.sim.predict.search import DEVICES, Budget, Search
from cbnn.sim.predict.sweep import NAMES, WorkerError, evaluate, points, sweep

TOPOLOGY = Topology.parse("8C3-MP2-12FC-4FC", (6, 6, 1), 3)
ASKED = points(TOPOLOGY, [(2, 1, 0), (1,)], [1.0, 0.5], [0, 2000, 1], ["xc7z010"])


@pytest.fixture(scope="module")
def expected():
    return [evaluate(point) for point in ASKED]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Give the bytes of a table of two points."""
    path = tmp_path_factory.mktemp("table") / "table.db"
    sweep(ASKED[:2], path)
    return path.read_bytes()


def as_rows(results):
    """Rows as JSON has them, of points and what was found for each."""
    empty = dict.fromkeys(NAMES)
    return [json.loads(json.dumps(empty | asdict(point) | (asdict(found.level) if found.level else {})
                                  | {"why": found.why})) for point, found in zip(ASKED, results, strict=True)]


def test_table_has_what_every_point_gives(tmp_path, expected):
    assert sweep(ASKED, tmp_path / "table.db") == as_rows(expected)
    levels = [result.level for result in expected]
    assert levels[0].interval_cycles < levels[1].interval_cycles <= 2000
    assert levels[0].luts > levels[1].luts
    assert expected[2].why.startswith("no folding takes at most 1 cycles per image: ")
    assert levels[3].weight_bits < levels[0].weight_bits
    assert (levels[0].kept_slices, levels[6].kept_slices) == ((2, 1, 0), (1,))


def test_rows_are_those_of_cycles(expected):
    def fastest(topology):
        return Search(topology).fastest(Budget(*DEVICES["xc7z010"])).folding

    assert [expected[0].level, expected[6].level] == level_cycles(TOPOLOGY, fastest, [(2, 1, 0), (1,)])


def test_without_a_folding_of_all_slices_nothing_is_compared():
    large = Topology.parse("200FC-10FC", (40, 40, 1), 8)
    every, one = (evaluate(point) for point in points(large, [large.kept_slices, (7,)], [1.0], [0], ["xc7z010"]))
    assert every.why == "no folding is within 17,600 LUTs and 120 block RAMs"
    found = one.level
    assert (found.saved_cycles, found.saved_percent, found.refolded) == (None, None, None)


def test_what_is_known_is_not_computed_again(tmp_path, expected, monkeypatch):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(ASKED, tmp_path / "table.db", progress=interrupt)
    seen = []
    assert sweep(ASKED, tmp_path / "table.db", progress=lambda done, total: seen.append(done)) == as_rows(expected)
    assert seen == list(range(2, len(ASKED) + 1))
    monkeypatch.setattr(sweeping, "evaluate", None)
    assert sweep(ASKED, tmp_path / "table.db") == as_rows(expected)


def die_once(point, folder):
    marker = folder / f"died-{ASKED.index(point)}"
    if ASKED.index(point) % 8 == 1 and not marker.exists():
        marker.touch()
        os._exit(1)
    return evaluate(point)


def die(point):
    os._exit(1)


def test_a_worker_that_dies_loses_nothing(tmp_path, expected, monkeypatch):
    monkeypatch.setattr(sweeping, "TRIES", 6)
    monkeypatch.setattr(sweeping, "evaluate", partial(die_once, folder=tmp_path))
    assert sweep(ASKED, tmp_path / "table.db") == as_rows(expected)
    assert list(tmp_path.glob("died-*"))


def test_workers_that_always_die_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "evaluate", die)
    with pytest.raises(WorkerError, match="workers died 3 times; 12 points are not done"):
        sweep(ASKED, tmp_path / "table.db")


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same(tmp_path, expected):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert sweep(ASKED, tmp_path / "table.db", cluster.scheduler_address) == as_rows(expected)


def test_a_scheduler_that_is_not_there_leaves_no_table(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="unknown address scheme 'nonsense'"):
        sweep(ASKED, tmp_path / "table.db", "nonsense://here")
    assert not list(tmp_path.iterdir())


def test_widths_scale_all_layers_but_the_last():
    assert TOPOLOGY.scaled(0.5).layers_text == "4C3-MP2-6FC-4FC"


@pytest.mark.parametrize(("ask", "sentence"), [
    (lambda: points(TOPOLOGY, [(3,)], [1.0], [0], ["xc7z010"]),
     "slice 3 cannot be kept; the network has the slices 2, 1, 0"),
    (lambda: points(TOPOLOGY, [(2,)], [0.3], [0], ["xc7z010"]),
     "layer 0: a width of 0.3 makes 2.4 rows; it must be a whole number of 1 to 1048576"),
    (lambda: points(TOPOLOGY, [(2,)], [1.0], [0], ["fpga"]), "device 'fpga' is not one of xc7z010, xc7z020, "),
])
def test_points_that_do_not_exist_are_refused(ask, sentence):
    with pytest.raises(ValueError) as caught:
        ask()
    assert str(caught.value).startswith(sentence)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "text.db").write_text("no table at all, but long enough to be looked at" * 9)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE sweep (a, b)")
    other.close()
    # SQLite quotes this name, which is not UTF-8, in its complaint.
    (tmp_path / "hurt.db").write_bytes((tmp_path / "other.db").read_bytes().replace(b"tablesweep", b"table\x80weep"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(ValueError, match="is no table of a sweep"):
            sweep(ASKED, tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("change", "complaint"), [
    ("measured = 'x'", "expected `object | null`, got `str` at `measured`"),
    ("luts = 'many'", "expected `int`, got `str` at `luts`"), ("luts = NULL", "expected `int`, got `null` at `luts`"),
    ("block_rams = x'00', why = 'x'", "not JSON serializable"), ("saved_percent = 9e999", "Out of range float"),
    ("why = 'x'", "expected `null`, got "), ("kept_slices = '[[[[['", "input data was truncated")])
def test_rows_that_somebody_else_wrote_are_refused(tmp_path, table, change: str, complaint: str) -> None:
    path = tmp_path / "table.db"
    path.write_bytes(table)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE sweep SET {change} WHERE rowid = 1")  # noqa: S608
    before = path.read_bytes()
    with pytest.raises(ValueError) as caught:
        sweep(ASKED, path)
    assert str(caught.value).startswith(f"{path} is no table of a sweep: a row is not what a sweep writes: ")
    assert complaint in str(caught.value)
    assert path.read_bytes() == before
