"""How a network is laid out on hardware: PE, SIMD and FIFO depth of every layer.

On disk a folding is JSON with FINN's key names; `finn_folding` reads and writes FINN's own::

    {"Input": {"SIMD": 8},
     "MVTU_0": {"PE": 16, "SIMD": 9, "inFIFODepths": [2]},
     "MVTU_1": {"PE": 8, "SIMD": 16, "inFIFODepths": [2], "ram_style": "block"}}
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded, write_atomically
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.topology import INPUT, Topology

MAX_INPUT_WIDTH = 64
"""Most elements of the input per beat by default."""
MAX_FOLD = 1 << 24
"""Largest PE and SIMD: no layer has more rows, or inputs of a window."""
MAX_FIFO_DEPTH = 1 << 16
"""Most beats that a FIFO holds: MyHDL has a signal for each, and converts no more within 500 MB."""
OWN_NODE = re.compile("Input|MVTU_[0-9]+")
"""Names in a folding's file."""
FINNS_NODE = re.compile("Defaults|MVAU|MatrixVectorActivation|StreamingFCLayer")
"""How names in FINN's files begin."""
RAM_STYLES = ("auto", "block", "distributed")
T = TypeVar("T")


@dataclass(frozen=True)
class LayerFolding:
    """Parallelism of one matrix-vector-threshold unit.

    Attributes
    ----------
    pe : rows worked on at once; divides mh
    simd : inputs worked on at once; divides the inputs of one window in one slice
    fifo_depth : beats that the FIFO in front of the unit holds
    ram_style : where weights and thresholds are: "block" (block RAM), "distributed" (LUTs), or
        "auto", by their size

    Raises
    ------
    ValueError
        When a number is out of range, or `ram_style` is another word.
    """

    pe: int
    simd: int
    fifo_depth: int
    ram_style: str = "auto"

    def __post_init__(self) -> None:
        for name, high in (("pe", MAX_FOLD), ("simd", MAX_FOLD), ("fifo_depth", MAX_FIFO_DEPTH)):
            _check_whole(name, getattr(self, name), high)
        if self.ram_style not in RAM_STYLES:
            raise ValueError(f"ram_style is {self.ram_style!r}; it must be one of {', '.join(RAM_STYLES)}")


@dataclass(frozen=True)
class Folding:
    """How every layer of a network folds.

    Attributes
    ----------
    layers : folding of every layer, in order
    input_width : elements (bits of kept slices) of the input per beat

    Raises
    ------
    ValueError
        When `input_width` is not a whole number of 1 to `MAX_FOLD`.
    """

    layers: tuple[LayerFolding, ...]
    input_width: int

    def __post_init__(self) -> None:
        _check_whole("input_width", self.input_width, MAX_FOLD)

    @classmethod
    def of(cls, topology: Topology, pe_simd: tuple[tuple[int, int], ...], input_width: int | None = None) -> "Folding":
        """Build the folding with these (PE, SIMD) pairs, FIFOs that never cost a cycle, and a checked fit.

        `input_width` is by default the widest divisor of one slice's pixels that fits a beat of 64
        bits; where there is one that is a multiple or a divisor of what the first layer takes at
        once, the widest such.
        """
        if len(pe_simd) != len(topology.layers):
            raise ValueError(f"the folding is of {len(pe_simd)} layers; the network has {len(topology.layers)}")
        units = [_layer_folding(i, pe, simd, 2) for i, (pe, simd) in enumerate(pe_simd)]
        layers = tuple(_layer_folding(i, unit.pe, unit.simd, default_fifo_depth(shape, unit.simd))
                       for i, (shape, unit) in enumerate(zip(topology.layers, units, strict=True)))
        width = default_input_width(topology, layers[0].simd) if input_width is None else input_width
        folding = cls(layers, width)
        folding.check(topology)
        return folding

    @classmethod
    def at_least(cls, topology: Topology, pe_simd: Sequence[tuple[int, int]],
                 ram_styles: Sequence[str] | None = None) -> "Folding":
        """Build the folding that is at least so parallel: the next divisor where one leaves a remainder.

        SIMD counts weights, see `bits_per_weight`.
        """
        if len(pe_simd) != len(topology.layers):
            raise ValueError(f"the folding is of {len(pe_simd)} layers; the network has {len(topology.layers)}")
        pairs = tuple((next_divisor(shape.mh, pe), next_divisor(shape.slice_inputs, simd * bits_per_weight(shape)))
                      for shape, (pe, simd) in zip(topology.layers, pe_simd, strict=True))
        folding = cls.of(topology, pairs)
        styles = ram_styles or ("auto",) * len(pairs)
        return cls(tuple(replace(layer, ram_style=style) for layer, style in zip(folding.layers, styles, strict=True)),
                   folding.input_width)

    @classmethod
    def parse(cls, text: str, topology: Topology, input_width: int | None = None) -> "Folding":
        """Read ``(16,9)(8,16)(10,8)``: one (PE, SIMD) per layer, as the literature writes it."""
        if not re.fullmatch(r"(\([0-9]{1,12},[0-9]{1,12}\))+", text.replace(" ", "")):
            raise ValueError(f"folding {text!r} is not written like (16,9)(8,16)(10,8): one (PE,SIMD) per layer")
        pairs = re.findall(r"\((\d+),(\d+)\)", text.replace(" ", ""))
        return cls.of(topology, tuple((int(pe), int(simd)) for pe, simd in pairs), input_width)

    def __str__(self) -> str:
        return "".join(f"({layer.pe},{layer.simd})" for layer in self.layers)

    def with_fifo_depths(self, depths: Sequence[int]) -> "Folding":
        """Return the same folding with other FIFOs, one depth per layer."""
        layers = tuple(replace(layer, fifo_depth=n) for layer, n in zip(self.layers, depths, strict=True))
        return Folding(layers, self.input_width)

    def check(self, topology: Topology) -> None:
        """Raise ValueError unless every layer of `topology` folds evenly."""
        if len(self.layers) != len(topology.layers):
            raise ValueError(f"the folding is of {len(self.layers)} layers; the network has {len(topology.layers)}")
        for i, (shape, layer) in enumerate(zip(topology.layers, self.layers, strict=True)):
            if shape.mh % layer.pe:
                raise ValueError(f"layer {i}: {shape.mh} rows do not fold onto {layer.pe} PEs")
            if shape.slice_inputs % layer.simd:
                raise ValueError(f"layer {i}: {shape.slice_inputs} inputs do not fold into words of {layer.simd}")
        check_input_width(topology, self.input_width)

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        nodes = {"Input": {"SIMD": self.input_width}} | {
            f"MVTU_{i}": {"PE": layer.pe, "SIMD": layer.simd, "inFIFODepths": [layer.fifo_depth],
                          "ram_style": layer.ram_style}
            for i, layer in enumerate(self.layers)}
        write_atomically(path, json.dumps(nodes, indent=2).encode() + b"\n")

    @classmethod
    def load(cls, path: Path, topology: Topology) -> "Folding":
        """Read JSON written by `save`; FIFO depths, RAM styles and the input's width may be left out.

        Raises
        ------
        ValueError
            When the file cannot be read, is no such JSON, or its folding does not fit the topology.
        """
        content = read_bounded(path, MAX_JSON_BYTES)
        names = [f"MVTU_{i}" for i in range(len(topology.layers))]
        try:
            nodes = decode_json(content, dict[str, msgspec.Raw])
            if stray := set(nodes) - {"Input", *names}:
                finns = "; cbnn import finn-folding reads FINN's files" if any(map(FINNS_NODE.match, stray)) else ""
                raise ValueError(f"it folds {min(stray)!r}, which this network does not have{finns}")
            if missing := [name for name in names if name not in nodes]:
                raise ValueError(f"it lacks {missing[0]!r}, a layer of this network")
            units = [_decoded(name, nodes[name], _Unit) for name in names]
            width = _decoded("Input", nodes["Input"], _Input).SIMD if "Input" in nodes else None
        except ValueError as error:
            raise ValueError(f"{path} is not a folding of this network: {error}") from error
        pairs = tuple((unit.PE, unit.SIMD) for unit in units)
        folding = cls.of(topology, pairs, width)
        layers = tuple(_layer_folding(i, layer.pe, layer.simd, (unit.inFIFODepths or [layer.fifo_depth])[0],
                                      unit.ram_style)
                       for i, (layer, unit) in enumerate(zip(folding.layers, units, strict=True)))
        return cls(layers, folding.input_width)


class _Unit(msgspec.Struct, forbid_unknown_fields=True):
    """A layer on disk; `LayerFolding` checks the values."""

    PE: Any
    SIMD: Any
    inFIFODepths: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=1)] | None = None  # noqa: N815
    ram_style: Any = "auto"


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    """The input on disk."""

    SIMD: Any


def _decoded(name: str, content: msgspec.Raw, kind: type[T]) -> T:
    try:
        return decode_json(content, kind)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _layer_folding(index: int, pe: int, simd: int, fifo_depth: int, ram_style: str = "auto") -> LayerFolding:
    try:
        return LayerFolding(pe, simd, fifo_depth, ram_style)
    except ValueError as error:
        raise ValueError(f"layer {index}: {error}") from error


def bits_per_weight(shape: MatrixShape) -> int:
    """Return the bits that meet a weight, one after another: those of a pixel where its slices share weights."""
    return shape.n_slices // shape.tensor.n_weighted


def next_divisor(n: int, least: int) -> int:
    """Return the least divisor of `n` that is not below `least`; `n` where there is none."""
    return next(d for d in range(min(least, n), n + 1) if n % d == 0)


def _check_whole(name: str, value: object, high: int) -> None:
    if type(value) is not int or not 1 <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of 1 to {high}")


def default_fifo_depth(shape: MatrixShape, simd: int) -> int:
    """Return the beats that keep a unit busy: a whole vector in front of a dense layer, which reads it in one burst.

    A convolution reads from its line buffer, which holds rows ahead, so that two beats are enough.
    """
    return 2 if shape.operator.slides else max(2, shape.n_slices * shape.slice_inputs // simd)


def takes_pixels(topology: Topology) -> bool:
    """Whether the input comes pixel by pixel, as windows need it, or slice by slice, as one matrix over all does."""
    shape = topology.shapes[topology.taker(INPUT)]
    return isinstance(shape, MatrixShape) and shape.operator.slides


def check_input_width(topology: Topology, input_width: int) -> None:
    """Raise ValueError unless the kept slices of an image fill whole beats of so many elements."""
    _check_whole("input_width", input_width, MAX_FOLD)
    n = topology.tensor.n_bits
    if n % input_width:
        raise ValueError(f"input: {n} elements do not fold into beats of {input_width}")


def default_input_width(topology: Topology, simd: int) -> int:
    """Return the elements of the input per beat, see `Folding.of`, where the first layer takes `simd` at once."""
    height, width, colours = topology.in_shape
    taken = colours if takes_pixels(topology) else simd
    widths = [n for n in range(1, MAX_INPUT_WIDTH + 1) if height * width * colours % n == 0]
    # Anything else needs a converter to a common multiple and back.
    return max([n for n in widths if n % taken == 0] or [n for n in widths if taken % n == 0])
