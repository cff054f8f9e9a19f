"""Verbs that bring networks in from elsewhere, and take them there: import qonnx, import bnn-pynq, export qonnx."""

from pathlib import Path
from typing import Annotated

import typer

from cbnn.model import bnn_pynq, finn_folding, storage
from cbnn.model.network import Network
from cbnn.sim.options import (
    FoldingOption,
    JsonOption,
    ModelArgument,
    OutOption,
    app,
    image_shape,
    kept_slices,
    load_model,
    print_result,
    read_folding,
)

imports = typer.Typer(no_args_is_help=True, help="Bring in networks that were trained elsewhere.")
app.add_typer(imports, name="import")
exports = typer.Typer(no_args_is_help=True, help="Write networks for other tools.")
app.add_typer(exports, name="export")

FoldingFileOption = Annotated[Path | None, typer.Option(help="Where to write the table's PE and SIMD as a folding.")]


@imports.command("qonnx")
def import_qonnx(
        file: Annotated[Path, typer.Argument(help="A network in QONNX, as Brevitas exports it.")], out: OutOption,
        low: Annotated[float, typer.Option(help="What the network takes for a pixel of value 0.")] = 0.0,
        high: Annotated[float, typer.Option(help="What it takes for a pixel of value 255.")] = 1.0,
        shape: Annotated[str, typer.Option(help="Height x width x colours, where its input is flat.")] = "",
        slices: Annotated[str, typer.Option(help="Its input are bit slices, -1 and +1: which, as in 7,6,5.")] = "",
        as_json: JsonOption = False) -> None:
    """Read a binary network in QONNX, exactly or not at all (needs the extra cbnn[onnx])."""
    from cbnn.model import qonnx  # onnx is an extra, and slow to import

    network = qonnx.load(file, low, high, image_shape(shape) if shape else None,
                         kept_slices(slices) if slices else ())
    storage.save(network, out)
    _print(network, out, as_json)


@imports.command("bnn-pynq")
def import_bnn_pynq(
        folder: Annotated[Path, typer.Argument(help="Folder of the parameter files.")],
        layers: Annotated[Path, typer.Option(help="Table of the layers, JSON, see cbnn.model.bnn_pynq.")],
        out: OutOption, folding: FoldingFileOption = None, as_json: JsonOption = False) -> None:
    """Read a network of BNN-PYNQ's parameter files."""
    network = bnn_pynq.load(folder, layers)
    storage.save(network, out)
    if folding is not None:
        bnn_pynq.folding(network.topology, layers).save(folding)
    _print(network, out, as_json)


@imports.command("finn-folding")
def import_finn_folding(
        file: Annotated[Path, typer.Argument(help="A folding file of FINN's.")],
        model: Annotated[str, typer.Option(help="The network, as elsewhere.")], out: OutOption) -> None:
    """Read PE and SIMD of a FINN folding file; the next divisor is taken where one leaves a remainder here."""
    folding = finn_folding.load(file, load_model(model).topology)
    folding.save(out)
    print(folding)


@exports.command("finn-folding")
def export_finn_folding(model: ModelArgument, folding: FoldingOption, out: OutOption) -> None:
    """Write a folding as FINN reads it."""
    topology = load_model(model).topology
    finn_folding.save(read_folding(folding, topology, None), topology, out)
    print(out)


@exports.command("qonnx")
def export_qonnx(model: ModelArgument, out: OutOption) -> None:
    """Write a network as QONNX, for Netron and whatever executes it: the same scores (needs the extra cbnn[onnx])."""
    from cbnn.model import qonnx_export  # onnx is an extra, and slow to import

    qonnx_export.save(load_model(model), out)
    print(out)


def _print(network: Network, out: Path, as_json: bool) -> None:
    topology = network.topology
    print_result({"model": str(out), "layers": str(topology), "input": "x".join(map(str, topology.in_shape)),
                  "bits_per_pixel": topology.input_bits, "first_layer": topology.first_layer,
                  "weight_bits": topology.n_weight_bits, "operations": topology.n_operations}, as_json)
