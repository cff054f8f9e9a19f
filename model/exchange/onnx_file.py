"""ONNX files, read with care: operators, order, sizes and numbers are checked before anything is executed."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cbnn.model.files import read_bounded, read_part

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""Else onnxruntime, which qonnx imports, reports home and leaves files."""

try:
    import onnx
    from onnx import numpy_helper
except ImportError as error:
    raise ImportError("reading ONNX needs onnx and qonnx, which are not installed; install cbnn[onnx]") from error

MAX_BYTES = 1 << 28
"""Largest file read."""
MAX_ELEMENTS = 1 << 25
"""Elements of the largest tensor, and of all together: a network of twice VGG's weights fits."""
MAX_NODES, MAX_FOLDED_NODES = 1000, 200
"""Most nodes, and most of them that compute constants: qonnx takes a time that grows with their square."""
DOMAINS = ("", "ai.onnx", "onnx.brevitas", "qonnx.custom_op.general")
"""Domains of operators: qonnx imports the module that a node's domain names."""
SMALLER = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity", "Cast", "Sqrt")
BROADCAST = ("Add", "Sub", "Mul", "Div", "Pow", "Quant", "BipolarQuant")


class Refusal(ValueError):  # noqa: N818 it is one
    """What a node does cannot be represented."""

    def __init__(self, node: Any, reason: str) -> None:
        super().__init__(f"node {_plain(node.name or node.output[0])} ({_plain(node.op_type)}): {reason}")


def _plain(name: str) -> str:
    """Name of a file's, fit to be printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:200])


def read(path: Path, operators: tuple[str, ...]) -> Any:
    """Return a model of qonnx's, cleaned up; nothing is executed before operators and sizes are known.

    Parameters
    ----------
    operators : that may occur

    Raises
    ------
    ValueError
        When the file is not an ONNX network, or an operator is another one; the node is named then.
    """
    content = read_bounded(path, MAX_BYTES)
    with _refusing(f"{path} is not an ONNX file"):
        model = onnx.load_model_from_string(content)
        _check_names(model.graph)
        _check_nodes(model.graph, operators)
        _check_order(model.graph)
        tensors = [*model.graph.initializer,
                   *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
        _check_sizes(tensors)
        _fetch(path.parent, tensors)
        _check_constants(model.graph)
    with _refusing(f"{path} cannot be read as a network"):
        _check_inferred(model)
        _check_finite(tensors)
        return _cleaned(model)


@contextmanager
def _refusing(sentence: str) -> Iterator[None]:
    """Turn whatever protobuf, onnx, onnxruntime and qonnx raise into one ValueError; a `Refusal` says it all itself."""
    try:
        yield
    except (Refusal, ModuleNotFoundError):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"{sentence}: {_plain(first)}") from error


def _check_names(graph: Any) -> None:
    """Raise ValueError where a name is not UTF-8, which protobuf gives as bytes."""
    names = [value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
    names += [text for tensor in graph.initializer for pair in tensor.external_data for text in (pair.key, pair.value)]
    for node in graph.node:
        names += [node.op_type, node.domain, node.name, *node.input, *node.output, *(a.name for a in node.attribute)]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name in it is not UTF-8")


def _check_nodes(graph: Any, operators: tuple[str, ...]) -> None:
    if not graph.node:
        raise ValueError("it holds no node")
    if len(graph.node) > MAX_NODES:
        raise ValueError(f"it holds {len(graph.node)} nodes; at most {MAX_NODES} are read")
    for node in graph.node:
        if not node.output:
            raise ValueError(f"a node {_plain(node.op_type)} has no output")
        if node.op_type not in operators:
            raise Refusal(node, f"the operator is not known; known are {', '.join(operators)}")
        if node.domain not in DOMAINS:
            raise Refusal(node, f"operators of {_plain(node.domain)!r} are not known")
        if any(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in
               node.attribute):
            raise Refusal(node, "it holds a graph of its own")


def _check_sizes(tensors: list[Any]) -> None:
    for tensor in tensors:
        if any(n < 0 for n in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
            raise ValueError(f"tensor {_plain(tensor.name)} claims {list(tensor.dims)[:8]} elements; at most "
                             f"{MAX_ELEMENTS} are read")
    if (n := sum(math.prod(tensor.dims) for tensor in tensors)) > MAX_ELEMENTS:
        raise ValueError(f"its tensors claim {n} elements; at most {MAX_ELEMENTS} are read")


def _check_inferred(model: Any) -> None:
    """Raise ValueError where a tensor that a node makes would be too large."""
    # Brevitas leaves out the import of its own domain, which shape inference insists on.
    imported = {opset.domain for opset in model.opset_import}
    for domain in sorted({node.domain for node in model.graph.node} - imported - {""}):
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    for value in inferred.graph.value_info:
        n = math.prod(dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim)
        if n > MAX_ELEMENTS:
            raise ValueError(f"tensor {value.name} would hold {n} elements; at most {MAX_ELEMENTS} are allowed")


def _cleaned(model: Any) -> Any:
    import onnxruntime
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    onnxruntime.set_default_logger_severity(4)  # it says itself what it raises
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        cleaned = cleanup_model(ModelWrapper(model))
    _check_finite(cleaned.graph.initializer)
    return cleaned


def _fetch(folder: Path, tensors: list[Any]) -> None:
    """Take numbers of tensors out of other files, which must lie in the network's own folder.

    Of a file only what a tensor takes is read, so that its size does not matter.
    """
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name, what = entries.get("location", ""), f"tensor {_plain(tensor.name)}"
        beside = folder / name
        if not name or Path(name).name != name or beside.is_symlink() or (beside.exists() and not beside.is_file()):
            raise ValueError(f"{what} lies in {_plain(name)!r}; only files in the same folder are read")
        wanted = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        start, length = _whole(entries.get("offset", "0")), _whole(entries.get("length", str(wanted)))
        if start is None or length != wanted:
            raise ValueError(f"{what} takes {wanted} bytes; its place in {_plain(name)} is of another length")
        content = read_part(beside, start, wanted)
        if len(content) != wanted:
            raise ValueError(f"{what} takes {wanted} bytes; {_plain(name)} holds {len(content)} of them")
        tensor.raw_data = content
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _whole(text: str) -> int | None:
    """Return a whole number that is written in decimal digits, at most eighteen; else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _check_finite(tensors: Iterable[Any]) -> None:
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"tensor {_plain(tensor.name)} holds values that are not finite")


def _check_constants(graph: Any) -> None:
    """Raise ValueError where constants that nodes compute could be large, or are many: they are computed to be folded.

    A shape is a constant too, whatever it is the shape of.
    """
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    n_folded = 0
    for node in graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = next((tuple(a.t.dims) for a in node.attribute if a.HasField("t")), (1,))
            continue
        if node.op_type == "Shape":
            shapes[node.output[0]] = (8,)
            continue
        inputs = [shapes.get(name) for name in node.input if name]
        if not inputs or None in inputs:
            continue
        given = [shape for shape in inputs if shape is not None]
        n_folded += 1
        if n_folded > MAX_FOLDED_NODES:
            raise ValueError(f"it computes constants by more than {MAX_FOLDED_NODES} nodes")
        shape = _largest_shape(node, given)
        if math.prod(shape) > MAX_ELEMENTS:
            raise Refusal(node, f"it makes a constant of up to {math.prod(shape)} elements; at most {MAX_ELEMENTS} are "
                                "read")
        shapes[node.output[0]] = shape


def _largest_shape(node: Any, given: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of what a node makes of constants of these shapes, or a larger one."""
    if node.op_type in SMALLER:
        return given[0]
    if node.op_type == "Concat":
        return (sum(math.prod(one) for one in given),)
    if node.op_type == "Gather":
        return (math.prod(given[0]) * math.prod(given[-1]),)
    if node.op_type in BROADCAST:
        try:
            return np.broadcast_shapes(*given)
        except ValueError:  # what was reshaped on the way
            return (math.prod(math.prod(one) for one in given),)
    raise Refusal(node, "it computes a constant, which is not read")


def _check_order(graph: Any) -> None:
    """Raise ValueError unless every node comes after those that it reads from: no cycle, no name made twice."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if missing := set(node.input) - known:
            raise ValueError(f"node {_plain(node.name or node.op_type)} reads {_plain(min(missing))}, which no node "
                             "before it makes")
        if twice := set(node.output) & (known - {""}):
            raise ValueError(f"node {_plain(node.name or node.op_type)} makes {_plain(min(twice))}, which is there "
                             "already")
        known |= set(node.output)
