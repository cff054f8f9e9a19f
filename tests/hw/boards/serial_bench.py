"""Played inside the simulator: sends bytes on the serial line, or bits that are none, and notes what comes back."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer

PERIOD_NS = 10


class Line:
    """Both ends of the line."""

    def __init__(self, dut, divider: int) -> None:
        self.dut, self.bit_ns = dut, PERIOD_NS * divider
        self.received: list[int] = []

    async def send(self, octets) -> None:
        for octet in octets:
            for bit in (0, *(octet >> i & 1 for i in range(8)), 1):
                self.dut.rx.value = bit
                await Timer(self.bit_ns, "ns")

    async def listen(self) -> None:
        while True:
            await FallingEdge(self.dut.tx)
            await Timer(self.bit_ns // 2, "ns")
            assert self.dut.tx.value == 0
            octet = 0
            for i in range(8):
                await Timer(self.bit_ns, "ns")
                octet |= int(self.dut.tx.value) << i
            await Timer(self.bit_ns, "ns")
            assert self.dut.tx.value == 1
            self.received.append(octet)


@cocotb.test()
async def play(dut) -> None:
    """Send each message of the job, wait until the board has been silent for some time, note what it said."""
    job = json.loads(Path(os.environ["SERIAL_JOB"]).read_text())
    line = Line(dut, job["divider"])
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


