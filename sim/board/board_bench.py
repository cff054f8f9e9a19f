"""Run by cocotb inside the simulator: it drives a board's pins, and joins its serial line to a pseudo-terminal.

A program opens the pseudo-terminal as it would open the board's port. Simulated time runs on its own:
the board is slow, and otherwise as it is.
"""

import json
import os
import tty
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer
from cocotb.utils import get_sim_time

from cbnn.sim.board.line import Line

PERIOD_NS = 10
IDLE_CYCLES = 50
"""Between looks at what programs wrote."""
PARENT_CYCLES = 500
"""Between looks whether the one who started this is there."""
START_CYCLES = 300
"""More than boards take to leave reset."""


class PseudoTerminal:
    """What a program on this machine opens as a port.

    `name_file` is there as long as somebody wants it, and gets its name.
    """

    def __init__(self, name_file: Path) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.name_file = name_file
        if name_file.exists():
            name_file.write_text(os.ttyname(self.slave))

    def read(self) -> bytes | None:
        """Return what was written to the port, perhaps nothing; None when nobody wants it any more."""
        if not self.name_file.exists():
            return None
        try:
            return os.read(self.master, 4096)
        except BlockingIOError:
            return b""

    def write(self, octets: bytes) -> None:
        """Give bytes to whoever reads the port."""
        os.write(self.master, octets)


async def end_with_parent(parent: int) -> None:
    """End, without a word, where whoever started the simulator was killed; its folder is gone then."""
    while os.getppid() == parent:
        await Timer(PERIOD_NS * PARENT_CYCLES, "ns")
    os._exit(1)


@cocotb.test()
async def connect(dut) -> None:
    """Clock the board, and carry bytes both ways."""
    job = json.loads(Path(os.environ["CBNN_JOB"]).read_text())
    line = Line(dut.rx, dut.tx, PERIOD_NS * job["divider"])
    dut.rx.value = 1
    if job["reset"]:
        getattr(dut, job["reset"]).value = 0
    Clock(getattr(dut, job["clock"]), PERIOD_NS, "ns").start()
    await Timer(PERIOD_NS * START_CYCLES, "ns")
    if job["reset"]:
        getattr(dut, job["reset"]).value = 1
    cocotb.start_soon(line.listen())
    cocotb.start_soon(end_with_parent(os.getppid()))
    port, time_file = PseudoTerminal(Path(job["port"])), os.open(job["time"], os.O_WRONLY)
    while (octets := port.read()) is not None:
        if octets:
            await line.send(octets)
        else:
            await Timer(max(line.bit_ns, PERIOD_NS * IDLE_CYCLES), "ns")
        if line.received:
            port.write(bytes(line.received))
            line.received.clear()
        os.pwrite(time_file, f"{get_sim_time('ns') / PERIOD_NS:020.0f}".encode(), 0)
