"""Shapes of a network: input, kept slices, and operators joined by edges. No weights, no hardware."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from cbnn.model.checks import check_kind, check_range, check_tuple
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import Matrix, MatrixShape
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.operators.operator import Operator, OperatorShape
from cbnn.model.operators.tensor import MAX_SIDE, MAX_VALUES, Shape, Tensor, check_shape
from cbnn.model.slices import check_kept, parse_slices, slices_text

MAX_BITS = 16
"""Most bits of a pixel."""
MAX_NODES = 256
MAX_WEIGHTS = 1 << 28
"""Most weights of a network, in bits: what the largest file of a network holds."""


INPUT = -1
"""Stands for the network's input among the inputs of a node."""
FirstLayer = Literal["sliced", "weighted"]


@dataclass(frozen=True)
class Node:
    """An operator in its place.

    Attributes
    ----------
    operator : what it does
    inputs : the earlier nodes, or `INPUT`, whose outputs it takes

    Raises
    ------
    ValueError
        When they are of other types.
    """

    operator: Operator
    inputs: tuple[int, ...]

    def __post_init__(self) -> None:
        check_kind("operator of a node", self.operator, Operator)
        check_tuple("inputs of a node", self.inputs, int)


@dataclass(frozen=True)
class Topology:
    """A network's shapes: the input, its kept slices, and the operators.

    A *layer* is a matrix operator: what has weights, folds, and becomes a matrix unit.

    Parameters
    ----------
    in_shape : (height, width, colours)
    input_bits : bits per pixel and colour
    kept_slices : slices sent to the accelerator, MSB first
    first_layer : "sliced" (every slice is a channel with weights of its own: CBNN) or "weighted"
        (one weight per colour shared by the slices, which count 2**b: the classic fixed-point input)
    nodes : operators in an order in which each comes after those it takes from; the last one is
        dense and gives a score per class

    Raises
    ------
    ValueError
        When types are others, sizes do not fit each other, or the nodes are no chain; the message names the layer,
        the value and the rule.
    """

    in_shape: Shape
    input_bits: int
    kept_slices: tuple[int, ...]
    nodes: tuple[Node, ...]
    first_layer: FirstLayer = "sliced"

    def __post_init__(self) -> None:
        check_shape("input shape", self.in_shape, MAX_SIDE)
        if (n := self.in_shape[0] * self.in_shape[1] * self.in_shape[2]) > MAX_VALUES:
            raise ValueError(f"input shape {self.in_shape} has {n} values; at most {MAX_VALUES} are supported")
        check_range("input_bits", self.input_bits, 1, MAX_BITS)
        check_kept(self.kept_slices, self.input_bits)
        check_kind("first layer", self.first_layer, str)
        if self.first_layer not in ("sliced", "weighted"):
            raise ValueError(f"first layer is {self.first_layer!r}; it must be 'sliced' or 'weighted'")
        check_tuple("nodes", self.nodes, Node)
        _check_count(len(self.nodes))
        self._check_edges()
        if self.n_weight_bits > MAX_WEIGHTS:
            raise ValueError(f"the network has {self.n_weight_bits} weights; at most {MAX_WEIGHTS} are supported")

    def _check_edges(self) -> None:
        """Refuse what is no chain, here and nowhere else: all passes follow edges."""
        operators = [node.operator for node in self.nodes]
        scores = [isinstance(operator, Matrix) and operator.scores for operator in operators]
        if not operators or not isinstance(operators[-1], Dense) or scores != [False] * (len(scores) - 1) + [True]:
            raise ValueError("the last layer must be dense (FC): it gives the scores, and no other")
        taken: list[int] = []
        for i, node in enumerate(self.nodes):
            if len(node.inputs) != 1 or not INPUT <= node.inputs[0] < i:
                raise ValueError(f"node {i} ({node.operator}) takes from {list(node.inputs)}; it must take from one "
                                 f"node before it, or from {INPUT}, the input")
            taken += node.inputs
        for i in range(INPUT, len(self.nodes) - 1):
            if (n := taken.count(i)) != 1:
                what = "the input" if i == INPUT else f"node {i} ({self.nodes[i].operator})"
                raise ValueError(f"{what} is taken by {n} nodes; branches are not supported")

    @classmethod
    def chain(cls, in_shape: Shape, input_bits: int, kept_slices: tuple[int, ...], operators: Sequence[Operator],
              first_layer: FirstLayer = "sliced") -> "Topology":
        """Return the topology in which each operator takes what the one before gives, and the last gives scores."""
        operators = list(operators)
        if operators and isinstance(operators[-1], Dense):
            operators[-1] = replace(operators[-1], scores=True)
        nodes = (Node(operator, (i,)) for i, operator in enumerate(operators, INPUT))
        return cls(in_shape, input_bits, kept_slices, tuple(nodes), first_layer)

    @classmethod
    def parse(cls, text: str, in_shape: Shape | None = None, input_bits: int = 0,
              kept_slices: tuple[int, ...] | None = None, first_layer: FirstLayer = "sliced") -> "Topology":
        """Read a topology as the literature writes it, for example ``8x8x1u5-16C3-16C3-MP2-32C3-MP2-64FC-10FC``.

        ``<n>C<k>`` is a convolution of n channels and a k x k kernel; ``S<s>`` sets its stride, ``P<p>`` its
        padding (else "same": (k - 1) / 2), ``B1`` pads with ones. ``MP<k>`` pools, ``<n>FC`` is dense.

        The input comes first: ``<height>x<width>x<colours>u<bits>``, with ``w`` after it where the
        first layer is weighted, and the slices kept after a colon where that are not all:
        ``28x28x1u8w:7..4``. Where `in_shape` is given the text is of the layers only, and all
        slices are kept where `kept_slices` is None.

        Raises
        ------
        ValueError
            When the text is written otherwise, or its sizes do not fit each other.
        """
        check_kind("topology", text, str)
        if not text.isascii():
            raise ValueError(f"topology {text!r} holds characters that are not ASCII")
        if re.search("[0-9]{13}", text):
            raise ValueError("a number of the topology has more than 12 digits")
        if in_shape is None:
            head, _, text = text.partition("-")
            match = _INPUT.fullmatch(head)
            if not match:
                raise ValueError(f"{head!r} does not describe an input; a topology begins with one, as in "
                                 "8x8x1u5-16C3-MP2-10FC: height x width x colours, u and the bits of a pixel")
            height, width, colours, input_bits = map(int, match.groups()[:4])
            in_shape, first_layer = (height, width, colours), "weighted" if match[5] else "sliced"
            kept_slices = parse_slices(match[6]) if match[6] else None
        check_range("input_bits", input_bits, 1, MAX_BITS)
        kept = tuple(range(input_bits - 1, -1, -1)) if kept_slices is None else kept_slices
        return cls.chain(in_shape, input_bits, kept, _parse_operators(text), first_layer)

    def __str__(self) -> str:
        text = f"{'x'.join(map(str, self.in_shape))}u{self.input_bits}" + "w" * (self.first_layer == "weighted")
        if len(self.kept_slices) < self.input_bits:
            text += f":{slices_text(self.kept_slices)}"
        return f"{text}-{self.layers_text}"

    @property
    def layers_text(self) -> str:
        """The operators as `parse` reads them after an input."""
        return "-".join(str(node.operator) for node in self.nodes)

    def keep(self, kept_slices: tuple[int, ...]) -> "Topology":
        """Return the same network with other slices kept."""
        return replace(self, kept_slices=kept_slices)

    def scaled(self, *widths: float) -> "Topology":
        """Return the network with the rows of its layers, but the last, times `widths`: one for all, or one for each.

        Raises
        ------
        ValueError
            When that gives no whole number of rows, or there is not a width for each layer but the
            last.
        """
        hidden = len(self.layers) - 1
        if len(widths) not in (1, hidden):
            raise ValueError(f"{len(widths)} widths given; 1 or {hidden} are needed")
        left = list(widths) if len(widths) == hidden else list(widths) * hidden
        nodes: list[Node] = []
        for node, name in zip(self.nodes, self.names, strict=True):
            operator = node.operator
            if isinstance(operator, Matrix) and not operator.scores:
                width = left.pop(0)
                n = operator.n_rows * width
                if not 1 <= n <= MAX_SIDE or n != int(n):
                    raise ValueError(f"{name}: a width of {width} makes {n} rows; it must be a whole number of 1 to "
                                     f"{MAX_SIDE}")
                operator = operator.with_rows(int(n))
            nodes.append(Node(operator, node.inputs))
        return replace(self, nodes=tuple(nodes))

    @property
    def n_weight_bits(self) -> int:
        """Weights of all layers, in bits."""
        return sum(shape.mh * shape.mw for shape in self.layers)

    @property
    def n_operations(self) -> int:
        """Binary operations per image: an XNOR and a count for every bit of every window, row and slice."""
        return sum(2 * s.n_windows * s.mh * s.slice_inputs * s.n_slices for s in self.layers)

    @property
    def tensor(self) -> Tensor:
        """What enters: kept slices with weights of their own, or ones that share them and count 2**b.

        Counts are relative to the lowest slice kept.
        """
        if self.first_layer == "sliced":
            return Tensor(self.in_shape, (1,) * len(self.kept_slices), shared=False)
        return Tensor(self.in_shape, tuple(1 << (b - self.kept_slices[-1]) for b in self.kept_slices))

    @property
    def n_classes(self) -> int:
        """Scores per image."""
        return self.shapes[-1].out.shape[2]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What messages call every node: "layer 0", and "the pool after layer 0"."""
        names: list[str] = []
        n_layers = 0
        for node in self.nodes:
            n_layers += isinstance(node.operator, Matrix)
            names.append(f"layer {n_layers - 1}" if isinstance(node.operator, Matrix)
                         else f"the pool after layer {n_layers - 1}")
        return tuple(names)

    @cached_property
    def shapes(self) -> tuple[OperatorShape, ...]:
        """Sizes of every node, in order."""
        shapes: list[OperatorShape] = []
        for node, name in zip(self.nodes, self.names, strict=True):
            source, = node.inputs
            before = None if source == INPUT else self.nodes[source].operator
            operator = node.operator
            if isinstance(operator, MaxPool) and not (isinstance(before, Matrix) and before.slides):
                raise ValueError(f"{operator} must follow a convolution")
            if isinstance(operator, Matrix) and operator.slides and isinstance(before, Dense):
                raise ValueError(f"{name} ({operator}) is a convolution after a dense layer; dense layers come last")
            try:
                shapes.append(operator.shape(self.tensor if source == INPUT else shapes[source].out))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return tuple(shapes)

    @cached_property
    def layers(self) -> tuple[MatrixShape, ...]:
        """Sizes of the matrix operators only, in order."""
        return tuple(shape for shape in self.shapes if isinstance(shape, MatrixShape))

    def taker(self, i: int) -> int:
        """Return the node that takes what node `i`, or the `INPUT`, gives; ValueError where none does."""
        for j, node in enumerate(self.nodes):
            if i in node.inputs:
                return j
        raise ValueError(f"no node takes what node {i} gives")


_NUMBER = "([0-9]+)"
_INPUT = re.compile(f"{_NUMBER}x{_NUMBER}x{_NUMBER}u{_NUMBER}(w?)(?::([0-9.,]+))?", re.IGNORECASE)
_CONV = re.compile(f"{_NUMBER}C{_NUMBER}(?:S{_NUMBER})?(?:P{_NUMBER})?(?:B([01]))?")


def _check_count(n: int) -> None:
    if n > MAX_NODES:
        raise ValueError(f"the topology has {n} operators; at most {MAX_NODES} are supported")


def _parse_operators(text: str) -> list[Operator]:
    _check_count(text.count("-") + 1)
    operators: list[Operator] = []
    for token in text.upper().split("-"):
        if match := _CONV.fullmatch(token):
            out, kernel, stride, padding, bit = match.groups()
            operators.append(Conv(int(out), int(kernel), int(stride or 1),
                                  (int(kernel) - 1) // 2 if padding is None else int(padding), int(bit or 0)))
        elif match := re.fullmatch(f"{_NUMBER}FC", token):
            operators.append(Dense(int(match[1])))
        elif match := re.fullmatch(f"MP{_NUMBER}", token):
            operators.append(MaxPool(int(match[1])))
        else:
            raise ValueError(f"{token!r} in topology {text!r} is not <n>C<k>[S<s>][P<p>][B1], MP<k> or <n>FC")
    return operators
