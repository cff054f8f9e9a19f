"""Verbs that bring networks in from elsewhere, and take them there: import qonnx, import bnn-pynq, export qonnx."""

from pathlib import Path
from typing import Annotated

import typer

from cbnn.hw import finn_folding
from cbnn.hw.folding import Folding
from cbnn.model.exchange import bnn_pynq, storage
from cbnn.model.files import check_file, visible
from cbnn.model.network import Network
from cbnn.model.slices import parse_slices
from cbnn.sim.command.options import (
    FoldingOption,
    JsonOption,
    ModelArgument,
    OutOption,
    image_shape,
    load_model,
    read_folding,
)
from cbnn.sim.command.screen import print_result
from cbnn.sim.command.verbs import next_step, option, refuse, verb, verbs

imports = verbs("import", "Bring in networks that were trained elsewhere.")
exports = verbs("export", "Write networks for other tools.")

FoldingFileOption = Annotated[Path | None, typer.Option(help="Where to write the table's PE and SIMD as a folding.")]
MAX_LEVEL = 1e6
"""Largest value that a network takes for a pixel."""


@verb("qonnx", "cbnn import qonnx net.onnx --out my.npz", imports)
def import_qonnx(
        file: Annotated[Path, typer.Argument(help="A network in QONNX, as Brevitas exports it.")], out: OutOption,
        low: Annotated[float, option("What the network takes for a pixel of value 0.", -MAX_LEVEL, MAX_LEVEL)] = 0.0,
        high: Annotated[float, option("What it takes for a pixel of value 255.", -MAX_LEVEL, MAX_LEVEL)] = 1.0,
        shape: Annotated[str, typer.Option(help="Height x width x colours, where its input is flat.")] = "",
        slices: Annotated[str, typer.Option(help="Slices kept, by number, as in 7,6,5 or 7..5, where its inputs are "
                                                 "bit slices, -1 and +1.")] = "",
        as_json: JsonOption = False) -> None:
    """Read a binary network in QONNX, exactly or not at all (needs the extra cbnn[onnx])."""
    from cbnn.model.exchange import qonnx  # onnx is an extra, and slow to import

    if slices:
        refuse("with --slices, whose bits are -1 and +1", "low", "high")
    network = qonnx.load(file, low, high, image_shape(shape) if shape else None, parse_slices(slices) if slices else ())
    storage.save(network, out)
    _print(network, out, as_json, "auto")


@verb("bnn-pynq", "cbnn import bnn-pynq params --table table.json --out my.npz", imports)
def import_bnn_pynq(
        folder: Annotated[Path, typer.Argument(help="Folder of the parameter files.")],
        table: Annotated[Path, typer.Option(help="Table of the layers, JSON, see cbnn.model.exchange.bnn_pynq.")],
        out: OutOption, folding_out: FoldingFileOption = None, as_json: JsonOption = False) -> None:
    """Read a network of BNN-PYNQ's parameter files."""
    network = bnn_pynq.load(folder, table)
    check_file(out)
    if folding_out is not None:
        check_file(folding_out)
    storage.save(network, out)
    if folding_out is not None:
        Folding.at_least(network.topology, bnn_pynq.pe_simd(table)).save(folding_out)
    _print(network, out, as_json, folding_out or "auto")


@verb("finn-folding", "cbnn import finn-folding finn.json --model my.npz --out folding.json", imports)
def import_finn_folding(
        file: Annotated[Path, typer.Argument(help="A folding file of FINN's.")],
        model: Annotated[str, typer.Option(help="The network, as elsewhere.")], out: OutOption) -> None:
    """Read PE and SIMD of a FINN folding file; the next divisor is taken where one leaves a remainder here."""
    folding = finn_folding.load(file, load_model(model).topology)
    folding.save(out)
    print(folding)
    next_step("cycles", model, folding=out)


@verb("finn-folding", "cbnn export finn-folding digits-5 --folding auto:640 --out finn.json", exports)
def export_finn_folding(model: ModelArgument, folding: FoldingOption, out: OutOption) -> None:
    """Write a folding as FINN reads it."""
    topology = load_model(model).topology
    finn_folding.save(read_folding(folding, topology, None, False), topology, out)
    print(visible(out))
    next_step("generate", model, out="verilog")


@verb("qonnx", "cbnn export qonnx digits-5 --out digits.onnx", exports)
def export_qonnx(model: ModelArgument, out: OutOption) -> None:
    """Write a network as QONNX, for Netron and whatever executes it: the same scores (needs the extra cbnn[onnx])."""
    from cbnn.model.exchange import qonnx_export  # onnx is an extra, and slow to import

    qonnx_export.save(load_model(model), out)
    print(visible(out))
    next_step("generate", model, folding="auto", out="verilog")


def _print(network: Network, out: Path, as_json: bool, folding: Path | str) -> None:
    topology = network.topology
    print_result({"model": str(out), "topology": str(topology),
                  "weight_bits": topology.n_weight_bits, "operations": topology.n_operations}, as_json)
    next_step("cycles", out, folding=folding)
