"""The accelerator on a serial line: classes and cycles, and what disturbances do."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from cocotb_tools.runner import get_runner

from cbnn.hw.accelerator import accelerator
from cbnn.hw.boards.serial_top import write_serial
from cbnn.hw.boards.shell import END, ESCAPE
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.board.protocol import Frames, answer, request
from cbnn.sim.predict.dataflow import simulate

N_FRAMES = int(os.environ.get("CBNN_FRAMES", "40"))
"""Frames that are disturbed; as many follow that are not."""
NETWORKS = {
    # Beats of one byte, an image of one beat, and wide ones; a class of two bytes.
    "narrow": ("4x4x1u2-3C3-5FC", "(1,2)(1,3)", 8),
    "one beat": ("2x3x1u2-4FC-3FC", "(4,12)(1,4)", 12),
    "wide": ("4x4x1u5-3C3-130FC", "(3,45)(26,6)", 80),
}


def unit_of(name):
    text, folding, width = NETWORKS[name]
    topology = Topology.parse(text)
    network = random_network(topology, 2)
    return network, accelerator(network, Folding.parse(folding, topology, width), "net")


def image_bytes(unit, images):
    n_bytes, n = (unit.folding.input_width + 7) // 8, unit.input_beats
    beats = [beat.to_bytes(n_bytes, "little") for beat in input_beats(unit, images)]
    return [b"".join(beats[i * n : (i + 1) * n]) for i in range(len(images))]


def played(unit, messages, folder, monkeypatch, divider=4):
    """Send messages, each with how often it plays its image, one after the other; return what is said after each."""
    rtl, work = folder / "rtl", folder / "work"
    rtl.mkdir()
    files, mems = write_serial(unit, divider, rtl)
    runner, latency = get_runner("icarus"), simulate(unit, 1).latency_cycles
    runner.build(sources=[rtl / file for file in files], hdl_toplevel="net_serial", build_dir=work,
                 build_args=["-g2012", "-Wall"], timescale=("1ns", "1ps"))
    for mem in mems:
        (work / mem).write_bytes((rtl / mem).read_bytes())
    (folder / "job.json").write_text(json.dumps({
        "divider": divider, "messages": [(message.hex(), latency + repeats * unit.interval_cycles + 40 * divider)
                                         for message, repeats in messages]}))
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runner.test(test_module="serial_bench", hdl_toplevel="net_serial", hdl_toplevel_lang="verilog", build_dir=work,
                test_dir=work, log_file=folder / "log", results_xml=str(folder / "results.xml"),
                extra_env={"SERIAL_JOB": str(folder / "job.json"), "SERIAL_RESULT": str(folder / "result.json"),
                           "COCOTB_LOG_LEVEL": "WARNING", "COCOTB_REWRITE_ASSERTION_FILES": ""})
    return [bytes.fromhex(said) for said in json.loads((folder / "result.json").read_text())]


def answers(said, unit):
    return [answer(content, unit.classify.class_lane // 8) for content in Frames().feed(said)]


@pytest.mark.parametrize(("name", "divider"), [
    ("narrow", 4), ("one beat", 5), pytest.param("wide", 9, marks=pytest.mark.slow(14))])
def test_classes_and_cycles_are_as_predicted(tmp_path, monkeypatch, name, divider):
    network, unit = unit_of(name)
    images = np.random.default_rng(3).integers(0, network.n_pixel_values, (4, *network.topology.in_shape), np.uint16)
    images[1] = 0b1100 % network.n_pixel_values  # bytes that are escaped, in some of the networks
    repeats = [1, 2, 4, 1]
    messages = [(request(255 - i, image, n), n) for i, (image, n) in
                enumerate(zip(image_bytes(unit, images), repeats, strict=True))]
    classes = golden.scores(network, images).argmax(axis=1)
    for i, (said, n) in enumerate(zip(played(unit, messages, tmp_path, monkeypatch, divider), repeats, strict=True)):
        trace = simulate(unit, n)
        ends = trace.taken(-1)[unit.m_axis.beats - 1 :: unit.m_axis.beats]
        assert answers(said, unit) == [(255 - i, 0, classes[i], ends[0] - trace.entered[0],
                                        ends[-1] - ends[-2] if n > 1 else 0)]


def test_a_request_whose_end_is_lost_is_answered_and_so_is_the_next(tmp_path, monkeypatch):
    network, unit = unit_of("one beat")
    images = np.random.default_rng(5).integers(0, network.n_pixel_values, (2, *network.topology.in_shape), np.uint16)
    classes = golden.scores(network, images).argmax(axis=1)
    first, second = (request(1 + i, image) for i, image in enumerate(image_bytes(unit, images)))
    said = played(unit, [(first[:-1], 1), (second, 1)], tmp_path, monkeypatch)
    assert [[(found.number, found.damaged_frames, found.class_) for found in answers(one, unit)] for one in said] \
        == [[(1, 0, classes[0])], [(2, 0, classes[1])]]


def disturbed(frame, draw):
    """Flip, lose, double or add bytes."""
    octets = bytearray(frame)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(octets))
        kind = draw.randrange(4)
        if kind == 0:
            octets[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and len(octets) > 1:
            del octets[at]
        elif kind == 2:
            octets.insert(at, octets[at])
        else:
            octets[at:at] = bytes(draw.choice([END, ESCAPE, draw.randrange(256)]) for _ in range(draw.randrange(1, 30)))
    return bytes(octets)


@pytest.mark.slow(15)
def test_no_disturbed_frame_gives_a_wrong_class_and_the_next_one_works(tmp_path, monkeypatch):
    network, unit = unit_of("one beat")
    draw, n = random.Random(7), N_FRAMES
    images = np.random.default_rng(4).integers(0, network.n_pixel_values, (n, *network.topology.in_shape), np.uint16)
    classes = golden.scores(network, images).argmax(axis=1)
    messages = []
    for i, image in enumerate(image_bytes(unit, images)):
        messages += [(disturbed(request(1 + i % 100, image), draw), 1), (request(101 + i % 100, image), 1)]
    said = played(unit, messages, tmp_path, monkeypatch)
    heard, damaged = 0, 0
    for i in range(n):
        for found in answers(said[2 * i], unit):  # it may not have been hurt, as by a doubled END
            assert (found.number, found.class_) == (1 + i % 100, classes[i])
            heard += 1
        found, = answers(said[2 * i + 1], unit)
        assert (found.number, found.class_) == (101 + i % 100, classes[i])
        damaged += (found.damaged_frames - damaged) % 256
    assert heard < n // 4
    assert damaged >= n - heard
