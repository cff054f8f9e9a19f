"""Networks on disk: one .npz without pickle, weights as packed bits, everything checked on load."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cbnn.model.files import decode_json, read_bounded, write_atomically
from cbnn.model.network import Network, Origin
from cbnn.model.operators.operator import OperatorShape, Parameters
from cbnn.model.topology import Topology

FORMAT = "cbnn-network-3"
OLD_FORMATS = ("cbnn-network-1", "cbnn-network-2")
MAX_BYTES = 1 << 25
"""Largest file, and largest sum of its arrays, read, in bytes: bounds what a hostile file makes us allocate.

268 million weights fit, twice those of VGG-16.
"""
MAX_HEADER_BYTES = 1 << 16
_NPY_HEADER = re.compile(rb"\x93NUMPY\x01\x00..\{'descr': '(\|u1|<i4)', 'fortran_order': False, "
                         rb"'shape': \(([0-9]{1,18}),\), \} *\n", re.DOTALL)


def save(network: Network, path: Path) -> None:
    """Write `network` to `path`, atomically."""
    write_atomically(path, encoded(network))


def encoded(network: Network) -> bytes:
    """Return the .npz of a network; the same network gives the same bytes.

    The members of the .npz, all uint8 or little-endian int32 and of one axis: ``header`` (JSON in UTF-8); of node i
    of the topology, where it has them, ``weights_i`` and ``invert_i`` (packed bits, row by row, the first in the LSB),
    ``thresholds_i`` (of all rows, place by place where they differ) and ``offsets_i``; and ``codes``, the pixel lookup
    table of networks that have one.
    """
    header: dict[str, Any] = {"format": FORMAT, "topology": str(network.topology), "max_pixel": network.max_pixel}
    if network.origin is not None:
        header["origin"] = network.origin._asdict()
    arrays: dict[str, NDArray] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    if (n_bytes := arrays["header"].nbytes) > MAX_HEADER_BYTES:
        raise ValueError(f"topology, class names and ranges take {n_bytes} bytes; at most {MAX_HEADER_BYTES} are "
                         "written")
    for i, (shape, parameters) in enumerate(zip(network.topology.shapes, network.parameters, strict=True)):
        for name, array in parameters.arrays.items():
            packed = np.packbits(array, axis=None, bitorder="little") if name in shape.n_bits else None
            arrays[f"{name}_{i}"] = array.ravel().astype("<i4") if packed is None else packed
    if network.pixel_table is not None:
        arrays["codes"] = network.pixel_table.astype("<i4")
    if (n_bytes := sum(array.nbytes + 128 for array in arrays.values())) > MAX_BYTES:
        raise ValueError(f"the network takes {n_bytes} bytes; at most {MAX_BYTES} are written, which is what is read")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return content.getvalue()


def load(path: Path) -> Network:
    """Read a network that `save` wrote.

    Raises
    ------
    ValueError
        When the file is missing, truncated, foreign, holds pickled objects, claims more than
        `MAX_BYTES`, or does not describe a valid network.
    """
    content = read_bounded(path, MAX_BYTES)
    try:
        arrays = _arrays(content)
        topology, max_pixel, origin = _header(_taken(arrays, "header", "bytes of the header", np.uint8).tobytes())
        parameters = tuple(_parameters(arrays, i, topology.names[i], shape) for i, shape in enumerate(topology.shapes))
        pixel_table = None
        if "codes" in arrays:
            pixel_table = _taken(arrays, "codes", "codes", np.int32).astype(np.int64)
        if arrays:
            raise ValueError(f"it holds {min(arrays)}, which no part of it uses")
        return Network(topology, parameters, pixel_table, max_pixel, origin)
    except KeyError as error:
        raise ValueError(f"{path} is not a cbnn network: it lacks {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a cbnn network: {error}") from error


def _arrays(content: bytes) -> dict[str, NDArray]:
    """Arrays of an .npz by name; what they hold together is bounded before any is read."""
    arrays: dict[str, NDArray] = {}
    with _refusing("it is not a whole .npz file"):
        archive = zipfile.ZipFile(io.BytesIO(content))
    members = archive.infolist()
    n_bytes = sum(member.file_size for member in members)
    if n_bytes > MAX_BYTES:
        raise ValueError(f"its arrays claim {n_bytes} bytes; at most {MAX_BYTES} are read")
    for member in members:
        name = member.filename.removesuffix(".npy")
        if not re.fullmatch(r"[a-z]+(_[0-9]+)?\.npy", member.filename) or name in arrays:
            raise ValueError(f"it holds {member.filename!r}, which is no array or there twice")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed by method {member.compress_type}; only deflate is read")
        with _refusing(f"{name} is damaged"), archive.open(member) as file:
            # A size given to read() also bounds what it inflates, where the stream holds more than it claims.
            array = file.read(member.file_size)
        arrays[name] = _array(name, array)
    return arrays


def _array(name: str, content: bytes) -> NDArray:
    """Array of one .npy, by hand: numpy would allocate whatever the header claims, and reads more than it writes."""
    start = 10 + int.from_bytes(content[8:10], "little")
    header = _NPY_HEADER.fullmatch(content[:start])
    if not header:
        raise ValueError(f"{name} is not an .npy array of uint8 or int32 with one axis")
    dtype = np.dtype(header[1].decode())
    if (claimed := int(header[2]) * dtype.itemsize) != len(content) - start:
        raise ValueError(f"{name} claims {claimed} bytes and holds {len(content) - start}")
    return np.frombuffer(content, dtype, offset=start)


@contextmanager
def _refusing(sentence: str) -> Iterator[None]:
    """Turn whatever zipfile, zlib and numpy raise on hostile bytes, a dozen types, into one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(sentence) from error


def _taken(arrays: dict[str, NDArray], name: str, what: str, dtype: type) -> NDArray:
    """Take an array out of all; messages call it `what`."""
    if (array := arrays.pop(name)).dtype != dtype:
        raise ValueError(f"{what} are {array.dtype}; they must be {np.dtype(dtype)}")
    return array


class _Origin(msgspec.Struct, forbid_unknown_fields=True):
    """`Origin` in a header."""

    data: str
    name: str
    class_names: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]


def _header(header: bytes) -> tuple[Topology, int, Origin | None]:
    """Topology, highest pixel and origin."""
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"its header is of {len(header)} bytes; at most {MAX_HEADER_BYTES} are read")
    fields = decode_json(header, dict[str, Any], "header")
    if (found := fields.get("format")) != FORMAT:
        if found in OLD_FORMATS:
            raise ValueError(f"its format is {found!r}, of an earlier version, which is not read any more; train or "
                             "import the network again")
        raise ValueError(f"its header does not name the format {FORMAT!r}")
    topology = fields["topology"]
    if not isinstance(topology, str):
        raise ValueError("its header does not hold text for the topology")
    origin = None
    if "origin" in fields:
        kept = decode_json(json.dumps(fields["origin"]).encode(), _Origin, "origin")
        origin = Origin(kept.data, kept.name, kept.class_names, kept.ranges)
    return Topology.parse(topology), fields["max_pixel"], origin


def _parameters(arrays: dict[str, NDArray], i: int, node: str, shape: OperatorShape) -> Parameters:
    """Take the arrays of node `i`, which messages call `node`, out of all."""
    given: dict[str, NDArray] = {}
    for name, n in shape.n_bits.items():
        what = f"{name} of {node}"
        given[name] = _unpack(_taken(arrays, f"{name}_{i}", what, np.uint8), n, what)
    for name in shape.integers:
        if f"{name}_{i}" in arrays:
            given[name] = _taken(arrays, f"{name}_{i}", f"{name} of {node}", np.int32).astype(np.int64)
    return shape.parameters(given)


def _unpack(packed: NDArray, n_bits: int, what: str) -> NDArray[np.uint8]:
    if len(packed) != (n_bytes := (n_bits + 7) // 8):
        raise ValueError(f"{what} are {len(packed)} bytes; {n_bits} packed bits are {n_bytes}")
    if packed[-1] >> (n_bits - 1) % 8 + 1:
        raise ValueError(f"{what} end with bits of 1 after the last of {n_bits}")
    return np.unpackbits(packed, count=n_bits, bitorder="little")
