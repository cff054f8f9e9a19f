"""Whole networks: the scores of the golden model, one image per slowest kernel's interval."""

import re
from dataclasses import replace

import numpy as np
import pytest
from myhdl import Simulation, always, delay, instance

from cbnn.hw.accelerator import accelerator, blocks_of, chain
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.stream import OUTSIDE, Link, Stream, clock_and_reset
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

N_IMAGES = 6


def network_and_unit(text, in_shape, bits, kept, first_layer, folding, input_width=None, by_place=False,
                     whole_bytes=False, class_only=False):
    topology = Topology.parse(text, in_shape, bits, kept, first_layer)
    network = random_network(topology, 5, by_place)
    return network, accelerator(network, Folding.parse(folding, topology, input_width, whole_bytes), "chain",
                                class_only=class_only)


def random_images(network, n):
    topology = network.topology
    return np.random.default_rng(n).integers(0, 1 << topology.input_bits, (n, *topology.in_shape))


@pytest.mark.parametrize("description", [
    ("4C3-MP2-6C3-8FC-5FC", (6, 6, 1), 4, (3, 2, 0), "sliced", "(2,9)(2,4)(4,6)(5,4)"),
    ("4C3S2P0-6C1-4FC", (7, 7, 3), 5, (4, 3, 1), "weighted", "(4,9)(3,2)(2,18)"),
    ("3C2P1B1-MP3-5FC", (6, 5, 2), 3, None, "sliced", "(3,4)(1,3)"),
    ("6FC-9FC-4FC", (3, 3, 2), 3, (2, 0), "weighted", "(3,6)(3,2)(2,3)"),
    ("7FC", (2, 3, 1), 4, None, "sliced", "(7,6)"),
    ("7FC", (3, 2, 1), 4, (3,), "weighted", "(1,1)", 2),
    ("6C3-10C3P0-3FC", (4, 4, 1), 1, None, "sliced", "(6,3)(5,54)(1,20)", 8),
    ("8FC-6FC-3FC", (4, 4, 1), 1, None, "sliced", "(8,16)(6,8)(3,6)", 16),
    ("4C3-MP2-6C3-8FC-5FC", (6, 6, 1), 4, (3, 2, 0), "sliced", "(2,9)(2,4)(4,6)(5,4)", None, True),
    ("3C5P2-MP2-6C1-4C3S2P2-4FC", (7, 5, 3), 3, (2, 1), "weighted", "(1,15)(6,3)(2,18)(2,12)", None, True),
    ("4C3P2B1-2C2P1-5FC", (1, 4, 2), 1, None, "sliced", "(4,18)(1,8)(1,4)", None, True),
    # Slices side by side: all of them, in pairs, with weights of their own and shared ones.
    ("4C3-MP2-6C3-5FC", (6, 6, 1), 4, (3, 2, 0), "sliced", "(2,27)(2,4)(5,6)"),
    ("4C3P0-5FC", (5, 6, 2), 4, None, "weighted", "(2,36)(5,4)", None, True),
    ("4C3-3FC", (4, 4, 3), 8, None, "weighted", "(4,24)(3,4)", None, True),
    ("5FC-4FC", (4, 3, 1), 4, None, "weighted", "(5,24)(2,5)"),
    # Several windows at once, with thresholds by place, and pools of as many, fewer and more pixels.
    ("3C3-MP2-4C3-5FC", (6, 8, 2), 2, None, "sliced", "(3,36,4)(4,27,2)(5,4)", None, True),
    ("3C3B1-MP4-5FC", (8, 8, 1), 3, (2, 1), "weighted", "(3,18,2)(5,3)", None, True),
    ("2C5S2P2-4FC", (5, 6, 1), 1, None, "sliced", "(2,25,3)(4,2)", None, True),
    # Whole bytes, one per colour and two.
    ("4C3-MP2-5FC", (4, 4, 3), 8, (7, 5), "sliced", "(2,18)(5,4)", 24, False, True),
    ("4C3-5FC", (4, 6, 1), 10, (9, 8, 1), "weighted", "(4,27,3)(5,4)", None, False, True),
    ("5FC-4FC", (3, 2, 2), 5, (4, 2), "sliced", "(5,3)(2,5)", 32, False, True),
    # The class only: of scores in several beats, with a result before its image is whole; of a single beat of them.
    ("3C2S2P0-6FC", (5, 5, 1), 2, None, "sliced", "(3,4)(2,3)", None, False, False, True),
    ("6FC-4FC", (3, 3, 1), 2, None, "sliced", "(3,6)(4,2)", None, False, False, True),
], ids=lambda description: "-".join(map(str, description[:8:4] + description[7:])))
def test_equals_the_golden_model(tmp_path, description):
    network, unit = network_and_unit(*description)
    images = random_images(network, N_IMAGES)
    sent, period = input_beats(unit, images), unit.input_beats
    # Bits of the bus above those of a beat do nothing, whatever they are.
    ignored = (1 << unit.s_axis.bus_width) - (1 << unit.s_axis.width)
    beats, dirty_beats = (tuple(format(beat | above, "x") for beat in sent) for above in (0, ignored))
    assert len(beats) == N_IMAGES * period
    expected = unit.classify.encoded(golden.scores(network, images))
    generate(unit, tmp_path / "verilog")
    links = [part.name.removeprefix("chain_") for part in unit.parts[:-1]]
    stalls = [{}, {"idle_percent": 40, "stall_percent": 60},
              {"stall_percent": 30, "reset_after": period + period // 2 + 1}]
    runs = [Run(dirty_beats if seed else beats, image_ends(N_IMAGES, period), len(expected), seed=seed,
                max_cycles=40_000, **stall) for seed, stall in enumerate(stalls)]
    seen = cosimulate(Design.generated(tmp_path / "verilog", "chain"), runs, watch=links)
    per_image = len(expected) // N_IMAGES
    for run in seen:
        assert run.out_beats == expected
        assert run.breaches == []
        assert run.out_last == list(image_ends(N_IMAGES, per_image))
        assert run.out_user == [False] * len(expected)
        assert run.frame_errors == 0
    # FIFOs and line buffers fill up during the first images; then the slowest kernel sets the pace.
    last_out = seen[0].out_cycles[per_image - 1 :: per_image]
    assert np.diff(last_out)[-3:].tolist() == [unit.interval_cycles] * 3


@pytest.mark.parametrize("description", [
    ("2C2-MP2-3FC", (4, 4, 1), 2, None, "sliced", "(2,4)(3,2)"),
    ("2C3-MP2-3FC", (4, 4, 1), 8, (7, 3), "weighted", "(2,18,2)(3,2)", None, True, True),
], ids=["bit serial", "side by side"])
def test_myhdl_simulates_the_same(description):
    network, unit = network_and_unit(*description)
    images = random_images(network, 2)
    sent, expected = input_beats(unit, images), unit.classify.encoded(golden.scores(network, images))
    clk, rst = clock_and_reset()
    s_axis, m_axis = Stream(unit.s_axis.width), Stream(unit.m_axis.width)
    received = []

    @always(delay(5))
    def tick():
        clk.next = not clk

    @instance
    def offer():
        rst.next = 1
        yield clk.posedge
        yield clk.posedge
        rst.next = 0
        for i, beat in enumerate(sent):
            s_axis.tdata.next, s_axis.tvalid.next = beat, 1
            s_axis.tlast.next = (i + 1) % unit.input_beats == 0
            yield clk.posedge
            while not s_axis.tready:
                yield clk.posedge
        s_axis.tvalid.next = 0

    @instance
    def accept():
        for i in range(2_000):
            m_axis.tready.next = i % 3 != 0
            yield clk.posedge
            if m_axis.tvalid and m_axis.tready and not rst:
                received.append(int(m_axis.tdata))

    blocks = blocks_of(unit, clk, rst, s_axis, m_axis)
    simulation = Simulation(blocks, tick, offer, accept)
    simulation.run(20_000, quiet=1)
    simulation.quit()
    assert received == expected


def test_bare_topology_tells_cycles():
    network, unit = network_and_unit("4C3-MP2-6FC", (6, 6, 1), 4, None, "sliced", "(2,9)(3,4)")
    bare = accelerator(network.topology, unit.folding)
    assert [kernel.interval_cycles for kernel in bare.kernels] == [kernel.interval_cycles for kernel in unit.kernels]
    # 36 windows, 4 slices of one word each, 2 folds of rows.
    assert bare.first_layer_cycles == bare.interval_cycles == 36 * 4 * 2


@pytest.mark.parametrize("name", ["", "3net", "a-b", "net.v", "a b"])
def test_refuses_a_name_that_is_none_in_verilog(name):
    topology = Topology.parse("3FC", (2, 2, 1), 1)
    sentence = f"{name!r} is not a Verilog name: a letter or _, then letters, digits or _"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        accelerator(topology, Folding.parse("(1,1)", topology), name)


def test_refuses_a_folding_that_does_not_divide():
    topology = Topology.parse("4C3-3FC", (4, 4, 1), 2)
    other = Folding.parse("(3,9)(1,2)", Topology.parse("6C3-3FC", (4, 4, 1), 2))
    with pytest.raises(ValueError, match=r"^layer 0: 4 rows do not fold onto 3 PEs; 2 or 4 would$"):
        accelerator(topology, other)


@pytest.mark.parametrize(("layers", "folding", "sentence"), [
    ("1024FC-3FC", "(1024,784)(1,1)",
     "layer 0: 1024 PEs of 784 inputs make 802816 XNORs per cycle; at most 262144 are supported"),
])
def test_refuses_what_no_fpga_holds(layers, folding, sentence):
    topology = Topology.parse(layers, (28, 28, 1), 1)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        accelerator(topology, Folding.parse(folding, topology))


@pytest.mark.parametrize(("layers", "folding"), [("3C2-4FC", "(3,2)(2,3)"), ("4FC-4FC", "(1,4)(2,4)")])
def test_beats_are_those_of_the_values_looked_up(layers, folding):
    topology = Topology.parse(layers, (2, 2, 1), 4, (3, 2, 0))
    table, plain = np.array([7, 0, 15, 9, 2]), random_network(topology, 1)
    network = replace(plain, pixel_table=table, max_pixel=0)
    folding, images = Folding.parse(folding, topology), np.random.default_rng(0).integers(0, 5, (6, 2, 2, 1))
    unit = accelerator(network, folding)
    wanted = input_beats(accelerator(plain, folding), table[images])
    assert input_beats(unit, images) == wanted
    assert input_beats(accelerator(plain, folding), images) != wanted
    for wrong, sentence in ((images + 1, "a pixel is 5; the network's pixel lookup table holds 0 to 4"),
                            (images + 9, "pixels 9 to 13 given; 3 bits hold 0 to 7"),
                            (images[..., 0], "images of shape (6, 2, 2) given; the network takes (N, 2, 2, 1)")):
        with pytest.raises(ValueError) as caught:
            input_beats(unit, wrong)
        assert str(caught.value) == sentence
    with pytest.raises(ValueError) as caught:
        input_beats(accelerator(topology, folding), images)
    assert str(caught.value) == "the accelerator of a topology without weights takes no images"


def test_refuses_a_fifo_that_no_fpga_holds():
    topology = Topology.parse("1FC-3FC", (28, 28, 2), 1)
    folding = Folding.parse("(1,1568)(1,1)", topology).with_fifo_depths([1 << 16, 1])
    sentence = "layer 0: a FIFO of 65536 beats of 1568 bits has 102760448 bits; at most 67108864 are supported"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        accelerator(topology, folding)


@pytest.mark.parametrize("name", ["module", "logic", "unique", "wire", "x" * 65])
def test_refuses_a_name_that_verilog_reserves(name):
    topology = Topology.parse("3FC", (2, 2, 1), 1)
    with pytest.raises(ValueError, match=r"is a reserved word of Verilog|has 65 characters; at most 64 are supported"):
        accelerator(topology, Folding.parse("(1,1)", topology), name)


def test_names_are_case_sensitive():
    topology = Topology.parse("3FC", (2, 2, 1), 1)
    assert accelerator(topology, Folding.parse("(1,1)", topology), "Module").name == "Module"


def test_every_joint_is_checked():
    def refused(kernels, links):
        with pytest.raises(ValueError) as caught:
            replace(unit, kernels=tuple(kernels), links=tuple(links))
        return str(caught.value)

    topology = Topology.parse("4C3-MP2-6FC-3FC", (6, 6, 1), 2)
    unit = accelerator(topology, Folding.parse("(2,9)(3,4)(3,6)", topology))
    kernels, links = unit.kernels, unit.links
    assert links == chain(len(kernels))
    last = kernels[-1]
    wide, short = replace(last, width=last.width + 1), replace(last, beats=last.beats + 1)
    for other in (wide, short):
        assert refused((*kernels[:-1], other), links) == (
            f"accelerator_classify gives {last.beats} beats of {last.width} bits per image; accelerator_output takes "
            f"{other.beats} of {other.width}")
    not_given = "not every port that gives beats is joined to one that takes them"
    assert refused(kernels, links[:-1]) == not_given
    assert refused(kernels, (*links, Link(0, OUTSIDE))) == not_given
    assert refused(kernels, (*links[:-1], Link(len(kernels) - 1, 0))) == (
        "not every port that takes beats is joined to one that gives them")
    n = len(kernels)
    assert refused((*kernels, last), (*links, Link(n, n))) == (
        "accelerator_output takes from accelerator_output, which does not come before it")
    turned = [Link(*(end if end == OUTSIDE else n - 1 - end for end in link[:2])) for link in links]
    assert refused(kernels[::-1], turned) == (
        "accelerator_pixels0_hand_out takes from accelerator_input, which does not come before it")
