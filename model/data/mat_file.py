"""Arrays of whole numbers from a MATLAB file, level 5, as MATLAB and scipy save them, compressed or not.

Read by hand: scipy allocates whatever a file claims, and takes floats and complex numbers too. An
element is a tag (its type, its size in bytes), then its content, filled up to 8 bytes; content of
at most 4 bytes may lie in the tag itself. An array is an element that holds four others: flags,
lengths of the axes, name, and the numbers, which MATLAB saves in the smallest type that holds them.
Only numbers that are saved as integers are read here, whatever class MATLAB gives them.

Source: MathWorks, "MAT-File Format", chapter 1, level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
"""Text, version and byte order in front of the first element."""
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
"""Types of elements."""
INTEGERS = {INT8: "i1", 2: "u1", 3: "<i2", 4: "<u2", INT32: "<i4", UINT32: "<u4", 12: "<i8", 13: "<u8"}
"""Dtypes of those that hold integers."""
NUMERIC = range(6, 16)
"""Classes of arrays of numbers; others are cells, structures, texts and sparse arrays."""
COMPLEX = 1 << 11
MAX_AXES = 8
MAX_NAME_BYTES = 64
MAX_ARRAYS = 100
"""Arrays of a file that are looked at."""
CHUNK = 1 << 16
"""Compressed bytes that are inflated at once."""


class _Source:
    """Bytes of one element, inflated where it is compressed, and never more than are asked for."""

    def __init__(self, content: memoryview, compressed: bool) -> None:
        self._rest = content
        self._inflater = zlib.decompressobj() if compressed else None

    def take(self, n: int) -> bytes | bytearray:
        """Return the next `n` bytes; raise ValueError where there are fewer."""
        if self._inflater is None:
            taken: bytes | bytearray = bytes(self._rest[:n])
            self._rest = self._rest[n:]
        else:
            taken = self._inflated(self._inflater, n)
        if len(taken) != n:
            raise ValueError("it is cut short")
        return taken

    def _inflated(self, inflater: "zlib._Decompress", n: int) -> bytearray:
        """Inflate chunk by chunk, since what is left of a chunk is copied each time."""
        taken = bytearray()
        while len(taken) < n and not inflater.eof and (inflater.unconsumed_tail or self._rest):
            chunk: bytes | memoryview = inflater.unconsumed_tail
            if not chunk:
                chunk, self._rest = self._rest[:CHUNK], self._rest[CHUNK:]
            taken += inflater.decompress(chunk, n - len(taken))
        return taken

    def check_end(self) -> None:
        """Raise ValueError unless everything was taken and, where it was compressed, the checksum is right."""
        more = self._inflated(self._inflater, 1) if self._inflater else self._rest
        if more or (self._inflater and not self._inflater.eof):
            raise ValueError("an array of it does not end where it should")


def read_integers(content: bytes, name: str, max_bytes: int) -> NDArray[np.integer]:
    """Return the array of a name, of the type that it was saved in.

    Parameters
    ----------
    max_bytes : size of the largest array that is read; no more is allocated or decompressed

    Raises
    ------
    ValueError
        When there is not exactly one array of the name, or it was not saved as integers, or the
        file is damaged.
    """
    if len(content) < HEADER_BYTES or content[124:128] != b"\x00\x01IM":
        raise ValueError("it is no MATLAB file of level 5")
    found = None
    try:
        for source in islice(_elements(content), MAX_ARRAYS):
            array = _array(source, name, max_bytes)
            if array is not None and found is not None:
                raise ValueError(f"it holds several arrays called {name}")
            found = array if found is None else found
    except zlib.error as error:
        raise ValueError("what it compressed is damaged") from error
    if found is None:
        raise ValueError(f"it holds no array of numbers called {name} among the first {MAX_ARRAYS}")
    return found


def _elements(content: bytes) -> Iterator[_Source]:
    """Give the sources of all arrays, after the tag that says that they are arrays."""
    at = HEADER_BYTES
    while at < len(content):
        kind, size = struct.unpack("<II", content[at : at + 8].ljust(8, b"\0"))
        if size > len(content) - at - 8:
            raise ValueError("it is cut short")
        source = _Source(memoryview(content)[at + 8 : at + 8 + size], kind == COMPRESSED)
        if kind == COMPRESSED:
            kind = struct.unpack("<II", source.take(8))[0]
        if kind != MATRIX:
            raise ValueError(f"it holds an element of type {kind}, which is no array")
        yield source
        at += 8 + size


def _array(source: _Source, name: str, max_bytes: int) -> NDArray[np.integer] | None:
    """Return the array; None where it has another name or holds no numbers."""
    flags = int.from_bytes(_content(source, {UINT32}, 8)[1][:4], "little")
    if flags & 0xFF not in NUMERIC:
        return None
    lengths = _content(source, {INT32}, 4 * MAX_AXES)[1]
    shape = struct.unpack(f"<{len(lengths) // 4}i", lengths[: len(lengths) // 4 * 4])
    if _content(source, {INT8}, MAX_NAME_BYTES)[1] != name.encode():
        return None
    if flags & COMPLEX:
        raise ValueError(f"{name} is complex; integers are needed")
    if min(shape, default=0) < 1:
        raise ValueError(f"{name} is of shape {shape}; no axis may be empty")
    kind, numbers = _content(source, set(INTEGERS), max_bytes)
    dtype = np.dtype(INTEGERS[kind])
    if len(numbers) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} is {dtype} {shape} and holds {len(numbers)} bytes")
    source.check_end()
    return np.frombuffer(numbers, dtype).reshape(shape, order="F")


def _content(source: _Source, wanted: set[int], most: int) -> tuple[int, bytes | bytearray]:
    """Type and content of the next element, which must be of one of some types and of at most so many bytes."""
    tag = source.take(8)
    kind, size = struct.unpack("<II", tag)
    small = kind >> 16
    kind, size = (kind & 0xFFFF, small) if small else (kind, size)
    if kind not in wanted or size > (4 if small else most):
        raise ValueError(f"an array of it holds {size} bytes of type {kind}; at most {most} of type "
                         f"{' or '.join(map(str, sorted(wanted)))} are read")
    if small:
        return kind, tag[4 : 4 + size]
    content = source.take(size)
    source.take(-size % 8)
    return kind, content
