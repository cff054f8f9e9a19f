"""The registers that a host reads and writes over AXI4-Lite: one table, and what is written from it.

The table gives what the hardware shows (`constants`, `live_words`), the manifest's entry (`manifest_entry`), a table
for readers (`markdown_table`) and constants for drivers (`c_defines`). All registers have 32 bits. Offsets that are not
in the table read as zero, and nothing happens when they are written.

Registers are read one by one. A host that wants several of one image reads `images_out` before and after them: the
same number says that they belong together.

Before a soft reset a host stops its DMA. Else what is left of a frame that had begun is taken as a frame of its own,
which is malformed, and a result that had begun is continued by the next one.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

from cbnn.hw.accelerator import Accelerator

DATA_BITS = 32
"""Bits of a register, and of the bus."""
ADDRESS_BITS = 7
"""Bits of an address, which counts bytes: of 32 words 16 are constants, 8 others, and then nothing is read."""
N_CONSTANT = 16
N_LIVE = 8
IDENTITY = int.from_bytes(b"cbnn", "little")
LAYOUT_VERSION = 1
"""Counts up whenever a register moves or changes its meaning; not for another where zero was read."""
MEMORY_SHIFT = 24
"""Bits of `LOAD_ROW` that are a row; those above them are the number of a memory."""


class Access(StrEnum):
    """What a host can do with a register."""

    READ = "read"
    ACT = "write 1 to act, reads as 0"
    WRITE = "write, reads as 0"


class Register(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    offset : address in bytes
    bits : those that can be other than zero, from bit 0 on
    value : what it reads after reset; of one without `source`, always
    source : signal of the top module that it shows; empty of a constant and of one that acts
    meaning : one sentence
    """

    name: str
    offset: int
    access: Access
    bits: int
    value: int
    source: str
    meaning: str

    @property
    def constant(self) -> bool:
        """Whether it always reads the same."""
        return self.access is Access.READ and not self.source


SOFT_RESET = Register(
    "soft_reset", 4 * N_CONSTANT, Access.ACT, 1, 0, "",
    "Writing 1 to bit 0 resets all but this interface; images inside are lost, s_axis_tready and m_axis_tvalid are low "
    "meanwhile.")
LOAD_DATA = Register(
    "load_data", 4 * (N_CONSTANT + N_LIVE), Access.WRITE, DATA_BITS, 0, "",
    "A word written here shifts into the row that is to be loaded, the highest word of a row first.")
LOAD_ROW = Register(
    "load_row", LOAD_DATA.offset + 4, Access.WRITE, DATA_BITS, 0, "",
    f"Writing a memory's number (bits 31 to {MEMORY_SHIFT}) and a row's (below) writes that row; "
    "manifest.json lists the memories, and no others may be written.")


def registers(accelerator: Accelerator, predicted: Mapping[str, float]) -> tuple[Register, ...]:
    """Return the table of an accelerator, by offset.

    Parameters
    ----------
    predicted : cycles by name, see `cbnn.hw.verilog.generate`; `interval_cycles` and `latency_cycles` are shown
    """
    topology = accelerator.topology
    height, width, colours = topology.in_shape
    code = topology_hash(accelerator)
    fixed = (
        ("identity", IDENTITY, "The letters cbnn, the first one in the lowest byte."),
        ("layout_version", LAYOUT_VERSION, "Version of this table."),
        ("topology_hash_low", code & 0xFFFF_FFFF, "Low half of a hash of topology and folding."),
        ("topology_hash_high", code >> 32, "High half of it; the hash is the first 64 bits of the SHA-256."),
        ("image_height", height, "Rows of an image."),
        ("image_width", width, "Columns of an image."),
        ("image_colours", colours, "Colours of a pixel."),
        ("input_bits", topology.input_bits, "Bits of a colour, pruned ones included."),
        ("classes", accelerator.classify.n_classes, "Classes that the network tells apart."),
        ("input_beats", accelerator.input_beats, "Beats of s_axis per image."),
        ("output_beats", accelerator.m_axis.beats, "Beats of m_axis per image."),
        ("predicted_interval", int(predicted["interval_cycles"]), "What interval should be in the long run."),
        ("predicted_latency", int(predicted["latency_cycles"]), "What latency should be of an image that waits for no "
                                                                 "other."),
        *((("loadable_rows", sum(content.shape.rows for content in accelerator.memories),
            "Rows of all memories that can be written."),
           ("load_hash", load_hash(accelerator), "Hash of all that a file of cbnn load must suit."),
           ) if accelerator.memories else ()),
    )
    measured = (
        ("images_in", DATA_BITS, "Images that have entered whole, malformed ones included; it wraps."),
        ("images_out", DATA_BITS, "Results that have left whole; it wraps."),
        ("malformed_frames", DATA_BITS, "Frames that were too short or too long; it wraps."),
        ("last_class", accelerator.classify.class_lane, "Class of the last result."),
        ("last_malformed", 1, "1 where the frame of the last result was malformed."),
        ("interval", DATA_BITS, "Cycles between the last beats of the last two results; 0 before there are two."),
        ("latency", DATA_BITS, "Cycles from the first beat of the last result's image in to its last beat out."),
    )
    return (*(Register(name, 4 * i, Access.READ, DATA_BITS, value, "", meaning)
              for i, (name, value, meaning) in enumerate(fixed)), SOFT_RESET,
            *(Register(name, SOFT_RESET.offset + 4 * i, Access.READ, bits, 0, f"measured_{name}", meaning)
              for i, (name, bits, meaning) in enumerate(measured, 1)),
            *((LOAD_DATA, LOAD_ROW) if accelerator.memories else ()))


def topology_hash(accelerator: Accelerator) -> int:
    """Return the first 64 bits of the SHA-256 of topology and folding as text, a space between them.

    They are read as a number whose highest byte comes first.
    """
    text = f"{accelerator.topology} {accelerator.folding}"
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def load_hash(accelerator: Accelerator) -> int:
    """Return 32 bits that differ where topology, folding, input or memories do."""
    memories = [(len(content.words), content.width, content.shape.rows) for content in accelerator.memories]
    text = f"{accelerator.topology} {accelerator.folding} {accelerator.folding.input} {memories}"
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big")


def constants(table: Sequence[Register]) -> tuple[int, ...]:
    """Return what the words of constants read as, the lowest address first."""
    values = {register.offset: register.value for register in table if register.constant}
    return tuple(values.get(4 * i, 0) for i in range(N_CONSTANT))


def live_words(table: Sequence[Register]) -> list[str]:
    """Return the Verilog expression of the other words, the lowest address first."""
    sources = {register.offset: register for register in table if register.source}
    return [_live_word(sources.get(4 * (N_CONSTANT + i))) for i in range(N_LIVE)]


def _live_word(register: Register | None) -> str:
    if register is None:
        return f"{DATA_BITS}'h0"
    padding = DATA_BITS - register.bits
    return f"{{{padding}'h0, {register.source}}}" if padding else register.source


def manifest_entry(table: Sequence[Register]) -> list[dict[str, str | int | bool]]:
    """Return the rows for the manifest; `constant` says that the value never changes."""
    return [{"name": register.name, "offset": register.offset, "access": register.access.value,
             "bits": register.bits, "reset_value": register.value,
             "constant": register.constant, "meaning": register.meaning} for register in table]


def markdown_table(table: Sequence[Register]) -> str:
    """Return the table in Markdown."""
    rows = [f"| 0x{register.offset:02x} | {register.name} | {register.access} | {register.bits} "
            f"| 0x{register.value:x} | {register.meaning} |\n" for register in table]
    return "| offset | name | access | bits | after reset | meaning |\n|---|---|---|---|---|---|\n" + "".join(rows)


def c_defines(table: Sequence[Register]) -> str:
    """Return the text of a C header: the offset of every register, and the values of the constants."""
    lines = ["#ifndef CBNN_REGISTERS_H", "#define CBNN_REGISTERS_H", ""]
    for register in table:
        name = f"CBNN_{register.name.upper()}"
        lines += [f"/* {register.meaning} */", f"#define {name}_OFFSET 0x{register.offset:02x}u"]
        if register.constant:
            lines.append(f"#define {name}_VALUE 0x{register.value:x}u")
    return "\n".join([*lines, "", "#endif", ""])
