"""Runs inside the simulator: streams and AXI4-Lite at once, every read held against a model, cycle by cycle.

What to play comes from the file that CONTROL_JOB names; `test_control.job_of` writes it.
"""

import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)
from cocotbext.axi.axil_channels import AxiLiteAWTransaction, AxiLiteWTransaction

JOB = json.loads(Path(os.environ["CONTROL_JOB"]).read_text())
OFFSETS = {row["name"]: row["offset"] for row in JOB["registers"]}
CONSTANTS = {row["offset"]: row["reset_value"] for row in JOB["registers"] if row["constant"]}
COUNTED = ("images_in", "images_out", "malformed_frames", "last_class", "last_malformed", "interval", "latency")
RESET_CYCLES = 4
test = cocotb.test(timeout_time=100, timeout_unit="us")


class Model:
    """What every register shows, from what was seen on the streams; cycles count from the start of the simulation."""

    def __init__(self):
        self.begun, self.entered, self.results, self.first = [], [], [], True

    def word(self, offset, cycle):
        """Return what is read where the address is taken in this cycle."""
        if offset in CONSTANTS:
            return CONSTANTS[offset]
        shown = {OFFSETS[name]: value for name, value in self.counted(cycle).items()}
        return shown.get(offset, 0)

    def counted(self, cycle):
        settled = [(left, left - self.begun[i]) for i, (left, _, _) in enumerate(self.results) if left < cycle - 1]
        class_, malformed = self.results[-1][1:] if self.results else (0, 0)
        return {"images_in": len(self.entered), "images_out": len(self.results),
                "malformed_frames": sum(self.entered), "last_class": class_, "last_malformed": malformed,
                "latency": settled[-1][1] if settled else 0,
                "interval": settled[-1][0] - settled[-2][0] if len(settled) > 1 else 0}


class Bench:
    """Streams and bus of the accelerator, and a monitor of them."""

    def __init__(self, dut, seed=0):
        self.dut, self.draw = dut, random.Random(seed)
        self.model, self.cycle, self.most_in_flight = Model(), 0, 0
        self.reads, self.waiting = [], {}
        self.n_written = {"aw": 0, "w": 0, "b": 0}
        self.resets = []

    async def start(self):
        dut = self.dut
        Clock(dut.aclk, 10, unit="ns").start()
        dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 3)  # the sides take nothing that is not known
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.aclk, byte_lanes=1)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.aclk, byte_lanes=1)
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.aclk)
        await ClockCycles(dut.aclk, 2)
        dut.aresetn.value = 1
        await RisingEdge(dut.aclk)
        self.monitor = cocotb.start_soon(self.watch())
        return self

    def pauses(self, percent):
        while True:
            yield self.draw.randrange(100) < percent

    def stall_bus(self, percent):
        """Make the host slow on every channel."""
        for channel in (self.host.write_if.aw_channel, self.host.write_if.w_channel, self.host.write_if.b_channel,
                        self.host.read_if.ar_channel, self.host.read_if.r_channel):
            channel.set_pause_generator(self.pauses(percent))

    def stall_streams(self, percent):
        for side in (self.source, self.sink):
            side.set_pause_generator(self.pauses(percent))

    async def watch(self):
        """Check every cycle; what is sampled here is settled, and taken by the hardware at this edge."""
        while True:
            await RisingEdge(self.dut.aclk)
            self.cycle += 1
            self.watch_bus()
            self.watch_streams()

    def moved(self, channel):
        valid, ready = (int(getattr(self.dut, f"{channel}{end}").value) for end in ("valid", "ready"))
        return valid and ready

    def watch_bus(self):
        for channel in self.n_written:
            self.n_written[channel] += self.moved(f"s_axil_{channel}")
        assert self.n_written["b"] <= min(self.n_written["aw"], self.n_written["w"])
        if self.moved("s_axil_r"):
            offset, wanted = self.reads.pop(0)
            seen = int(self.dut.s_axil_rdata.value)
            assert seen == wanted, f"offset {offset:#x} reads {seen}, not {wanted}, in cycle {self.cycle}"
        if self.moved("s_axil_ar"):
            offset = int(self.dut.s_axil_araddr.value) // 4 * 4
            self.reads.append((offset, self.model.word(offset, self.cycle)))
        for channel, data in (("b", "bresp"), ("r", "rdata")):
            valid, ready = (int(getattr(self.dut, f"s_axil_{channel}{end}").value) for end in ("valid", "ready"))
            value = str(getattr(self.dut, f"s_axil_{data}").value)
            if channel in self.waiting:
                assert (valid, value) == (1, self.waiting[channel])
            self.waiting.pop(channel, None)
            if valid and not ready:
                self.waiting[channel] = value

    def watch_streams(self):
        dut, model = self.dut, self.model
        if int(dut.soft_reset.value):
            assert not int(dut.s_axis_tready.value)
            assert not int(dut.m_axis_tvalid.value)
            if not self.resets or self.resets[-1][1] != self.cycle - 1:
                self.resets.append([self.cycle, self.cycle])
            self.resets[-1][1] = self.cycle
            self.model = Model()
            return
        if self.moved("s_axis_t"):
            if model.first:
                model.begun.append(self.cycle)
                self.most_in_flight = max(self.most_in_flight, len(model.begun) - len(model.results))
            model.first = bool(int(dut.s_axis_tlast.value))
        if int(dut.image_end.value):
            model.entered.append(int(dut.damaged.value))
        if self.moved("m_axis_t") and int(dut.m_axis_tlast.value):
            class_ = int(dut.m_axis_tdata.value) >> JOB["class_shift"]
            model.results.append((self.cycle, class_, int(dut.m_axis_tuser.value)))

    def send(self, frames):
        for frame in frames:
            self.source.send_nowait(AxiStreamFrame([int(beat, 16) for beat in frame]))

    async def expect(self, results):
        """Take results; each is its beats and its mark."""
        for beats, mark in results:
            frame = await self.sink.recv(compact=False)
            assert list(frame.tdata) == [int(beat, 16) for beat in beats]
            assert list(frame.tuser) == [mark] * len(beats)
        await ClockCycles(self.dut.aclk, 60)
        assert self.sink.empty()

    async def read(self, name):
        answer = await self.host.read(OFFSETS[name], 4)
        assert answer.resp == AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    async def read_all(self):
        return {name: await self.read(name) for name in COUNTED}

    async def write(self, offset, data):
        assert (await self.host.write(offset, data)).resp == AxiResp.OKAY

    async def soft_reset(self):
        await self.write(OFFSETS["soft_reset"], b"\x01")

    async def traffic(self, n):
        """Read and write at random, several at once; nothing that is written acts."""
        tasks = []
        for _ in range(n):
            offset = self.draw.randrange(0, 128, 4)
            if self.draw.random() < 0.7:
                # Sometimes the host asks for a part of a word, which is at the same address.
                task = self.host.read(offset + self.draw.choice((0, 0, 0, 2)), 2)
            elif offset == OFFSETS["soft_reset"]:
                # All bytes but the lowest, or all bits but the lowest.
                task = self.host.write(*self.draw.choice(((offset + 1, b"\xff" * 3), (offset, b"\xfe" + b"\xff" * 3))))
            else:
                task = self.host.write(offset, self.draw.randbytes(4))
            tasks.append(cocotb.start_soon(task))
            if self.draw.random() < 0.4:
                assert (await tasks[-1]).resp == AxiResp.OKAY
        for task in tasks:
            assert (await task).resp == AxiResp.OKAY

    def finish(self, n_resets=0):
        """Check what was asked against what was answered, and the length of every soft reset."""
        assert self.reads == []
        assert len(set(self.n_written.values())) == 1
        assert [last - first + 1 for first, last in self.resets] == [RESET_CYCLES] * n_resets


@test
async def every_word_reads_as_the_table_says(dut):
    bench = await Bench(dut).start()
    for offset in range(0, 128, 4):
        answer = await bench.host.read(offset, 4)
        assert answer.resp == AxiResp.OKAY
        assert int.from_bytes(answer.data, "little") == CONSTANTS.get(offset, 0)
    assert CONSTANTS[OFFSETS["identity"]].to_bytes(4, "little") == b"cbnn"
    bench.finish()


@test
async def only_bit_0_of_a_byte_that_is_written_acts(dut):
    """Addresses and data come by themselves, data first, and responses are taken late."""
    bench = await Bench(dut).start()
    bus, offset = bench.host.write_if, OFFSETS["soft_reset"]
    writes = [(offset, 0xFFFF_FFFF, 0b1110), (offset, 0xFFFF_FFFF, 0), (offset, 0xFFFF_FFFE, 0b1111),
              (offset - 4, 1, 0b1111), (offset + 32, 1, 0b1111), (offset, 1, 0b0001)]
    for address, data, strobes in writes:
        assert bench.resets == []
        bus.b_channel.pause = True
        await bus.w_channel.send(AxiLiteWTransaction(wdata=data, wstrb=strobes))
        await ClockCycles(dut.aclk, 4)
        await bus.aw_channel.send(AxiLiteAWTransaction(awaddr=address, awprot=0))
        await ClockCycles(dut.aclk, 8)
        bus.b_channel.pause = False
        assert (await bus.b_channel.recv()).bresp == AxiResp.OKAY
    await ClockCycles(dut.aclk, 10)
    bench.finish(1)


@test
async def undisturbed_streams_take_the_cycles_predicted(dut):
    bench = await Bench(dut).start()
    free = JOB["free"]
    bench.send(free["frames"][:1])
    await bench.expect(free["results"][:1])
    assert await bench.read("latency") == await bench.read("predicted_latency") == JOB["predicted"]["latency_cycles"]
    assert await bench.read("interval") == 0
    bench.send(free["frames"])
    traffic = cocotb.start_soon(bench.traffic(100))
    await bench.expect(free["results"])
    await traffic
    assert await bench.read("interval") == await bench.read("predicted_interval") == JOB["predicted"]["interval_cycles"]
    assert await bench.read("latency") == free["last_latency"]
    assert await bench.read("images_in") == await bench.read("images_out") == len(free["frames"]) + 1
    bench.finish()


@test
@cocotb.parametrize(percent=(30, 70))
async def registers_are_exact_under_stalls_and_malformed_frames(dut, percent):
    bench = await Bench(dut, percent).start()
    stalled = JOB["stalled"]
    bench.stall_bus(percent)
    bench.sink.pause = True
    bench.send(stalled["frames"])
    traffic = cocotb.start_soon(bench.traffic(200))
    await ClockCycles(dut.aclk, JOB["fill_cycles"])
    bench.stall_streams(percent)
    await bench.expect(stalled["results"])
    await traffic
    shown, n_frames = await bench.read_all(), len(stalled["frames"])
    assert shown["images_in"] == shown["images_out"] == n_frames
    assert shown["malformed_frames"] == sum(mark for _, mark in stalled["results"])
    assert shown["last_malformed"] == stalled["results"][-1][1]
    assert shown["last_class"] == int(stalled["results"][-1][0][-1], 16) >> JOB["class_shift"]
    assert bench.most_in_flight >= JOB["in_flight"]
    bench.finish()


@test
async def a_soft_reset_leaves_nothing_behind(dut):
    """In the middle of an image, and of a result that the host does not take."""
    bench = await Bench(dut).start()
    free, n_resets = JOB["free"], 0
    for in_result in (False, True):
        bench.sink.pause = in_result
        bench.send(free["frames"][:3])
        while not (int(dut.m_axis_tvalid.value) if in_result else len(bench.model.begun) == 2):
            await RisingEdge(dut.aclk)
        bench.source.pause = not in_result
        if in_result:  # its first beat leaves
            bench.sink.pause = False
            await RisingEdge(dut.aclk)
            bench.sink.pause = True
        traffic = cocotb.start_soon(bench.traffic(10))
        await bench.soft_reset()
        await traffic
        for side in (bench.source, bench.sink):
            side.clear()
            side.assert_reset()
            side.pause = False
        await bench.soft_reset()
        n_resets += 2
        await ClockCycles(dut.aclk, 60)
        assert set((await bench.read_all()).values()) == {0}
        bench.send(free["frames"][:4])
        await bench.expect(free["results"][:4])
        shown = await bench.read_all()
        assert (shown["images_in"], shown["images_out"], shown["malformed_frames"]) == (4, 4, 0)
    bench.finish(n_resets)


@test
async def what_is_left_of_a_frame_after_a_soft_reset_is_malformed(dut):
    """The source goes on where it was."""
    bench = await Bench(dut).start()
    bench.send([JOB["long"]])
    while len(bench.model.begun) == 0:
        await RisingEdge(dut.aclk)
    bench.source.pause = True
    await bench.soft_reset()
    bench.source.pause = False
    bench.send(JOB["free"]["frames"][:3])
    frame = await bench.sink.recv(compact=False)
    assert set(frame.tuser) == {1}
    await bench.expect(JOB["free"]["results"][:3])
    assert await bench.read("malformed_frames") == 1
    bench.finish(1)
