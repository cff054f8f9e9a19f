"""Predictions per pruning level."""

import pytest

from cbnn.model.folding import Folding
from cbnn.model.topology import Topology
from cbnn.sim.cycles import level_cycles

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
