"""Place and route with nextpnr: the clock that a kernel, or the whole accelerator, reaches.

A kernel has more ports than a chip has pins, so it is wrapped: inputs come from a shift register,
outputs are captured and shifted out. Every path of the kernel, from port to port too, then lies
between two registers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.frame_guard import ERROR_BITS
from cbnn.hw.verilog import FILE_LIST
from cbnn.sim.synth.synthesis import TARGETS, SynthesisError, run_tool

HARNESS = "harness"
CHIPS = {"ecp5": ("nextpnr-ecp5", ["--25k", "--package", "CABGA381", "--speed", "6", "--lpf-allow-unconstrained"]),
         "ice40": ("nextpnr-ice40", ["--up5k", "--package", "sg48", "--pcf-allow-unconstrained"])}
"""nextpnr's name and options by target: LFE5U-25F, slowest speed grade, and iCE40 UP5K."""
GOAL_MHZ = {"ecp5": 200, "ice40": 50}
"""Clock that nextpnr works towards, out of reach of most kernels."""


@dataclass(frozen=True)
class Ports:
    """Ports of a module beside the handshakes; the widths are bits of `tdata`.

    Attributes
    ----------
    outputs : further outputs, name and bits
    """

    s_axis: int
    m_axis: int
    clock: str = "clk"
    reset: str = "rst"
    outputs: tuple[tuple[str, int], ...] = ()


def check_place(what: str, target: str) -> None:
    """Raise ValueError unless `what` is "kernels", "whole" or "" (nothing), and nextpnr knows the target."""
    if what not in ("", "kernels", "whole"):
        raise ValueError(f"{what!r} cannot be placed; it must be kernels or whole")
    if what and target not in CHIPS:
        raise ValueError(f"target {target!r} cannot be placed; nextpnr supports {' and '.join(CHIPS)}")


def clocks(accelerator: Accelerator, folder: Path, target: str, what: str, seed: int,
           progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, float]:
    """Return the highest clock in MHz by module name, of every kernel by itself or of the whole; see `place`."""
    jobs = {kernel.name: Ports(kernel.s_axis.width, kernel.m_axis.width) for kernel in accelerator.kernels}
    if what == "whole":
        widths = accelerator.s_axis.bus_width, accelerator.m_axis.bus_width
        jobs = {accelerator.name: Ports(*widths, "aclk", "aresetn",
                                        (("m_axis_tuser", 1), ("frame_errors", ERROR_BITS)))}
    result = {}
    for i, (module, ports) in enumerate(jobs.items()):
        progress(i, len(jobs))
        result[module] = place(module, ports, folder, target, seed)
    return result


def place(module: str, ports: Ports, folder: Path, target: str, seed: int) -> float:
    """Return the highest clock of one module of the Verilog in `folder`, placed and routed inside the harness.

    Raises
    ------
    SynthesisError
        When Yosys or nextpnr is missing, or the module does not fit.
    """
    name, options = CHIPS[target]
    (folder / f"{HARNESS}.v").write_text(harness(module, ports))
    files = [*(folder / FILE_LIST).read_text().split(), f"{HARNESS}.v"]
    run_tool("yosys", ["-Q", "-p", f"read_verilog -sv {' '.join(files)}; {TARGETS[target].command} -top {HARNESS} "
                                   f"-json {HARNESS}.json"], folder, f"{module}.synth.log")
    try:
        run_tool(name, [*options, "--json", f"{HARNESS}.json", "--report", "report.json", "--timing-allow-fail",
                        "--freq", str(GOAL_MHZ[target]), "--seed", str(seed)], folder, f"{module}.place.log")
    except SynthesisError as error:
        raise SynthesisError(f"{module} does not fit the {target}: {error}") from error
    fmax = json.loads((folder / "report.json").read_text())["fmax"]
    return round(min(clock["achieved"] for clock in fmax.values()), 1)


def harness(module: str, ports: Ports) -> str:
    """Return the Verilog of the wrapper: registers on every port, and three pins beside the clock."""
    outputs = [("s_axis_tready", 1), ("m_axis_tvalid", 1), ("m_axis_tlast", 1),
               ("m_axis_tdata", ports.m_axis), *ports.outputs]
    n_in, n_out = ports.s_axis + 4, sum(width for _, width in outputs)
    captured = ", ".join(f".{name}(results[{sum(w for _, w in outputs[:i])} +: {width}])"
                         for i, (name, width) in enumerate(outputs))
    return f"""module {HARNESS} (input wire clk, input wire load, input wire in, output wire out);
reg [{n_in - 1}:0] driven;
reg [{n_out - 1}:0] captured;
wire [{n_out - 1}:0] results;
assign out = captured[0];
always @(posedge clk) begin
    driven <= {{driven[{n_in - 2}:0], in}};
    captured <= load ? results : captured >> 1;
end
{module} dut (
    .{ports.clock}(clk), .{ports.reset}(driven[0]), .m_axis_tready(driven[1]),
    .s_axis_tvalid(driven[2]), .s_axis_tlast(driven[3]), .s_axis_tdata(driven[{n_in - 1}:4]),
    {captured}
);
endmodule
"""
