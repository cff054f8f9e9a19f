"""FIFO sizing: the smallest depths, against trying all of them."""

import itertools

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.topology import Topology
from cbnn.sim.predict.fifos import fifo_bits, size_fifos, steady_interval

TOPOLOGY = Topology.parse("8FC-6FC-4FC", (4, 4, 1), 1)
FOLDING = Folding.parse("(2,8)(2,2)(1,3)", TOPOLOGY)
LFC = Topology.parse("1024FC-1024FC-1024FC-64FC", (26, 32, 1), 1)
LFC_FOLDING = Folding.parse("(32,64)(64,32)(32,64)(16,8)", LFC)


@pytest.mark.parametrize("interval", [None, 14, 20])
def test_no_smaller_fifos_keep_the_interval(interval):
    sizing = size_fifos(TOPOLOGY, FOLDING, interval)
    deepest = [range(1, layer.fifo_depth + 1) for layer in FOLDING.layers]
    target = accelerator(TOPOLOGY, FOLDING).interval_cycles if interval is None else interval
    keeping = [fifo_bits(folding) for depths in itertools.product(*deepest)
               if steady_interval(accelerator(TOPOLOGY, folding := FOLDING.with_fifo_depths(depths))) <= target]
    assert sizing.bits == min(keeping)
    assert sizing.smallest
    assert sizing.interval_cycles == steady_interval(accelerator(TOPOLOGY, sizing.folding)) <= target


def test_lfc_with_shallow_fifos_is_slower_than_its_formula():
    def interval(depths):
        return steady_interval(accelerator(LFC, LFC_FOLDING.with_fifo_depths(depths)))

    assert interval((13, 16, 8, 16)) > interval((13, 32, 16, 32)) > 512
    sizing = size_fifos(LFC, LFC_FOLDING)
    assert sizing.interval_cycles == 512
    assert sizing.bits < fifo_bits(LFC_FOLDING)


def test_an_interval_out_of_reach_is_refused():
    with pytest.raises(ValueError) as caught:
        size_fifos(TOPOLOGY, FOLDING, 7)
    assert str(caught.value) == "no FIFOs give an interval of 7 cycles; with the deepest it is 12"


def test_intervals_are_kept_to_the_cycle():
    """One cycle less than some depths reach, so that these are too slow by that one."""
    deepest = [range(1, layer.fifo_depth + 1) for layer in FOLDING.layers]
    foldings = [FOLDING.with_fifo_depths(depths) for depths in itertools.product(*deepest)]
    reached = [(steady_interval(accelerator(TOPOLOGY, folding)), fifo_bits(folding)) for folding in foldings]
    best = accelerator(TOPOLOGY, FOLDING).interval_cycles
    targets = sorted({interval - 1 for interval, _ in reached if interval > best})
    assert targets
    for target in targets:
        assert size_fifos(TOPOLOGY, FOLDING, target).bits == min(n for interval, n in reached if interval <= target)


def test_everything_else_of_a_folding_stays():
    topology = Topology.parse("6x6x1u8:7,3-4C3-MP2-6FC-5FC")
    folding = Folding.parse("(4,18,2)(2,6)(5,3)", topology, 16, whole_bytes=True)
    sizing = size_fifos(topology, folding)
    assert sizing.folding == folding.with_fifo_depths([layer.fifo_depth for layer in sizing.folding.layers])
    assert sizing.interval_cycles == accelerator(topology, folding).interval_cycles
    # A beat of the first layer has a word of each of two windows.
    assert fifo_bits(folding) == 2 * 36 + 6 * 6 + 3 * 2
