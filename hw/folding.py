"""How a network is laid out on hardware: PE, SIMD, MMV and FIFO depth of every layer.

On disk a folding is JSON with FINN's key names; `finn_folding` reads and writes FINN's own::

    {"Input": {"SIMD": 8},
     "MVTU_0": {"PE": 16, "SIMD": 9, "inFIFODepths": [2]},
     "MVTU_1": {"PE": 8, "SIMD": 16, "inFIFODepths": [2], "ram_style": "block"}}

SIMD counts bits. A tensor of several slices can be taken in three ways, which SIMD chooses, see
`slices_together`: slice after slice, in groups of slices side by side, or all slices at once.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from cbnn.hw.slice_order import divisors, simd_choices, slices_together
from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded, write_atomically
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.operators.max_pool import PoolShape
from cbnn.model.topology import Topology

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
Input = Literal["kept slices", "whole bytes"]
"""What the input is: packed slices, or whole pixels, of which the kept slices are selected on chip."""
T = TypeVar("T")


@dataclass(frozen=True)
class LayerFolding:
    """Parallelism of one matrix-vector-threshold unit.

    Attributes
    ----------
    pe : rows worked on at once; divides mh
    simd : bits of a window worked on at once; divides the bits of a window in all slices
    fifo_depth : beats that the FIFO in front of the unit holds
    ram_style : where weights and thresholds are: "block" (block RAM), "distributed" (LUTs), or
        "auto", by their size
    mmv : neighbouring windows of a row worked on at once (FINN's MMV, multiple matrix vectors);
        above 1 only where all rows and whole windows are, since until then more PE or SIMD do the
        same

    Raises
    ------
    ValueError
        When a number is out of range, or `ram_style` is another word.
    """

    pe: int
    simd: int
    fifo_depth: int
    ram_style: str = "auto"
    mmv: int = 1

    def __post_init__(self) -> None:
        for name, high in (("pe", MAX_FOLD), ("simd", MAX_FOLD), ("fifo_depth", MAX_FIFO_DEPTH), ("mmv", MAX_FOLD)):
            _check_whole(name, getattr(self, name), high)
        if self.ram_style not in RAM_STYLES:
            raise ValueError(f"ram_style is {self.ram_style!r}; it must be one of {', '.join(RAM_STYLES)}")

    def __str__(self) -> str:
        return f"({self.pe},{self.simd}{f',{self.mmv}' if self.mmv > 1 else ''})"


@dataclass(frozen=True)
class Folding:
    """How every layer of a network folds.

    Attributes
    ----------
    layers : folding of every layer, in order
    input_width : bits of the input per beat
    whole_bytes : False: the input is the kept slices only, packed. True: it is whole pixels, every
        colour in as many bytes as its bits need, and the kept slices are selected on chip; they lie
        side by side then

    Raises
    ------
    ValueError
        When `input_width` is not a whole number of 1 to `MAX_FOLD`.
    """

    layers: tuple[LayerFolding, ...]
    input_width: int
    whole_bytes: bool = False

    def __post_init__(self) -> None:
        _check_whole("input_width", self.input_width, MAX_FOLD)

    @classmethod
    def of(cls, topology: Topology, numbers: Sequence[tuple[int, ...]], input_width: int | None = None,
           whole_bytes: bool = False) -> "Folding":
        """Build the folding of these (PE, SIMD) or (PE, SIMD, MMV), with FIFOs that never cost a cycle, and check it.

        `input_width` is by default the one of `default_input_width`.
        """
        if len(numbers) != len(topology.layers):
            raise ValueError(f"the folding is of {len(numbers)} layers; the network has {len(topology.layers)}")
        units = [_layer_folding(i, pe, simd, 2, mmv=mmv) for i, (pe, simd, *rest) in enumerate(numbers)
                 for mmv in rest or [1]]
        layers = tuple(_layer_folding(i, unit.pe, unit.simd, default_fifo_depth(shape, unit.simd), mmv=unit.mmv)
                       for i, (shape, unit) in enumerate(zip(topology.layers, units, strict=True)))
        if input_width is None:
            input_width = default_input_width(topology, layers[0], whole_bytes)
        folding = cls(layers, input_width, whole_bytes)
        folding.check(topology)
        return folding

    @classmethod
    def at_least(cls, topology: Topology, pe_simd: Sequence[tuple[int, int]],
                 ram_styles: Sequence[str] | None = None) -> "Folding":
        """Build the folding that is at least so parallel: the next that divides where one leaves a remainder.

        SIMD counts weights, see `bits_per_weight`.
        """
        if len(pe_simd) != len(topology.layers):
            raise ValueError(f"the folding is of {len(pe_simd)} layers; the network has {len(topology.layers)}")
        pairs = tuple((_next(divisors(shape.mh), pe), _next(simd_choices(shape), simd * bits_per_weight(shape)))
                      for shape, (pe, simd) in zip(topology.layers, pe_simd, strict=True))
        folding = cls.of(topology, pairs)
        styles = ram_styles or ("auto",) * len(pairs)
        return cls(tuple(replace(layer, ram_style=style) for layer, style in zip(folding.layers, styles, strict=True)),
                   folding.input_width)

    @classmethod
    def parse(cls, text: str, topology: Topology, input_width: int | None = None,
              whole_bytes: bool = False) -> "Folding":
        """Read ``(16,9)(8,16)(10,8)``: one (PE, SIMD) per layer, as the literature writes it, or (PE, SIMD, MMV)."""
        number = "[0-9]{1,12}"
        if not re.fullmatch(rf"(\({number},{number}(,{number})?\))+", text.replace(" ", "")):
            raise ValueError(f"folding {text!r} is not written like (16,9)(8,16)(10,8): one (PE,SIMD) per layer, or "
                             "(PE,SIMD,MMV)")
        numbers = [tuple(map(int, unit.split(","))) for unit in re.findall(r"\(([0-9,]+)\)", text.replace(" ", ""))]
        return cls.of(topology, numbers, input_width, whole_bytes)

    def __str__(self) -> str:
        return "".join(map(str, self.layers))

    def with_fifo_depths(self, depths: Sequence[int]) -> "Folding":
        """Return the same folding with other FIFOs, one depth per layer."""
        return replace(self, layers=tuple(replace(layer, fifo_depth=n)
                                          for layer, n in zip(self.layers, depths, strict=True)))

    @property
    def input(self) -> Input:
        """What the input is, as reports say it."""
        return "whole bytes" if self.whole_bytes else "kept slices"

    def at_level(self, full: Topology, pruned: Topology) -> "Folding":
        """Return the folding of the network `full`, which it suits, for the same network with slices pruned.

        Only the first layer can change. Its SIMD stays where it still divides a window. Else it is the
        largest that does and is not above, unless that would take more cycles than with all slices;
        then it is the next above.
        """
        first, shape, before = self.layers[0], pruned.layers[0], full.layers[0]
        simd = first.simd
        choices = simd_choices(shape, self.whole_bytes)
        if simd not in choices:
            least = -(-simd * shape.n_slices // before.n_slices)
            simd = max((n for n in choices if least <= n < simd), default=_next(choices, simd))
        depth = first.fifo_depth
        if depth == default_fifo_depth(before, first.simd):
            depth = default_fifo_depth(shape, simd)
        first = replace(first, simd=simd, fifo_depth=depth)
        width = self.input_width
        if width == default_input_width(full, self.layers[0], self.whole_bytes):
            width = default_input_width(pruned, first, self.whole_bytes)
        return replace(self, layers=(first, *self.layers[1:]), input_width=width)

    def together(self, topology: Topology, i: int) -> int:
        """Slices side by side in what layer `i` takes: all of whole bytes, else as many as its SIMD asks for."""
        shape = topology.layers[i]
        return shape.n_slices if self.whole_bytes and i == 0 else slices_together(shape, self.layers[i].simd)

    def check(self, topology: Topology) -> None:
        """Raise ValueError unless every layer of `topology` folds evenly; the sentence names numbers that would."""
        if len(self.layers) != len(topology.layers):
            raise ValueError(f"the folding is of {len(self.layers)} layers; the network has {len(topology.layers)}")
        pools = pools_after(topology)
        for i, (shape, layer) in enumerate(zip(topology.layers, self.layers, strict=True)):
            _check_layer(f"layer {i}", shape, pools[i], layer, self.whole_bytes and i == 0)
        check_input_width(topology, self.input_width, self.whole_bytes)

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        nodes: dict[str, dict[str, Any]] = {"Input": {"SIMD": self.input_width}
                                            | ({"whole_bytes": True} if self.whole_bytes else {})}
        nodes |= {f"MVTU_{i}": {"PE": layer.pe, "SIMD": layer.simd, "inFIFODepths": [layer.fifo_depth],
                                "ram_style": layer.ram_style} | ({"MMV": layer.mmv} if layer.mmv > 1 else {})
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
            entry = _decoded("Input", nodes["Input"], _Input) if "Input" in nodes else _Input(None)
        except ValueError as error:
            raise ValueError(f"{path} is not a folding of this network: {error}") from error
        folding = cls.of(topology, [(unit.PE, unit.SIMD, unit.MMV) for unit in units], entry.SIMD, entry.whole_bytes)
        layers = tuple(_layer_folding(i, layer.pe, layer.simd, (unit.inFIFODepths or [layer.fifo_depth])[0],
                                      unit.ram_style, layer.mmv)
                       for i, (layer, unit) in enumerate(zip(folding.layers, units, strict=True)))
        return replace(folding, layers=layers)


class _Unit(msgspec.Struct, forbid_unknown_fields=True):
    """A layer on disk; `LayerFolding` checks the values."""

    PE: Any
    SIMD: Any
    inFIFODepths: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=1)] | None = None  # noqa: N815
    ram_style: Any = "auto"
    MMV: Any = 1


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    """The input on disk."""

    SIMD: Any
    whole_bytes: bool = False


def _decoded(name: str, content: msgspec.Raw, kind: type[T]) -> T:
    try:
        return decode_json(content, kind)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _layer_folding(index: int, pe: int, simd: int, fifo_depth: int, ram_style: str = "auto",
                   mmv: int = 1) -> LayerFolding:
    try:
        return LayerFolding(pe, simd, fifo_depth, ram_style, mmv)
    except ValueError as error:
        raise ValueError(f"layer {index}: {error}") from error


def _check_layer(name: str, shape: MatrixShape, pool: PoolShape | None, layer: LayerFolding,
                 whole_bytes: bool) -> None:
    """Raise ValueError unless a layer folds evenly; see `Folding.check`."""
    n = shape.n_slices * shape.slice_inputs
    if shape.mh % layer.pe:
        raise ValueError(f"{name}: {shape.mh} rows do not fold onto {layer.pe} PEs; "
                         f"{_nearest(divisors(shape.mh), layer.pe)} would")
    if layer.simd not in (choices := simd_choices(shape, whole_bytes)):
        inputs = f"{n} inputs" if shape.n_slices == 1 else f"{n} inputs ({shape.n_slices} slices)"
        raise ValueError(f"{name}: {inputs} do not fold into words of {layer.simd}; {_nearest(choices, layer.simd)} "
                         "would")
    if layer.mmv > 1:
        if layer.mmv not in (counts := mmv_choices(shape, pool)):
            raise ValueError(f"{name}: rows of {shape.in_shape[1]} pixels and {shape.out_shape[1]} windows do not fold "
                             f"into {layer.mmv} windows at once; {_nearest(counts, layer.mmv)} would")
        if (layer.pe, layer.simd) != (shape.mh, n):
            raise ValueError(f"{name}: {layer.mmv} windows at once need all {shape.mh} PEs and a SIMD of {n}; they are "
                             f"{layer.pe} and {layer.simd}")


def _nearest(choices: Sequence[int], value: int) -> str:
    """Name the choices next to a value, below and above."""
    below = [str(n) for n in choices if n < value][-1:]
    above = [str(n) for n in choices if n > value][:1]
    return " or ".join(below + above)


def mmv_choices(shape: MatrixShape, pool: PoolShape | None) -> list[int]:
    """Return how many neighbouring windows a layer can work on at once, rising.

    They divide the pixels of a row and the windows of one, so that neither a beat that enters nor
    one that leaves reaches over its row. A pool after the layer takes whole pools per beat, or
    whole beats per pool.
    """
    if not shape.operator.slides:
        return [1]
    size = pool.operator.size if pool else 1
    return [n for n in divisors(gcd(shape.in_shape[1], shape.out_shape[1])) if n % size == 0 or size % n == 0]


def pools_after(topology: Topology) -> list[PoolShape | None]:
    """Return the pool that takes what a layer gives, None where there is none, for every layer."""
    takers = [topology.shapes[topology.taker(i)] if i < len(topology.nodes) - 1 else None
              for i, shape in enumerate(topology.shapes) if isinstance(shape, MatrixShape)]
    return [shape if isinstance(shape, PoolShape) else None for shape in takers]


def bits_per_weight(shape: MatrixShape) -> int:
    """Return the bits that meet a weight, one after another: those of a pixel where its slices share weights."""
    return shape.n_slices // shape.tensor.n_weighted


def _next(choices: Sequence[int], least: int) -> int:
    """Return the lowest choice that is not below `least`; the highest where there is none."""
    return next((n for n in choices if n >= least), choices[-1])


def _check_whole(name: str, value: object, high: int) -> None:
    if type(value) is not int or not 1 <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of 1 to {high}")


def default_fifo_depth(shape: MatrixShape, simd: int) -> int:
    """Return the beats that keep a unit busy: a whole vector in front of a dense layer, which reads it in one burst.

    A convolution reads from its line buffer, which holds rows ahead, so that two beats are enough.
    """
    return 2 if shape.operator.slides else max(2, shape.n_slices * shape.slice_inputs // simd)


def takes_pixels(topology: Topology) -> bool:
    """Whether the input comes pixel by pixel, as windows need it, or as one matrix over all of it takes it."""
    return topology.layers[0].operator.slides


def pixel_bytes(topology: Topology) -> int:
    """Bytes of a colour of a pixel, where the input is whole bytes."""
    return (topology.input_bits + 7) // 8


def check_input_width(topology: Topology, input_width: int, whole_bytes: bool = False) -> None:
    """Raise ValueError unless an image fills whole beats of so many bits; whole colours of it, of whole bytes."""
    _check_whole("input_width", input_width, MAX_FOLD)
    n, unit = topology.tensor.n_bits, 1
    if whole_bytes:
        unit = 8 * pixel_bytes(topology)
        n = topology.tensor.n_values * unit
    if n % input_width or input_width % unit:
        what = f"{n // unit} colours of {unit} bits" if whole_bytes else f"{n} elements"
        choices = [unit * d for d in divisors(n // unit)]
        raise ValueError(f"input: {what} do not fold into beats of {input_width}; {_nearest(choices, input_width)} "
                         "would")


def default_input_width(topology: Topology, first: LayerFolding, whole_bytes: bool = False) -> int:
    """Return the bits of the input per beat where the first layer folds like this.

    It is the widest divisor of the input that fits a beat of 64 bits, or what the first layer takes
    at once where that is wider; where there is one that is a multiple or a divisor of what is
    taken, the widest such, since anything else needs a converter to a common multiple and back.
    """
    shape = topology.layers[0]
    together = shape.n_slices if whole_bytes else slices_together(shape, first.simd)
    taken = first.mmv * together * topology.in_shape[2] if shape.operator.slides else first.simd
    # Of packed slices one after another a beat holds bits of one slice.
    n, bits, given = topology.tensor.n_values * (1 if together == 1 else shape.n_slices), 1, 1
    if whole_bytes:
        n, bits, given = topology.tensor.n_values, 8 * pixel_bytes(topology), shape.n_slices
    most = max(MAX_INPUT_WIDTH // bits, taken // given if together > 1 or first.mmv > 1 else 1)
    counts = [d for d in divisors(n) if d <= most]
    fitting = [d for d in counts if d * given % taken == 0] or [d for d in counts if taken % (d * given) == 0]
    return max(fitting or counts) * bits
