"""QONNX: networks computed as qonnx itself executes them, or refused with the node's name."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cbnn.model.compute import golden
from cbnn.model.data import datasets
from cbnn.model.exchange import qonnx
from cbnn.model.slices import bit_slices

BREVITAS, GENERAL = "onnx.brevitas", "qonnx.custom_op.general"


class Graph:
    """A chain of nodes under construction."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape, self.nodes, self.tensors, self.last = shape, [], [], "x"

    def tensor(self, value) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *operands, domain: str = "", first: bool = False, **attributes) -> "Graph":
        names = [self.tensor(np.asarray(operand, np.float32) if not isinstance(operand, np.ndarray) else operand)
                 for operand in operands]
        inputs = [*names, self.last] if first else [self.last, *names]
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, domain=domain, **attributes))
        self.last = name
        return self

    def sign(self, scale: float = 1.0) -> "Graph":
        return self.add("BipolarQuant", scale, domain=BREVITAS)

    def weights(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * self.rng.choice([-1, 1], shape)).astype(np.float32)

    def norm(self, n: int, spread: float) -> "Graph":
        rng = self.rng
        return self.add("BatchNormalization", *(values.astype(np.float32) for values in (
            rng.choice([-1, 1], n) * rng.uniform(0.5, 2, n), rng.normal(0, 0.1, n), rng.normal(0, spread / 2, n),
            rng.uniform(1, spread**2, n))))

    def write(self, path: Path) -> Path:
        out = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)
        into = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(self.nodes, "network", [into], [out], self.tensors)
        domains = [helper.make_opsetid("", 13), helper.make_opsetid(GENERAL, 1), helper.make_opsetid(BREVITAS, 1)]
        model = helper.make_model(graph, opset_imports=domains)
        model.ir_version = 8
        onnx.save(model, path)
        return path


def dense(seed: int) -> Graph:
    g = Graph((1, 20), seed)
    g.add("Mul", 2.0).add("Sub", 1.0).sign()
    g.add("MatMul", g.weights(20, 8)).norm(8, 4).sign(0.5)
    g.add("MatMul", g.weights(8, 6, scale=0.25)).add("Add", g.rng.normal(0, 0.3, 6).astype(np.float32)).sign()
    return g.add("MatMul", g.weights(6, 4)).add("Mul", 0.3).add("Sub", 2.0)


def gemm(seed: int) -> Graph:
    g = Graph((1, 20), seed)
    g.add("Sub", 0.4).add("Sign")
    g.add("Gemm", g.weights(8, 20), g.rng.normal(0, 3, 8).astype(np.float32), transB=1).norm(8, 4)
    g.add("MultiThreshold", g.rng.normal(0, 1, (8, 1)).astype(np.float32), domain=GENERAL, out_scale=1.0, out_bias=0.0,
          out_dtype="UINT1")
    return g.add("MatMul", g.weights(8, 3)).add("Sub", 7.0, first=True).add("Mul", -1.0)


def conv(seed: int) -> Graph:
    g = Graph((1, 3, 8, 7), seed)
    g.add("Quant", np.float32(1 / 16), np.float32(0), np.float32(4), domain=BREVITAS, signed=0, narrow=0,
          rounding_mode="ROUND")
    g.add("Conv", g.weights(5, 3, 3, 3, scale=0.7), kernel_shape=[3, 3], pads=[1, 1, 1, 1]).norm(5, 2).sign(0.1)
    g.add("Conv", g.weights(6, 5, 3, 3), kernel_shape=[3, 3])
    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("Sub", 1.5).norm(6, 3).sign()
    g.add("Flatten")
    return g.add("MatMul", g.weights(36, 4))


def zeros(seed: int) -> Graph:
    """Padding with zeros: of signed pixels, behind a sign, in front of a pool whose rows are turned round, strided."""
    g = Graph((1, 3, 7, 6), seed)
    g.add("Mul", 2.0).add("Sub", 1.0).add("Quant", np.float32(1 / 8), np.float32(0), np.float32(4), domain=BREVITAS,
                                          signed=1, narrow=0, rounding_mode="ROUND")
    g.add("Conv", g.weights(5, 3, 3, 3, scale=0.7), kernel_shape=[3, 3], pads=[1, 1, 1, 1]).norm(5, 2).sign(0.1)
    g.add("Conv", g.weights(6, 5, 5, 5), kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).norm(6, 5).sign()
    g.add("Conv", g.weights(4, 6, 3, 3, scale=0.3), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    g.add("Add", 0.1).sign().add("Flatten")
    return g.add("MatMul", g.weights(16, 4))


def padded(seed: int) -> Graph:
    """Padding with any constant; the sums of a whole image of one pixel too."""
    g, around = Graph((1, 2, 4, 4), seed), np.array([0, 0, 1, 1, 0, 0, 1, 1])
    g.add("MultiThreshold", np.array([[0.25, 0.5, 0.75]], np.float32), domain=GENERAL, out_scale=0.5, out_bias=-0.5,
          out_dtype="INT4")
    g.add("Pad", around, np.array(0.3, np.float32)).add("Conv", g.weights(16, 2, 3, 3), kernel_shape=[3, 3]).norm(16, 1)
    g.sign().add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    g.add("Pad", around, np.array(-1, np.float32)).add("Conv", g.weights(24, 16, 3, 3), kernel_shape=[3, 3]).norm(24, 6)
    g.sign(0.5).add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    g.add("Pad", around).add("Conv", g.weights(32, 24, 3, 3), kernel_shape=[3, 3]).norm(32, 3).sign()
    return g.add("Flatten").add("MatMul", g.weights(32, 4))


def signed(seed: int) -> Graph:
    g = Graph((1, 2, 6, 6), seed)
    g.add("Mul", 2.0).add("Sub", 1.0).add("Quant", np.float32(1 / 8), np.float32(0), np.float32(4), domain=BREVITAS,
                                          signed=1, narrow=1, rounding_mode="ROUND")
    g.add("Conv", g.weights(4, 2, 3, 3), kernel_shape=[3, 3], strides=[1, 1]).norm(4, 1).sign()
    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    g.add("Reshape", np.array([1, -1]))
    return g.add("MatMul", g.weights(16, 3))


def turned(seed: int) -> Graph:
    """A scale that may be negative in front of a pool, and padding with zeros in front of that."""
    g = Graph((1, 2, 6, 6), seed).add("Sub", 0.5).sign()
    g.add("Conv", g.weights(12, 2, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1]).norm(12, 3)
    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).sign().add("Flatten")
    return g.add("MatMul", g.weights(108, 4))


def colours(seed: int) -> Graph:
    """A dense layer on an image of several colours, which are flattened outermost."""
    g = Graph((1, 3, 4, 2), seed).add("Sub", 0.5).sign().add("Flatten")
    return g.add("MatMul", g.weights(24, 16)).norm(16, 3).sign().add("MatMul", g.weights(16, 4))


NETWORKS = {"dense": (dense, (4, 5, 1)), "gemm": (gemm, (4, 5, 1)), "conv": (conv, None), "signed": (signed, None),
            "colours": (colours, None), "turned": (turned, None), "zeros": (zeros, None), "padded": (padded, None)}


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """One unit and one offset turn all of their scores into ours."""
    unit = max([(row.max() - row.min()) / (mine.max() - mine.min()) for row, mine in zip(theirs, ours, strict=True)
                if mine.max() > mine.min()], default=0.0)
    np.testing.assert_allclose(theirs - theirs[:, :1], unit * (ours - ours[:, :1]), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_order_as_qonnx_executes(name: str, seed: int, tmp_path: Path, executed: Callable) -> None:
    build, shape = NETWORKS[name]
    path = build(seed).write(tmp_path / "network.onnx")
    network = qonnx.load(path, in_shape=shape)
    rng = np.random.default_rng(seed)
    brightness = rng.random((30, 1, 1, network.topology.in_shape[2]))
    images = (brightness * rng.integers(0, 256, (30, *network.topology.in_shape))).astype(np.uint8)
    ours = golden.scores(network, images)
    assert_alike(ours, executed(path, images / np.float32(255), shape is not None))
    assert len(np.unique(ours, axis=0)) > 2


def test_nothing_but_the_network_is_left_on_the_disk(tmp_path: Path) -> None:
    """Telemetry of onnxruntime keeps a file in the folder for temporary files, and one in the user's own folder."""
    path = dense(0).write(tmp_path / "network.onnx")
    code = f"from cbnn.model.exchange import qonnx; qonnx.load(qonnx.Path({str(path)!r}), in_shape=(4, 5, 1))"
    places = dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(tmp_path))
    others = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", code], env=others | places, check=True)
    assert list(tmp_path.iterdir()) == [path]


@st.composite
def convolutional(draw: st.DrawFn) -> Graph:
    """Convolutions of all kinds behind one another, padded with whatever, and a dense layer.

    Numbers are such that float32 is exact, since sums of zero are common, and their sign is decided by it.
    """
    height, width, channels = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    g = Graph((1, channels, height, width), draw(st.integers(0, 99)))
    if draw(st.booleans()):
        g.add("Sub", 0.5).sign(draw(st.sampled_from((1.0, 0.5))))
    else:
        g.add("Quant", np.float32(1 / 4), np.float32(0), np.float32(3), domain=BREVITAS, signed=0, narrow=0,
              rounding_mode="ROUND")
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 2))
        least = max(0, -((min(height, width) - kernel) // 2))
        padding = draw(st.integers(least, max(least, kernel - 1)))
        if padding >= kernel:
            continue
        pads, filters = [padding] * 4, draw(st.integers(1, 6))
        value = draw(st.sampled_from((0.0, 0.0, -1.0, 1.0, 0.375)))
        if padding and value:
            g.add("Pad", np.array([0, 0, *pads[:2], 0, 0, *pads[:2]]), np.array(value, np.float32))
            pads = [0] * 4
        scale = draw(st.sampled_from((1.0, 0.25)))
        g.add("Conv", g.weights(filters, channels, kernel, kernel, scale=scale), kernel_shape=[kernel] * 2,
              strides=[stride] * 2, pads=pads)
        height, width = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
        channels, pooling = filters, draw(st.sampled_from(("", "before", "between", "behind")))
        pooling = pooling if min(height, width) > 1 else ""
        for moment in ("before", "between", "behind"):
            if moment == pooling:
                g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
                height, width = height // 2, width // 2
            if moment == "before" and draw(st.booleans()):
                g.norm(channels, 2)
            if moment == "between":
                g.sign(draw(st.sampled_from((1.0, 0.25))))
    return g.add("Flatten").add("MatMul", g.weights(channels * height * width, 3))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=convolutional())
def test_whatever_is_read_is_what_qonnx_executes(graph: Graph, tmp_path: Path, executed: Callable) -> None:
    path = graph.write(tmp_path / "network.onnx")
    network = qonnx.load(path)
    images = np.random.default_rng(0).integers(0, 256, (6, *network.topology.in_shape)).astype(np.uint8)
    assert_alike(golden.scores(network, images), executed(path, images / np.float32(255)))


def sliced_conv(seed: int) -> Graph:
    g = Graph((1, 6, 5, 6), seed)
    g.add("Conv", g.weights(5, 6, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1]).norm(5, 3).sign()
    return g.add("Flatten").add("MatMul", g.weights(150, 4))


def sliced_dense(seed: int) -> Graph:
    g = Graph((1, 6, 5, 6), seed).add("Mul", 0.5).add("Flatten")
    return g.add("MatMul", g.weights(180, 9)).norm(9, 9).sign().add("MatMul", g.weights(9, 4))


def sliced_flat(seed: int) -> Graph:
    g = Graph((1, 180), seed)
    return g.sign().add("MatMul", g.weights(180, 9)).norm(9, 9).sign().add("MatMul", g.weights(9, 4))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("build", [sliced_conv, sliced_dense, sliced_flat])
def test_slices_enter_as_channels(build: Callable, seed: int, tmp_path: Path, executed: Callable) -> None:
    path, flat = build(seed).write(tmp_path / "network.onnx"), build is sliced_flat
    network = qonnx.load(path, in_shape=(5, 6, 2) if flat else None, slices=(7, 6, 3))
    assert (network.topology.in_shape, network.topology.kept_slices) == ((5, 6, 2), (7, 6, 3))
    assert network.pixel_table is None
    images = np.random.default_rng(seed).integers(0, 256, (20, 5, 6, 2)).astype(np.uint8)
    signs = 2.0 * bit_slices(images, (7, 6, 3)) - 1  # (N, slices, height, width, colours)
    signs = signs if flat else signs.transpose(0, 2, 3, 1, 4).reshape(20, 5, 6, 6)
    assert_alike(golden.scores(network, images), executed(path, signs, flat))


def test_slices_that_are_none(tmp_path: Path) -> None:
    path = Graph((1, 5, 2, 2)).add("Flatten").add("MatMul", np.ones((20, 3), np.float32)).write(tmp_path / "five.onnx")
    with pytest.raises(ValueError, match="takes 5 channels, which 2 slices do not share evenly"):
        qonnx.load(path, slices=(7, 6))
    with pytest.raises(ValueError, match="slice 8 does not exist"):
        qonnx.load(path, slices=(8,))
    graph = Graph((1, 20)).add("Mul", -1.0).add("MatMul", np.ones((20, 3), np.float32))
    with pytest.raises(ValueError, match=r"does not tell -1 and \+1 of a slice apart"):
        qonnx.load(graph.write(tmp_path / "turned.onnx"), slices=(7, 6))
    with pytest.raises(ValueError, match="takes 20 pixels; the shape given is 2x2x2, in 2 slices"):
        qonnx.load(tmp_path / "turned.onnx", in_shape=(2, 2, 2), slices=(7, 6))


def broken(name: str) -> Graph:
    g = Graph((1, 1, 6, 6) if name.startswith("padded") else (1, 20)).add("Sub", 0.5)
    if name == "not binary":
        return g.sign().add("MatMul", g.rng.normal(0, 1, (20, 3)).astype(np.float32))
    if name == "not known":
        return g.sign().add("MatMul", g.weights(20, 3)).add("Softmax")
    if name == "over the edge":
        g = Graph((1, 1, 40, 40)).add("Sub", 0.5).sign()
        return g.add("Conv", g.weights(1, 1, 39, 39), kernel_shape=[39, 39], pads=[38] * 4).sign()
    if name.startswith("padded"):
        pads = [0, 0, 1, 1, 0, 0, 1, 2 if name == "padded unevenly" else 1]
        g.sign().add("Pad", np.array(pads), mode="reflect" if name == "padded by itself" else "constant")
        if name == "padded, then not a layer":
            g.add("Mul", 2.0)
        g.add("Conv", g.weights(2, 1, 3, 3), kernel_shape=[3, 3], pads=[int(name == "padded twice")] * 4)
        return g.sign().add("Flatten").add("MatMul", g.weights(72, 3))
    if name == "nothing left":
        return g.sign().add("Mul", 0.0).add("MatMul", g.weights(20, 3))
    if name == "bits scaled away":
        return g.sign().add("MatMul", g.weights(20, 8)).sign().add("Mul", 0.0).add("MatMul", g.weights(8, 3))
    if name == "bits by channel":
        g.sign().add("MatMul", g.weights(20, 8)).sign().add("Mul", np.resize(np.float32((1, -1)), (1, 8)))
        return g.add("MatMul", g.weights(8, 3))
    if name == "no sign":
        return g.sign().add("MatMul", g.weights(20, 8)).add("MatMul", g.weights(8, 3))
    if name == "sign of zero":
        return g.sign().add("MatMul", g.weights(20, 8)).add("Sign").add("MatMul", g.weights(8, 3))
    if name == "turned sign of zero":
        return g.sign().add("MatMul", g.weights(20, 8)).add("Mul", -1.0).add("Add", 20.0).add("Sign").add(
            "MatMul", g.weights(8, 3))
    if name == "uneven":
        return g.sign().add("MatMul", g.weights(20, 8)).sign().add("MatMul", g.weights(8, 3)).add(
            "Mul", np.array([1, 2, 3], np.float32))
    if name == "parts":
        return g.sign().add("MatMul", g.weights(20, 3)).add("Add", np.array([0, 0.5, 1], np.float32))
    if name == "small parts":
        return g.sign().add("MatMul", g.weights(20, 4001)).add("Add", np.linspace(0, 6e-3, 4001, dtype=np.float32))
    if name == "far apart":
        return g.sign().add("MatMul", g.weights(20, 3)).add("Add", np.array([0, 3e38, 1], np.float32))
    if name == "not a number":
        return g.sign().add("MatMul", g.weights(20, 3)).add("Mul", np.array([1, 1, np.nan], np.float32))
    raise AssertionError


@pytest.mark.parametrize(("name", "sentence"), [
    ("not binary", "(MatMul): its weights are not binary: a row holds more than -s and s"),
    ("not known", "node Softmax_3 (Softmax): the operator is not known; known are "),
    ("over the edge", "(Conv): its windows cross the border in 5929 ways; at most 1024 are supported"),
    ("padded by itself", "(Pad): only padding of pixels and bits with a constant is supported"),
    ("padded unevenly", "(Pad): it pads by [0, 0, 1, 1, 0, 0, 1, 2] with 0.0; only the same on all four sides of "),
    ("padded twice", "(Conv): its input is padded already"),
    ("padded, then not a layer", "(Mul): padding is supported only directly before a convolution"),
    ("nothing left", "(MatMul): all pixels become 0, or values that are not finite"),
    ("bits scaled away", "(MatMul): its inputs are scaled by 0 and shifted by 0"),
    ("bits by channel", "(Mul): it treats the bits of a channel differently"),
    ("no sign", "(MatMul): its inputs were not made binary; only a first layer takes more than bits"),
    ("sign of zero", "(Sign): sums of row 0 can be 0, which is neither -1 nor +1"),
    ("turned sign of zero", "(Sign): sums of row 0 can be 0, which is neither -1 nor +1"),
    ("uneven", "the scores of the classes are scaled by 1 to 3"),
    ("far apart", "offsets of the classes are up to 1.5e+38 counts apart; at most 1073741824 are supported"),
    ("parts", "offsets of the classes differ by 0.500 of a count; with whole numbers another class could win"),
    ("small parts", "offsets of the classes differ by 0.003 of a count; with whole numbers another class could win"),
    ("not a number", "holds values that are not finite"),
])
def test_what_cannot_be_exact_is_refused(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        qonnx.load(broken(name).write(tmp_path / "network.onnx"))
    assert sentence in str(caught.value)


def test_a_step_is_passed_where_it_is_reached(tmp_path: Path) -> None:
    g = Graph((1, 20)).add("MultiThreshold", np.array([[51, 102, 102.5]], np.float32), domain=GENERAL, out_scale=2.0,
                           out_bias=-3.0, out_dtype="INT4")
    network = qonnx.load(g.add("MatMul", g.weights(20, 3)).write(tmp_path / "steps.onnx"), 0, 255)
    assert network.pixel_table[[50, 51, 101, 102, 103]].tolist() == [0, 1, 1, 2, 3]


def test_the_end_must_be_the_end(tmp_path: Path) -> None:
    def refused(g: Graph, output: str | None = None) -> str:
        path = g.write(tmp_path / "network.onnx")
        if output:
            model = onnx.load(path)
            model.graph.output[0].name = output
            onnx.save(model, path)
        with pytest.raises(ValueError) as caught:
            qonnx.load(path)
        return str(caught.value)

    def scores() -> Graph:
        g = Graph((1, 20)).add("Sub", 0.5).sign()
        return g.add("MatMul", g.weights(20, 3))

    assert len(qonnx.load(scores().add("ArgMax", axis=1).write(tmp_path / "network.onnx")).parameters) == 1
    for attributes in ({"axis": 0}, {}, {"axis": 1, "select_last_index": 1}):
        assert "(ArgMax): it does not give the highest score" in refused(scores().add("ArgMax", **attributes))
    assert "has an output that is not that of its last layer" in refused(scores().add("Add", 2.0), "MatMul_2")


def test_operators_in_forms_that_are_not_read(tmp_path: Path) -> None:
    def refused(g: Graph) -> str:
        with pytest.raises(ValueError) as caught:
            qonnx.load(g.write(tmp_path / "network.onnx"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    g = Graph((1, 2, 6, 6)).add("Sub", 0.5).sign()
    g.add("Conv", g.weights(4, 2, 3, 3), kernel_shape=[3, 3])
    steps = np.array([[-6], [-1], [1], [6]], np.float32)
    g.add("MultiThreshold", steps, domain=GENERAL, out_scale=2.0, out_bias=-1.0, data_layout="NHWC")
    assert "channels do not come first" in refused(g.add("Flatten").add("MatMul", g.weights(64, 3)))

    g = Graph((1, 2, 7, 7)).add("Sub", 0.5).sign()
    g.add("Conv", g.weights(4, 2, 3, 3), kernel_shape=[3, 3]).add("Add", 0.5).sign()
    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER").add("Flatten")
    assert "(MaxPool): auto_pad is not supported" in refused(g.add("MatMul", g.weights(36, 3)))

    g = Graph((1, 20)).add("Sub", 0.5).sign()
    g.add("MatMul", g.weights(20, 6)).add("Add", np.arange(6, dtype=np.float32).reshape(1, 6, 1)).sign()
    assert "(Add): its output is said to have the shape [1, 6, 6]; it has [6]" in refused(
        g.add("Flatten").add("MatMul", g.weights(36, 3)))

    g = Graph((1, 20)).add("Sub", 0.5).sign()
    g.nodes.append(helper.make_node("MatMul", [g.last], ["m"], "lone"))
    g.last = "m"
    assert "(MatMul): its inputs or attributes are not as the operator needs them" in refused(g)
    for low, high in ((0.0, np.inf), (np.nan, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="two different numbers are needed"):
            qonnx.load(tmp_path / "network.onnx", low, high)


def test_a_pool_of_what_is_not_scaled_at_all(tmp_path: Path, executed: Callable) -> None:
    g = Graph((1, 2, 3, 3)).add("Sub", 0.5).sign()
    g.add("Conv", g.weights(4, 2, 3, 3), kernel_shape=[3, 3], pads=[1] * 4).add("Mul", 0.0)
    g.add("Add", g.rng.normal(0, 4, (1, 4, 3, 3)).astype(np.float32))
    g.add("MaxPool", kernel_shape=[3, 3], strides=[3, 3])
    g.add("Mul", -1.0).add("Add", 5.0).sign().add("Flatten")
    path = g.add("MatMul", g.weights(4, 4)).write(tmp_path / "network.onnx")
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 3, 2)).astype(np.uint8)
    network = qonnx.load(path)
    assert_alike(golden.scores(network, images), executed(path, images / np.float32(255)))


def test_normalised_pixels_and_negative_scores(tmp_path: Path, executed: Callable) -> None:
    g = Graph((1, 20)).add("Sub", 0.1307).add("Div", 0.3081)
    g.add("MatMul", g.weights(20, 9)).norm(9, 9).sign()
    path = g.add("MatMul", g.weights(9, 4)).add("Mul", -0.5).add("Add", 3.0).write(tmp_path / "network.onnx")
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 1)).astype(np.uint8)
    network = qonnx.load(path, in_shape=(4, 5, 1))
    assert network.pixel_table.tolist() == list(range(256))
    assert_alike(golden.scores(network, images), executed(path, images / np.float32(255), True))


def hostile(kind: str, path: Path) -> None:
    dense(0).write(path)
    model = onnx.load(path)
    tensor = model.graph.initializer[2]
    if kind == "cycle":
        model.graph.node[3].input[0] = model.graph.node[6].output[0]
    elif kind == "twice":
        model.graph.node[1].output[0] = model.graph.node[0].output[0]
    elif kind == "elsewhere":
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../etc/passwd")
    elif kind == "missing":
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
        tensor.external_data.add(key="length", value="4")
    elif kind == "of another length":
        (path.parent / "weights.bin").write_bytes(bytes(99))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("length", "9" * 5000)):
            tensor.external_data.add(key=key, value=value)
    elif kind == "huge":
        tensor.dims[:] = [1 << 20, 1 << 20]
    elif kind == "short":
        tensor.raw_data = tensor.raw_data[:-4]
    elif kind == "blown up":
        for name, shape in (("tall", (1 << 14, 1)), ("wide", (1, 1 << 14))):
            model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
        model.graph.node.insert(0, helper.make_node("Mul", ["tall", "wide"], ["bomb"], "bomb"))
    elif kind == "unknown size":
        for name, value in (("pads", np.array([0, 1 << 30])), ("one", np.ones(1, np.float32))):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        model.graph.node.insert(0, helper.make_node("Pad", ["one", "pads"], ["big"], "pads"))
    elif kind == "folded for ever":
        for i in range(201):
            model.graph.node.insert(0, helper.make_node("Add", [tensor.name, tensor.name], [f"sum{i}"], f"sum{i}"))
    elif kind == "too many":
        for i in range(1000):
            model.graph.node.insert(0, helper.make_node("Identity", [tensor.name], [f"same{i}"], f"same{i}"))
    elif kind == "together":
        tensor.dims[:] = [1 << 12, 1 << 13]
    elif kind == "pipe":
        os.mkfifo(path.parent / "pipe")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="pipe")
    elif kind == "module":
        model.graph.node.insert(0, helper.make_node("Mul", ["x", "x"], ["module"], "other\nname", domain="this"))
    elif kind == "empty":
        del model.graph.node[:]
    path.write_bytes(model.SerializeToString())
    if kind == "no UTF-8":
        path.write_bytes(path.read_bytes().replace(b"MatMul", b"\xff\xfetMul"))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    if kind == "mislabelled":
        path.write_bytes(b"PK\x03\x04 a zip, perhaps")


@pytest.mark.parametrize(("kind", "sentence"), [
    ("cycle", "which no node before it makes"), ("twice", "which is there already"),
    ("elsewhere", "lies in '../../../etc/passwd'; only files in the same folder are read"),
    ("missing", "weights.bin cannot be read: No such file or directory"),
    ("huge", "claims [1048576, 1048576] elements; at most 33554432 are read"),
    ("short", "cannot be read as a network: "),
    ("unknown size", "node pads (Pad): it computes a constant, which is not read"),
    ("blown up", "node bomb (Mul): it makes a constant of up to 268435456 elements; at most 33554432 are read"),
    ("folded for ever", "computes constants by more than 200 nodes"),
    ("of another length", "bytes; its place in weights.bin is of another length"),
    ("no UTF-8", "network.onnx is not an ONNX file: a name in it is not UTF-8"),
    ("pipe", "lies in 'pipe'; only files in the same folder are read"),
    ("too many", "nodes; at most 1000 are read"),
    ("together", "its tensors claim 33554708 elements; at most 33554432 are read"),
    ("module", "node other?name (Mul): operators of 'this' are not known"),
    ("empty", "is not an ONNX file: it holds no node"), ("truncated", "is not an ONNX file"),
    ("mislabelled", "is not an ONNX file"),
])
def test_hostile_files(kind: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    hostile(kind, path)
    with pytest.raises(ValueError) as caught:
        qonnx.load(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensors_in_a_file_beside(tmp_path: Path) -> None:
    whole = dense(0).write(tmp_path / "whole.onnx")
    (tmp_path / "split").mkdir()
    onnx.save(onnx.load(whole), tmp_path / "split" / "network.onnx", save_as_external_data=True, location="weights.bin",
              size_threshold=0)
    assert (tmp_path / "split" / "weights.bin").stat().st_size > 0
    ours, theirs = (qonnx.load(path, in_shape=(4, 5, 1)) for path in (tmp_path / "split" / "network.onnx", whole))
    for a, b in zip(ours.parameters, theirs.parameters, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)
    (tmp_path / "split" / "weights.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"takes \d+ bytes; weights.bin holds \d+ of them"):
        qonnx.load(tmp_path / "split" / "network.onnx")


def test_of_a_large_file_beside_only_what_is_needed_is_read(tmp_path: Path) -> None:
    """200 tensors of 4 bytes in a file of 1 TiB, sparse."""
    dense(0).write(tmp_path / "network.onnx")
    model = onnx.load(tmp_path / "network.onnx")
    for i in range(200):
        tensor = model.graph.initializer.add(name=f"far{i}", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", str(1 << 39)), ("length", "4")):
            tensor.external_data.add(key=key, value=value)
    (tmp_path / "network.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    qonnx.load(tmp_path / "network.onnx", in_shape=(4, 5, 1))
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()


TFC = Path(os.environ.get("CBNN_NETWORKS_DIR", "")) / "tfc-w1a1-mnist" / "TFC_1W1A.onnx"


@pytest.mark.skipif(not os.environ.get("CBNN_NETWORKS_DIR") or not os.environ.get("CBNN_DATA_DIR"),
                    reason="CBNN_NETWORKS_DIR and CBNN_DATA_DIR do not name others' networks and data sets")
def test_tfc_of_brevitas(executed: Callable) -> None:
    network, data = qonnx.load(TFC), datasets.load("mnist")
    images = data.test_images
    np.testing.assert_array_equal(network.look_up(images), images >= 128)
    assert golden.accuracy(network, images, data.test_labels) == 0.9296
    theirs = executed(TFC, data.test_images[:50] / np.float32(255))
    ours = golden.scores(network, images[:50])
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    np.testing.assert_allclose(np.ptp(theirs) / np.ptp(ours) * (ours - ours.min()), theirs - theirs.min(), atol=1e-4)


def test_a_constant_that_lacks_an_operand_is_refused(tmp_path: Path) -> None:
    path = dense(0).write(tmp_path / "network.onnx")
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((20, 3), np.float32), "w"))
    model.graph.node.append(onnx.helper.make_node("BipolarQuant", ["w"], ["bits"], "alone", domain=BREVITAS))
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"BipolarQuant\): its inputs or attributes are not as"):
        qonnx.load(path)
