"""The accelerator: which kernels a network becomes, in stream order.

    s_axis -> frame guard -> [slice selection or register slice]
           -> [width converter] -> sliding window -> [width converter] -> buffer -> MVTU -> [max pool]  per convolution
           -> [width converter] -> buffer -> MVTU                                                       per dense layer
           -> scores and class -> register slice -> result marks -> m_axis

The frame guard makes a whole image of every frame, so that kernels never see anything else. The
result marks say in `m_axis_tuser` which results are of images that the guard filled up or cut.
Neither takes a cycle of an image, and neither is one of the `kernels`.

The register slice in front is there to cut the paths through a converter. Where the input is whole
pixels, it selects the slices that are kept. What a layer becomes, see `builders`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from myhdl import Signal

from cbnn.hw.builders import node_kernels, tail_kernels
from cbnn.hw.classify import Classify
from cbnn.hw.folding import Folding, pixel_bytes
from cbnn.hw.frame_guard import FrameGuard
from cbnn.hw.layer_folding import MAX_FIFO_BITS, MAX_XNORS
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.result_marks import ResultMarks
from cbnn.hw.slice_select import SliceSelect
from cbnn.hw.stream import OUTSIDE, Kernel, Link, Port, Rom, Stream
from cbnn.hw.verilog_names import check_name
from cbnn.hw.width_converter import WidthConverter
from cbnn.model.network import Network
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.topology import INPUT, Topology


@dataclass(frozen=True)
class Accelerator:
    """Kernels joined by links.

    Attributes
    ----------
    name : name of the top module, and prefix of all others
    kernels : each comes after those that it takes from
    links : one per port of a kernel; exactly one begins outside (`s_axis`), exactly one ends there
        (`m_axis`)
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
    def memories(self) -> tuple[Rom, ...]:
        """All that a host can write, in stream order: none, or everything that depends on a network's parameters."""
        return tuple(content for kernel in self.kernels for content in kernel.memories.values())

    @property
    def classify(self) -> Classify:
        """What gives scores and class, or the class only."""
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


def accelerator(network: Network | Topology, folding: Folding, name: str = "accelerator", *,
                class_only: bool = False, writable: bool = False) -> Accelerator:
    """Lay a network out on hardware; of a bare topology only cycles and sizes can be asked.

    Parameters
    ----------
    class_only : whether `m_axis` gives the class in one beat, and no scores
    writable : whether a host can write another network of the same topology into it; takes the same cycles

    Raises
    ------
    ValueError
        When the folding does not divide the network evenly, something is larger than any FPGA or than can be
        written, or the name is no Verilog name; the message names layer, value and rule.
    """
    check_name(name)
    topology = network if isinstance(network, Topology) else network.topology
    parameters = (None,) * len(topology.nodes) if isinstance(network, Topology) else network.parameters
    folding.check(topology)
    _check_size(folding)
    taking = entry(f"{name}_input", topology, folding)
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
        before = taking if source == INPUT else kernels[ends[source]]
        made = node_kernels(f"{name}_%s{n_layers - 1}", shape, parameters[i], folding.layers[n_layers - 1],
                            folding.together(topology, n_layers - 1), before, writable)
        if before is taking and (folding.whole_bytes or isinstance(made[0], WidthConverter)):
            made.insert(0, taking)  # anything else keeps what it takes in a memory of its own
        ends[i] = join(ends[source], made)
    scores = ends[len(topology.nodes) - 1]
    tail = tail_kernels(f"{name}_%s", topology.shapes[-1], parameters[-1], kernels[scores], class_only=class_only,
                        writable=writable)
    links.append(Link(join(scores, tail), OUTSIDE))
    return Accelerator(name, topology, folding, tuple(kernels), tuple(links),
                       None if isinstance(network, Topology) else network)


def entry(name: str, topology: Topology, folding: Folding) -> Kernel:
    """Return what takes the input: a register slice, where pixels are whole bytes with the selection of slices."""
    if not folding.whole_bytes:
        return RegisterSlice(name, folding.input_width, topology.tensor.n_bits // folding.input_width)
    value_bits = 8 * pixel_bytes(topology)
    n_values = folding.input_width // value_bits
    return SliceSelect(name, n_values, value_bits, topology.kept_slices[::-1], topology.tensor.n_values // n_values)


def _check_size(folding: Folding) -> None:
    for i, layer in enumerate(folding.layers):
        if layer.n_xnors > MAX_XNORS:
            raise ValueError(f"layer {i}: {layer.pe} PEs of {layer.width} inputs make {layer.n_xnors} XNORs per cycle; "
                             f"at most {MAX_XNORS} are supported")
        if layer.fifo_bits > MAX_FIFO_BITS:
            raise ValueError(f"layer {i}: a FIFO of {layer.fifo_depth} beats of {layer.width} bits has "
                             f"{layer.fifo_bits} bits; at most {MAX_FIFO_BITS} are supported")


def chain(n_kernels: int) -> tuple[Link, ...]:
    """Return the links of kernels in a row."""
    return tuple(Link(i - 1 if i else OUTSIDE, i if i < n_kernels else OUTSIDE) for i in range(n_kernels + 1))


def check_links(kernels: Sequence[Kernel], links: Sequence[Link]) -> None:
    """Raise ValueError unless every port is joined once, to one of the same beats, and two of them to the outside.

    A kernel takes from kernels before it.
    """
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
            if link.source >= link.sink:
                raise ValueError(f"{sink.name} takes from {source.name}, which does not come before it")
            if given != taken:
                raise ValueError(f"{source.name} gives {given.beats} beats of {given.width} bits per image; "
                                 f"{sink.name} takes {taken.beats} of {taken.width}")


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
