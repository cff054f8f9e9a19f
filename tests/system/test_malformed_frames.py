"""Malformed frames harm their own image only, in every kind of first layer, to the cycle.

Each network plays every fault at every place of an image: `tlast` early, late, missing, constant, one beat lost, one
doubled. Scores must be the golden model's of what the frame guard makes of the frame; cycles the dataflow simulation's.
"""

from pathlib import Path

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.frame_guard import guarded
from cbnn.hw.input_stream import input_beats, input_images
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

NETWORKS = {
    "convolution, sliced, converter, pool drops rows":
        ("2C2P0-MP2-3FC", (4, 3, 1), 2, (1, 0), "sliced", "(2,4)(3,2)", 6),
    "convolution, sliced, stride drops all but the first pixel":
        ("1C1S5-2FC", (4, 5, 1), 1, (0,), "sliced", "(1,1)(2,1)", 1),
    "convolution, sliced": ("3C3-4FC", (2, 2, 2), 2, (1, 0), "sliced", "(3,18)(4,6)", 2),
    "convolution, weighted, converter, stride drops columns":
        ("3C1S2-2FC", (2, 4, 3), 3, (2, 0), "weighted", "(3,3)(2,3)", 6),
    "convolution, weighted, converter": ("2C2P0-3FC", (2, 3, 2), 2, (1, 0), "weighted", "(2,8)(3,2)", 8),
    "dense, sliced": ("4FC-3FC", (2, 2, 2), 2, (1, 0), "sliced", "(2,4)(3,2)", 4),
    "dense, sliced, converter": ("3FC", (4, 2, 1), 3, (2, 1, 0), "sliced", "(1,2)", 8),
    "dense, weighted": ("4FC-3FC", (2, 3, 1), 3, (2, 0), "weighted", "(4,2)(3,4)", 2),
    "dense, weighted, converter": ("4FC-3FC", (2, 3, 1), 3, (2, 0), "weighted", "(4,6)(3,4)", 3),
    "dense, an image is one beat": ("3FC-2FC", (2, 2, 1), 1, (0,), "sliced", "(3,4)(2,3)", 4),
    "convolution, slices side by side, converter": ("2C2P0-3FC", (3, 3, 1), 3, (2, 1, 0), "weighted", "(2,12)(3,2)", 9),
    "convolution, three windows at once, pool drops rows":
        ("2C3-MP3-3FC", (4, 3, 1), 1, (0,), "sliced", "(2,9,3)(3,2)", 3),
    "convolution, bytes": ("3C3-MP2-4FC", (2, 4, 1), 8, (7, 0), "sliced", "(3,18,2)(4,3)", 16, True),
    "dense, bytes, converter": ("4FC-3FC", (2, 3, 1), 5, (4, 2), "sliced", "(4,3)(3,4)", 16, True),
}


@pytest.fixture(params=NETWORKS)
def network_and_unit(request):
    layers, in_shape, bits, kept, first_layer, folding, *entry = NETWORKS[request.param]
    topology = Topology.parse(layers, in_shape, bits, kept, first_layer)
    network = random_network(topology, 7)
    unit = accelerator(network, Folding.parse(folding, topology, *entry), "net")
    assert unit.marks.early is ("drops" in request.param)
    assert any(kernel.name.endswith(("hand_out", "gather")) for kernel in unit.kernels[:2]) is \
        ("converter" in request.param)
    return network, unit


def damaged(images):
    """Give frames with every fault at every place, of images given as lists of beats; of long ones at some places."""
    n = len(images[0])
    frames = []
    for place in range(n) if n <= 8 else (0, 1, n // 2, n - 2, n - 1):
        image, other = images[place % len(images)], images[-1]
        frames += [image[: place + 1], image[:place] + image[place + 1 :],  # tlast early; a beat lost
                   image[:place + 1] + image[place:], image + other[: place + 1]]  # a beat doubled; tlast late
    constant = [[beat] for beat in images[0][:4]]
    return [frame for frame in [*frames, images[0] + images[1] + images[2], *constant] if frame]


def separated(frames, images):
    """Give frames with a whole one after each."""
    return [part for i, frame in enumerate(frames) for part in (frame, images[i % len(images)])]


def check(network, unit, run, frames, seen):
    """Hold a run's beats against the golden model, and their cycles against the dataflow simulation."""
    n_images, per_image = len(frames), unit.m_axis.beats
    beats, marks = guarded([beat for frame in frames for beat in frame], run.lasts, unit.input_beats)
    assert marks == [len(frame) != unit.input_beats for frame in frames]
    assert seen.breaches == []
    assert seen.out_user == np.repeat(marks, per_image).tolist()
    assert seen.out_last == list(image_ends(n_images, per_image))
    assert seen.out_beats == unit.classify.encoded(golden.scores(network, input_images(unit, beats)))
    assert seen.frame_errors == sum(marks)
    trace = simulate(unit, n_images, frames=list(map(len, frames)), idle_percent=run.idle_percent,
                     stall_percent=run.stall_percent, seed=run.seed)
    assert seen.in_cycles == trace.entered.tolist()
    assert seen.out_cycles == trace.taken(-1).tolist()


def run_of(frames, unit, **options):
    return Run(tuple(format(beat, "x") for frame in frames for beat in frame),
               tuple(last for frame in frames for last in image_ends(1, len(frame))),
               len(frames) * unit.m_axis.beats, drain_cycles=200, **options)


def play(folder, unit, runs):
    links = [part.name.removeprefix("net_") for part in unit.parts[:-1]]
    return cosimulate(Design.generated(folder, "net"), runs, watch=links)


def some_images(unit, n, seed=0):
    topology = unit.topology
    pixels = np.random.default_rng(seed).integers(0, 1 << topology.input_bits, (n, *topology.in_shape))
    beats = input_beats(unit, pixels)
    return pixels, [beats[i : i + unit.input_beats] for i in range(0, len(beats), unit.input_beats)]


def test_a_malformed_frame_harms_its_own_image_only(tmp_path: Path, network_and_unit) -> None:
    network, unit = network_and_unit
    _, images = some_images(unit, 5)
    back_to_back = [*damaged(images), images[0]]
    apart = separated(damaged(images), images)
    played = [(apart, {}), (apart, {"idle_percent": 40, "stall_percent": 50, "seed": 2}),
              (back_to_back, {"stall_percent": 60, "seed": 3}),
              (back_to_back, {"idle_percent": 50, "seed": 4, "reset_after": sum(map(len, back_to_back)) // 2})]
    runs = [run_of(frames, unit, **options) for frames, options in played]
    generate(unit, tmp_path / "v")
    for run, (frames, _), seen in zip(runs, played, play(tmp_path / "v", unit, runs), strict=True):
        check(network, unit, run, frames, seen)


def test_without_tlast_images_are_counted_off(tmp_path: Path, network_and_unit) -> None:
    """USE_TLAST of 0: whatever `tlast` is, everything is as with whole frames."""
    network, unit = network_and_unit
    pixels, images = some_images(unit, 6)
    top = generate(unit, tmp_path / "v").parent / "net.v"
    text = top.read_text()
    assert text.count("parameter USE_TLAST = 1") == 1
    top.write_text(text.replace("parameter USE_TLAST = 1", "parameter USE_TLAST = 0"))
    whole = run_of(images, unit)
    n_beats = len(whole.beats)
    runs = [Run(whole.beats, lasts, whole.n_out, drain_cycles=200)
            for lasts in ((False,) * n_beats, (True,) * n_beats, (True, False, False) * n_beats)]
    trace = simulate(unit, len(images))
    for seen in play(tmp_path / "v", unit, runs):
        assert seen.breaches == []
        assert seen.out_beats == unit.classify.encoded(golden.scores(network, pixels))
        assert (any(seen.out_user), seen.frame_errors) == (False, 0)
        assert seen.out_last == list(image_ends(len(images), unit.m_axis.beats))
        assert seen.in_cycles == trace.entered.tolist()
        assert seen.out_cycles == trace.taken(-1).tolist()


def test_input_images_undoes_input_beats(network_and_unit) -> None:
    _, unit = network_and_unit
    pixels, images = some_images(unit, 4, seed=3)
    # Of packed slices, pruned bits are 0.
    kept = -1 if unit.folding.whole_bytes else sum(1 << bit for bit in unit.topology.kept_slices)
    assert (input_images(unit, [beat for image in images for beat in image]) == pixels & kept).all()


def test_a_result_waits_for_the_mark_of_its_image(tmp_path: Path) -> None:
    """The first pixel is all that counts; the frame turns out to be bad long after the result is there."""
    layers, in_shape, bits, kept, first_layer, folding, width = \
        NETWORKS["convolution, sliced, stride drops all but the first pixel"]
    topology = Topology.parse(layers, in_shape, bits, kept, first_layer)
    network = random_network(topology, 7)
    unit = accelerator(network, Folding.parse(folding, topology, width), "net")
    _, images = some_images(unit, 3)
    frames = [images[0], images[1] + images[1][:1], images[2]]
    run = run_of(frames, unit, idle_percent=60, seed=1)
    generate(unit, tmp_path / "v")
    [seen] = play(tmp_path / "v", unit, [run])
    check(network, unit, run, frames, seen)
    last_in = [seen.in_cycles[i] for i in (19, 39, 60)]
    assert [out - last for out, last in zip(seen.out_cycles, last_in, strict=True)] == [1, 1, 1]
