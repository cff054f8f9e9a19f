"""A board in simulation: the Verilog that `build` wrote, or the netlist that Yosys made of it, on Icarus.

Its serial line is a pseudo-terminal, so that programs talk to it as to a board. The netlist is that
of the whole board, driven at its pins; only its PLL is replaced by a wire.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cbnn.hw.boards.boards import Board
from cbnn.hw.verilog import FILE_LIST
from cbnn.model.processes import scratch_folder
from cbnn.sim.board.build import line_divider
from cbnn.sim.board.vendor_cells import models
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.simulators import check_simulator, simulate
from cbnn.sim.prove.verilated import SimulationError
from cbnn.sim.synth.synthesis import run_tool

BENCH = "cbnn.sim.board.board_bench"
LEVELS = ("rtl", "netlist")
PATIENCE_CYCLES = 100_000
"""Far more than pass between two looks at the line."""
PLLS = ("SB_PLL40_PAD", "EHXPLLL")


class Answering(NamedTuple):
    """What is asked for classes, see `cbnn.sim.board.host.ask`.

    Attributes
    ----------
    port : name of its serial port
    patience_s, clock : of a simulated board, seconds that pass for it, however slow the simulation is
    """

    port: str
    patience_s: float
    clock: Callable[[], float]


@contextmanager
def simulated(folder: Path, name: str, board: Board, mhz: float, baud: int, level: str) -> Iterator[Answering]:
    """Simulate the board that `build` wrote to a folder.

    Parameters
    ----------
    name : of the accelerator
    mhz, baud : of its clock, and of the line
    level : one of `LEVELS`

    Raises
    ------
    ValueError
        When there is no such level.
    SimulationError
        When the simulator is missing or fails.
    SynthesisError
        When Yosys, which writes the netlist as Verilog, is missing or fails.
    """
    if level not in LEVELS:
        raise ValueError(f"{level!r} cannot be simulated; it must be {' or '.join(LEVELS)}")
    check_simulator()
    with scratch_folder() as work:
        if level == "netlist":
            _write_netlist(folder, f"{name}_board", board, work)
            design = Design(work, f"{name}_board", ("netlist.v", "cells.v"), "clk_pin", "")
        else:
            files = (folder / FILE_LIST).read_text().split()
            if strange := [file for file in files if Path(file).name != file]:
                raise ValueError(f"{folder / FILE_LIST} names {strange[0]!r}, which is not in its folder")
            for file in (*files, *(path.name for path in folder.glob("*.mem"))):
                shutil.copy(folder / file, work)
            design = Design(work, f"{name}_serial", tuple(files), "clk", "rst_n")
        with _running(design, work, line_divider(mhz, baud), mhz * 1e6) as simulation:
            yield simulation


def _write_netlist(folder: Path, top: str, board: Board, work: Path) -> None:
    """Write netlist and cells as Verilog; the PLL's output becomes its input."""
    (work / "cells.v").write_text(models(board.target))
    shutil.copy(folder / "netlist.json", work)
    cells = " ".join(f"t:{pll}" for pll in PLLS)
    run_tool("yosys", ["-q", "-p", f"read_json netlist.json; cd {top}; delete {cells}; connect -set clk clk_pin; "
                                   "connect -set locked 1'1; cd; write_verilog -noattr netlist.v"], work, "netlist.log")


@contextmanager
def _running(design: Design, work: Path, divider: int, hertz: float) -> Iterator[Answering]:
    """Run the simulator until the context ends."""
    port, passed, job, failures = work / "port", work / "time", work / "job.json", []

    def run() -> None:
        try:
            simulate(design, work, BENCH, {"CBNN_JOB": str(job)})
        except SimulationError as error:
            failures.append(error)

    def clock() -> float:
        if not simulator.is_alive():
            raise failures[0] if failures else SimulationError(f"simulation of {design.top} ended too early")
        return int(passed.read_text()) / hertz

    job.write_text(json.dumps({"divider": divider, "clock": design.clock, "reset": design.reset, "port": str(port),
                               "time": str(passed)}))
    passed.write_text("0")
    port.touch()
    simulator = threading.Thread(target=run)
    simulator.start()
    try:
        while not (terminal := port.read_text()):
            clock()
            time.sleep(0.02)
        yield Answering(terminal, PATIENCE_CYCLES / hertz, clock)
    finally:
        port.unlink()
        simulator.join()
