"""Verilog on disk: a module and a file per kernel, a top that instantiates them, .mem files, a manifest."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from myhdl import ToVerilogWarning, _block, _simulator

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.control import Control
from cbnn.hw.control_top import BUS_PORTS, GATES, control_parts, control_text, load_ports, load_wires
from cbnn.hw.frame_guard import ERROR_BITS, FrameGuard
from cbnn.hw.input_stream import input_order
from cbnn.hw.instance import converting
from cbnn.hw.loading import load_entry
from cbnn.hw.meter import Meter
from cbnn.hw.mvtu.rom import WritePort
from cbnn.hw.registers import Register, manifest_entry, registers
from cbnn.hw.result_marks import ResultMarks
from cbnn.hw.stream import OUTSIDE, Kernel, Stream, clock_and_reset
from cbnn.model.files import folder_written

MANIFEST = "manifest.json"
FILE_LIST = "files.f"
FRAMES = {
    "frame": "What lies between two s_axis_tlast; it should have the beats of an image.",
    "too_short": "It is filled up with beats of zeros; its result is marked and it is counted.",
    "too_long": "It is cut: beats after those of an image are swallowed up to s_axis_tlast; its "
                "result is marked and it is counted.",
    "m_axis_tuser": "1 in every beat of a marked result, else 0. Every frame gives one result, in "
                    "order.",
    "frame_errors": "Counts the frames that were too short or too long, since reset; it wraps.",
    "USE_TLAST": "Parameter of the top module. 1: as above. 0: s_axis_tlast is ignored, images are "
                 "told apart by counting beats, and no frame is wrong.",
}
"""What a host needs to know of frames, for the manifest."""


def generate(accelerator: Accelerator, folder: Path,
             predicted: Mapping[str, float] | None = None, *, control: bool = False) -> Path:
    """Write the accelerator's Verilog, ROM contents, file list and manifest to `folder`, whole or not at all.

    The same accelerator gives the same bytes. A folder that an earlier call wrote is replaced.

    Parameters
    ----------
    predicted : cycles for the manifest, by name, from `cbnn.sim.predict.cycles.predict`; None: it
        has none
    control : whether a host reads registers and resets the accelerator over AXI4-Lite, see
        `cbnn.hw.registers`; these show `interval_cycles` and `latency_cycles` of `predicted`. Needed
        where memories are writable

    Returns
    -------
    The manifest's path. The .mem files are looked for where a tool runs, see `cbnn.hw.mvtu.rom.MEM_FOLDER`.

    Raises
    ------
    ValueError
        When `folder` holds anything that `generate` did not write, `control` is wanted and nothing predicted, or
        memories are writable without it.
    """
    if control and predicted is None:
        raise ValueError("the registers show predicted cycles; none are given")
    table = registers(accelerator, predicted) if control and predicted else ()
    with folder_written(folder) as fresh:
        content = manifest(accelerator, *write_verilog(accelerator, fresh, table), predicted, table)
        (fresh / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")
    return folder / MANIFEST


def write_verilog(accelerator: Accelerator, folder: Path,
                  table: Sequence[Register] = ()) -> tuple[list[str], list[str]]:
    """Write modules, ROM contents and the file list; return the names of the Verilog and of the .mem files.

    Parameters
    ----------
    table : registers that a host is to reach, if any
    """
    if accelerator.memories and not table:
        raise ValueError("memories are written through registers; none are wanted")
    parts = (*accelerator.parts, *(control_parts(accelerator, table) if table else ()))
    modules = [module for part in parts for module in write_part(part, folder)]
    (folder / f"{accelerator.name}.v").write_text(top_module(accelerator, table))
    files = [f"{module}.v" for module in [*modules, accelerator.name]]
    (folder / FILE_LIST).write_text("".join(f"{file}\n" for file in files))
    return files, [f"{rom.name}.mem" for kernel in accelerator.kernels for rom in kernel.roms if not rom.constant]


def write_part(part: FrameGuard | Kernel | ResultMarks | Meter | Control, folder: Path) -> list[str]:
    """Write the modules of one part of an accelerator; return the names of those that `folder` had not.

    Parts of an accelerator share circuits, which an earlier part may have written.
    """
    earlier = {path.stem for path in folder.glob("*.v")}
    if isinstance(part, Kernel):
        return [module for module in write_kernel(part, folder) if module not in earlier]
    return write_modules({part.name: part.construct}, frozenset(), folder)


def write_kernel(kernel: Kernel, folder: Path) -> list[str]:
    """Write the modules of one kernel, innermost first, and its ROMs; return the modules' names."""
    clk, rst = clock_and_reset()
    s_axis, m_axis = Stream(kernel.s_axis.width), Stream(kernel.m_axis.width)
    ports = [WritePort(content) for content in kernel.memories.values()]
    constructors = {**kernel.submodules(), kernel.name: lambda: kernel.hardware(clk, rst, s_axis, m_axis, *ports)}
    for content in kernel.roms:
        if not content.constant:
            (folder / f"{content.name}.mem").write_text(content.mem)
    return write_modules(constructors, kernel.kept_modules, folder)


def write_modules(constructors: Mapping[str, Callable[[], Any]], kept: frozenset[str],
                   folder: Path) -> list[str]:
    """Convert blocks to modules of these names; synthesis is to keep the boundaries of `kept`."""
    with warnings.catch_warnings():
        # Flags that some sizes do not need stay undriven or unread; synthesis drops them.
        warnings.simplefilter("ignore", ToVerilogWarning)
        for name, construct in constructors.items():
            _convert(name, construct, folder, name in kept)
    return list(constructors)


def _convert(name: str, construct: Callable[[], Any], folder: Path, kept: bool) -> None:
    """Write one module."""
    _forget_names()
    with converting():
        construct().convert(name=name, path=str(folder), no_myhdl_header=True, testbench=False)
    file = folder / f"{name}.v"
    text = _tidy(file.read_text())
    file.write_text(text.replace(f"module {name} ", f"(* keep_hierarchy *)\nmodule {name} ") if kept else text)


def _forget_names() -> None:
    """Let MyHDL number blocks from zero again.

    It never uses a block's name twice in a process, so that the names in a module, and with them
    its text, would depend on everything converted before. It offers no call for this; its version
    is pinned.
    """
    _block._name_set.clear()
    for block in _simulator._blocks:
        block.calls = 0


def _tidy(text: str) -> str:
    """Write what the converter takes from hashes in one order, and its arithmetic as numbers.

    Combinational blocks are sensitive to all that they read. Those that read memories keep their
    list, since Icarus warns of them otherwise.
    """
    text = re.sub(r"(?<=always @\()(?!posedge)[^)]*(?=\) begin)",
                  lambda m: ", ".join(sorted(m[0].split(", "))) if "[" in m[0] else "*", text)
    text = text.replace("always @(*)", "always @*").replace("if (rst == 1) begin", "if (rst) begin")
    text = re.sub(r"(?<=if \(rst\) begin\n)(?: +\w+ <= \w+;\n)+",
                  lambda m: "".join(sorted(m[0].splitlines(keepends=True))), text)
    # The bounds of slices and memories: [9-1:0] is [8:0].
    text = re.sub(r"(?<=[\[:])(\d+)-1(?=[\]:])", lambda m: str(int(m[1]) - 1), text)
    text = re.sub(r"\((\w+) [-+] 0\)", r"\1", text)
    n_uses = Counter(re.findall(r"\w+", text))
    # Signals of blocks that became modules of their own leave their declarations.
    lines = [line.rstrip() for line in text.splitlines()
             if not ((declared := re.fullmatch(r"(?:wire|reg) (?:\[\d+:0\] )?(\w+)(?: \[0:.*\])?;", line))
                     and n_uses[declared[1]] == 1)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def top_module(accelerator: Accelerator, table: Sequence[Register] = ()) -> str:
    """Verilog of the module that joins the parts, with an AXI4-Lite slave for the registers of `table`, if any."""
    guard, marks = accelerator.guard, accelerator.marks
    width, result_width = guard.width, marks.width
    s_bus, m_bus = accelerator.s_axis.bus_width, accelerator.m_axis.bus_width
    short = [name.removeprefix(f"{accelerator.name}_")
             for name in (guard.name, *(kernel.name for kernel in accelerator.kernels))]
    # Every link has the name of what gives it; the guard stands before all kernels, the marks after them.
    wires = {link: short[link.source - OUTSIDE] for link in accelerator.links}
    lines = [
        f"module {accelerator.name} #(",
        "    // 0: s_axis_tlast is ignored, and images are told apart by counting beats.",
        "    parameter USE_TLAST = 1",
        ") (",
        "    input wire aclk,", "    input wire aresetn,",
        f"    input wire [{s_bus - 1}:0] s_axis_tdata,",
        "    input wire s_axis_tvalid,", "    output wire s_axis_tready,",
        "    input wire s_axis_tlast,",
        f"    output wire [{m_bus - 1}:0] m_axis_tdata,",
        "    output wire m_axis_tvalid,", "    input wire m_axis_tready,",
        "    output wire m_axis_tlast,",
        "    // High in every beat of a result whose frame was too short or too long.",
        "    output wire m_axis_tuser,",
        "    // Frames that were too short or too long; it wraps.",
        f"    output wire [{ERROR_BITS - 1}:0] frame_errors" + ("," if table else ""),
        *(BUS_PORTS if table else ()),
        ");", "", *(GATES if table else ["wire rst = !aresetn;"]),
        *([f"wire unused = &s_axis_tdata[{s_bus - 1}:{width}];"] if s_bus > width else ()),
        *([f"assign m_axis_tdata[{m_bus - 1}:{result_width}] = 0;"] if m_bus > result_width else ()),
        *load_wires(accelerator), "wire image_end, damaged;"]
    for link, name in wires.items():
        bits = width if link.source == OUTSIDE else accelerator.kernels[link.source].outputs[link.source_port].width
        lines += [f"wire [{bits - 1}:0] {name}_tdata;", f"wire {name}_tvalid, {name}_tready, {name}_tlast;"]
    lines += [f"wire frame_end = USE_TLAST != 0 ? s_axis_tlast : {short[0]}_tlast;",
              *_instance(guard.name, short[0], [
                  ".image_end(image_end), .damaged(damaged), .frame_errors(frame_errors)",
                  _stream("s_axis", f"s_axis_tdata[{width - 1}:0]", "s_gate" if table else "s_axis", "frame_end"),
                  _stream("m_axis", f"{short[0]}_tdata", short[0])])]
    for i, kernel in enumerate(accelerator.kernels):
        lines += _instance(kernel.name, short[i - OUTSIDE], [
            *load_ports(accelerator, kernel),
            *(_stream("s_axis", f"{name}_tdata", name) for link, name in wires.items() if link.sink == i),
            *(_stream("m_axis", f"{name}_tdata", name) for link, name in wires.items() if link.source == i)])
    result = next(name for link, name in wires.items() if link.sink == OUTSIDE)
    lines += _instance(marks.name, "marks", [
        ".image_end(image_end), .damaged(damaged), .m_axis_tuser(m_axis_tuser)",
        _stream("s_axis", f"{result}_tdata", result),
        _stream("m_axis", f"m_axis_tdata[{result_width - 1}:0]", "m_gate" if table else "m_axis")])
    if table:
        lines += control_text(accelerator, table, short[0])
    return "\n".join([*_header(accelerator), "`timescale 1ns/10ps", "", *lines, "", "endmodule"]) + "\n"


def _instance(module: str, name: str, ports: list[str]) -> list[str]:
    return ["", f"{module} u_{name} (", "    .clk(aclk), .rst(rst),", *(f"    {port}," for port in ports[:-1]),
            f"    {ports[-1]}", ");"]


def _stream(port: str, data: str, wires: str, last: str = "") -> str:
    return (f".{port}_tdata({data}), .{port}_tvalid({wires}_tvalid), "
            f".{port}_tready({wires}_tready), .{port}_tlast({last or f'{wires}_tlast'})")


def _header(accelerator: Accelerator) -> list[str]:
    """Say what the top module is, how it is fed and how fast it is, to somebody who has only this file."""
    first, last, sent = accelerator.s_axis, accelerator.m_axis, accelerator.folding.input
    return [f"// Binary neural network {accelerator.topology}",
            f"// folded {accelerator.folding}: (PE,SIMD) per layer. Generated by cbnn {version('cbnn')};",
            "// what is generated is yours, under no licence of cbnn's.",
            "//",
            "// aclk is the only clock; aresetn is a synchronous reset, active low. Both streams are AXI4-Stream.",
            f"// s_axis: {first.beats} beats per image, {first.width} bits of its {sent} in each, in the order",
            f"//   {input_order(accelerator)};",
            "//   tlast in the last beat of an image.",
            f"// m_axis: {last.beats} beats per image, {last.width} bits each; manifest.json says what is where.",
            "// These are the low bits of tdata; s_axis_tdata above them is ignored, m_axis_tdata is 0.",
            f"// The slowest kernel takes {accelerator.interval_cycles} cycles per image.",
            ""]


def manifest(accelerator: Accelerator, files: list[str], mem_files: list[str],
             predicted: Mapping[str, float] | None, table: Sequence[Register] = ()) -> dict:
    """Everything that a test bench or a host needs to know; all counts are per image."""
    topology = accelerator.topology
    return {
        "generator": f"cbnn {version('cbnn')}",
        "top": accelerator.name,
        "topology": str(topology), "in_shape": list(topology.in_shape), "input_bits": topology.input_bits,
        "kept_slices": list(topology.kept_slices), "first_layer": topology.first_layer,
        "folding": str(accelerator.folding),
        "s_axis": {"tdata_bits": accelerator.s_axis.bus_width, "used_bits": accelerator.s_axis.width,
                   "beats": accelerator.input_beats,
                   "input": accelerator.folding.input,
                   "order": input_order(accelerator)},
        "m_axis": accelerator.classify.layout | {"tuser_bits": 1},
        "frames": FRAMES | {"frame_errors_bits": ERROR_BITS},
        **({} if predicted is None else {"predicted": dict(predicted)}),
        **({"registers": manifest_entry(table)} if table else {}),
        **({"load": load_entry(accelerator.memories)} if accelerator.memories else {}),
        "kernels": [{"module": kernel.name, "kind": type(kernel).__name__, "s_beats": kernel.s_axis.beats,
                     "m_beats": kernel.m_axis.beats, "interval_cycles": kernel.interval_cycles,
                     "latency_cycles": kernel.latency_cycles, "luts_estimate": kernel.luts}
                    for kernel in accelerator.kernels],
        "files": files,
        "mem_files": mem_files,
    }
