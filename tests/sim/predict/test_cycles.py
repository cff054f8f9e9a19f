"""Rows of pruning levels: one function, whoever asks; the same network has the same figures everywhere."""

import json

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.command import demo
from cbnn.sim.predict.cycles import (
    Cycles,
    all_levels,
    at_level,
    byte_beats,
    full_level,
    level,
    level_cycles,
    predict,
    slowest_kernel,
)
from cbnn.sim.predict.search import Search
from cbnn.sim.prove.verify import Verification

CNV = Topology.parse("64C3P0-64C3P0-MP2-128C3P0-128C3P0-MP2-256C3P0-256C3P0-512FC-512FC-10FC", (32, 32, 3), 8)
SMALL = Topology.parse("4C3-MP2-6FC-3FC", (4, 4, 2), 3)
OF_ALL = Folding.parse("(2,9)(3,4)(1,2)", SMALL)


def small(topology: Topology) -> Folding:
    return Folding.parse("(2,9)(3,4)(1,2)", topology)


def test_first_layer_is_proportional_to_the_slices_kept() -> None:
    n_kept = (8, 7, 4, 1)
    rows = level_cycles(CNV, lambda t: Folding.parse("(16,3)(32,32)(16,32)(16,32)(4,32)(1,32)(1,4)(1,8)(10,1)", t),
                        [all_levels(CNV)[8 - n] for n in n_kept])
    assert [row.first_layer_cycles for row in rows] == [n * 9 * 4 * 900 for n in n_kept]
    assert [row.input_beats for row in rows] == [n * 3072 // 48 for n in n_kept]
    assert rows[-1].interval_cycles == 32_768
    assert rows[-1].slowest in ("mvtu6", "mvtu7")
    assert [row.saved_cycles for row in rows] == [rows[0].interval_cycles - row.interval_cycles for row in rows]


def test_a_level_names_its_slices() -> None:
    rows = level_cycles(SMALL, small, [(1,), (2, 0)])
    assert [row.kept_slices for row in rows] == [(1,), (2, 0)]
    assert all_levels(SMALL) == [(2, 1, 0), (2, 1), (2,)]


@pytest.mark.parametrize(("kept", "sentence"), [
    ((3,), "slice 3 cannot be kept; the network has the slices 2, 1, 0"),
    ((), "no slice is kept; a network needs at least one"),
    ((0, 1), "kept slices [0, 1] must be listed once each, the MSB first"),
])
def test_levels_are_checked_before_anything_is_computed(kept: tuple[int, ...], sentence: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbnn.sim.predict.cycles.predict", None)
    for network in (SMALL, random_network(SMALL, 0)):
        with pytest.raises(ValueError) as caught:
            level_cycles(network, small, [(2,), kept])
        assert str(caught.value) == sentence


def test_slices_that_a_network_has_pruned_cannot_be_kept() -> None:
    with pytest.raises(ValueError) as caught:
        level_cycles(SMALL.keep((2, 1)), small, [(0,)])
    assert str(caught.value) == "slice 0 cannot be kept; the network has the slices 2, 1"


def test_counts_are_the_predicted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """No formula of the kernels stands in for what the dataflow simulation says."""
    def said(unit):
        return Cycles(11, 22, 1000 * len(unit.topology.kept_slices), 44)

    row = full_level(SMALL, OF_ALL)
    assert Cycles(row.input_beats, row.first_layer_cycles, row.interval_cycles,
                  row.latency_cycles) == predict(accelerator(SMALL, OF_ALL))
    monkeypatch.setattr("cbnn.sim.predict.cycles.predict", said)
    rows = level_cycles(SMALL, small, [(2,)])
    assert [(row.input_beats, row.first_layer_cycles, row.interval_cycles, row.latency_cycles,
             row.refolded_interval_cycles, row.saved_cycles) for row in rows] == [
                 (11, 22, 1000, 44, 1000, 2000)]
    assert rows[0].saved_percent == pytest.approx(200 / 3)


def test_refolding_keeps_within_the_luts_of_the_baseline() -> None:
    for row in level_cycles(SMALL, small, all_levels(SMALL)):
        baseline = full_level(SMALL, OF_ALL)
        topology = SMALL.keep(row.kept_slices)
        unit = accelerator(topology, Folding.parse(row.refolded, topology, OF_ALL.input_width))
        assert unit.luts <= baseline.luts
        assert predict(unit).interval_cycles == row.refolded_interval_cycles <= row.interval_cycles


def test_shallow_fifos_can_be_all_that_fits() -> None:
    fewest = Search(SMALL).cheapest(10**6)
    folding = fewest.folding.with_fifo_depths((1, 1, 1))
    row = full_level(SMALL, folding)
    assert row.luts < fewest.luts
    assert (row.refolded, row.refolded_interval_cycles) == (str(folding), row.interval_cycles)
    assert level(SMALL, OF_ALL, row).refolded is None


def test_of_equal_kernels_the_first_matrix_unit_is_the_slowest() -> None:
    kernels = accelerator(SMALL, Folding.parse("(4,9)(1,2)(1,2)", SMALL)).kernels
    assert slowest_kernel(kernels).name == "accelerator_mvtu0"
    assert slowest_kernel(kernels[:1]) is kernels[0]


@pytest.mark.parametrize("name", demo.FOLDINGS)
def test_the_demo_and_cycles_give_the_same_figures(name: str, cbnn, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """In every predicted field, LUTs and beats included."""
    def verify(network, unit, images, verilog):
        return Verification(len(images), [], [], [], predict(unit), predict(unit))

    monkeypatch.setattr(demo, "verify", verify)
    rows = json.loads(json.dumps([demo.level((name, n), tmp_path) for n in range(5)]))
    words = [word for row in rows for word in ("--slices", ",".join(map(str, row["kept_slices"])))]
    code, out, _ = cbnn("cycles", "digits-5", "--folding", demo.FOLDINGS[name], *words, "--json")
    assert code == 0
    other = {"measured", "accuracy_after"}
    for ours, theirs in zip(rows, json.loads(out), strict=True):
        assert set(ours) - set(theirs) == {"folding_name", "n_images"}
        assert {key: ours[key] for key in theirs.keys() & ours.keys() - other} == {
            key: theirs[key] for key in theirs.keys() & ours.keys() - other}


FULL = Topology.parse("8x8x1u8-4C3-2FC")


@pytest.mark.parametrize(("simd", "kept", "pruned"), [
    (9, 3, 9), (72, 5, 45), (72, 1, 9), (24, 5, 15), (24, 3, 9), (18, 4, 18), (18, 7, 21), (18, 1, 9), (36, 6, 27)])
def test_the_first_layer_is_no_slower_with_slices_pruned(simd, kept, pruned):
    topology = FULL.keep(tuple(range(7, 7 - kept, -1)))
    folding = at_level(Folding.of(FULL, ((4, simd), (1, 4))), FULL, topology)
    assert folding == Folding.of(topology, ((4, pruned), (1, 4)))


@pytest.mark.parametrize(("text", "folding", "whole_bytes", "kept"), [
    # With the next lower SIMD slices would come one after another, and the converter would be slower.
    ("14x8x1u8-8C6S4-MP2-6FC-12FC", "(8,96)(6,2)(2,6)", False, (6, 5, 4, 2, 1, 0)),
    # The default width of the input falls with SIMD.
    ("16x9x3u5-3FC-8FC-7FC", "(1,720)(8,3)(7,2)", True, (4,)), ("8x12x1u2-6FC", "(6,192)", False, (1,)),
    ("28x28x1u8-4C3-MP2-10FC", "(4,72,4)(5,98)", False, (7, 6, 5)),
])
def test_pruning_slows_nothing_down(text, folding, whole_bytes, kept):
    full = Topology.parse(text)
    before, pruned = Folding.parse(folding, full, whole_bytes=whole_bytes), full.keep(kept)
    after = at_level(before, full, pruned)
    after.check(pruned)
    assert accelerator(pruned, after).interval_cycles <= accelerator(full, before).interval_cycles
    assert after.input_width <= before.input_width


def test_beats_of_bytes_are_of_a_bus_that_is_no_wider():
    topology = Topology.parse("12x16x3u8:7..5-16C3-MP2-10FC")
    for width, beats in ((32, 144), (48, 96), (4, 576), (96, 48)):
        assert byte_beats(topology, Folding.parse("(16,81,2)(1,96)", topology, width)) == beats
