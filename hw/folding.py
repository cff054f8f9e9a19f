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
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from cbnn.hw.layer_folding import (
    MAX_FOLD,
    LayerFolding,
    bits_per_weight,
    check_layer,
    check_whole,
    checked_depth,
    layer_folding,
    nearest,
)
from cbnn.hw.slice_order import divisors, simd_choices, slices_together
from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded, write_atomically
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.operators.max_pool import PoolShape
from cbnn.model.topology import Topology

MAX_INPUT_WIDTH = 64
"""Most elements of the input per beat by default."""
OWN_NODE = re.compile("Input|MVTU_[0-9]+")
"""Names in a folding's file."""
FINNS_NODE = re.compile("Defaults|MVAU|MatrixVectorActivation|StreamingFCLayer")
"""How names in FINN's files begin."""
Input = Literal["kept slices", "whole bytes"]
"""What the input is: packed slices, or whole pixels, of which the kept slices are selected on chip."""
T = TypeVar("T")


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
        check_whole("input_width", self.input_width, MAX_FOLD)

    @classmethod
    def of(cls, topology: Topology, numbers: Sequence[tuple[int, ...]], input_width: int | None = None,
           whole_bytes: bool = False) -> "Folding":
        """Build the folding of these (PE, SIMD) or (PE, SIMD, MMV), and check it.

        FIFOs are so deep that they never cost a cycle. `input_width` is by default that of
        `default_input_width`.
        """
        if len(numbers) != len(topology.layers):
            raise ValueError(f"the folding is of {len(numbers)} layers; the network has {len(topology.layers)}")
        units = [layer_folding(i, pe, simd, 2, mmv=mmv) for i, (pe, simd, *rest) in enumerate(numbers)
                 for mmv in rest or [1]]
        layers = tuple(replace(unit, fifo_depth=checked_depth(f"layer {i}", shape, unit.simd, whole_bytes and i == 0))
                       for i, (shape, unit) in enumerate(zip(topology.layers, units, strict=True)))
        if input_width is None:
            input_width = default_input_width(topology, layers[0], whole_bytes)
        folding = cls(layers, input_width, whole_bytes)
        folding.check(topology)
        return folding

    @classmethod
    def at_least(cls, topology: Topology, pe_simd: Sequence[tuple[int, int]],
                 ram_styles: Sequence[str] | None = None) -> "Folding":
        """Build the folding that is at least so parallel.

        Where a number leaves a remainder, the next higher one that does not is taken. SIMD counts
        weights, see `bits_per_weight`.
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
        """Read ``(16,9)(8,16)(10,8)``: (PE, SIMD), or (PE, SIMD, MMV), of every layer."""
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

    def together(self, topology: Topology, i: int) -> int:
        """Slices side by side in what layer `i` takes: all if whole bytes, else as SIMD says."""
        shape = topology.layers[i]
        return shape.n_slices if self.whole_bytes and i == 0 else slices_together(shape, self.layers[i].simd)

    def check(self, topology: Topology) -> None:
        """Raise ValueError unless every layer folds evenly; it names numbers that would."""
        if len(self.layers) != len(topology.layers):
            raise ValueError(f"the folding is of {len(self.layers)} layers; the network has {len(topology.layers)}")
        pools = pools_after(topology)
        for i, (shape, layer) in enumerate(zip(topology.layers, self.layers, strict=True)):
            check_layer(f"layer {i}", shape, pools[i], layer, self.whole_bytes and i == 0)
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
        """Read JSON written by `save`; all but PE and SIMD may be left out.

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
            entry = _decoded("Input", nodes["Input"], _Input) if "Input" in nodes else _Input()
        except ValueError as error:
            raise ValueError(f"{path} is not a folding of this network: {error}") from error
        folding = cls.of(topology, [(unit.PE, unit.SIMD, unit.MMV) for unit in units], entry.SIMD, entry.whole_bytes)
        layers = tuple(layer_folding(i, layer.pe, layer.simd, (unit.inFIFODepths or [layer.fifo_depth])[0],
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

    SIMD: Any = None
    whole_bytes: bool = False


def _decoded(name: str, content: msgspec.Raw, kind: type[T]) -> T:
    try:
        return decode_json(content, kind)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def pools_after(topology: Topology) -> list[PoolShape | None]:
    """Return the pool that takes what a layer gives, None where there is none, for every layer."""
    takers = [topology.shapes[topology.taker(i)] if i < len(topology.nodes) - 1 else None
              for i, shape in enumerate(topology.shapes) if isinstance(shape, MatrixShape)]
    return [shape if isinstance(shape, PoolShape) else None for shape in takers]


def _next(choices: Sequence[int], least: int) -> int:
    """Return the lowest choice that is not below `least`; the highest where there is none."""
    return next((n for n in choices if n >= least), choices[-1])


def takes_pixels(topology: Topology) -> bool:
    """Return True if the input comes pixel by pixel, as windows need it; else slice by slice."""
    return topology.layers[0].operator.slides


def pixel_bytes(topology: Topology) -> int:
    """Bytes of a colour of a pixel, where the input is whole bytes."""
    return (topology.input_bits + 7) // 8


def check_input_width(topology: Topology, input_width: int, whole_bytes: bool = False) -> None:
    """Raise ValueError unless an image fills whole beats of so many bits; whole colours of it, of whole bytes."""
    check_whole("input_width", input_width, MAX_FOLD)
    widths, tensor = input_widths(topology, whole_bytes), topology.tensor
    if input_width not in widths:
        what = f"{tensor.n_values} colours of {widths[0]} bits" if whole_bytes else f"{tensor.n_bits} elements"
        raise ValueError(f"input: {what} do not fold into beats of {input_width}; {nearest(widths, input_width)} "
                         "would")


def input_widths(topology: Topology, whole_bytes: bool = False) -> list[int]:
    """Return the bits per beat that the input can have, rising; the last is a whole image."""
    if whole_bytes:
        return [8 * pixel_bytes(topology) * n for n in divisors(topology.tensor.n_values)]
    return divisors(topology.tensor.n_bits)


def default_input_width(topology: Topology, first: LayerFolding, whole_bytes: bool = False) -> int:
    """Return the bits of the input per beat where the first layer folds like this.

    It divides the input, and is at most 64, or what the first layer takes at once where that is
    more. It is the widest of these that is a multiple of what is taken, else the widest divisor of
    that, else the widest: then a converter goes up to a common multiple, and another one down.
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
