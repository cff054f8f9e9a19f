"""Predictions per pruning level, and folding within a budget."""

import itertools

import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.model.folding import Folding
from cbnn.model.topology import Topology
from cbnn.sim.cycles import level_cycles
from cbnn.sim.refold import refold

CNV = Topology.parse("64C3P0-64C3P0-MP2-128C3P0-128C3P0-MP2-256C3P0-256C3P0-512FC-512FC-10FC", (32, 32, 3), 8)
SMALL = Topology.parse("4C3-MP2-6FC-3FC", (4, 4, 2), 3)


def test_first_layer_is_proportional_to_the_slices_kept() -> None:
    rows = level_cycles(CNV, lambda t: Folding.parse("(16,3)(32,32)(16,32)(16,32)(4,32)(1,32)(1,4)(1,8)(10,1)", t),
                        range(8, 0, -1))
    assert [row.first_layer_cycles for row in rows] == [n * 9 * 4 * 900 for n in range(8, 0, -1)]
    assert [row.input_beats for row in rows] == [n * 3072 // 48 for n in range(8, 0, -1)]
    assert rows[-1].interval_cycles == 32_768
    assert rows[-1].slowest in ("mvtu6", "mvtu7")
    assert [row.saved_cycles for row in rows] == [rows[0].interval_cycles - row.interval_cycles for row in rows]


def test_levels_are_checked() -> None:
    for n in (0, 4):
        with pytest.raises(ValueError) as caught:
            level_cycles(SMALL, lambda t: Folding.parse("(2,9)(3,4)(1,2)", t), [n])
        assert str(caught.value) == f"{n} slices are to be kept; the network has 1 to 3"


def test_refolding_is_the_best_of_all_foldings() -> None:
    """Against trying every folding there is."""
    start = Folding.parse("(1,1)(1,1)(1,1)", SMALL)
    budget = accelerator(SMALL, start).luts + 120
    divisors = [[d for d in range(1, n + 1) if n % d == 0] for n in (4, 18, 6, 16, 3, 6)]
    units = (accelerator(SMALL, Folding.of(SMALL, (p[:2], p[2:4], p[4:]), start.input_width))
             for p in itertools.product(*divisors))
    fastest = min(unit.interval_cycles for unit in units if unit.luts <= budget)
    found = refold(SMALL, start, budget)
    assert found.luts <= budget
    assert found.interval_cycles == fastest


def test_a_folding_beyond_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the folding \(1,1\)\(1,1\)\(1,1\) takes \d+ LUTs by estimate; "
                                         r"the budget is 10"):
        refold(SMALL, Folding.parse("(1,1)(1,1)(1,1)", SMALL), 10)
