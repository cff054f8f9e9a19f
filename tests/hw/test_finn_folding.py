"""FINN's folding files: PE and SIMD come through, whatever FINN's version called its kernels."""

import json
from pathlib import Path

import pytest

from cbnn.hw import finn_folding
from cbnn.hw.folding import Folding
from cbnn.model.topology import Topology

TFC = Topology.parse("64FC-64FC-64FC-10FC", (28, 28, 1), 1)
CNV = Topology.parse("64C3P0-64C3P0-MP2-128C3P0-10FC", (32, 32, 3), 8, first_layer="weighted")


def written(path: Path, nodes: object) -> Path:
    path.write_text(nodes if isinstance(nodes, str) else json.dumps(nodes))
    return path


def units(name: str, pairs: list[tuple[int, int]], **more: object) -> dict:
    return {f"{name}_{i}": {"PE": pe, "SIMD": simd, **more} for i, (pe, simd) in enumerate(pairs)}


@pytest.mark.parametrize("name", ["MVAU_hls", "MVAU_rtl", "MatrixVectorActivation", "StreamingFCLayer_Batch"])
def test_names_of_all_versions(name: str, tmp_path: Path) -> None:
    nodes = {"Defaults": {"mem_mode": ["decoupled", ["all"]]}, "Thresholding_Batch_0": {"PE": 49},
             **units(name, [(16, 49), (8, 8), (8, 8), (10, 8)], ram_style="block", inFIFODepths=[32]),
             "LabelSelect_Batch_0": {"PE": 1}}
    folding = finn_folding.load(written(tmp_path / "f.json", nodes), TFC)
    assert str(folding) == "(16,49)(8,8)(8,8)(10,8)"
    assert {layer.ram_style for layer in folding.layers} == {"block"}
    assert [layer.fifo_depth for layer in folding.layers] == [16, 8, 8, 8]


def test_pixels_are_counted_in_bits(tmp_path: Path) -> None:
    nodes = units("MatrixVectorActivation", [(16, 3), (32, 32), (16, 32), (1, 4)], ram_style="ultra")
    folding = finn_folding.load(written(tmp_path / "f.json", nodes), CNV)
    assert str(folding) == "(16,24)(32,32)(16,32)(1,4)"  # three pixels of 8 bits
    finn_folding.save(folding, CNV, tmp_path / "back.json")
    assert json.loads((tmp_path / "back.json").read_text()) == {"Defaults": {}, **units(
        "MVAU_hls", [(16, 3), (32, 32), (16, 32), (1, 4)], ram_style="auto")}


def test_there_and_back(tmp_path: Path) -> None:
    folding = Folding.parse("(16,49)(8,8)(8,8)(10,8)", TFC)
    finn_folding.save(folding, TFC, tmp_path / "f.json")
    assert finn_folding.load(tmp_path / "f.json", TFC) == folding


def test_the_other_reader_is_named(tmp_path: Path) -> None:
    finns = written(tmp_path / "f.json", {"Defaults": {}, **units("MVAU_hls", [(16, 49), (8, 8), (8, 8), (10, 8)])})
    with pytest.raises(ValueError, match=r"does not have; cbnn import finn-folding reads FINN's files$"):
        Folding.load(finns, TFC)


@pytest.mark.parametrize(("nodes", "sentence"), [
    ("{", "is not a folding of FINN's for this network: its JSON is wrong: input data was truncated"),
    ("[1]", "its JSON is wrong: expected `object`, got `array`"),
    ({f"MVAU_hls_{i}": 3 for i in range(4)}, "its matrix units and Defaults are not objects"),
    (units("MVAU_hls", [(16, 49), (8, 8)]), "it has 2 matrix units, the network 4 layers"),
    (units("MVAU_hls", [(16, 49), (8, 8), (8, 8), (0, 8)]), "PE of matrix unit 3 is 0; it must be a whole number of"),
    (units("MVAU_hls", [(16, 49), (8, 8), (8, 8), (10, True)]), "SIMD of matrix unit 3 is True; it must be a whole"),
    (units("MVAU_hls", [(1, 1)] * 4) | {"MVAU_rtl_0": {"PE": 1, "SIMD": 1}}, "two of its matrix units have the same"),
    (units("MVAU_hls", [(10**99, 1)] * 4), "PE of matrix unit 0 is 10000000000000000000; it must be a whole "),
    (units("MVTU", [(16, 49), (8, 8), (8, 8), (10, 8)]), "it is one of cbnn's already, which --folding takes"),
    ({"Defaults": {"PE": [1, ["all"]]}, **units("MVAU_hls", [(1, 1)] * 4)}, "its Defaults fold units; name PE and "),
])
def test_bad_files(nodes: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        finn_folding.load(written(tmp_path / "f.json", nodes), TFC)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_windows_at_once_have_no_place_there(tmp_path: Path) -> None:
    topology = Topology.parse("8x8x1u1-4C3-5FC")
    folding = Folding.parse("(4,9,2)(5,4)", topology)
    with pytest.raises(ValueError, match=r"^layer 0 works on 2 windows at once; FINN's folding files cannot say so$"):
        finn_folding.save(folding, topology, tmp_path / "f.json")
    assert not list(tmp_path.iterdir())
