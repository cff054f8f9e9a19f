"""FINN's folding files, JSON with a node per kernel, read and written.

    {"Defaults": {}, "MVAU_hls_0": {"PE": 16, "SIMD": 49, "ram_style": "block"}, "LabelSelect_hls_0": {"PE": 1}, ...}

Its matrix units were called StreamingFCLayer_Batch, MatrixVectorActivation and MVAU over the years. SIMD of a first
layer that takes pixels of several bits counts pixels and colours there, bits here.
Other kernels need no folding here, and their entries are passed over; so are FIFO depths, which count other beats.
"""

import json
import re
from pathlib import Path
from typing import Any

from cbnn.hw.folding import OWN_NODE, Folding
from cbnn.hw.layer_folding import RAM_STYLES, bits_per_weight
from cbnn.hw.slice_order import divisors
from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded, write_atomically
from cbnn.model.topology import Topology

UNIT = re.compile(r"(?:MVAU|MatrixVectorActivation|StreamingFCLayer_Batch)(?:_hls|_rtl)?_(\d+)")
MAX_FOLD = 1 << 16
FOLDED = ("PE", "SIMD", "ram_style")


def load(path: Path, topology: Topology) -> Folding:
    """Read the folding of a network; where one leaves a remainder here, the next larger divisor is taken.

    Raises
    ------
    ValueError
        When the file is no such JSON, or has not one matrix unit per layer.
    """
    content = read_bounded(path, MAX_JSON_BYTES)
    try:
        nodes = decode_json(content, dict[str, Any])
        named = [(int(match[1]), node) for name, node in nodes.items() if (match := UNIT.fullmatch(name))]
        units = dict(named)
        if not all(isinstance(node, dict) for node in (*units.values(), nodes.get("Defaults", {}))):
            raise ValueError("its matrix units and Defaults are not objects")
        if len(units) < len(named):
            raise ValueError("two of its matrix units have the same number")
        if any(nodes.get("Defaults", {}).get(key) is not None for key in FOLDED):
            raise ValueError("its Defaults fold units; name PE and SIMD of each")
        if not units and any(map(OWN_NODE.fullmatch, nodes)):
            raise ValueError("it is one of cbnn's already, which --folding takes")
        if sorted(units) != list(range(len(topology.layers))):
            raise ValueError(f"it has {len(units)} matrix units, the network {len(topology.layers)} layers")
        pairs = [(_whole(i, units[i], "PE"), _whole(i, units[i], "SIMD")) for i in sorted(units)]
        styles = [units[i].get("ram_style", "auto") for i in sorted(units)]
        return Folding.at_least(topology, pairs, [style if style in RAM_STYLES else "auto" for style in styles])
    except ValueError as error:
        raise ValueError(f"{path} is not a folding of FINN's for this network: {error}") from error


def _whole(i: int, unit: dict[str, Any], key: str) -> int:
    value = unit.get(key)
    if type(value) is not int or not 1 <= value <= MAX_FOLD:
        raise ValueError(f"{key} of matrix unit {i} is {str(value)[:20]}; it must be a whole number of 1 to {MAX_FOLD}")
    return value


def save(folding: Folding, topology: Topology, path: Path) -> None:
    """Write a folding for FINN, atomically; of a first layer of pixels SIMD is the least that is as fast.

    Raises
    ------
    ValueError
        When a layer works on several windows at once, for which FINN's matrix units have no key.
    """
    nodes: dict[str, Any] = {"Defaults": {}}
    for i, (layer, shape) in enumerate(zip(folding.layers, topology.layers, strict=True)):
        if layer.mmv > 1:
            raise ValueError(f"layer {i} works on {layer.mmv} windows at once; FINN's folding files cannot say so")
        least = -(-layer.simd // bits_per_weight(shape))
        simd = next(n for n in divisors(shape.mw) if n >= least)
        nodes[f"MVAU_hls_{i}"] = {"PE": layer.pe, "SIMD": simd, "ram_style": layer.ram_style}
    write_atomically(path, json.dumps(nodes, indent=2).encode() + b"\n")
