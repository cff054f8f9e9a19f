"""Files: one bounded reader for each kind, one atomic writer, and what tells our own files from others.

Whatever is opened is closed in the same function. A reader raises ValueError with one sentence,
whatever the bytes are.
"""

import hashlib
import json
import math
import os
import secrets
import stat
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from cbnn.model.processes import vanishing

MAX_JSON_BYTES = 1 << 20
"""Largest JSON file read, in bytes."""
RECORD = ".cbnn.json"
"""File in a folder of output that says which of its files are ours."""

T = TypeVar("T")
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A share of the whole, where JSON has one."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return what a regular file holds.

    Raises
    ------
    ValueError
        When it cannot be read, is no regular file (a pipe, a device), or holds more than
        `max_bytes`.
    """
    with _reading(path), _opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise ValueError(f"{path} is larger than {max_bytes} bytes, the most that is read")
        return file.read(size)  # a read of more would allocate more


def read_part(path: Path, start: int, n_bytes: int) -> bytes:
    """Return so many bytes of a regular file from `start` on, fewer where it ends before; raise ValueError as above."""
    with _reading(path), _opened(path) as file:
        file.seek(start)
        return file.read(n_bytes)


def decode_json(content: bytes, kind: type[T], what: str = "JSON") -> T:
    """Return JSON that has to be of a type: a `msgspec.Struct`, a list of them, ….

    Raises
    ------
    ValueError
        When it is no JSON in UTF-8, or holds anything that the type does not say: other keys,
        types, sizes or depths, numbers that are not finite, or a key twice. The sentence is to
        follow one that names the file, and speaks of its `what`.
    """
    try:
        decoded = msgspec.json.decode(content, type=kind)
        json.loads(bytes(content), object_pairs_hook=_once, parse_int=str, parse_float=str)
        return decoded
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its {what} is wrong: {_plain(error)}") from error


def _once(pairs: list[tuple[str, object]]) -> None:
    """Refuse a key that an object holds twice, of which msgspec takes the last."""
    keys = [key for key, _ in pairs]
    if len(keys) > len(set(keys)):
        raise msgspec.ValidationError(f"an object holds `{max(keys, key=keys.count)}` twice")


def visible(text: object) -> str:
    """Return text on one line: what cannot be printed, line breaks too, is escaped as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _plain(error: Exception) -> str:
    """Say in our words what msgspec complains of."""
    if not isinstance(error, msgspec.MsgspecError):
        return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is nested too deeply"
    text = visible(error).removeprefix("JSON is malformed: ")  # it quotes names out of the file
    text, _, place = text.partition(" - at `")
    text = text[0].lower() + text[1:]
    place = place.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{text} at `{place}`" if place else text


def read_array(path: Path, in_place: bool = False, max_bytes: int = 1 << 30) -> NDArray:
    """Return the array of an .npy file; `in_place` leaves it on disk, for arrays larger than memory.

    The header is read first, and nothing is allocated before it agrees with the file's size.
    Numbers and bits are read, no objects.

    Raises
    ------
    ValueError
        When the file cannot be read, is not a whole .npy file, or holds more than `max_bytes` and
        not `in_place`.
    """
    with _reading(path), _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with warnings.catch_warnings(action="error"):
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, fortran_order, dtype = read[version](file)
        except Exception as error:  # a dozen types, SyntaxError and MemoryError among them
            raise ValueError(f"{path} is not an .npy file") from error
        start = file.tell()
    n_bytes = math.prod(shape) * dtype.itemsize
    if not shape:
        raise ValueError(f"{path} holds a single number; an array has at least one axis")
    if dtype.kind not in "biuf" or not dtype.isnative or any(n < 0 for n in shape):
        raise ValueError(f"{path} holds {dtype} {shape}; arrays of little-endian integers or floats are read")
    if size - start != n_bytes:
        raise ValueError(f"{path} claims an array of {n_bytes} bytes and holds {size - start}")
    if not in_place and n_bytes > max_bytes:
        raise ValueError(f"{path} holds an array of {n_bytes} bytes; at most {max_bytes} are read")
    if in_place and n_bytes:
        return np.memmap(path, dtype, "r", start, shape, "F" if fortran_order else "C")
    array = np.frombuffer(read_bounded(path, max_bytes + start)[start:], dtype)
    return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in one sentence why a file cannot be read."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _opened(path: Path) -> Iterator:
    """Open a regular file for reading; a pipe, which might never be written to, is not waited for."""
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is not the name of a file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, os.strerror(21))
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is not a regular file")
        yield file


def check_file(path: Path) -> None:
    """Raise ValueError unless a file can be written here: the name is free, or that of a regular file."""
    path = _absolute(path)
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error
    else:
        if stat.S_ISDIR(mode):
            raise ValueError(f"{path} is a folder; a file is to be written")
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is not a regular file; name a file to be written")
    _check_parent(path)


def _check_parent(path: Path) -> None:
    """Raise ValueError where the folder that would hold `path` is none, or cannot be written to."""
    nearest = next(parent for parent in path.parents if parent.exists() or parent.is_symlink())
    if not nearest.is_dir():
        raise ValueError(f"{path} cannot be written: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: {nearest} takes no files")


def _absolute(path: Path) -> Path:
    """Return the path from the root on, so that it has a name even where it is ``.``."""
    return Path(os.path.normpath(path.absolute()))


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: into a neighbour first, which is then renamed.

    A file that is replaced keeps its mode. Only regular files are replaced, no links, pipes or
    devices.

    Raises
    ------
    ValueError
        When something else has that name, or the folder takes no files.
    OSError
        When the disk does not take it.
    """
    check_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        neighbour = _neighbour(path)
        with vanishing(neighbour):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(neighbour, flags, 0o666), "wb") as file:
                file.write(content)
                if path.exists():
                    os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            neighbour.replace(path)
    except OSError as error:  # of a neighbour, whose name says nothing
        raise OSError(error.errno, error.strerror, str(path)) from error


def _neighbour(path: Path) -> Path:
    """Return a name beside `path` that is free."""
    return path.with_name(f".{path.name}.cbnn-{secrets.token_hex(4)}")


class OwnFolder:
    """A folder of output that holds nothing but what cbnn wrote, which is what may be replaced.

    The file ``.cbnn.json`` in it says which files are ours, those in folders of it too, by their
    digests: a file that somebody changed, or put there, is his. Caches that Python makes beside
    our own modules are nobody's.

    Parameters
    ----------
    path : the folder
    inner : names of folders in it, relative to it, which have owners of their own
    """

    def __init__(self, path: Path, inner: Collection[str] = ()) -> None:
        self.path, self.inner = _absolute(path), inner

    def check(self) -> None:
        """Raise ValueError unless the folder is new, empty, or as cbnn wrote it, and can be written to."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is not a folder; a folder is to be written")
        _check_parent(self.path / RECORD)
        digests = self._digests()
        for path in self._entries(self.path, digests) if self.path.exists() else []:
            name = path.relative_to(self.path).as_posix()
            regular = path.is_file() and not path.is_symlink()
            if not regular or (name != RECORD and _sha256(path) not in digests.get(name, ())):
                raise ValueError(f"{self.path} holds {name}, which is not as cbnn wrote it; name an empty or a "
                                 "new folder")

    def _entries(self, folder: Path, digests: Collection[str]) -> Iterator[Path]:
        """All that must be ours: files, and folders that hold none of our files."""
        for path in sorted(folder.iterdir()):
            name = path.relative_to(self.path).as_posix()
            if path.is_dir() and not path.is_symlink():
                if name in self.inner:
                    continue
                if path.name == "__pycache__":
                    ours = {Path(file).stem for file in digests if self.path / file == folder / Path(file).name}
                    yield from (cache for cache in sorted(path.iterdir())
                                if cache.suffix != ".pyc" or cache.name.split(".")[0] not in ours)
                    continue
                if any(file.startswith(f"{name}/") for file in digests):
                    yield from self._entries(path, digests)
                    continue
            yield path

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which is known as ours before it is there; raise ValueError where one of that name is not."""
        digests, path = self._digests(), self.path / name
        if path.exists() and (not path.is_file() or _sha256(path) not in digests.get(name, ())):
            raise ValueError(f"{path} is not as cbnn wrote it; name an empty or a new folder")
        digests[name] = [hashlib.sha256(content).hexdigest(), *digests.get(name, [])[:1]]
        write_atomically(self.path / RECORD, msgspec.json.encode(digests) + b"\n")
        write_atomically(path, content)

    def record(self) -> None:
        """Say of every file that is there that it is ours."""
        digests = {path.relative_to(self.path).as_posix(): [_sha256(path)]
                   for path in sorted(self.path.rglob("*")) if path.is_file()}
        write_atomically(self.path / RECORD, msgspec.json.encode(digests) + b"\n")

    def _digests(self) -> dict[str, list[str]]:
        try:
            return decode_json(read_bounded(self.path / RECORD, MAX_JSON_BYTES), dict[str, list[str]])
        except ValueError:  # then nothing is ours
            return {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def folder_written(folder: Path, inner: Collection[str] = ()) -> Iterator[Path]:
    """Give a new, empty folder beside `folder` to fill; at the end it takes its place, as a whole or not at all.

    Folders of these `inner` names, which others fill, are moved into the new one.

    Raises
    ------
    ValueError
        When `folder` holds anything else that was not written so, is a link, or the folder that one
        works in.
    """
    folder = _absolute(folder)
    own = OwnFolder(folder, inner)
    own.check()
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link; name the folder itself")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder} is the folder that you are in, and would be replaced; name another one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = _neighbour(folder)
    with vanishing(fresh):
        fresh.mkdir()
        yield fresh
        OwnFolder(fresh).record()
        own.check()  # somebody may have worked there meanwhile
        if not folder.exists():
            fresh.rename(folder)
            return
        fresh.chmod(stat.S_IMODE(folder.stat().st_mode))
        with vanishing(_swapped(folder, fresh, inner)):  # only now, so that a kill before leaves what was there
            pass


def _swapped(folder: Path, fresh: Path, inner: Collection[str]) -> Path:
    """Put `fresh` in the place of `folder`, with the `inner` folders of that; return where the rest of it is now."""
    old = _neighbour(folder)
    try:
        folder.rename(old)
        fresh.rename(folder)
        for name in inner:
            if (old / name).is_dir():
                (old / name).rename(folder / name)
    except BaseException:
        if old.exists():
            for name in inner:
                if (folder / name).is_dir():
                    (folder / name).rename(old / name)
            if folder.exists():
                folder.rename(fresh)
            old.rename(folder)
        raise
    return old
