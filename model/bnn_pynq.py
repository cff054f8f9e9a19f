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
need only fill the files up: such an input is 0, such a row is dropped.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.files import read_bounded
from cbnn.model.folding import Folding
from cbnn.model.network import Network, Parameters
from cbnn.model.topology import Conv, Dense, LayerShape, Topology

MAX_BYTES = 1 << 24
"""Largest file read."""
PIXELS = np.arange(256)
FIRST_LAYERS = ("fixed point", "binary")
KEYS = {"kind": str, "pe": int, "simd": int, "mw": int, "mh": int}


def load(folder: Path, table: Path) -> Network:
    """Read a network.

    Raises
    ------
    ValueError
        When the table or a file is missing, of the wrong size or not what the shapes need.
    """
    description = _table(table)
    topology = _topology(description, table)
    parameters = tuple(_parameters(folder, i, entry, shape, description["first_layer"]) for i, (entry, shape) in
                       enumerate(zip(description["layers"], topology.shapes, strict=True)))
    codes = None
    if description["first_layer"] == "fixed point":
        spread = np.floor(128 * (2 * PIXELS / 255 - 1) + 0.5).astype(np.int64)
        codes = np.clip(spread, -128, 127) + 128
    return Network(topology, parameters, codes)


def folding(topology: Topology, table: Path) -> Folding:
    """Return the PE and SIMD of the table, see `Folding.at_least`.

    A remainder is left where columns and rows that only filled files up are gone, or the first layer works slice by
    slice.
    """
    return Folding.at_least(topology, [(entry["pe"], entry["simd"]) for entry in _table(table)["layers"]])


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_bounded(path, 1 << 20))
        layers = table["layers"]
        if table["first_layer"] not in FIRST_LAYERS:
            raise ValueError(f"first_layer is {table['first_layer']!r}; it must be one of {', '.join(FIRST_LAYERS)}")
        if not layers or any(type(entry[key]) is not kind for entry in layers for key, kind in KEYS.items()):
            raise ValueError(f"its layers do not name {', '.join(KEYS)}")
        for i, entry in enumerate(layers):
            _check_entry(i, entry, last=i == len(layers) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of layers: {error}") from error
    return table


def _check_entry(i: int, entry: dict[str, Any], last: bool) -> None:
    if entry["kind"] not in ("conv", "dense"):
        raise ValueError(f"layer {i} is of kind {entry['kind']!r}; it must be conv or dense")
    if not 1 <= entry["simd"] <= 64:
        raise ValueError(f"layer {i} has SIMD {entry['simd']}; words of the files hold 1 to 64 bits")
    if min(entry["pe"], entry["mw"], entry["mh"]) < 1 or entry["mw"] % entry["simd"] or entry["mh"] % entry["pe"]:
        raise ValueError(f"layer {i}: {entry['mh']} x {entry['mw']} does not fold onto {entry['pe']} PEs of SIMD "
                         f"{entry['simd']}")
    if bool(entry.get("scores")) != last:
        raise ValueError(f"layer {i} {'lacks' if last else 'has'} scores; the last layer gives them, and no other")


def _topology(table: dict[str, Any], path: Path) -> Topology:
    layers: list[Conv | Dense] = []
    for i, entry in enumerate(table["layers"]):
        if entry["kind"] == "conv":
            layers.append(Conv(entry["mh"], entry["kernel"], entry.get("stride", 1), 0, 0, entry.get("pool", 1)))
        else:
            layers.append(Dense(table["classes"] if i == len(table["layers"]) - 1 else entry["mh"]))
    binary = table["first_layer"] == "binary"
    try:
        return Topology(tuple(table["in_shape"]), 8, (7,) if binary else tuple(range(7, -1, -1)), tuple(layers),
                        "sliced" if binary else "weighted")
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is no table of layers: {error}") from error


def _parameters(folder: Path, i: int, entry: dict[str, Any], shape: LayerShape, first_layer: str) -> Parameters:
    if entry["mw"] < shape.slice_inputs or entry["mh"] < shape.mh:
        raise ValueError(f"layer {i} is given as {entry['mh']} x {entry['mw']}; it needs {shape.mh} x "
                         f"{shape.slice_inputs}")
    weights = _weights(folder, i, entry)
    # An input that fills up is 0 and agrees with weights that are 0.
    filling = (weights[:, shape.slice_inputs :] == 0).sum(axis=1)[: shape.mh]
    weights = np.ascontiguousarray(weights[: shape.mh, : shape.slice_inputs])
    if entry.get("scores"):
        return Parameters(weights, offsets=filling.astype(np.int64))
    raw = np.stack([_words(folder / f"{i}-{pe}-thres.bin", entry["mh"] // entry["pe"], "<i8")
                    for pe in range(entry["pe"])], axis=1).ravel()[: shape.mh]
    if i == 0 and first_layer == "fixed point":
        # 2 sum(w q) > T for q = u - 128 and the code u; of u the accumulator counts where w is 1, of 255 - u elsewhere.
        n_negative = (weights == 0).sum(axis=1)
        thresholds = raw // 2 + 1 + 128 * shape.slice_inputs - n_negative
    else:
        thresholds = raw + 1 - filling
    thresholds = np.clip(thresholds, 0, shape.max_accumulator + 1)
    pooled = isinstance(shape.layer, Conv) and shape.layer.pool > 1
    return Parameters(weights, thresholds, invert=np.zeros(shape.mh, np.bool_) if pooled else None)


def _weights(folder: Path, i: int, entry: dict[str, Any]) -> NDArray[np.uint8]:
    """All rows and columns of the files, (mh, mw)."""
    pe, simd = entry["pe"], entry["simd"]
    neuron_fold, synapse_fold = entry["mh"] // pe, entry["mw"] // simd
    words = np.stack([_words(folder / f"{i}-{p}-weights.bin", neuron_fold * synapse_fold, "<u8") for p in range(pe)])
    bits = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(*words.shape, 8), axis=-1, bitorder="little")
    bits = bits[..., :simd].reshape(pe, neuron_fold, synapse_fold * simd)
    return bits.transpose(1, 0, 2).reshape(entry["mh"], entry["mw"])


def _words(path: Path, n: int, dtype: str) -> NDArray:
    content = read_bounded(path, MAX_BYTES)
    if len(content) != 8 * n:
        raise ValueError(f"{path} is of {len(content)} bytes; the table asks for {8 * n}")
    return np.frombuffer(content, dtype)
