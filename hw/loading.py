"""Loading: a host writes the parameters of another network of the same topology, over AXI4-Lite.

Every memory that depends on a network's parameters is a RAM (`cbnn.hw.mvtu.rom`). The host shifts a row of one into a
register, a word of 32 bits at a time, the highest first, and then says where the row belongs. Every row is written by
itself, so that a load that was broken off is simply begun anew. Memories count in stream order.

The RAMs are written whatever the streams do. Results of images that are inside meanwhile mean nothing; later images,
from the first that enters after the last write, are of the new network.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from myhdl import Signal, always, always_seq, block, concat, instances, intbv

from cbnn.hw.registers import ADDRESS_BITS, DATA_BITS, LOAD_DATA, LOAD_ROW, MEMORY_SHIFT
from cbnn.hw.stream import Rom

MEMORY_BITS = DATA_BITS - MEMORY_SHIFT
"""Bits of a memory's number."""


class LoadWidths(NamedTuple):
    """Bits of the number of a row, and of the longest row."""

    row: int
    data: int

    @classmethod
    def of(cls, memories: Sequence[Rom]) -> "LoadWidths":
        """Return those that suit.

        Raises
        ------
        ValueError
            When there are more memories, or more rows of one, than `LOAD_ROW` can name.
        """
        n_rows = max(content.shape.rows for content in memories)
        if len(memories) > 1 << MEMORY_BITS or n_rows > 1 << MEMORY_SHIFT:
            raise ValueError(f"{len(memories)} memories, the largest of {n_rows} rows, cannot be written; at most "
                             f"{1 << MEMORY_BITS} of {1 << MEMORY_SHIFT} rows can")
        return cls(max(1, (n_rows - 1).bit_length()), max(content.row_width for content in memories))


def words_per_row(content: Rom) -> int:
    """Words of 32 bits that a row is written as."""
    return -(-content.row_width // DATA_BITS)


def load_entry(memories: Sequence[Rom]) -> dict[str, Any]:
    """Return what the manifest says of loading."""
    return {"data_offset": LOAD_DATA.offset, "row_offset": LOAD_ROW.offset, "memory_shift": MEMORY_SHIFT,
            "memories": [{"name": content.name, "words": len(content.words), "word_bits": content.width,
                          "rows": content.shape.rows, "row_bits": content.row_width,
                          "row_writes": words_per_row(content)} for content in memories]}


def load_writes(memories: Sequence[Rom]) -> Iterator[tuple[int, int]]:
    """Give offset and data of the AXI4-Lite writes that fill the memories, in order.

    A row of 40 bits, 0x12_3456789a, of memory 2, row 1: 0x12 and 0x3456789a to `load_data`, 0x02000001 to `load_row`.
    """
    for i, content in enumerate(memories):
        for j, row in enumerate(content.rows):
            for k in reversed(range(words_per_row(content))):
                yield LOAD_DATA.offset, row >> k * DATA_BITS & (1 << DATA_BITS) - 1
            yield LOAD_ROW.offset, i << MEMORY_SHIFT | j


class LoadBus:
    """What goes to all memories: while `write` is high, `data` goes into this `row` of this `memory`."""

    def __init__(self, widths: LoadWidths) -> None:
        self.write = Signal(bool(0))
        self.memory, self.row, self.data = (Signal(intbv(0)[n:]) for n in (MEMORY_BITS, *widths))


@block
def take_rows(clk, rst, s_axil, done, load):
    """Gather rows from writes, each of which is whole once `done` is high; others than of whole words do nothing."""
    data_index, row_index = LOAD_DATA.offset // 4, LOAD_ROW.offset // 4
    row_bits, data_bits = len(load.row), len(load.data)
    rest = data_bits - DATA_BITS
    index = Signal(intbv(0)[ADDRESS_BITS - 2 :])
    word = Signal(intbv(0)[DATA_BITS:])
    whole = Signal(bool(0))

    @always(clk.posedge)
    def keep():
        if s_axil.awvalid and s_axil.awready:
            index.next = s_axil.awaddr[ADDRESS_BITS:2]
        if s_axil.wvalid and s_axil.wready:
            word.next = s_axil.wdata
            whole.next = s_axil.wstrb == 15

    if rest > 0:
        @always(clk.posedge)
        def shift():
            if done and whole and index == data_index:
                load.data.next = concat(load.data[rest:], word)
    else:
        @always(clk.posedge)
        def shift():
            if done and whole and index == data_index:
                load.data.next = word[data_bits:]

    # The row stays at least until the next write is whole, two cycles later.
    @always_seq(clk.posedge, reset=rst)
    def strobe():
        load.write.next = done and whole and index == row_index

    @always(clk.posedge)
    def address():
        if done:
            load.memory.next = word[DATA_BITS:MEMORY_SHIFT]
            load.row.next = word[row_bits:]

    return instances()
