"""Verbs for boards: from a network to a bitstream, and the class of a picture from the board."""

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import Meta

from cbnn.hw.accelerator import Accelerator, accelerator
from cbnn.hw.boards.boards import BOARDS
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.model.compute import golden
from cbnn.model.files import MAX_JSON_BYTES, decode_json, read_bounded, visible
from cbnn.sim.board import build as building
from cbnn.sim.board import fitting, host
from cbnn.sim.board.flow import Taken
from cbnn.sim.board.simulation import Answering, simulated
from cbnn.sim.board.stages import unfinished
from cbnn.sim.command.options import (
    BeatOption,
    JsonOption,
    ModelArgument,
    OutOption,
    WholeBytesOption,
    complain,
    lay_out,
    load_model,
)
from cbnn.sim.command.screen import facts_tables, print_result, progress_bar, rows_table, tell
from cbnn.sim.command.verbs import next_step, option, verb
from cbnn.sim.predict import dataflow
from cbnn.sim.predict.cycles import predict
from cbnn.sim.predict.search import Search

LOWEST_MHZ, HIGHEST_MHZ, LOWEST_BAUD, HIGHEST_BAUD = 5, 400, 300, 12_000_000
NAME = "net"
"""Top module of an accelerator on a board."""


@verb("board", "cbnn board digits-1 --board icebreaker --out icebreaker")
def board_command(
        model: ModelArgument, out: OutOption, board: Annotated[str, typer.Option(help=f"{', '.join(BOARDS)}.")],
        folding: Annotated[str, typer.Option(
            help="auto: the fastest that fits the board, found by synthesising a few; else (PE,SIMD) of every layer, "
                 "as in (16,9)(8,16)(10,8); a JSON file; auto:512: the cheapest that takes at most so many cycles per "
                 "image.")] = "auto",
        input_width: BeatOption = None, whole_bytes: WholeBytesOption = False,
        mhz: Annotated[float | None, option("Clock of the accelerator, MHz; the PLL's nearest below is taken. Else one "
                                            "that suits the board.", LOWEST_MHZ, HIGHEST_MHZ)] = None,
        baud: Annotated[int, option("Bits per second of the serial line.", LOWEST_BAUD, HIGHEST_BAUD)] = 115_200,
        seeds: Annotated[int, option("How often nextpnr places it; the fastest is taken.", 1, 100)] = 5,
        as_json: JsonOption = False) -> None:
    """Make a bitstream: accelerator, serial line, PLL and pins, with Yosys and nextpnr. Needs the extra cbnn[synth].

    Nothing has run on any of the boards yet; the Verilog of accelerator and serial line is proven in
    simulation. A build that was stopped or killed leaves a folder OUT.unfinished, and the same command goes on there.
    """
    wanted = building.goal(board, mhz, baud, range(1, seeds + 1))
    with unfinished(out) as stages, progress_bar() as progress:
        task = progress.add_task("synthesising", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, description="placing" if done else "synthesising", completed=done, total=total)

        if folding == "auto":
            network = load_model(model)
            search = Search(network.topology, input_width, whole_bytes)
            unit, result = fitting.build_fastest(network, search, wanted, out, stages, NAME, show,
                                                 lambda unit, took: tell(_tried(unit, took, wanted)))
        else:
            _, unit = lay_out(model, folding, input_width, whole_bytes, NAME)
            result = fitting.build_given(unit, wanted, out, stages, show)
    cycles = predict(unit)
    facts = {"board": board, "folding": str(unit.folding), "bitstream": str(result.bitstream), "mhz": wanted.pll.mhz,
             "baud": baud,
             "interval_cycles": cycles.interval_cycles, "latency_cycles": cycles.latency_cycles,
             "images_per_second_of_the_core": int(wanted.pll.mhz * 1e6 / cycles.interval_cycles),
             "used": {name: f"{used} of {total}" for name, (used, total) in result.used.items()}}
    rows = [asdict(seed) | {"chosen": seed.seed == result.chosen} for seed in result.seeds]
    headings = {"seed": "seed", "mhz": "clock, MHz", "slack_ns": "slack, ns", "chosen": "in the bitstream"}
    print_result(facts | {"seeds": rows}, as_json, *facts_tables(facts), rows_table(rows, headings))
    next_step("classify", model, "image.png", board_folder=out, port="/dev/ttyUSB1")


def _tried(unit: Accelerator, took: Taken, wanted: building.Goal) -> str:
    """Say what a folding takes of a board."""
    board = wanted.board
    return (f"folding {unit.folding}, {unit.interval_cycles:,} cycles per image: {took.cells:,} of {board.luts:,} "
            f"logic cells, {took.block_rams:,} of {board.block_rams:,} block RAMs"
            f"{'' if fitting.fits(wanted, took) else ': does not fit'}")


class Record(msgspec.Struct, forbid_unknown_fields=True):
    """What `classify` must know of a board's folder."""

    board: str
    topology: str
    folding: str
    input_width: int
    whole_bytes: bool
    mhz: Annotated[float, Meta(ge=LOWEST_MHZ, le=HIGHEST_MHZ)]
    baud: Annotated[int, Meta(ge=LOWEST_BAUD, le=HIGHEST_BAUD)]


@verb("classify", "cbnn classify digits-1 image.png --board-folder icebreaker --port /dev/ttyUSB1")
def classify_command(
        model: ModelArgument,
        image: Annotated[Path, typer.Argument(help="A picture of 8 bits per colour, or an .npy array of pixels.")],
        board_folder: Annotated[Path, typer.Option(help="Folder that cbnn board wrote.")],
        port: Annotated[str | None, typer.Option(help="Serial port of the board, as pyserial names it.")] = None,
        simulate: Annotated[str | None, typer.Option(
            help="Ask a simulated board instead: its Verilog (rtl), or what Yosys made of it (netlist).")] = None,
        repeats: Annotated[int, option("How often the board plays the image, to measure its interval.", 1, 256)] = 16,
        as_json: JsonOption = False) -> None:
    """Ask a board for the class of one image, and hold class and cycles against model and prediction.

    Needs the extra cbnn[board]. A simulated board is asked through a pseudo-terminal, by the same
    program. Exit code 1: the board differs.
    """
    import serial  # only this verb needs it

    from cbnn.model.data import pictures

    if (port is None) == (simulate is None):
        raise ValueError("either --port or --simulate says which board to ask")
    network = load_model(model)
    file = board_folder / building.RECORD
    content = read_bounded(file, MAX_JSON_BYTES)
    try:
        record = decode_json(content, Record)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    building.check_board(record.board)
    if str(network.topology) != record.topology:
        raise ValueError(f"the network is {network.topology}; the board of {board_folder} is made for "
                         f"{record.topology}")
    unit = accelerator(network, Folding.parse(record.folding, network.topology, record.input_width,
                                              record.whole_bytes), NAME)
    pixels = pictures.read_image(image, network)
    n_bytes = (unit.folding.input_width + 7) // 8
    beats = b"".join(beat.to_bytes(n_bytes, "little") for beat in input_beats(unit, pixels))
    trace = dataflow.simulate(unit, repeats)
    asked = nullcontext(Answering(port, host.PATIENCE_S, time.monotonic)) if port is not None else simulated(
        board_folder, NAME, BOARDS[record.board], record.mhz, record.baud, str(simulate))
    with asked as answering, serial.serial_for_url(answering.port, record.baud) as line:
        said = host.ask(line, beats, unit.classify.class_lane // 8, baud=record.baud, repeats=repeats,
                        work_s=int(trace.taken(-1)[-1]) / (record.mhz * 1e6), patience_s=answering.patience_s,
                        clock=answering.clock)
    predicted = {"class": int(golden.scores(network, pixels)[0].argmax()), "latency_cycles": trace.latency_cycles}
    measured = {"class": said.class_, "latency_cycles": said.latency_cycles}
    if repeats > 1:  # one image has no interval
        predicted["interval_cycles"], measured["interval_cycles"] = trace.interval_cycles, said.interval_cycles
    facts = {"image": str(image), "asked": port or f"the simulated {simulate}", "predicted": predicted,
             "measured": measured, "damaged_frames": said.damaged_frames}
    print_result(facts, as_json, *facts_tables(facts))
    if predicted != measured:
        sys.exit(complain(f"the board says {json.dumps(measured)}, predicted is {json.dumps(predicted)}", 1))
    next_step("predict", model, visible(image))
