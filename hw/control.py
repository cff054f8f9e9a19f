"""Control: the AXI4-Lite slave through which a host reads registers and resets the accelerator.

Channels are independent: an address and its data may come in either order, or together, and every
`valid` stays until its `ready`. One write and one read are under way at a time. Every response is
OKAY, also where there is no register: there, zero is read, and what is written is ignored.
"""

from dataclasses import dataclass

from myhdl import Signal, always, always_comb, always_seq, block, concat, instances, intbv

from cbnn.hw.loading import LoadBus, LoadWidths, take_rows
from cbnn.hw.registers import ADDRESS_BITS, DATA_BITS, N_CONSTANT, N_LIVE, SOFT_RESET
from cbnn.hw.stream import clock_and_reset, counter

RESET_CYCLES = 4
"""Cycles that a soft reset takes."""


class LiteBus:
    """Signals of an AXI4-Lite slave that the block needs.

    `awprot` and `arprot` change nothing, `bresp` and `rresp` are always 0: only the top module has
    them.
    """

    def __init__(self) -> None:
        self.awaddr, self.araddr = (Signal(intbv(0)[ADDRESS_BITS:]) for _ in range(2))
        self.wdata, self.rdata = (Signal(intbv(0)[DATA_BITS:]) for _ in range(2))
        self.wstrb = Signal(intbv(0)[DATA_BITS // 8 :])
        self.awvalid, self.awready, self.wvalid, self.wready, self.bvalid, self.bready = (
            Signal(bool(0)) for _ in range(6))
        self.arvalid, self.arready, self.rvalid, self.rready = (Signal(bool(0)) for _ in range(4))


@dataclass(frozen=True)
class Control:
    """Registers of `cbnn.hw.registers`.

    Words that are no constants enter side by side, the lowest address in the lowest bits.
    `soft_reset` is high for `RESET_CYCLES` cycles after 1 was written to it.

    Attributes
    ----------
    constants : what the first words read as
    load : widths of the bus that loads memories; None where none is loaded
    """

    name: str
    constants: tuple[int, ...]
    load: LoadWidths | None = None

    block_rams = property(lambda self: 0)

    @property
    def luts(self) -> int:
        """A table of constants and a choice of eight words per bit, hardly six LUTs.

        Yosys on xc7, for five tables: 167, 172, 188, 193, and 124 where it found a better mapping.
        """
        return 180

    def construct(self):
        """Return the block with signals of its own, to be converted."""
        clk, rst = clock_and_reset()
        return self.hardware(clk, rst, LiteBus(), Signal(intbv(0)[N_LIVE * DATA_BITS :]), Signal(bool(0)),
                             LoadBus(self.load) if self.load else None)

    def hardware(self, clk, rst, s_axil, live, soft_reset, load):
        """Return the block; a read takes two cycles, a write three, where the host does not wait."""
        return control(clk, rst, s_axil, live, soft_reset, load, self.constants)


@block
def control(clk, rst, s_axil, live, soft_reset, load, constants):
    """Answer reads and writes; `rst` is that of the bus, which a soft reset does not touch."""
    reset_word, last_cycle = SOFT_RESET.offset // 4, RESET_CYCLES - 1
    # Halves, since constants that use the highest of 32 bits are written with 33.
    low_halves, high_halves = (tuple(value >> shift & 0xFFFF for value in constants) for shift in (0, 16))
    low, high = (Signal(intbv(0)[16:]) for _ in range(2))
    index, live_index = counter(N_CONSTANT), counter(N_LIVE)
    # Half of all words are constants, and half of the others are live.
    other_bit, empty_bit = 2 + len(index), 2 + len(live_index)
    # Of a write only this is kept: whether there is an address, and it is that of the soft reset;
    # whether there are data, and they act.
    has_address, aimed, has_data, acts = (Signal(bool(0)) for _ in range(4))
    done, started = (Signal(bool(0)) for _ in range(2))
    remaining = Signal(intbv(0, min=0, max=RESET_CYCLES))
    if load is not None:
        loading = take_rows(clk, rst, s_axil, done, load)

    @always_comb
    def accept():
        s_axil.awready.next = not has_address
        s_axil.wready.next = not has_data
        s_axil.arready.next = not s_axil.rvalid

    @always_comb
    def complete():
        done.next = has_address and has_data and not s_axil.bvalid

    @always_comb
    def start():
        started.next = done and aimed and acts

    @always_seq(clk.posedge, reset=rst)
    def take_address():
        if s_axil.awvalid and s_axil.awready:
            has_address.next = True
            aimed.next = s_axil.awaddr[ADDRESS_BITS:2] == reset_word
        elif done:
            has_address.next = False

    @always_seq(clk.posedge, reset=rst)
    def take_data():
        if s_axil.wvalid and s_axil.wready:
            has_data.next = True
            acts.next = s_axil.wdata[0] and s_axil.wstrb[0]
        elif done:
            has_data.next = False

    @always_seq(clk.posedge, reset=rst)
    def respond():
        if done:
            s_axil.bvalid.next = True
        elif s_axil.bready:
            s_axil.bvalid.next = False

    @always_seq(clk.posedge, reset=rst)
    def hold_reset():
        if started:
            soft_reset.next = True
            remaining.next = last_cycle
        elif remaining == 0:
            soft_reset.next = False
        else:
            remaining.next = remaining - 1

    @always_seq(clk.posedge, reset=rst)
    def offer():
        if s_axil.arvalid and s_axil.arready:
            s_axil.rvalid.next = True
        elif s_axil.rready:
            s_axil.rvalid.next = False

    @always_comb
    def find_word():
        index.next = s_axil.araddr[other_bit:2]
        live_index.next = s_axil.araddr[empty_bit:2]

    @always_comb
    def look_up_low():
        low.next = low_halves[index]

    @always_comb
    def look_up_high():
        high.next = high_halves[index]

    @always(clk.posedge)
    def read():
        if s_axil.arvalid and s_axil.arready:
            if not s_axil.araddr[other_bit]:
                s_axil.rdata.next = concat(high, low)
            elif not s_axil.araddr[empty_bit]:
                for i in range(DATA_BITS):
                    s_axil.rdata.next[i] = live[live_index * DATA_BITS + i]
            else:
                s_axil.rdata.next = 0

    return instances()
