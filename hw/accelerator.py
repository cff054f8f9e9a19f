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
from cbnn.hw.stream import Kernel, Stream
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
    """Kernels in stream order; the first takes `s_axis`, each next one takes what the one before gives.

    Attributes
    ----------
    name : name of the top module, and prefix of all others
    network : what was laid out, so that `input_beats` knows its pixels; None of a bare topology
    """

    name: str
    topology: Topology
    folding: Folding
    kernels: tuple[Kernel, ...]
    network: Network | None = None

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
        return FrameGuard(f"{self.name}_guard", self.kernels[0].s_width, self.kernels[0].s_beats)

    @property
    def marks(self) -> ResultMarks:
        """What marks the results of damaged images, after the kernels.

        The last layer is dense: every beat of a result needs the last beat that comes to it. So a
        result needs its whole image unless some kernel drops the end of what it takes.

        Images in flight are those whose last beat has entered and has not left. They are no more
        than the images, and parts of images, that all kernels hold together, rounded up.
        """
        return ResultMarks(f"{self.name}_marks", self.kernels[-1].m_width,
                           ceil(sum(kernel.images_held for kernel in self.kernels)),
                           early=not all(kernel.schedule.needs_last for kernel in self.kernels))

    @property
    def parts(self) -> tuple[FrameGuard | Kernel | ResultMarks, ...]:
        """All that the top module joins, in stream order."""
        return (self.guard, *self.kernels, self.marks)

    @property
    def input_beats(self) -> int:
        """Beats of `s_axis` per image."""
        return self.kernels[0].s_beats

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
    kernels: list[Kernel] = [RegisterSlice(f"{name}_input", folding.input_width, elements // folding.input_width)]
    gives, n_layers = {INPUT: kernels[0]}, 0
    for i, (node, shape) in enumerate(zip(topology.nodes, topology.shapes, strict=True)):
        # A pool is counted and folded with the layer that it follows.
        n_layers += isinstance(shape, MatrixShape)
        source, = node.inputs
        kernels += node_kernels(f"{name}_%s{n_layers - 1}", shape, parameters[i], folding.layers[n_layers - 1],
                                gives[source])
        gives[i] = kernels[-1]
    if not isinstance(kernels[1], WidthConverter):
        del kernels[0]  # what comes next keeps what it takes in a memory of its own
    kernels += tail_kernels(f"{name}_%s", topology.shapes[-1], parameters[-1], kernels[-1])
    return Accelerator(name, topology, folding, tuple(kernels), None if isinstance(network, Topology) else network)


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
    yield _buffer(name % "buffer", folding, before.m_beats, shape.n_windows, neuron_fold)
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
    return [classify, RegisterSlice(name % "output", classify.m_width, classify.m_beats)]


def widths_converted(name: str, before: Kernel, width: int) -> Iterator[Kernel]:
    """Give the converters from what leaves `before` to beats of `width`: none, one, or up and down again.

    A pool sends its pixels in bursts; those that come faster than they can be handed out wait in a FIFO.
    """
    common = math.lcm(before.m_width, width)
    if isinstance(before, MaxPool) and (waiting := before.most_waiting(width)):
        before = Fifo(f"{name}_burst", before.m_width, waiting + common // before.m_width, before.m_beats)
        yield before
    if common != before.m_width:
        before = WidthConverter(f"{name}_gather", before.m_width, common, before.m_beats)
        yield before
    if common != width:
        yield WidthConverter(f"{name}_hand_out", common, width, before.m_beats)


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


def blocks_of(kernels: Sequence[Kernel], clk: Signal, rst: Signal, s_axis: Stream, m_axis: Stream) -> list:
    """Return the kernels' blocks, joined link by link, for MyHDL's own simulator."""
    links = [s_axis, *(Stream(kernel.m_width) for kernel in kernels[:-1]), m_axis]
    return [kernel.hardware(clk, rst, links[i], links[i + 1]) for i, kernel in enumerate(kernels)]
