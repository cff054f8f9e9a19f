"""Boards: their FPGA, pins and PLL, and the top module that puts an accelerator on them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cbnn.hw.accelerator import Accelerator


class Pll(NamedTuple):
    """Settings of a PLL: what it gives, and its instance in Verilog, from `clk_pin` to `clk` and `locked`."""

    mhz: float
    verilog: str


@dataclass(frozen=True)
class Board:
    """A board with a serial line to a host.

    Attributes
    ----------
    title : as people call it
    target : family, as `cbnn.sim.synth.synthesis.TARGETS` has it
    part : nextpnr's options for its FPGA
    luts, block_rams : LUTs of four inputs, and block RAMs, of it
    mhz : of its oscillator
    pins : of `clk_pin`, `rx` (from the host) and `tx`
    pll : gives the settings whose clock is the highest that is not above so many MHz, of an oscillator
    default_mhz : clock of the accelerator where none is asked for
    """

    title: str
    target: str
    part: tuple[str, ...]
    luts: int
    block_rams: int
    mhz: float
    pins: dict[str, str]
    pll: Callable[[float, float], Pll]
    default_mhz: float


def _highest(found: Iterator[Pll], oscillator: float, mhz: float) -> Pll:
    best = max(found, key=lambda pll: pll.mhz, default=None)
    if best is None:
        raise ValueError(f"no setting of the PLL makes a clock of {mhz:g} MHz or a little less of {oscillator:g} MHz")
    return best


def ice40_pll(oscillator: float, mhz: float) -> Pll:
    """Return the settings of an SB_PLL40_PAD (Lattice TN1251); its VCO runs at 533 to 1066 MHz."""
    def settings() -> Iterator[Pll]:
        for divf in range(128):
            vco = oscillator * (divf + 1)
            for divq in range(1, 7):
                if 533 <= vco <= 1066 and 16 <= vco / 2**divq <= mhz:
                    yield Pll(vco / 2**divq, f"""SB_PLL40_PAD #(
    .FEEDBACK_PATH("SIMPLE"), .PLLOUT_SELECT("GENCLK"),
    .DIVR(4'd0), .DIVF(7'd{divf}), .DIVQ(3'd{divq}), .FILTER_RANGE(3'd{1 if oscillator < 17 else 2})
) u_pll (.PACKAGEPIN(clk_pin), .PLLOUTGLOBAL(clk), .LOCK(locked), .RESETB(1'b1), .BYPASS(1'b0));""")

    return _highest(settings(), oscillator, mhz)


def ecp5_pll(oscillator: float, mhz: float) -> Pll:
    """Return the settings of an EHXPLLL (Lattice TN1263); its VCO runs at 400 to 800 MHz."""
    def settings() -> Iterator[Pll]:
        for clki in range(1, 9):
            for clkfb in range(1, 81):
                out = oscillator * clkfb / clki
                clkop = int(800 // out)
                if 3.125 <= oscillator / clki and 3.125 <= out <= mhz and clkop <= 128 and 400 <= out * clkop:
                    yield Pll(out, f"""(* FREQUENCY_PIN_CLKI="{oscillator:g}", FREQUENCY_PIN_CLKOP="{out:g}" *)
EHXPLLL #(
    .CLKI_DIV({clki}), .CLKFB_DIV({clkfb}), .CLKOP_DIV({clkop}), .CLKOP_CPHASE({clkop - 1}),
    .FEEDBK_PATH("CLKOP"), .CLKOP_ENABLE("ENABLED")
) u_pll (
    .CLKI(clk_pin), .CLKFB(clk), .CLKOP(clk), .LOCK(locked), .RST(1'b0), .STDBY(1'b0),
    .PHASESEL0(1'b0), .PHASESEL1(1'b0), .PHASEDIR(1'b0), .PHASESTEP(1'b0), .PHASELOADREG(1'b0),
    .PLLWAKESYNC(1'b0), .ENCLKOP(1'b0)
);""")

    return _highest(settings(), oscillator, mhz)


def gowin_pll(oscillator: float, mhz: float) -> Pll:
    """Return the settings of an rPLL (Gowin UG286) of a GW2AR-18 C8/I7; its VCO runs at 500 to 1250 MHz."""
    def settings() -> Iterator[Pll]:
        for idiv in range(1, int(oscillator // 3) + 1):
            for fbdiv in range(1, 65):
                out = oscillator * fbdiv / idiv
                for odiv in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128):
                    if 3.90625 <= out <= min(mhz, 625) and 500 <= out * odiv <= 1250:
                        yield Pll(out, f"""rPLL #(
    .FCLKIN("{oscillator:g}"), .DEVICE("GW2AR-18C"),
    .IDIV_SEL({idiv - 1}), .FBDIV_SEL({fbdiv - 1}), .ODIV_SEL({odiv}),
    .DYN_IDIV_SEL("false"), .DYN_FBDIV_SEL("false"), .DYN_ODIV_SEL("false"), .DYN_SDIV_SEL(2),
    .PSDA_SEL("0000"), .DUTYDA_SEL("1000"), .DYN_DA_EN("false"), .CLKFB_SEL("internal"),
    .CLKOUT_BYPASS("false"), .CLKOUTP_BYPASS("false"), .CLKOUTD_BYPASS("false"),
    .CLKOUT_FT_DIR(1'b1), .CLKOUTP_FT_DIR(1'b1), .CLKOUT_DLY_STEP(0), .CLKOUTP_DLY_STEP(0),
    .CLKOUTD_SRC("CLKOUT"), .CLKOUTD3_SRC("CLKOUT")
) u_pll (
    .CLKIN(clk_pin), .CLKOUT(clk), .LOCK(locked), .RESET(1'b0), .RESET_P(1'b0), .CLKFB(1'b0),
    .FBDSEL(6'b0), .IDSEL(6'b0), .ODSEL(6'b0), .PSDA(4'b0), .DUTYDA(4'b0), .FDLY(4'b0),
    .CLKOUTP(), .CLKOUTD(), .CLKOUTD3()
);""")

    return _highest(settings(), oscillator, mhz)


_ULX3S = {"clk_pin": "G2", "rx": "M1", "tx": "L4"}
BOARDS = {
    "icebreaker": Board("iCEBreaker", "ice40", ("--up5k", "--package", "sg48"), 5_280, 30, 12,
                        {"clk_pin": "35", "rx": "6", "tx": "9"}, ice40_pll, 24),
    "ulx3s-25f": Board("ULX3S with an LFE5U-25F", "ecp5", ("--25k", "--package", "CABGA381", "--speed", "6"),
                       24_288, 56, 25, _ULX3S, ecp5_pll, 75),
    "ulx3s-85f": Board("ULX3S with an LFE5U-85F", "ecp5", ("--85k", "--package", "CABGA381", "--speed", "6"),
                       83_640, 208, 25, _ULX3S, ecp5_pll, 75),
    "tangnano20k": Board("Tang Nano 20K", "gowin",
                         ("--device", "GW2AR-LV18QN88C8/I7", "--vopt", "family=GW2A-18C"), 20_736, 46, 27,
                         {"clk_pin": "4", "rx": "70", "tx": "69"}, gowin_pll, 54),
}
"""All boards by name. Nothing has run on any of them yet."""


def constraints(board: Board) -> tuple[str, str]:
    """Return the name of the constraints file, and its text."""
    pins = board.pins.items()
    if board.target == "ice40":
        return "pins.pcf", "".join(f"set_io {name} {pin}\n" for name, pin in pins)
    if board.target == "gowin":
        return "pins.cst", "".join(f'IO_LOC "{name}" {pin};\nIO_PORT "{name}" IO_TYPE=LVCMOS33 '
                                   f'PULL_MODE={"UP" if name == "rx" else "NONE"};\n' for name, pin in pins)
    lines = "".join(f'LOCATE COMP "{name}" SITE "{pin}";\nIOBUF PORT "{name}" IO_TYPE=LVCMOS33;\n'
                    for name, pin in pins)
    return "pins.lpf", f'{lines}FREQUENCY PORT "clk_pin" {board.mhz:g} MHZ;\n'


def board_top(accelerator: Accelerator, board: Board, pll: Pll) -> str:
    """Verilog of the module ``<name>_board``: PLL, a reset until it has locked, accelerator and shell."""
    return f"""// {accelerator.name} on {board.title}: {pll.mhz:g} MHz of {board.mhz:g} MHz. Not run on silicon yet.

`timescale 1ns/10ps

module {accelerator.name}_board (
    input wire clk_pin,
    input wire rx,
    output wire tx
);

wire clk, locked;
reg [7:0] steady = 0;

{pll.verilog}

// Reset for 128 cycles after the PLL has locked.
always @(posedge clk) begin
    if (!locked)
        steady <= 0;
    else if (!steady[7])
        steady <= steady + 1;
end

{accelerator.name}_serial u_serial (.clk(clk), .rst_n(steady[7]), .rx(rx), .tx(tx));

endmodule
"""
