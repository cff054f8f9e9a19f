"""Files: one bounded reader for each kind, one atomic writer, and what tells our own files from others.

Whatever is opened is closed in the same function. A reader raises ValueError with one sentence, whatever the bytes are.
"""

import math
import os
import re
import secrets
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from cbnn.model.processes import vanishing

MAX_JSON_BYTES = 1 << 20
"""Largest JSON file read, in bytes."""
LEFTOVER = re.compile(r"\..+\.cbnn-[0-9a-f]{8}")
"""Names of what is written before it is moved into place."""

T = TypeVar("T")
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A share of the whole, where JSON has one."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return what a regular file holds.

    Raises
    ------
    ValueError
        When it cannot be read, is no regular file (a pipe, a device), or holds more than `max_bytes`.
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
        When it is no JSON in UTF-8, or holds anything that the type does not say: other keys, types, sizes or depths,
        numbers that are not finite. The sentence is to follow one that names the file, and speaks of its `what`.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its {what} is wrong: {_plain(error)}") from error


def _plain(error: Exception) -> str:
    """Say in our words what msgspec complains of."""
    if not isinstance(error, msgspec.MsgspecError):
        return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is nested too deeply"
    text = str(error).removeprefix("JSON is malformed: ")
    text, _, place = text.partition(" - at `")
    text = text[0].lower() + text[1:]
    place = place.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{text} at `{place}`" if place else text


def read_array(path: Path, in_place: bool = False, max_bytes: int = 1 << 30) -> NDArray:
    """Return the array of an .npy file; `in_place` leaves it on disk, for arrays larger than memory.

    The header is read first, and nothing is allocated before it agrees with the file's size. Numbers and bits are read,
    no objects.

    Raises
    ------
    ValueError
        When the file cannot be read, is not a whole .npy file, or holds more than `max_bytes` and not `in_place`.
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
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder; a file is to be written")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a regular file; name a file to be written")


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: into a neighbour first, which is then renamed.

    A file that is replaced keeps its mode. Only regular files are replaced, no links, pipes or devices.

    Raises
    ------
    ValueError
        When something else has that name.
    OSError
        When the disk does not take it.
    """
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = _neighbour(path)
    with vanishing(neighbour):
        with os.fdopen(os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(content)
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        neighbour.replace(path)


def _neighbour(path: Path) -> Path:
    """Return a name beside `path` that is free."""
    return path.with_name(f".{path.name}.cbnn-{secrets.token_hex(4)}")


def check_own_folder(folder: Path, owns: Callable[[Path], bool]) -> None:
    """Raise ValueError unless `folder` is new, empty, or holds nothing but what its owner wrote.

    Parameters
    ----------
    owns : tells of a path in the folder whether its owner wrote it; what a killed run left is ours in any case
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is not a folder; a folder is to be written")
    present = sorted(folder.iterdir()) if folder.exists() else []
    if stray := [path.name for path in present if not LEFTOVER.fullmatch(path.name) and not owns(path)]:
        raise ValueError(f"{folder} holds {stray[0]}, which is not as cbnn wrote it; name an empty or a new folder")


@contextmanager
def folder_written(folder: Path) -> Iterator[Path]:
    """Give a new, empty folder beside `folder` to fill; at the end it takes its place, as a whole or not at all.

    Whether what is there may go is for the caller to check before, see `check_own_folder`.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link; name the folder itself")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = _neighbour(folder)
    with vanishing(fresh):
        fresh.mkdir()
        yield fresh
        if not folder.exists():
            fresh.rename(folder)
            return
        fresh.chmod(stat.S_IMODE(folder.stat().st_mode))
        old = _neighbour(folder)
        folder.rename(old)
        try:
            fresh.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        with vanishing(old):  # only now, so that a kill between the two leaves it
            pass
