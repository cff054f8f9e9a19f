"""Synthesis: numbers as Yosys counts them, and one clear sentence for what goes wrong."""

import json

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.frame_guard import FrameGuard
from cbnn.hw.result_marks import ResultMarks
from cbnn.hw.verilog import generate, write_part
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.synth import place, synthesis
from cbnn.sim.synth.synthesis import Area, SynthesisError

TOPOLOGY = Topology.parse("8FC-3FC", (4, 4, 1), 2)
FOLDING = "(4,16)(1,8)"
WORDS = ["4x4x1u2-8FC-3FC", "--folding", FOLDING]


@pytest.fixture(scope="module")
def unit():
    return accelerator(random_network(TOPOLOGY, 0), Folding.parse(FOLDING, TOPOLOGY), "tiny")


@pytest.fixture
def verilog(unit, tmp_path):
    return generate(unit, tmp_path / "verilog").parent


@pytest.mark.parametrize("target", [pytest.param("xc7", marks=pytest.mark.slow(10)), "ecp5", "ice40"])
def test_total_is_the_sum_of_the_kernels(unit, verilog, target):
    *kernels, total = synthesis.synthesize(unit, verilog, target)
    assert [area.module for area in kernels] == [part.name for part in unit.parts]
    # What joins the kernels is one inverter, of the reset.
    assert 0 <= total.luts - sum(area.luts for area in kernels) <= 1
    assert total.ffs == sum(area.ffs for area in kernels) > 0
    assert total.carry == sum(area.carry for area in kernels) > 0
    # Two entries of data and tlast, and a valid bit for each.
    assert kernels[-2].ffs == 2 * (unit.m_axis.width + 1) + 2


@pytest.mark.slow(9)
def test_guard_and_marks_take_the_luts_that_they_state(tmp_path):
    """To within six LUTs, the most that a ring of 128 flags is off."""
    sizes = [(1, 1), (8, 1), (8, 2), (8, 40), (49, 784)]
    parts = [*(FrameGuard(f"guard_{width}_{beats}", width, beats) for width, beats in sizes),
             *(ResultMarks(f"marks_{n}_{int(early)}", 8, n, early) for n in (3, 100, 200) for early in (False, True))]
    for part in parts:
        write_part(part, tmp_path)
    instances = "".join(f"(* keep *) {part.name} u_{part.name}(); " for part in parts)
    (tmp_path / "all.v").write_text(f"module all; {instances}endmodule\n")
    script = (f"read_verilog -sv all.v {' '.join(f'{part.name}.v' for part in parts)}; "
              "synth_xilinx -family xc7 -noiopad -top all; tee -q -o stat.json stat -json")
    synthesis.run_tool("yosys", ["-Q", "-p", script], tmp_path, "log")
    areas = synthesis.read_areas(tmp_path / "stat.json", [part.name for part in parts], "xc7")
    for part, area in zip(parts, areas, strict=True):
        assert abs(part.luts - area.luts) <= 6, (part, area)
        assert area.block_rams == part.block_rams == 0


def test_cells_are_weighed_and_counted_by_kind():
    cells = {"LUT6": 10, "LUT2": 1, "INV": 1, "RAM32M": 2, "SRL16E": 3, "FDRE": 7, "CARRY4": 4, "RAMB36E1": 1,
             "RAMB18E1": 1, "BUFG": 1}
    assert synthesis.area("top", cells, "xc7") == Area("top", luts=10 + 1 + 1 + 8 + 3, ffs=7, carry=4, block_rams=3)
    assert synthesis.area("top", {"LUT4": 5, "CCU2C": 2, "TRELLIS_DPR16X4": 1, "DP16KD": 2}, "ecp5") \
        == Area("top", luts=5 + 4 + 6, ffs=0, carry=2, block_rams=2)


def test_command_prints_a_row_per_kernel(cbnn):
    code, out, _ = cbnn("synth", *WORDS, "--target", "ice40", "--json")  # the quickest; xc7 is the default
    assert code == 0
    rows = json.loads(out)["rows"]
    assert rows[-1]["module"] == "accelerator"
    assert rows[-1].keys() == {"module", "luts", "ffs", "carry", "block_rams"}


def test_command_prints_a_table(cbnn, monkeypatch):
    monkeypatch.setattr(synthesis, "synthesize", lambda *_: [Area("kernel", 1200, 3, 4, 5),
                                                             Area("accelerator", 1201, 3, 4, 5)])
    code, out, _ = cbnn("synth", *WORDS)
    assert code == 0
    words = [line.split() for line in out.splitlines() if line.strip()]
    headings = {word for line in words[: next(i for i, line in enumerate(words) if line[0].startswith("─"))]
                for word in line}
    assert headings == {"module", "LUTs", "flip-flops", "carry", "cells", "block", "RAMs", "(18", "Kib)"}
    assert words[-1] == ["accelerator", "1,201", "3", "4", "5"]


@pytest.mark.slow(10)
def test_whole_accelerator_is_placed(cbnn):
    code, out, err = cbnn("synth", *WORDS, "--target", "ecp5", "--place", "whole", "--json")
    assert (code, err.count("Traceback")) == (0, 0)
    rows = json.loads(out)["rows"]
    assert 40 < rows[-1]["mhz"] < 400
    assert rows[0]["mhz"] is None


@pytest.mark.slow(19)
def test_kernels_are_placed_alone(tmp_path):
    topology = Topology.parse("3FC", (2, 2, 1), 1)
    unit = accelerator(random_network(topology, 0), Folding.parse("(1,2)", topology), "tiny")
    clocks = place.clocks(unit, generate(unit, tmp_path / "verilog").parent, "ice40", "kernels", seed=1)
    assert clocks.keys() == {kernel.name for kernel in unit.kernels}
    assert min(clocks.values()) >= 25


@pytest.mark.parametrize(("words", "sentence"), [
    (["--target", "asic"], "target 'asic' is not one of xc7, ecp5, ice40"),
    (["--place", "kernels"], "target 'xc7' cannot be placed; nextpnr supports ecp5 and ice40"),
    (["--target", "ecp5", "--place", "some"], "'some' cannot be placed; it must be kernels or whole"),
])
def test_wrong_options_are_one_sentence(cbnn, words, sentence):
    code, out, err = cbnn("synth", *WORDS, *words)
    assert (code, out, err) == (2, "", f"cbnn: {sentence}\n")


def test_missing_tool_is_one_sentence(cbnn, monkeypatch):
    monkeypatch.setattr(synthesis.shutil, "which", lambda name: None)
    monkeypatch.setattr(synthesis, "find_spec", lambda name: None)
    code, _, err = cbnn("synth", *WORDS)
    assert code == 2
    assert err.endswith("cbnn: yosys is neither on the PATH nor installed as a wheel; pip install 'cbnn[synth]'\n")


def test_failing_tool_tells_its_first_error(tmp_path):
    with pytest.raises(SynthesisError) as caught:
        synthesis.run_tool("yosys", ["-Q", "-p", "no_such_command"], tmp_path, "log")
    assert str(caught.value) == "yosys failed: No such command: no_such_command (type 'help' for a command overview)"


@pytest.mark.slow(14)
def test_what_does_not_fit_is_said(tmp_path):
    topology = Topology.parse("96FC-3FC", (8, 8, 1), 1)
    unit = accelerator(random_network(topology, 0), Folding.parse("(96,32)(1,8)", topology), "too_large")
    verilog = generate(unit, tmp_path / "verilog").parent
    with pytest.raises(SynthesisError) as caught:
        place.clocks(unit, verilog, "ice40", "whole", seed=1)
    assert str(caught.value).startswith("too_large does not fit the ice40: nextpnr-ice40 failed: ")
