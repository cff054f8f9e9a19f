"""Co-simulation of generated Verilog with cocotb: build, play beats under stalls, collect cycles and results."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cocotb_tools.config

from cbnn.model.files import write_atomically
from cbnn.model.processes import scratch_folder
from cbnn.sim.prove import verilated
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.verilated import Harness, MismatchError, SimulationError

BENCH = "cbnn.sim.prove.bench"
SIMULATORS = ("icarus", "verilator")


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
        _simulate(work, replace(design, folder=work / "sources"), simulator, waves is not None)
        if not (work / "result.json").exists():
            raise SimulationError(f"simulation of {top} failed: {_tail(work / 'test.log')}")
        results = json.loads((work / "result.json").read_text())
        if len(results) < len(runs):
            raise SimulationError(f"simulation of {top} failed: {_tail(work / 'test.log')}")
        if waves is not None:
            write_atomically(waves, (work / f"{top}.fst").read_bytes())
    for run, result in zip(runs, results, strict=True):
        if "hung" in result:
            raise MismatchError(f"{top} hangs: {result['hung']} after {run.max_cycles} cycles")
        result["out_beats"] = [int(beat, 16) for beat in result["out_beats"]]
    return [Observation(**result) for result in results]


def check_simulator(simulator: str = "icarus") -> None:
    """Raise SimulationError unless the simulator is installed, ValueError where it is none of `SIMULATORS`."""
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator {simulator!r} is not known; the simulators are {' and '.join(SIMULATORS)}")
    if simulator == "verilator":
        verilated.check_verilator()
    elif shutil.which("iverilog") is None:
        raise SimulationError("Icarus Verilog (iverilog) is not installed; install the package iverilog")


def _simulate(work: Path, design: Design, simulator: str, waves: bool) -> None:
    from cocotb_tools.runner import get_runner  # a tenth of a second, which only simulating should take

    runner, top = get_runner(simulator), design.top
    try:
        if simulator == "verilator":
            _verilate(work, design)
        else:
            _compile(work, design, waves)
        runner.test(test_module=BENCH, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=work, test_dir=work,
                    waves=waves, log_file=work / "test.log", results_xml=str(work / "results.xml"),
                    timescale=("1ns", "1ps"),
                    extra_env={"CBNN_JOB": str(work / "job.json"), "CBNN_RESULT": str(work / "result.json"),
                               "COCOTB_LOG_LEVEL": "WARNING",
                               # The bench asserts nothing; rewriting its imports takes longer than most simulations.
                               "COCOTB_REWRITE_ASSERTION_FILES": ""})
    except (RuntimeError, SystemExit) as error:
        raise SimulationError(f"simulation of {top} failed: {error}; "
                              f"{_tail(work / 'test.log')}") from error


def _compile(work: Path, design: Design, waves: bool) -> None:
    """Do what cocotb's runner would, but so that a killed compiler leaves neither processes nor files."""
    (work / "options.f").write_text("+timescale+1ns/1ps\n")
    top, dump = design.top, []
    if waves:
        (work / "dump.v").write_text(f'module dump();\ninitial begin\n    $dumpfile("{top}.fst");\n'
                                     f"    $dumpvars(0, {top});\nend\nendmodule\n")
        dump = ["-s", "dump", str(work / "dump.v")]
    words = ["iverilog", "-g2012", "-Wall", "-f", str(work / "options.f"), "-o", str(work / "sim.vvp"), "-s", top,
             *dump, *(str(design.folder / source) for source in design.sources)]
    verilated.run(words, work, f"compiling {top}")


def _verilate(work: Path, design: Design) -> None:
    """Build with cocotb's harness, every signal within its reach."""
    libraries = cocotb_tools.config.libs_dir
    harness = Harness(cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp",
                      runtime=(*verilated.RUNTIME, "verilated_vpi.cpp"),
                      linker_options=(f"-Wl,-rpath,{libraries}", f"-L{libraries}", "-lcocotbvpi_verilator"))
    verilated.build(design, work, "Vtop", harness, ["--vpi", "--public-flat-rw", "--timescale", "1ns/1ps"])


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " / ".join(line.strip() for line in lines[-3:])
