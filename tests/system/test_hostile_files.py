"""Damaged and hostile files of every kind that is read: each gives what is in it, or one sentence.

Hypothesis draws mutations of good files. No other exception comes, none takes 2 s of the processor
or 500 MB, and nothing is written. CBNN_MUTATIONS says how many of each kind are drawn.
"""

import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import resource
import struct
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from cbnn.hw import finn_folding
from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.compute import evaluation
from cbnn.model.data import datasets, own, pictures
from cbnn.model.exchange import bnn_pynq, qonnx, qonnx_export, storage
from cbnn.model.files import RECORD, OwnFolder, read_array
from cbnn.model.learn import points
from cbnn.model.learn.training import Recipe
from cbnn.model.network import Origin, random_network
from cbnn.model.slices import parse_slices
from cbnn.model.topology import Topology
from cbnn.sim.command import demo
from cbnn.sim.command.options import image_shape
from cbnn.sim.predict import cycles, sweep
from cbnn.sim.report.levels import terminal_tables

N_MUTATIONS = int(os.environ.get("CBNN_MUTATIONS", "200"))
MAX_SECONDS, MAX_BYTES = 2, 500 << 20
TOPOLOGY = Topology.parse("5C3-MP2-6FC-4FC", (6, 6, 1), 4)
NETWORK = random_network(TOPOLOGY, 1)
BITS = random_network(Topology.parse("6FC-4FC", (6, 6, 1), 1), 1)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([0, -1, 1 << 31, 1 << 63, 10**30, 1e308, "", "../x", "\ud800", "\n", "x" * 999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=9)
NUMBERS = [struct.pack(form, value) for form in ("<i", ">i", "<q", "<H") for value in (0, 1, -1, 1 << 14, 10**9)
           if form != "<H" or 0 <= value < 1 << 16]


class Kind(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    write : writes a good file, and what belongs to it, into a folder
    name : of the file that is changed
    read : reads what is in the folder
    """

    write: Callable[[Path], object]
    name: str
    read: Callable[[Path], object]


def save_mnist(folder: Path) -> None:
    for name, shape in zip(datasets.MNIST_FILES, ((3, 28, 28), (3,), (2, 28, 28), (2,)), strict=True):
        head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        (folder / name).write_bytes(gzip.compress(head + bytes(range(math.prod(shape) % 8)) + bytes(
            math.prod(shape) - math.prod(shape) % 8), 1))


def save_cifar(folder: Path) -> None:
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in datasets.CIFAR_FILES:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = 3073
            archive.addfile(member, io.BytesIO(bytes(3073)))


def save_svhn(folder: Path) -> None:
    for name, packed in (("train_32x32.mat", True), ("test_32x32.mat", False)):
        savemat(folder / name, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [10]], np.uint8)},
                do_compression=packed)


def save_picture(folder: Path, kind: str) -> None:
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).save(folder / "picture", kind)


def save_images(folder: Path) -> None:
    np.save(folder / "array.npy", np.arange(72, dtype=np.uint8).reshape(2, 6, 6, 1))


def save_parameters(folder: Path) -> None:
    """Write a network of one layer in BNN-PYNQ's format."""
    table = {"in_shape": [6, 6, 1], "classes": 4, "first_layer": "binary",
             "layers": [{"kind": "dense", "pe": 1, "simd": 36, "mw": 36, "mh": 4, "scores": True}]}
    (folder / "table.json").write_text(json.dumps(table))
    (folder / "0-0-weights.bin").write_bytes(np.arange(4, dtype="<u8").tobytes())
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")


def save_point(folder: Path) -> None:
    storage.save(random_network(POINT.topology, 0), folder / f"{POINT.name}.npz")
    digest = hashlib.sha256((folder / f"{POINT.name}.npz").read_bytes()).hexdigest()
    result = points.Result(0.5, None, 1.5, f"{POINT.name}.npz", "")
    (folder / f"{POINT.name}.json").write_bytes(msgspec.json.encode(points._Entry(POINT, result, digest)))


def save_partial(folder: Path) -> None:
    evaluation.evaluate(NETWORK, IMAGES, LABELS, partial=folder / "part.json")


def save_sweep(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "completed", at_once)
        sweep.sweep(ASKED, folder / "sweep.db")


def read_sweep(folder: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "completed", lambda function, jobs: ((job, sweep.Result(why="no")) for job in jobs))
        return sweep.sweep(ASKED, folder / "sweep.db")


def at_once(function: Callable, jobs: list) -> Iterator[tuple]:
    yield from ((job, function(job)) for job in jobs)


def save_demo(folder: Path) -> None:
    row = asdict(cycles.full_level(TOPOLOGY, FOLDING))
    (folder / "table.json").write_text(json.dumps([{"folding_name": "balanced", "n_images": 4} | row]))


IMAGES, LABELS = np.zeros((9, 6, 6, 1), np.uint8), np.arange(9) % 4
FOLDING = Folding.parse("(5,9)(2,15)(1,6)", TOPOLOGY)
ORIGIN = Origin("/data", "own", tuple(map(str, range(NETWORK.topology.n_classes))))
POINT = points.Point("digits", "4C3-MP2-10FC", (4, 3), (1.0,), Recipe(epochs=1))
ASKED = sweep.points(TOPOLOGY, [(3, 2), (3,)], [1.0], [400], ["xc7z010"])


def save_table(folder: Path) -> None:
    rows = [f"{i / 4},{i % 7},{'abc'[i % 3]}\n" for i in range(24)]
    (folder / "own.csv").write_text("length,width,label\n" + "".join(rows))


def save_arrays(folder: Path) -> None:
    np.savez(folder / "own.npz", images=np.arange(96, dtype=np.uint8).reshape(12, 4, 2), labels=np.arange(12) % 3)


def read_own(path: Path) -> None:
    own._read.cache_clear()  # files are written anew within one tick of the clock
    own.read(path)


KINDS = {
    "own table": Kind(save_table, "own.csv", lambda folder: read_own(folder / "own.csv")),
    "own arrays": Kind(save_arrays, "own.npz", lambda folder: read_own(folder / "own.npz")),
    "network of own data": Kind(
        lambda folder: storage.save(replace(NETWORK, origin=ORIGIN), folder / "net.npz"), "net.npz",
        lambda folder: storage.load(folder / "net.npz")),
    "network": Kind(lambda folder: storage.save(NETWORK, folder / "net.npz"), "net.npz",
                    lambda folder: storage.load(folder / "net.npz")),
    "array": Kind(save_images, "array.npy", lambda folder: read_array(folder / "array.npy")),
    "array in place": Kind(save_images, "array.npy", lambda folder: read_array(folder / "array.npy", True).sum()),
    "folding": Kind(lambda folder: FOLDING.save(folder / "f.json"), "f.json",
                    lambda folder: accelerator(NETWORK, Folding.load(folder / "f.json", TOPOLOGY))),
    "FINN's folding": Kind(lambda folder: finn_folding.save(FOLDING, TOPOLOGY, folder / "f.json"), "f.json",
                           lambda folder: finn_folding.load(folder / "f.json", TOPOLOGY)),
    "QONNX": Kind(lambda folder: qonnx_export.save(BITS, folder / "net.onnx"), "net.onnx",
                  lambda folder: qonnx.load(folder / "net.onnx")),
    "table of layers": Kind(save_parameters, "table.json", lambda folder: bnn_pynq.load(folder, folder / "table.json")),
    "parameters": Kind(save_parameters, "0-0-weights.bin",
                       lambda folder: bnn_pynq.load(folder, folder / "table.json")),
    "classes": Kind(save_parameters, "classes.txt", lambda folder: bnn_pynq.load(folder, folder / "table.json")),
    "IDX": Kind(save_mnist, datasets.MNIST_FILES[0], lambda folder: datasets.load("mnist", folder)),
    "CIFAR-10": Kind(save_cifar, "cifar-10-binary.tar.gz", lambda folder: datasets.load("cifar10", folder)),
    "SVHN, packed": Kind(save_svhn, "train_32x32.mat", lambda folder: datasets.load("svhn", folder)),
    "SVHN": Kind(save_svhn, "test_32x32.mat", lambda folder: datasets.load("svhn", folder)),
    **{kind: Kind(partial(save_picture, kind=kind), "picture",
                  lambda folder: pictures.read_image(folder / "picture", NETWORK)) for kind in ("PNG", "JPEG", "BMP")},
    "evaluation": Kind(save_partial, "part.json", lambda folder: evaluation.evaluate(
        NETWORK, IMAGES, LABELS, partial=folder / "part.json")),
    "point": Kind(save_point, f"{POINT.name}.json", lambda folder: points.read_result(POINT, folder)),
    "table of the demo": Kind(save_demo, "table.json", lambda folder: terminal_tables(demo.read_table(folder))),
    "record": Kind(lambda folder: OwnFolder(folder / "v").write("a", b"a"), f"v/{RECORD}",
                   lambda folder: OwnFolder(folder / "v").check()),
    "sweep": Kind(save_sweep, "sweep.db", read_sweep),
}
WRITERS = ("evaluation", "sweep")
"""Kinds whose file is gone on with, and so written."""


# How contents are changed


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes changed, cut out, doubled, put in; numbers replaced by ones that are out of range."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, n = draw(st.integers(0, len(changed))), draw(st.integers(1, 64))
        how = draw(st.sampled_from(["flip", "flip", "number", "cut", "double", "insert", "end"]))
        if how == "flip" and at < len(changed):
            changed[at] ^= draw(st.integers(1, 255))
        elif how == "number":
            number = draw(st.sampled_from(NUMBERS))
            changed[at : at + len(number)] = number
        elif how == "cut":
            del changed[at : at + n]
        elif how == "double":
            changed[at:at] = changed[at : at + n]
        elif how == "insert":
            changed[at:at] = draw(st.binary(max_size=9))
        elif how == "end":
            del changed[at:]
    return bytes(changed)


@st.composite
def other_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON with a value, a key or a part of it replaced."""
    whole = json.loads(content)

    def change(node: object, depth: int) -> object:
        inner = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not inner or depth == 0:
            return draw(JSON_VALUES)
        key = draw(st.sampled_from(inner))
        if isinstance(node, dict) and draw(st.integers(0, 5)) == 0:
            return {draw(st.text(max_size=9)) if k == key else k: v for k, v in node.items()}
        if draw(st.integers(0, 5)) == 0:
            return {k: v for k, v in node.items() if k != key} if isinstance(node, dict) else node[:-1]
        changed = dict(node) if isinstance(node, dict) else list(node)
        changed[key] = change(node[key], depth - 1)
        return changed

    text = json.dumps(change(whole, draw(st.integers(0, 4))))
    return text.encode(errors="surrogatepass")


@st.composite
def mutations(draw: st.DrawFn, good: bytes) -> bytes:
    if good[:1] in b"{[" and draw(st.booleans()):
        return draw(other_json(good))
    if good[:2] == b"\x1f\x8b" and draw(st.booleans()):  # what is packed is changed, not the packing
        return gzip.compress(draw(damaged(gzip.decompress(good))), 1)
    return draw(damaged(good))


@pytest.mark.parametrize("name", KINDS)
def test_a_good_file_is_read(tmp_path: Path, name: str) -> None:
    KINDS[name].write(tmp_path)
    KINDS[name].read(tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_a_bad_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    kind, folder = KINDS[name], tmp_path / "folder"
    folder.mkdir()
    kind.write(folder)
    target = folder / kind.name
    good = target.read_bytes()
    present = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != target}
    with contextlib.suppress(ValueError):
        kind.read(folder)  # whatever is imported or compiled counts for nobody
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=N_MUTATIONS, derandomize=N_MUTATIONS == 200, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(content=mutations(good))
    def check(content: bytes) -> None:
        target.write_bytes(content)
        started = time.process_time()
        with warnings.catch_warnings(action="error"):
            try:
                kind.read(folder)
            except ValueError as error:
                assert not isinstance(error, UnicodeError), repr(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
        assert time.process_time() - started < MAX_SECONDS
        assert name in WRITERS or target.read_bytes() == content

    check()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != target} == present
    assert list(tmp_path.iterdir()) == [folder]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MAX_BYTES


# Texts that are typed


TEXTS = {
    "topology": (("16C3-16C3-MP2-32C3S2P0B1-MP2-64FC-10FC", "4FC"), lambda text: Topology.parse(text, (8, 8, 1), 5)),
    "topology with its input": (("28x28x3u8w:7..4,1-16C3-MP2-10FC", "1x2x3u4-4FC"), Topology.parse),
    "folding": (("(5,9)(2,15)(1,6)", "auto:400"), lambda text: Folding.parse(text, TOPOLOGY)),
    "slices": (("4,3,2", "4..0", "7..5,3"), parse_slices),
    "shape": (("8x8x1", "32x32x3"), image_shape),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_text_is_read_or_refused(name: str) -> None:
    good, read = TEXTS[name]
    inserted = st.sampled_from(["9" * 5000, "-", "x", "(", "\0", "\ud800", "²", "\n", "e9", "0"]) | st.text(max_size=9)

    @settings(max_examples=N_MUTATIONS, derandomize=N_MUTATIONS == 200, deadline=None, database=None)
    @given(text=st.sampled_from(good), at=st.integers(0, 40), n=st.integers(0, 3), more=inserted)
    def check(text: str, at: int, n: int, more: str) -> None:
        started = time.process_time()
        with contextlib.suppress(ValueError):
            read(text[:at] + more + text[at + n :])
        assert time.process_time() - started < MAX_SECONDS

    check()
