"""A Vivado project for a Zynq with DMA, and a driver for PYNQ; neither has seen Vivado or a board."""

from cbnn.hw.accelerator import Accelerator
from cbnn.sim.handover.cores import top_ports
from cbnn.sim.handover.host import template

PART, BOARD = "xc7z020clg400-1", "PYNQ-Z2"
MHZ = 100
MIN_DMA_BYTES, MAX_DMA_BYTES = 4, 128
"""Of a beat of AXI DMA's memory side; narrower streams would only make it slower."""
CONNECT_REGISTERS = "connect_bd_intf_net [get_bd_intf_pins lite/M01_AXI] [get_bd_intf_pins accelerator/s_axil]\n"


def zynq_files(accelerator: Accelerator, control: bool) -> dict[str, str]:
    """Return the files by their names in the folder; none where a beat is wider than the DMA's can be."""
    widths = {port.name: port.width for port in top_ports(accelerator)}
    in_bytes, out_bytes = widths["s_axis_tdata"] // 8, widths["m_axis_tdata"] // 8
    dma_in, dma_out = dma_bytes(in_bytes), dma_bytes(out_bytes)
    if max(dma_in, dma_out) > MAX_DMA_BYTES:
        return {}
    unused = f"{8 * (dma_out - out_bytes)}'b0," if dma_out > out_bytes else ""
    values = {"name": accelerator.name, "topology": str(accelerator.topology), "part": PART, "board": BOARD, "mhz": MHZ,
              "in_bytes": dma_in, "in_beat_bytes": in_bytes, "in_top": 8 * in_bytes - 1,
              "out_bytes": dma_out, "out_beat_bytes": out_bytes, "out_bits": f"{unused}tdata[{8 * out_bytes - 1}:0]",
              "n_lite": 2 if control else 1, "connect_registers": CONNECT_REGISTERS if control else ""}
    return {"zynq/zynq.tcl": template("zynq.tcl.in", values),
            "host/pynq_driver.py": template("pynq_driver.py.in", values)}


def dma_bytes(n_bytes: int) -> int:
    """Return how wide the DMA's stream is whose beats carry so many bytes.

    >>> dma_bytes(1), dma_bytes(7), dma_bytes(8)
    (4, 8, 8)
    """
    return max(MIN_DMA_BYTES, 1 << (n_bytes - 1).bit_length())
