"""Co-simulation of generated Verilog with cocotb: build, play beats under stalls, collect cycles and results."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cbnn.model.files import write_atomically
from cbnn.model.processes import scratch_folder
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.simulators import check_simulator, simulate, tail
from cbnn.sim.prove.verilated import MismatchError, SimulationError

BENCH = "cbnn.sim.prove.bench"


@dataclass(frozen=True)
class Run:
    """Beats to send after a reset, and how the two sides behave.

    Attributes
    ----------
    beats : `tdata` of every beat, hexadecimal
    lasts : its `tlast`; see `image_ends`
    n_out : beats to wait for
    idle_percent : how often the source offers nothing
    stall_percent : how often the sink takes nothing
    seed : of both patterns
    reset_after : send so many beats first, then reset and start over; None: do not
    max_cycles : cycles after which the hardware is taken to hang
    drain_cycles : cycles to go on after the last beat, for input that no output waits for: rows
        that a pool drops
    """

    beats: tuple[str, ...]
    lasts: tuple[bool, ...]
    n_out: int
    idle_percent: int = 0
    stall_percent: int = 0
    seed: int = 0
    reset_after: int | None = None
    max_cycles: int = 1_000_000
    drain_cycles: int = 0


@dataclass(frozen=True)
class Observation:
    """What a run showed; cycles count from the end of reset.

    Attributes
    ----------
    in_cycles, out_cycles : cycle of every beat taken in and given out
    out_beats : `tdata` of every beat given out
    out_last : its `tlast`
    out_user : its `tuser`, whatever is not 0 counting as true; empty where the module has none
    breaches : breaches of the AXI4-Stream rules, in words
    busy : for every watched unit the cycles in which it worked
    frame_errors : bad frames that the module counted; None where it does not count them
    """

    in_cycles: list[int]
    out_cycles: list[int]
    out_beats: list[int]
    out_last: list[bool]
    out_user: list[bool]
    breaches: list[str]
    busy: list[int]
    frame_errors: int | None


def image_ends(n_images: int, beats: int) -> tuple[bool, ...]:
    """Return `tlast` of the beats of whole images."""
    return ((False,) * (beats - 1) + (True,)) * n_images


def cosimulate(design: Design, runs: Sequence[Run], *, watch: Sequence[str] = (), busy: Sequence[str] = (),
               simulator: str = "icarus", waves: Path | None = None) -> list[Observation]:
    """Play `runs` on a Verilog module, in one simulation.

    Parameters
    ----------
    watch : further links of the top to hold against the AXI4-Stream rules
    busy : signals, by path below the top, whose high cycles are counted
    simulator : ``icarus``, which starts at once, or ``verilator``, which compiles for some ten
        seconds and then runs several times faster; what they show is the same
    waves : file for the waves of every signal, as FST (GTKWave, Surfer); kernels are named as in
        `dataflow`'s timeline

    Raises
    ------
    ValueError
        When there is no such simulator, or it writes no waves.
    SimulationError
        When the simulator is not installed or fails.
    MismatchError
        When a run does not end within its `max_cycles`.
    """
    top = design.top
    check_simulator(simulator)
    if waves is not None and simulator != "icarus":
        raise ValueError(f"{simulator} writes no waves here; icarus does")
    with scratch_folder() as work:
        job = {"clock": design.clock, "reset": design.reset, "reset_level": design.reset_level,
               "watch": list(watch), "busy": list(busy), "runs": [asdict(run) for run in runs]}
        (work / "job.json").write_text(json.dumps(job))
        for content in design.folder.glob("*.mem"):
            shutil.copy(content, work)
        # Copies, since tools do not take every path, such as one with a line break.
        (work / "sources").mkdir()
        for source in design.sources:
            shutil.copy(design.folder / source, work / "sources")
        simulate(replace(design, folder=work / "sources"), work, BENCH,
                 {"CBNN_JOB": str(work / "job.json"), "CBNN_RESULT": str(work / "result.json")}, simulator,
                 waves is not None)
        if not (work / "result.json").exists():
            raise SimulationError(f"simulation of {top} failed: {tail(work / 'test.log')}")
        results = json.loads((work / "result.json").read_text())
        if len(results) < len(runs):
            raise SimulationError(f"simulation of {top} failed: {tail(work / 'test.log')}")
        if waves is not None:
            write_atomically(waves, (work / f"{top}.fst").read_bytes())
    for run, result in zip(runs, results, strict=True):
        if "hung" in result:
            raise MismatchError(f"{top} hangs: {result['hung']} after {run.max_cycles} cycles")
        result["out_beats"] = [int(beat, 16) for beat in result["out_beats"]]
    return [Observation(**result) for result in results]
