"""Networks of BNN-PYNQ: parameter files of the processing elements, read by a table of the layers.

The files are those that FINN's first generation wrote for a board (https://github.com/Xilinx/BNN-PYNQ): of layer l and
processing element p ``l-p-weights.bin``, little-endian words of 64 bits of which the low SIMD bits are used, a line per
neuron fold and synapse fold, and ``l-p-thres.bin``, little-endian integers of 64 bits, one per neuron fold; a bit is 1
where its popcount is greater. The table is JSON::

    {"in_shape": [32, 32, 3], "classes": 10, "first_layer": "fixed point",
     "layers": [{"kind": "conv", "kernel": 3, "pe": 16, "simd": 3, "mw": 27, "mh": 64},
                {"kind": "conv", "kernel": 3, "pe": 32, "simd": 32, "mw": 576, "mh": 64, "pool": 2},
                {"kind": "dense", "pe": 4, "simd": 1, "mw": 512, "mh": 64, "scores": true}]}

``first_layer`` is "fixed point", for pixels of 8 bits that are spread over -1 to 1 and rounded to multiples of 1/128,
with thresholds in units of 1/256; or "binary", for the sign of the same. Columns and rows beyond those that the shapes
need only fill the files up: such an input is 0, such a row is dropped. A file ``classes.txt`` with a class's name in
each line tells whether the number of classes is right.

The same files can be read by several tables, of which one is right: two tables of a layer that swap
PE and SIMD want as many words. So whatever in the folder contradicts the table is refused: files of
a processing element or a layer that it does not have, files of another size, and bits above SIMD.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded
from cbnn.model.network import Network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import MaxPool, PoolParameters
from cbnn.model.operators.operator import Operator, Parameters
from cbnn.model.topology import Topology

MAX_BYTES = 1 << 24
"""Largest file read."""
PIXELS = np.arange(256)
CLASSES = "classes.txt"
MAX_LAYERS, MAX_WEIGHTS = 64, 1 << 26
"""Most layers of a table, and most weights of a layer."""
Size = Annotated[int, Meta(ge=1, le=1 << 16)]


class _Dense(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="dense"):
    """A layer of the table."""

    pe: Size
    simd: Annotated[int, Meta(ge=1, le=64)]  # words of the files are of 64 bits
    mw: Size
    mh: Size
    scores: bool = False


class _Conv(_Dense, forbid_unknown_fields=True, kw_only=True, tag="conv"):
    """A convolution of the table."""

    kernel: Size
    stride: Size = 1
    pool: Size = 1


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """The table."""

    in_shape: tuple[Size, Size, Size]
    classes: Size
    first_layer: Literal["fixed point", "binary"]
    layers: Annotated[list[_Conv | _Dense], Meta(min_length=1, max_length=MAX_LAYERS)]


def load(folder: Path, table: Path) -> Network:
    """Read a network.

    Raises
    ------
    ValueError
        When the table or a file is missing, of the wrong size or not what the shapes need, or the
        files contradict the table.
    """
    description = _table(table)
    topology = _topology(description)
    _check_files(folder, description)
    layers = zip(description.layers, topology.layers, strict=True)
    matrices = iter([_parameters(folder, i, entry, shape, description.first_layer)
                     for i, (entry, shape) in enumerate(layers)])
    parameters: list[Parameters] = [
        next(matrices) if isinstance(shape, MatrixShape) else PoolParameters(np.zeros(shape.out.shape[2], np.bool_))
        for shape in topology.shapes]
    pixel_table = None
    if description.first_layer == "fixed point":
        spread = np.floor(128 * (2 * PIXELS / 255 - 1) + 0.5).astype(np.int64)
        pixel_table = np.clip(spread, -128, 127) + 128
    return Network(topology, tuple(parameters), pixel_table)


def pe_simd(table: Path) -> list[tuple[int, int]]:
    """Return PE and SIMD of every layer, as the table has them.

    They may leave a remainder: columns and rows that only filled files up are gone, and the first
    layer works slice by slice.
    """
    return [(entry.pe, entry.simd) for entry in _table(table).layers]


def _table(path: Path) -> _Table:
    content = read_bounded(path, MAX_JSON_BYTES)
    try:
        table = decode_json(content, _Table)
        for i, layer in enumerate(table.layers):
            if layer.mw % layer.simd or layer.mh % layer.pe:
                raise ValueError(f"layer {i}: {layer.mh} x {layer.mw} does not fold onto {layer.pe} PEs of SIMD "
                                 f"{layer.simd}")
            if layer.mw * layer.mh > MAX_WEIGHTS:
                raise ValueError(f"layer {i} has {layer.mw * layer.mh} weights; at most {MAX_WEIGHTS} are read")
            if layer.scores != (i == len(table.layers) - 1):
                raise ValueError(f"layer {i} {'has' if layer.scores else 'lacks'} scores; the last layer gives them, "
                                 "and no other")
    except ValueError as error:
        raise ValueError(f"{path} is no table of layers: {error}") from error
    return table


def _topology(table: _Table) -> Topology:
    operators: list[Operator] = []
    for i, entry in enumerate(table.layers):
        if isinstance(entry, _Conv):
            operators.append(Conv(entry.mh, entry.kernel, entry.stride))
            operators += [MaxPool(entry.pool)] if entry.pool > 1 else []
        else:
            operators.append(Dense(table.classes if i == len(table.layers) - 1 else entry.mh))
    binary = table.first_layer == "binary"
    return Topology.chain(table.in_shape, 8, (7,) if binary else tuple(range(7, -1, -1)), operators,
                          "sliced" if binary else "weighted")


def _check_files(folder: Path, table: _Table) -> None:
    """Raise ValueError where the folder holds files that the table has no place for, or other classes."""
    layers = table.layers
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}") from error
    for name in names:
        if match := re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})-(weights|thres)\.bin", name):
            i, pe = int(match[1]), int(match[2])
            if i >= len(layers):
                raise ValueError(f"{folder} holds {name}; the table has {len(layers)} layers, the first being 0")
            if pe >= layers[i].pe:
                raise ValueError(f"{folder} holds {name}; the table has {layers[i].pe} PEs in layer {i}, the first "
                                 "being 0")
    if CLASSES in names:
        lines = read_bounded(folder / CLASSES, MAX_BYTES).decode(errors="replace").splitlines()
        n_names = sum(bool(line.strip()) for line in lines)
        if n_names != table.classes:
            raise ValueError(f"{folder / CLASSES} names {n_names} classes; the table has {table.classes}")


def _parameters(folder: Path, i: int, entry: _Dense, shape: MatrixShape, first_layer: str) -> MatrixParameters:
    if entry.mw < shape.slice_inputs or entry.mh < shape.mh:
        raise ValueError(f"layer {i} is given as {entry.mh} x {entry.mw}; it needs {shape.mh} x "
                         f"{shape.slice_inputs}")
    weights = _weights(folder, i, entry)
    # An input that fills up is 0 and agrees with weights that are 0.
    filling = (weights[:, shape.slice_inputs :] == 0).sum(axis=1)[: shape.mh]
    weights = np.ascontiguousarray(weights[: shape.mh, : shape.slice_inputs])
    if entry.scores:
        return MatrixParameters(weights, offsets=filling.astype(np.int64))
    raw = np.stack([_words(folder / f"{i}-{pe}-thres.bin", entry.mh // entry.pe, "<i8")
                    for pe in range(entry.pe)], axis=1).ravel()[: shape.mh]
    if i == 0 and first_layer == "fixed point":
        # 2 sum(w q) > T for q = u - 128 and the code u; of u the accumulator counts where w is 1, of 255 - u elsewhere.
        n_negative = (weights == 0).sum(axis=1)
        thresholds = raw // 2 + 1 + 128 * shape.slice_inputs - n_negative
    else:
        thresholds = raw + 1 - filling
    thresholds = np.clip(thresholds, 0, shape.max_accumulator + 1)
    return MatrixParameters(weights, thresholds)


def _weights(folder: Path, i: int, entry: _Dense) -> NDArray[np.uint8]:
    """All rows and columns of the files, (mh, mw)."""
    pe, simd = entry.pe, entry.simd
    neuron_fold, synapse_fold = entry.mh // pe, entry.mw // simd
    words = np.stack([_words(folder / f"{i}-{p}-weights.bin", neuron_fold * synapse_fold, "<u8") for p in range(pe)])
    if simd < 64 and (highest := int(words.max()) >> simd):
        raise ValueError(f"weights of layer {i} have bits up to {simd + highest.bit_length() - 1}; the table has "
                         f"SIMD {simd}, which are the bits 0 to {simd - 1}")
    bits = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(*words.shape, 8), axis=-1, bitorder="little")
    bits = bits[..., :simd].reshape(pe, neuron_fold, synapse_fold * simd)
    return bits.transpose(1, 0, 2).reshape(entry.mh, entry.mw)


def _words(path: Path, n: int, dtype: str) -> NDArray:
    content = read_bounded(path, MAX_BYTES)
    if len(content) != 8 * n:
        raise ValueError(f"{path} is of {len(content)} bytes; the table asks for {8 * n}")
    return np.frombuffer(content, dtype)
