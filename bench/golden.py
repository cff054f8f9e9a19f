r"""Measure the golden model's two implementations beside full precision: images per second, and operations per layer.

    python bench/golden.py
    NUMBA_CPU_NAME=skylake-avx512 NUMBA_CPU_FEATURES=+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx2,+popcnt \
        python bench/golden.py

The network is VGG (BinaryNet) with random weights: the baseline BNN (8-bit input, slices sharing weights), CBNN's
sliced first layer, and a pruned one with four of eight slices and half the channels. Beside them the same topology in
float32, batch norm and hard tanh included: PyTorch in its fastest batch of those tried, PyTorch compiled, and
onnxruntime; and the plain numpy implementation, whose layers are products of -1 and +1 in float32. One operation is
one XNOR or one count, two per bit. All use as many threads as there are cores; medians of several runs, taken in turn.
The second command compiles for CPUs without VPOPCNTDQ; results of both are kept, by what counts the bits.
Results go to bench/results/golden.json, tables to docs/performance.md, the plot to docs/golden.svg.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import onnxruntime
import torch
from matplotlib import pyplot
from rtl import VGG, write_table
from threadpoolctl import threadpool_limits

from cbnn.model.compute import golden, packed, packed_kernels
from cbnn.model.files import write_atomically
from cbnn.model.network import random_network
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import PoolShape
from cbnn.model.slices import bit_slices
from cbnn.model.topology import INPUT, Topology

RESULTS = Path(__file__).parent / "results" / "golden.json"
PLOT = Path(__file__).parents[1] / "docs" / "golden.svg"
LAYER_COLUMNS = ("compiled", "float32 product", "plain numpy")
SHAPE, BITS = (32, 32, 3), 8
N_RUNS = 7
SECONDS = 1.0
"""Least time of a run: images are sent as often as that takes."""


def rates(calls: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Images per second of every call, in turn, run by run: median, least and most."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(N_RUNS):
        for name, call in calls.items():
            n, start = 0, time.perf_counter()
            while (taken := time.perf_counter() - start) < SECONDS:
                n += call()
            seen[name].append(n / taken)
    return {name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
            for name, values in seen.items()}


def float_network(topology: Topology) -> torch.nn.Module:
    """Return the same topology in float32, for inference."""
    layers: list[torch.nn.Module] = []
    channels = topology.in_shape[2]
    raster = True
    for shape in topology.shapes:
        if isinstance(shape, PoolShape):
            layers.append(torch.nn.MaxPool2d(shape.operator.size))
            continue
        assert isinstance(shape, MatrixShape)
        if shape.operator.slides:
            layers += [torch.nn.Conv2d(channels, shape.mh, shape.kernel, shape.operator.stride,
                                       shape.operator.padding), torch.nn.BatchNorm2d(shape.mh), torch.nn.Hardtanh()]
            channels = shape.mh
        else:
            layers += [torch.nn.Flatten()] if raster else []
            layers.append(torch.nn.Linear(int(np.prod(shape.in_shape)), shape.mh))
            layers += [] if shape.operator.scores else [torch.nn.BatchNorm1d(shape.mh), torch.nn.Hardtanh()]
            raster = False
    return torch.nn.Sequential(*layers).eval()


def float_call(topology: Topology, batch: int, compiled: bool = False) -> Callable[[], int]:
    """Return a call that sends a batch through the float network, as it is or compiled by PyTorch."""
    network = float_network(topology).to(memory_format=torch.channels_last)
    network = torch.compile(network) if compiled else network
    height, width, colours = topology.in_shape
    images = torch.rand(batch, colours, height, width).contiguous(memory_format=torch.channels_last)

    def call() -> int:
        with torch.inference_mode():
            network(images)
        return batch

    return call


def onnx_call(topology: Topology, batch: int) -> Callable[[], int]:
    """Return a call that sends a batch through the float network in onnxruntime."""
    height, width, colours = topology.in_shape
    images = torch.rand(batch, colours, height, width)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(float_network(topology), (images,), path, input_names=["images"], dynamo=True,
                          external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def call() -> int:
        session.run(None, {"images": images.numpy()})
        return batch

    return call


def _median(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(N_RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def layer_operations(topology: Topology, n_images: int = 16) -> list[dict]:
    """Measure every layer by itself, on one core, in GOP/s: compiled, float32 matrix product alone, plain numpy."""
    network = random_network(topology, 0)
    images = np.random.default_rng(0).integers(0, 256, (n_images, *SHAPE))
    outputs: dict[int, Any] = {INPUT: bit_slices(images, topology.kept_slices)}
    packed_outputs: dict[int, Any] = {INPUT: packed.pack_images(network, images)}
    rows = []
    for i, operator in enumerate(packed.pack_network(network)):
        source, = topology.nodes[i].inputs
        shape, parameters = topology.shapes[i], network.parameters[i]
        bits, words = outputs[source], packed_outputs[source]
        outputs[i], packed_outputs[i] = shape.compute(parameters, bits), operator.apply(words)
        if not isinstance(shape, MatrixShape) or not isinstance(parameters, MatrixParameters):
            continue
        weights = parameters.weights
        n = 2 * n_images * shape.n_windows * shape.mh * shape.slice_inputs * shape.n_slices
        signs = 2 * weights.astype(np.float32) - 1
        windows = np.ones((n_images * shape.n_windows * shape.n_slices, shape.slice_inputs), np.float32)
        if shape.mw != shape.slice_inputs:
            windows = windows.reshape(-1, shape.mw)
        times = {"compiled": _median(partial(operator.apply, words)),
                 "float32 product": _median(partial(np.matmul, windows, signs.T)),
                 "plain numpy": _median(partial(shape.compute, parameters, bits))}
        rows.append({"layer": str(shape.operator)} | {name: n / seconds / 1e9 for name, seconds in times.items()})
    return rows


def main() -> None:
    """Measure, write, print."""
    base = Topology.parse(VGG, SHAPE, BITS, first_layer="weighted")
    sliced = Topology.parse(VGG, SHAPE, BITS)
    pruned = sliced.keep((7, 6, 5, 4)).scaled(0.5)
    images = np.random.default_rng(0).integers(0, 256, (256, *SHAPE), np.uint8)
    topologies = {"baseline BNN": base, "sliced, 8 slices": sliced, "pruned: 4 slices, half the channels": pruned}
    networks = {name: random_network(topology, 0) for name, topology in topologies.items()}
    few = images[:8]
    for network in networks.values():
        assert (packed.scores(network, few) == golden.scores(network, few, backend="numpy")).all()
    batches = {batch: rates({"": float_call(base, batch)})[""]["median"] for batch in (1, 16, 64)}
    best = max(batches, key=lambda batch: batches[batch])

    def compiled(name: str) -> Callable[[], int]:
        return lambda: len(packed.scores(networks[name], images))

    calls: dict[str, Callable[[], int]] = {
        f"PyTorch float32, batch {best}": float_call(base, best),
        f"PyTorch float32 compiled, batch {best}": float_call(base, best, compiled=True),
        f"onnxruntime float32, batch {best}": onnx_call(base, best),
        "plain numpy, baseline BNN": lambda: len(golden.scores(networks["baseline BNN"], few, backend="numpy"))}
    calls |= {f"compiled, {name}": compiled(name) for name in networks}
    results = {
        "cores": os.cpu_count(), "machine": platform.machine(), "numba": numba.__version__,
        "torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "images_per_second": rates(calls)}
    with threadpool_limits(1):
        results |= {"layers": layer_operations(sliced), "weighted_layers": layer_operations(base)[:1]}
    print(json.dumps(results, indent=1))
    of_all = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    of_all[packed_kernels.instructions()] = results
    write_atomically(RESULTS, (json.dumps(of_all, indent=1) + "\n").encode())
    write_table("golden", "\n\n".join(f"**Bits counted by {name}**\n\n{table(of_all[name])}" for name in of_all))
    plot(next(iter(of_all.values())))


def table(results: dict) -> str:
    """Rows of the page."""
    rates_ = results["images_per_second"]
    reference = next(row["median"] for name, row in rates_.items() if name.startswith("PyTorch"))
    lines = ["| VGG, images per second | median | least to most | beside PyTorch |", "|" + "---|" * 4]
    lines += [f"| {name} | {row['median']:,.1f} | {row['least']:,.1f} to {row['most']:,.1f} | "
              f"{row['median'] / reference:.2g} x |" for name, row in rates_.items()]
    lines += ["", "| layer, one core, GOP/s | compiled | float32 product of -1 and +1 | plain numpy |",
              "|---|---|---|---|"]
    layers = [*results["layers"], *({**row, "layer": f"{row['layer']}, weighted first layer"}
                                    for row in results["weighted_layers"])]
    lines += ["| " + " | ".join([row["layer"], *(f"{row[name]:,.0f}" for name in LAYER_COLUMNS)]) + " |"
              for row in layers]
    return "\n".join(lines)


def plot(results: dict) -> None:
    """Draw both tables."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4), layout="constrained")
    rates_ = results["images_per_second"]
    medians = [row["median"] for row in rates_.values()]
    spread = [[row["median"] - row["least"] for row in rates_.values()],
              [row["most"] - row["median"] for row in rates_.values()]]
    colours = ["tab:orange" if "compiled, " in name and "float32" not in name else "tab:grey" for name in rates_]
    bars = left.barh(list(rates_), medians, xerr=spread, color=colours)
    left.bar_label(bars, [f"{value:,.0f}" for value in medians], padding=3)
    left.invert_yaxis()
    left.set(title=f"VGG on {results['cores']} cores", xlabel="images per second", xlim=(0, 1.15 * max(medians)))
    names = [f"{i} {row['layer']}" for i, row in enumerate(results["layers"])]
    for k, column in enumerate(LAYER_COLUMNS):
        right.bar(np.arange(len(names)) + 0.27 * k, [row[column] for row in results["layers"]], 0.27, label=column,
                  color=("tab:orange", "tab:grey", "lightgrey")[k])
    right.set_xticks(np.arange(len(names)) + 0.27, names, rotation=60)
    right.set(title="its layers on one core", ylabel="GOP/s", yscale="log", ylim=(1, 2e4))
    right.legend(loc="upper center", ncols=3)
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
