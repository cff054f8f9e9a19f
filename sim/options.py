"""What the verbs of the command share: options, tables, and how networks and foldings are named."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.model import datasets, storage
from cbnn.model.folding import Folding
from cbnn.model.network import Network
from cbnn.model.topology import Shape, Topology
from cbnn.sim import demo
from cbnn.sim.cycles import all_levels
from cbnn.sim.search import DEVICES

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Binary neural networks with pruned input slices: Verilog, proof, and cycles.")
# Into a file or a pipe tables go at full width, rather than at the 80 columns that rich would assume.
stdout, stderr = Console(width=None if sys.stdout.isatty() else 120), Console(stderr=True)

ModelArgument = Annotated[str, typer.Argument(help="A network's .npz, or the name of one that is shipped: digits-5 "
                                                   "to digits-1, mnist-cnn, mnist-mlp, and their baselines, as "
                                                   "mnist-cnn-baseline.")]
FoldingOption = Annotated[str, typer.Option(help="(PE,SIMD) of every layer, as in (16,9)(8,16)(10,8), or a JSON file.")]
OutOption = Annotated[Path, typer.Option(help="Where to write.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BeatOption = Annotated[int | None, typer.Option(help="Elements (bits) per beat of the input.")]
NetworkArgument = Annotated[str, typer.Argument(help="A topology such as 16C3-MP2-64FC-10FC, a network's .npz, or the "
                                                     "name of a shipped one.")]
ShapeOption = Annotated[str, typer.Option(help="Input of a topology: height x width x colours.")]
BitsOption = Annotated[int, typer.Option(help="Bits per pixel and colour of a topology's input.")]
IdleOption = Annotated[int, typer.Option(help="How often the source idles, percent.")]
StallOption = Annotated[int, typer.Option(help="How often the sink stalls, percent.")]
DatasetOption = Annotated[str, typer.Option(help=f"Data set: {', '.join(datasets.DATASETS)}. Where none is named: the "
                                                 "first that suits the network.")]
DataDirOption = Annotated[Path | None, typer.Option(help="Folder that holds the data set's original files; else "
                                                         f"{datasets.VARIABLE} names it, else they are downloaded.")]
FirstLayerOption = Annotated[str, typer.Option(help="sliced or weighted.")]
SlicesOption = Annotated[list[str] | None, typer.Option(
    help="Slices kept at one level, by number: 3, or 4,3,2, or 4..2; can be given several times. Else all levels, "
         "the lowest slice dropped each time.")]
DeviceOption = Annotated[str, typer.Option(help=f"FPGA whose LUTs and block RAMs bound the search: "
                                                f"{', '.join(DEVICES)}.")]


def complain(sentence: object, code: int) -> int:
    """Print a sentence on stderr; return the exit code."""
    print(f"cbnn: {sentence}", file=sys.stderr)
    return code


def progress_bar() -> Progress:
    """Return a progress bar on stderr."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    console=stderr)


def load_model(name: str) -> Network:
    """Read a network from a path, or by the name of a shipped one."""
    return storage.load(demo.shipped().get(name, Path(name)))


def read_folding(text: str, topology: Topology, input_width: int | None) -> Folding:
    """Read a folding from (PE,SIMD) pairs or from a JSON file."""
    if text.lstrip().startswith("("):
        return Folding.parse(text, topology, input_width)
    return Folding.load(Path(text), topology)


def lay_out(model: str, folding: str, input_width: int | None, name: str) -> tuple[Network, Accelerator]:
    """Read a trained network, and lay it out."""
    network = load_model(model)
    return network, accelerator(network, read_folding(folding, network.topology, input_width), name)


def print_result(result: dict, as_json: bool) -> None:
    """Print names and values, as JSON or as a table."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table(show_header=False)
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    stdout.print(table)


def read_network(text: str, shape: str, bits: int, first_layer: str) -> tuple[Topology, Network | None]:
    """Read a network with weights, of a file or shipped, or a bare topology."""
    if text in demo.shipped() or text.endswith(".npz"):
        network = load_model(text)
        return network.topology, network
    return Topology.parse(text, image_shape(shape), bits, first_layer=first_layer), None  # type: ignore[arg-type]


def load_data(network: Network, dataset: str, data_dir: Path | None) -> tuple[datasets.Data, str]:
    """Load a data set, where none is named the first that suits the network, and tell its name."""
    wanted = network.topology.in_shape, network.pixel_bits
    suit = [name for name, known in datasets.DATASETS.items() if (known.in_shape, known.input_bits) == wanted]
    if dataset:
        datasets.find(dataset)
    if not suit:
        raise ValueError(f"no data set has images of {wanted[0]} and {wanted[1]} bits, which the network takes")
    if dataset and dataset not in suit:
        raise ValueError(f"data set {dataset!r} does not suit the network, which takes images of {wanted[0]} and "
                         f"{wanted[1]} bits; {', '.join(suit)} would")
    return datasets.load(dataset or suit[0], data_dir), dataset or suit[0]


def image_shape(text: str) -> Shape:
    """Read height x width x colours."""
    if not re.fullmatch(r"\d+x\d+x\d+", text):
        raise ValueError(f"input shape {text!r} is not written like 32x32x3: height x width x colours")
    height, width, colours = map(int, text.split("x"))
    return height, width, colours


def check_device(device: str) -> None:
    """Raise ValueError where the FPGA is not known."""
    if device not in DEVICES:
        raise ValueError(f"device {device!r} is not one of {', '.join(DEVICES)}")


def kept_slices(text: str) -> tuple[int, ...]:
    """Read the slices of one level, by number, the highest first: ``3``, ``4,3,2`` or ``4..2``.

    Raises
    ------
    ValueError
        When the text is written otherwise, or the numbers do not fall.
    """
    kept: list[int] = []
    for part in text.split(","):
        run = re.fullmatch(r" *([0-9]{1,4})(?:\.\.([0-9]{1,4}))? *", part)
        first, last = (int(run[1]), int(run[2] or run[1])) if run else (0, 1)
        kept += range(first, last - 1, -1)
        if first < last or kept != sorted(set(kept), reverse=True):
            raise ValueError(f"slices {text!r} are not written like 3, 4,3,2 or 4..2: "
                             "numbers of slices, the highest first")
    return tuple(kept)


def read_levels(texts: list[str] | None, topology: Topology) -> list[tuple[int, ...]]:
    """Read levels of pruning; where none is given all, the lowest slice dropped each time."""
    return [kept_slices(text) for text in texts] if texts else all_levels(topology)
