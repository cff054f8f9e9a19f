"""Fit the LUT formulas of the kernels to Yosys: synthesise a grid of kernels, print constants and errors.

Usage: python bench/fit_luts.py [FOLDER]. FOLDER keeps what was synthesised, so that a second run only fits.
"""

import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.classify import Classify
from cbnn.hw.fifo import Fifo
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.mvtu import Mvtu
from cbnn.hw.register_slice import RegisterSlice
from cbnn.hw.replay_buffer import ReplayBuffer
from cbnn.hw.sliding_window import SlidingWindow
from cbnn.hw.verilog import generate
from cbnn.hw.width_converter import WidthConverter
from cbnn.hw.xnor_popcount import popcount_luts
from cbnn.model.folding import Folding
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.synth import Area, synthesize

NETWORKS = [
    ("24C3-MP2-36C3-48FC-10FC", (12, 12, 1), 4, "sliced", "(6,9)(9,24)(6,18)(5,12)"),
    ("16C3P0-MP2-24C3S2-40FC-5FC", (20, 20, 3), 6, "weighted", "(4,27)(12,16)(10,20)(1,8)"),
    ("32C5-MP2-20C1-12FC", (16, 16, 2), 3, "sliced", "(8,10)(20,32)(3,40)"),
    ("96FC-160FC-120FC-20FC", (16, 16, 1), 2, "sliced", "(24,128)(32,96)(15,80)(4,30)"),
    ("200FC-90FC-7FC", (20, 20, 1), 8, "weighted", "(25,40)(18,100)(7,45)"),
    ("48C3-48C3-MP2-96C3-64FC-10FC", (24, 24, 3), 8, "weighted", "(3,9)(8,16)(12,48)(1,16)(2,4)"),
    ("8C3B1-12C3P0-MP3-30FC-4FC", (15, 15, 1), 2, "sliced", "(8,9)(4,24)(3,48)(4,5)"),
    ("512FC-384FC-10FC", (32, 32, 1), 1, "sliced", "(16,64)(4,128)(1,16)"),
    ("256C3P0-MP2-64C3P0-10FC", (10, 10, 8), 1, "sliced", "(2,72)(1,64)(1,4)"),
]
"""None of these is a network whose error is stated."""
FEATURES = {
    RegisterSlice: lambda k: [k.width, 1],
    Fifo: lambda k: [k.memory_luts, k.depth.bit_length()],
    ReplayBuffer: lambda k: [k.memory_luts, k.ring.bit_length()],
    WidthConverter: lambda k: [max(0, k.s_width - k.m_width), 1],
    SlidingWindow: lambda k: [k.memory_luts, k.m_width if k.layer.padding else 0, k.depth.bit_length(), 1],
    MaxPool: lambda k: [k.memory_luts, 1],
    Classify: lambda k: [k.pe * k.width, (k.pe - 1) * k.width, 1],
    Mvtu: lambda k: [k.pe * (popcount_luts(k.simd) if k.n_weight_words > 1 else 0),
                     k.pe * (k.simd if k.n_weight_words == 1 else 0), k.pe * k.element_bits, k.pe * k.horner_bits,
                     k.memory_luts, k.n_weight_words.bit_length() + k.neuron_fold.bit_length()],
}


def unit_of(index: int) -> Accelerator:
    """Lay out one of `NETWORKS`."""
    text, in_shape, bits, first_layer, folding = NETWORKS[index]
    topology = Topology.parse(text, in_shape, bits, first_layer=first_layer)
    return accelerator(random_network(topology, index), Folding.parse(folding, topology), f"n{index}")


def areas_of(index: int, folder: Path) -> list[Area]:
    """Areas of the kernels of one of `NETWORKS`, from `folder` where they are there already."""
    kept = folder / f"{index}.json"
    if not kept.exists():
        unit = unit_of(index)
        with tempfile.TemporaryDirectory() as name:
            areas = synthesize(unit, generate(unit, Path(name) / "verilog").parent, "xc7")
        kept.write_text(json.dumps([asdict(area) for area in areas]))
    return [Area(**row) for row in json.loads(kept.read_text())]


def main() -> None:
    """Synthesise what is not there yet; fit, and print."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        areas = [area for rows in pool.map(areas_of, range(len(NETWORKS)), [folder] * len(NETWORKS)) for area in rows]
    kernels = [kernel for i in range(len(NETWORKS)) for kernel in unit_of(i).kernels]
    luts = {area.module: area.luts for area in areas}
    rams = {area.module: area.block_rams for area in areas}
    for kind, features in FEATURES.items():
        own = [kernel for kernel in kernels if isinstance(kernel, kind)]
        matrix, measured = np.array([features(k) for k in own], float), np.array([luts[k.name] for k in own], float)
        # Relative to their size, so that small kernels count too.
        weights = 1 / np.sqrt(measured + 20)
        constants, _ = nnls(matrix * weights[:, np.newaxis], measured * weights)
        fitted = matrix @ constants
        error = fitted.sum() / measured.sum() - 1
        print(kind.__name__, np.round(constants, 2).tolist(), f"error of the sum {error:+.1%}")
        for k, m, f in zip(own, measured, fitted, strict=True):
            print(f"    {k.name:24} measured {m:6.0f} fitted {f:6.0f} formula {k.luts:6} "
                  f"block RAMs {rams[k.name]:3} formula {k.block_rams:3}  {features(k)}")
    print(json.dumps({"measured": sum(luts[k.name] for k in kernels), "formula": sum(k.luts for k in kernels)}))


if __name__ == "__main__":
    main()
