"""The fastest folding that fits a board, and what would fit where one does not."""

import contextlib
import re
from itertools import pairwise

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.board import fitting
from cbnn.sim.board.build import NotPlacedError, goal
from cbnn.sim.board.flow import Taken
from cbnn.sim.predict.search import Budget, Search

TOPOLOGY = Topology.parse("8x8x1u5-16C3-16C3-MP2-32C3-MP2-64FC-10FC")
NETWORK = random_network(TOPOLOGY, 1)
SEARCH = Search(TOPOLOGY)


@pytest.fixture
def board(monkeypatch):
    """Give a function that sets what designs take, and returns a goal and the list of all that were synthesised."""
    def prepare(name, cells_per_lut, block_rams=lambda unit: 1):
        tried = []

        def measure(unit, wanted, stages):
            tried.append(unit)
            return Taken(int(1000 + cells_per_lut * unit.luts), block_rams(unit))

        monkeypatch.setattr(fitting, "measure", measure)
        return goal(name, None, 115_200, [1]), tried

    return prepare


def found(wanted, **words):
    return fitting.fastest(NETWORK, SEARCH, wanted, None, "net", **words)


@pytest.mark.parametrize("cells_per_lut", [1, 1.8, 2.4, 3.1])
def test_about_the_fastest_that_there_is_room_for(board, cells_per_lut):
    wanted, tried = board("icebreaker", cells_per_lut)
    unit = found(wanted)
    room = (5280 - 1000) / cells_per_lut
    assert SEARCH.fastest(Budget(int(room))).interval_cycles <= unit.interval_cycles
    assert unit.interval_cycles <= SEARCH.fastest(Budget(int(0.85 * room))).interval_cycles
    assert unit.luts <= room
    assert len(tried) <= fitting.MAX_TRIES
    assert unit.name == "net"


def test_block_rams_count_too(board):
    wanted, tried = board("icebreaker", 1, lambda unit: unit.luts // 40)
    unit = found(wanted)
    assert unit.luts // 40 <= 30
    assert len(tried) > 1


def test_what_did_not_fit_is_not_tried_again(board):
    wanted, tried = board("icebreaker", 0.1, lambda unit: 100 if unit.luts > 1200 else 1)
    assert found(wanted).luts <= 1200
    assert len({unit.folding for unit in tried}) == len(tried)
    assert all(unit.luts < tried[0].luts for unit in tried[1:])


def test_below_some_luts(board):
    wanted, _ = board("ulx3s-85f", 1)
    assert found(wanted, below=1500).luts < 1500
    with pytest.raises(NotPlacedError, match=r"^no folding of less than 10 LUTs \(est\.\) is there$"):
        found(wanted, below=10)


def test_what_would_fit_is_said(board):
    wanted, _ = board("icebreaker", 4)
    with pytest.raises(NotPlacedError) as caught:
        found(board("icebreaker", 40)[0])
    assert re.fullmatch(r"it does not fit the iCEBreaker: [0-9,]+ logic cells of 5,280, [0-9,]+ too many; no folding "
                        "is estimated to fit, with fewer slices neither; take a narrower network", str(caught.value))
    unit = accelerator(NETWORK, Folding.parse("(8,9)(16,16)(8,16)(4,16)(5,8)", TOPOLOGY), "net")
    took = Taken(6000, 31)
    assert fitting.too_large(wanted, took) == (
        "it does not fit the iCEBreaker: 6,000 logic cells of 5,280, 720 too many; 31 block RAMs of 30, 1 too many")
    assert fitting.remedy(unit, took, wanted) == (
        "estimated to fit: (4,15)(4,48)(2,48)(1,16)(1,4), 768 cycles; "
        "or (2,9)(16,16)(8,16)(1,16)(1,4) with the slices 4 only, 576 cycles")


def test_one_that_is_not_placed_makes_room_for_a_smaller_one(board, monkeypatch):
    wanted, _ = board("icebreaker", 2)
    placed = []

    def build(unit, wanted, folder, stages, progress):
        placed.append(unit)
        if len(placed) < n_failing + 1:
            raise NotPlacedError("the clock is not reached")
        return "built"

    monkeypatch.setattr(fitting, "build", build)
    for n_failing in (0, 2, 3):
        placed.clear()
        with pytest.raises(NotPlacedError) if n_failing == 3 else contextlib.nullcontext():
            assert fitting.build_fastest(NETWORK, SEARCH, wanted, None, None, "net") == (placed[-1], "built")
        assert len(placed) == min(n_failing, 2) + 1
        assert all(after.luts <= 0.9 * before.luts for before, after in pairwise(placed))


def test_a_given_one_that_does_not_fit_says_what_would(board, monkeypatch):
    wanted, _ = board("icebreaker", 2)
    unit = accelerator(NETWORK, Folding.parse("(8,9)(16,16)(8,16)(4,16)(5,8)", TOPOLOGY), "net")
    for taken, sentence in ((None, "the clock is not reached"),
                            (Taken(6000, 31), f"it is too large; {fitting.remedy(unit, Taken(6000, 31), wanted)}")):
        def build(unit, wanted, folder, stages, progress, taken=taken):
            raise NotPlacedError("it is too large" if taken else "the clock is not reached", taken)

        monkeypatch.setattr(fitting, "build", build)
        with pytest.raises(NotPlacedError) as caught:
            fitting.build_given(unit, wanted, None, None, None)
        assert str(caught.value) == sentence
