"""ROM: weights and thresholds, loaded from a .mem file; a single word is a constant.

A ROM is a module of its own, whose boundary is kept in synthesis: there it takes a LUT of six inputs per bit and 64
words, which it would not among other logic, where optimisation shares parts of one bit's table with another's. In
block RAM it has a register behind it, and one more where words are chosen from a row, see `cost.RomShape`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from myhdl import Signal, always, always_comb, block, intbv

from cbnn.hw.instance import Place, instance
from cbnn.hw.stream import Rom, counter

MEM_FOLDER = "CBNN_MEM_DIR"
"""Verilog macro: the folder of the .mem files with a slash at its end, in quotes; else they are where a tool runs."""


def rom_submodules(contents: tuple[Rom, ...]) -> dict[str, Callable[[], Any]]:
    """Return constructors of the modules that `rom` instantiates, by name."""
    def construct(content: Rom) -> Any:
        clk, advance = Signal(bool(0)), Signal(bool(0))
        return rom_module(clk, advance, counter(len(content.words)), Signal(intbv(0)[content.width :]), content)

    return {content.name: partial(construct, content) for content in contents if len(content.words) > 1}


@block
def rom(clk, advance, address, data, content):
    """Read a ROM synchronously: `data` is the word at `address` `shape.read_cycles` later, held while `advance` is low.

    A ROM of one word has no register: `data` is that word at all times.
    """
    if len(content.words) > 1:
        return instance(Place(content.name, f"u_{content.name}"), rom_module, clk, advance, address, data, content)
    return read_rom(clk, advance, address, data, content)


@block
def rom_module(clk, advance, address, data, content):
    """ROM, read synchronously; data holds while advance is low."""
    return read_rom(clk, advance, address, data, content)


@block
def read_rom(clk, advance, address, data, content):
    """Read a ROM, see `rom`."""
    words = content.words if len(content.words) > 1 else content.words * 2
    read_cycles = content.shape.read_cycles
    early = [Signal(intbv(0)[content.width :]) for _ in range(read_cycles)]

    @always(clk.posedge)
    def read():
        if advance:
            early[0].next = words[address]
            for i in range(1, read_cycles):
                early[i].next = early[i - 1]

    @always_comb
    def drive():
        data.next = early[read_cycles - 1] if len(content.words) > 1 else words[0]

    if len(content.words) == 1:
        data.driven = "wire"
        read_rom.verilog_code = f"assign $data = {content.width}'h{content.words[0]:x};"
    else:
        clk.read = advance.read = address.read = True
        data.driven = "reg"
        read_rom.verilog_code = _verilog(content)
    return read, drive


def _verilog(content: Rom) -> str:
    """Verilog of a ROM of several words."""
    shape, width = content.shape, content.width
    # Yosys and Vivado know "block" both; LUTs are Yosys' "logic", and what Vivado does by itself.
    lines = [f'(* ram_style = "{"block" if content.block_ram else "logic"}" *)',
             f"reg [{width * shape.per_row - 1}:0] rows [0:{shape.rows - 1}];",
             *_loading(f"{content.name}.mem")]
    if shape.read_cycles == 1:
        reading = ["$data <= rows[$address];"]
    else:
        lines.append(f"reg [{width * shape.per_row - 1}:0] row;")
        reading = ["row <= rows[$address];", "$data <= row;"]
    if shape.read_cycles == 3:
        low, high = (shape.rows - 1).bit_length(), (len(content.words) - 1).bit_length()
        lines += [f"reg [{width * shape.per_row - 1}:0] held_row;", f"reg [{high - low - 1}:0] place, held_place;"]
        reading = [f"row <= rows[$address[{low - 1}:0]];", f"place <= $address[{high - 1}:{low}];",
                   "held_row <= row;", "held_place <= place;", f"$data <= held_row[held_place * {width} +: {width}];"]
    return "\n".join([*lines, "always @(posedge $clk) begin: read_word", "    if ($advance) begin",
                      *(f"        {line}" for line in reading), "    end", "end"])


def _loading(file: str) -> list[str]:
    """Load the rows from a file: in the folder that a tool runs in, as most find it, or in one that a macro names."""
    return [f"`ifdef {MEM_FOLDER}", f'initial $$readmemh({{`{MEM_FOLDER}, "{file}"}}, rows);',
            "`else", f'initial $$readmemh("{file}", rows);', "`endif"]
