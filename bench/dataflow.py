"""Measure the dataflow simulation beside Verilator's C++ bench and cocotb on Icarus: same designs, same images.

    python bench/dataflow.py [NAME ...]

All three give the cycle of every beat in and out, and are held against each other. Times are medians of five runs after
a first one that compiles, of which Verilator's and Icarus' are run once: compiling apart, they take as long as they
take. FIFO sizing and folding search are timed too. Results go to bench/results/dataflow.json, the table to
docs/performance.md.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rtl import NETWORKS, unit_of, write_table

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.verilog import generate
from cbnn.model.files import write_atomically
from cbnn.model.topology import Topology
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.predict.fifos import size_fifos, steady_interval
from cbnn.sim.predict.search import Search
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.volume import stream

RESULTS = Path(__file__).parent / "results" / "dataflow.json"
N_RUNS = 5
N_IMAGES = {"TFC": (10_000, 20), "LFC": (1000, 4), "CNV": (100, 1)}
"""Images streamed through Verilator, and images through Icarus."""
FINN_WIDTH = 36
"""Widest weights of a PE, in bits, of FINN's folding (its default `mvau_wwidth_max`)."""
SHALLOW = ((13, 16, 8, 16), (13, 32, 16, 32))
"""FIFO depths of LFC, the first layer's a whole vector."""


def seconds(call: Callable[[], object]) -> float:
    """Median time of a call."""
    times = []
    for _ in range(N_RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(name: str) -> dict:
    """One network through all three."""
    network, unit = unit_of(name)
    n_verilator, n_icarus = N_IMAGES[name]
    images = np.random.default_rng(0).integers(0, 1 << unit.topology.input_bits,
                                               (n_verilator, *unit.topology.in_shape), np.uint16)
    seen = stream(network, unit, images)
    assert not seen.differences, seen.differences[0]
    icarus_seconds = _icarus(unit, images[:n_icarus])
    result = {"images": n_verilator, "verilator_seconds": seen.run_seconds, "icarus_images": n_icarus,
              "icarus_seconds": icarus_seconds, "seconds": seconds(lambda: simulate(unit, n_verilator)),
              "one_image_seconds": seconds(lambda: simulate(unit, 1)),
              "icarus_images_seconds": seconds(lambda: simulate(unit, n_icarus)),
              "images_simulated": simulate(unit, n_verilator).n_simulated,
              "disturbed_image_seconds": seconds(lambda: simulate(unit, 10, stall_percent=30)) / 10}
    start = time.perf_counter()
    sizing = size_fifos(unit.topology, unit.folding)
    result |= {"sizing_seconds": time.perf_counter() - start, "fifo_bits": [sizing.bits_before, sizing.bits],
               "fifo_depths": [layer.fifo_depth for layer in sizing.folding.layers],
               "fifos_proven_smallest": sizing.smallest}
    if name == "LFC":
        result["shallow_intervals"] = {
            str(depths): steady_interval(accelerator(unit.topology, unit.folding.with_fifo_depths(depths)))
            for depths in SHALLOW}
    return result


def _icarus(unit: Accelerator, images: np.ndarray) -> float:
    """Seconds of cocotb on Icarus; the cycles must be the simulation's."""
    beats = tuple(format(beat, "x") for beat in input_beats(unit, images))
    n_out = len(images) * unit.m_axis.beats
    run = Run(beats, image_ends(len(images), unit.input_beats), n_out, max_cycles=10**9)
    with tempfile.TemporaryDirectory(prefix="cbnn-bench-") as folder:
        generate(unit, Path(folder) / "verilog")
        start = time.perf_counter()
        [seen] = cosimulate(Design.generated(Path(folder) / "verilog", unit.name), [run])
        taken = time.perf_counter() - start
    trace = simulate(unit, len(images))
    assert seen.out_cycles == trace.taken(-1).tolist()
    assert seen.in_cycles == trace.taken(0).tolist()
    return taken


def finn_folding(topology: Topology, interval_cycles: int) -> Folding:
    """Fold as FINN's SetFolding does (set_folding.py of its repository), which never looks at a budget.

    Every layer by itself: SIMD goes up until the layer is fast enough or a PE's weights are wider than 36 bits, then
    PE. Where a layer cannot be fast enough, all are folded again for what is in reach. SIMD divides here what it must
    divide in this accelerator, the inputs of one slice.
    """
    folding = _finn_pass(topology, interval_cycles)
    reached = accelerator(topology, folding).interval_cycles
    return folding if reached <= interval_cycles else _finn_pass(topology, reached)


def _finn_pass(topology: Topology, interval_cycles: int) -> Folding:
    pairs = []
    for shape in topology.layers:
        work = shape.n_windows * shape.n_slices * shape.slice_inputs * shape.mh
        simd = 1
        for wider in (d for d in range(1, min(shape.slice_inputs, FINN_WIDTH) + 1) if shape.slice_inputs % d == 0):
            simd = wider
            if work // simd <= interval_cycles:
                break
        pes = [d for d in range(1, shape.mh + 1) if shape.mh % d == 0]
        pairs.append((next((pe for pe in pes if work // (simd * pe) <= interval_cycles), pes[-1]), simd))
    return Folding.of(topology, tuple(pairs))


def measure_search(name: str) -> dict:
    """Folding at the interval of the published one, and ours also at the interval that FINN's greedy one reaches."""
    _, published = unit_of(name)
    topology = published.topology
    start = time.perf_counter()
    search = Search(topology)
    found = search.cheapest(published.interval_cycles)
    taken = time.perf_counter() - start
    greedy = accelerator(topology, finn_folding(topology, published.interval_cycles))
    as_greedy = search.cheapest(greedy.interval_cycles)
    return {"search_seconds": taken} | {
        key: {"folding": str(unit.folding), "interval": unit.interval_cycles, "luts": unit.luts,
              "block_rams": unit.block_rams}
        for key, unit in (("found", found), ("greedy", greedy), ("as_greedy", as_greedy), ("published", published))}


def tables(results: dict) -> str:
    """Speed, and foldings."""
    lines = ["| network | Verilator, C++ bench | cocotb on Icarus | dataflow | faster than Verilator | than Icarus | "
             "one image | FIFO bits, default and smallest | found in |", "|" + "---|" * 9]
    for name in N_IMAGES:
        if name in results:
            row = results[name]
            verilator, icarus = row["verilator_seconds"] / row["images"], row["icarus_seconds"] / row["icarus_images"]
            own, before, after = row["seconds"] / row["images"], *row["fifo_bits"]
            lines.append(f"| {name}, {row['images']:,} images | {1e3 * verilator:.3g} ms an image | "
                         f"{1e3 * icarus:,.3g} ms | {1e3 * own:.3g} ms | {verilator / own:,.0f} x | "
                         f"{icarus / own:,.0f} x | {1e3 * row['one_image_seconds']:.3g} ms | {before:,} / {after:,} | "
                         f"{row['sizing_seconds']:.2g} s |")
    lines += ["", "| network | interval | published folding | cheapest | found in | FINN's greedy folding | "
              "cheapest at its interval |", "|" + "---|" * 7]
    for name in NETWORKS:
        if (row := results.get(f"{name} search")):
            asked = row["published"]["interval"]
            published, found, greedy, as_greedy = (_folding_cell(row[key], asked) for key in
                                                   ("published", "found", "greedy", "as_greedy"))
            lines.append(f"| {name} | {asked:,} | {published} | {found} | {row['search_seconds']:.2f} s | {greedy} | "
                         f"{as_greedy} |")
    return "\n".join(lines)


def _folding_cell(row: dict, asked: int) -> str:
    text = f"{row['luts']:,} LUTs, {row['block_rams']} block RAMs"
    return text if row["interval"] == asked else f"{text}, interval {row['interval']:,}"


def main() -> None:
    """Measure what is named, or all."""
    jobs = {name: lambda name=name: measure(name) for name in N_IMAGES}
    jobs |= {f"{name} search": lambda name=name: measure_search(name) for name in ("TFC", "LFC", "CNV", "VGG")}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or jobs:
        results[name] = jobs[name]()
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        print(name, json.dumps(results[name]), flush=True)
    write_table("dataflow", tables(results))


if __name__ == "__main__":
    main()
