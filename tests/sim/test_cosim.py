"""Co-simulation itself: it must notice what is wrong, or nothing else here means anything."""

from pathlib import Path

import pytest

from cbnn.sim.cosim import Run, SimulationError, check_simulator, cosimulate

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
    return cosimulate(folder, "dut", ["dut.v"], runs, clock="clk", reset="rst", reset_level=1)


def test_a_wire_passes_beats_in_the_same_cycle(tmp_path: Path) -> None:
    beats = ("1", "2", "ff", "0")
    free, stalled = play(tmp_path, WIRE, Run(beats, 2, 4), Run(beats, 2, 4, idle_percent=50, stall_percent=50, seed=2))
    assert free.in_cycles == free.out_cycles == [0, 1, 2, 3]
    for seen in (free, stalled):
        assert seen.out_beats == [1, 2, 255, 0]
        assert seen.out_last == [False, True, False, True]
        assert seen.breaches == []
    assert stalled.out_cycles[-1] > 3


def test_a_reset_in_the_middle_starts_over(tmp_path: Path) -> None:
    [seen] = play(tmp_path, WIRE, Run(("5", "6"), 2, 2, reset_after=1))
    assert seen.out_beats == [5, 6]


@pytest.mark.parametrize(("body", "verb"), [(CHANGES, "changed"), (WITHDRAWS, "withdrawn")])
def test_breaches_of_the_protocol_are_seen(tmp_path: Path, body: str, verb: str) -> None:
    [seen] = play(tmp_path, body, Run(("1",) * 8, 8, 8, stall_percent=60))
    assert f"m_axis: a beat offered and not taken was {verb} in cycle" in seen.breaches[0]


def test_a_hanging_simulation_ends(tmp_path: Path) -> None:
    with pytest.raises(SimulationError) as caught:
        play(tmp_path, STUCK, Run(("1", "2"), 2, 1, max_cycles=50))
    assert str(caught.value) == "dut hangs: 2 of 2 beats in, 0 of 1 out after 50 cycles"


def test_broken_verilog_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"simulation of dut failed: .*syntax error"):
        play(tmp_path, "assign = ;", Run(("1",), 1, 1))


def test_missing_icarus_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SimulationError) as caught:
        check_simulator()
    assert str(caught.value) == "Icarus Verilog (iverilog) is not installed; install the package iverilog"
