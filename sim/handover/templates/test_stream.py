"""Plays images on the accelerator and compares every result, and the cycle in which it comes. Run it with make.

The test drives the clock itself: inputs change while it is low, and all is looked at just before it rises. So it
does the same in every simulator.
"""

import json
import random
from pathlib import Path

import cocotb
from cocotb.triggers import Timer

HERE = Path(__file__).parent
MANIFEST = json.loads((HERE.parent / "manifest.json").read_text())
VECTORS = json.loads((HERE / "vectors.json").read_text())
REGISTERS = {register["name"]: register["offset"] for register in MANIFEST.get("registers", [])}
BEATS = VECTORS["beats_per_image"]
IMAGES = [[int(beat, 16) for beat in image["beats"]] for image in VECTORS["images"]]
RESULTS = [[int(beat, 16) for beat in image["result"]] for image in VECTORS["images"]]
CYCLES = [image["result_cycles"] for image in VECTORS["images"]]
N_RESULT = len(RESULTS[0])
HOLD = VECTORS["hold_cycles"]
"""Cycles in which everything inside fills up."""


async def clock_cycle(dut):
    """Give one rising edge to what is driven now."""
    dut.aclk.value = 1
    await Timer(5, "ns")
    dut.aclk.value = 0


async def reset(dut):
    """Hold aresetn low for one cycle, with nothing offered."""
    dut.aclk.value = dut.aresetn.value = 0
    dut.s_axis_tvalid.value = dut.s_axis_tdata.value = dut.s_axis_tlast.value = dut.m_axis_tready.value = 0
    if REGISTERS:
        dut.s_axil_awvalid.value = dut.s_axil_wvalid.value = dut.s_axil_bready.value = 0
        dut.s_axil_arvalid.value = dut.s_axil_rready.value = 0
    await Timer(5, "ns")
    await clock_cycle(dut)
    dut.aresetn.value = 1


async def play(dut, frames, idle=0, stall=0, holds=(), stop_after=None):
    """Send frames, a list of beats each; return one (cycle, tdata, tlast, tuser) per beat of every result.

    Cycles count from the one in which the first beat is taken. The source idles and the sink stalls in so many
    percent of the cycles. Where so many beats have come as `holds` says, the sink takes nothing for HOLD cycles. With
    stop_after it returns when so many beats are taken.
    """
    beats = [(beat, i == len(frame) - 1) for frame in frames for i, beat in enumerate(frame)]
    seen, sent, offered, first, cycle, patience, held = [], 0, False, None, 0, 0, 0
    chance = random.Random(1)
    while len(seen) < len(frames) * N_RESULT and (stop_after is None or sent < stop_after):
        if not offered and sent < len(beats) and chance.randrange(100) >= idle:
            offered = True
            dut.s_axis_tdata.value, dut.s_axis_tlast.value = beats[sent]
        dut.s_axis_tvalid.value = offered
        held = 0 if len(seen) not in holds else held + 1
        dut.m_axis_tready.value = chance.randrange(100) >= stall and not 0 < held <= HOLD
        await Timer(5, "ns")
        patience += 1
        if offered and dut.s_axis_tready.value:
            first = cycle if first is None else first
            sent, offered, patience = sent + 1, False, 0
        if dut.m_axis_tvalid.value and dut.m_axis_tready.value:
            seen.append((cycle - first, int(dut.m_axis_tdata.value), int(dut.m_axis_tlast.value),
                         int(dut.m_axis_tuser.value)))
            patience = 0
        assert patience < VECTORS["patience_cycles"], f"nothing moves; {sent} beats sent, {len(seen)} received"
        await clock_cycle(dut)
        cycle += 1
    dut.s_axis_tvalid.value = 0
    return seen


def check(seen, images, marked=()):
    """Compare results with those of these images; None stands for an image that is unknown. Some are marked."""
    assert len(seen) == len(images) * N_RESULT
    for place, image in enumerate(images):
        for i in range(N_RESULT):
            _, data, last, user = seen[place * N_RESULT + i]
            if image is not None:
                wanted = RESULTS[image][i]
                assert data == wanted, f"result {place}, beat {i}: {data:#x}, but {wanted:#x} is expected"
            assert last == (i == N_RESULT - 1), f"result {place}, beat {i}: tlast"
            assert user == (place in marked), f"result {place}, beat {i}: tuser"


async def read(dut, name):
    """Return what a register holds."""
    dut.s_axil_araddr.value, dut.s_axil_arprot.value = REGISTERS[name], 0
    dut.s_axil_arvalid.value = dut.s_axil_rready.value = 1
    for _ in range(20):
        await Timer(5, "ns")
        asked = dut.s_axil_arvalid.value and dut.s_axil_arready.value
        data = int(dut.s_axil_rdata.value) if dut.s_axil_rvalid.value else None
        await clock_cycle(dut)
        if asked:
            dut.s_axil_arvalid.value = 0
        if data is not None:
            dut.s_axil_rready.value = 0
            return data
    raise AssertionError(f"{name} cannot be read")


@cocotb.test()
async def free_running(dut):
    """Play image after image: results, and the cycle of each of their beats, are as predicted."""
    await reset(dut)
    seen = await play(dut, IMAGES)
    check(seen, range(len(IMAGES)))
    measured = [cycle for cycle, *_ in seen]
    assert measured == [cycle for image in CYCLES for cycle in image], measured
    if REGISTERS:
        assert await read(dut, "images_out") == len(IMAGES)
        assert await read(dut, "interval") == measured[-1] - measured[-1 - N_RESULT]
        assert await read(dut, "last_class") == VECTORS["images"][-1]["class"]
    cocotb.log.info(f"latency {measured[N_RESULT - 1]} cycles, interval {measured[-1] - measured[-1 - N_RESULT]}")


@cocotb.test()
async def idles_and_stalls(dut):
    """Give the same results when source and sink are often not ready, and when the sink is not for long."""
    await reset(dut)
    holds = {0, N_RESULT + 1, len(IMAGES) * N_RESULT // 2}
    check(await play(dut, IMAGES, idle=40, stall=40, holds=holds), range(len(IMAGES)))


@cocotb.test()
async def malformed_frames(dut):
    """Mark the results of a frame that is too short and of one that is too long; all others are exact."""
    await reset(dut)
    frames, images, marked = [IMAGES[0]], [0], []
    if BEATS > 1:
        marked.append(len(frames))
        frames.append(IMAGES[1][:-1])
        images.append(None)
    frames.append(IMAGES[2])
    images.append(2)
    marked.append(len(frames))
    frames.append(IMAGES[1] + IMAGES[1][:1])  # cut after the beats of an image
    images.append(1)
    frames.append(IMAGES[3])
    images.append(3)
    check(await play(dut, frames), images, marked)
    assert int(dut.frame_errors.value) == len(marked)
    assert not REGISTERS or await read(dut, "malformed_frames") == len(marked)


@cocotb.test()
async def reset_in_mid_image(dut):
    """Forget what was under way."""
    await reset(dut)
    await play(dut, IMAGES, stop_after=BEATS + BEATS // 2 + 1)
    await reset(dut)
    check(await play(dut, IMAGES[1:3]), [1, 2])
    assert int(dut.frame_errors.value) == 0
