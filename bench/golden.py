"""Measure the golden model's two implementations beside float32: images per second, and operations per layer.

    python bench/golden.py

The network is VGG (BinaryNet) with random weights: the baseline BNN (8-bit input, slices sharing weights), CBNN's
sliced first layer, and a pruned one with four of eight slices and half the channels. Beside them PyTorch in float32,
same topology, batch norm and hard tanh included, in its fastest batch of those tried. One operation is one XNOR or one
count, two per bit. All use as many threads as there are cores; medians of several runs. Results go to
bench/results/golden.json, the table to docs/performance.md.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from llvmlite.binding import get_host_cpu_features
from rtl import VGG, write_table

from cbnn.model import golden, packed
from cbnn.model.network import random_network
from cbnn.model.storage import write_atomically
from cbnn.model.topology import Conv, Topology
from cbnn.sim.sweep import scaled

RESULTS = Path(__file__).parent / "results" / "golden.json"
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
    for i, (layer, shape) in enumerate(zip(topology.layers, topology.shapes, strict=True)):
        last = i == len(topology.layers) - 1
        if isinstance(layer, Conv):
            layers += [torch.nn.Conv2d(channels, layer.out_channels, layer.kernel, layer.stride, layer.padding),
                       torch.nn.BatchNorm2d(layer.out_channels), torch.nn.Hardtanh()]
            if layer.pool > 1:
                layers.append(torch.nn.MaxPool2d(layer.pool))
            channels = layer.out_channels
        else:
            if i and isinstance(topology.layers[i - 1], Conv):
                layers.append(torch.nn.Flatten())
            layers.append(torch.nn.Linear(int(np.prod(shape.in_shape)), layer.out_features))
            layers += [] if last else [torch.nn.BatchNorm1d(layer.out_features), torch.nn.Hardtanh()]
    return torch.nn.Sequential(*layers).eval()


def float_call(topology: Topology, batch: int) -> Callable[[], int]:
    """Return a call that sends a batch through the float network."""
    network = float_network(topology).to(memory_format=torch.channels_last)
    height, width, colours = topology.in_shape
    images = torch.rand(batch, colours, height, width).contiguous(memory_format=torch.channels_last)

    def call() -> int:
        with torch.inference_mode():
            network(images)
        return batch

    return call


def layer_operations(topology: Topology, n_images: int = 16) -> list[dict]:
    """Measure every layer of the compiled implementation on one core, in GOP/s."""
    network = random_network(topology, 0)
    rng = np.random.default_rng(0)
    layers = packed.pack_network(network)
    words = packed._pack_images(network, layers[0], rng.integers(0, 256, (n_images, *SHAPE)))
    rows = []
    for layer, name in zip(layers, map(str, topology.layers), strict=True):
        times = []
        for _ in range(N_RUNS):
            start = time.perf_counter()
            out = packed._apply(layer, words)
            times.append(time.perf_counter() - start)
        shape = layer.shape
        n = 2 * n_images * shape.n_windows * shape.mh * shape.slice_inputs * shape.n_slices
        rows.append({"layer": name, "gop_per_second": n / statistics.median(times) / 1e9})
        if not layer.last:
            words = packed._pool(layer, out)[:, np.newaxis]
    return rows


def main() -> None:
    """Measure, write, print."""
    base = Topology.parse(VGG, SHAPE, BITS, first_layer="weighted")
    sliced = Topology.parse(VGG, SHAPE, BITS)
    pruned = scaled(sliced.keep((7, 6, 5, 4)), 0.5)
    images = np.random.default_rng(0).integers(0, 256, (128, *SHAPE), np.uint8)
    topologies = {"baseline BNN": base, "sliced, 8 slices": sliced, "pruned: 4 slices, half the channels": pruned}
    networks = {name: random_network(topology, 0) for name, topology in topologies.items()}
    few = images[:8]
    for network in networks.values():
        assert (packed.scores(network, few) == golden.scores(network, few, backend="numpy")).all()
    batches = {batch: rates({"": float_call(base, batch)})[""]["median"] for batch in (1, 16, 64)}
    best = max(batches, key=lambda batch: batches[batch])

    def compiled(name: str) -> Callable[[], int]:
        return lambda: len(packed.scores(networks[name], images))

    calls: dict[str, Callable[[], int]] = {f"PyTorch float32, batch {best}": float_call(base, best)}
    calls |= {f"compiled, {name}": compiled(name) for name in networks}
    calls["numpy, baseline BNN"] = lambda: len(golden.scores(networks["baseline BNN"], few, backend="numpy"))
    results = {
        "cores": os.cpu_count(), "machine": platform.machine(), "numba": numba.__version__,
        "torch": torch.__version__,
        "vector_instructions": sorted(name for name, there in get_host_cpu_features().items()
                                      if there and name in ("avx2", "avx512bw", "avx512vpopcntdq", "popcnt")),
        "images_per_second": rates(calls), "layers": layer_operations(sliced),
        "weighted_layers": layer_operations(base)}
    write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    print(json.dumps(results, indent=1))
    write_table("golden", table(results))


def table(results: dict) -> str:
    """Rows of the page."""
    rates_ = results["images_per_second"]
    slowest = next(row["median"] for name, row in rates_.items() if name.startswith("PyTorch"))
    lines = ["| VGG, images per second | median | least to most | beside PyTorch |", "|" + "---|" * 4]
    lines += [f"| {name} | {row['median']:,.1f} | {row['least']:,.1f} to {row['most']:,.1f} | "
              f"{row['median'] / slowest:.2g} x |" for name, row in rates_.items()]
    lines += ["", "| layer, one core | GOP/s |", "|---|---|"]
    lines += [f"| {row['layer']} | {row['gop_per_second']:,.0f} |" for row in results["layers"]]
    lines += [f"| {results['weighted_layers'][0]['layer']}, weighted first layer | "
              f"{results['weighted_layers'][0]['gop_per_second']:,.0f} |"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
