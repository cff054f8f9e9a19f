"""What is written to load a network: the same memories as if the hardware had been generated from it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.verilog import MANIFEST
from cbnn.model.exchange import storage
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.handover import loading
from cbnn.sim.handover.folder import hand_over

SMALL = "4x4x1u2-3C3-2FC", "(1,9)(1,3)"


def network_of(text, seed, by_place=False):
    topology = Topology.parse(text)
    network = random_network(topology, seed, by_place)
    layers = list(network.parameters)
    layers[-1] = replace(layers[-1], offsets=np.clip(layers[-1].offsets, None, topology.shapes[-1].max_accumulator - 1))
    return replace(network, parameters=tuple(layers))


def given(folder, network, folding, style="auto", whole_bytes=False, writable=True):
    """Generate the folder of a network."""
    folded = Folding.parse(folding, network.topology, whole_bytes=whole_bytes)
    folded = replace(folded, layers=tuple(replace(layer, ram_style=style) for layer in folded.layers))
    unit = accelerator(network, folded, "net", writable=writable)
    images = np.zeros((4, *network.topology.in_shape), np.uint16)
    hand_over(network, unit, images, "black", folder, control=True)
    return folder


def memories_after(writes, folder):
    """Play writes on rows, as the hardware takes them; return the text of the .mem files."""
    manifest = json.loads((folder / MANIFEST).read_text())
    load, shifted, memories = manifest["load"], 0, {}
    for offset, data in writes:
        if offset == load["data_offset"]:
            shifted = shifted << 32 | data
        else:
            assert offset == load["row_offset"]
            memories[divmod(data, 1 << load["memory_shift"])] = shifted
    shapes = [(folder / "rtl" / f"{memory['name']}.mem").read_text().split("\n") for memory in load["memories"]]
    assert set(memories) == {(i, row) for i, rows in enumerate(shapes) for row in range(len(rows) - 1)}
    return {memory["name"]: "".join(
        f"{memories[i, row] & (1 << memory['row_bits']) - 1:0{(memory['row_bits'] + 3) // 4}x}\n"
        for row in range(memory["rows"])) for i, memory in enumerate(load["memories"])}


@pytest.mark.parametrize(("text", "folding", "style", "whole_bytes"), [
    ("6x6x2u4w:3,1-4C3-MP2-6C3P0-5FC", "(2,6)(3,4)(1,3)", "auto", False),
    ("5x4x3u8:7,6-4C3-6FC", "(2,6)(3,4)", "block", True),
    ("6x6x1u2-4C3-MP2-5FC", "(4,18,2)(5,2)", "distributed", False),
    ("4x4x1u2-12FC-6FC", "(12,32)(6,12)", "auto", False),
    ("103x30x1u1-4FC", "(1,6)", "block", False),  # several words in a row of block RAM
])
@pytest.mark.parametrize("by_place", [False, True])
def test_memories_become_those_of_the_network(tmp_path, text, folding, style, whole_bytes, by_place):
    first, second = (network_of(text, seed, by_place) for seed in (1, 2))
    folder = given(tmp_path / "first", first, folding, style, whole_bytes)
    other = given(tmp_path / "second", second, folding, style, whole_bytes)
    loaded = memories_after(loading.writes(second, folder), folder)
    assert loaded == {path.stem: path.read_text() for path in (other / "rtl").glob("*.mem")}
    assert loaded != {path.stem: path.read_text() for path in (folder / "rtl").glob("*.mem")}
    for file in (folder / "rtl").glob("*.v"):  # nothing but memories depends on the network
        assert file.read_text() == (other / "rtl" / file.name).read_text()


def test_thresholds_that_all_places_share_are_written_to_every_place(tmp_path):
    folder = given(tmp_path / "net", network_of("5x5x1u1-2C3-2FC", 1, by_place=True), "(1,9)(1,2)")
    shared = network_of("5x5x1u1-2C3-2FC", 2)
    own = shared.parameters[0]
    spread = replace(own, thresholds=np.tile(own.thresholds, (9, 1)))
    by_place = replace(shared, parameters=(spread, *shared.parameters[1:]))
    assert loading.writes(shared, folder) == loading.writes(by_place, folder)


def test_what_cannot_be_loaded_is_refused(tmp_path):
    folder = given(tmp_path / "net", network_of(SMALL[0], 1), SMALL[1])
    for other, sentence in (
            (network_of("4x4x1u2-3C3-3FC", 1),
             r"^the network is 4x4x1u2-3C3-3FC; the accelerator of .*net is 4x4x1u2-3C3-2FC$"),
            (network_of(SMALL[0], 1, by_place=True),
             r"^the network's thresholds differ at the border of the image, and net_mvtu0_starts of .*net has no room"),
            (replace(network_of(SMALL[0], 1), pixel_table=np.array([0, 3]), max_pixel=1),
             r"^the network's pixel lookup table is not that of .*net, whose packers look pixels up$")):
        with pytest.raises(ValueError, match=sentence):
            loading.writes(other, folder)
    fixed = given(tmp_path / "fixed", network_of(SMALL[0], 1), SMALL[1], writable=False)
    with pytest.raises(ValueError, match=r"^nothing can be loaded into the accelerator of .*fixed; cbnn gene"):
        loading.writes(network_of(SMALL[0], 2), fixed)


def test_a_manifest_that_is_damaged_is_refused(tmp_path):
    network = network_of(SMALL[0], 1)
    folder = given(tmp_path / "net", network, SMALL[1])
    content = json.loads((folder / MANIFEST).read_text())
    content["load"]["memories"][0]["word_bits"] += 1
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^the memories of .*net are not those of this version of cbnn; gen"):
        loading.writes(network, folder)
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json: its JSON is wrong: "):
        loading.writes(network, folder)


def test_offsets_beyond_those_of_any_use_are_refused(tmp_path):
    network = network_of(SMALL[0], 1)
    last = replace(network.parameters[-1], offsets=np.array([-49, 0]))
    with pytest.raises(ValueError, match=r"^class offsets span -49 to 0; where they are writable they must be -48 to "):
        given(tmp_path / "net", replace(network, parameters=(*network.parameters[:-1], last)), SMALL[1])


def test_the_command_writes_what_the_page_says(cbnn, tmp_path):
    words = ("generate", "digits-1", "--folding", "auto:2000", "--out", tmp_path / "net", "--writable")
    code, _, err = cbnn(*words)
    assert (code, err.splitlines()[-1]) == (2, "cbnn: --writable needs --control, over whose registers a host writes")
    assert cbnn(*words, "--control")[0] == 0
    network = network_of("8x8x1u5:3-16C3-16C3-MP2-32C3-MP2-64FC-10FC", 5)
    storage.save(network, tmp_path / "other.npz")
    code, out, err = cbnn("load", tmp_path / "other.npz", "--folder", tmp_path / "net", "--out", tmp_path / "load.txt")
    assert (code, out) == (0, f"{tmp_path / 'load.txt'}\n")
    page, lines = (tmp_path / "net" / "README.md").read_text(), (tmp_path / "load.txt").read_text().splitlines()
    assert f"({len(lines):,} lines)" in page
    pairs = [tuple(int(word, 16) for word in line.split()) for line in lines]
    assert pairs == loading.writes(network, tmp_path / "net")
    header = (tmp_path / "net" / "host" / "registers.h").read_text()
    for name in ("LOAD_DATA_OFFSET 0x60u", "LOAD_ROW_OFFSET 0x64u", "LOAD_HASH_VALUE 0x"):
        assert f"#define CBNN_{name}" in header
    assert cbnn("load", tmp_path / "other.npz", "--folder", tmp_path / "net", "--out", tmp_path / "load.txt")[0] == 0
    before = (tmp_path / "other.npz").read_bytes()
    code, out, err = cbnn("load", tmp_path / "other.npz", "--folder", tmp_path / "net", "--out", tmp_path / "other.npz")
    assert (code, out) == (2, "")
    assert err == f"cbnn: {tmp_path / 'other.npz'} is there already, and is no file of cbnn load\n"
    assert (tmp_path / "other.npz").read_bytes() == before
    code, _, err = cbnn("load", "digits-2", "--folder", tmp_path / "net", "--out", tmp_path / "no")
    assert (code, err.count("\n")) == (2, 1)
    _, _, err = cbnn("load", "digits-1", "--folder", tmp_path, "--out", tmp_path / "no")
    assert err == f"cbnn: {tmp_path}/manifest.json cannot be read: No such file or directory\n"
    assert not (tmp_path / "no").exists()
