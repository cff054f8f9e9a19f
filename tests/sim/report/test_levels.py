"""Texts of the report."""

import io

from rich.console import Console

from cbnn.sim.report.levels import HEADINGS, LEVELS, cell, level_grid, level_table, text_table

ROW = {"kept_slices": [4, 3], "accuracy_before": 0.5, "accuracy_after": 0.94321, "input_beats": 16, "byte_beats": 64,
       "first_layer_cycles": 256, "interval_cycles": 576, "latency_cycles": 1057, "slowest": "mvtu0",
       "measured": {"input_beats": 16, "first_layer_cycles": 256, "interval_cycles": 1577, "latency_cycles": 1057},
       "refolded_interval_cycles": 384, "smallest_luts": 3100, "saved_cycles": 64, "saved_percent": 10.0, "luts": 3469}


def test_a_measurement_that_differs_shows_both() -> None:
    assert [cell(ROW, name) for name in LEVELS] == [
        "4..3", "50.00", "94.32", "16", "64", "256", "1,577 (predicted 576)", "1,057", "mvtu0", "10.0", "3,469", "384",
        "3,100"]


def test_what_is_not_known_is_a_dash_and_a_column_of_these_is_left_out() -> None:
    rows = [ROW | {"measured": None, "accuracy_after": None, "refolded_interval_cycles": None}, ROW]
    rows[1] = rows[1] | {"accuracy_after": None}
    grid = level_grid(rows)
    assert HEADINGS["accuracy_after"] not in grid.headings
    assert grid.rows[0][grid.headings.index("refolded interval")] == "-"
    assert cell({"folding": None, "why": "nothing fits"}, "folding") == "nothing fits"


def printed(table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_brackets_are_printed_and_not_taken_for_markup() -> None:
    text = "[red]x[/].npz"
    assert printed(text_table([text], [[text]], [True], title=text, caption=text)).count(text) == 4
    rows = [ROW | {"slowest": text, "topology": text}]
    assert printed(level_table(rows, ("topology", "slowest"), title=text, caption=text)).count(text) == 4


def test_the_input_of_a_topology_stands_in_other_columns() -> None:
    assert cell({"topology": "28x28x1u8w:7..4-16C3-MP2-10FC"}, "topology") == "16C3-MP2-10FC"
    assert cell({"topology": "10FC"}, "topology") == "10FC"
