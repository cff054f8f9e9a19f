"""From a network to a bitstream: Verilog, Yosys, nextpnr with several seeds, and the packer of the family."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.boards.boards import BOARDS, Board, board_top, constraints
from cbnn.hw.boards.serial_top import write_serial
from cbnn.model.files import OwnFolder, folder_written
from cbnn.sim.synth.synthesis import SynthesisError, run_tool

MIN_DIVIDER = 4
RECORD = "board.json"
"""What a host must know to talk to the board."""
PACKERS = {"ice40": ("icepack", "bitstream.bin"), "ecp5": ("ecppack", "bitstream.bit")}
"""The tool that packs what nextpnr wrote, and the bitstream."""


@dataclass(frozen=True)
class Placed:
    """What nextpnr found with one seed.

    Attributes
    ----------
    mhz : the highest clock
    slack_ns : time left in a cycle of the clock that the board gives; negative: too slow
    """

    seed: int
    mhz: float
    slack_ns: float


@dataclass(frozen=True)
class Build:
    """A bitstream, and what it was chosen from.

    Attributes
    ----------
    mhz : clock of the accelerator
    seeds : all that were tried; `chosen` is the one in the bitstream
    used : resources, of how many, by nextpnr's names
    """

    bitstream: Path
    mhz: float
    seeds: tuple[Placed, ...]
    chosen: int
    used: dict[str, tuple[int, int]]


def check_board(name: str) -> None:
    """Raise ValueError unless it is one of `BOARDS`."""
    if name not in BOARDS:
        raise ValueError(f"board {name!r} is not known; the boards are {', '.join(BOARDS)}")


def build(accelerator: Accelerator, board: Board, mhz: float, baud: int, seeds: Sequence[int], folder: Path,
          progress: Callable[[int, int], None] = lambda done, total: None) -> Build:
    """Write Verilog, constraints and a bitstream to `folder`, whole or not at all.

    Parameters
    ----------
    mhz : clock that the accelerator is to have; the PLL's nearest below is taken
    baud : bits per second of the serial line

    Raises
    ------
    ValueError
        When no clock of the PLL suits, the line is too fast for it, or `folder` holds what is not ours.
    SynthesisError
        When a tool is missing, the design does not fit, or no seed reaches the clock.
    """
    pll = board.pll(board.mhz, mhz)
    divider = line_divider(pll.mhz, baud)
    if divider < MIN_DIVIDER:
        raise ValueError(f"{baud} baud are too fast for a clock of {pll.mhz:g} MHz; a bit takes at least {MIN_DIVIDER} "
                         "cycles")
    OwnFolder(folder).check()  # before the work
    with folder_written(folder) as fresh:
        files, _ = write_serial(accelerator, divider, fresh)
        top = f"{accelerator.name}_board"
        (fresh / f"{top}.v").write_text(board_top(accelerator, board, pll))
        pins, text = constraints(board)
        (fresh / pins).write_text(text)
        folded, name = accelerator.folding, next(name for name, known in BOARDS.items() if known is board)
        (fresh / RECORD).write_text(json.dumps({
            "board": name,
            "folding": str(folded), "input_width": folded.input_width, "whole_bytes": folded.whole_bytes,
            "mhz": pll.mhz, "baud": baud}, indent=2) + "\n")
        progress(0, len(seeds) + 1)
        run_tool("yosys", ["-Q", "-p", f"read_verilog -sv {' '.join([*files, f'{top}.v'])}; synth_{board.target} "
                                       f"-top {top} -json netlist.json"], fresh, "synth.log")
        placed = []
        for i, seed in enumerate(seeds, 1):
            progress(i, len(seeds) + 1)
            placed.append(_placed(board, pins, pll.mhz, seed, fresh))
        best = max(placed, key=lambda found: found.mhz)
        if best.slack_ns < 0:
            raise SynthesisError(f"the clock of {pll.mhz:g} MHz is not reached with {len(seeds)} seed(s), the best of "
                                 f"them gives {best.mhz:g} MHz; ask for less")
        packer, bitstream = PACKERS[board.target]
        run_tool(packer, [f"{best.seed}.placed", bitstream], fresh, "pack.log")
        used = utilisation((fresh / f"{best.seed}.log").read_text())
        result = Build(folder / bitstream, pll.mhz, tuple(placed), best.seed, used)
        for seed in seeds:
            (fresh / f"{seed}.placed").unlink()
    return result


def line_divider(mhz: float, baud: int) -> int:
    """Return how many cycles of the clock a bit of the serial line takes."""
    return round(mhz * 1e6 / baud)


def _placed(board: Board, pins: str, mhz: float, seed: int, folder: Path) -> Placed:
    """Place and route with one seed; the result is kept as ``<seed>.placed``."""
    ice40 = board.target == "ice40"
    words = [*board.part, "--json", "netlist.json", "--pcf" if ice40 else "--lpf", pins,
             "--asc" if ice40 else "--textcfg", f"{seed}.placed", "--report", "report.json", "--timing-allow-fail",
             "--freq", f"{mhz:g}", "--seed", str(seed)]
    try:
        run_tool(f"nextpnr-{board.target}", words, folder, f"{seed}.log")
    except SynthesisError as error:
        raise SynthesisError(does_not_fit(board, (folder / f"{seed}.log").read_text()) or str(error)) from error
    achieved = min(clock["achieved"] for clock in json.loads((folder / "report.json").read_text())["fmax"].values())
    return Placed(seed, round(achieved, 2), round(1e3 / mhz - 1e3 / achieved, 2))


def utilisation(log: str) -> dict[str, tuple[int, int]]:
    """Read from nextpnr's log what is used of what there is."""
    found = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", log, re.MULTILINE)
    return {name: (int(used), int(total)) for name, used, total in found if int(used)}


def does_not_fit(board: Board, log: str) -> str:
    """Say which resources are missing, and how many; empty where none are."""
    short = [f"{used:,} {name} of {total:,}, {used - total:,} too many"
             for name, (used, total) in utilisation(log).items() if used > total]
    return (f"it does not fit the {board.title}: {'; '.join(short)}; prune slices, or take a folding that is slower"
            if short else "")
