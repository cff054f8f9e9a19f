"""The folder ``report/``: what the dataflow simulation shows of a network, as JSON files that a script can read.

File names and keys are FINN's where FINN has them; the words of kernels.json are those of HLS tools.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cbnn.hw.accelerator import Accelerator
from cbnn.model.files import folder_written
from cbnn.sim.predict.cycles import predict, slowest_kernel
from cbnn.sim.predict.trace import BLOCKED, BUSY, STARVED, Trace
from cbnn.sim.report.timeline import write_timeline, write_trace

FILES = ("estimate_layer_cycles.json", "estimate_layer_resources.json", "estimate_network_performance.json",
         "kernels.json", "timeline.html", "trace.json")


@dataclass(frozen=True)
class KernelPerformance:
    """One kernel. The first three counts are per image, the others are of all images simulated.

    Attributes
    ----------
    ii : initiation interval: least cycles from image to image
    latency : cycles from its first beat in to its last beat out
    trip_count : beats out per image
    busy, starved, blocked : cycles in which it moves a beat, waits for one, offers one that is not
        taken
    highest, capacity : the most beats (words of a line buffer) it held, and can hold; 0 of those without memory
    """

    name: str
    ii: int
    latency: int
    trip_count: int
    busy: int
    starved: int
    blocked: int
    highest: int
    capacity: int


def kernel_performance(trace: Trace) -> list[KernelPerformance]:
    """Return every kernel's numbers."""
    rows = []
    for i, kernel in enumerate(trace.kernels):
        counts = np.bincount(trace.states(i), minlength=3)
        size = kernel.schedule.capacity
        rows.append(KernelPerformance(
            kernel.name, kernel.interval_cycles, kernel.latency_cycles, kernel.m_axis.beats, int(counts[BUSY]),
            int(counts[STARVED]), int(counts[BLOCKED]), int(trace.held(i)[1].max()) if size else 0, size))
    return rows


def network_performance(unit: Accelerator, trace: Trace, mhz: float) -> dict:
    """Return FINN's summary; throughput and latency at an assumed clock, of the kernels only."""
    # A single image has no interval.
    interval = trace.interval_cycles if trace.n_images > 1 else predict(unit).interval_cycles
    return {"critical_path_cycles": trace.latency_cycles, "max_cycles": interval,
            "max_cycles_node_name": slowest_kernel(unit.kernels).name, "input": unit.folding.input,
            "assumed_clock_mhz": mhz,
            "estimated_throughput_fps": round(1e6 * mhz / interval, 3),
            "estimated_latency_ns": round(1e3 * trace.latency_cycles / mhz, 3)}


def write_performance(unit: Accelerator, trace: Trace, mhz: float, folder: Path) -> None:
    """Write the folder.

    Raises
    ------
    ValueError
        When `folder` holds anything else.
    """
    contents = (
        {mvtu.name: mvtu.interval_cycles for mvtu in unit.mvtus},
        {part.name: {"LUT": part.luts, "BRAM_18K": part.block_rams} for part in unit.parts}
        | {"total": {"LUT": unit.luts, "BRAM_18K": unit.block_rams}},
        network_performance(unit, trace, mhz),
        [asdict(row) for row in kernel_performance(trace)])
    with folder_written(folder) as fresh:
        for name, content in zip(FILES, contents, strict=False):
            (fresh / name).write_text(json.dumps(content, indent=2) + "\n")
        write_timeline(trace, fresh / "timeline.html")
        write_trace(trace, fresh / "trace.json")
