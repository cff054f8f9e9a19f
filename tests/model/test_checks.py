"""Whatever describes a network refuses values of other types, in one sentence."""

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum

import numpy as np
import pytest

from cbnn.model.network import Network, random_network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixParameters
from cbnn.model.operators.max_pool import MaxPool, PoolParameters
from cbnn.model.operators.tensor import Tensor
from cbnn.model.topology import Node, Topology

TOPOLOGY = Topology.parse("4C3-MP2-3FC", (4, 4, 1), 2)
NETWORK = random_network(TOPOLOGY, 0)


class One(IntEnum):
    """Equal to 1, and no int."""

    ONE = 1


NUMBERS: dict[str, Callable[[object], object]] = {
    "out_channels of a convolution": lambda n: Conv(n, 3),
    "kernel of a convolution": lambda n: Conv(4, n),
    "stride of a convolution": lambda n: Conv(4, 3, n),
    "padding of a kernel of 3": lambda n: Conv(4, 3, 1, n),
    "pad_bit": lambda n: Conv(4, 3, 1, 1, n),
    "out_features of a dense layer": Dense,
    "size of a pool": MaxPool,
    "one of shape of a tensor": lambda n: Tensor((1, n, 1)),
    "one of slices": lambda n: Tensor((1, 1, 1), (n,)),
    "one of inputs of a node": lambda n: Node(Dense(4), (n,)),
    "one of input shape": lambda n: replace(TOPOLOGY, in_shape=(4, 4, n)),
    "input_bits": lambda n: replace(TOPOLOGY, input_bits=n),
    "one of kept slices": lambda n: TOPOLOGY.keep((n, 0)),
    "max_pixel": lambda n: replace(NETWORK, max_pixel=n),
}


@pytest.mark.parametrize("value", [np.int32(1), np.uint8(1), np.array(1), 1.0, True, "1", None, One.ONE])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_plain_integers(name: str, value: object) -> None:
    with pytest.raises(ValueError) as caught:
        NUMBERS[name](value)
    assert str(caught.value) == f"{name} is of type {type(value).__name__}; it must be int"


KINDS: dict[str, tuple[str, Callable[[object], object]]] = {
    "operator of a node": ("Operator", lambda value: Node(value, (-1,))),
    "inputs of a node": ("tuple", lambda value: Node(Dense(4), value)),
    "input shape": ("tuple", lambda value: replace(TOPOLOGY, in_shape=value)),
    "kept slices": ("tuple", lambda value: replace(TOPOLOGY, kept_slices=value)),
    "nodes": ("tuple", lambda value: replace(TOPOLOGY, nodes=value)),
    "one of nodes": ("Node", lambda value: replace(TOPOLOGY, nodes=(*TOPOLOGY.nodes[:2], value))),
    "first layer": ("str", lambda value: replace(TOPOLOGY, first_layer=value)),
    "scores of a dense layer": ("bool", lambda value: Dense(4, value)),
    "shape of a tensor": ("tuple", Tensor),
    "slices": ("tuple", lambda value: Tensor((1, 1, 1), value)),
    "shared": ("bool", lambda value: Tensor((1, 1, 1), (1,), value)),
    "topology": ("Topology", lambda value: Network(value, NETWORK.parameters)),
    "parameters": ("tuple", lambda value: Network(TOPOLOGY, value)),
    "one of parameters": ("Parameters", lambda value: Network(TOPOLOGY, (*NETWORK.parameters[:2], value))),
}
ARRAYS: dict[str, Callable[[object], object]] = {
    "weights": MatrixParameters,
    "thresholds": lambda value: MatrixParameters(np.zeros((1, 1), np.uint8), value),
    "offsets": lambda value: MatrixParameters(np.zeros((1, 1), np.uint8), None, value),
    "invert": PoolParameters,
    "pixel lookup table": lambda value: replace(NETWORK, pixel_table=value),
}
OTHERS = [1, [1], {1: 2}, object()]


@pytest.mark.parametrize("value", [*OTHERS, None, np.zeros(2)])
@pytest.mark.parametrize("name", KINDS)
def test_all_else_is_of_its_kind(name: str, value: object) -> None:
    kind, make = KINDS[name]
    with pytest.raises(ValueError) as caught:
        make(value)
    assert str(caught.value) == f"{name} is of type {type(value).__name__}; it must be {kind}"


@pytest.mark.parametrize("value", [*OTHERS, "1"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_arrays(name: str, value: object) -> None:
    with pytest.raises(ValueError) as caught:
        ARRAYS[name](value)
    assert str(caught.value) == f"{name} is of type {type(value).__name__}; it must be ndarray"


@pytest.mark.parametrize("shape", [(), (1, 1), (0, 1, 1), (1, 1, 1, 1), (1, 1, 1 << 27)])
def test_shapes_are_three_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        Tensor(shape)
    assert str(caught.value) == f"shape of a tensor {shape} is not (height, width, channels), each 1 to 67108864"


def test_topologies_can_be_keys() -> None:
    assert len({TOPOLOGY, Topology.parse(str(TOPOLOGY)), TOPOLOGY.keep((1,))}) == 2
