"""Networks on disk: one .npz without pickle, weights as packed bits, everything checked on load."""

import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbnn.model.network import Network, Parameters
from cbnn.model.topology import LayerShape, Topology

FORMAT = "cbnn-network-1"
MAX_BYTES = 1 << 28
"""Largest array accepted from a file, in bytes: a bound on what a hostile file can make us allocate."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: into a neighbour first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def save(network: Network, path: Path) -> None:
    """Write `network` to `path`, atomically; the same network gives the same bytes."""
    topology = network.topology
    header = {"format": FORMAT, "layers": str(topology), "in_shape": list(topology.in_shape),
              "input_bits": topology.input_bits, "kept_slices": list(topology.kept_slices),
              "first_layer": topology.first_layer}
    arrays: dict[str, NDArray] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for i, parameters in enumerate(network.parameters):
        arrays[f"weights_{i}"] = np.packbits(parameters.weights, axis=None, bitorder="little")
        if parameters.thresholds is not None:
            arrays[f"thresholds_{i}"] = parameters.thresholds.astype("<i4")
        if parameters.offsets is not None:
            arrays[f"offsets_{i}"] = parameters.offsets.astype("<i4")
        if parameters.invert is not None:
            arrays[f"invert_{i}"] = np.packbits(parameters.invert, bitorder="little")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    write_atomically(path, content.getvalue())


def load(path: Path) -> Network:
    """Read a network that `save` wrote.

    Raises
    ------
    ValueError
        When the file is missing, truncated, foreign, holds pickled objects, or does not describe a valid network.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {Path(member.filename).stem: _read(archive, member) for member in archive.infolist()}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
        topology = Topology.parse(header["layers"], tuple(header["in_shape"]), header["input_bits"],
                                  tuple(header["kept_slices"]), header["first_layer"])
        parameters = tuple(_parameters(arrays, i, shape) for i, shape in enumerate(topology.shapes))
        if arrays:
            raise ValueError(f"it holds {min(arrays)}, which no layer uses")
        return Network(topology, parameters)
    except KeyError as error:
        raise ValueError(f"{path} is not a cbnn network: it lacks {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error,
            NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is not a cbnn network: {error}") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray:
    if member.file_size > MAX_BYTES:
        raise ValueError(f"{member.filename} holds {member.file_size} bytes; at most {MAX_BYTES} are read")
    with archive.open(member) as file:
        return np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)


def _parameters(arrays: dict[str, NDArray], i: int, shape: LayerShape) -> Parameters:
    def integers(name: str) -> NDArray[np.int64] | None:
        array = arrays.pop(f"{name}_{i}", None)
        if array is not None and array.dtype != np.dtype("<i4"):
            raise ValueError(f"{name} of layer {i} are {array.dtype}; they must be int32")
        return None if array is None else array.astype(np.int64)

    weights = _unpack(arrays.pop(f"weights_{i}"), shape.mh * shape.mw, f"weights of layer {i}")
    invert = arrays.pop(f"invert_{i}", None)
    return Parameters(weights.reshape(shape.mh, shape.mw), integers("thresholds"), integers("offsets"),
                      None if invert is None else _unpack(invert, shape.mh, f"invert of layer {i}").astype(np.bool_))


def _unpack(packed: NDArray, n_bits: int, what: str) -> NDArray[np.uint8]:
    if packed.dtype != np.uint8 or packed.shape != ((n_bits + 7) // 8,):
        raise ValueError(f"{what} are {packed.dtype} {packed.shape}; {n_bits} packed bits are "
                         f"uint8 {((n_bits + 7) // 8,)}")
    return np.unpackbits(packed, count=n_bits, bitorder="little")
