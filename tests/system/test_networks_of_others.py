"""Networks that others trained, on Icarus; they are not ours to ship, so that CBNN_NETWORKS_DIR must name them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator, chain
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.hw.max_pool import MaxPool
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.verilog import top_module, write_part
from cbnn.model.compute import golden
from cbnn.model.exchange import bnn_pynq
from cbnn.sim.prove.cosim import Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

CNV = Path(os.environ.get("CBNN_NETWORKS_DIR", "")) / "bnn-pynq-cnvw1a1-cifar10"
TABLE = Path(__file__).parents[2] / "examples" / "cnvW1A1.json"


@pytest.mark.skipif(not os.environ.get("CBNN_NETWORKS_DIR"),
                    reason="CBNN_NETWORKS_DIR does not name a folder of others' networks")
@pytest.mark.slow(380)
@pytest.mark.parametrize("n_layers", [2, 1])
def test_first_layers_of_cnvw1a1_on_its_deer(n_layers: int, tmp_path: Path) -> None:
    network = bnn_pynq.load(CNV, TABLE)
    whole = accelerator(network, Folding.at_least(network.topology, bnn_pynq.pe_simd(TABLE)), "cnv")
    image = np.frombuffer((CNV / "deer.bin").read_bytes()[1:], np.uint8).reshape(1, 3, 32, 32).transpose(0, 2, 3, 1)
    end = whole.kernels.index(whole.mvtus[n_layers - 1])
    end += isinstance(whole.kernels[end + 1], MaxPool)
    first = replace(whole, kernels=whole.kernels[: end + 1], links=chain(end + 1))
    assert sum(isinstance(kernel, Mvtu) for kernel in first.kernels) == n_layers
    modules = [module for part in first.parts for module in write_part(part, tmp_path)]
    (tmp_path / f"{first.name}.v").write_text(top_module(first))
    topology = network.topology
    node = topology.shapes.index(topology.layers[n_layers - 1]) + isinstance(first.kernels[-1], MaxPool)
    bits = golden.activations(network, image)[node].reshape(-1, first.kernels[-1].m_axis.width)
    expected = [int("".join(map(str, beat[::-1])), 2) for beat in bits.tolist()]
    beats = tuple(format(beat, "x") for beat in input_beats(whole, image))
    lasts = image_ends(1, len(beats))
    sources = tuple(f"{module}.v" for module in [*modules, first.name])
    runs = [Run(beats, lasts, len(expected), idle, stall, seed=1, max_cycles=400_000)
            for idle, stall in ((0, 0), (10, 20))]
    for seen in cosimulate(Design(tmp_path, first.name, sources), runs):
        assert seen.out_beats == expected
        assert seen.breaches == []
