"""Topologies: the literature's notation both ways, shapes of known networks, and every refusal."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MAX_WINDOW
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.operators.operator import Operator
from cbnn.model.operators.tensor import MAX_SIDE, Tensor
from cbnn.model.topology import INPUT, Node, Topology

CNV = "64C3P0-64C3P0-MP2-128C3P0-128C3P0-MP2-256C3P0-256C3P0-512FC-512FC-10FC"
VGG = "128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-1024FC-1024FC-10FC"


@st.composite
def convolutions(draw: st.DrawFn) -> Conv:
    kernel = draw(st.integers(1, 7))
    return Conv(draw(st.integers(1, 99)), kernel, draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1)),
                draw(st.integers(0, 1)))


@settings(deadline=None, max_examples=200)
@given(conv=convolutions(), height=st.integers(1, 12), width=st.integers(1, 12))
def test_places_are_the_ways_to_lie_over_the_edge(conv: Conv, height: int, width: int) -> None:
    def outside(at: int, size: int) -> list[bool]:
        return [not 0 <= at * conv.stride - conv.padding + tap < size for tap in range(conv.kernel)]

    rows, columns = ((n + 2 * conv.padding - conv.kernel) // conv.stride + 1 for n in (height, width))
    if min(rows, columns) < 1:
        return
    shape = conv.shape(Tensor((height, width, 1)))
    ways = [(tuple(outside(y, height)), tuple(outside(x, width))) for y in range(rows) for x in range(columns)]
    different = list(dict.fromkeys(ways))
    assert shape.places.ravel().tolist() == [different.index(way) for way in ways]
    assert shape.n_places == len(different)
    taps = [[[y or x for x in outside_x] for y in outside_y] for outside_y, outside_x in different]
    assert shape.taps_outside.tolist() == taps
    assert Dense(1).shape(Tensor((height, width, 1))).n_places == 1


def test_places_of_a_vast_image_are_found_at_once() -> None:
    ends = (0, MAX_SIDE - 2, MAX_SIDE - 1)
    assert Conv(1, 3, padding=1).shape(Tensor((MAX_SIDE, 1, 1))).place_ends == (ends, (0,))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(convolutions(), st.integers(1, 3)), max_size=2),
       st.lists(st.builds(Dense, st.integers(1, 99)), min_size=1, max_size=3))
def test_notation_round_trip(convs: list[tuple[Conv, int]], dense: list[Dense]) -> None:
    rasters = [operator for conv, pool in convs for operator in (conv, *([MaxPool(pool)] if pool > 1 else []))]
    topology = Topology.chain((149, 148, 3), 8, (7, 2), (*rasters, *dense), "weighted")
    assert Topology.parse(topology.layers_text, (149, 148, 3), 8, (7, 2), "weighted") == topology
    assert Topology.parse(str(topology)) == Topology.parse(str(topology).lower()) == topology
    assert str(topology).startswith("149x148x3u8w:7,2-")


def test_what_the_notation_means() -> None:
    topology = Topology.parse("8C5-MP3-9C4S2P1B1-10C1-7FC-3FC", (30, 31, 2), 4)
    assert topology.nodes == tuple(Node(operator, (i - 1,)) for i, operator in enumerate((
        Conv(8, 5, 1, 2, 0), MaxPool(3), Conv(9, 4, 2, 1, 1), Conv(10, 1), Dense(7), Dense(3, scores=True))))
    assert topology.names == ("layer 0", "the pool after layer 0", "layer 1", "layer 2", "layer 3", "layer 4")
    assert [topology.taker(i) for i in range(INPUT, 5)] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"^no node takes what node 5 gives$"):
        topology.taker(5)
    assert topology.kept_slices == (3, 2, 1, 0)
    assert topology.first_layer == "sliced"
    assert topology.n_classes == 3


def test_shapes_of_cnv() -> None:
    topology = Topology.parse(CNV, (32, 32, 3), 8)
    assert [s.out_shape for s in topology.shapes] == [
        (30, 30, 64), (28, 28, 64), (14, 14, 64), (12, 12, 128), (10, 10, 128), (5, 5, 128), (3, 3, 256), (1, 1, 256),
        (1, 1, 512), (1, 1, 512), (1, 1, 10)]
    assert [s.in_shape for s in topology.shapes] == [(32, 32, 3), *[s.out_shape for s in topology.shapes[:-1]]]
    shapes = topology.layers
    assert [s.mw for s in shapes] == [216, 576, 576, 1152, 1152, 2304, 256, 512, 512]
    assert [s.mh for s in shapes] == [64, 64, 128, 128, 256, 256, 512, 512, 10]
    assert [s.slice_inputs for s in shapes] == [27, 576, 576, 1152, 1152, 2304, 256, 512, 512]
    assert [s.n_slices for s in shapes] == [8] + [1] * 8
    assert [s.max_accumulator for s in shapes] == [s.mw for s in shapes]
    assert [s.n_windows for s in shapes] == [900, 784, 144, 100, 9, 1, 1, 1, 1]


def test_shapes_of_vgg() -> None:
    shapes = Topology.parse(VGG, (32, 32, 3), 8).layers
    assert [s.out_shape[0] for s in shapes] == [32, 32, 16, 16, 8, 8, 1, 1, 1]
    assert [s.mw for s in shapes] == [216, 1152, 1152, 2304, 2304, 4608, 8192, 1024, 1024]
    assert sum(s.mw * s.mh for s in shapes) == 14_046_208


@pytest.mark.parametrize(("first_layer", "mw", "largest", "counts"), [
    ("sliced", 81, 81, (1, 1, 1)), ("weighted", 27, 27 * (32 + 8 + 1), (32, 8, 1))])
def test_first_layer(first_layer: str, mw: int, largest: int, counts: tuple[int, ...]) -> None:
    topology = Topology.parse("5C3-4FC", (8, 8, 3), 8, (7, 5, 2), first_layer)
    first = topology.layers[0]
    assert (first.n_slices, first.slice_inputs, first.mw, first.max_accumulator) == (3, 27, mw, largest)
    assert topology.tensor.slices == counts
    assert topology.keep((2,)).layers[0].max_accumulator == 27
    assert topology.layers[1].n_slices == 1


def test_smallest() -> None:
    shape, = Topology.chain((1, 1, 1), 1, (0,), (Dense(1),)).layers
    assert (shape.mw, shape.mh, shape.max_accumulator, shape.n_windows) == (1, 1, 1, 1)


def parse(text: str) -> Callable[[], Topology]:
    return lambda: Topology.parse(text, (8, 6, 1), 5)


def nodes(*given: tuple[Operator | int, ...]) -> Callable[[], Topology]:
    """Operators, each with the nodes that it takes from."""
    made = tuple(Node(operator, tuple(inputs)) for operator, *inputs in given)
    return lambda: Topology((8, 6, 1), 5, (4,), made)


LAST = "the last layer must be dense (FC): it gives the scores, and no other"
UNREADABLE = "is not <n>C<k>[S<s>][P<p>][B1], MP<k> or <n>FC"


@pytest.mark.parametrize(("make", "sentence"), [
    (parse(""), f"'' in topology '' {UNREADABLE}"),
    (parse("8C3--4FC"), f"'' in topology '8C3--4FC' {UNREADABLE}"),
    (parse("8C-4FC"), f"'8C' in topology '8C-4FC' {UNREADABLE}"),
    (parse("8C3B2-4FC"), f"'8C3B2' in topology '8C3B2-4FC' {UNREADABLE}"),
    (parse("8C3-4FC "), f"'4FC ' in topology '8C3-4FC ' {UNREADABLE}"),
    (parse("MP2-4FC"), "MP2 must follow a convolution"),
    (parse("4FC-MP2-4FC"), "MP2 must follow a convolution"),
    (parse("4FC-MP2"), LAST),
    (parse("8C3-MP2-MP2-4FC"), "MP2 must follow a convolution"),
    (parse("8C3-MP0-4FC"), "size of a pool is 0; it must be 2 to 1048576"),
    (parse("0C3-4FC"), "out_channels of a convolution is 0; it must be 1 to 1048576"),
    (parse("8C0-4FC"), "kernel of a convolution is 0; it must be 1 to 64"),
    (parse("8C3S0-4FC"), "stride of a convolution is 0; it must be 1 to 1048576"),
    (parse("8C3P3-4FC"), "padding of a kernel of 3 is 3; it must be 0 to 2"),
    (parse("0FC"), "out_features of a dense layer is 0; it must be 1 to 1048576"),
    (parse("8C3"), LAST),
    (parse("4FC-8C3-4FC"), "layer 1 (8C3) is a convolution after a dense layer; dense layers come last"),
    (parse("8C7P0-4FC"), "layer 0: 8C7P0 does not fit an input of 8x6"),
    (parse("8C3-MP2-8C5P0-4FC"), "layer 1: 8C5P0 does not fit an input of 4x3"),
    (parse("8C3P0-MP5-4FC"), "the pool after layer 0: MP5 does not fit an input of 6x4"),
    (lambda: Conv(8, 3, pad_bit=2), "pad_bit is 2; it must be 0 to 1"),
    (lambda: Conv(8, 3, padding=-1), "padding of a kernel of 3 is -1; it must be 0 to 2"),
    (lambda: Topology((8, 6, 1), 5, (4,), ()), LAST),
    (nodes((Dense(4), INPUT), (Dense(4), 0)), LAST),
    (nodes((Dense(4, scores=True), INPUT), (Dense(4, scores=True), 0)), LAST),
    (nodes((Dense(4), INPUT), (Dense(4, scores=True), INPUT)),
     "the input is taken by 2 nodes; branches are not supported"),
    (nodes((Conv(4, 1), INPUT), (MaxPool(2), 0), (Dense(4), 0), (Dense(4, scores=True), 2)),
     "node 0 (4C1) is taken by 2 nodes; branches are not supported"),
    (nodes((Dense(4), INPUT), (Dense(4, scores=True), 0, 0)),
     "node 1 (4FC) takes from [0, 0]; it must take from one node before it, or from -1, the input"),
    (nodes((Dense(4), 0), (Dense(4, scores=True), 0)),
     "node 0 (4FC) takes from [0]; it must take from one node before it, or from -1, the input"),
    (lambda: Topology.parse("4FC", (8, 6), 5),
     "input shape (8, 6) is not (height, width, channels), each 1 to 1048576"),
    (lambda: Topology.parse("4FC", (8, 0, 1), 5),
     "input shape (8, 0, 1) is not (height, width, channels), each 1 to 1048576"),
    (lambda: Topology.parse("4FC", (8, 6.0, 1), 5),
     "one of input shape is of type float; it must be int"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 0, (0,)), "input_bits is 0; it must be 1 to 16"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 17), "input_bits is 17; it must be 1 to 16"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 5.0, (0,)), "input_bits is of type float; it must be int"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 5, ()), "no slice is kept; a network needs at least one"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 5, (5,)), "slice 5 does not exist; pixels of 5 bits have 0 to 4"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 5).keep((1, 2)),
     "kept slices [1, 2] must be listed once each, the MSB first"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 5, (4,), "float"),
     "first layer is 'float'; it must be 'sliced' or 'weighted'"),
    (lambda: Topology.parse("4FC", (1 << 12, (1 << 12) + 1, 1), 1),
     f"layer 0: 4FC has {MAX_WINDOW + 4096} inputs, whose sum is at most {MAX_WINDOW + 4096}; "
     "the limits are 16777216 and 1073741824"),
    (lambda: Topology.parse("4FC", (1 << 10, 1 << 10, 1), 16, None, "weighted"),
     "layer 0: 4FC has 1048576 inputs, whose sum is at most 68718428160; the limits are 16777216 and 1073741824"),
    (parse("99999999999C3-4FC"), "out_channels of a convolution is 99999999999; it must be 1 to 1048576"),
    (parse("8C99999999999-4FC"), "kernel of a convolution is 99999999999; it must be 1 to 64"),
    (parse("8C3S99999999999-4FC"), "stride of a convolution is 99999999999; it must be 1 to 1048576"),
    (parse("8C3-MP99999999999-4FC"), "size of a pool is 99999999999; it must be 2 to 1048576"),
    (parse("99999999999FC"), "out_features of a dense layer is 99999999999; it must be 1 to 1048576"),
    (parse(f"{'9' * 5000}FC"), "a number of the topology has more than 12 digits"),
    (parse(f"8C3-MP{10**12}-4FC"), "a number of the topology has more than 12 digits"),
    (lambda: Topology.parse(f"8x6x1u{10**12}-4FC"), "a number of the topology has more than 12 digits"),
    (parse("16C3\u017f2-4FC"), "topology '16C3\u017f2-4FC' holds characters that are not ASCII"),
    (lambda: Topology.parse("8x\u0666x1u5-4FC"), "topology '8x\u0666x1u5-4FC' holds characters that are not ASCII"),
    (parse(None), "topology is of type NoneType; it must be str"),
    (lambda: Topology.parse("4FC", (8, 6, 1), 10**9), "input_bits is 1000000000; it must be 1 to 16"),
    (parse("65536FC-65536FC-3FC"), "the network has 4310892544 weights; at most 268435456 are supported"),
    (parse("1FC-" * 256 + "1FC"), "the topology has 257 operators; at most 256 are supported"),
    (lambda: Topology.parse("4FC", (999999, 999999, 1), 5),
     "input shape (999999, 999999, 1) has 999998000001 values; at most 67108864 are supported"),
    (lambda: Topology.parse("4FC", (9999999, 1, 1), 5),
     "input shape (9999999, 1, 1) is not (height, width, channels), each 1 to 1048576"),
    (lambda: Topology.parse("32C1-4FC", (4096, 4096, 1), 1),
     "layer 0: 32C1 gives 536870912 bits per image; at most 67108864 are supported"),
    (lambda: Topology.parse("4FC-4FC", (1, 1, 1), 1).scaled(float("nan")),
     "layer 0: a width of nan makes nan rows; it must be a whole number of 1 to 1048576"),
    (lambda: Topology.parse("4FC-4FC", (1, 1, 1), 1).scaled(float("inf")),
     "layer 0: a width of inf makes inf rows; it must be a whole number of 1 to 1048576"),
])
def test_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence


def test_a_topology_of_a_million_operators_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbnn.model.topology.Dense", None)
    with pytest.raises(ValueError, match=r"^the topology has 1000001 operators; at most 256 are supported$"):
        Topology.parse("1x1x1u1-" + "1FC-" * 1_000_000 + "1FC")
