"""ROM: weights and thresholds, loaded from a .mem file; a single word is a constant. Or a RAM, which a host writes.

A ROM is a module of its own, whose boundary is kept in synthesis: there it takes a LUT of six inputs per bit and 64
words, which it would not among other logic, where optimisation shares parts of one bit's table with another's. In
block RAM it has a register behind it, and one more where words are chosen from a row, see `cost.RomShape`.

A RAM is read exactly like the ROM that it replaces, in the same cycles. A single word is a register.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from myhdl import Signal, always, always_comb, block, intbv

from cbnn.hw.instance import Place, instance
from cbnn.hw.stream import Rom, counter

MEM_FOLDER = "CBNN_MEM_DIR"
"""Verilog macro: the folder of the .mem files with a slash at its end, in quotes; else they are where a tool runs."""


class WritePort:
    """Signals that write a RAM: while `enable` is high, `data` goes into a `row`; the only row needs no address."""

    def __init__(self, content: Rom) -> None:
        self.enable = Signal(bool(0))
        self.row = counter(content.shape.rows) if content.shape.rows > 1 else None
        self.data = Signal(intbv(0)[content.row_width :])


def rom_submodules(contents: tuple[Rom, ...]) -> dict[str, Callable[[], Any]]:
    """Return constructors of the modules that `rom` instantiates, by name."""
    def construct(content: Rom) -> Any:
        clk, advance, address = Signal(bool(0)), Signal(bool(0)), counter(len(content.words))
        data = Signal(intbv(0)[content.width :])
        if content.writable:
            return ram_module(*_ram_ports(clk, advance, address, WritePort(content), content), data, content)
        return rom_module(clk, advance, address, data, content)

    return {content.name: partial(construct, content) for content in contents if not content.constant}


@block
def rom(clk, advance, address, data, content, port=None):
    """Read a ROM synchronously: `data` is the word at `address` `shape.read_cycles` later, held while `advance` is low.

    A ROM of one word has no register: `data` is that word at all times. A RAM is written through its `port`.
    """
    place = Place(content.name, f"u_{content.name}")
    if content.writable:
        return instance(place, ram_module, *_ram_ports(clk, advance, address, port, content), data, content)
    if not content.constant:
        return instance(place, rom_module, clk, advance, address, data, content)
    return read_rom(clk, advance, address, data, content)


@block
def rom_module(clk, advance, address, data, content):
    """ROM, read synchronously; data holds while advance is low."""
    return read_rom(clk, advance, address, data, content)


@block
def read_rom(clk, advance, address, data, content):
    """Read a ROM, see `rom`."""
    if content.constant:
        data.driven = "wire"
        read_rom.verilog_code = f"assign $data = {content.width}'h{content.words[0]:x};"
    else:
        clk.read = advance.read = address.read = True
        data.driven = "reg"
        read_rom.verilog_code = _verilog(content)
    return read_words(clk, advance, address, data, content)


@block
def read_words(clk, advance, address, data, content):
    """Give words: at once where there is one, or none of them is registered."""
    words, registered = content.words, len(content.words) > 1 and content.registered
    read_cycles = content.shape.read_cycles
    early = [Signal(intbv(0)[content.width :]) for _ in range(read_cycles)]

    @always(clk.posedge)
    def read():
        if registered and advance:
            early[0].next = words[address]
            for i in range(1, read_cycles):
                early[i].next = early[i - 1]

    @always_comb
    def drive():
        if registered:
            data.next = early[read_cycles - 1]
        else:
            data.next = words[address if len(words) > 1 else 0]

    return read, drive


def _ram_ports(clk, advance, address, port, content):
    """Return the inputs of a RAM, None for those that it does not need."""
    one = len(content.words) == 1
    return (clk, advance if content.registered and not one else None, None if one else address, port.enable, port.row,
            port.data)


@block
def ram_module(clk, advance, address, write_enable, write_row, write_data, data, content):
    """RAM: read like the ROM, and written."""
    return access_ram(clk, advance, address, write_enable, write_row, write_data, data, content)


@block
def access_ram(clk, advance, address, write_enable, write_row, write_data, data, content):
    """Read and write a RAM; in MyHDL's own simulation it is only read."""
    for signal in (clk, advance, address, write_enable, write_row, write_data):
        if signal is not None:
            signal.read = True
    data.driven = "wire" if advance is None else "reg"
    reading = _verilog(content) if advance is not None else "\n".join([
        f"reg [{content.row_width - 1}:0] rows [0:{content.shape.rows - 1}];", *_loading(f"{content.name}.mem"),
        f"assign $data = rows[{'0' if address is None else '$address'}];"])
    access_ram.verilog_code = "\n".join([
        reading, "always @(posedge $clk) begin: store", "    if ($write_enable) begin",
        f"        rows[{'0' if write_row is None else '$write_row'}] <= $write_data;", "    end", "end"])
    return read_words(clk, advance, address, data, content)


def _verilog(content: Rom) -> str:
    """Verilog of a ROM of several words."""
    shape, width = content.shape, content.width
    # Yosys and Vivado know "block" both; LUTs are Yosys' "logic", and what Vivado does by itself.
    style = "block" if content.block_ram else "" if content.writable else "logic"
    lines = [*([f'(* ram_style = "{style}" *)'] if style else []), *(["(* no_rw_check *)"] if content.writable else []),
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
