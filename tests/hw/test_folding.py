"""Foldings: FINN's names on disk, what is left out, and every refusal."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.hw.folding import Folding
from cbnn.hw.layer_folding import MAX_FIFO_DEPTH, MAX_FOLD, LayerFolding
from cbnn.model.files import MAX_JSON_BYTES
from cbnn.model.topology import Topology

TOPOLOGY = Topology.parse("16C3-16C3-MP2-32FC-10FC", (8, 8, 1), 5, (4, 3, 2))
PAIRS = ((16, 9), (8, 16), (4, 32), (10, 8))


def divisors(n: int) -> st.SearchStrategy[int]:
    return st.sampled_from([d for d in range(1, n + 1) if n % d == 0])


@st.composite
def foldings(draw: st.DrawFn) -> Folding:
    layers = tuple(LayerFolding(draw(divisors(s.mh)), draw(divisors(s.slice_inputs)), draw(st.integers(1, 999)))
                   for s in TOPOLOGY.layers)
    return Folding(layers, draw(divisors(8 * 8 * 3)))


@settings(deadline=None, max_examples=25)
@given(folding=foldings())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, folding: Folding) -> None:
    path = tmp_path_factory.mktemp("folding") / "folding.json"
    folding.check(TOPOLOGY)
    folding.save(path)
    assert Folding.load(path, TOPOLOGY) == folding
    parsed = Folding.parse(str(folding), TOPOLOGY, folding.input_width)
    assert [(u.pe, u.simd) for u in parsed.layers] == [(u.pe, u.simd) for u in folding.layers]
    assert parsed.input_width == folding.input_width


def test_names_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folding.json"
    Folding.of(TOPOLOGY, PAIRS, 24).save(path)
    assert json.loads(path.read_text()) == {
        "Input": {"SIMD": 24},
        "MVTU_0": {"PE": 16, "SIMD": 9, "inFIFODepths": [2], "ram_style": "auto"},
        "MVTU_1": {"PE": 8, "SIMD": 16, "inFIFODepths": [2], "ram_style": "auto"},
        "MVTU_2": {"PE": 4, "SIMD": 32, "inFIFODepths": [8], "ram_style": "auto"},
        "MVTU_3": {"PE": 10, "SIMD": 8, "inFIFODepths": [4], "ram_style": "auto"}}
    assert [p.name for p in path.parent.iterdir()] == ["folding.json"]


def test_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "folding.json"
    nodes = {f"MVTU_{i}": {"PE": pe, "SIMD": simd} for i, (pe, simd) in enumerate(PAIRS)}
    nodes["MVTU_1"]["inFIFODepths"] = [7]
    path.write_text(json.dumps(nodes))
    folding = Folding.load(path, TOPOLOGY)
    assert [layer.fifo_depth for layer in folding.layers] == [2, 7, 8, 4]
    assert {layer.ram_style for layer in folding.layers} == {"auto"}
    assert folding.input_width == 64


@pytest.mark.parametrize(("in_shape", "width"), [
    ((8, 8, 1), 64), ((32, 32, 3), 64), ((28, 28, 1), 56), ((9, 9, 1), 27), ((1, 67, 1), 1), ((1, 5, 1), 5)])
def test_default_input_width(in_shape: tuple[int, int, int], width: int) -> None:
    assert Folding.of(Topology.parse("2FC", in_shape, 4), ((1, 1),)).input_width == width


@pytest.mark.parametrize(("text", "in_shape", "simd", "width"), [
    ("2FC", (28, 28, 1), 49, 49), ("2FC", (28, 28, 1), 28, 56), ("2FC", (28, 28, 1), 392, 56),
    ("2C3-2FC", (32, 32, 3), 9, 48), ("2C3-2FC", (5, 67, 67), 67, 1)])
def test_default_input_width_suits_the_first_layer(text: str, in_shape: tuple[int, int, int], simd: int,
                                                   width: int) -> None:
    pairs = ((1, simd), (1, 1))[: text.count("-") + 1]
    assert Folding.of(Topology.parse(text, in_shape, 4), pairs).input_width == width


@pytest.mark.parametrize(("text", "folding", "whole_bytes", "width"), [
    ("28x28x1u8-4C3-2FC", ((4, 72), (1, 1)), False, 64), ("28x28x1u8-4C3-2FC", ((4, 72, 4), (1, 1)), False, 64),
    ("28x28x1u8-4C3-2FC", ((4, 72, 14), (1, 1)), False, 112), ("28x28x1u8:7-4C3-2FC", ((4, 9, 28), (1, 1)), False, 56),
    ("32x32x3u8-4C3-2FC", ((4, 24), (1, 1)), False, 48), ("32x32x3u8-4C3-2FC", ((4, 27), (1, 1)), True, 48),
    ("32x32x3u8:7-4C3-2FC", ((4, 27, 8), (1, 1)), True, 192), ("8x8x1u10-4FC", ((4, 4),), True, 64),
    ("28x28x1u8-4FC", ((4, 6272),), False, 6272)])
def test_default_input_width_of_slices_side_by_side_and_of_bytes(
        text: str, folding: tuple[tuple[int, ...], ...], whole_bytes: bool, width: int) -> None:
    assert Folding.of(Topology.parse(text), folding, whole_bytes=whole_bytes).input_width == width


@pytest.mark.parametrize("folding", [
    Folding.of(TOPOLOGY, ((16, 27, 4), *PAIRS[1:])), Folding.of(TOPOLOGY, PAIRS, 32, whole_bytes=True)], ids=str)
def test_all_of_it_is_kept_in_a_file(tmp_path: Path, folding: Folding) -> None:
    folding.save(tmp_path / "folding.json")
    assert Folding.load(tmp_path / "folding.json", TOPOLOGY) == folding


@pytest.mark.parametrize("text", ["(16,9)(8,16)(4,32)(10,8)", " (16, 9) (8, 16)(4,32)(10,8) "])
def test_notation(text: str) -> None:
    assert Folding.parse(text, TOPOLOGY) == Folding.of(TOPOLOGY, PAIRS)


def test_at_least_takes_the_next_divisor() -> None:
    topology = Topology.parse("6C3P0-8C3P0-MP2-8FC-3FC", (8, 7, 3), 8, first_layer="weighted")
    folding = Folding.at_least(topology, [(2, 3), (4, 9), (2, 8), (4, 1)])
    # SIMD 3 of 8 bits: 24 bits at once; four PEs for three classes: three.
    assert [(layer.pe, layer.simd) for layer in folding.layers] == [(2, 24), (4, 9), (2, 8), (3, 1)]


WHOLE = "it must be a whole number of 1 to"
AT_LEAST_1 = f"{WHOLE} {MAX_FOLD}"


POOLED = Topology.parse("12x12x1u1-4C3-MP4-2FC")
WEIGHTED = Topology.parse("8x8x1u4w-4C3-2FC")
UNEVEN = Topology.parse("8x8x1u8w:7,6,3,0-4C3-2FC")
"""Slices that count 128, 64, 8 and 1: pairs of them are not alike."""


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Folding.of(TOPOLOGY, PAIRS[:3]), "the folding is of 3 layers; the network has 4"),
    (lambda: Folding(Folding.of(TOPOLOGY, PAIRS).layers[1:], 8).check(TOPOLOGY),
     "the folding is of 3 layers; the network has 4"),
    (lambda: Folding.of(TOPOLOGY, ((5, 9), *PAIRS[1:])), "layer 0: 16 rows do not fold onto 5 PEs; 4 or 8 would"),
    (lambda: Folding.of(TOPOLOGY, ((16, 7), *PAIRS[1:])),
     "layer 0: 27 inputs (3 slices) do not fold into words of 7; 3 or 9 would"),
    (lambda: Folding.of(TOPOLOGY, (*PAIRS[:3], (10, 64))), "layer 3: 32 inputs do not fold into words of 64; 32 would"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 7), "input: 192 elements do not fold into beats of 7; 6 or 8 would"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 0), f"input_width is 0; {AT_LEAST_1}"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, -8), f"input_width is -8; {AT_LEAST_1}"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 8.0), f"input_width is 8.0; {AT_LEAST_1}"),
    (lambda: Folding.parse("(16,9)(8,16)(4,32)(10,0)", TOPOLOGY), f"layer 3: simd is 0; {AT_LEAST_1}"),
    (lambda: Folding.parse("(16,9)(8,16)(0,32)(10,8)", TOPOLOGY), f"layer 2: pe is 0; {AT_LEAST_1}"),
    (lambda: Folding.parse("(1,1)", Topology.parse("4FC", (999, 999, 3), 1)),
     "layer 0: a vector of 2994003 words does not fit a FIFO, which holds at most 65536; a SIMD of 81 would"),
    (lambda: Folding.of(TOPOLOGY, ((16, 27, 3), *PAIRS[1:])),
     "layer 0: rows of 8 pixels and 8 windows do not fold into 3 windows at once; 2 or 4 would"),
    (lambda: Folding.of(TOPOLOGY, ((8, 27, 4), *PAIRS[1:])),
     "layer 0: 4 windows at once need all 16 PEs and a SIMD of 27; they are 8 and 27"),
    (lambda: Folding.of(TOPOLOGY, ((5, 7, 3), *PAIRS[1:])),
     "layer 0: 3 windows at once need all 16 PEs and a SIMD of 27; they are 5 and 7"),
    (lambda: Folding.of(TOPOLOGY, (*PAIRS[:3], (10, 32, 2))),
     "layer 3: rows of 1 pixels and 1 windows do not fold into 2 windows at once; 1 would"),
    (lambda: Folding.of(POOLED, ((4, 9, 6), (2, 4))),
     "layer 0: rows of 12 pixels and 12 windows do not fold into 6 windows at once; 4 or 12 would"),
    (lambda: Folding.of(WEIGHTED, ((4, 54), (2, 4))),
     "layer 0: 36 inputs (4 slices) do not fold into words of 54; 36 would"),
    (lambda: Folding.of(WEIGHTED, ((4, 9), (2, 4)), whole_bytes=True),
     "layer 0: 36 inputs (4 slices) of whole bytes do not fold into words of 9; 4 or 12 would"),
    (lambda: Folding.of(Topology.parse("200x2000x1u1-2FC"), ((1, 7),)),
     "layer 0: 400000 inputs do not fold into words of 7; 8 would"),
    (lambda: Folding.of(UNEVEN, ((4, 6), (2, 4))),
     "layer 0: 36 inputs (4 slices) do not fold into words of 6; 4 or 9 would"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 12, whole_bytes=True),
     "input: 64 colours of 8 bits do not fold into beats of 12; 8 or 16 would"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 24, whole_bytes=True),
     "input: 64 colours of 8 bits do not fold into beats of 24; 16 or 32 would"),
    (lambda: LayerFolding(1, 1, -2), f"fifo_depth is -2; {WHOLE} {MAX_FIFO_DEPTH}"),
    (lambda: Folding.parse("(16,9)", TOPOLOGY), "the folding is of 1 layers; the network has 4"),
    *[(lambda text=text: Folding.parse(text, TOPOLOGY),
       f"folding {text!r} is not written like (16,9)(8,16)(10,8): one (PE,SIMD) per layer, or (PE,SIMD,MMV)")
      for text in ("", "16,9", "(16,9),(8,16)", "(16,-9)", "(16,9,2,1)", "(16,9,)", "(1.5,9)", "(16,9)x",
                   f"(1,{'9' * 5000})")],
])
def test_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence


def changed(**units: dict) -> str:
    nodes = {f"MVTU_{i}": {"PE": pe, "SIMD": simd} for i, (pe, simd) in enumerate(PAIRS)}
    for name, unit in units.items():
        nodes[name] = nodes.get(name, {}) | unit if isinstance(unit, dict) else unit
    return json.dumps(nodes)


NOT_IT = "{path} is not a folding of this network: "
WRONG = f"{NOT_IT}its JSON is wrong: "


@pytest.mark.parametrize(("text", "sentence"), [
    ("", f"{WRONG}input data was truncated"), ("{", f"{WRONG}input data was truncated"),
    ("[1, 2]", f"{WRONG}expected `object`, got `array`"), ("3", f"{WRONG}expected `object`, got `int`"),
    ("null", f"{WRONG}expected `object`, got `null`"), ("[" * 100_000, f"{WRONG}expected `object`, got `array`"),
    ('{"MVTU_0": ' * 50_000, f"{WRONG}it is nested too deeply"), ("\udcff", f"{WRONG}invalid character (byte 0)"),
    (changed(MVTU_1=[16, 9]), f"{NOT_IT}MVTU_1: its JSON is wrong: expected `object`, got `array`"),
    (changed(Input=5), f"{NOT_IT}Input: its JSON is wrong: expected `object`, got `int`"),
    (changed(MVTU_1={"inFIFODepths": 2}),
     f"{NOT_IT}MVTU_1: its JSON is wrong: expected `array | null`, got `int` at `inFIFODepths`"),
    (changed(MVTU_1={"inFIFODepths": []}),
     f"{NOT_IT}MVTU_1: its JSON is wrong: expected `array` of length >= 1 at `inFIFODepths`"),
    (changed(MVTU_1={"simd": 9}), f"{NOT_IT}MVTU_1: its JSON is wrong: object contains unknown field `simd`"),
    ('{"MVTU_0": {"PE": 16, "SIMD": 9}}', f"{NOT_IT}it lacks 'MVTU_1', a layer of this network"),
    (changed(MVTU_1=None).replace("null", '{"SIMD": 3}'),
     f"{NOT_IT}MVTU_1: its JSON is wrong: object missing required field `PE`"),
    (changed(MVTU_4={"PE": 1, "SIMD": 1}), f"{NOT_IT}it folds 'MVTU_4', which this network does not have"),
    (changed(Pool={}), f"{NOT_IT}it folds 'Pool', which this network does not have"),
    (changed(MVTU_0={"PE": "16"}), f"layer 0: pe is '16'; {AT_LEAST_1}"),
    (changed(MVTU_0={"PE": 3.5}), f"layer 0: pe is 3.5; {AT_LEAST_1}"),
    (changed(MVTU_0={"PE": 16.0}), f"layer 0: pe is 16.0; {AT_LEAST_1}"),
    (changed(MVTU_0={"PE": True}), f"layer 0: pe is True; {AT_LEAST_1}"),
    (changed(MVTU_0={"PE": None}), f"layer 0: pe is None; {AT_LEAST_1}"),
    (changed(MVTU_0={"SIMD": float("nan")}), f"{WRONG}invalid character (byte 30)"),
    (changed(MVTU_0={"SIMD": 1e300}), f"layer 0: simd is 1e+300; {AT_LEAST_1}"),
    (changed(MVTU_3={"SIMD": -8}), f"layer 3: simd is -8; {AT_LEAST_1}"),
    (changed(MVTU_3={"SIMD": 0}), f"layer 3: simd is 0; {AT_LEAST_1}"),
    (changed(MVTU_0={"inFIFODepths": [-1]}), f"layer 0: fifo_depth is -1; {WHOLE} {MAX_FIFO_DEPTH}"),
    (changed(MVTU_0={"inFIFODepths": ["2"]}), f"layer 0: fifo_depth is '2'; {WHOLE} {MAX_FIFO_DEPTH}"),
    (changed(MVTU_0={"inFIFODepths": [10**9]}), f"layer 0: fifo_depth is 1000000000; {WHOLE} {MAX_FIFO_DEPTH}"),
    (changed(MVTU_0={"inFIFODepths": [0]}).replace("[0]", f"[{'9' * 5000}]"),
     f"{NOT_IT}MVTU_0: its JSON is wrong: integer value out of range at `inFIFODepths[0]`"),
    (changed(MVTU_0={"inFIFODepths": [False]}), f"layer 0: fifo_depth is False; {WHOLE} {MAX_FIFO_DEPTH}"),
    (changed(MVTU_0={"ram_style": "ultra"}),
     "layer 0: ram_style is 'ultra'; it must be one of auto, block, distributed"),
    (changed(MVTU_0={"ram_style": 1}), "layer 0: ram_style is 1; it must be one of auto, block, distributed"),
    (changed(MVTU_0={"ram_style": []}), "layer 0: ram_style is []; it must be one of auto, block, distributed"),
    (changed(Input={"SIMD": "8"}), f"input_width is '8'; {AT_LEAST_1}"),
    (changed(Input={"SIMD": 0}), f"input_width is 0; {AT_LEAST_1}"),
    (changed(Input={"SIMD": 8, "whole_bytes": 1}),
     f"{NOT_IT}Input: its JSON is wrong: expected `bool`, got `int` at `whole_bytes`"),
    (changed(Input={"SIMD": 12, "whole_bytes": True}),
     "input: 64 colours of 8 bits do not fold into beats of 12; 8 or 16 would"),
    (changed(MVTU_0={"MMV": 0}), f"layer 0: mmv is 0; {AT_LEAST_1}"),
    (changed(MVTU_0={"MMV": 2}),
     "layer 0: 2 windows at once need all 16 PEs and a SIMD of 27; they are 16 and 9"),
    (changed(Input={"SIMD": 5}), "input: 192 elements do not fold into beats of 5; 4 or 6 would"),
    (changed(MVTU_0={"PE": 5}), "layer 0: 16 rows do not fold onto 5 PEs; 4 or 8 would"),
    (" " * (MAX_JSON_BYTES + 1), "{path} is larger than 1048576 bytes, the most that is read"),
])
def test_bad_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "folding.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as caught:
        Folding.load(path, TOPOLOGY)
    assert str(caught.value) == sentence.format(path=path)


def test_no_file(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "missing", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError) as caught:
            Folding.load(path, TOPOLOGY)
        assert str(caught.value) == f"{path} cannot be read: {reason}"


def test_nothing_is_written_on_error(tmp_path: Path) -> None:
    target = tmp_path / "folding.json"
    target.mkdir()
    with pytest.raises(ValueError, match="is a folder; a file is to be written"):
        Folding.of(TOPOLOGY, PAIRS).save(target)
    assert [p.name for p in tmp_path.rglob("*")] == ["folding.json"]
