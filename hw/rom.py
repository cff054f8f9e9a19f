"""ROM: weights and thresholds, loaded from a .mem file; a single word is a constant.

A ROM is a module of its own, whose boundary is kept in synthesis: there it takes a LUT of six inputs per bit and 64
words, which it would not among other logic, where optimisation shares parts of one bit's table with another's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from myhdl import Signal, always, block, intbv

from cbnn.hw.instance import inside_is_elsewhere, instantiation, placeholder
from cbnn.hw.stream import Rom, counter


def rom_submodules(contents: tuple[Rom, ...]) -> dict[str, Callable[[], Any]]:
    """Return constructors of the modules that `rom` instantiates, by name."""
    def construct(content: Rom) -> Any:
        clk, advance = Signal(bool(0)), Signal(bool(0))
        return rom_module(clk, advance, counter(len(content.words)), Signal(intbv(0)[content.width :]), content)

    return {content.name: partial(construct, content) for content in contents if len(content.words) > 1}


@block
def rom(clk, advance, address, data, content):
    """Read a ROM synchronously: `data` is the word at `address` one cycle later, held while `advance` is low.

    A ROM of one word has no register: `data` is that word at all times.
    """
    if len(content.words) > 1:
        return rom_instance(clk, advance, address, data, content)
    return read_rom(clk, advance, address, data, content)


@block
def rom_instance(clk, advance, address, data, content):
    """Instantiate a ROM as a module of its own."""
    rom_instance.verilog_code = instantiation(content.name, f"u_{content.name}",
                                              {"clk": clk, "advance": advance, "address": address}, {"data": data})
    return placeholder() if inside_is_elsewhere() else read_rom(clk, advance, address, data, content)


@block
def rom_module(clk, advance, address, data, content):
    """Read a ROM, as the module that `rom` instantiates."""
    return read_rom(clk, advance, address, data, content)


@block
def read_rom(clk, advance, address, data, content):
    """Read a ROM, see `rom`."""
    words = content.words if len(content.words) > 1 else content.words * 2

    @always(clk.posedge)
    def read():
        if advance:
            data.next = words[address]

    clk.read = advance.read = address.read = True
    # Yosys and Vivado know "block" both; LUTs are Yosys' "logic", and what Vivado does by itself.
    style = "block" if content.block_ram else "logic"
    if len(content.words) == 1:
        data.driven = "wire"
        read_rom.verilog_code = f"assign $data = {content.width}'h{content.words[0]:x};"
    else:
        data.driven = "reg"
        read_rom.verilog_code = (
            f'(* ram_style = "{style}" *)\n'
            f"reg [{content.width - 1}:0] words [0:{len(content.words) - 1}];\n"
            f'initial $$readmemh("{content.name}.mem", words);\n'
            f"always @(posedge $clk) begin: read_word\n"
            f"    if ($advance) $data <= words[$address];\n"
            f"end")
    return read
