"""The accelerator: which kernels a network becomes, in stream order.

    s_axis -> frame guard -> [register slice]
           -> [width converter] -> sliding window -> [width converter] -> buffer -> MVTU -> [max pool]  per convolution
           -> [width converter] -> buffer -> MVTU                                                       per dense layer
           -> scores and class -> register slice -> result marks -> m_axis

The frame guard makes a whole image of every frame, so that kernels never see anything else. The
result marks say in `m_axis_tuser` which results are of images that the guard filled up or cut.
Neither takes a cycle of an image, and neither is one of the `kernels`.

The register slice in front is there to cut the paths through a converter. The buffer is a FIFO, or, where the matrix
unit takes every vector several times, a replay buffer. Behind a pool that gives wider beats than are taken, a FIFO
holds its bursts.

The first layer takes its bit slices one after another: the window unit sends every window once per slice, and the
matrix unit treats the slices as further words of the vector, so that cycles are proportional to the slices kept.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from myhdl import Signal
from numpy.typing import NDArray

from cbnn.hw.classify import Classify, signed_width
from cbnn.hw.fifo import Fifo
from cbnn.hw.folding import Folding, LayerFolding, takes_pixels
from cbnn.hw.frame_guard import FrameGuard
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.replay_buffer import ReplayBuffer
from cbnn.hw.result_marks import ResultMarks
from cbnn.hw.stream import OUTSIDE, Kernel, Link, Port, Stream
from cbnn.hw.width_converter import WidthConverter
from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.network import Network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import MaxPool as Pool
from cbnn.model.operators.max_pool import PoolParameters, PoolShape
from cbnn.model.operators.operator import Operator, OperatorShape, Parameters
from cbnn.model.slices import bit_slices
from cbnn.model.topology import INPUT, Topology

MAX_XNORS = 1 << 18
"""XNORs per cycle of one layer beyond which nothing is laid out: more than the largest FPGAs hold."""
MAX_FIFO_BITS = 1 << 26
"""Bits of one FIFO, likewise."""
MAX_NAME = 64
"""Longest name of a top module; files and modules of kernels begin with it."""
KEYWORDS = frozenset("""
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
    binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
    constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
    else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
    endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event eventually expect
    export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
    highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
    inside instance int integer interconnect interface intersect join join_any join_none large let liblist library local
    localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
    noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
    property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
    rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
    signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
    sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
    tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
    vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
    """.split())
"""Reserved words of SystemVerilog, IEEE 1800-2017, annex B."""


@dataclass(frozen=True)
class Accelerator:
    """Kernels joined by links.

    Attributes
    ----------
    name : name of the top module, and prefix of all others
    kernels : each comes after those that it takes from
    links : one per port of a kernel; exactly one begins outside (`s_axis`), exactly one ends there (`m_axis`)
    network : what was laid out, so that `input_beats` knows its pixels; None of a bare topology
    """

    name: str
    topology: Topology
    folding: Folding
    kernels: tuple[Kernel, ...]
    links: tuple[Link, ...]
    network: Network | None = None

    def __post_init__(self) -> None:
        check_links(self.kernels, self.links)

    @property
    def s_axis(self) -> Port:
        """What enters."""
        return next(self.kernels[link.sink].inputs[link.sink_port] for link in self.links if link.source == OUTSIDE)

    @property
    def m_axis(self) -> Port:
        """What leaves, marks of results apart."""
        return next(self.kernels[link.source].outputs[link.source_port] for link in self.links if link.sink == OUTSIDE)

    @property
    def mvtus(self) -> tuple[Mvtu, ...]:
        """The matrix unit of every layer."""
        return tuple(kernel for kernel in self.kernels if isinstance(kernel, Mvtu))

    @property
    def classify(self) -> Classify:
        """What gives scores and class."""
        return next(kernel for kernel in self.kernels if isinstance(kernel, Classify))

    @property
    def guard(self) -> FrameGuard:
        """What makes whole images of frames, in front of the kernels."""
        return FrameGuard(f"{self.name}_guard", *self.s_axis)

    @property
    def marks(self) -> ResultMarks:
        """What marks the results of damaged images, after the kernels.

        The last layer is dense: every beat of a result needs the last beat that comes to it. So a
        result needs its whole image unless some kernel drops the end of what it takes.

        Images in flight are those whose last beat has entered and has not left. They are no more
        than the images, and parts of images, that all kernels hold together, rounded up.
        """
        return ResultMarks(f"{self.name}_marks", self.m_axis.width,
                           ceil(sum(kernel.images_held for kernel in self.kernels)),
                           early=not all(kernel.schedule.needs_last for kernel in self.kernels))

    @property
    def parts(self) -> tuple[FrameGuard | Kernel | ResultMarks, ...]:
        """All that the top module joins, in stream order."""
        return (self.guard, *self.kernels, self.marks)

    @property
    def input_beats(self) -> int:
        """Beats of `s_axis` per image."""
        return self.s_axis.beats

    @property
    def interval_cycles(self) -> int:
        """Cycles between images in the long run: the slowest kernel's."""
        return max(kernel.interval_cycles for kernel in self.kernels)

    @property
    def first_layer_cycles(self) -> int:
        """Cycles in which the first layer's matrix unit works, per image."""
        return self.mvtus[0].interval_cycles

    @property
    def luts(self) -> int:
        """Estimate of its LUTs."""
        return sum(part.luts for part in self.parts)

    @property
    def block_rams(self) -> int:
        """Estimate of its block RAMs, of 18 Kib."""
        return sum(kernel.block_rams for kernel in self.kernels)


def accelerator(network: Network | Topology, folding: Folding, name: str = "accelerator") -> Accelerator:
    """Lay a network out on hardware; of a bare topology only cycles and sizes can be asked.

    Raises
    ------
    ValueError
        When the folding does not divide the network evenly, something is larger than any FPGA, or the name is no
        Verilog name; the message names layer, value and rule.
    """
    check_name(name)
    topology = network if isinstance(network, Topology) else network.topology
    parameters = (None,) * len(topology.nodes) if isinstance(network, Topology) else network.parameters
    folding.check(topology)
    _check_size(folding)
    elements = topology.tensor.n_values * len(topology.kept_slices)
    entry = RegisterSlice(f"{name}_input", folding.input_width, elements // folding.input_width)
    kernels: list[Kernel] = []
    links: list[Link] = []
    # Where what every node gives comes from.
    ends, n_layers = {INPUT: OUTSIDE}, 0

    def join(end: int, more: list[Kernel]) -> int:
        """Add kernels in a row after one; return the last."""
        for kernel in more:
            links.append(Link(end, len(kernels)))
            end = len(kernels)
            kernels.append(kernel)
        return end

    for i, (node, shape) in enumerate(zip(topology.nodes, topology.shapes, strict=True)):
        # A pool is counted and folded with the layer that it follows.
        n_layers += isinstance(shape, MatrixShape)
        source, = node.inputs
        before = entry if source == INPUT else kernels[ends[source]]
        made = node_kernels(f"{name}_%s{n_layers - 1}", shape, parameters[i], folding.layers[n_layers - 1], before)
        if before is entry and isinstance(made[0], WidthConverter):
            made.insert(0, entry)  # anything else keeps what it takes in a memory of its own
        ends[i] = join(ends[source], made)
    end = join(ends[len(topology.nodes) - 1], tail_kernels(f"{name}_%s", topology.shapes[-1], parameters[-1],
                                                           kernels[-1]))
    links.append(Link(end, OUTSIDE))
    return Accelerator(name, topology, folding, tuple(kernels), tuple(links),
                       None if isinstance(network, Topology) else network)


def chain(n_kernels: int) -> tuple[Link, ...]:
    """Return the links of kernels in a row."""
    return tuple(Link(i - 1 if i else OUTSIDE, i if i < n_kernels else OUTSIDE) for i in range(n_kernels + 1))


def check_links(kernels: Sequence[Kernel], links: Sequence[Link]) -> None:
    """Raise ValueError unless every port is joined once, to one of the same beats, and two of them to the outside."""
    sources = Counter((link.source, link.source_port) for link in links)
    sinks = Counter((link.sink, link.sink_port) for link in links)
    wanted = [(OUTSIDE, 0), *((i, port) for i, kernel in enumerate(kernels) for port in range(len(kernel.outputs)))]
    if sources != Counter(wanted):
        raise ValueError("not every port that gives beats is joined to one that takes them")
    wanted = [(OUTSIDE, 0), *((i, port) for i, kernel in enumerate(kernels) for port in range(len(kernel.inputs)))]
    if sinks != Counter(wanted):
        raise ValueError("not every port that takes beats is joined to one that gives them")
    for link in links:
        if OUTSIDE not in (link.source, link.sink):
            source, sink = kernels[link.source], kernels[link.sink]
            given, taken = source.outputs[link.source_port], sink.inputs[link.sink_port]
            if given != taken:
                raise ValueError(f"{source.name} gives {given.beats} beats of {given.width} bits per image; "
                                 f"{sink.name} takes {taken.beats} of {taken.width}")


def check_name(name: str) -> None:
    """Raise ValueError unless a Verilog module can have the name."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a Verilog name: a letter or _, then letters, digits or _")
    if name in KEYWORDS:
        raise ValueError(f"{name!r} is a reserved word of Verilog; it cannot be the name of a module")
    if len(name) > MAX_NAME:
        raise ValueError(f"the name {name!r} has {len(name)} characters; at most {MAX_NAME} are supported")


def _check_size(folding: Folding) -> None:
    for i, layer in enumerate(folding.layers):
        if layer.pe * layer.simd > MAX_XNORS:
            raise ValueError(f"layer {i}: {layer.pe} PEs of {layer.simd} inputs make {layer.pe * layer.simd} XNORs "
                             f"per cycle; at most {MAX_XNORS} are supported")
        if layer.fifo_depth * layer.simd > MAX_FIFO_BITS:
            raise ValueError(f"layer {i}: a FIFO of {layer.fifo_depth} beats of {layer.simd} bits has "
                             f"{layer.fifo_depth * layer.simd} bits; at most {MAX_FIFO_BITS} are supported")


def node_kernels(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
                 before: Kernel) -> list[Kernel]:
    """Return the kernels of one operator after the kernel `before`; `name` has a place for the kind of kernel.

    Without `parameters` only cycles and sizes can be asked of them.
    """
    return list(BUILDERS[type(shape.operator)](name, shape, parameters, folding, before))


def _convolution(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
                 before: Kernel) -> Iterator[Kernel]:
    """Windows in front of the matrix unit."""
    assert isinstance(shape, MatrixShape)
    pooled_from = (*before.in_shape[:2], before.size) if isinstance(before, MaxPool) else None
    window = SlidingWindow.for_layer(name % "window", shape, folding.simd, pooled_from)
    yield from widths_converted(name % "pixels", before, window.word)
    yield window
    yield from _matrix(name, shape, parameters, folding, window)


def _matrix(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
            before: Kernel) -> Iterator[Kernel]:
    """Words, a buffer of them, and the matrix unit."""
    assert isinstance(shape, MatrixShape)
    neuron_fold = shape.mh // folding.pe
    for converter in widths_converted(name % "words", before, folding.simd):
        before = converter
        yield converter
    yield _buffer(name % "buffer", folding, before.m_axis.beats, shape.n_windows, neuron_fold)
    weights: tuple[int, ...] = ()
    thresholds: tuple[int, ...] = ()
    place_ends: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (0,))
    score_width = signed_width(*_score_range(shape, parameters)) if shape.operator.scores else 0
    if parameters is not None:
        assert isinstance(parameters, MatrixParameters)
        weights = _weight_words(shape, parameters, folding)
        # Half the range more, and no offset, and so no score, is negative.
        rows = parameters.thresholds if parameters.offsets is None else parameters.offsets + (1 << score_width - 1)
        assert rows is not None
        width = score_width or (shape.max_accumulator + 1).bit_length()
        thresholds = _words(_bits(rows.ravel(), width).reshape(-1, folding.pe * width))
        place_ends = shape.place_ends if rows.ndim == 2 else place_ends
    slice_weights = shape.tensor.slices if shape.tensor.shared else (1,)
    yield Mvtu(name % "mvtu", folding.pe, folding.simd, shape.mw // folding.simd, neuron_fold, slice_weights,
               shape.max_accumulator, shape.n_windows, score_width, weights, thresholds, place_ends, folding.ram_style)


def _pool(name: str, shape: OperatorShape, parameters: Parameters | None, folding: LayerFolding,
          before: Kernel) -> Iterator[Kernel]:
    assert isinstance(shape, PoolShape)
    groups = shape.in_shape[2] // folding.pe
    invert: tuple[int, ...] = (0,) * groups
    if parameters is not None:
        assert isinstance(parameters, PoolParameters)
        invert = _words(parameters.invert.reshape(groups, folding.pe))
    beat_cycles = before.synapse_fold if isinstance(before, Mvtu) else 1
    yield MaxPool(name % "pool", shape.in_shape, shape.operator.size, folding.pe, invert, beat_cycles)


BUILDERS: dict[type[Operator], Callable[[str, OperatorShape, Parameters | None, LayerFolding, Kernel],
                                        Iterator[Kernel]]] = {Conv: _convolution, Dense: _matrix, Pool: _pool}
"""What makes the kernels of every kind of operator."""


def tail_kernels(name: str, shape: OperatorShape, parameters: Parameters | None, before: Kernel) -> list[Kernel]:
    """Return the kernels after the last matrix unit, `before`, which gives scores."""
    assert isinstance(shape, MatrixShape)
    assert isinstance(before, Mvtu)
    low, high = _score_range(shape, parameters)
    classify = Classify(name % "classify", before.pe, low, high, shape.mh)
    return [classify, RegisterSlice(name % "output", classify.m_axis.width, classify.m_axis.beats)]


def widths_converted(name: str, before: Kernel, width: int) -> Iterator[Kernel]:
    """Give the converters from what leaves `before` to beats of `width`: none, one, or up and down again.

    A pool sends its pixels in bursts; those that come faster than they can be handed out wait in a FIFO.
    """
    given = before.m_axis
    common = math.lcm(given.width, width)
    if isinstance(before, MaxPool) and (waiting := before.most_waiting(width)):
        before = Fifo(f"{name}_burst", given.width, waiting + common // given.width, given.beats)
        yield before
    if common != given.width:
        before = WidthConverter(f"{name}_gather", given.width, common, given.beats)
        yield before
    if common != width:
        yield WidthConverter(f"{name}_hand_out", common, width, before.m_axis.beats)


def _buffer(name: str, folding: LayerFolding, n_beats: int, n_vectors: int, neuron_fold: int) -> Kernel:
    """Hold beats in front of a matrix unit, and give them once per fold of rows."""
    if neuron_fold == 1:
        return Fifo(name, folding.simd, folding.fifo_depth, n_beats)
    return ReplayBuffer(name, folding.simd, folding.fifo_depth, n_beats, n_beats // n_vectors, neuron_fold)


def _score_range(shape: MatrixShape, parameters: Parameters | None) -> tuple[int, int]:
    """Bounds of the scores of a last layer."""
    given = parameters.offsets if isinstance(parameters, MatrixParameters) else None
    offsets = [0] if given is None else given.tolist()
    return min(offsets), max(offsets) + shape.max_accumulator


def _weight_words(shape: MatrixShape, parameters: MatrixParameters, folding: LayerFolding) -> tuple[int, ...]:
    """ROM words in the order of use: folds of rows outermost, then words; in a word PE 0 in the low bits."""
    folds = parameters.weights.reshape(shape.mh // folding.pe, folding.pe, shape.mw // folding.simd, folding.simd)
    return _words(folds.transpose(0, 2, 1, 3).reshape(-1, folding.pe * folding.simd))


def _bits(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    return ((values[:, np.newaxis] >> np.arange(width)) & 1).astype(np.uint8)


def _words(bits: NDArray) -> tuple[int, ...]:
    """Integers of rows of bits, the first bit lowest."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    return tuple(int.from_bytes(row.tobytes(), "little") for row in packed)


def input_beats(accelerator: Accelerator, images: NDArray) -> list[int]:
    """`s_axis_tdata` of every beat of every image, kept slices only, in the order that the first layer takes them.

    For a convolution that is row, column, slice (MSB first), colour; for a dense layer slice, row, column, colour.

    Parameters
    ----------
    images : integer array (N, height, width, colours), of pixels as data sets have them

    Raises
    ------
    ValueError
        When the images' shape, dtype or range is not the network's, or a bare topology was laid out.
    """
    if accelerator.network is None:
        raise ValueError("the accelerator of a topology without weights takes no images")
    slices = bit_slices(accelerator.network.look_up(images), accelerator.topology.kept_slices)
    if takes_pixels(accelerator.topology):
        slices = slices.transpose(0, 2, 3, 1, 4)
    return list(_words(slices.reshape(-1, accelerator.folding.input_width)))


def input_images(accelerator: Accelerator, beats: Sequence[int]) -> NDArray[np.int64]:
    """Return the images (N, height, width, colours) that beats hold; their pruned bits are 0.

    It undoes `input_beats`, and tells what is expected of an image that the frame guard filled up.
    """
    topology, width = accelerator.topology, accelerator.folding.input_width
    n_bytes = (width + 7) // 8
    packed = np.frombuffer(b"".join(beat.to_bytes(n_bytes, "little") for beat in beats), np.uint8)
    bits = np.unpackbits(packed.reshape(-1, n_bytes), axis=1, count=width, bitorder="little")
    (height, columns, colours), n_slices = topology.in_shape, len(topology.kept_slices)
    if takes_pixels(topology):
        slices = bits.reshape(-1, height, columns, n_slices, colours).transpose(0, 3, 1, 2, 4)
    else:
        slices = bits.reshape(-1, n_slices, height, columns, colours)
    weights = np.left_shift(1, np.array(topology.kept_slices, np.int64))
    return (slices * weights[:, np.newaxis, np.newaxis, np.newaxis]).sum(axis=1)


def blocks_of(unit: Accelerator, clk: Signal, rst: Signal, s_axis: Stream, m_axis: Stream) -> list:
    """Return the kernels' blocks, joined link by link, for MyHDL's own simulator."""
    streams = {link: s_axis if link.source == OUTSIDE else m_axis if link.sink == OUTSIDE else
               Stream(unit.kernels[link.source].outputs[link.source_port].width) for link in unit.links}
    blocks = []
    for i, kernel in enumerate(unit.kernels):
        takes = sorted((link for link in unit.links if link.sink == i), key=lambda link: link.sink_port)
        gives = sorted((link for link in unit.links if link.source == i), key=lambda link: link.source_port)
        blocks.append(kernel.hardware(clk, rst, *(streams[link] for link in (*takes, *gives))))
    return blocks
