"""BNN-PYNQ's parameter files: written here as their format says, read back, and computed by their own rules."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cbnn.model import bnn_pynq, datasets, golden, storage

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


def test_folding_is_the_tables_as_far_as_it_folds(tmp_path: Path) -> None:
    write(CONV, tmp_path)
    network = bnn_pynq.load(tmp_path, tmp_path / "table.json")
    found = bnn_pynq.folding(network.topology, tmp_path / "table.json")
    # SIMD 3 of 8 bits: 24 bits at once, of a slice's 27; four padded classes on four PEs: three.
    assert [(layer.pe, layer.simd) for layer in found.layers] == [(2, 27), (4, 9), (2, 8), (3, 1)]


def spoil(table: dict, i: int, **values: object) -> str:
    layers = [{**entry, **values} if k == i else entry for k, entry in enumerate(table["layers"])]
    return json.dumps({**table, "layers": layers})


@pytest.mark.parametrize(("content", "sentence"), [
    ("", "is no table of layers: it is not JSON"), ("[]", "is no table of layers: the table is no JSON object"),
    ("{}", "is no table of layers: the table lacks classes"), ("[" * 100_000, "is no table of layers: it is not JSON"),
    ("\xff", "is no table of layers: it is not JSON"),
    (json.dumps({**CONV, "more": 1}), "the table has 'more', which is not known; "),
    (json.dumps({**CONV, "layers": {}}), "layers must be a list of 1 to 64"),
    (json.dumps({**CONV, "layers": []}), "layers must be a list of 1 to 64"),
    (json.dumps({**CONV, "layers": [3]}), "layer 0 is no JSON object"),
    (json.dumps({**CONV, "classes": True}), "classes is True; it must be a whole number, 1 to 65536"),
    (json.dumps({**CONV, "classes": 3.0}), "classes is 3.0; it must be a whole number, 1 to 65536"),
    (json.dumps({**CONV, "classes": 10**400}), "classes is 1000"),
    (json.dumps({**CONV, "in_shape": [8, 7]}), "in_shape is [8, 7]; it must be a list of height, width and colours"),
    (json.dumps({**CONV, "in_shape": [8, 7, 3.0]}), "in_shape is 3.0; it must be a whole number, 1 to 65536"),
    (spoil(CONV, 1, stide=1), "layer 1 has 'stide', which is not known; "),
    (spoil(CONV, 2, kernel=1), "layer 2 has 'kernel', which is not known; "),
    (spoil(CONV, 2, pool=1), "layer 2 has 'pool', which is not known; "),
    (spoil(CONV, 1, stride=True), "stride of layer 1 is True; it must be a whole number, 1 to 65536"),
    (spoil(CONV, 1, kernel="3"), "kernel of layer 1 is '3'; it must be a whole number, 1 to 65536"),
    (spoil(CONV, 1, pool=0), "pool of layer 1 is 0; it must be a whole number, 1 to 65536"),
    (spoil(CONV, 1, kind=["conv"]), "layer 1 is of kind ['conv']; it must be conv or dense"),
    (spoil(CONV, 3, scores=1), "scores of layer 3 is 1; it must be true or false"),
    (json.dumps({**CONV, "first_layer": ["binary"]}), "first_layer is ['binary']; it must be one of "),
    (json.dumps({**CONV, "first_layer": "x"}), "first_layer is 'x'; it must be one of fixed point, binary"),
    (spoil(CONV, 1, pe="4"), "pe of layer 1 is '4'; it must be a whole number, 1 to 65536"),
    (spoil(CONV, 1, kind="lstm"), "layer 1 is of kind 'lstm'; it must be conv or dense"),
    (spoil(CONV, 1, simd=10), "layer 1: 8 x 54 does not fold onto 4 PEs of SIMD 10"),
    (spoil(CONV, 1, simd=65), "layer 1 has SIMD 65; words of the files hold 1 to 64 bits"),
    (spoil(CONV, 1, scores=True), "layer 1 has scores; the last layer gives them, and no other"),
    (spoil(CONV, 3, scores=False), "layer 3 lacks scores; the last layer gives them, and no other"),
    (spoil(CONV, 0, mw=24), "layer 0 is given as 6 x 24; it needs 6 x 27"),
    (spoil(CONV, 1, mw=108, simd=9), "1-0-weights.bin is of 96 bytes; the table asks for 192"),
    (json.dumps({**CONV, "in_shape": [2, 2, 3]}), "layer 0 (6C3P0) does not fit an input of 2x2"),
    (json.dumps({**CONV, "in_shape": 3}), "in_shape is 3; it must be a list of height, width and colours"),
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
CNV_TABLE = Path(__file__).parents[2] / "examples" / "cnvW1A1.json"
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
