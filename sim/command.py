"""The command `cbnn`: a thin layer, one verb per function of the package.

Tables and results go to stdout, messages and progress to stderr. Exit codes: 0 done, 1 RTL and model differ,
2 the input, the machine or the usage is at fault.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from cbnn.hw.accelerator import accelerator
from cbnn.hw.verilog import generate
from cbnn.model import storage
from cbnn.model.network import random_network
from cbnn.sim import demo, exchange, explore, learn, place, report, sweep, synth, volume
from cbnn.sim.cosim import SimulationError
from cbnn.sim.options import (
    BeatOption,
    BitsOption,
    FirstLayerOption,
    FoldingOption,
    IdleOption,
    JsonOption,
    ModelArgument,
    NetworkArgument,
    OutOption,
    SeedOption,
    ShapeOption,
    StallOption,
    app,
    complain,
    lay_out,
    print_result,
    progress_bar,
    read_folding,
    read_network,
    stderr,
    stdout,
)
from cbnn.sim.verify import predict, verify

assert explore  # their verbs are part of the command
assert learn
assert exchange


def main() -> None:
    """Run the command; every expected failure is one sentence on stderr."""
    try:
        app()
    except demo.MismatchError as error:
        sys.exit(complain(error, 1))
    except (ValueError, SimulationError, synth.SynthesisError, sweep.WorkerError, OSError,
            ModuleNotFoundError) as error:
        sys.exit(complain(error, 2))
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C, without a word
            complain("interrupted", 130)
        raise


@app.command("demo")
def demo_command(out: OutOption = Path("out/demo"), as_json: JsonOption = False) -> None:
    """Run the whole chain on handwritten digits at every pruning level; print the table, write the report."""
    with progress_bar() as progress:
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


@app.command("generate")
def generate_command(model: ModelArgument, folding: FoldingOption, out: OutOption, input_width: BeatOption = None,
                     name: Annotated[str, typer.Option(help="Name of the top module.")] = "accelerator") -> None:
    """Generate Verilog: a module per kernel, .mem files, a file list and a manifest."""
    _, unit = lay_out(model, folding, input_width, name)
    print(generate(unit, out, asdict(predict(unit))))


@app.command("verify")
def verify_command(model: ModelArgument, folding: FoldingOption, out: OutOption, input_width: BeatOption = None,
                   images: Annotated[int, typer.Option(help="Test images to send, at least 4.")] = 16,
                   idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0,
                   simulator: Annotated[str, typer.Option(help="icarus or verilator.")] = "icarus",
                   waves: Annotated[Path | None, typer.Option(help="File for all signals' waves, as FST.")] = None,
                   as_json: JsonOption = False) -> None:
    """Generate Verilog and prove it in cocotb (cosim): every score as in the golden model, every cycle as predicted.

    A digits network gets digits; any other gets random pixels. Every beat is compared under idles and stalls too.
    """
    network, unit = lay_out(model, folding, input_width, "accelerator")
    with stderr.status("generating and simulating"):
        result = verify(network, unit, demo.sample_images(network.topology, images, seed), out,
                        idle_percent=idle, stall_percent=stall, seed=seed, simulator=simulator, waves=waves)
    print_result({"images": result.n_images, "wrong_images": result.wrong_images,
                   "mistimed_images": result.mistimed_images, "predicted": asdict(result.predicted),
                   "measured": result.measured and asdict(result.measured)}, as_json)
    if result.differences:
        sys.exit(complain(result.differences[0], 1))


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
    topology, trained = read_network(network, shape, bits, first_layer)
    weights = trained or random_network(topology, seed)
    unit = accelerator(weights, read_folding(folding, topology, input_width))
    if images < 1:
        raise ValueError(f"{images} images are to be sent; at least 1 is needed")
    pixels = (weights.coded(storage.read_array(images_file)[:images]) if images_file
              else demo.sample_images(topology, images, seed)[:images])
    with progress_bar() as progress:
        task = progress.add_task("compiling", total=None)
        result = volume.stream(weights, unit, pixels, idle_percent=idle, stall_percent=stall, seed=seed,
                               progress=lambda done, total: progress.update(task, description="images", completed=done,
                                                                            total=total))
    print_result({"images": len(result.classes), "wrong_images": result.wrong_images,
                   "mistimed_images": result.mistimed_images,
                   "latency_cycles": result.latency_cycles, "interval_cycles": result.interval_cycles,
                   "cycles": result.n_cycles, "cycles_per_second": round(result.n_cycles / result.run_seconds),
                   "compile_seconds": round(result.build_seconds, 1),
                   "run_seconds": round(result.run_seconds, 1)}, as_json)
    if result.differences:
        sys.exit(complain(result.differences[0], 1))


@app.command("synth")
def synth_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None,
        target: Annotated[str, typer.Option(help="xc7, ecp5 or ice40.")] = "xc7",
        place_what: Annotated[str, typer.Option("--place", help="Find the clock with nextpnr on an LFE5U-25F or an "
                                                "iCE40 UP5K: of all 'kernels', each alone, or of the 'whole'.")] = "",
        seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """LUTs, flip-flops, carry cells and block RAMs by Yosys; a bare topology gets random weights."""
    topology, trained = read_network(network, shape, bits, first_layer)
    weights = trained or random_network(topology, seed)
    unit = accelerator(weights, read_folding(folding, topology, input_width))
    synth.check_target(target)
    place.check_place(place_what, target)
    with tempfile.TemporaryDirectory(prefix="cbnn-synth-") as name, progress_bar() as progress:
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


def _area_table(rows: list[dict]) -> Table:
    table = Table(box=SIMPLE)
    for name in rows[0]:
        table.add_column({"mhz": "MHz"}.get(name, name.replace("_", " ")),
                         justify="left" if name == "module" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) if isinstance(value, str) else f"{value:,}"
                        for value in row.values()), end_section=row is rows[-2])
    return table
