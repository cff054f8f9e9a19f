"""Serial line, 8N1: a start bit that is low, eight bits, the lowest first, a stop bit that is high."""

from myhdl import Signal, always_comb, always_seq, block, concat, instances, modbv

from cbnn.hw.stream import counter


@block
def uart_receive(clk, rst, rx, octet, arrived, divider):
    """Give every byte that comes; `arrived` is high for one cycle. A byte without a stop bit is dropped.

    A bit takes `divider` cycles, at least 4, and is looked at in its middle.
    """
    early, level = (Signal(bool(1)) for _ in range(2))
    busy = Signal(bool(0))
    wait, place = counter(divider), counter(10)
    half = divider // 2 - 1
    shift = Signal(modbv(0)[8:])

    @always_seq(clk.posedge, reset=rst)
    def synchronise():
        # Two registers, since the line changes at any time.
        early.next = rx
        level.next = early

    @always_seq(clk.posedge, reset=rst)
    def receive():
        arrived.next = False
        if not busy:
            busy.next = not level
            wait.next = half
            place.next = 0
        elif wait != 0:
            wait.next = wait - 1
        else:
            wait.next = divider - 1
            if place == 9:
                busy.next = False
                arrived.next = level
            elif place == 0 and level:
                busy.next = False  # it was too short for a start bit
            else:
                place.next = place + 1
                shift.next = concat(level, shift[8:1])

    @always_comb
    def drive():
        octet.next = shift

    return instances()


@block
def uart_send(clk, rst, octet, offered, taken, tx, divider):
    """Send bytes; one that is `offered` is taken in the cycle in which `taken` is high."""
    frame = Signal(modbv(0x3FF)[10:])
    wait, left = counter(divider), counter(11)

    @always_comb
    def accept():
        taken.next = offered and left == 0

    @always_seq(clk.posedge, reset=rst)
    def send():
        if left == 0:
            wait.next = divider - 1
            if offered:
                frame.next = concat(modbv(1)[1:], octet, modbv(0)[1:])
                left.next = 10
        elif wait != 0:
            wait.next = wait - 1
        else:
            wait.next = divider - 1
            frame.next = concat(modbv(1)[1:], frame[10:1])
            left.next = left - 1

    @always_comb
    def drive():
        tx.next = frame[0]

    return instances()
