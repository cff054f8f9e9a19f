"""What the top module has beside the streams where a host controls the accelerator: Verilog text."""

from collections.abc import Sequence

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.control import Control
from cbnn.hw.loading import MEMORY_BITS, LoadWidths
from cbnn.hw.meter import Meter
from cbnn.hw.registers import ADDRESS_BITS, DATA_BITS, N_LIVE, Register, constants, live_words
from cbnn.hw.stream import Kernel

BUS_PORTS = (
    "    // AXI4-Lite, on aclk and aresetn; manifest.json lists the registers.",
    f"    input wire [{ADDRESS_BITS - 1}:0] s_axil_awaddr,",
    "    input wire [2:0] s_axil_awprot,",
    "    input wire s_axil_awvalid,", "    output wire s_axil_awready,",
    f"    input wire [{DATA_BITS - 1}:0] s_axil_wdata,",
    f"    input wire [{DATA_BITS // 8 - 1}:0] s_axil_wstrb,",
    "    input wire s_axil_wvalid,", "    output wire s_axil_wready,",
    "    output wire [1:0] s_axil_bresp,",
    "    output wire s_axil_bvalid,", "    input wire s_axil_bready,",
    f"    input wire [{ADDRESS_BITS - 1}:0] s_axil_araddr,",
    "    input wire [2:0] s_axil_arprot,",
    "    input wire s_axil_arvalid,", "    output wire s_axil_arready,",
    f"    output wire [{DATA_BITS - 1}:0] s_axil_rdata,",
    "    output wire [1:0] s_axil_rresp,",
    "    output wire s_axil_rvalid,", "    input wire s_axil_rready",
)
"""The last ports of the top module."""
GATES = (
    "// A soft reset stops both streams and resets all but the AXI4-Lite slave.",
    "wire soft_reset;",
    "wire rst = !aresetn || soft_reset;",
    "wire s_gate_tready, m_gate_tvalid, m_gate_tlast;",
    "wire s_gate_tvalid = s_axis_tvalid && !soft_reset;",
    "wire m_gate_tready = m_axis_tready && !soft_reset;",
    "assign s_axis_tready = s_gate_tready && !soft_reset;",
    "assign m_axis_tvalid = m_gate_tvalid && !soft_reset;",
    "assign m_axis_tlast = m_gate_tlast;",
)
"""Reset, and links `s_gate` and `m_gate` that stand inside for `s_axis` and `m_axis`."""
BUS_SIGNALS = ("awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid", "wready", "bvalid", "bready",
               "araddr", "arvalid", "arready", "rdata", "rvalid", "rready")
"""Signals of the bus that the slave needs."""


def control_parts(accelerator: Accelerator, table: Sequence[Register]) -> tuple[Meter, Control]:
    """Return the parts that stand beside the streams."""
    return (Meter(f"{accelerator.name}_meter", accelerator.marks.images, accelerator.classify.class_lane),
            Control(f"{accelerator.name}_control", constants(table),
                    LoadWidths.of(accelerator.memories) if accelerator.memories else None))


def load_wires(accelerator: Accelerator) -> list[str]:
    """Return the declarations of the bus that loads memories, where there are any."""
    if not accelerator.memories:
        return []
    widths = LoadWidths.of(accelerator.memories)
    return ["// While load_write is high, load_data goes into a row of a memory.", "wire load_write;",
            f"wire [{MEMORY_BITS - 1}:0] load_memory;", f"wire [{widths.row - 1}:0] load_row;",
            f"wire [{widths.data - 1}:0] load_data;"]


def load_ports(accelerator: Accelerator, kernel: Kernel) -> list[str]:
    """Return the connections through which the memories of a kernel are loaded."""
    numbers, ports = [content.name for content in accelerator.memories], []
    for port, content in kernel.memories.items():
        row_bits = (content.shape.rows - 1).bit_length()
        ports.append(", ".join([
            f".{port}_enable(load_write && load_memory == {MEMORY_BITS}'d{numbers.index(content.name)})",
            *([f".{port}_row(load_row[{row_bits - 1}:0])"] if row_bits else []),
            f".{port}_data(load_data[{content.row_width - 1}:0])"]))
    return ports


def control_text(accelerator: Accelerator, table: Sequence[Register], entry: str) -> list[str]:
    """Return the lines that instantiate meter and slave.

    Parameters
    ----------
    entry : name of the link after the frame guard
    """
    meter, control = control_parts(accelerator, table)
    result_width, measured = accelerator.m_axis.width, [row for row in table if row.source]
    high, low = result_width - 1, result_width - accelerator.classify.class_lane
    return [
        "", *(f"wire {f'[{row.bits - 1}:0] ' if row.bits > 1 else ''}{row.source};" for row in measured),
        "", f"{meter.name} u_meter (", "    .clk(aclk), .rst(rst),",
        f"    .events_entered({entry}_tvalid && {entry}_tready),",
        "    .events_image_end(image_end), .events_damaged(damaged),",
        "    .events_left(m_axis_tvalid && m_axis_tready && m_axis_tlast),",
        f"    .events_malformed(m_axis_tuser), .events_result_class(m_axis_tdata[{high}:{low}]),",
        ",\n".join(f"    .{row.source}({row.source})" for row in measured), ");",
        "", "// Registers that are no constants, the highest address first.",
        f"wire [{DATA_BITS * N_LIVE - 1}:0] live = {{",
        ",\n".join(f"    {word}" for word in reversed(live_words(table))), "};",
        "// Every response is OKAY.", "assign s_axil_bresp = 2'b00, s_axil_rresp = 2'b00;",
        "", f"{control.name} u_control (", "    .clk(aclk), .rst(!aresetn),",
        *(f"    .s_axil_{name}(s_axil_{name})," for name in BUS_SIGNALS),
        *(f"    .load_{name}(load_{name})," for name in ("write", "memory", "row", "data") if control.load),
        "    .live(live), .soft_reset(soft_reset)", ");"]
