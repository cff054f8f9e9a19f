"""Texts of the report."""

import pytest

from cbnn.sim.report import cells, kept_text

ROW = {"kept_slices": [4, 3], "accuracy_before": 0.5, "accuracy_after": 0.94,
       "predicted": {"input_beats": 16, "first_layer_cycles": 256, "interval_cycles": 576, "latency_cycles": 1057},
       "measured": {"input_beats": 16, "first_layer_cycles": 256, "interval_cycles": 1577, "latency_cycles": 1057},
       "refolded_interval_cycles": 384, "saved_cycles": 64, "saved_percent": 10.0, "luts": 3469}


@pytest.mark.parametrize(("kept", "text"), [([4, 3, 2], "4..2"), ([3], "3"), ([7, 5], "7, 5"), ([1, 0], "1..0")])
def test_slices(kept: list[int], text: str) -> None:
    assert kept_text(kept) == text


def test_a_measurement_that_differs_shows_both() -> None:
    assert cells(ROW) == ["4..3", "50.0", "94.0", "16", "256", "1,577 (predicted 576)", "1,057", "384", "64", "10.0",
                          "3,469"]
