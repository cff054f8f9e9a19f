"""Fit the LUT formulas of the kernels to Yosys: synthesise, print constants and errors.

What the LUTs of a kernel are in proportion to is the kernel's own (`lut_terms`), and so are the
constants in use, which are printed beside the fitted ones.

Usage: python bench/fit_luts.py [FOLDER]. FOLDER keeps what was synthesised, so that a second run only fits.
"""

import json
import random
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from cbnn.hw.accelerator import Accelerator, accelerator, chain
from cbnn.hw.classify import Classify
from cbnn.hw.fifo import Fifo
from cbnn.hw.folding import Folding
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.replay_buffer import ReplayBuffer
from cbnn.hw.slice_select import SliceSelect
from cbnn.hw.verilog import generate
from cbnn.hw.window.sliding_window import SlidingWindow
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.synth.synthesis import Area, synthesize

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
    ("40FC-40FC-40FC-10FC", (8, 8, 1), 1, "sliced", "(1,1)(1,40)(40,1)(10,40)"),
    ("16FC-64FC-64FC-10FC", (8, 8, 1), 1, "sliced", "(16,64)(64,4)(2,64)(1,1)"),
    ("16FC-64FC-64FC-12FC", (8, 8, 1), 8, "weighted", "(16,8)(16,4)(1,64)(12,2)"),
    ("200FC-64FC-256FC-256FC-5FC", (8, 8, 1), 1, "sliced", "(2,16)(1,2)(1,64)(2,128)(1,8)"),
    ("48FC-5FC", (8, 8, 2), 1, "sliced", "(48,128)(5,48)"),
]
"""None of these is a network whose error is stated, and none of `KERNELS` is one of the tests'."""

def window(name: str, text: str, in_shape: tuple[int, int, int], simd: int,
           bits: int = 1) -> SlidingWindow:
    """Build the window unit of a first layer."""
    return SlidingWindow.for_layer(name, Topology.parse(text, in_shape, bits).layers[0], simd)


def windows(name: str, text: str, in_shape: tuple[int, int, int], bits: int, mmv: int) -> SlidingWindow:
    """Build the unit of a first layer that gives so many windows at once, all slices side by side."""
    shape = Topology.parse(text, in_shape, bits).layers[0]
    return SlidingWindow.for_layer(name, shape, bits * shape.slice_inputs, bits, mmv)


def matrix(name: str, pe: int, neuron_fold: int) -> Mvtu:
    """Draw weights and thresholds of a matrix unit with many rows, which need more LUTs than all else of it."""
    draw = random.Random(0)
    unit = Mvtu(name, pe, 1, 1, neuron_fold, (1,), 1, n_vectors=4, ram_style="distributed")
    rows = [sum(draw.randint(0, 2) << i * unit.threshold_width for i in range(pe)) for _ in range(neuron_fold)]
    return replace(unit, weights=tuple(draw.getrandbits(pe) for _ in rows), thresholds=tuple(rows))


def numbers(name: str, pe: int, simd: int, pass_words: int, lanes: tuple[int, ...], *, mmv: int = 1,
            slice_weights: tuple[int, ...] = (1,),
            place_ends: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (0,))) -> Mvtu:
    """Draw weights and thresholds of a matrix unit with slices side by side, or several vectors at once."""
    draw, values = random.Random(0), simd // len(lanes)
    unit = Mvtu(name, pe, simd, pass_words, 1, slice_weights, values * pass_words * sum(lanes) * sum(slice_weights),
                n_vectors=4 * mmv, lanes=lanes, mmv=mmv, place_ends=place_ends)
    rows = [sum(draw.randint(0, unit.maximum + 1) << i * unit.threshold_width for i in range(mmv * pe))
            for _ in range(unit.n_row_words)]
    weights = tuple(draw.getrandbits(pe * values) for _ in range(pass_words))
    return replace(unit, weights=weights, thresholds=tuple(rows))


LANES = tuple(1 << i for i in range(8))
KERNELS = (
    Fifo("fifo0", 1, 2, 8), Fifo("fifo1", 60, 2, 8), Fifo("fifo2", 8, 300, 900),
    Fifo("fifo3", 30, 64, 900),
    Fifo("fifo4", 30, 65, 900), Fifo("fifo5", 2, 1000, 3000), Fifo("fifo6", 20, 129, 900),
    Fifo("fifo7", 6, 31, 80),
    Fifo("fifo8", 3, 50, 100), Fifo("fifo9", 17, 32, 100),
    ReplayBuffer("replay0", 1, 2, 8, 4, 3), ReplayBuffer("replay1", 60, 4, 80, 8, 3),
    ReplayBuffer("replay2", 4, 4, 600, 300, 5), ReplayBuffer("replay3", 40, 20, 600, 40, 5),
    ReplayBuffer("replay4", 1, 500, 600, 200, 5),
    window("window0", "4C3P0-2FC", (8, 8, 1), 1), window("window1", "4C3-2FC", (8, 8, 16), 144),
    window("window2", "4C3P0-2FC", (8, 8, 16), 144), window("window3", "4C5-2FC", (12, 12, 8), 200),
    window("window4", "4C3P0-2FC", (32, 32, 8), 24),
    window("window5", "4C3-2FC", (32, 32, 2), 1, 8),
    window("window6", "4C3P0-2FC", (16, 16, 40), 40),
    window("window7", "4C3P0-2FC", (40, 40, 64), 1),
    MaxPool("pool0", (4, 4, 2), 2, 2, (0,)), MaxPool("pool1", (8, 8, 64), 2, 64, (0,)),
    MaxPool("pool2", (16, 16, 32), 2, 4, (5,) * 8), MaxPool("pool3", (32, 32, 32), 2, 16, (0, 0)),
    Classify("classify0", 1, 0, 60_000, 40),
    matrix("matrix0", 16, 128), matrix("matrix1", 8, 256),
    numbers("numbers0", 4, 3, 8, LANES[:3]), numbers("numbers1", 4, 12, 4, LANES[:3]),
    numbers("numbers2", 2, 75, 2, LANES[:3]), numbers("numbers3", 4, 8, 8, LANES),
    numbers("numbers4", 4, 24, 4, LANES), numbers("numbers5", 2, 72, 3, LANES),
    numbers("numbers6", 4, 18, 2, LANES[:2], slice_weights=(16, 4, 1)),
    numbers("numbers7", 8, 12, 1, LANES[:3]), numbers("numbers8", 8, 8, 1, LANES),
    numbers("numbers9", 4, 200, 1, LANES), numbers("numbers10", 8, 18, 1, LANES[:2], slice_weights=(16, 4, 1)),
    numbers("vectors0", 8, 9, 1, (1,), mmv=4), numbers("vectors1", 16, 25, 1, (1,), mmv=2),
    numbers("vectors2", 4, 72, 1, LANES, mmv=2),
    numbers("vectors3", 8, 18, 1, (1,), mmv=4, place_ends=((0, 6, 7), (0, 1))),
    windows("windows0", "4C3-2FC", (8, 8, 1), 8, 4), windows("windows1", "4C3P0-2FC", (10, 10, 1), 8, 2),
    windows("windows2", "4C3-2FC", (28, 28, 1), 8, 14), windows("windows3", "4C5-2FC", (12, 12, 3), 1, 4),
    windows("windows4", "4C3-2FC", (8, 8, 16), 1, 2), windows("windows5", "4C3S2-2FC", (16, 16, 2), 1, 2),
    MaxPool("pools0", (8, 8, 8), 2, 8, (5,), mmv=4), MaxPool("pools1", (12, 12, 64), 2, 64, (3,), mmv=2),
    MaxPool("pools2", (8, 8, 16), 4, 16, (0,), mmv=4), MaxPool("pools3", (16, 16, 48), 2, 48, (3,), mmv=4),
    SliceSelect("select0", 3, 8, (6, 7), 64), SliceSelect("select1", 14, 8, (5, 6, 7), 64),
)
"""Kernels of unusual shapes, which networks seldom have."""


def unit_of(index: int) -> Accelerator:
    """Lay out one of `NETWORKS`; before the last stand `KERNELS`, which need not fit each other."""
    text, in_shape, bits, first_layer, folding = NETWORKS[index]
    topology = Topology.parse(text, in_shape, bits, first_layer=first_layer)
    network = random_network(topology, index)
    unit = accelerator(network, Folding.parse(folding, topology), f"n{index}")
    if index == len(NETWORKS) - 1:
        kernels = (*KERNELS, *unit.kernels)
        vars(unit).update(kernels=kernels, links=chain(len(kernels)))  # which it would refuse: they do not fit
    return unit


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
    for kind in sorted({type(kernel) for kernel in kernels}, key=lambda kind: kind.__name__):
        own = [kernel for kernel in kernels if isinstance(kernel, kind)]
        matrix = np.array([kernel.lut_terms for kernel in own], float)
        measured = np.array([luts[kernel.name] for kernel in own], float)
        # Relative to their size, so that small kernels count too.
        weights = 1 / np.sqrt(measured + 20)
        constants, _ = nnls(matrix * weights[:, np.newaxis], measured * weights)
        fitted = matrix @ constants
        error = fitted.sum() / measured.sum() - 1
        print(kind.__name__, np.round(constants, 2).tolist(), f"in use {kind.LUT_CONSTANTS}, "
              f"error of the sum {error:+.1%}")
        for k, m, f in zip(own, measured, fitted, strict=True):
            print(f"    {k.name:24} measured {m:6.0f} fitted {f:6.0f} formula {k.luts:6} "
                  f"block RAMs {rams[k.name]:3} formula {k.block_rams:3}  {k.lut_terms}")
    print(json.dumps({"measured": sum(luts[k.name] for k in kernels), "formula": sum(k.luts for k in kernels)}))


if __name__ == "__main__":
    main()
