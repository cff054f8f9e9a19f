"""The accelerator and its shell in one module: a clock, a reset, a serial line."""

from pathlib import Path

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.boards.shell import Shell
from cbnn.hw.verilog import FILE_LIST, write_modules, write_verilog


def shell_of(accelerator: Accelerator, divider: int) -> Shell:
    """Return the shell that suits an accelerator, for a line of `divider` clock cycles per bit."""
    return Shell(f"{accelerator.name}_shell", accelerator.input_beats, (accelerator.s_axis.width + 7) // 8,
                 accelerator.m_axis.width, accelerator.classify.class_lane, divider)


def write_serial(accelerator: Accelerator, divider: int, folder: Path) -> tuple[list[str], list[str]]:
    """Write accelerator, shell and the top ``<name>_serial``; return the names of the Verilog and the .mem files."""
    files, mems = write_verilog(accelerator, folder)
    shell = shell_of(accelerator, divider)
    write_modules({shell.name: shell.construct}, frozenset(), folder)
    top = f"{accelerator.name}_serial"
    (folder / f"{top}.v").write_text(serial_top(accelerator, shell))
    files += [f"{shell.name}.v", f"{top}.v"]
    (folder / FILE_LIST).write_text("".join(f"{file}\n" for file in files))
    return files, mems


def serial_top(accelerator: Accelerator, shell: Shell) -> str:
    """Verilog of the module that joins the two."""
    name, sent, result = accelerator.name, 8 * shell.beat_bytes, shell.result_bits
    s_bus, m_bus = accelerator.s_axis.bus_width, accelerator.m_axis.bus_width
    above = f"assign s_axis_tdata[{s_bus - 1}:{sent}] = 0;\n" if s_bus > sent else ""
    return f"""// {name} on a serial line, 8N1, {shell.divider} cycles of clk per bit. One frame in, one frame out.

`timescale 1ns/10ps

module {name}_serial (
    input wire clk,
    input wire rst_n,
    input wire rx,
    output wire tx
);

wire [{s_bus - 1}:0] s_axis_tdata;
wire s_axis_tvalid, s_axis_tready, s_axis_tlast;
wire [{m_bus - 1}:0] m_axis_tdata;
wire m_axis_tvalid, m_axis_tready, m_axis_tlast;
{above}
{shell.name} u_shell (
    .clk(clk), .rst(!rst_n), .rx(rx), .tx(tx),
    .to_play_tdata(s_axis_tdata[{sent - 1}:0]), .to_play_tvalid(s_axis_tvalid), .to_play_tready(s_axis_tready),
    .to_play_tlast(s_axis_tlast),
    .result_tdata(m_axis_tdata[{result - 1}:0]), .result_tvalid(m_axis_tvalid), .result_tready(m_axis_tready),
    .result_tlast(m_axis_tlast)
);

{name} u_{name} (
    .aclk(clk), .aresetn(rst_n),
    .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
    .s_axis_tlast(s_axis_tlast),
    .m_axis_tdata(m_axis_tdata), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready),
    .m_axis_tlast(m_axis_tlast), .m_axis_tuser(), .frame_errors()
);

endmodule
"""
