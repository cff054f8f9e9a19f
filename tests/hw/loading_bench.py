"""Runs inside the simulator: a second network is loaded over AXI4-Lite, and the accelerator gives its scores.

What to play comes from the file that CONTROL_JOB names; `test_loading.job_of` writes it.
"""

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp
from control_bench import JOB, OFFSETS, Bench

test = cocotb.test(timeout_time=20, timeout_unit="ms")
FIRST, SECOND = JOB["networks"]


async def load(bench, network, n_writes=None):
    """Write what `cbnn load` says, or its first so many writes."""
    for offset, data in network["writes"][:n_writes]:
        await bench.write(offset, data.to_bytes(4, "little"))


async def play(bench, network):
    """Take results, and the cycles between the first beat of all and the last of each result."""
    begun, left = len(bench.model.begun), len(bench.model.results)
    bench.send(JOB["frames"])
    await bench.expect(network["results"])
    return [cycle - bench.model.begun[begun] for cycle, *_ in bench.model.results[left:]]


@test
async def it_gives_the_second_networks_scores_in_the_same_cycles(dut):
    bench = await Bench(dut).start()
    assert await bench.read("loadable_rows") == JOB["rows"]
    assert await play(bench, FIRST) == JOB["cycles"]
    for network, percent in ((SECOND, 0), (FIRST, 60)):
        bench.stall_bus(percent)
        await load(bench, network)
        await ClockCycles(dut.aclk, JOB["drain_cycles"])  # rows that no result needs
        assert await play(bench, network) == JOB["cycles"]
    bench.finish()


@test
async def images_inside_disturb_nothing_later(dut):
    """Loading is broken off while images move, and begun anew; stalls on both sides."""
    bench = await Bench(dut, 3).start()
    bench.stall_bus(30)
    bench.stall_streams(40)
    bench.send(JOB["frames"])
    await load(bench, SECOND, len(SECOND["writes"]) // 3)
    await load(bench, SECOND)
    for _ in JOB["frames"]:  # of these nothing is known
        await bench.sink.recv(compact=False)
    await ClockCycles(dut.aclk, JOB["drain_cycles"])
    await play(bench, SECOND)
    await bench.soft_reset()
    await ClockCycles(dut.aclk, 20)
    await play(bench, SECOND)
    bench.finish(1)


@test
async def parts_of_words_and_other_registers_load_nothing(dut):
    bench = await Bench(dut).start()
    data, row = OFFSETS["load_data"], OFFSETS["load_row"]
    for _ in range(JOB["row_writes"]):  # no bit as in the first row
        await bench.write(data, (~SECOND["writes"][0][1] & 0xFFFF_FFFF).to_bytes(4, "little"))
    for offset, content in ((row, bytes(3)), (row + 1, bytes(3)), (row + 4, bytes(4)), (row - 8, bytes(4)),
                            (row, JOB["no_memory"].to_bytes(4, "little"))):
        await bench.write(offset, content)
    for offset in (data, row):
        answer = await bench.host.read(offset, 4)
        assert (answer.resp, answer.data) == (AxiResp.OKAY, bytes(4))
    # The memories are as the test before has left them.
    await play(bench, SECOND)
    for offset, word in FIRST["writes"]:
        await bench.write(offset, word.to_bytes(4, "little"))
        if offset == data:
            await bench.write(data, (~word & 0xFFFF).to_bytes(2, "little"))
    await play(bench, FIRST)
    bench.finish()
