"""From a network to a bitstream: Verilog, Yosys, nextpnr with several seeds, and the packer of the family."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.boards.boards import BOARDS, Board, Pll, board_top, constraints
from cbnn.hw.boards.serial_top import write_serial
from cbnn.model.files import folder_written
from cbnn.model.processes import scratch_folder
from cbnn.sim.board.flow import FLOWS, Taken, missing, taken, utilisation
from cbnn.sim.board.stages import Stages
from cbnn.sim.synth.synthesis import SynthesisError, run_tool

MIN_DIVIDER = 4
RECORD = "board.json"
"""What a host must know to talk to the board."""
NETLIST = "netlist.json"


class NotPlacedError(SynthesisError):
    """The design does not fit the board, or not at this clock.

    Attributes
    ----------
    taken : what it takes, where that is more than there is
    """

    def __init__(self, sentence: str, taken: Taken | None = None) -> None:
        super().__init__(sentence)
        self.taken = taken


@dataclass(frozen=True)
class Goal:
    """What a bitstream is to be.

    Attributes
    ----------
    name : of the board, in `BOARDS`
    pll : the clock of the accelerator
    baud : bits per second of the serial line
    seeds : nextpnr's, all of which are tried
    """

    name: str
    pll: Pll
    baud: int
    seeds: Sequence[int]

    @property
    def board(self) -> Board:
        """The board."""
        return BOARDS[self.name]

    @property
    def divider(self) -> int:
        """Clock cycles per bit of the serial line."""
        return line_divider(self.pll.mhz, self.baud)


def check_board(name: str) -> None:
    """Raise ValueError unless it is one of `BOARDS`."""
    if name not in BOARDS:
        raise ValueError(f"board {name!r} is not known; the boards are {', '.join(BOARDS)}")


def line_divider(mhz: float, baud: int) -> int:
    """Return how many cycles of the clock a bit of the serial line takes."""
    return round(mhz * 1e6 / baud)


def goal(name: str, mhz: float | None, baud: int, seeds: Sequence[int]) -> Goal:
    """Return a goal for one of `BOARDS`.

    Parameters
    ----------
    mhz : clock that the accelerator is to have; the PLL's nearest below is taken; None: the board's default

    Raises
    ------
    ValueError
        When there is no such board, no clock of its PLL suits, or the line is too fast for it.
    """
    check_board(name)
    board = BOARDS[name]
    found = Goal(name, board.pll(board.mhz, mhz or board.default_mhz), baud, seeds)
    if found.divider < MIN_DIVIDER:
        raise ValueError(f"{baud} baud are too fast for a clock of {found.pll.mhz:g} MHz; a bit takes at least "
                         f"{MIN_DIVIDER} cycles")
    return found


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
    seeds : all that were tried; `chosen` is the one in the bitstream
    used : resources, of how many, by nextpnr's names
    """

    bitstream: Path
    seeds: tuple[Placed, ...]
    chosen: int
    used: dict[str, tuple[int, int]]


def build(accelerator: Accelerator, wanted: Goal, folder: Path, stages: Stages,
          progress: Callable[[int, int], None] = lambda done, total: None) -> Build:
    """Write Verilog, constraints and a bitstream to `folder`, whole or not at all.

    Parameters
    ----------
    stages : what an earlier build to this folder has done, see `unfinished`

    Raises
    ------
    ValueError
        When `folder` holds what is not ours.
    SynthesisError
        When a tool is missing; a NotPlacedError when the design does not fit, or no seed reaches the clock.
    """
    with folder_written(folder) as fresh:
        return _built(accelerator, wanted, folder, fresh, stages, progress)


def _built(accelerator: Accelerator, wanted: Goal, folder: Path, fresh: Path, stages: Stages,
           progress: Callable[[int, int], None]) -> Build:
    seeds, flow = wanted.seeds, FLOWS[wanted.board.target]
    progress(0, len(seeds) + 1)
    pins = _synthesised(accelerator, wanted, fresh, stages)
    folded = accelerator.folding
    (fresh / RECORD).write_text(json.dumps({
        "board": wanted.name, "topology": str(accelerator.topology), "folding": str(folded),
        "input_width": folded.input_width, "whole_bytes": folded.whole_bytes,
        "mhz": wanted.pll.mhz, "baud": wanted.baud}, indent=2) + "\n")
    placed = []
    for i, seed in enumerate(seeds, 1):
        progress(i, len(seeds) + 1)
        placed.append(_placed(wanted, pins, seed, fresh, stages))
    best = max(placed, key=lambda found: found.mhz)
    if best.slack_ns < 0:
        raise NotPlacedError(f"the clock of {wanted.pll.mhz:g} MHz is not reached with {len(seeds)} seed(s), the best "
                             f"of them gives {best.mhz:g} MHz; ask for less")
    packer, *words = (word.format(placed=f"{best.seed}.placed", bitstream=flow.bitstream) for word in flow.packer)
    run_tool(packer, words, fresh, "pack.log")
    used = utilisation((fresh / f"{best.seed}.log").read_text())
    for seed in seeds:
        (fresh / f"{seed}.placed").unlink()
    return Build(folder / flow.bitstream, tuple(placed), best.seed, used)


def measure(accelerator: Accelerator, wanted: Goal, stages: Stages) -> Taken:
    """Return what a design takes of the board, synthesised but not placed; it may be more than there is."""
    with scratch_folder() as folder:
        pins = _synthesised(accelerator, wanted, folder, stages)
        _nextpnr(wanted, pins, ["--pack-only"], [], "fit.log", folder, stages)
        return taken(wanted.board, utilisation((folder / "fit.log").read_text()))


def _synthesised(accelerator: Accelerator, wanted: Goal, folder: Path, stages: Stages) -> str:
    """Write Verilog, netlist and constraints; return the name of these."""
    files, mems = write_serial(accelerator, wanted.divider, folder)
    top = f"{accelerator.name}_board"
    (folder / f"{top}.v").write_text(board_top(accelerator, wanted.board, wanted.pll))
    pins, text = constraints(wanted.board)
    (folder / pins).write_text(text)
    files = [*files, f"{top}.v"]
    script = (f"read_verilog -sv {' '.join(files)}; {FLOWS[wanted.board.target].synthesis.format(top=top)}; "
              f"write_json {NETLIST}")
    stages.run("yosys", ["-Q", "-p", script], folder, [*files, *mems], [NETLIST], "synth.log")
    return pins


def _nextpnr(wanted: Goal, pins: str, words: list[str], writes: list[str], log: str, folder: Path,
             stages: Stages) -> None:
    flow = FLOWS[wanted.board.target]
    try:
        stages.run(flow.nextpnr, [*wanted.board.part, *(word.format(pins=pins) for word in flow.pins),
                                  "--json", NETLIST, "--freq", f"{wanted.pll.mhz:g}", *words],
                   folder, [NETLIST, pins], writes, log)
    except SynthesisError as error:
        used = utilisation((folder / log).read_text()) if (folder / log).exists() else {}
        if not used:  # it did not even start
            raise
        short = missing(wanted.board, used)
        raise NotPlacedError(short or str(error), taken(wanted.board, used) if short else None) from error


def _placed(wanted: Goal, pins: str, seed: int, folder: Path, stages: Stages) -> Placed:
    """Place and route with one seed; the result is kept as ``<seed>.placed``."""
    placed, report, mhz = f"{seed}.placed", f"{seed}.json", wanted.pll.mhz
    output = [word.format(placed=placed) for word in FLOWS[wanted.board.target].placed]
    _nextpnr(wanted, pins, [*output, "--report", report, "--timing-allow-fail", "--seed", str(seed)],
             [placed, report], f"{seed}.log", folder, stages)
    achieved = min(clock["achieved"] for clock in json.loads((folder / report).read_text())["fmax"].values())
    return Placed(seed, round(achieved, 2), round(1e3 / mhz - 1e3 / achieved, 2))
