"""Pins of the boards, and their top modules."""

import re

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.boards.boards import BOARDS, board_top, constraints
from cbnn.hw.folding import Folding
from cbnn.model.topology import Topology

TOPOLOGY = Topology.parse("4x4x1u2-4FC-3FC")


@pytest.mark.parametrize(("name", "file", "text"), [
    ("icebreaker", "pins.pcf", "set_io clk_pin 35\nset_io rx 6\nset_io tx 9\n"),
    ("ulx3s-85f", "pins.lpf", """LOCATE COMP "clk_pin" SITE "G2";
IOBUF PORT "clk_pin" IO_TYPE=LVCMOS33;
LOCATE COMP "rx" SITE "M1";
IOBUF PORT "rx" IO_TYPE=LVCMOS33;
LOCATE COMP "tx" SITE "L4";
IOBUF PORT "tx" IO_TYPE=LVCMOS33;
FREQUENCY PORT "clk_pin" 25 MHZ;
"""),
    ("tangnano20k", "pins.cst", """IO_LOC "clk_pin" 4;
IO_PORT "clk_pin" IO_TYPE=LVCMOS33 PULL_MODE=NONE;
IO_LOC "rx" 70;
IO_PORT "rx" IO_TYPE=LVCMOS33 PULL_MODE=UP;
IO_LOC "tx" 69;
IO_PORT "tx" IO_TYPE=LVCMOS33 PULL_MODE=NONE;
""")])
def test_pins(name, file, text):
    assert constraints(BOARDS[name]) == (file, text)


@pytest.mark.parametrize("name", BOARDS)
def test_top_has_the_ports_that_pins_name(name):
    board = BOARDS[name]
    unit = accelerator(TOPOLOGY, Folding.parse("(1,8)(1,4)", TOPOLOGY), "net")
    text = board_top(unit, board, board.pll(board.mhz, board.default_mhz))
    assert set(re.findall(r"^    (?:in|out)put wire (\w+)", text, re.MULTILINE)) == set(board.pins)
    assert f"{board.default_mhz} MHz of {board.mhz} MHz" in text
    for signal in ("clk_pin", "clk", "locked"):
        assert f"({signal})" in text
