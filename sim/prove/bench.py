"""The generic test bench, run by cocotb inside the simulator: it serves every kernel and the whole accelerator.

It drives the clock itself: inputs change while the clock is low, everything is sampled just before
it rises, and so the bench behaves alike in every simulator. For the same reason it may write at once
(`Immediate`), which saves cocotb a phase of every step of time. What to do comes from the job file
named by CBNN_JOB (see `cosim.Job`), what was seen goes to the file named by CBNN_RESULT.
"""

import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.handle import Immediate
from cocotb.triggers import Timer
from cocotb.types import Logic

HALF_PERIOD_NS = 5
LEVELS = Immediate(Logic(0)), Immediate(Logic(1))


class Link:
    """One AXI4-Stream link, watched for breaches of the protocol."""

    def __init__(self, dut, name: str) -> None:
        self.name = name
        self.data, self.valid, self.ready, self.last = (
            getattr(dut, f"{name}_{signal}") for signal in ("tdata", "tvalid", "tready", "tlast"))
        self.user = getattr(dut, f"{name}_tuser", None)
        self.waiting: tuple | None = None
        self.taken = False

    def beat(self) -> tuple:
        """Return what stays as it is while a beat waits."""
        return self.data.value, self.last.value, self.user.value if self.user is not None else None

    def watch(self, cycle: int) -> str | None:
        """Sample the link, once per cycle; return what breaks the rule that a beat offered stays until it is taken.

        `taken` says afterwards whether a beat passes in this cycle.
        """
        offered = bool(self.valid.value)
        self.taken = offered and bool(self.ready.value)
        waited, self.waiting = self.waiting, None
        if waited is None and (self.taken or not offered):
            return None
        beat = self.beat() if offered else None
        if waited is not None and beat != waited:
            return f"{self.name}: a beat offered and not taken was {'changed' if offered else 'withdrawn'} " \
                   f"in cycle {cycle}"
        if not self.taken:
            self.waiting = beat
        return None


class Stalls:
    """Seeded random idling: high in about `percent` of the cycles."""

    def __init__(self, percent: int, seed: int) -> None:
        self.percent, self.draw = percent, random.Random(seed)

    def next(self) -> bool:
        """Draw for one cycle."""
        return self.percent > 0 and self.draw.randrange(100) < self.percent


class Bench:
    """Plays the runs of a job, one after another, each after a reset."""

    def __init__(self, dut, job: dict) -> None:
        self.dut, self.job, self.parent = dut, job, os.getppid()
        self.clock, self.reset = getattr(dut, job["clock"]), getattr(dut, job["reset"])
        self.source, self.sink = Link(dut, "s_axis"), Link(dut, "m_axis")
        self.links = [self.source, self.sink, *(Link(dut, name) for name in job["watch"])]
        self.busy = [self._find(path) for path in job["busy"]]
        self.frame_errors = getattr(dut, "frame_errors", None)
        self.half_period = Timer(HALF_PERIOD_NS, unit="ns")

    def _find(self, path: str):
        handle = self.dut
        for name in path.split("."):
            handle = getattr(handle, name)
        return handle

    async def rise(self) -> None:
        """Let a rising edge pass; everything is settled before and after it."""
        self.clock.value = LEVELS[1]
        await self.half_period
        self.clock.value = LEVELS[0]

    async def restart(self) -> None:
        """Reset for three cycles with nothing offered."""
        for handle in (self.source.valid, self.source.last, self.source.data, self.sink.ready):
            handle.value = Immediate(0)
        self.reset.value = LEVELS[self.job["reset_level"]]
        for _ in range(3):
            await self.half_period
            await self.rise()
        self.reset.value = LEVELS[1 - self.job["reset_level"]]
        for link in self.links:
            link.waiting = None

    async def play(self, run: dict) -> dict:
        """Offer the run's beats and take its results; restart once in the middle where the run asks for it."""
        await self.restart()
        if run["reset_after"] is not None:
            await self._transfer(run, stop_after=run["reset_after"])
            await self.restart()
        return await self._transfer(run, stop_after=None)

    async def _transfer(self, run: dict, stop_after: int | None) -> dict:
        beats, lasts = [int(beat, 16) for beat in run["beats"]], run["lasts"]
        idle, stall = Stalls(run["idle_percent"], run["seed"]), Stalls(run["stall_percent"], run["seed"] + 1)
        seen: dict = {"in_cycles": [], "out_cycles": [], "out_beats": [], "out_last": [],
                      "out_user": [], "breaches": [], "busy": [0] * len(self.busy)}
        sent, offered, cycle = 0, False, 0
        while (len(seen["out_beats"]) < run["n_out"] or cycle <= seen["out_cycles"][-1] + run["drain_cycles"]) and (
                stop_after is None or sent < stop_after):
            if cycle >= run["max_cycles"]:
                seen["hung"] = f"{sent} of {len(beats)} beats in, {len(seen['out_beats'])} of {run['n_out']} out"
                return seen
            if not offered and sent < len(beats) and not idle.next():
                offered = True
                self.source.data.value = Immediate(beats[sent])
                self.source.last.value = LEVELS[lasts[sent]]
                self.source.valid.value = LEVELS[1]
            if os.getppid() != self.parent:  # whoever started the simulator was killed
                os._exit(1)
            self.sink.ready.value = LEVELS[not stall.next()]
            await self.half_period
            seen["breaches"] += [breach for link in self.links if (breach := link.watch(cycle))]
            for i, handle in enumerate(self.busy):
                seen["busy"][i] += int(handle.value)
            if self.source.taken:
                seen["in_cycles"].append(cycle)
                sent += 1
            if self.sink.taken:
                seen["out_cycles"].append(cycle)
                data = self.sink.data.value
                # What is not known equals no prediction.
                seen["out_beats"].append(format(int(data), "x") if data.is_resolvable else "-1")
                seen["out_last"].append(bool(self.sink.last.value))
                if self.sink.user is not None:
                    seen["out_user"].append(str(self.sink.user.value) != "0")
            await self.rise()
            if self.source.taken:
                offered = False
                self.source.valid.value = LEVELS[0]
            cycle += 1
        errors = self.frame_errors
        seen["frame_errors"] = int(errors.value) if errors is not None else None
        return seen


@cocotb.test()
async def play_job(dut) -> None:
    """Play every run of the job and write what was seen."""
    bench = Bench(dut, json.loads(Path(os.environ["CBNN_JOB"]).read_text()))
    results = []
    await bench.half_period  # what is written before anything ran would be lost
    bench.clock.value = LEVELS[0]
    for run in bench.job["runs"]:
        results.append(await bench.play(run))
        Path(os.environ["CBNN_RESULT"]).write_text(json.dumps(results))
