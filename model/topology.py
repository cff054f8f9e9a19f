"""Shapes of a network: layers, input, kept slices. No weights, no hardware."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cbnn.model.slices import check_kept

Shape = tuple[int, int, int]
"""Height, width, channels."""

MAX_WINDOW = 1 << 24
"""Most inputs of a window in one slice: float32 counts products of -1 and +1 exactly up to here."""
MAX_ACCUMULATOR = 1 << 30
"""Largest popcount sum of a row, so that thresholds and scores fit 32 bits."""
MAX_LAYERS = 256
MAX_SIDE = 1 << 20
"""Largest height, width, number of colours, number of rows of a layer's matrix, stride and pool."""
MAX_KERNEL = 64
"""Largest height and width of a kernel: the border classes of a larger one would fill the memory."""
MAX_VALUES = 1 << 26
"""Most pixels times colours of an image, and most bits that a layer gives per image, before pooling."""
MAX_WEIGHTS = 1 << 28
"""Most weights of a network, in bits: what the largest file of a network holds."""


@dataclass(frozen=True)
class Conv:
    """A binary convolution, thresholded, then max pooled over `pool` x `pool` bits (1: no pooling).

    `padding` pixels on each side carry the constant bit `pad_bit`, in training as in hardware.
    """

    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pad_bit: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        for name, high in (("out_channels", MAX_SIDE), ("kernel", MAX_KERNEL), ("stride", MAX_SIDE),
                           ("pool", MAX_SIDE)):
            _check_range(f"{name} of a convolution", getattr(self, name), 1, high)
        _check_range(f"padding of a kernel of {self.kernel}", self.padding, 0, self.kernel - 1)
        _check_range("pad_bit", self.pad_bit, 0, 1)

    def place_ends(self, size: int) -> tuple[int, ...]:
        """Last row of every run of rows of windows with the same rows of the kernel outside an image of `size` rows.

        Columns likewise. Rows of windows that reach over an edge are runs of one each.
        """
        n = (size + 2 * self.padding - self.kernel) // self.stride + 1
        inside = min(n, -(-self.padding // self.stride))
        below = min(n, max(inside, (size + self.padding - self.kernel) // self.stride + 1))
        return *range(inside), *((below - 1,) if below > inside else ()), *range(below, n)

    def taps_outside(self, height: int, width: int) -> NDArray[np.bool_]:
        """Which taps are outside the image, (places, kernel, kernel), see `LayerShape.places`."""
        taps = np.arange(self.kernel) - self.padding
        rows, columns = ((ends < 0) | (ends >= size) for ends, size in (
            (np.array(self.place_ends(size))[:, np.newaxis] * self.stride + taps, size) for size in (height, width)))
        return (rows[:, np.newaxis, :, np.newaxis] | columns[:, np.newaxis]).reshape(-1, self.kernel, self.kernel)

    def __str__(self) -> str:
        text = f"{self.out_channels}C{self.kernel}"
        text += f"S{self.stride}" if self.stride != 1 else ""
        text += f"P{self.padding}" if self.padding != (self.kernel - 1) // 2 else ""
        text += f"B{self.pad_bit}" if self.pad_bit else ""
        return text + (f"-MP{self.pool}" if self.pool > 1 else "")


@dataclass(frozen=True)
class Dense:
    """A binary matrix-vector product over everything that enters, flattened row, column, channel."""

    out_features: int

    def __post_init__(self) -> None:
        _check_range("out_features of a dense layer", self.out_features, 1, MAX_SIDE)

    def __str__(self) -> str:
        return f"{self.out_features}FC"


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer inside a network, the same words for convolution and dense.

    Attributes
    ----------
    layer : the description this comes from
    in_shape : (height, width, channels) entering; channels are colours at the first layer
    window_shape : (height, width, channels) after the matrix product, before pooling
    out_shape : (height, width, channels) leaving
    n_slices : bit slices entering one after another; 1 past the first layer
    slice_inputs : inputs of one window in one slice
    mw, mh : matrix width (weights per row) and height (rows)
    max_accumulator : the largest popcount sum a row can reach
    """

    layer: Conv | Dense
    in_shape: Shape
    window_shape: Shape
    out_shape: Shape
    n_slices: int
    slice_inputs: int
    mw: int
    mh: int
    max_accumulator: int

    @property
    def n_windows(self) -> int:
        """Windows (output pixels before pooling) per image."""
        return self.window_shape[0] * self.window_shape[1]

    @property
    def place_ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `Conv.place_ends`; of rows and of columns.

        Windows of one run of rows and one of columns are of one *place*; places count row by row.
        """
        if not isinstance(self.layer, Conv):
            return (0,), (0,)
        height, width, _ = self.in_shape
        return self.layer.place_ends(height), self.layer.place_ends(width)

    @property
    def n_places(self) -> int:
        """Places of windows that differ in the taps outside the image; 1 without padding."""
        row_ends, column_ends = self.place_ends
        return len(row_ends) * len(column_ends)

    @property
    def places(self) -> NDArray[np.int64]:
        """Place of every window, (rows, columns)."""
        row_ends, column_ends = self.place_ends
        rows, columns = (np.searchsorted(ends, np.arange(ends[-1] + 1)) for ends in (row_ends, column_ends))
        return rows[:, np.newaxis] * len(column_ends) + columns


@dataclass(frozen=True)
class Topology:
    """A network's shapes: the input, its kept slices, and the layers.

    Parameters
    ----------
    in_shape : (height, width, colours)
    input_bits : bits per pixel and colour
    kept_slices : slices sent to the accelerator, MSB first
    first_layer : "sliced" (every slice is a channel with weights of its own: CBNN) or "weighted"
        (one weight per colour shared by the slices, which count 2**b: the classic fixed-point input)
    layers : convolutions, then dense layers; the last one is dense and gives a score per class

    Raises
    ------
    ValueError
        When sizes do not fit each other; the message names the layer, the value and the rule.
    """

    in_shape: Shape
    input_bits: int
    kept_slices: tuple[int, ...]
    layers: tuple[Conv | Dense, ...]
    first_layer: Literal["sliced", "weighted"] = "sliced"

    def __post_init__(self) -> None:
        if len(self.in_shape) != 3 or any(type(n) is not int or not 1 <= n <= MAX_SIDE for n in self.in_shape):
            raise ValueError(f"input shape {self.in_shape} is not (height, width, colours), each 1 to {MAX_SIDE}")
        if (n := self.in_shape[0] * self.in_shape[1] * self.in_shape[2]) > MAX_VALUES:
            raise ValueError(f"input shape {self.in_shape} has {n} values; at most {MAX_VALUES} are supported")
        if len(self.layers) > MAX_LAYERS:
            raise ValueError(f"the topology has {len(self.layers)} layers; at most {MAX_LAYERS} are supported")
        if type(self.input_bits) is not int or not 1 <= self.input_bits <= 16:
            raise ValueError(f"input of {self.input_bits} bits; 1 to 16 are supported")
        check_kept(self.kept_slices, self.input_bits)
        if self.first_layer not in ("sliced", "weighted"):
            raise ValueError(f"first layer is {self.first_layer!r}; it must be 'sliced' or 'weighted'")
        if not self.layers or not isinstance(self.layers[-1], Dense):
            raise ValueError("the last layer must be dense (FC): it gives the scores")
        if self.n_weight_bits > MAX_WEIGHTS:
            raise ValueError(f"the network has {self.n_weight_bits} weights; at most {MAX_WEIGHTS} are supported")

    @classmethod
    def parse(cls, text: str, in_shape: Shape, input_bits: int, kept_slices: tuple[int, ...] | None = None,
              first_layer: Literal["sliced", "weighted"] = "sliced") -> "Topology":
        """Read a topology as the literature writes it, for example ``16C3-16C3-MP2-32C3-MP2-64FC-10FC``.

        ``<n>C<k>`` is a convolution of n channels and a k x k kernel; ``S<s>`` sets its stride, ``P<p>`` its
        padding (else "same": (k - 1) / 2), ``B1`` pads with ones. ``MP<k>`` pools, ``<n>FC`` is dense.
        All slices are kept where `kept_slices` is None.
        """
        kept = tuple(range(input_bits - 1, -1, -1)) if kept_slices is None else kept_slices
        return cls(in_shape, input_bits, kept, _parse_layers(text), first_layer)

    def __str__(self) -> str:
        return "-".join(map(str, self.layers))

    def keep(self, kept_slices: tuple[int, ...]) -> "Topology":
        """Return the same network with other slices kept."""
        return replace(self, kept_slices=kept_slices)

    def scaled(self, *widths: float) -> "Topology":
        """Return the network with the rows of its layers, but the last, times `widths`: one for all, or one for each.

        Raises
        ------
        ValueError
            When that gives no whole number of rows, or there is not a width for each layer but the last.
        """
        hidden = self.layers[:-1]
        if len(widths) not in (1, len(hidden)):
            raise ValueError(f"{len(widths)} widths given; 1 or {len(hidden)} are needed")
        layers: list[Conv | Dense] = []
        for i, (layer, width) in enumerate(zip(hidden, widths * len(hidden), strict=False)):
            n = (layer.out_channels if isinstance(layer, Conv) else layer.out_features) * width
            if not 1 <= n <= MAX_SIDE or n != int(n):
                raise ValueError(f"layer {i}: a width of {width} makes {n} rows; it must be a whole number of 1 to "
                                 f"{MAX_SIDE}")
            layers.append(replace(layer, out_channels=int(n)) if isinstance(layer, Conv) else Dense(int(n)))
        return replace(self, layers=(*layers, self.layers[-1]))

    @property
    def n_weight_bits(self) -> int:
        """Weights of all layers, in bits."""
        return sum(shape.mh * shape.mw for shape in self.shapes)

    @property
    def n_operations(self) -> int:
        """Binary operations per image: an XNOR and a count for every bit of every window, row and slice."""
        return sum(2 * s.n_windows * s.mh * s.slice_inputs * s.n_slices for s in self.shapes)

    @property
    def slice_weights(self) -> tuple[int, ...]:
        """What a set bit of each kept slice counts in the first layer, MSB first; relative to the lowest kept."""
        if self.first_layer == "sliced":
            return (1,) * len(self.kept_slices)
        return tuple(1 << (b - self.kept_slices[-1]) for b in self.kept_slices)

    @property
    def n_classes(self) -> int:
        """Scores per image."""
        return self.shapes[-1].mh

    @cached_property
    def shapes(self) -> tuple[LayerShape, ...]:
        """Sizes of every layer, in order."""
        shapes: list[LayerShape] = []
        in_shape = self.in_shape
        for i, layer in enumerate(self.layers):
            if isinstance(layer, Conv) and i and isinstance(self.layers[i - 1], Dense):
                raise ValueError(f"layer {i} ({layer}) is a convolution after a dense layer; dense layers come last")
            shapes.append(self._layer_shape(i, layer, in_shape))
            in_shape = shapes[-1].out_shape
        return tuple(shapes)

    def _layer_shape(self, i: int, layer: Conv | Dense, in_shape: Shape) -> LayerShape:
        height, width, channels = in_shape
        if isinstance(layer, Dense):
            window_shape = out_shape = (1, 1, layer.out_features)
            slice_inputs = height * width * channels
        else:
            rows, columns = ((n + 2 * layer.padding - layer.kernel) // layer.stride + 1 for n in (height, width))
            if rows < layer.pool or columns < layer.pool:
                raise ValueError(f"layer {i} ({layer}) does not fit an input of {height}x{width}")
            window_shape = (rows, columns, layer.out_channels)
            out_shape = (rows // layer.pool, columns // layer.pool, layer.out_channels)
            slice_inputs = layer.kernel**2 * channels
        n_outputs = window_shape[0] * window_shape[1] * window_shape[2]
        if n_outputs > MAX_VALUES:
            raise ValueError(f"layer {i} ({layer}) gives {n_outputs} bits per image; at most {MAX_VALUES} are "
                             "supported")
        n_slices = len(self.kept_slices) if i == 0 else 1
        own_weights = n_slices if self.first_layer == "sliced" else 1
        scale = sum(self.slice_weights) if i == 0 else 1
        if slice_inputs > MAX_WINDOW or slice_inputs * scale > MAX_ACCUMULATOR:
            raise ValueError(f"layer {i} ({layer}) has {slice_inputs} inputs, whose sum is at most "
                             f"{slice_inputs * scale}; the limits are {MAX_WINDOW} and {MAX_ACCUMULATOR}")
        return LayerShape(layer, in_shape, window_shape, out_shape, n_slices, slice_inputs,
                          slice_inputs * own_weights, window_shape[2], slice_inputs * scale)


_NUMBER = "([0-9]{1,12})"
"""A longer one is out of any range, and past 4,300 digits Python would not read it."""
_CONV = re.compile(f"{_NUMBER}C{_NUMBER}(?:S{_NUMBER})?(?:P{_NUMBER})?(?:B([01]))?")


def _parse_layers(text: str) -> tuple[Conv | Dense, ...]:
    layers: list[Conv | Dense] = []
    for token in text.upper().split("-"):
        last = layers[-1] if layers else None
        if match := _CONV.fullmatch(token):
            out, kernel, stride, padding, bit = match.groups()
            layers.append(Conv(int(out), int(kernel), int(stride or 1),
                               (int(kernel) - 1) // 2 if padding is None else int(padding), int(bit or 0)))
        elif match := re.fullmatch(f"{_NUMBER}FC", token):
            layers.append(Dense(int(match[1])))
        elif match := re.fullmatch(f"MP{_NUMBER}", token):
            if not isinstance(last, Conv) or last.pool > 1:
                raise ValueError(f"{token} in topology {text!r} must follow a convolution")
            _check_range("pool of a convolution", int(match[1]), 1, MAX_SIDE)
            layers[-1] = replace(last, pool=int(match[1]))
        else:
            raise ValueError(f"{token!r} in topology {text!r} is not <n>C<k>[S<s>][P<p>][B1], MP<k> or <n>FC")
    return tuple(layers)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be {low} to {high}")
