"""How one layer is laid out on hardware, and which numbers divide it evenly."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from cbnn.hw.slice_order import divisors, simd_choices
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.operators.max_pool import PoolShape

MAX_FOLD = 1 << 24
"""Largest PE and SIMD: no layer has more rows, or inputs of a window."""
MAX_FIFO_DEPTH = 1 << 16
"""Most beats that a FIFO holds: MyHDL has a signal for each, and converts no more within 500 MB."""
MAX_XNORS = 1 << 18
"""XNORs per cycle of one layer beyond which nothing is laid out: more than the largest FPGAs hold."""
MAX_FIFO_BITS = 1 << 26
"""Bits of one FIFO, likewise."""
RAM_STYLES = ("auto", "block", "distributed")


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
            check_whole(name, getattr(self, name), high)
        if self.ram_style not in RAM_STYLES:
            raise ValueError(f"ram_style is {self.ram_style!r}; it must be one of {', '.join(RAM_STYLES)}")

    @property
    def width(self) -> int:
        """Bits of a beat that the unit takes: a word of each window."""
        return self.mmv * self.simd

    @property
    def n_xnors(self) -> int:
        """XNORs per cycle."""
        return self.pe * self.width

    @property
    def fifo_bits(self) -> int:
        """Bits of the FIFO in front of the unit."""
        return self.fifo_depth * self.width

    def __str__(self) -> str:
        return f"({self.pe},{self.simd}{f',{self.mmv}' if self.mmv > 1 else ''})"


def layer_folding(index: int, pe: int, simd: int, fifo_depth: int, ram_style: str = "auto",
                  mmv: int = 1) -> LayerFolding:
    """Return the folding of a layer; what is wrong with it is said of this layer."""
    try:
        return LayerFolding(pe, simd, fifo_depth, ram_style, mmv)
    except ValueError as error:
        raise ValueError(f"layer {index}: {error}") from error


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


def check_layer(name: str, shape: MatrixShape, pool: PoolShape | None, layer: LayerFolding,
                whole_bytes: bool) -> None:
    """Raise ValueError unless a layer folds evenly; see `Folding.check`."""
    n = shape.n_slices * shape.slice_inputs
    if layer.mmv > 1:
        if (layer.pe, layer.simd) != (shape.mh, n):
            raise ValueError(f"{name}: {layer.mmv} windows at once need all {shape.mh} PEs and a SIMD of {n}; they are "
                             f"{layer.pe} and {layer.simd}")
        if layer.mmv not in (counts := mmv_choices(shape, pool)):
            raise ValueError(f"{name}: rows of {shape.in_shape[1]} pixels and {shape.out_shape[1]} windows do not fold "
                             f"into {layer.mmv} windows at once; {nearest(counts, layer.mmv)} would")
    if shape.mh % layer.pe:
        raise ValueError(f"{name}: {shape.mh} rows do not fold onto {layer.pe} PEs; "
                         f"{nearest(divisors(shape.mh), layer.pe)} would")
    if layer.simd not in simd_choices(shape, whole_bytes):
        inputs = f"{n} inputs" if shape.n_slices == 1 else f"{n} inputs ({shape.n_slices} slices)"
        inputs += " of whole bytes" if whole_bytes else ""
        raise ValueError(f"{name}: {inputs} do not fold into words of {layer.simd}; "
                         f"{_nearest_simd(shape, layer.simd, whole_bytes)} would")


def nearest(choices: Sequence[int], value: int) -> str:
    """Name the choices next to a value, below and above."""
    below = [str(n) for n in choices if n < value][-1:]
    above = [str(n) for n in choices if n > value][:1]
    return " or ".join(below + above)


def checked_depth(name: str, shape: MatrixShape, simd: int, whole_bytes: bool) -> int:
    """Return `default_fifo_depth`; raise ValueError where it is deeper than a FIFO can be."""
    if (depth := default_fifo_depth(shape, simd)) <= MAX_FIFO_DEPTH:
        return depth
    raise ValueError(f"{name}: a vector of {depth} words does not fit a FIFO, which holds at most {MAX_FIFO_DEPTH}; a "
                     f"SIMD of {_nearest_simd(shape, simd, whole_bytes)} would")


def _nearest_simd(shape: MatrixShape, simd: int, whole_bytes: bool) -> str:
    """Name the SIMD next to one that a layer can have, with vectors that fit a FIFO."""
    return nearest([n for n in simd_choices(shape, whole_bytes)
                    if default_fifo_depth(shape, n) <= MAX_FIFO_DEPTH], simd)


def bits_per_weight(shape: MatrixShape) -> int:
    """Return the bits that meet a weight, one after another: those of a pixel where its slices share weights."""
    return shape.n_slices // shape.tensor.n_weighted


def check_whole(name: str, value: object, high: int) -> None:
    """Raise ValueError unless a value is a whole number of 1 to `high`."""
    if type(value) is not int or not 1 <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of 1 to {high}")


def default_fifo_depth(shape: MatrixShape, simd: int) -> int:
    """Return the beats that keep a unit busy: a whole vector in front of a dense layer, which reads it in one burst.

    A convolution reads from its line buffer, which holds rows ahead, so that two beats are enough.
    """
    return 2 if shape.operator.slides else max(2, shape.n_slices * shape.slice_inputs // simd)
