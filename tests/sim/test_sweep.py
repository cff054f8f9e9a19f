"""Sweeps: the same table whoever computes it, continued after interruptions, nothing lost with a worker."""

import os
import sqlite3

import pytest

from cbnn.model.topology import Topology
from cbnn.sim import sweep as sweeping
from cbnn.sim.sweep import Result, WorkerError, evaluate, points, sweep

TOPOLOGY = Topology.parse("8C3-MP2-12FC-4FC", (6, 6, 1), 3)
ASKED = points(TOPOLOGY, [3, 1], [1.0, 0.5], [0, 2000, 1], ["xc7z010"])


@pytest.fixture(scope="module")
def expected():
    return [evaluate(point) for point in ASKED]


def results(rows):
    return [Result(**{name: row[name] for name in Result.__dataclass_fields__}) for row in rows]


def test_table_has_what_every_point_gives(tmp_path, expected):
    assert results(sweep(ASKED, tmp_path / "table.db")) == expected
    assert expected[0].interval < expected[1].interval <= 2000
    assert expected[0].luts > expected[1].luts
    assert expected[2].why.startswith("no folding takes at most 1 cycles per image; the fastest takes ")
    assert expected[3].weights < expected[0].weights


def test_what_is_known_is_not_computed_again(tmp_path, expected, monkeypatch):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(ASKED, tmp_path / "table.db", progress=interrupt)
    seen = []
    assert results(sweep(ASKED, tmp_path / "table.db", progress=lambda done, total: seen.append(done))) == expected
    assert seen == list(range(2, len(ASKED) + 1))
    monkeypatch.setattr(sweeping, "evaluate", None)
    assert results(sweep(ASKED, tmp_path / "table.db")) == expected


def die_once(point):
    marker = os.environ["CBNN_TEST_MARKER"] + str(ASKED.index(point))
    if ASKED.index(point) % 4 == 1 and not os.path.exists(marker):  # noqa: PTH110
        open(marker, "w").close()  # noqa: PTH123
        os._exit(1)
    return evaluate(point)


def die(point):
    os._exit(1)


def test_a_worker_that_dies_loses_nothing(tmp_path, expected, monkeypatch):
    monkeypatch.setenv("CBNN_TEST_MARKER", str(tmp_path / "died-"))
    monkeypatch.setattr(sweeping, "TRIES", 6)
    monkeypatch.setattr(sweeping, "evaluate", die_once)
    assert results(sweep(ASKED, tmp_path / "table.db")) == expected
    assert list(tmp_path.glob("died-*"))


def test_workers_that_always_die_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "evaluate", die)
    with pytest.raises(WorkerError, match=r"workers died 3 times over at 12 points, the first of them Point\("):
        sweep(ASKED, tmp_path / "table.db")


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same(tmp_path, expected):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert results(sweep(ASKED, tmp_path / "table.db", cluster.scheduler_address)) == expected


def test_widths_scale_all_layers_but_the_last():
    assert str(TOPOLOGY.scaled(0.5)) == "4C3-MP2-6FC-4FC"


@pytest.mark.parametrize(("ask", "sentence"), [
    (lambda: points(TOPOLOGY, [4], [1.0], [0], ["xc7z010"]), "4 slices are to be kept; the network has 1 to 3"),
    (lambda: points(TOPOLOGY, [3], [0.3], [0], ["xc7z010"]),
     "layer 0: a width of 0.3 makes 2.4 rows; it must be a whole number of 1 to 1048576"),
    (lambda: points(TOPOLOGY, [3], [1.0], [0], ["fpga"]), "device 'fpga' is not one of xc7z010, xc7z020, "),
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
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(ValueError, match="is no table of a sweep"):
            sweep(ASKED, tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
