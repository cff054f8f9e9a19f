"""Files: what is read is bounded and whole, what is written is whole or not there, what is not ours stays."""

import io
import os
import stat
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model import files
from cbnn.model.files import OwnFolder, decode_json, folder_written, read_array, read_bounded, write_atomically


class Row(msgspec.Struct, forbid_unknown_fields=True):
    n: int
    x: float = 0.0


def sentence(action, *arguments, **options) -> str:
    with pytest.raises(ValueError) as caught:
        action(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Reading


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert sentence(read_bounded, tmp_path / "pipe", 9) == f"{tmp_path / 'pipe'} is not a regular file"
    assert sentence(read_bounded, Path("/dev/zero"), 9) == "/dev/zero is not a regular file"
    assert sentence(read_bounded, tmp_path, 9) == f"{tmp_path} cannot be read: Is a directory"
    assert sentence(read_bounded, Path("a\0b"), 9) == r"'a\x00b' is not the name of a file"
    (tmp_path / "ten").write_bytes(b"0123456789")
    assert read_bounded(tmp_path / "ten", 10) == b"0123456789"
    assert sentence(read_bounded, tmp_path / "ten", 9).endswith("is larger than 9 bytes, the most that is read")


@pytest.mark.parametrize(("content", "complaint"), [
    (b"", "input data was truncated"), (b"{", "input data was truncated"), (b"\xff", "invalid character (byte 0)"),
    (b'{"n": NaN}', "invalid character (byte 6)"), (b'{"n": 1} x', "trailing characters (byte 10)"),
    (b'{"n": true}', "expected `int`, got `bool` at `n`"), (b'{"n": 1.5}', "expected `int`, got `float` at `n`"),
    (b'{"n": 1, "x": 1e999}', "number out of range at `x`"), (b'{"x": 1}', "object missing required field `n`"),
    (b'{"n": 1, "m": 2}', "object contains unknown field `m`"), (b"[" * 99_999, "expected `object`, got `array`"),
    (b'{"n": 1, "x": 2, "n": 3}', "an object holds `n` twice"),
    (b'{"n":' * 99_999, "expected `int`, got `object` at `n`")])
def test_json_has_to_be_of_its_type(content: bytes, complaint: str) -> None:
    assert sentence(decode_json, content, Row) == f"its JSON is wrong: {complaint}"


def test_json_that_is_deep_where_anything_goes(tmp_path: Path) -> None:
    assert sentence(decode_json, b"[" * 99_999, object) == "its JSON is wrong: it is nested too deeply"
    assert decode_json(b'{"n": 3, "x": 2}', Row) == Row(3, 2.0)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("array", [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.zeros((0, 8, 8, 1), np.uint8), np.float32(3.5) * np.ones(2), np.array([True, False])])
def test_arrays_come_back(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    for in_place in (False, True):
        back = read_array(tmp_path / "a.npy", in_place)
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


WHOLE = npy(np.zeros(8, np.uint8))


@pytest.mark.parametrize(("content", "complaint"), [
    (b"", "is not an .npy file"), (b"PK\x03\x04junk", "is not an .npy file"), (b"(((", "is not an .npy file"),
    (WHOLE[:60], "is not an .npy file"), (WHOLE[:-1], "claims an array of 8 bytes and holds 7"),
    (WHOLE + b"x", "claims an array of 8 bytes and holds 9"),
    (WHOLE.replace(b"(8,)", b"((((" ), "is not an .npy file"),
    (WHOLE.replace(b"(8,), }  ", b"(8L,), } "), "is not an .npy file"),
    (WHOLE.replace(b"(8,), }             ", b"(1649267441664,), } "),
     "claims an array of 1649267441664 bytes and holds 8"),
    (WHOLE.replace(b"(8,), } ", b"(-8,), }"), "holds uint8 (-8,); arrays of little-endian integers or floats are read"),
    (npy(np.zeros(8, ">i4")), "holds >i4 (8,); arrays of little-endian integers or floats are read"),
    (npy(np.array(7)), "holds a single number; an array has at least one axis"),
    (npy(np.zeros(1, "U3")), "holds <U3 (1,); arrays of little-endian integers or floats are read"),
    (npy(np.zeros(1, complex)), "holds complex128 (1,); arrays of little-endian integers or floats are read"),
    (npy(np.zeros(1, [("a", "u1")])), "holds [('a', 'u1')] (1,); arrays of little-endian integers or floats are read"),
])
@pytest.mark.parametrize("in_place", [False, True])
def test_arrays_that_are_none(tmp_path: Path, content: bytes, complaint: str, in_place: bool) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    assert sentence(read_array, path, in_place) == f"{path} {complaint}"


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    assert "holds object (1,)" in sentence(read_array, tmp_path / "a.npy")


def test_large_arrays_are_left_on_disk_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    header = npy(np.zeros(1 << 20, np.uint8))[:128].replace(b"(1048576,), }      ", b"(1099511627776,), }")
    with path.open("wb") as file:
        file.write(header)
        file.truncate(128 + (1 << 40))  # sparse
    tracemalloc.start()
    assert read_array(path, in_place=True).shape == (1 << 40,)
    assert sentence(read_array, path).endswith("at most 1073741824 are read")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_arrays(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.npy"
    content = bytearray(npy(np.arange(6, dtype=np.int32).reshape(2, 3)))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert read_array(path).size <= 24
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


# Writing


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"
    write_atomically(path, b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()
    path.chmod(0o600)
    write_atomically(path, b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"2"
    assert os.listdir(path.parent) == ["a"]  # noqa: PTH208


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "broken", "pipe"):
        assert sentence(write_atomically, tmp_path / name, b"") == \
            f"{tmp_path / name} is not a regular file; name a file to be written"
    assert sentence(write_atomically, Path("/dev/null"), b"") == \
        "/dev/null is not a regular file; name a file to be written"
    assert sorted(os.listdir(tmp_path)) == ["broken", "file", "link", "pipe"]  # noqa: PTH208
    assert (tmp_path / "link").read_text() == "before"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for content in ("1", "2"):
        with folder_written(folder) as fresh:
            (fresh / content).write_text(content)
        assert sorted(os.listdir(folder)) == [files.RECORD, content]  # noqa: PTH208
        assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_folder_whose_writing_fails_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  moment: int) -> None:
    """While it is filled, when the old one is to go, and when the new one is to come."""
    folder = tmp_path / "out"
    with folder_written(folder) as fresh:
        (fresh / "old").touch()
    calls, rename = [], Path.rename

    def failing(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == moment:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left"), folder_written(folder) as fresh:  # noqa: PT012
        (fresh / "new").touch()
        if moment == 0:
            raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208
    assert sorted(os.listdir(folder)) == [files.RECORD, "old"]  # noqa: PTH208


@pytest.mark.parametrize("moment", [1, 2, 3])
@pytest.mark.parametrize("done", [False, True])
def test_what_others_keep_in_a_folder_survives_whatever_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             moment: int, done: bool) -> None:
    """A signal before or after each of the three renames."""
    folder = tmp_path / "out"
    for content in ("old", "new"):
        with folder_written(folder, ["sim/build"]) as fresh:
            (fresh / "sim").mkdir()
            (fresh / "sim" / content).touch()
        (folder / "sim" / "build").mkdir(exist_ok=True)
        (folder / "sim" / "build" / "mine").touch()
    calls, rename = [], Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) != moment:
            return rename(self, target)
        if done:
            rename(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_written(folder, ["sim/build"]) as fresh:
        (fresh / "sim").mkdir()
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208
    assert sorted(os.listdir(folder)) == [files.RECORD, "sim"]  # noqa: PTH208
    assert sorted(os.listdir(folder / "sim")) == ["build", "new"]  # noqa: PTH208
    assert (folder / "sim" / "build" / "mine").exists()


@pytest.mark.parametrize("existed", [False, True])
def test_what_somebody_adds_meanwhile_is_not_deleted(tmp_path: Path, existed: bool) -> None:
    folder = tmp_path / "out"
    if existed:
        with folder_written(folder) as fresh:
            (fresh / "a").touch()
    with pytest.raises(ValueError, match="holds mine, which is not"), folder_written(folder):  # noqa: PT012
        folder.mkdir(exist_ok=True)
        (folder / "mine").touch()
    assert (folder / "mine").exists()
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


def test_a_folder_with_read_only_folders_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in range(2):
        with folder_written(folder) as fresh:
            (fresh / "rtl").mkdir()
            (fresh / "rtl" / "a").touch()
            (fresh / "rtl").chmod(0o555)
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


def test_a_folder_that_one_is_in_is_known_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_written(tmp_path / "real" / "out") as fresh:
        (fresh / "sim").mkdir()
        (fresh / "sim" / "a").touch()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real" / "out" / "sim")
    with pytest.raises(ValueError, match="is the folder that you are in"), folder_written(tmp_path / "link" / "out"):
        pass


def test_a_linked_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ValueError, match="is a link; name the folder itself"), folder_written(tmp_path / "link"):
        pass


def test_only_what_cbnn_wrote_is_replaced(tmp_path: Path) -> None:
    own = OwnFolder(tmp_path / "out", ["inner"])
    own.check()
    own.write("a", b"1")
    own.write("a", b"2")
    (tmp_path / "out" / "inner").mkdir()
    own.check()
    assert (tmp_path / "out" / "a").read_bytes() == b"2"
    for name, kind in (("a", "changed"), ("b", "put there"), ("folder", "folder"), ("link", "link")):
        path = tmp_path / "out" / name
        if kind == "link":
            path.symlink_to("a")
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_text("mine")
        assert sentence(own.check) == (f"{tmp_path / 'out'} holds {name}, which is not as cbnn wrote it; name an empty "
                                       "or a new folder")
        assert "is not as cbnn wrote it" in sentence(own.write, name, b"3")
        if kind != "changed":
            path.rmdir() if kind == "folder" else path.unlink()
        else:
            path.write_bytes(b"2")
    own.check()


def test_a_file_of_ours_is_known_when_its_writing_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the record, before the file; and after a file whose record had been written before."""
    own, replace = OwnFolder(tmp_path), Path.replace
    own.write("a", b"1")

    def interrupted(self: Path, target: Path) -> Path:
        if target.name == "a":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own.write("a", b"2")
    own.check()
    monkeypatch.undo()
    own.write("a", b"3")
    own.check()


@pytest.mark.parametrize("record", [b"", b"[]", b'{"a": "1"}', b"\xff", b'{"a": [1]}'])
def test_a_record_that_is_none_makes_nothing_ours(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "a").touch()
    (tmp_path / files.RECORD).write_bytes(record)
    assert "holds a, which is not as cbnn wrote it" in sentence(OwnFolder(tmp_path).check)


def test_where_nothing_can_be_written_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert sentence(files.check_file, tmp_path / "file" / "a" / "b").endswith(f"{tmp_path / 'file'} is not a folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert sentence(files.check_file, tmp_path / "new" / "a").endswith(f"{tmp_path} takes no files")
    monkeypatch.undo()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="is the folder that you are in"), folder_written(Path()):
        pass


def test_names_out_of_a_file_stay_on_one_line() -> None:
    kind = msgspec.defstruct("Kind", [("a", int)], forbid_unknown_fields=True)
    with pytest.raises(ValueError, match=r"^its JSON is wrong: object contains unknown field `\\n`$"):
        decode_json(b'{"a": 1, "\\n": 2}', kind)
