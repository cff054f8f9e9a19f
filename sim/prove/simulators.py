"""The simulators: Verilog is built for Icarus or Verilator, and a bench of cocotb is run in it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import cocotb_tools.config

from cbnn.sim.prove import verilated
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.verilated import Harness, SimulationError

SIMULATORS = ("icarus", "verilator")


def check_simulator(simulator: str = "icarus") -> None:
    """Raise SimulationError unless the simulator is installed, ValueError where it is none of `SIMULATORS`."""
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator {simulator!r} is not known; the simulators are {' and '.join(SIMULATORS)}")
    if simulator == "verilator":
        verilated.check_verilator()
    elif shutil.which("iverilog") is None:
        raise SimulationError("Icarus Verilog (iverilog) is not installed; install the package iverilog")


def simulate(design: Design, work: Path, bench: str, environment: Mapping[str, str], simulator: str = "icarus",
             waves: bool = False) -> None:
    """Build a design, and run a bench in it; only Icarus writes waves.

    Parameters
    ----------
    work : folder for all that is made, where .mem files are looked for; ``test.log`` is what was said
    bench : module of the bench
    environment : variables for it

    Raises
    ------
    SimulationError
        When the simulator fails.
    """
    from cocotb_tools.runner import get_runner  # a tenth of a second, which only simulating should take

    runner, top, log = get_runner(simulator), design.top, work / "test.log"
    try:
        if simulator == "verilator":
            _verilate(work, design)
        else:
            _compile(work, design, waves)
        runner.test(test_module=bench, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=work, test_dir=work,
                    waves=waves, log_file=log, results_xml=str(work / "results.xml"), timescale=("1ns", "1ps"),
                    extra_env={**environment, "COCOTB_LOG_LEVEL": "WARNING",
                               # The benches' imports assert nothing; rewriting them takes longer than most simulations.
                               "COCOTB_REWRITE_ASSERTION_FILES": ""})
    except (RuntimeError, SystemExit) as error:
        raise SimulationError(f"simulation of {top} failed: {error}; {tail(log)}") from error


def tail(log: Path) -> str:
    """Return the last lines of a log, in one."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " / ".join(line.strip() for line in lines[-3:])


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
