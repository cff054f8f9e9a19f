"""What takes a design to a bitstream, by family: Yosys' commands, nextpnr's options, and the packer's."""

import re
from typing import NamedTuple

from cbnn.hw.boards.boards import Board


class Flow(NamedTuple):
    """The tools of a family.

    Attributes
    ----------
    synthesis : Yosys' commands; ``{top}`` is the module
    nextpnr, pins, placed : its name, and the options that name the files ``{pins}`` and ``{placed}``
    packer : words that make ``{bitstream}`` of ``{placed}``
    bitstream : name of the file
    cells : what takes logic cells, by nextpnr's names, and how many each takes
    block_ram : nextpnr's name of block RAMs
    """

    synthesis: str
    nextpnr: str
    pins: tuple[str, str]
    placed: tuple[str, str]
    packer: tuple[str, ...]
    bitstream: str
    cells: dict[str, int]
    block_ram: str


FLOWS = {
    "ice40": Flow("synth_ice40 -top {top}", "nextpnr-ice40", ("--pcf", "{pins}"), ("--asc", "{placed}"),
                  ("icepack", "{placed}", "{bitstream}"), "bitstream.bin", {"ICESTORM_LC": 1}, "ICESTORM_RAM"),
    "ecp5": Flow("synth_ecp5 -top {top}", "nextpnr-ecp5", ("--lpf", "{pins}"), ("--textcfg", "{placed}"),
                 ("ecppack", "{placed}", "{bitstream}"), "bitstream.bit", {"TRELLIS_COMB": 1}, "DP16KD"),
    # Pads would also be put on the ports of modules that are kept. A RAM of 16 words takes a tile of eight LUTs.
    "gowin": Flow("synth_gowin -noiopads -top {top}; iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O {top}",
                  "nextpnr-himbaechel", ("--vopt", "cst={pins}"), ("--write", "{placed}"),
                  ("gowin_pack", "-d", "GW2A-18C", "-o", "{bitstream}", "{placed}"), "bitstream.fs",
                  {"LUT4": 1, "ALU": 1, "RAM16SDP4": 8}, "BSRAM"),
}
"""Flows by `Board.target`."""
CONSTANTS = ("VCC", "GND", "GSR")
"""What Gowin counts as resources and every design uses."""


class Taken(NamedTuple):
    """Logic cells and block RAMs of a part that a design takes, the serial line included."""

    cells: int
    block_rams: int


def utilisation(log: str) -> dict[str, tuple[int, int]]:
    """Read from nextpnr's log what is used of what there is."""
    found = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", log, re.MULTILINE)
    return {name: (int(used), int(total)) for name, used, total in found if int(used) and name not in CONSTANTS}


def taken(board: Board, used: dict[str, tuple[int, int]]) -> Taken:
    """Count logic cells and block RAMs of what `utilisation` gave."""
    flow = FLOWS[board.target]
    return Taken(sum(n * used[name][0] for name, n in flow.cells.items() if name in used),
                 used.get(flow.block_ram, (0, 0))[0])


def missing(board: Board, used: dict[str, tuple[int, int]]) -> str:
    """Say which resources are missing, and how many; empty where none are."""
    short = [f"{n:,} {name} of {total:,}, {n - total:,} too many"
             for name, (n, total) in used.items() if n > total]
    return f"it does not fit the {board.title}: {'; '.join(short)}" if short else ""
