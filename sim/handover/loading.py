"""From a network to the writes that load it into an accelerator which `cbnn generate --writable` made."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.loading import load_writes
from cbnn.hw.registers import LOAD_DATA
from cbnn.hw.stream import Rom
from cbnn.hw.verilog import MANIFEST
from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded
from cbnn.model.network import Network
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape

MAX_BYTES = 1 << 30
BEGIN = f"0x{LOAD_DATA.offset:02x} 0x".encode()
"""Every file for the host begins like this."""


class Memory(msgspec.Struct):
    """What the manifest says of a memory."""

    name: str
    words: int
    word_bits: int
    rows: int


class Load(msgspec.Struct):
    """What it says of loading."""

    memories: list[Memory]


class Input(msgspec.Struct):
    """What it says of the input."""

    input: str


class Pixel(msgspec.Struct):
    """What it says of pixels."""

    table: list[int] | None


class Manifest(msgspec.Struct):
    """What must be known of a folder."""

    top: str
    topology: str
    folding: str
    s_axis: Input
    pixel: Pixel
    load: Load | None = None


def writes(network: Network, folder: Path) -> list[tuple[int, int]]:
    """Return offset and data of the AXI4-Lite writes that load a network into the accelerator of a folder.

    Raises
    ------
    ValueError
        When the folder has no manifest, nothing can be loaded into it, or not this network.
    """
    file = folder / MANIFEST
    content = read_bounded(file, MAX_JSON_BYTES)
    try:
        manifest = decode_json(content, Manifest)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    topology, table = network.topology, network.pixel_table
    if manifest.load is None:
        raise ValueError(f"nothing can be loaded into the accelerator of {folder}; cbnn generate --writable makes one")
    if str(topology) != manifest.topology:
        raise ValueError(f"the network is {topology}; the accelerator of {folder} is {manifest.topology}")
    if (None if table is None else table.tolist()) != manifest.pixel.table:
        raise ValueError(f"the network's pixel lookup table is not that of {folder}, whose packers look pixels up")
    folding = Folding.parse(manifest.folding, topology, whole_bytes=manifest.s_axis.input == "whole bytes")
    shown = {memory.name: memory for memory in manifest.load.memories}
    unit = accelerator(network, folding, manifest.top, writable=True)
    unit = accelerator(_by_place(network, unit, shown), folding, manifest.top, writable=True)
    return list(load_writes(_as_shown(unit.memories, manifest.load.memories, folder)))


def _by_place(network: Network, unit: Accelerator, shown: dict[str, Memory]) -> Network:
    """Return the network with thresholds for every place where the accelerator has them and all places share them."""
    parameters = list(network.parameters)
    places = [i for i, shape in enumerate(network.topology.shapes) if isinstance(shape, MatrixShape)]
    for i, mvtu in zip(places, unit.mvtus, strict=True):
        rows, shape, own = mvtu.roms[1], network.topology.shapes[i], parameters[i]
        assert isinstance(shape, MatrixShape)
        assert isinstance(own, MatrixParameters)
        if (own.thresholds is not None and own.thresholds.ndim == 1 and shape.n_places > 1
                and rows.name in shown and shown[rows.name].words != len(rows.words)):
            parameters[i] = MatrixParameters(own.weights, np.tile(own.thresholds, (shape.n_places, 1)))
    return replace(network, parameters=tuple(parameters))


def _as_shown(memories: Sequence[Rom], shown: Sequence[Memory], folder: Path) -> list[Rom]:
    """Return the memories as the accelerator has laid them out.

    Raises
    ------
    ValueError
        When its memories are others.
    """
    found = []
    for content, memory in zip(memories, shown, strict=False):
        laid_out = replace(content, block_ram=memory.rows != len(content.words))
        if memory.words < len(content.words) and memory.name == content.name:
            raise ValueError("the network's thresholds differ at the border of the image, and "
                             f"{memory.name} of {folder} has no room for that; it has where it is "
                             "generated from this network")
        found.append(laid_out)
    if [_shape(content) for content in found] != [(m.name, m.words, m.word_bits, m.rows) for m in shown] or len(
            found) < len(memories):
        raise ValueError(f"the memories of {folder} are not those of this version of cbnn; generate it anew")
    return found


def _shape(content: Rom) -> tuple[str, int, int, int]:
    return content.name, len(content.words), content.width, content.shape.rows


def text(pairs: Sequence[tuple[int, int]]) -> str:
    """Return the file for the host: offset and data of a write per line, hexadecimal."""
    return "".join(f"0x{offset:02x} 0x{data:08x}\n" for offset, data in pairs)
