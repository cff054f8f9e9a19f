"""MATLAB files: what scipy writes comes back; whatever else is refused, in bounded memory."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from cbnn.model.data.mat_file import MAX_ARRAYS, read_integers

HEADER = bytes(124) + b"\x00\x01IM"


def saved(compress: bool = True, **arrays: object) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays, do_compression=compress)
    return file.getvalue()


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(name: str, shape: tuple[int, ...], numbers: bytes, kind: int = 2, flags: int = 9) -> bytes:
    """Return what an array's element holds."""
    return (element(6, struct.pack("<II", flags, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
            + element(1, name.encode()) + element(kind, numbers))


def packed(content: bytes) -> bytes:
    compressed = zlib.compress(element(14, content))
    return struct.pack("<II", 15, len(compressed)) + compressed


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 3), (5, 4, 3, 7)])
def test_what_scipy_writes(dtype: str, shape: tuple[int, ...], compress: bool) -> None:
    whole = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    content = saved(compress, before="text", more=np.arange(3.0), cell={"a": 1}, wanted=whole, after=1j)
    found = read_integers(content, "wanted", 10_000)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, whole)


SIX = array("X", (2, 3), bytes(range(6)))


@pytest.mark.parametrize(("content", "sentence"), [
    (b"", "it is no MATLAB file of level 5"), (bytes(200), "it is no MATLAB file of level 5"),
    (HEADER, "it holds no array of numbers called X among the first 100"),
    (HEADER + b"\x0f", "it is cut short"),
    (HEADER + element(13, b""), "it holds an element of type 13, which is no array"),
    (HEADER + element(14, SIX) * 2, "it holds several arrays called X"),
    (HEADER + packed(SIX) + element(14, SIX), "it holds several arrays called X"),
    (HEADER + element(14, array("Y", (1,), b"1")) * MAX_ARRAYS + packed(SIX),
     "it holds no array of numbers called X among the first 100"),
    (HEADER + packed(SIX + bytes(8)), "an array of it does not end where it should"),
    (HEADER + element(14, SIX + bytes(8)), "an array of it does not end where it should"),
    (HEADER + packed(SIX)[:-1], "it is cut short"), (HEADER + element(14, SIX[:-8]), "it is cut short"),
    (HEADER + element(15, b"no zlib stream"), "what it compressed is damaged"),
    (HEADER + element(14, array("X", (2, 4), bytes(6))), "X is uint8 (2, 4) and holds 6 bytes"),
    (HEADER + element(14, array("X", (2, 0), b"")), "X is of shape (2, 0); no axis may be empty"),
    (HEADER + element(14, array("X", (-2, -3), bytes(6))), "X is of shape (-2, -3); no axis may be empty"),
    (HEADER + element(14, array("X", (), b"")), "X is of shape (); no axis may be empty"),
    (HEADER + element(14, array("X", (1,) * 9, b"1")), "an array of it holds 36 bytes of type 5; at most 32 of type 5 "
                                                       "are read"),
    (HEADER + element(14, array("X", (2, 3), bytes(48), 9)), "an array of it holds 48 bytes of type 9; at most 1000 of "
                                                             "type 1 or 2 or 3 or 4 or 5 or 6 or 12 or 13 are read"),
    (HEADER + element(14, array("X", (2, 3), bytes(6), 2, 9 | 1 << 11)), "X is complex; integers are needed"),
    (HEADER + element(14, array("X", (1001, 1), bytes(1001))), "an array of it holds 1001 bytes of type 2; at most "
                                                               "1000 of type 1 or 2 or 3 or 4 or 5 or 6 or 12 or 13 "
                                                               "are read")])
def test_what_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_integers(content, "X", 1000)
    assert str(caught.value) == sentence


def test_no_more_is_inflated_than_is_asked_for() -> None:
    content = HEADER + b"".join(packed(array(name, (1 << 26, 1), bytes(1 << 26))) for name in "XY")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            read_integers(content, "X", 1 << 20)
        with pytest.raises(ValueError):
            read_integers(content, "Z", 1 << 30)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
