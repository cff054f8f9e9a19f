"""What the verbs share: their options, and how networks, foldings and data are named."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.layer_folding import MAX_FOLD
from cbnn.hw.verilog_names import check_name
from cbnn.model.data import datasets, own
from cbnn.model.exchange import storage
from cbnn.model.exchange.shipped import shipped
from cbnn.model.network import Network
from cbnn.model.operators.tensor import Shape
from cbnn.model.slices import parse_slices
from cbnn.model.topology import Topology
from cbnn.sim.command.screen import sentence_of, tell
from cbnn.sim.command.verbs import option, refuse
from cbnn.sim.predict.cycles import all_levels
from cbnn.sim.predict.outside import MAX_PERCENT
from cbnn.sim.predict.search import DEVICES, Budget, Search

DEFAULT_DEVICE = "xc7z020"
MAX_SEED = (1 << 31) - 1
"""nextpnr takes no larger one."""
MAX_CYCLES, MAX_PARTS, MAX_MHZ, MAX_FPS = 1 << 40, 1 << 30, 10_000, 1_000_000_000
MAX_IMAGES = 1_000_000
MAX_PIXELS = 1 << 27
"""Most pixels times colours of the images that are sent: with their beats they take about 1 GB."""

ModelArgument = Annotated[str, typer.Argument(
    help=f"A network's .npz, or the name of one that is shipped: {', '.join(shipped())}.")]
NetworkArgument = Annotated[str, typer.Argument(
    help="A topology such as 8x8x1u5-16C3-MP2-64FC-10FC, a network's .npz, or the name of a shipped one.")]
FoldingOption = Annotated[str, typer.Option(
    help="(PE,SIMD) of every layer, as in (16,9)(8,16)(10,8); a JSON file; auto: the fastest that "
         f"fits the {DEFAULT_DEVICE}; auto:xc7z010: that fits another FPGA; auto:512: the cheapest "
         "that takes at most so many cycles per image.")]
OutOption = Annotated[Path, typer.Option(help="Where to write.")]
SeedOption = Annotated[int, option("Seed of everything random.", 0, MAX_SEED)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BeatOption = Annotated[int | None, option(
    "Bits per beat of the input; a folding's JSON file has its own.", 1, MAX_FOLD)]
WholeBytesOption = Annotated[bool, typer.Option(
    "--whole-bytes", help="The input is whole pixels, each colour in whole bytes, and the kept slices are selected on "
    "chip; else only the kept slices are sent. A folding's JSON file has its own.")]
IdleOption = Annotated[int, option("How often the source idles, percent.", 0, MAX_PERCENT)]
StallOption = Annotated[int, option("How often the sink stalls, percent.", 0, MAX_PERCENT)]
MhzOption = Annotated[float, option(
    "Clock that images per second are stated at, MHz.", 0.001, MAX_MHZ)]
DatasetOption = Annotated[str, typer.Option(
    help=f"Data set: {', '.join(datasets.DATASETS)}. Where none is named: the first that suits the "
         "network.")]
DataDirOption = Annotated[Path | None, typer.Option(
    help=f"Folder that holds the data set's original files; else {datasets.VARIABLE} names it, "
         "else they are downloaded.")]
OwnDataOption = Annotated[Path | None, typer.Option(
    "--data", help="Data of your own instead: a folder with a folder of pictures per class, an .npz or a .csv.")]
ImagesFileOption = Annotated[Path | None, typer.Option(
    help="An .npy array (N, height, width, colours) of pixels.")]
SlicesOption = Annotated[list[str] | None, typer.Option(
    help="Slices kept at one level, by number: 3, or 4,3,2, or 4..2; can be given several times. "
         "Else all levels, the lowest slice dropped each time.")]
DeviceOption = Annotated[str, typer.Option(
    help=f"FPGA whose LUTs and block RAMs bound the search: {', '.join(DEVICES)}.")]


def complain(sentence: object, code: int) -> int:
    """Print a sentence on stderr, always one line; return the exit code."""
    print(f"cbnn: {sentence_of(sentence)}", file=sys.stderr)
    return code


def load_model(name: str) -> Network:
    """Read a network from a path, or by the name of a shipped one."""
    if name in shipped():
        return storage.load(shipped()[name])
    if not Path(name).exists() and not name.endswith(".npz"):
        if _is_topology(name):
            raise ValueError(f"{name!r} is a topology; a trained network is needed here: an .npz "
                             f"file, or one of {', '.join(shipped())}")
        raise ValueError(f"there is no network {name!r}; name an .npz file, or one of "
                         f"{', '.join(shipped())}")
    return storage.load(Path(name))


def _is_topology(text: str) -> bool:
    return re.fullmatch(r"(\d+C|\d+FC|MP\d|\d+X\d).*", text.split("-")[0].upper()) is not None


def read_network(text: str) -> tuple[Topology, Network | None]:
    """Read a network with weights, or a bare topology."""
    if not _is_topology(text) or text.endswith(".npz"):
        network = load_model(text)
        return network.topology, network
    return Topology.parse(text), None


def read_folding(text: str, topology: Topology, input_width: int | None, whole_bytes: bool) -> Folding:
    """Read a folding from (PE,SIMD) pairs or a JSON file, or find one; see `FoldingOption`."""
    kind, colon, bound = text.partition(":")
    if kind == "auto":
        return _found_folding(text, bound if colon else DEFAULT_DEVICE, Search(topology, input_width, whole_bytes))
    if re.match(r"[0-9(, ]+$|\s*\(", text):
        return Folding.parse(text, topology, input_width, whole_bytes)
    refuse(f"here: the folding is of a file, {text}, whose Input says what the input is", "input_width", "whole_bytes")
    return Folding.load(Path(text), topology)


def _found_folding(text: str, bound: str, search: Search) -> Folding:
    """Return the folding that `auto` stands for, and tell it on stderr."""
    if re.fullmatch("[0-9]{1,12}", bound):
        unit = search.cheapest(int(bound))
    else:
        check_device(bound)
        unit = search.fastest(Budget(*DEVICES[bound]))
    tell(f"folding {text}: {unit.folding}, {unit.interval_cycles:,} cycles per image, "
         f"{unit.luts:,} LUTs (est.), block RAMs (est.): {unit.block_rams:,}")
    return unit.folding


def lay_out(model: str, folding: str, input_width: int | None, whole_bytes: bool, name: str, *,
            class_only: bool = False, writable: bool = False) -> tuple[Network, Accelerator]:
    """Read a trained network, and lay it out."""
    check_name(name)
    network = load_model(model)
    folded = read_folding(folding, network.topology, input_width, whole_bytes)
    return network, accelerator(network, folded, name, class_only=class_only, writable=writable)


def check_pixels(topology: Topology, n_images: int) -> None:
    """Raise ValueError where so many images of a network would fill the memory."""
    height, width, colours = topology.in_shape
    if n_images * height * width * colours > MAX_PIXELS:
        raise ValueError(f"--images is {n_images}; of images of {height}x{width}x{colours} at most "
                         f"{MAX_PIXELS // (height * width * colours)} are supported")


NAMED_BY_DATA = "with --data, which holds the images"


def own_or_named(dataset: str, data_dir: Path | None, data: Path | None) -> tuple[str, Path | None]:
    """Return the name of the data set that the options give, and its folder."""
    if data is None:
        return dataset, data_dir
    refuse(NAMED_BY_DATA, "dataset", "data_dir")
    return own.read(data).name, data


def check_outside(out: Path, data: Path | None) -> None:
    """Raise ValueError where something would be written into a folder of data."""
    if data is not None and out.resolve().is_relative_to(data.resolve()):
        raise ValueError(f"{out} lies in the data, {data}, which it would become a part of")


def own_data_is_there(network: Network | None) -> bool:
    """Whether a network was trained on somebody's own data, which are still where they were."""
    return network is not None and network.origin is not None and Path(network.origin.data).exists()


def load_data(network: Network, dataset: str, data_dir: Path | None,
              data: Path | None) -> tuple[datasets.Data, str]:
    """Load a data set, where none is named that of the network, or the first that suits it, and tell its name."""
    if data is not None:
        refuse(NAMED_BY_DATA, "dataset", "data_dir")
    elif not dataset and network.origin is not None:
        if not own_data_is_there(network):
            raise ValueError(f"the network was trained on {network.origin.data}, which is not there; --data or "
                             "--dataset name other data")
        data = Path(network.origin.data)
    if data is not None:
        found = own.read(data, network.origin)
        kind = own.named(found.name)
        assert kind is not None
        if kind.in_shape != network.topology.in_shape or kind.max_pixel > network.max_pixel:
            given, taken = ("x".join(map(str, shape)) for shape in (kind.in_shape, network.topology.in_shape))
            raise ValueError(f"{data} holds images of {given} with pixels up to {kind.max_pixel}; the network takes "
                             f"{taken} up to {network.max_pixel}")
        return found.data, found.name
    wanted = network.topology.in_shape, network.pixel_bits
    suit = [name for name, known in datasets.DATASETS.items()
            if (known.in_shape, known.input_bits) == wanted]
    takes = f"the network takes images of {'x'.join(map(str, wanted[0]))} and {wanted[1]} bits"
    if dataset:
        datasets.find(dataset)
    if not suit:
        raise ValueError(f"{takes}, which no data set has")
    if dataset and dataset not in suit:
        raise ValueError(f"data set {dataset!r} does not suit: {takes}; {' or '.join(suit)} does")
    return load_set(dataset or suit[0], data_dir), dataset or suit[0]


def load_set(dataset: str, data_dir: Path | None) -> datasets.Data:
    """Load a data set by its name; a folder is refused where the set has no files."""
    if not own.named(dataset) and not datasets.find(dataset).files:
        refuse(f"here: the data set {dataset} comes with a library", "data_dir")
    return datasets.load(dataset, data_dir)


def image_shape(text: str) -> Shape:
    """Read height x width x colours."""
    if not re.fullmatch("[0-9]{1,9}x[0-9]{1,9}x[0-9]{1,9}", text):
        raise ValueError(f"input shape {text!r} is not written like 32x32x3: height x width x "
                         "colours")
    height, width, colours = map(int, text.split("x"))
    return height, width, colours


def check_device(device: str) -> None:
    """Raise ValueError where the FPGA is not known."""
    if device not in DEVICES:
        raise ValueError(f"device {device!r} is not one of {', '.join(DEVICES)}")


def numbers(name: str, text: str, low: float, high: float, kind: type = float) -> tuple:
    """Read numbers with commas between them, each in a range."""
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}; it must be numbers with commas between them, as in "
                         "1,0.5") from error
    for value in found:
        if not low <= value <= high:
            raise ValueError(f"{name} has {value}; each must be {low:,} to {high:,}")
    return found


def read_levels(texts: list[str] | None, topology: Topology) -> list[tuple[int, ...]]:
    """Read levels of pruning; where none is given all, the lowest slice dropped each time."""
    return [parse_slices(text) for text in texts] if texts else all_levels(topology)
