"""The report folder: numbers that agree with the simulation, a trace that Perfetto reads, and a picture."""

import json

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.files import RECORD
from cbnn.model.topology import Topology
from cbnn.sim.predict.cycles import predict
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.report import timeline
from cbnn.sim.report.performance import FILES, kernel_performance, network_performance, write_performance

TOPOLOGY = Topology.parse("4C3-MP2-6C3-8FC-5FC", (6, 6, 1), 4)
UNIT = accelerator(TOPOLOGY, Folding.parse("(2,9)(2,4)(4,6)(5,4)", TOPOLOGY))
TRACE = simulate(UNIT, 5)


def test_every_cycle_of_every_kernel_is_accounted_for():
    n_cycles = int(TRACE.taken(-1)[-1]) + 1
    for row, kernel in zip(kernel_performance(TRACE), UNIT.kernels, strict=True):
        assert row.busy + row.starved + row.blocked == n_cycles
        assert row.busy >= max(kernel.s_axis.beats, kernel.m_axis.beats) * TRACE.n_images
        assert 0 <= row.highest <= row.capacity
    for mvtu in UNIT.mvtus:
        assert next(row for row in kernel_performance(TRACE) if row.name == mvtu.name).busy >= 5 * mvtu.interval_cycles


def test_folder_holds_what_a_script_reads(tmp_path):
    write_performance(UNIT, TRACE, 200.0, tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {RECORD, *FILES}
    summary = json.loads((tmp_path / "report" / "estimate_network_performance.json").read_text())
    assert summary == network_performance(UNIT, TRACE, 200.0)
    assert summary["max_cycles"] == UNIT.interval_cycles
    assert summary["input"] == "kept slices"
    assert summary["critical_path_cycles"] == TRACE.latency_cycles
    assert summary["estimated_throughput_fps"] == round(2e8 / UNIT.interval_cycles, 3)
    layers = json.loads((tmp_path / "report" / "estimate_layer_cycles.json").read_text())
    assert layers == {mvtu.name: mvtu.interval_cycles for mvtu in UNIT.mvtus}
    page = (tmp_path / "report" / "timeline.html").read_text()
    assert f"Slowest kernel: {summary['max_cycles_node_name']}." in page
    write_performance(UNIT, TRACE, 100.0, tmp_path / "report")
    (tmp_path / "report" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds mine\.txt, which is not as cbnn wrote it"):
        write_performance(UNIT, TRACE, 100.0, tmp_path / "report")


def test_a_single_image_has_the_predicted_interval():
    one = network_performance(UNIT, simulate(UNIT, 1), 100.0)
    assert one["max_cycles"] == predict(UNIT).interval_cycles


def test_trace_has_every_state(tmp_path):
    timeline.write_trace(TRACE, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    for i, row in enumerate(kernel_performance(TRACE)):
        drawn = {state: sum(event["dur"] for event in events if event.get("tid") == i and event["name"] == state)
                 for state in timeline.STATES}
        assert drawn == {"starved": row.starved, "blocked": row.blocked, "busy": row.busy}


def test_many_runs_are_drawn_in_groups(monkeypatch):
    monkeypatch.setattr(timeline, "RUN_CYCLES", 10)
    states = np.array([0, 2] * 50 + [1] * 30, np.uint8)
    starts, kinds, ends = timeline._runs(states)
    assert len(starts) <= 10
    assert (starts[0], ends[-1], kinds[-1]) == (0, len(states), 1)
    assert (starts[1:] == ends[:-1]).all()
