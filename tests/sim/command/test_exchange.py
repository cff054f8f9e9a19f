"""Networks in and out by the command."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from cbnn.model.compute import golden
from cbnn.model.exchange import qonnx_export, storage
from cbnn.model.network import Network, random_network
from cbnn.model.topology import Topology

TOPOLOGY = Topology.parse("6C3P0-9FC-4FC", (5, 5, 1), 8, first_layer="weighted")
NETWORK = random_network(TOPOLOGY, 1)


def test_export_then_import(cbnn, tmp_path: Path) -> None:
    storage.save(NETWORK, tmp_path / "net.npz")
    code, out, _ = cbnn("export", "qonnx", tmp_path / "net.npz", "--out", tmp_path / "net.onnx")
    assert (code, out) == (0, f"{tmp_path / 'net.onnx'}\n")
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"))
    code, out, _ = cbnn("import", "qonnx", tmp_path / "net.onnx", "--high", 255, "--out", tmp_path / "again.npz",
                        "--json")
    assert code == 0
    assert json.loads(out)["topology"] == str(TOPOLOGY)
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 5, 1))
    again = storage.load(tmp_path / "again.npz")
    difference = golden.scores(again, images) - golden.scores(NETWORK, images)
    assert (difference == difference[:, :1]).all()


def test_import_bnn_pynq_with_its_folding(cbnn, tmp_path: Path) -> None:
    table = {"in_shape": [3, 3, 1], "classes": 2, "first_layer": "binary", "layers": [
        {"kind": "dense", "pe": 2, "simd": 3, "mw": 9, "mh": 4},
        {"kind": "dense", "pe": 1, "simd": 4, "mw": 4, "mh": 2, "scores": True}]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    for name, n in (("0-0-weights", 6), ("0-1-weights", 6), ("0-0-thres", 2), ("0-1-thres", 2), ("1-0-weights", 2)):
        (tmp_path / f"{name}.bin").write_bytes(np.arange(n, dtype="<i8").tobytes())
    code, out, _ = cbnn("import", "bnn-pynq", tmp_path, "--table", tmp_path / "table.json", "--out",
                        tmp_path / "net.npz", "--folding-out", tmp_path / "folding.json", "--json")
    assert code == 0
    assert json.loads(out)["topology"] == "3x3x1u8:7-4FC-2FC"
    code, out, _ = cbnn("verify", tmp_path / "net.npz", "--folding", tmp_path / "folding.json", "--out", tmp_path / "v",
                        "--images", 4, "--json")
    assert code == 0
    assert json.loads(out)["wrong_images"] == []


def test_folding_of_finn_and_back(cbnn, tmp_path: Path) -> None:
    storage.save(NETWORK, tmp_path / "net.npz")
    (tmp_path / "finn.json").write_text(json.dumps({
        "Defaults": {}, "Thresholding_hls_0": {"PE": 1}, "MVAU_hls_0": {"PE": 2, "SIMD": 1},
        "MVAU_hls_1": {"PE": 2, "SIMD": 9}, "MVAU_hls_2": {"PE": 1, "SIMD": 3}}))
    code, out, _ = cbnn("import", "finn-folding", tmp_path / "finn.json", "--model", tmp_path / "net.npz", "--out",
                        tmp_path / "folding.json")
    # A pixel of 8 bits is 8 bits here.
    assert (code, out) == (0, "(2,8)(3,9)(1,3)\n")
    code, _, _ = cbnn("export", "finn-folding", tmp_path / "net.npz", "--folding", tmp_path / "folding.json", "--out",
                      tmp_path / "back.json")
    assert code == 0
    assert json.loads((tmp_path / "back.json").read_text())["MVAU_hls_0"] == {"PE": 2, "SIMD": 1, "ram_style": "auto"}


@pytest.mark.parametrize(("words", "sentence"), [
    (("import", "qonnx", "none.onnx", "--out", "x.npz"), "none.onnx cannot be read: No such file or directory"),
    (("import", "qonnx", "text.onnx", "--out", "x.npz"), "text.onnx is not an ONNX file"),
    (("import", "bnn-pynq", ".", "--table", "text.onnx", "--out", "x.npz"), "text.onnx is no table of layers: "),
    (("export", "qonnx", "none.npz", "--out", "x.onnx"), "none.npz cannot be read: No such file or directory"),
])
def test_bad_input_is_one_sentence_and_writes_nothing(cbnn, words, sentence: str, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("no network at all")
    code, out, err = cbnn(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"cbnn: {sentence}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


def test_predict_codes_the_picture(cbnn, tmp_path: Path) -> None:
    network = Network(TOPOLOGY, NETWORK.parameters, np.arange(255, -1, -1))
    storage.save(network, tmp_path / "net.npz")
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 1), np.uint8)
    np.save(tmp_path / "image.npy", image)
    code, out, _ = cbnn("predict", tmp_path / "net.npz", tmp_path / "image.npy", "--json")
    assert code == 0
    assert json.loads(out)["scores"] == golden.scores(NETWORK, 255 - image[np.newaxis])[0].tolist()
    assert qonnx_export.DOMAIN
