"""BNN-PYNQ's parameter files: written here as their format says, read back, and computed by their own rules."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cbnn.model.compute import golden
from cbnn.model.data import datasets
from cbnn.model.exchange import bnn_pynq, storage

CONV = {"in_shape": [8, 7, 3], "classes": 3, "first_layer": "fixed point", "layers": [
    {"kind": "conv", "kernel": 3, "pe": 2, "simd": 3, "mw": 27, "mh": 6},
    {"kind": "conv", "kernel": 3, "pe": 4, "simd": 9, "mw": 54, "mh": 8, "pool": 2},
    {"kind": "dense", "pe": 2, "simd": 8, "mw": 16, "mh": 8},
    {"kind": "dense", "pe": 4, "simd": 1, "mw": 8, "mh": 4, "scores": True}]}
DENSE = {"in_shape": [5, 5, 1], "classes": 3, "first_layer": "binary", "layers": [
    {"kind": "dense", "pe": 4, "simd": 16, "mw": 32, "mh": 8},
    {"kind": "dense", "pe": 1, "simd": 2, "mw": 8, "mh": 8},
    {"kind": "dense", "pe": 2, "simd": 8, "mw": 8, "mh": 16, "scores": True}]}


def write(table: dict, folder: Path, seed: int = 0) -> tuple[list, list]:
    """Write random parameters; return weights of -1 and 1, and thresholds, as matrices."""
    rng, all_weights, all_thresholds = np.random.default_rng(seed), [], []
    for i, entry in enumerate(table["layers"]):
        mh, mw, pe, simd = (entry[key] for key in ("mh", "mw", "pe", "simd"))
        weights = rng.integers(0, 2, (mh, mw))
        spread = 256 if i == 0 and table["first_layer"] == "fixed point" else 1
        thresholds = rng.integers(-3, 4, mh) * spread + rng.integers(0, spread + 1, mh)
        thresholds += 0 if spread > 1 else mw // 2
        for p in range(pe):
            lines = [sum(int(weights[nf * pe + p, sf * simd + s]) << s for s in range(simd))
                     for nf in range(mh // pe) for sf in range(mw // simd)]
            (folder / f"{i}-{p}-weights.bin").write_bytes(np.array(lines, "<u8").tobytes())
            if not entry.get("scores"):
                (folder / f"{i}-{p}-thres.bin").write_bytes(thresholds[p::pe].astype("<i8").tobytes())
        all_weights.append(weights)
        all_thresholds.append(thresholds)
    (folder / "table.json").write_text(json.dumps(table))
    return all_weights, all_thresholds


def scores(table: dict, weights: list, thresholds: list, image: np.ndarray) -> list[int]:
    """One image by the rules of the format, bit by bit."""
    q = np.clip(np.floor(128 * (2 * image / 255 - 1) + 0.5), -128, 127).astype(int)
    values = q if table["first_layer"] == "fixed point" else (2 * image / 255 - 1 >= 0).astype(int)
    for i, entry in enumerate(table["layers"]):
        kernel = entry.get("kernel", 0)
        if kernel:
            rows, columns = values.shape[0] - kernel + 1, values.shape[1] - kernel + 1
            windows = np.array([[values[y : y + kernel, x : x + kernel].ravel() for x in range(columns)]
                                for y in range(rows)])
        else:
            windows = values.reshape(1, 1, -1)
            windows = np.pad(windows, ((0, 0), (0, 0), (0, entry["mw"] - windows.shape[2])))
        if i == 0 and table["first_layer"] == "fixed point":
            bits = (2 * (windows @ (2 * weights[i] - 1).T) > thresholds[i]).astype(int)
        else:
            counts = (windows[:, :, np.newaxis] == weights[i]).sum(axis=3)
            if entry.get("scores"):
                return counts[0, 0, : table["classes"]].tolist()
            bits = (counts > thresholds[i]).astype(int)
        pool = entry.get("pool", 1)
        rows, columns = bits.shape[0] // pool, bits.shape[1] // pool
        values = bits[: rows * pool, : columns * pool].reshape(rows, pool, columns, pool, -1).max(axis=(1, 3))
    raise AssertionError


@pytest.mark.parametrize("table", [CONV, DENSE], ids=["conv", "dense"])
def test_scores_are_those_of_the_format(table: dict, tmp_path: Path) -> None:
    weights, thresholds = write(table, tmp_path)
    network = bnn_pynq.load(tmp_path, tmp_path / "table.json")
    images = np.random.default_rng(1).integers(0, 256, (40, *table["in_shape"]), np.uint8)
    images[0], images[1], images[2] = 0, 255, 127
    ours = golden.scores(network, images).tolist()
    assert ours == [scores(table, weights, thresholds, image.astype(int)) for image in images]
    assert len({tuple(row) for row in ours}) > 1
    storage.save(network, tmp_path / "network.npz")
    again = storage.load(tmp_path / "network.npz")
    assert golden.scores(again, images).tolist() == ours


def test_pe_and_simd_are_the_tables(tmp_path: Path) -> None:
    write(CONV, tmp_path)
    assert bnn_pynq.pe_simd(tmp_path / "table.json") == [(2, 3), (4, 9), (2, 8), (4, 1)]


def spoil(table: dict, i: int, **values: object) -> str:
    layers = [{**entry, **values} if k == i else entry for k, entry in enumerate(table["layers"])]
    return json.dumps({**table, "layers": layers})


@pytest.mark.parametrize(("content", "sentence"), [
    ("", "its JSON is wrong: input data was truncated"), ("[]", "its JSON is wrong: expected `object`, got `array`"),
    ("{}", "its JSON is wrong: object missing required field `in_shape`"),
    ("[" * 100_000, "its JSON is wrong: expected `object`, got `array`"),
    ("\xff", "its JSON is wrong: invalid character (byte 0)"),
    (json.dumps({**CONV, "more": 1}), "its JSON is wrong: object contains unknown field `more`"),
    (json.dumps({**CONV, "layers": {}}), "its JSON is wrong: expected `array`, got `object` at `layers`"),
    (json.dumps({**CONV, "layers": []}), "its JSON is wrong: expected `array` of length >= 1 at `layers`"),
    (json.dumps({**CONV, "layers": [3]}), "its JSON is wrong: expected `object`, got `int` at `layers[0]`"),
    (json.dumps({**CONV, "classes": True}), "its JSON is wrong: expected `int`, got `bool` at `classes`"),
    (json.dumps({**CONV, "classes": 3.0}), "its JSON is wrong: expected `int`, got `float` at `classes`"),
    (json.dumps({**CONV, "classes": 10**400}), "its JSON is wrong: expected `int` <= 65536 at `classes`"),
    (json.dumps({**CONV, "in_shape": [8, 7]}), "its JSON is wrong: expected `array` of length 3 at `in_shape`"),
    (json.dumps({**CONV, "in_shape": [8, 7, 3.0]}), "its JSON is wrong: expected `int`, got `float` at `in_shape[2]`"),
    (spoil(CONV, 1, stide=1), "its JSON is wrong: object contains unknown field `stide` at `layers[1]`"),
    (spoil(CONV, 2, kernel=1), "its JSON is wrong: object contains unknown field `kernel` at `layers[2]`"),
    (spoil(CONV, 2, pool=1), "its JSON is wrong: object contains unknown field `pool` at `layers[2]`"),
    (spoil(CONV, 1, stride=True), "its JSON is wrong: expected `int`, got `bool` at `layers[1].stride`"),
    (spoil(CONV, 1, kernel="3"), "its JSON is wrong: expected `int`, got `str` at `layers[1].kernel`"),
    (spoil(CONV, 1, pool=0), "its JSON is wrong: expected `int` >= 1 at `layers[1].pool`"),
    (spoil(CONV, 1, kind=["conv"]), "its JSON is wrong: expected `str` at `layers[1].kind`"),
    (spoil(CONV, 3, scores=1), "its JSON is wrong: expected `bool`, got `int` at `layers[3].scores`"),
    (json.dumps({**CONV, "first_layer": ["binary"]}),
     "its JSON is wrong: expected `str`, got `array` at `first_layer`"),
    (json.dumps({**CONV, "first_layer": "x"}), "its JSON is wrong: invalid enum value 'x' at `first_layer`"),
    (spoil(CONV, 1, pe="4"), "its JSON is wrong: expected `int`, got `str` at `layers[1].pe`"),
    (spoil(CONV, 1, kind="lstm"), "its JSON is wrong: invalid value 'lstm' at `layers[1].kind`"),
    (spoil(CONV, 1, simd=10), "layer 1: 8 x 54 does not fold onto 4 PEs of SIMD 10"),
    (spoil(CONV, 1, simd=65), "its JSON is wrong: expected `int` <= 64 at `layers[1].simd`"),
    (spoil(CONV, 1, scores=True), "layer 1 has scores; the last layer gives them, and no other"),
    (spoil(CONV, 3, scores=False), "layer 3 lacks scores; the last layer gives them, and no other"),
    (spoil(CONV, 0, mw=24), "layer 0 is given as 6 x 24; it needs 6 x 27"),
    (spoil(CONV, 1, mw=108, simd=9), "1-0-weights.bin is of 96 bytes; the table asks for 192"),
    (json.dumps({**CONV, "in_shape": [2, 2, 3]}), "layer 0: 6C3P0 does not fit an input of 2x2"),
    (json.dumps({**CONV, "in_shape": 3}), "its JSON is wrong: expected `array`, got `int` at `in_shape`"),
])
def test_bad_tables(content: str, sentence: str, tmp_path: Path) -> None:
    write(CONV, tmp_path)
    (tmp_path / "table.json").write_text(content, "latin-1")
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path, tmp_path / "table.json")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("i", "values", "sentence"), [
    # As many words in as many bytes, so that only names and bits tell. PE and SIMD swapped in the last layer:
    (3, {"pe": 1, "simd": 4}, "{} holds 3-1-weights.bin; the table has 1 PEs in layer 3, the first being 0"),
    (2, {"pe": 1, "simd": 16}, "{} holds 2-1-thres.bin; the table has 1 PEs in layer 2, the first being 0"),
    # The two files of a dense layer of SIMD 8 read as SIMD 4 of rows half as long.
    (2, {"simd": 4, "mw": 16, "mh": 4}, "weights of layer 2 have bits up to 7; the table has SIMD 4, which are the "
                                        "bits 0 to 3"),
])
def test_what_the_files_contradict(i: int, values: dict, sentence: str, tmp_path: Path) -> None:
    write(CONV, tmp_path)
    (tmp_path / "table.json").write_text(spoil(CONV, i, **values))
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path, tmp_path / "table.json")
    assert str(caught.value) == sentence.format(tmp_path)


def test_fewer_layers_than_files(tmp_path: Path) -> None:
    write(CONV, tmp_path)
    layers = [*CONV["layers"][:2], {**CONV["layers"][2], "scores": True}]
    (tmp_path / "table.json").write_text(json.dumps({**CONV, "layers": layers}))
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path, tmp_path / "table.json")
    assert str(caught.value) == f"{tmp_path} holds 3-0-weights.bin; the table has 3 layers, the first being 0"


def test_names_of_classes_are_counted(tmp_path: Path) -> None:
    write(CONV, tmp_path)
    (tmp_path / "classes.txt").write_text("Airplane\nBird\nCat\n\n")
    bnn_pynq.load(tmp_path, tmp_path / "table.json")
    (tmp_path / "classes.txt").write_text("Airplane\r\nBird\r\nCat\r\nDeer")
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path, tmp_path / "table.json")
    assert str(caught.value) == f"{tmp_path / 'classes.txt'} names 4 classes; the table has 3"
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path / "none", tmp_path / "table.json")
    assert str(caught.value) == f"{tmp_path / 'none'} cannot be read: No such file or directory"


def test_missing_and_short_files(tmp_path: Path) -> None:
    write(CONV, tmp_path)
    (tmp_path / "1-2-thres.bin").write_bytes(bytes(7))
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path, tmp_path / "table.json")
    assert str(caught.value) == f"{tmp_path / '1-2-thres.bin'} is of 7 bytes; the table asks for 16"
    (tmp_path / "1-2-thres.bin").unlink()
    with pytest.raises(ValueError) as caught:
        bnn_pynq.load(tmp_path, tmp_path / "table.json")
    assert str(caught.value) == f"{tmp_path / '1-2-thres.bin'} cannot be read: No such file or directory"


CNV = Path(os.environ.get("CBNN_NETWORKS_DIR", "")) / "bnn-pynq-cnvw1a1-cifar10"
CNV_TABLE = Path(__file__).parents[3] / "examples" / "cnvW1A1.json"
needs_cnv = pytest.mark.skipif(not os.environ.get("CBNN_NETWORKS_DIR"),
                               reason="CBNN_NETWORKS_DIR does not name a folder of others' networks")


@needs_cnv
def test_the_deer_of_cnvw1a1() -> None:
    network = bnn_pynq.load(CNV, CNV_TABLE)
    image = np.frombuffer((CNV / "deer.bin").read_bytes()[1:], np.uint8).reshape(1, 3, 32, 32).transpose(0, 2, 3, 1)
    wanted = [228, 229, 251, 250, 412, 253, 230, 262, 222, 239]
    for backend in golden.BACKENDS:
        assert golden.scores(network, image, backend)[0].tolist() == wanted


@needs_cnv
@pytest.mark.skipif(not os.environ.get("CBNN_DATA_DIR"), reason="CBNN_DATA_DIR does not name a folder of data sets")
def test_cnvw1a1_on_the_whole_test_set() -> None:
    network, data = bnn_pynq.load(CNV, CNV_TABLE), datasets.load("cifar10")
    if data.note == "JPEG copy":
        assert golden.accuracy(network, data.test_images, data.test_labels) == 0.7447
    else:
        assert golden.accuracy(network, data.test_images, data.test_labels) > 0.78


@needs_cnv
def test_cnvw1a1_with_pe_and_simd_swapped_is_refused(tmp_path: Path) -> None:
    table = json.loads(CNV_TABLE.read_text())
    for i, entry in enumerate(table["layers"]):
        if entry["pe"] == entry["simd"] or entry["mw"] % entry["pe"] or entry["mh"] % entry["simd"]:
            continue
        (tmp_path / "table.json").write_text(spoil(table, i, pe=entry["simd"], simd=entry["pe"]))
        with pytest.raises(ValueError):
            bnn_pynq.load(CNV, tmp_path / "table.json")
