"""Verbs that explore a design before anything is generated: cycles, simulate, fold, fifos, sweep."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.model import golden
from cbnn.model.network import Network
from cbnn.sim import demo, performance, report
from cbnn.sim.cycles import level_cycles
from cbnn.sim.dataflow import simulate
from cbnn.sim.fifos import size_fifos
from cbnn.sim.options import (
    BeatOption,
    BitsOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    FirstLayerOption,
    FoldingOption,
    IdleOption,
    JsonOption,
    NetworkArgument,
    SeedOption,
    ShapeOption,
    SlicesOption,
    StallOption,
    app,
    check_device,
    load_data,
    print_result,
    progress_bar,
    read_folding,
    read_levels,
    read_network,
    stderr,
    stdout,
)
from cbnn.sim.search import DEVICES, Budget, Search
from cbnn.sim.sweep import COLUMNS as SWEEP_COLUMNS
from cbnn.sim.sweep import points, sweep

MhzOption = Annotated[float, typer.Option(help="Clock that images per second are stated at.")]
FoldingOutOption = Annotated[Path | None, typer.Option(help="Where to write the folding as JSON.")]



@app.command("cycles")
def cycles_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        slices: SlicesOption = None,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None, dataset: DatasetOption = "",
        data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Cycles per image and pruning level; of a trained network also what pruning costs in accuracy.

    Accuracy is that of a data set's test split, without retraining, where the network takes digits, or the set or its
    folder is named.
    """
    topology, trained = read_network(network, shape, bits, first_layer)
    if trained is None and (dataset or data_dir):
        raise ValueError(f"{network} has no weights, and so no accuracy on a data set")
    levels = read_levels(slices, topology)
    note: dict[str, str] = {}
    accuracy = None
    if trained is not None and (dataset or data_dir or demo.takes_digits(topology)):
        data, name = load_data(trained, dataset, data_dir)
        note = {"dataset": name} | ({"note": data.note} if data.note else {})

        def accuracy(pruned: Network) -> float:
            return golden.accuracy(pruned, data.test_images, data.test_labels)

    found = level_cycles(trained or topology, lambda pruned: read_folding(folding, pruned, input_width),
                         levels, accuracy)
    rows = [asdict(row) | note for row in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    caption = f"accuracy: {', '.join(note.values())}. {report.CAPTION}" if note else report.CYCLES
    stdout.print(report.level_table(rows, caption=caption))


@app.command("simulate")
def simulate_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None,
        images: Annotated[int, typer.Option(help="Images, back to back.")] = 4,
        idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0, mhz: MhzOption = 100.0,
        out: Annotated[Path | None, typer.Option(help="Folder for a report: JSON files with FINN's names, a picture "
                                                      "and a Perfetto trace.")] = None,
        as_json: JsonOption = False) -> None:
    """Latency and II (initiation interval) by dataflow simulation: the RTL's cycles without simulating logic.

    Shows per kernel II, latency, trip count, and how long it was busy, starved or blocked.
    """
    topology, _ = read_network(network, shape, bits, first_layer)
    unit = accelerator(topology, read_folding(folding, topology, input_width))
    if out is not None:
        performance.check_report(out)
    trace = simulate(unit, images, idle_percent=idle, stall_percent=stall, seed=seed)
    summary, kernels = performance.network_performance(unit, trace, mhz), performance.kernel_performance(trace)
    if out is not None:
        performance.write_performance(unit, trace, mhz, out)
        stderr.print(f"report: {out}", soft_wrap=True)
    if as_json:
        print(json.dumps({"network": summary, "kernels": [asdict(row) for row in kernels]}, indent=2))
        return
    table = Table(box=SIMPLE)
    for name in asdict(kernels[0]):
        heading = {"ii": "II", "name": "kernel"}.get(name, name.replace("_", " "))
        table.add_column(heading, justify="left" if name == "name" else "right", no_wrap=True)
    for row in kernels:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in asdict(row).values()))
    stdout.print(table)
    print_result(summary, as_json=False)


@app.command("fold")
def fold_command(
        network: NetworkArgument, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None,
        interval: Annotated[int | None, typer.Option(help="Cycles per image at most: the fewest LUTs for it.")] = None,
        fps: Annotated[float | None, typer.Option(help="Images per second at least, at the clock of --mhz.")] = None,
        mhz: MhzOption = 100.0,
        luts: Annotated[int | None, typer.Option(help="LUTs at most.")] = None,
        block_rams: Annotated[int | None, typer.Option(help="Block RAMs of 18 Kib at most.")] = None,
        device: DeviceOption = "",
        front: Annotated[int, typer.Option(help="Print so many foldings from the fastest to the smallest.")] = 0,
        out: FoldingOutOption = None, as_json: JsonOption = False) -> None:
    """Find the cheapest folding for an interval, or the fastest within a budget; optimal in the estimated LUTs."""
    topology, _ = read_network(network, shape, bits, first_layer)
    budget = _budget(device, luts, block_rams)
    if interval is not None and fps is not None:
        raise ValueError("an interval and images per second are given; one of them says it all")
    if fps is not None:
        if fps <= 0:
            raise ValueError(f"{fps} images per second are asked for; it must be more than 0")
        interval = int(1e6 * mhz / fps)
    search = Search(topology, input_width)
    if front:
        units = search.front(front, budget)
    elif interval is not None:
        units = [search.cheapest(interval, budget)]
    elif budget != Budget():
        units = [search.fastest(budget)]
    else:
        raise ValueError("nothing bounds the search; give --interval, --fps, --luts, --block-rams, --device or --front")
    if out is not None and units:
        units[0].folding.save(out)
    _print_foldings(units, mhz, as_json)


def _budget(device: str, luts: int | None, block_rams: int | None) -> Budget:
    if not device:
        return Budget(luts, block_rams)
    check_device(device)
    most = DEVICES[device]
    return Budget(*(n if bound is None else min(n, bound) for n, bound in zip(most, (luts, block_rams), strict=True)))


def _print_foldings(units: list[Accelerator], mhz: float, as_json: bool) -> None:
    rows = [{"folding": str(unit.folding), "interval_cycles": unit.interval_cycles, "luts": unit.luts,
             "block_rams": unit.block_rams, "images_per_second": round(1e6 * mhz / unit.interval_cycles, 1)}
            for unit in units]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=SIMPLE)
    for heading in ("interval", "LUTs (est.)", "block RAMs", f"images/s, kernel only, at {mhz:g} MHz"):
        table.add_column(heading, justify="right")
    table.add_column("folding", overflow="fold")
    for row in rows:
        table.add_row(*(f"{row[name]:,}" for name in ("interval_cycles", "luts", "block_rams", "images_per_second")),
                      str(row["folding"]))
    stdout.print(table)


@app.command("fifos")
def fifos_command(
        network: NetworkArgument, folding: FoldingOption, shape: ShapeOption = "8x8x1", bits: BitsOption = 8,
        first_layer: FirstLayerOption = "sliced", input_width: BeatOption = None,
        interval: Annotated[int | None, typer.Option(help="Cycles per image to keep; else those of the slowest "
                                                          "kernel.")] = None,
        out: FoldingOutOption = None, as_json: JsonOption = False) -> None:
    """Find the smallest FIFOs that keep the interval, proven by simulation."""
    topology, _ = read_network(network, shape, bits, first_layer)
    before = read_folding(folding, topology, input_width)
    with stderr.status("simulating"):
        sizing = size_fifos(topology, before, interval)
    if out is not None:
        sizing.folding.save(out)
    print_result({"depths_before": [layer.fifo_depth for layer in before.layers],
                  "depths": [layer.fifo_depth for layer in sizing.folding.layers],
                  "bits_before": sizing.bits_before, "bits": sizing.bits, "interval_cycles": sizing.interval_cycles,
                  "proven_smallest": sizing.smallest, "simulations": sizing.n_simulations}, as_json)


@app.command("sweep")
def sweep_command(
        network: Annotated[str, typer.Argument(help="A topology such as 16C3-MP2-64FC-10FC.")],
        table: Annotated[Path, typer.Option(help="SQLite table that results are added to; what it has is not computed "
                                                 "again.")],
        shape: ShapeOption = "8x8x1", bits: BitsOption = 8, first_layer: FirstLayerOption = "sliced",
        slices: SlicesOption = None,
        widths: Annotated[str, typer.Option(help="Factors of all channels, as in 1,0.5.")] = "1",
        intervals: Annotated[str, typer.Option(help="Cycles per image, as in 32768,8192; 0: as fast as the device "
                                                    "allows.")] = "0",
        devices: Annotated[str, typer.Option(help="FPGAs, as in xc7z010,xc7z020.")] = "xc7z020",
        scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler; else processes of this "
                                                           "machine. Needs the extra cbnn[sweep].")] = None,
        as_json: JsonOption = False) -> None:
    """Fold a network for every combination of slices, widths, intervals and devices; can be continued."""
    topology, _ = read_network(network, shape, bits, first_layer)
    asked = points(topology, read_levels(slices, topology), _numbers("widths", widths, float),
                   _numbers("intervals", intervals, int), devices.split(","))
    with progress_bar() as progress:
        task = progress.add_task("points", total=None)
        rows = sweep(asked, table, scheduler, lambda done, total: progress.update(task, completed=done, total=total))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    stdout.print(report.level_table(rows, SWEEP_COLUMNS))


def _numbers(what: str, text: str, kind: type) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{what} {text!r} are not numbers with commas between them") from error
