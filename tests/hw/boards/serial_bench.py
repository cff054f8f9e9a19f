"""Played inside the simulator: sends bytes on the serial line, or bits that are none, and notes what comes back."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer

from cbnn.sim.board.line import Line

PERIOD_NS = 10


@cocotb.test()
async def play(dut) -> None:
    """Send each message of the job, wait until the board has been silent for some time, note what it said."""
    job = json.loads(Path(os.environ["SERIAL_JOB"]).read_text())
    line = Line(dut.rx, dut.tx, PERIOD_NS * job["divider"])
    dut.rx.value, dut.rst_n.value = 1, 0
    cocotb.start_soon(Clock(dut.clk, PERIOD_NS, "ns").start())
    await Timer(3 * PERIOD_NS, "ns")
    dut.rst_n.value = 1
    cocotb.start_soon(line.listen())
    said = []
    for message, wait_cycles in job["messages"]:
        before = len(line.received)
        await line.send(bytes.fromhex(message))
        while True:
            silent = len(line.received)
            await Timer(line.bit_ns * 24 + PERIOD_NS * wait_cycles * (silent == before), "ns")
            if len(line.received) == silent:
                break
        said.append(bytes(line.received[before:]).hex())
    Path(os.environ["SERIAL_RESULT"]).write_text(json.dumps(said))


