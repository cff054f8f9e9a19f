"""Networks written as QONNX: the same scores, to the integer, in whatever executes QONNX, and a picture in Netron.

The graph takes pixels as they are, (1, colours, rows, columns) in float32, and gives the golden
model's scores. Slices are cut out by division and remainder; sums are those of -1 and +1, signs are
`MultiThreshold`s of one step. Every number on the way is an integer that float32 holds exactly.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model.files import write_atomically
from cbnn.model.network import Network
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import PoolParameters, PoolShape
from cbnn.model.topology import INPUT

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ModuleNotFoundError("writing ONNX needs onnx, which is not installed; install cbnn[onnx]") from error

DOMAIN = "qonnx.custom_op.general"
OPSET, IR_VERSION = 13, 8
EXACT = 1 << 24


class _Graph:
    """Nodes in a chain, and their tensors."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.tensors: list = []

    def constant(self, value: NDArray | float, name: str = "") -> str:
        name = name or f"constant_{len(self.tensors)}"
        array = value if isinstance(value, np.ndarray) else np.array(value, np.float32)
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, domain=domain, **attributes))
        return name


def save(network: Network, path: Path) -> None:
    """Write `network` to `path`, atomically.

    Raises
    ------
    ValueError
        When a number on the way could be too large for float32 to hold exactly.
    """
    for i, (layer, learnt) in enumerate(zip(network.topology.layers, network.layers, strict=True)):
        offset = 0 if learnt.offsets is None else int(np.abs(learnt.offsets).max())
        if (largest := 2 * (layer.max_accumulator + 1 + offset)) > EXACT:
            raise ValueError(f"layer {i}: sums reach {largest}; float32, which ONNX computes in, is exact to {EXACT}")
    graph, topology = _Graph(), network.topology
    height, width, colours = topology.in_shape
    tensors, rasters = {INPUT: _pixels(network, graph)}, {INPUT}
    for i, (node, shape, parameters) in enumerate(zip(topology.nodes, topology.shapes, network.parameters,
                                                      strict=True)):
        source, = node.inputs
        if isinstance(shape, PoolShape) and isinstance(parameters, PoolParameters):
            tensors[i] = _pool(graph, shape, parameters, tensors[source])
            rasters.add(i)
        elif isinstance(shape, MatrixShape) and isinstance(parameters, MatrixParameters):
            tensors[i] = _matrix(graph, i, shape, parameters, source in rasters, tensors[source])
            rasters |= {i} if shape.operator.slides else set()
    last = tensors[len(topology.nodes) - 1]
    onnx_graph = helper.make_graph(
        graph.nodes, "cbnn", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, (1, colours, height, width))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, (1, topology.n_classes))], graph.tensors)
    model = helper.make_model(onnx_graph, producer_name="cbnn", ir_version=IR_VERSION, opset_imports=[
        helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)])
    onnx.checker.check_model(model)
    write_atomically(path, model.SerializeToString())


def _pixels(network: Network, graph: _Graph) -> str:
    """Codes, and slices of -1 and +1 as channels or, where they share weights, summed up."""
    topology, last = network.topology, "pixels"
    if network.pixel_table is not None:
        table = graph.constant(network.pixel_table.astype(np.float32), "codes")
        last = graph.add("Gather", table, graph.add("Cast", last, to=TensorProto.INT64))
    everything = tuple(range(topology.input_bits - 1, -1, -1))
    if topology.kept_slices == everything and (topology.tensor.shared or topology.input_bits == 1):
        doubled = graph.add("Mul", last, graph.constant(2.0))
        return graph.add("Sub", doubled, graph.constant(float((1 << topology.input_bits) - 1)))
    slices = []
    for b, count in zip(topology.kept_slices, topology.tensor.slices, strict=True):
        shifted = graph.add("Floor", graph.add("Mul", last, graph.constant(2.0**-b)))
        bit = graph.add("Mod", shifted, graph.constant(2.0), fmod=1)
        signs = graph.add("Sub", graph.add("Mul", bit, graph.constant(2.0 * count)), graph.constant(float(count)))
        slices.append(signs)
    if not topology.tensor.shared:
        return graph.add("Concat", *slices, axis=1)
    total = slices[0]
    for one in slices[1:]:
        total = graph.add("Add", total, one)
    return total


def _pool(graph: _Graph, shape: PoolShape, parameters: PoolParameters, last: str) -> str:
    """Add a pool after the tensor `last`; return the name of what leaves."""
    size = [shape.operator.size] * 2
    last = graph.add("MaxPool", last, kernel_shape=size, strides=size)
    if parameters.invert.any():
        turned = np.where(parameters.invert, -1, 1).astype(np.float32).reshape(1, -1, 1, 1)
        last = graph.add("Mul", last, graph.constant(turned))
    return last


def _matrix(graph: _Graph, i: int, shape: MatrixShape, parameters: MatrixParameters, raster: bool, last: str) -> str:
    """Add a matrix operator after the tensor `last`, a raster or flat; return the name of what leaves."""
    layer, signs = shape.operator, 2 * parameters.weights.astype(np.float32) - 1
    by_channel = shape.ordered(signs, ("slice", "channel", "row", "column"))
    if layer.slides:
        kernel = by_channel.reshape(shape.mh, -1, *shape.kernel)
        if layer.padding:
            edge = [layer.padding, layer.padding]
            value = shape.max_accumulator / shape.mw * (1 if layer.pad_bit else -1)
            pads = graph.constant(np.array([0, 0, *edge, 0, 0, *edge], np.int64))
            last = graph.add("Pad", last, pads, graph.constant(value))
        weights = _bipolar(graph, i, kernel)
        last = graph.add("Conv", last, weights, kernel_shape=list(shape.kernel), strides=[layer.stride] * 2)
    else:
        if raster:
            last = graph.add("Flatten", last, axis=1)
        weights = _bipolar(graph, i, np.ascontiguousarray(by_channel.reshape(shape.mh, -1).T))
        last = graph.add("MatMul", last, weights)
    if parameters.offsets is not None:
        # 2 score = sum + most + 2 offset
        least = graph.constant((shape.max_accumulator + 2 * parameters.offsets).astype(np.float32))
        return graph.add("Mul", graph.add("Add", last, least), graph.constant(0.5))
    assert parameters.thresholds is not None
    sums = (2 * parameters.thresholds - shape.max_accumulator).astype(np.float32)
    if sums.ndim == 2:  # a MultiThreshold does not tell places apart
        last = graph.add("Sub", last, graph.constant(sums[shape.places].transpose(2, 0, 1)[np.newaxis]))
        sums = np.zeros(shape.mh, np.float32)
    thresholds = graph.constant(sums[:, np.newaxis], f"thresholds_{i}")
    return graph.add("MultiThreshold", last, thresholds, domain=DOMAIN, out_scale=2.0, out_bias=-1.0,
                     out_dtype="BIPOLAR")


def _bipolar(graph: _Graph, i: int, weights: NDArray[np.float32]) -> str:
    return graph.add("BipolarQuant", graph.constant(np.ascontiguousarray(weights), f"weights_{i}"), graph.constant(1.0),
                     domain=DOMAIN)
