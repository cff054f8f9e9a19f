"""Foldings: FINN's names on disk, what is left out, and every refusal."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.hw.folding import MAX_FIFO_DEPTH, MAX_FOLD, Folding, LayerFolding
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


@pytest.mark.parametrize("text", ["(16,9)(8,16)(4,32)(10,8)", " (16, 9) (8, 16)(4,32)(10,8) "])
def test_notation(text: str) -> None:
    assert Folding.parse(text, TOPOLOGY) == Folding.of(TOPOLOGY, PAIRS)


def test_at_least_takes_the_next_divisor() -> None:
    topology = Topology.parse("6C3P0-8C3P0-MP2-8FC-3FC", (8, 7, 3), 8, first_layer="weighted")
    folding = Folding.at_least(topology, [(2, 3), (4, 9), (2, 8), (4, 1)])
    # SIMD 3 of 8 bits: 24 bits at once, of a slice's 27; four PEs for three classes: three.
    assert [(layer.pe, layer.simd) for layer in folding.layers] == [(2, 27), (4, 9), (2, 8), (3, 1)]


WHOLE = "it must be a whole number of 1 to"
AT_LEAST_1 = f"{WHOLE} {MAX_FOLD}"


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Folding.of(TOPOLOGY, PAIRS[:3]), "the folding is of 3 layers; the network has 4"),
    (lambda: Folding(Folding.of(TOPOLOGY, PAIRS).layers[1:], 8).check(TOPOLOGY),
     "the folding is of 3 layers; the network has 4"),
    (lambda: Folding.of(TOPOLOGY, ((5, 9), *PAIRS[1:])), "layer 0: 16 rows do not fold onto 5 PEs"),
    (lambda: Folding.of(TOPOLOGY, ((16, 27), *PAIRS[1:])), "layer 0: 9 inputs do not fold into words of 27"),
    (lambda: Folding.of(TOPOLOGY, (*PAIRS[:3], (10, 64))), "layer 3: 32 inputs do not fold into words of 64"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 7), "input: 192 elements do not fold into beats of 7"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 0), f"input_width is 0; {AT_LEAST_1}"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, -8), f"input_width is -8; {AT_LEAST_1}"),
    (lambda: Folding.of(TOPOLOGY, PAIRS, 8.0), f"input_width is 8.0; {AT_LEAST_1}"),
    (lambda: Folding.parse("(16,9)(8,16)(4,32)(10,0)", TOPOLOGY), f"layer 3: simd is 0; {AT_LEAST_1}"),
    (lambda: Folding.parse("(16,9)(8,16)(0,32)(10,8)", TOPOLOGY), f"layer 2: pe is 0; {AT_LEAST_1}"),
    (lambda: Folding.parse("(1,1)", Topology.parse("4FC", (999, 999, 3), 1)),
     f"layer 0: fifo_depth is 2994003; {WHOLE} {MAX_FIFO_DEPTH}"),
    (lambda: LayerFolding(1, 1, -2), f"fifo_depth is -2; {WHOLE} {MAX_FIFO_DEPTH}"),
    (lambda: Folding.parse("(16,9)", TOPOLOGY), "the folding is of 1 layers; the network has 4"),
    *[(lambda text=text: Folding.parse(text, TOPOLOGY),
       f"folding {text!r} is not written like (16,9)(8,16)(10,8): one (PE,SIMD) per layer")
      for text in ("", "16,9", "(16,9),(8,16)", "(16,-9)", "(16,9,2)", "(1.5,9)", "(16,9)x", f"(1,{'9' * 5000})")],
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
    (changed(Input={"SIMD": 5}), "input: 192 elements do not fold into beats of 5"),
    (changed(MVTU_0={"PE": 5}), "layer 0: 16 rows do not fold onto 5 PEs"),
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
