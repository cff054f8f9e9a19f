"""Place and route with nextpnr: the clock that a kernel, or the whole accelerator, reaches.

A kernel has more ports than a chip has pins, so it is wrapped: inputs come from a shift register, outputs are
captured and shifted out. Every path of the kernel, from port to port too, then lies between two registers.
"""

import json
from collections.abc import Callable
from pathlib import Path

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.verilog import FILE_LIST, padded
from cbnn.sim.synth import TARGETS, SynthesisError, run_tool

HARNESS = "harness"
CHIPS = {"ecp5": ("nextpnr-ecp5", ["--25k", "--package", "CABGA381", "--speed", "6", "--lpf-allow-unconstrained"]),
         "ice40": ("nextpnr-ice40", ["--up5k", "--package", "sg48", "--pcf-allow-unconstrained"])}
"""nextpnr's name and options by target: LFE5U-25F, slowest speed grade, and iCE40 UP5K."""
GOAL_MHZ = {"ecp5": 200, "ice40": 50}
"""Clock that nextpnr works towards, out of reach of most kernels."""


def check_place(what: str, target: str) -> None:
    """Raise ValueError unless `what` is "kernels", "whole" or "" (nothing), and nextpnr knows the target."""
    if what not in ("", "kernels", "whole"):
        raise ValueError(f"{what!r} cannot be placed; it must be kernels or whole")
    if what and target not in CHIPS:
        raise ValueError(f"target {target!r} cannot be placed; nextpnr supports {' and '.join(CHIPS)}")


def clocks(accelerator: Accelerator, folder: Path, target: str, what: str, seed: int,
           progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, float]:
    """Return the highest clock in MHz by module name, of every kernel alone or of the whole; see `place`."""
    first, last = accelerator.kernels[0], accelerator.kernels[-1]
    jobs = [(kernel.name, (kernel.s_width, kernel.m_width), ("clk", "rst")) for kernel in accelerator.kernels]
    if what == "whole":
        jobs = [(accelerator.name, (padded(first.s_width), last.m_width), ("aclk", "aresetn"))]
    result = {}
    for i, (module, ports, clock_ports) in enumerate(jobs):
        progress(i, len(jobs))
        result[module] = place(module, ports, clock_ports, folder, target, seed)
    return result


def place(module: str, ports: tuple[int, int], clock_ports: tuple[str, str], folder: Path, target: str,
          seed: int) -> float:
    """Return the highest clock of one module of the Verilog in `folder`, placed and routed inside the harness.

    Parameters
    ----------
    ports : bits of `s_axis_tdata` and of `m_axis_tdata`
    clock_ports : names of its clock and reset

    Raises
    ------
    SynthesisError
        When Yosys or nextpnr is missing, or the module does not fit.
    """
    name, options = CHIPS[target]
    (folder / f"{HARNESS}.v").write_text(harness(module, *ports, clock_ports))
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


def harness(module: str, s_width: int, m_width: int, clock_ports: tuple[str, str]) -> str:
    """Return the Verilog of the wrapper: registers on every port, and three pins beside the clock."""
    clock, reset = clock_ports
    n_in, n_out = s_width + 4, m_width + 3
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
    .{clock}(clk), .{reset}(driven[0]), .m_axis_tready(driven[1]),
    .s_axis_tvalid(driven[2]), .s_axis_tlast(driven[3]), .s_axis_tdata(driven[{n_in - 1}:4]),
    .s_axis_tready(results[0]), .m_axis_tvalid(results[1]), .m_axis_tlast(results[2]),
    .m_axis_tdata(results[{n_out - 1}:3])
);
endmodule
"""
