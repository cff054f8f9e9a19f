"""The command `cbnn`: a thin layer, one verb per function of the package.

Tables and results go to stdout, messages and progress to stderr. Exit codes: 0 done, 1 RTL and
model differ, 2 the input, the machine or the usage is at fault, 3 cbnn itself is; 128 and the
number of a signal that ended it.
"""

import os
import re
import shlex
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cbnn.hw.accelerator import accelerator
from cbnn.hw.verilog import generate
from cbnn.model import files
from cbnn.model.files import visible
from cbnn.model.network import random_network
from cbnn.model.processes import Terminated, ToolError, scratch_folder
from cbnn.sim.command import board, demo, exchange, explore, learn, load
from cbnn.sim.command.options import (
    MAX_IMAGES,
    BeatOption,
    DataDirOption,
    DatasetOption,
    FoldingOption,
    IdleOption,
    ImagesFileOption,
    JsonOption,
    ModelArgument,
    NetworkArgument,
    OutOption,
    OwnDataOption,
    SeedOption,
    StallOption,
    WholeBytesOption,
    check_pixels,
    complain,
    lay_out,
    load_data,
    own_data_is_there,
    read_folding,
    read_network,
)
from cbnn.sim.command.screen import facts_tables, print_result, progress_bar, rows_table, stderr, tell
from cbnn.sim.command.verbs import app, given, next_step, option, refuse, verb
from cbnn.sim.handover.folder import bench_images, hand_over
from cbnn.sim.prove import volume
from cbnn.sim.prove.stimulus import sample_images, takes_digits
from cbnn.sim.prove.verify import MIN_IMAGES, Traffic, icarus_seconds, verify
from cbnn.sim.prove.verilated import MismatchError
from cbnn.sim.report.levels import CAPTION, caption_of, terminal_tables, write_report
from cbnn.sim.synth import place, synthesis

MAX_ICARUS_S = 120
"""Seconds on Icarus above which another way is named."""
OUTPUTS = ("scores", "class")
assert explore  # their verbs are part of the command
assert learn
assert exchange
assert board
assert load


def main() -> None:
    """Run the command; every expected failure is one sentence on stderr."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _end)
    try:
        app()
    except Terminated as end:
        sys.exit(128 + end.number)
    except MismatchError as error:
        sys.exit(complain(error, 1))
    except BrokenPipeError:  # whoever read what we print has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (ValueError, OSError, ToolError, ImportError) as error:
        sys.exit(complain(error, 2))
    except MemoryError:
        sys.exit(complain("out of memory", 2))
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C, without a word
            complain("interrupted", 130)
        raise
    except Exception:
        traceback.print_exc()
        sys.exit(complain("this is a defect of cbnn, not of what it was given; please report the lines above", 3))


def _end(number: int, frame: object) -> None:
    """End as on Ctrl-C, so that work under way is kept or cleaned up; another signal does not interrupt that."""
    signal.signal(number, signal.SIG_IGN)
    raise Terminated(number)


@verb("demo", "cbnn demo --out out/demo")
def demo_command(out: OutOption = Path("out/demo"), as_json: JsonOption = False) -> None:
    """Run the whole chain on handwritten digits at every pruning level; print the table, write the report."""
    with progress_bar() as progress:
        task = progress.add_task("levels", total=None)
        demo.run_demo(out, lambda done, total: progress.update(task, completed=done, total=total))
    _print_report(out, as_json)


@verb("report", "cbnn report out/demo")
def report_command(folder: Annotated[Path, typer.Argument(help="A folder that the demo wrote.")],
                   as_json: JsonOption = False) -> None:
    """Print the demo's table again and write its HTML page anew."""
    write_report(demo.read_table(folder), folder / demo.REPORT)
    _print_report(folder, as_json)


def _print_report(folder: Path, as_json: bool) -> None:
    rows = demo.read_table(folder)
    print_result(rows, as_json, *terminal_tables(rows), caption_of(rows, CAPTION))
    if not as_json:
        tell(f"report: {folder / demo.REPORT}")
    next_step("sensitivity", "digits-5")


@verb("generate", "cbnn generate digits-5 --folding auto --out digits")
def generate_command(model: ModelArgument, folding: FoldingOption, out: OutOption, input_width: BeatOption = None,
                     whole_bytes: WholeBytesOption = False,
                     name: Annotated[str, typer.Option(help="Name of the top module.")] = "accelerator",
                     output: Annotated[str, typer.Option(help="What leaves for an image: scores, with the class, or "
                                                         "class, which is one beat of it only.")] = "scores",
                     control: Annotated[bool, typer.Option("--control", help="With registers for a host, over "
                                                           "AXI4-Lite: counters, cycles measured, reset.")] = False,
                     writable: Annotated[bool, typer.Option("--writable", help="With weights and thresholds that a "
                                                            "host writes over the registers, see cbnn load.")] = False,
                     images_file: ImagesFileOption = None, dataset: DatasetOption = "",
                     data_dir: DataDirOption = None, data: OwnDataOption = None) -> None:
    """Write Verilog, and all that a colleague needs to use it, to a folder: its README.md says what there is.

    The folder's test bench plays up to 16 images: of a file or a data set where one is named, or of
    the network's own data where they are there, else digits to a digits network, random pixels to
    any other.
    """
    out = Path(os.path.normpath(out))  # as it is written, and so as it is printed
    if output not in OUTPUTS:
        raise ValueError(f"output {output!r} is not known; it can be {' or '.join(OUTPUTS)}")
    if writable and not control:
        raise ValueError("--writable needs --control, over whose registers a host writes")
    network, unit = lay_out(model, folding, input_width, whole_bytes, name, class_only=output == "class",
                            writable=writable)
    n_images = bench_images(unit)
    if images_file is not None:
        refuse("here: the images are of a file", "dataset", "data_dir", "data")
        plain = re.fullmatch(r"[\w .+-]{1,80}", images_file.name, re.ASCII)
        pixels, source = files.read_array(images_file)[:n_images], f"of {images_file.name if plain else 'a file'}"
    elif given("dataset", "data_dir", "data") or own_data_is_there(network):
        examples, known = load_data(network, dataset, data_dir, data)
        pixels, source = examples.test_images[:n_images], f"of the test split of {known}"
    else:
        pixels = sample_images(network, n_images, 0)
        source = "handwritten digits of a test split" if takes_digits(network.topology) else "of random pixels"
    with stderr.status("generating"):
        page = hand_over(network, unit, pixels, source, out, control=control)
    print(visible(page))
    tell(f"try it: make -C {shlex.quote(visible(out / 'sim'))}")
    if icarus_seconds(unit, MIN_IMAGES) > MAX_ICARUS_S:
        next_step("volume", model, images=100)
    else:
        next_step("verify", model, out=out.with_name(f"{out.name}-verify"))


@verb("verify", "cbnn verify digits-5 --folding auto --out verilog --images 4")
def verify_command(model: ModelArgument, folding: FoldingOption, out: OutOption, input_width: BeatOption = None,
                     whole_bytes: WholeBytesOption = False,
                   images: Annotated[int, option("Test images to send at most, 4 to 10,000.", 4, 10_000)] = 16,
                   idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0,
                   simulator: Annotated[str, typer.Option(help="icarus or verilator.")] = "icarus",
                   waves: Annotated[Path | None, typer.Option(help="File for all signals' waves, as FST.")] = None,
                   as_json: JsonOption = False) -> None:
    """Generate Verilog and prove it in cocotb (cosim): every score as in the golden model, every cycle as predicted.

    A digits network gets digits; any other gets random pixels. Every beat is compared under idles
    and stalls too.
    """
    network, unit = lay_out(model, folding, input_width, whole_bytes, "accelerator")
    check_pixels(network.topology, images)
    if waves is not None:
        files.check_file(waves)
    if takes_digits(network.topology) and not idle and not stall:
        refuse("here: digits without idles and stalls are always the same", "seed")
    if simulator == "icarus" and (seconds := icarus_seconds(unit, images)) > MAX_ICARUS_S:
        tell(f"Icarus will take about {seconds / 60:,.0f} minutes for {images} images; cbnn volume "
             "compares every beat too, hundreds of times faster")
    with stderr.status("generating and simulating"):
        result = verify(network, unit, sample_images(network, images, seed), out,
                        traffic=Traffic(idle, stall, seed), simulator=simulator, waves=waves)
    facts = {"result": _verdict(result.differences), "images": result.n_images,
             "wrong_images": result.wrong_images, "mistimed_images": result.mistimed_images}
    free = {"predicted": asdict(result.predicted), "measured": result.measured and asdict(result.measured)}
    # The counts are of an undisturbed run; under idles and stalls there is nothing to hold them against.
    tables = facts_tables(facts | free if result.measured else facts)
    print_result(facts | free, as_json, *tables)
    if result.differences:
        sys.exit(complain(result.differences[0], 1))
    next_step("volume", model)


@verb("volume", "cbnn volume digits-5 --folding auto --images 500")
def volume_command(
        network: NetworkArgument, folding: FoldingOption, input_width: BeatOption = None,
        whole_bytes: WholeBytesOption = False,
        images: Annotated[int, option(f"Images to send at most, 1 to {MAX_IMAGES:,}.", 1, MAX_IMAGES)] = 1000,
        images_file: ImagesFileOption = None,
        idle: IdleOption = 0, stall: StallOption = 0, seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Stream many images through the RTL on Verilator: every score and the cycle of every beat out are compared.

    A bare topology gets random weights. Without a file a digits network gets digits, any other
    random pixels. The seed also gives what registers hold before reset. Needs the extra
    cbnn[verilator].
    """
    topology, trained = read_network(network)
    weights = trained or random_network(topology, seed)
    unit = accelerator(weights, read_folding(folding, topology, input_width, whole_bytes))
    check_pixels(topology, images)
    pixels = (files.read_array(images_file)[:images] if images_file
              else sample_images(weights, images, seed)[:images])
    with progress_bar() as progress:
        task = progress.add_task("compiling", total=None)
        result = volume.stream(weights, unit, pixels, traffic=Traffic(idle, stall, seed),
                               progress=lambda done, total: progress.update(task, description="images", completed=done,
                                                                            total=total))
    print_result({"result": _verdict(result.differences), "images": len(result.classes),
                  "wrong_images": result.wrong_images, "mistimed_images": result.mistimed_images,
                  "latency_cycles": result.latency_cycles, "interval_cycles": result.interval_cycles,
                  "cycles": result.n_cycles, "cycles_per_second": round(result.n_cycles / result.run_seconds),
                  "compile_seconds": round(result.build_seconds, 1),
                  "run_seconds": round(result.run_seconds, 1)}, as_json)
    if result.differences:
        sys.exit(complain(result.differences[0], 1))
    next_step("synth", network)


def _verdict(differences: list[str]) -> str:
    return "FAIL" if differences else "PASS"


@verb("synth", "cbnn synth digits-5 --folding auto:1000 --target ecp5")
def synth_command(
        network: NetworkArgument, folding: FoldingOption, input_width: BeatOption = None,
        whole_bytes: WholeBytesOption = False,
        target: Annotated[str, typer.Option(help="xc7, ecp5 or ice40.")] = "xc7",
        place_what: Annotated[str, typer.Option("--place", help="Find the clock with nextpnr on an LFE5U-25F or an "
                                                "iCE40 UP5K: of all 'kernels', one by one, or of the 'whole'.")] = "",
        seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """LUTs, flip-flops, carry cells and block RAMs by Yosys; a bare topology gets random weights.

    Needs Yosys, and for --place nextpnr, on the PATH or by the extra cbnn[synth].
    """
    synthesis.check_target(target)
    place.check_place(place_what, target)
    topology, trained = read_network(network)
    if trained and not place_what:
        refuse("here: the weights are trained, and nothing is placed", "seed")
    weights = trained or random_network(topology, seed)
    unit = accelerator(weights, read_folding(folding, topology, input_width, whole_bytes))
    with scratch_folder() as folder, progress_bar() as progress:
        verilog = generate(unit, folder / "verilog").parent
        progress.add_task("synthesising", total=None)
        rows = [asdict(area) for area in synthesis.synthesize(unit, verilog, target)]
        if place_what:
            task = progress.add_task("placing", total=None)
            clocks = place.clocks(unit, verilog, target, place_what, seed,
                                  lambda done, total: progress.update(task, completed=done, total=total))
            rows = [row | {"mhz": clocks.get(row["module"])} for row in rows]
    kib = {"xc7": 18, "ecp5": 18, "ice40": 4}[target]
    headings = {"module": "module", "luts": "LUTs", "ffs": "flip-flops", "carry": "carry cells",
                "block_rams": f"block RAMs ({kib} Kib)", "mhz": "clock, MHz"}
    print_result({"target": target, "rows": rows}, as_json,
                 rows_table(rows, {key: text for key, text in headings.items() if key in rows[0]}, total=True))
    if not place_what:
        next_step("synth", network, target="ecp5" if target == "xc7" else target, place_what="kernels")
    elif trained:
        next_step("generate", network, out="verilog")
    else:
        next_step("fold", network, device="xc7z020", out="folding.json")
