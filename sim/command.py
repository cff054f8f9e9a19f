"""The command `cbnn`: a thin layer, one verb per function of the package.

Tables and results go to stdout, messages and progress to stderr. Exit codes: 0 done, 1 RTL and model differ,
2 the input, the machine or the usage is at fault.
"""

import json
import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.verilog import generate
from cbnn.model import digits, golden, storage
from cbnn.model.folding import Folding
from cbnn.model.network import Network, random_network
from cbnn.model.sensitivity import sensitivity
from cbnn.model.topology import Topology
from cbnn.sim import demo, place, report, synth, volume
from cbnn.sim.cosim import SimulationError
from cbnn.sim.cycles import LevelCycles, level_cycles
from cbnn.sim.verify import verify

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Binary neural networks with pruned input slices: Verilog, proof, and cycles.")
# Into a file or a pipe tables go at full width, rather than at the 80 columns that rich would assume.
stdout, stderr = Console(width=None if sys.stdout.isatty() else 120), Console(stderr=True)

ModelArgument = Annotated[str, typer.Argument(help="A network's .npz, or the name of one that is shipped: digits-5 "
                                                   "to digits-1.")]
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
FirstLayerOption = Annotated[str, typer.Option(help="sliced or weighted.")]


def main() -> None:
    """Run the command; every expected failure is one sentence on stderr."""
    try:
        app()
    except demo.MismatchError as error:
        sys.exit(_complain(error, 1))
    except (ValueError, SimulationError, synth.SynthesisError, OSError, ModuleNotFoundError) as error:
        sys.exit(_complain(error, 2))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))


def _complain(sentence: object, code: int) -> int:
    print(f"cbnn: {sentence}", file=sys.stderr)
    return code


def _progress() -> Progress:
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


def _lay_out(model: str, folding: str, input_width: int | None, name: str) -> tuple[Network, Accelerator]:
    network = load_model(model)
    return network, accelerator(network, read_folding(folding, network.topology, input_width), name)


@app.command("demo")
def demo_command(out: OutOption = Path("out/demo"), as_json: JsonOption = False) -> None:
    """Run the whole chain on handwritten digits at every pruning level; print the table, write the report."""
    with _progress() as progress:
        task = progress.add_task("levels", total=None)
        demo.run_demo(out, lambda done, total: progress.update(task, completed=done, total=total))
    _print_report(out, as_json)


@app.command("report")
def report_command(folder: Annotated[Path, typer.Argument(help="A folder that the demo wrote.")],
                   as_json: JsonOption = False) -> None:
    """Print the demo's table again and write its HTML page anew."""
    report.write_report(demo.read_table(folder), folder / demo.REPORT)
    _print_report(folder, as_json)


def _print_report(folder: Path, as_json: bool) -> None:
    rows = demo.read_table(folder)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for table in report.terminal_tables(rows):
        stdout.print(table)
    stdout.print(report.CAPTION)
    stderr.print(f"report: {folder / demo.REPORT}", soft_wrap=True)


@app.command()
def train(slices: Annotated[int, typer.Option(help="Slices kept, 1 to 5.")], out: OutOption,
          as_json: JsonOption = False) -> None:
    """Train a digits network as the shipped ones were (needs the extra cbnn[train])."""
    if slices not in digits.KEPT_SLICES:
        raise ValueError(f"{slices} slices are to be kept; the digits have 1 to {digits.INPUT_BITS}")
    from cbnn.model import training  # PyTorch is an extra, and slow to import

    kept = digits.KEPT_SLICES[slices]
    with _progress() as progress:
        task = progress.add_task("epochs", total=training.DIGITS_RECIPE.epochs)
        module = training.train_digits(kept, progress=lambda epoch, loss: progress.update(task, completed=epoch))
    network = training.export(module)
    storage.save(network, out)
    data = digits.load()
    result = {"model": str(out), "kept_slices": list(kept),
              "accuracy": golden.accuracy(network, data.test_images, data.test_labels)}
    _print_result(result, as_json)


def _print_result(result: dict, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table(show_header=False)
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    stdout.print(table)


@app.command()
def evaluate(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Accuracy of a digits network on the test split, by the golden model."""
    network, data = load_model(model), digits.load()
    accuracy = golden.accuracy(network, data.test_images, data.test_labels)
    _print_result({"model": model, "kept_slices": list(network.topology.kept_slices),
                   "images": len(data.test_images), "accuracy": round(accuracy, 6)}, as_json)


@app.command("sensitivity")
def sensitivity_command(model: ModelArgument,
                        repetitions: Annotated[int, typer.Option(help="Random draws per slice.")] = 5,
                        seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Accuracy of a digits network with slices replaced by random bits, one by one and from the LSB up."""
    network, data = load_model(model), digits.load()
    with _progress() as progress:
        steps = progress.track(sensitivity(network, data.test_images, data.test_labels, repetitions, seed),
                               total=2 * len(network.topology.kept_slices), description="slices")
        results = list(steps)
    if as_json:
        print(json.dumps([asdict(result) | {"mean": result.mean, "spread": result.spread} for result in results],
                         indent=2))
        return
    table = Table("randomised", "accuracy, %", "spread, points")
    for result in results:
        slices = f"slice {result.slice}" + (" and below" if result.mode == "cumulative" else "")
        table.add_row(slices, f"{100 * result.mean:.1f}", f"{100 * result.spread:.1f}")
    stdout.print(table)


@app.command("generate")
def generate_command(model: ModelArgument, folding: FoldingOption, out: OutOption, input_width: BeatOption = None,
                     name: Annotated[str, typer.Option(help="Name of the top module.")] = "accelerator") -> None:
    """Generate Verilog: a module per kernel, .mem files, a file list and a manifest."""
    _, unit = _lay_out(model, folding, input_width, name)
    print(generate(unit, out))


@app.command("verify")
def verify_command(model: ModelArgument, folding: FoldingOption, out: OutOption, input_width: BeatOption = None,
                   images: Annotated[int, typer.Option(help="Test images to send, at least 4.")] = 16,
                   idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0,
                   simulator: Annotated[str, typer.Option(help="icarus or verilator.")] = "icarus",
                   as_json: JsonOption = False) -> None:
    """Generate Verilog and prove it in cocotb: every score equal to the golden model's, every cycle as predicted.

    A digits network gets digits; any other gets random pixels. Under idles or stalls only the scores are compared.
    """
    network, unit = _lay_out(model, folding, input_width, "accelerator")
    with stderr.status("generating and simulating"):
        result = verify(network, unit, demo.sample_images(network.topology, images, seed), out,
                        idle_percent=idle, stall_percent=stall, seed=seed, simulator=simulator)
    _print_result({"images": result.n_images, "wrong_images": result.wrong_images,
                   "predicted": asdict(result.predicted),
                   "measured": result.measured and asdict(result.measured)}, as_json)
    if result.differences:
        sys.exit(_complain(result.differences[0], 1))


@app.command("volume")
def volume_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None,
        images: Annotated[int, typer.Option(help="Images to send at most.")] = 1000,
        images_file: Annotated[Path | None, typer.Option(help="An .npy array (N, height, width, colours) of "
                                                              "pixels.")] = None,
        idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Stream many images through the RTL on Verilator: every score and the cycle of every beat out are compared.

    A bare topology gets random weights. Without a file a digits network gets digits, any other random pixels.
    """
    topology = _topology(network, shape, bits, first_layer)
    weights = load_model(network) if _is_trained(network) else random_network(topology, seed)
    unit = accelerator(weights, read_folding(folding, topology, input_width))
    if images < 1:
        raise ValueError(f"{images} images are to be sent; at least 1 is needed")
    pixels = (_read_images(images_file) if images_file else demo.sample_images(topology, images, seed))[:images]
    with _progress() as progress:
        task = progress.add_task("compiling", total=None)
        result = volume.stream(weights, unit, pixels, idle_percent=idle, stall_percent=stall, seed=seed,
                               progress=lambda done, total: progress.update(task, description="images", completed=done,
                                                                            total=total))
    _print_result({"images": len(result.classes), "wrong_images": result.wrong_images,
                   "mistimed_images": result.mistimed_images,
                   "latency_cycles": result.latency_cycles, "interval_cycles": result.interval_cycles,
                   "cycles": result.n_cycles, "cycles_per_second": round(result.n_cycles / result.run_seconds),
                   "compile_seconds": round(result.build_seconds, 1),
                   "run_seconds": round(result.run_seconds, 1)}, as_json)
    if result.differences:
        sys.exit(_complain(result.differences[0], 1))


def _read_images(file: Path) -> NDArray:
    try:
        images = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{file} holds several arrays; images come as one, in an .npy file")
    return images


@app.command("cycles")
def cycles_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        slices: Annotated[str, typer.Option(help="Slices kept: a number, or a range such as 8..1; the most "
                                                 "significant ones are kept.")] = "",
        first_layer: FirstLayerOption = "sliced",
        input_width: BeatOption = None, as_json: JsonOption = False) -> None:
    """Cycles per image and pruning level, from the formulas alone, trained or not."""
    topology = _topology(network, shape, bits, first_layer)
    rows = level_cycles(topology, lambda pruned: read_folding(folding, pruned, input_width),
                        _levels(slices, len(topology.kept_slices)))
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    stdout.print(_cycles_table(rows))


@app.command("synth")
def synth_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None,
        target: Annotated[str, typer.Option(help="xc7, ecp5 or ice40.")] = "xc7",
        place_what: Annotated[str, typer.Option("--place", help="Find the clock with nextpnr on an LFE5U-25F or an "
                                                "iCE40 UP5K: of all 'kernels', each alone, or of the 'whole'.")] = "",
        seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """LUTs, flip-flops, carry cells and block RAMs by Yosys; a bare topology gets random weights."""
    topology = _topology(network, shape, bits, first_layer)
    weights = load_model(network) if _is_trained(network) else random_network(topology, seed)
    unit = accelerator(weights, read_folding(folding, topology, input_width))
    synth.check_target(target)
    place.check_place(place_what, target)
    with tempfile.TemporaryDirectory(prefix="cbnn-synth-") as name, _progress() as progress:
        verilog = generate(unit, Path(name) / "verilog").parent
        progress.add_task("synthesising", total=None)
        rows = [asdict(area) for area in synth.synthesize(unit, verilog, target)]
        if place_what:
            task = progress.add_task("placing", total=None)
            clocks = place.clocks(unit, verilog, target, place_what, seed,
                                  lambda done, total: progress.update(task, completed=done, total=total))
            rows = [row | {"mhz": clocks.get(row["module"])} for row in rows]
    if as_json:
        print(json.dumps({"target": target, "rows": rows}, indent=2))
        return
    stdout.print(_area_table(rows))


def _is_trained(text: str) -> bool:
    return text in demo.shipped() or text.endswith(".npz")


def _topology(text: str, shape: str, bits: int, first_layer: str) -> Topology:
    if _is_trained(text):
        return load_model(text).topology
    if not re.fullmatch(r"\d+x\d+x\d+", shape):
        raise ValueError(f"input shape {shape!r} is not written like 32x32x3: height x width x colours")
    height, width, colours = map(int, shape.split("x"))
    return Topology.parse(text, (height, width, colours), bits, first_layer=first_layer)  # type: ignore[arg-type]


def _levels(text: str, n_slices: int) -> list[int]:
    """Numbers of slices kept: all levels where `text` is empty."""
    text = text or f"{n_slices}..1"
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if match is None:
        raise ValueError(f"slices {text!r} are not written like 4 or 8..1")
    first, last = int(match[1]), int(match[2] or match[1])
    return list(range(first, last - 1, -1) if first >= last else range(first, last + 1))


def _cycles_table(rows: list[LevelCycles]) -> Table:
    table = Table(box=SIMPLE)
    for heading in ("slices kept", "input beats", "first layer", "interval", "slowest kernel", "refolded interval",
                    "cycles saved", "saved %", "LUTs (est.)"):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(report.kept_text(row.kept_slices), f"{row.input_beats:,}", f"{row.first_layer_cycles:,}",
                      f"{row.interval_cycles:,}", row.slowest, f"{row.refolded_interval_cycles:,}",
                      f"{row.saved_cycles:,}", f"{row.saved_percent:.1f}", f"{row.luts:,}")
    return table


def _area_table(rows: list[dict]) -> Table:
    table = Table(box=SIMPLE)
    for name in rows[0]:
        table.add_column({"mhz": "MHz"}.get(name, name.replace("_", " ")),
                         justify="left" if name == "module" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) if isinstance(value, str) else f"{value:,}"
                        for value in row.values()), end_section=row is rows[-2])
    return table
