"""Pages: whatever is put in comes out as text."""

import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from cbnn.sim.command import demo
from cbnn.sim.report import compaction, levels
from cbnn.sim.report.page import Grid, Heading, page

EVIL = "<script>alert(1)</script><b onclick=x>&\"'"
LEVEL = {
    "kept_slices": [4, 3], "topology": "4FC-3FC", "folding": "(1,1)(1,1)", "accuracy_before": 0.5,
    "accuracy_after": 0.94,
    "input": "kept slices", "input_beats": 2, "byte_beats": 8, "first_layer_cycles": 256, "interval_cycles": 576,
    "latency_cycles": 1057, "slowest": "mvtu0", "layer_cycles": [256, 576], "refolded": "(1,2)(1,1)",
    "refolded_interval_cycles": 384, "smallest": "(1,1)(1,1)", "smallest_luts": 3100, "luts": 3469,
    "block_rams": 1, "weight_bits": 900, "operations": 9000, "saved_cycles": 64, "saved_percent": 10.0,
    "measured": {"input_beats": 2, "first_layer_cycles": 256, "interval_cycles": 576, "latency_cycles": 1057}}
ROWS = [LEVEL | {"folding_name": name, "n_images": 16, "kept_slices": list(range(4, 4 - n, -1))}
        for name in ("one", "another") for n in range(5, 0, -1)]


class Tags(HTMLParser):
    """All tags of a page, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] != "script":
            self.text += data


def check(text: str, benign: str) -> None:
    """Same tags as the page of harmless words, and nothing that Plotly would read as a tag."""
    assert Tags(text).tags == Tags(benign).tags
    assert "<script>alert" not in text
    assert text.count("</script>") == benign.count("</script>")
    plots = text.split("</head>")[1].split("Plotly.newPlot(")[1:]
    assert plots
    scripts = [plot.split("</script>")[0] for plot in plots]
    assert not any(re.search(r"(<|\\u003c)(script|b )", script) for script in scripts)


def spoilt(value, evil):
    if isinstance(value, str):
        return evil
    if isinstance(value, list):
        return [spoilt(entry, evil) for entry in value]
    return {name: spoilt(entry, evil) for name, entry in value.items()} if isinstance(value, dict) else value


def no_ids(text: str) -> str:
    """Plots have random names."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "id", text)


def report_page(rows, folder):
    (folder / demo.TABLE).write_text(json.dumps(rows))
    levels.write_report(demo.read_table(folder), folder / demo.REPORT)
    return no_ids((folder / demo.REPORT).read_text())


def test_no_string_of_a_table_is_more_than_text_in_the_report(tmp_path) -> None:
    evil = [spoilt(row, EVIL) | {"folding_name": row["folding_name"] + EVIL, "input": row["input"]} for row in ROWS]
    text = report_page(evil, tmp_path)
    check(text, report_page(ROWS, tmp_path))
    with pytest.raises(ValueError, match="expected `int`, got `str`"):  # numbers are no strings
        report_page([row | {"n_images": EVIL} for row in ROWS], tmp_path)


FACTS = {"dataset": "digits", "note": "a copy", "device": "xc7z020", "budget": 0.9, "points_lost": 0.5,
         "baseline": LEVEL | {"spread": 0.01, "test_accuracies": [0.5]},
         "compact": LEVEL | {"spread": 0.01, "test_accuracies": [0.5]},
         "times_fewer_weight_bits": 2.0, "times_fewer_operations": 3.0, "times_fewer_cycles": 4.0,
         "tried": [LEVEL | {"validation_accuracy": accuracy, "weight_bits": bits, "within_budget": accuracy >= 0.9,
                            "front": front, "kept_slices": [4, 2]}
                   for accuracy, bits, front in ((0.95, 900, False), (0.93, 500, True), (0.94, 700, False),
                                                 (0.7, 300, False), (0.6, 200, False))],
         "sensitivity": [{"mode": mode, "slice": b, "colour": None, "mean": 0.5 + b / 10, "spread": 0.02}
                         for mode in compaction.MODES for b in range(5)]}


def test_no_string_of_a_compaction_is_more_than_text() -> None:
    evil = spoilt(FACTS, EVIL) | {"sensitivity": FACTS["sensitivity"]}
    check(no_ids(compaction.page_text(evil)), no_ids(compaction.page_text(FACTS)))


def test_every_kind_of_part_is_escaped() -> None:
    def parts(text):
        figure = go.Figure(go.Bar(x=[text], y=[1], name=text, hovertext=[text]))
        figure.update_layout(title=text)
        return [text, Heading(text), Grid([text], [[text]], [True]), figure, figure]

    check(no_ids(page(EVIL, parts(EVIL))), no_ids(page("harmless", parts("harmless"))))
    assert Tags(page(EVIL, parts(EVIL))).text.count(EVIL) == 6
    assert page("x", parts("y")).count(get_plotlyjs()) == 1
    assert "script" not in page("x", ["y"])


def test_marks_differ_by_more_than_red_and_green() -> None:
    colours, symbols = zip(*compaction.GROUPS.values(), strict=True)
    assert len(set(colours)) == len(set(symbols)) == 3
    figure = compaction._front_figure(FACTS)
    traces = {trace.name: trace.marker for trace in figure.data}
    assert traces["loses too much"].color == "#d55e00"
    assert traces["smallest of these"].color == "#0072b2"
    assert sum(len(trace.x) for trace in figure.data) == len(FACTS["tried"])


def test_every_swatch_of_a_legend_is_another() -> None:
    rows = [row for row in ROWS if row["folding_name"] == "one"]
    colours = [trace.marker.color for trace in levels._layers_figure("one", rows).data]
    assert len(set(colours)) == 5
    assert all(trace.marker.opacity is None for trace in levels._layers_figure("one", rows).data)
    bars = [trace.marker for trace in levels._levels_figure({"one": rows, "two": rows}).data if trace.type == "bar"]
    assert len({marker.color for marker in bars}) == 4
    assert all(marker.opacity is None for marker in bars)


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 0.12345])
def test_accuracies_are_percent(accuracy: float) -> None:
    row = LEVEL | {"accuracy_before": accuracy}
    assert levels.cell(row, "accuracy_before") == f"{100 * accuracy:.2f}"
