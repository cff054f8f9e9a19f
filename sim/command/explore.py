"""Verbs that explore a design before anything is generated: cycles, simulate, fold, fifos, sweep."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.model.compute import golden
from cbnn.model.files import OwnFolder, check_file
from cbnn.model.network import Network
from cbnn.sim.command.options import (
    MAX_CYCLES,
    MAX_FPS,
    MAX_IMAGES,
    MAX_PARTS,
    BeatOption,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    FoldingOption,
    IdleOption,
    JsonOption,
    MhzOption,
    NetworkArgument,
    OwnDataOption,
    SeedOption,
    SlicesOption,
    StallOption,
    WholeBytesOption,
    check_device,
    load_data,
    numbers,
    own_data_is_there,
    read_folding,
    read_levels,
    read_network,
)
from cbnn.sim.command.screen import facts_tables, print_result, progress_bar, rows_table, stderr, tell
from cbnn.sim.command.verbs import next_step, option, refuse, verb
from cbnn.sim.predict.cycles import at_level, level_cycles
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.predict.fifos import size_fifos
from cbnn.sim.predict.search import DEVICES, Budget, Search
from cbnn.sim.predict.sweep import COLUMNS as SWEEP_COLUMNS
from cbnn.sim.predict.sweep import points, sweep
from cbnn.sim.prove.stimulus import takes_digits
from cbnn.sim.report import performance
from cbnn.sim.report.levels import BEFORE, CYCLES, caption_of, level_table

FoldingOutOption = Annotated[Path | None, typer.Option(help="Where to write the folding as JSON.")]
MAX_FRONT = 1000
MAX_POINTS = 100_000
"""Most points of a sweep."""


@verb("cycles", "cbnn cycles digits-5 --folding auto")
def cycles_command(
        network: NetworkArgument, folding: FoldingOption, slices: SlicesOption = None,
        input_width: BeatOption = None, whole_bytes: WholeBytesOption = False, dataset: DatasetOption = "",
        data_dir: DataDirOption = None, data: OwnDataOption = None, as_json: JsonOption = False) -> None:
    """Cycles per image and pruning level; of a trained network also what pruning costs in accuracy.

    Accuracy is that of a data set's test split, without retraining, where the network takes digits
    or its own data are there, or a set or its folder is named.
    """
    topology, trained = read_network(network)
    if trained is None:
        refuse(f"here: the topology {network} has no weights, and so no accuracy", "dataset", "data_dir", "data")
    levels = read_levels(slices, topology)
    folded = read_folding(folding, topology, input_width, whole_bytes)  # one for all levels
    note: dict[str, str] = {}
    accuracy = None
    named = bool(dataset or data_dir or data)
    if trained is not None and (named or own_data_is_there(trained) or (
            trained.origin is None and takes_digits(topology))):
        examples, name = load_data(trained, dataset, data_dir, data)
        note = {"dataset": name} | ({"note": examples.note} if examples.note else {})

        def accuracy(pruned: Network) -> float:
            return golden.accuracy(pruned, examples.test_images, examples.test_labels)

    found = level_cycles(trained or topology, lambda pruned: at_level(folded, topology, pruned),
                         levels, accuracy)
    rows = [asdict(row) | note for row in found]
    caption = f"accuracy: {', '.join(note.values())}. {BEFORE}" if note else CYCLES
    print_result(rows, as_json, level_table(rows, caption=caption_of(rows, caption)))
    next_step("simulate", network, folding=folding if Path(folding).exists() else folded)


@verb("simulate", "cbnn simulate digits-5 --folding auto --images 8 --out report")
def simulate_command(
        network: NetworkArgument, folding: FoldingOption, input_width: BeatOption = None,
        whole_bytes: WholeBytesOption = False,
        images: Annotated[int, option(f"Images, back to back, 1 to {MAX_IMAGES:,}.", 1, MAX_IMAGES)] = 4,
        idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0, mhz: MhzOption = 100.0,
        out: Annotated[Path | None, typer.Option(help="Folder for a report: JSON files with FINN's names, a picture "
                                                      "and a Perfetto trace.")] = None,
        as_json: JsonOption = False) -> None:
    """Latency and II (initiation interval) by dataflow simulation: the RTL's cycles without simulating logic.

    Shows per kernel II, latency, trip count, and how long it was busy, starved or blocked.
    """
    topology, _ = read_network(network)
    if not idle and not stall:
        refuse("here: without --idle and --stall nothing is random", "seed")
    unit = accelerator(topology, read_folding(folding, topology, input_width, whole_bytes))
    if out is not None:
        OwnFolder(out).check()
    trace = simulate(unit, images, idle_percent=idle, stall_percent=stall, seed=seed)
    summary, kernels = performance.network_performance(unit, trace, mhz), performance.kernel_performance(trace)
    if out is not None:
        performance.write_performance(unit, trace, mhz, out)
        tell(f"report: {out}")
    rows = [asdict(row) for row in kernels]
    headings = {name: {"ii": "II, cycles", "name": "kernel", "latency": "latency, cycles", "trip_count": "beats out",
                       "busy": "busy, cycles", "starved": "starved, cycles", "blocked": "blocked, cycles",
                       "highest": "most held", "capacity": "capacity"}[name] for name in rows[0]}
    print_result({"network": summary, "kernels": rows}, as_json, rows_table(rows, headings),
                 *facts_tables(summary))
    next_step("fifos", network, out="folding.json")


@verb("fold", "cbnn fold digits-5 --device xc7z010 --out folding.json")
def fold_command(
        network: NetworkArgument, input_width: BeatOption = None, whole_bytes: WholeBytesOption = False,
        interval: Annotated[int | None, option("Cycles per image at most: the fewest LUTs for it.", 1,
                                               MAX_CYCLES)] = None,
        fps: Annotated[float | None, option("Images per second at least, at the clock of --mhz.", 0.001,
                                            MAX_FPS)] = None,
        mhz: MhzOption = 100.0,
        luts: Annotated[int | None, option("LUTs at most.", 1, MAX_PARTS)] = None,
        block_rams: Annotated[int | None, option("Block RAMs of 18 Kib at most.", 0, MAX_PARTS)] = None,
        device: DeviceOption = "",
        front: Annotated[int | None, option(f"Print so many foldings, 1 to {MAX_FRONT:,}, from the fastest to the "
                                            "smallest.", 1, MAX_FRONT)] = None,
        out: FoldingOutOption = None, as_json: JsonOption = False) -> None:
    """Find the cheapest folding for an interval, or the fastest within a budget; optimal in the estimated LUTs."""
    if out is not None:
        check_file(out)
    topology, _ = read_network(network)
    budget = _budget(device, luts, block_rams)
    if interval is not None and fps is not None:
        raise ValueError("--interval and --fps are given; only one of them can be")
    if front is not None:
        refuse("with --front, which shows foldings of all intervals", "interval", "fps")
    if fps is not None:
        interval = int(1e6 * mhz / fps)
        if not interval:
            raise ValueError(f"--fps {fps:,g} leaves less than a cycle per image at {mhz:g} MHz; at most "
                             f"{1e6 * mhz:,.0f} can be asked for")
    search = Search(topology, input_width, whole_bytes)
    if front is not None:
        units = search.front(front, budget)
    elif interval is not None:
        units = [search.cheapest(interval, budget)]
    elif budget != Budget():
        units = [search.fastest(budget)]
    else:
        raise ValueError("nothing bounds the search; give --interval, --fps, --luts, --block-rams, --device or --front")
    if not units:
        raise ValueError(f"no folding is within {budget}")
    if interval is None and units[0].interval_cycles == search.intervals[0]:
        tell(f"more would not be faster: {search.limit}")
    if out is not None:
        units[0].folding.save(out)
    _print_foldings(units, mhz, as_json)
    next_step("fifos" if out else "simulate", network, folding=out or units[0].folding,
              **({"input_width": None, "whole_bytes": None, "out": out} if out else {}))


def _budget(device: str, luts: int | None, block_rams: int | None) -> Budget:
    if not device:
        return Budget(luts, block_rams)
    check_device(device)
    most = DEVICES[device]
    for name, bound, n in zip(("--luts", "--block-rams"), (luts, block_rams), most, strict=True):
        if bound is not None and bound > n:
            raise ValueError(f"{name} is {bound:,}; the {device} has {n:,}")
    return Budget(*(n if bound is None else bound for n, bound in zip(most, (luts, block_rams), strict=True)))


def _print_foldings(units: list[Accelerator], mhz: float, as_json: bool) -> None:
    rows = [{"folding": str(unit.folding), "interval_cycles": unit.interval_cycles, "luts": unit.luts,
             "block_rams": unit.block_rams, "images_per_second": round(1e6 * mhz / unit.interval_cycles, 1)}
            for unit in units]
    print_result(rows, as_json, rows_table(rows, {
        "interval_cycles": "interval, cycles", "luts": "LUTs (est.)", "block_rams": "block RAMs",
        "images_per_second": f"images/s, kernels only, {mhz:g} MHz", "folding": "folding"}))


@verb("fifos", "cbnn fifos digits-5 --folding auto --out folding.json")
def fifos_command(
        network: NetworkArgument, folding: FoldingOption, input_width: BeatOption = None,
        whole_bytes: WholeBytesOption = False,
        interval: Annotated[int | None, option("Cycles per image at most; else those of the slowest kernel.", 1,
                                               MAX_CYCLES)] = None,
        out: FoldingOutOption = None, as_json: JsonOption = False) -> None:
    """Find the smallest FIFOs that keep the interval, proven by simulation."""
    topology, trained = read_network(network)
    before = read_folding(folding, topology, input_width, whole_bytes)
    with stderr.status("simulating"):
        sizing = size_fifos(topology, before, interval)
    if out is not None:
        sizing.folding.save(out)
    print_result({"depths_before": [layer.fifo_depth for layer in before.layers],
                  "depths": [layer.fifo_depth for layer in sizing.folding.layers],
                  "bits_before": sizing.bits_before, "bits": sizing.bits, "interval_cycles": sizing.interval_cycles,
                  "proven_smallest": sizing.smallest, "simulations": sizing.n_simulations}, as_json)
    of_file = {"folding": out, "input_width": None, "whole_bytes": None} if out else {}
    if trained:
        next_step("generate", network, out="verilog", **of_file)
    else:
        next_step("synth", network, **of_file)


@verb("sweep", "cbnn sweep 8x8x1u5-16C3-MP2-64FC-10FC --out sweep.db --widths 1,0.5 --devices xc7z010,xc7z020")
def sweep_command(
        network: Annotated[str, typer.Argument(help="A topology such as 8x8x1u5-16C3-MP2-64FC-10FC.")],
        out: Annotated[Path, typer.Option(help="SQLite table that results are added to; what it has is not computed "
                                               "again.")],
        slices: SlicesOption = None,
        widths: Annotated[str, typer.Option(help="Factors of all channels, as in 1,0.5.")] = "1",
        intervals: Annotated[str, typer.Option(help="Cycles per image, as in 32768,8192; 0: as fast as the device "
                                                    "allows.")] = "0",
        devices: Annotated[str, typer.Option(help="FPGAs, as in xc7z010,xc7z020.")] = "xc7z020",
        scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler; else processes of this "
                                                           "machine. Needs the extra cbnn[sweep].")] = None,
        as_json: JsonOption = False) -> None:
    """Fold a network for every combination of slices, widths, intervals and devices; can be continued."""
    if out is not None:
        check_file(out)
    topology, _ = read_network(network)
    levels = read_levels(slices, topology)
    factors, cycles = numbers("--widths", widths, 0.001, 1000), numbers("--intervals", intervals, 0, MAX_CYCLES, int)
    fpgas = devices.split(",")
    if (n := len(levels) * len(factors) * len(cycles) * len(fpgas)) > MAX_POINTS:
        raise ValueError(f"the sweep has {n} points; at most {MAX_POINTS} are supported")
    asked = points(topology, levels, factors, cycles, fpgas)
    with progress_bar() as progress:
        task = progress.add_task("points", total=None)
        rows = sweep(asked, out, scheduler, lambda done, total: progress.update(task, completed=done, total=total))
    print_result(rows, as_json, level_table(rows, SWEEP_COLUMNS))
    next_step("fold", network, device=fpgas[0], out="folding.json")
