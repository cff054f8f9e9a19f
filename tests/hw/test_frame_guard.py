"""Frame guard by itself: whole frames pass as they are, every other becomes one whole image."""

import random

import pytest

from cbnn.hw.frame_guard import FrameGuard, guarded
from cbnn.hw.verilog import write_part
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

STALLS = ((0, 0), (50, 0), (0, 60), (40, 50))


def frames_of(lengths, width, seed):
    """Give `tdata` and `tlast` of random beats, frames of these lengths one after another."""
    draw = random.Random(seed)
    beats = [draw.getrandbits(width) for _ in range(sum(lengths))]
    return beats, [last for length in lengths for last in image_ends(1, length)]


def play(folder, unit, *streams):
    """Play streams of (beats, lasts), each under all stalls; give runs' observations, stream by stream."""
    runs = [Run(tuple(format(beat, "x") for beat in beats), tuple(lasts),
                len(guarded(beats, lasts, unit.beats)[0]), idle, stall, seed=5, drain_cycles=200)
            for beats, lasts in streams for idle, stall in STALLS]
    sources = tuple(f"{module}.v" for module in write_part(unit, folder))
    seen = cosimulate(Design(folder, unit.name, sources, "clk", "rst", 1), runs, busy=["image_end"])
    return [seen[i : i + len(STALLS)] for i in range(0, len(seen), len(STALLS))]


@pytest.mark.parametrize(("width", "beats"), [(1, 1), (5, 2), (8, 3), (3, 7), (40, 4)])
def test_every_frame_gives_one_whole_image(tmp_path, width, beats):
    draw = random.Random(width)
    lengths = [*range(1, 3 * beats + 2), beats, *draw.choices(range(1, 2 * beats + 2), k=20), beats]
    stream = frames_of(lengths, width, seed=1)
    images, marks = guarded(*stream, beats)
    assert marks == [length != beats for length in lengths]
    [runs] = play(tmp_path, FrameGuard("unit", width, beats), stream)
    for seen in runs:
        assert seen.out_beats == images
        assert seen.out_last == list(image_ends(len(lengths), beats))
        assert len(seen.in_cycles) == sum(lengths)
        assert seen.frame_errors == sum(marks)
        assert seen.busy == [len(lengths)]
        assert seen.breaches == []


def test_whole_frames_pass_in_the_same_cycle(tmp_path):
    stream = frames_of([4] * 6, 9, seed=2)
    [runs] = play(tmp_path, FrameGuard("unit", 9, 4), stream)
    assert runs[0].in_cycles == list(range(24))
    for seen in runs:
        assert seen.in_cycles == seen.out_cycles
        assert seen.out_beats == stream[0]
        assert seen.frame_errors == 0


def test_filling_and_swallowing_take_a_cycle_per_beat(tmp_path):
    """The example of the docstring: a short frame, a long one, and one that is whole."""
    beats, lasts = frames_of([2, 4, 3], 8, seed=3)
    [runs] = play(tmp_path, FrameGuard("unit", 8, 3), (beats, lasts))
    assert runs[0].in_cycles == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert runs[0].out_cycles == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert runs[0].out_beats == [*beats[:2], 0, *beats[2:5], *beats[6:]]


def test_tlast_that_never_comes_or_never_goes(tmp_path):
    beats = [*range(1, 14)]
    low, high = play(tmp_path, FrameGuard("unit", 4, 3), (beats, [False] * 13), (beats, [True] * 13))
    for seen in low:
        assert (seen.out_beats, seen.frame_errors) == ([1, 2, 3], 1)
    for seen in high:
        assert seen.out_beats == [number for beat in beats for number in (beat, 0, 0)]
        assert seen.frame_errors == 13
