"""Networks on disk: what is saved comes back; whatever else a file may be is refused, in bounded memory."""

import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.exchange import storage
from cbnn.model.network import Network, random_network
from cbnn.model.topology import Topology

TOPOLOGY = Topology.parse("5C3B1-MP2-6C2S2P0-7FC-4FC", (5, 6, 2), 6, (5, 3, 0))
NETWORK = random_network(TOPOLOGY, 7)
Members = dict[str, bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network.npz"


def assert_equal(network: Network, other: Network) -> None:
    assert network.topology == other.topology
    for ours, theirs in zip(network.parameters, other.parameters, strict=True):
        assert ours.arrays.keys() == theirs.arrays.keys()
        for name, array in ours.arrays.items():
            assert array.dtype == theirs.arrays[name].dtype
            np.testing.assert_array_equal(array, theirs.arrays[name])


@pytest.mark.parametrize("topology", [
    TOPOLOGY, Topology.parse("5C3-3FC", (4, 4, 3), 16, (15, 9, 1), "weighted"), Topology.parse("1FC", (1, 1, 1), 1)])
@pytest.mark.parametrize("by_place", [False, True])
def test_round_trip(tmp_path: Path, topology: Topology, by_place: bool) -> None:
    network = random_network(topology, 3, by_place)
    first, second = tmp_path / "new" / "a.npz", tmp_path / "new" / "b.npz"
    storage.save(network, first)
    loaded = storage.load(first)
    assert_equal(loaded, network)
    storage.save(loaded, second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in first.parent.iterdir()) == ["a.npz", "b.npz"]
    with np.load(first, allow_pickle=False) as arrays:  # an ordinary .npz to others
        assert set(arrays["weights_0"].tolist()) <= set(range(256))
        assert json.loads(arrays["header"].tobytes())["topology"] == str(topology)


def test_loaded_arrays_cannot_be_written(path: Path) -> None:
    """Nor what they are views of; nothing else holds them."""
    storage.save(NETWORK, path)
    for parameters in storage.load(path).parameters:
        for array in parameters.arrays.values():
            assert not array.flags.writeable
            assert array.base is None or not array.base.flags.writeable


def test_bits_are_packed(path: Path) -> None:
    storage.save(NETWORK, path)
    with np.load(path) as arrays:
        assert arrays["weights_0"].shape == ((5 * 54 + 7) // 8,)
        assert arrays["weights_0"][0] & 1 == NETWORK.parameters[0].weights[0, 0]
        assert arrays["thresholds_0"].dtype == np.dtype("<i4")
        assert arrays["invert_1"].shape == (1,)


# What is not a network


def members_of(path: Path) -> Members:
    storage.save(NETWORK, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(**fields: object) -> bytes:
    whole = {"format": storage.FORMAT, "topology": str(TOPOLOGY), "max_pixel": 63} | fields
    return text({name: value for name, value in whole.items() if value is not ...})


def text(content: object) -> bytes:
    return npy(np.frombuffer(json.dumps(content).encode(), np.uint8))


def refused(path: Path) -> str:
    """What `load` says of the file behind "<path> is not a cbnn network: "."""
    with pytest.raises(ValueError) as caught:
        storage.load(path)
    prefix = f"{path} is not a cbnn network: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


@pytest.mark.parametrize("name", ["header.npy", "weights_2.npy", "thresholds_0.npy", "offsets_4.npy", "invert_1.npy"])
def test_missing_array(path: Path, name: str) -> None:
    members = members_of(path)
    del members[name]
    write(path, members)
    lacking = {"thresholds_0.npy": "layer 0: it lacks thresholds", "offsets_4.npy": "layer 3: it lacks offsets"}
    assert refused(path) == lacking.get(name, f"it lacks '{name[:-4]}'")


HUGE = {"descr": "|u1", "fortran_order": False, "shape": (1 << 45,)}


def with_npy_header(fields: object) -> bytes:
    line = repr(fields).replace("}", ", }").encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + bytes(34)


PLAIN = "is not an .npy array of uint8 or int32 with one axis"


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("weights_5.npy", npy(np.zeros(1, np.uint8)), "it holds weights_5, which no part of it uses"),
    ("weights_1.npy", npy(np.zeros(1, np.uint8)), "it holds weights_1, which no part of it uses"),
    ("invert_0.npy", npy(np.zeros(1, np.uint8)), "it holds invert_0, which no part of it uses"),
    ("invert_1.npy", npy(np.zeros(2, np.uint8)),
     "invert of the pool after layer 0 are 2 bytes; 5 packed bits are 1"),
    ("thresholds_4.npy", npy(np.zeros(4, "<i4")), "layer 3: it must not have thresholds"),
    ("read.me", b"", "it holds 'read.me', which is no array or there twice"),
    ("header", b"", "it holds 'header', which is no array or there twice"),
    ("a\x1b[2J\n.npy", b"", "it holds 'a\\x1b[2J\\n.npy', which is no array or there twice"),
    ("x/header.npy", npy(np.zeros(1, np.uint8)), "it holds 'x/header.npy', which is no array or there twice"),
    ("weights_0.npy", npy(np.zeros(34, np.int64)), f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.zeros((34, 1), np.uint8)), f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.zeros((), np.uint8)), f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.zeros(34, "<i4")),
     "weights of layer 0 are int32; they must be uint8"),
    ("weights_0.npy", npy(np.zeros(33, np.uint8)),
     "weights of layer 0 are 33 bytes; 270 packed bits are 34"),
    ("weights_0.npy", npy(np.zeros(0, np.uint8)), "weights of layer 0 are 0 bytes; 270 packed bits are 34"),
    ("thresholds_0.npy", npy(np.zeros(5, ">i4")), f"thresholds_0 {PLAIN}"),
    ("thresholds_0.npy", npy(np.zeros(5, np.uint8)), "thresholds of layer 0 are uint8; they must be int32"),
    ("thresholds_0.npy", npy(np.zeros(6, "<i4")), "layer 0: thresholds are int64 (6,); they must be int64 (5,)"),
    ("thresholds_0.npy", npy(np.full(5, 99, "<i4")), "layer 0: thresholds span 99 to 99; the range is 0 to 55"),
    ("offsets_4.npy", npy(np.full(4, -(1 << 31), "<i4")),
     "layer 3: offsets span -2147483648 to -2147483648; the range is -1073741824 to 1073741824"),
    ("weights_0.npy", with_npy_header(HUGE), "weights_0 claims 35184372088832 bytes and holds 34"),
    ("weights_0.npy", with_npy_header(HUGE | {"shape": (-1,)}), f"weights_0 {PLAIN}"),
    ("weights_0.npy", with_npy_header(HUGE | {"shape": (1 << 45, 1 << 45)}),
     f"weights_0 {PLAIN}"),
    ("weights_0.npy", with_npy_header(HUGE | {"descr": "|V99"}), f"weights_0 {PLAIN}"),
    ("weights_0.npy", with_npy_header(HUGE | {"descr": "nonsense"}), f"weights_0 {PLAIN}"),
    ("weights_0.npy", with_npy_header({"shape": (34,)}), f"weights_0 {PLAIN}"),
    ("weights_0.npy", with_npy_header([[]] * 200), f"weights_0 {PLAIN}"),
    ("weights_0.npy", b"", f"weights_0 {PLAIN}"),
    ("weights_0.npy", b"\x93NUMPY\x01\x00\xff\xff", f"weights_0 {PLAIN}"),
    ("weights_0.npy", b"\x93NUMPY\x03\x00" + npy(np.zeros(34, np.uint8))[8:], f"weights_0 {PLAIN}"),
    ("weights_0.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 15 + b"\n", f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.zeros(34, np.uint8)).replace(b"34,", b"34L"), f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.full(34, 64, np.uint8)), "weights of layer 0 end with bits of 1 after the last of 270"),
    ("invert_1.npy", npy(np.full(1, 32, np.uint8)),
     "invert of the pool after layer 0 end with bits of 1 after the last of 5"),
    ("weights_0.npy", npy(np.zeros(34, np.uint8)).replace(b"'|u1',", b"'u1', "), f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.zeros(34, np.uint8)).replace(b"False, ", b"True,  "), f"weights_0 {PLAIN}"),
    ("weights_0.npy", npy(np.zeros(34, bool)), f"weights_0 {PLAIN}"),
    ("thresholds_0.npy", npy(np.zeros(5, "<u4")), f"thresholds_0 {PLAIN}"),
    ("header.npy", npy(np.zeros(9, "<i4")), "bytes of the header are int32; they must be uint8"),
    ("codes.npy", npy(np.zeros(9, np.uint8)), "codes are uint8; they must be int32"),
    ("header.npy", npy(np.frombuffer(b'{"topology": "1x1x1u1-1FC", "topol\\u006fgy": "1x1x1u1-2FC"}', np.uint8)),
     "its header is wrong: an object holds `topology` twice"),
    ("header.npy", npy(np.zeros(9, np.uint8)), "its header is wrong: invalid character (byte 0)"),
    ("header.npy", npy(np.full(99_000, ord("["), np.uint8)),
     "its header is of 99000 bytes; at most 65536 are read"),
    ("header.npy", npy(np.full(65_000, ord("["), np.uint8)), "its header is wrong: expected `object`, got `array`"),
    ("header.npy", text([]), "its header is wrong: expected `object`, got `array`"),
    ("header.npy", text(None), "its header is wrong: expected `object`, got `null`"),
    ("header.npy", header(format="cbnn-network-9"), "its header does not name the format 'cbnn-network-3'"),
    ("header.npy", header(format="cbnn-network-2"),
     "its format is 'cbnn-network-2', of an earlier version, which is not read any more; train or import the network "
     "again"),
    ("header.npy", header(topology=...), "it lacks 'topology'"),
    ("header.npy", header(max_pixel=...), "it lacks 'max_pixel'"),
    ("header.npy", header(topology=5), "its header does not hold text for the topology"),
    ("header.npy", header(max_pixel=[]), "max_pixel is of type list; it must be int"),
    ("header.npy", header(topology=TOPOLOGY.layers_text),
     "'5C3B1' does not describe an input; a topology begins with one, as in 8x8x1u5-16C3-MP2-10FC: "
     "height x width x colours, u and the bits of a pixel"),
    ("header.npy", header(topology="5x6x2u99-4FC"), "input_bits is 99; it must be 1 to 16"),
    ("header.npy", header(topology="5x6x2u6:9-4FC"), "slice 9 does not exist; pixels of 6 bits have 0 to 5"),
    ("header.npy", header(topology=str(TOPOLOGY).replace("5,3,0", "5,3")),
     "weights of layer 0 are 34 bytes; 180 packed bits are 23"),
    ("header.npy", header(topology="5x6x2u6-999999999999FC"),
     "out_features of a dense layer is 999999999999; it must be 1 to 1048576"),
    ("header.npy", header(topology="5x6x2u6:5,3,0-4C9-4FC"),
     "weights of layer 0 are 34 bytes; 1944 packed bits are 243"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_member(path: Path, name: str, content: bytes, sentence: str) -> None:
    write(path, members_of(path) | {name: content})
    assert refused(path) == sentence


class Payload:
    """Creates the file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["weights_0.npy", "header.npy", "stray.npy"])
def test_pickles_are_not_opened(path: Path, name: str) -> None:
    payload = np.array([Payload(path.parent / "planted")], object)
    write(path, members_of(path) | {name: npy(payload, allow_pickle=True)})
    assert refused(path) == f"{name[:-4]} {PLAIN}"
    assert not (path.parent / "planted").exists()
    with np.load(path, allow_pickle=True) as arrays:  # the payload does work
        _ = arrays[name[:-4]]
    assert (path.parent / "planted").exists()


def test_member_twice(path: Path) -> None:
    members = members_of(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("weights_0.npy", members["weights_0.npy"])
    assert refused(path) == "it holds 'weights_0.npy', which is no array or there twice"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(path: Path, method: int) -> None:
    write(path, members_of(path), method)
    assert refused(path) == f"header is compressed by method {method}; only deflate is read"


def test_stored_without_compression(path: Path) -> None:
    write(path, members_of(path), zipfile.ZIP_STORED)
    assert_equal(storage.load(path), NETWORK)


def test_foreign_archives(path: Path) -> None:
    np.savez(path, a=np.zeros(3, np.uint8))
    assert refused(path) == "it lacks 'header'"
    np.savez_compressed(path, image=np.zeros((3, 3)))
    assert refused(path) == f"image {PLAIN}"
    write(path, {"word/document.xml": b"<x/>"})
    assert refused(path) == "it holds 'word/document.xml', which is no array or there twice"
    write(path, {})
    assert refused(path) == "it lacks 'header'"
    for content in (b"", b"PK\x05\x06", b"\x89PNG", npy(np.zeros(3)), bytes(1000)):
        path.write_bytes(content)
        assert refused(path) == "it is not a whole .npz file"


def test_encrypted(path: Path) -> None:
    storage.save(NETWORK, path)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # general purpose flags of the first member, here and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert refused(path) == "header is damaged"


def test_truncated_anywhere(path: Path) -> None:
    storage.save(NETWORK, path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert refused(path) == "it is not a whole .npz file"


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_anywhere(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A damaged file gives one sentence, or the network, where the byte means nothing."""
    path = tmp_path_factory.mktemp("damaged") / "network.npz"
    storage.save(NETWORK, path)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        network = storage.load(path)
    except ValueError:
        assert "\n" not in refused(path)
    else:
        assert_equal(network, NETWORK)


def test_damaged_member(path: Path) -> None:
    storage.save(NETWORK, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"weights_0.npy") + 20] ^= 255
    path.write_bytes(content)
    assert refused(path) == "weights_0 is damaged"


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that are claimed are refused unread, and a stream that holds more than it claims is not inflated whole."""
    limit = 3 << 19  # the file is read into a buffer of MAX_BYTES; the rest is small
    monkeypatch.setattr(storage, "MAX_BYTES", 1 << 20)
    members = members_of(path)
    bomb = with_npy_header(HUGE) + bytes(1 << 25)
    write(path, members | {"weights_0.npy": bomb})
    assert peak_bytes(lambda: refused(path)) < limit
    assert refused(path).startswith("its arrays claim 335")

    write(path, members | {f"weights_{i}.npy": bytes(1 << 18) for i in range(9)})  # each small enough, not all of them
    assert refused(path).endswith("at most 1048576 are read")

    write(path, members | {"weights_0.npy": bomb})
    sizes = struct.pack("<I", len(bomb)), struct.pack("<I", 200)
    path.write_bytes(path.read_bytes().replace(*sizes))
    assert peak_bytes(lambda: refused(path)) < limit
    assert refused(path) == "weights_0 is damaged"

    write(path, members | {"weights_0.npy": bomb})  # and one whose checksum suits what it claims
    checksums = struct.pack("<I", zlib.crc32(bomb)), struct.pack("<I", zlib.crc32(bomb[:200]))
    path.write_bytes(path.read_bytes().replace(*sizes).replace(*checksums))
    assert peak_bytes(lambda: refused(path)) < limit
    assert refused(path) == "weights_0 claims 35184372088832 bytes and holds 119"


def test_oversized_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(ValueError) as caught:
        storage.load(path)
    assert str(caught.value) == f"{path} is larger than 33554432 bytes, the most that is read"


def test_unreadable(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.npz", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError) as caught:
            storage.load(path)
        assert str(caught.value) == f"{path} cannot be read: {reason}"


# Saving that fails


def test_failed_save_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"before")

    def full_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        storage.save(NETWORK, path)
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_write_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"before")
    def interrupted(descriptor: int, mode: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fchmod", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.save(NETWORK, path)
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


def test_saving_onto_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder is a folder; a file is to be written"):
        storage.save(NETWORK, tmp_path / "folder")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder"]


def test_saving_over_an_old_file(path: Path) -> None:
    path.write_bytes(b"before")
    storage.save(NETWORK, path)
    assert_equal(storage.load(path), NETWORK)


# What pixels mean


def test_pixel_table_and_highest_pixel_come_back(path: Path) -> None:
    network = Network(TOPOLOGY, NETWORK.parameters, np.arange(40) % 7, 33)
    storage.save(network, path)
    again = storage.load(path)
    assert_equal(again, network)
    np.testing.assert_array_equal(again.pixel_table, network.pixel_table)
    assert again.max_pixel == 33


@pytest.mark.parametrize("value", [64, -1, 1.5, "16", None, [16], True, 10**400])
def test_highest_pixels_that_are_none(path: Path, value: object) -> None:
    write(path, members_of(path) | {"header.npy": header(max_pixel=value)})
    assert refused(path) == (f"max_pixel is {value}; it must be 0 to 63" if type(value) is int else
                             f"max_pixel is of type {type(value).__name__}; it must be int")
