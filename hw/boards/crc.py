"""CRC-32 as Ethernet, zip and Python's `zlib.crc32` have it, a bit per cycle."""

from myhdl import Signal, always_comb, always_seq, block, instances, modbv

from cbnn.hw.stream import counter

POLYNOMIAL = 0xEDB88320
RESIDUE = 0xDEBB20E3
"""What stands in the register after bytes and their CRC, the lowest byte first."""


@block
def crc32(clk, rst, clear, octet, take, crc, settled):
    """Let a byte in; eight cycles later, when it is `settled` again, `crc` is that of all since `clear`, inverted."""
    shift, left = Signal(modbv(0)[8:]), counter(9)

    @always_comb
    def tell():
        settled.next = left == 0

    @always_seq(clk.posedge, reset=rst)
    def step():
        if clear:
            crc.next = 0xFFFFFFFF
            left.next = 0
        elif take:
            shift.next = octet
            left.next = 8
        elif left != 0:
            left.next = left - 1
            shift.next = shift >> 1
            if crc[0] != shift[0]:
                crc.next = (crc >> 1) ^ POLYNOMIAL
            else:
                crc.next = crc >> 1

    return instances()
