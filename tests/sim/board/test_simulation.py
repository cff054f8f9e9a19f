"""Boards in simulation: their netlists of vendor cells give classes and cycles through the serial pin."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import serial

from cbnn.hw.accelerator import accelerator
from cbnn.hw.boards.boards import BOARDS, board_top
from cbnn.hw.boards.serial_top import write_serial
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.model.compute import golden
from cbnn.model.exchange.storage import save
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.board import host
from cbnn.sim.board.simulation import simulated
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.synth.synthesis import run_tool

TOPOLOGY = Topology.parse("4x4x1u3-6C3-64FC-10FC")
NETWORK = random_network(TOPOLOGY, 4)
FOLDING = "(2,3)(2,6)(1,4)"
MHZ, BAUD, DIVIDER = 24.0, 6_000_000, 4
N_IMAGES = int(os.environ.get("CBNN_BOARD_IMAGES", "10"))


def unit_of():
    return accelerator(NETWORK, Folding.parse(FOLDING, TOPOLOGY, 8), "net")


def record_of(board):
    return {"board": board, "topology": str(TOPOLOGY), "folding": FOLDING, "input_width": 8,
            "whole_bytes": False, "mhz": MHZ, "baud": BAUD}


def random_images(n):
    return np.random.default_rng(n).integers(0, 8, (n, *TOPOLOGY.in_shape), np.uint8)


@pytest.mark.parametrize("board", ["icebreaker", "ulx3s-25f"])
@pytest.mark.slow(20)
def test_netlist_gives_classes_and_cycles_of_many_images(tmp_path, board):
    known, unit, images = BOARDS[board], unit_of(), random_images(N_IMAGES)
    files, _ = write_serial(unit, DIVIDER, tmp_path)
    (tmp_path / "net_board.v").write_text(board_top(unit, known, known.pll(known.mhz, MHZ)))
    run_tool("yosys", ["-Q", "-p", f"read_verilog -sv {' '.join(files)} net_board.v; synth_{known.target} "
                                   "-top net_board -json netlist.json"], tmp_path, "synth.log")
    netlist = json.loads((tmp_path / "netlist.json").read_text())
    cells = {cell["type"] for name, module in netlist["modules"].items() if name.startswith("net_")
             for cell in module["cells"].values()}
    assert ("SB_RAM40_4K" if known.target == "ice40" else "DP16KD") in cells
    trace, beats = simulate(unit, 2), input_beats(unit, images)
    classes, n = golden.scores(NETWORK, images).argmax(axis=1), unit.input_beats
    with simulated(tmp_path, "net", known, MHZ, BAUD, "netlist") as answering, serial.Serial(answering.port) as line:
        for i in range(N_IMAGES):
            said = host.ask(line, bytes(beats[n * i : n * (i + 1)]), 1, baud=BAUD, repeats=2,
                            work_s=trace.taken(-1)[-1] / (MHZ * 1e6),
                            patience_s=answering.patience_s, clock=answering.clock)
            assert said[1:] == (0, classes[i], trace.latency_cycles, trace.interval_cycles)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A board's folder as far as simulation reads it, and beside it a network and an image."""
    folder = tmp_path / "board"
    folder.mkdir()
    write_serial(unit_of(), DIVIDER, folder)
    (folder / "board.json").write_text(json.dumps(record_of("icebreaker")))
    save(NETWORK, tmp_path / "net.npz")
    np.save(tmp_path / "image.npy", random_images(1)[0])
    return folder


def test_the_host_asks_a_simulated_board(folder, cbnn):
    words = [folder.parent / "net.npz", folder.parent / "image.npy", "--board-folder", folder, "--simulate", "rtl"]
    code, out, err = cbnn("classify", *words, "--repeats", 2, "--json")
    assert (code, "Traceback" in err) == (0, False)
    said = json.loads(out)
    assert said["measured"] == said["predicted"]
    assert said["measured"]["class"] == golden.scores(NETWORK, random_images(1))[0].argmax()


def test_a_simulated_board_that_differs_is_found(folder, cbnn):
    starts = next(folder.glob("*mvtu2_starts.mem"))
    first, *others = starts.read_text().split()
    starts.write_text("\n".join([*others, first]))
    words = [folder.parent / "net.npz", folder.parent / "image.npy", "--board-folder", folder, "--simulate", "rtl"]
    code, _, err = cbnn("classify", *words, "--repeats", 1)
    assert code == 1
    assert "the board says" in err


@pytest.mark.parametrize(("words", "sentence"), [
    ([], "either --port or --simulate says which board to ask"),
    (["--port", "/dev/null", "--simulate", "rtl"], "either --port or --simulate says which board to ask"),
    (["--simulate", "silicon"], "'silicon' cannot be simulated; it must be rtl or netlist")])
def test_wrong_options_are_one_sentence(folder, cbnn, words, sentence):
    code, out, err = cbnn("classify", folder.parent / "net.npz", folder.parent / "image.npy",
                          "--board-folder", folder, *words)
    assert (code, out, err) == (2, "", f"cbnn: {sentence}\n")


def test_a_simulation_that_fails_is_one_sentence(folder, cbnn):
    next(folder.glob("*_classify.v")).write_text("module nonsense")
    code, out, err = cbnn("classify", folder.parent / "net.npz", folder.parent / "image.npy",
                          "--board-folder", folder, "--simulate", "rtl")
    assert (code, out) == (2, "")
    assert err.startswith("cbnn: compiling net_serial failed: ")
    assert err.count("\n") == 1


def test_a_family_without_models_is_one_sentence(folder, cbnn):
    (folder / "board.json").write_text(json.dumps(record_of("tangnano20k")))
    (folder / "netlist.json").write_text("{}")
    code, out, err = cbnn("classify", folder.parent / "net.npz", folder.parent / "image.npy",
                          "--board-folder", folder, "--simulate", "netlist")
    assert (code, out) == (2, "")
    assert err.startswith("cbnn: a netlist of the family gowin cannot be simulated, since Yosys has no models of ")


@pytest.mark.parametrize(("field", "value", "complaint"), [
    ("baud", 0, "board.json: its JSON is wrong: "), ("mhz", -5.0, "board.json: its JSON is wrong: "),
    ("topology", "4x4x1u3-10FC", "the network is 4x4x1u3-6C3-64FC-10FC; the board of ")])
def test_records_that_are_not_right_are_one_sentence(folder, cbnn, field, value, complaint):
    (folder / "board.json").write_text(json.dumps(record_of("icebreaker") | {field: value}))
    code, out, err = cbnn("classify", folder.parent / "net.npz", folder.parent / "image.npy",
                          "--board-folder", folder, "--simulate", "rtl")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err


def test_files_of_other_folders_are_not_read(folder, cbnn):
    (folder / "files.f").write_text("../../etc/passwd\n")
    code, out, err = cbnn("classify", folder.parent / "net.npz", folder.parent / "image.npy",
                          "--board-folder", folder, "--simulate", "rtl")
    assert (code, out) == (2, "")
    assert err == f"cbnn: {folder / 'files.f'} names '../../etc/passwd', which is not in its folder\n"
