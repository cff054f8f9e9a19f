"""The host's end of a board's serial line inside the simulator."""

from collections.abc import Iterable

from cocotb.triggers import FallingEdge, Timer


class Line:
    """Sends bytes on `rx`, and gathers in `received` those that come on `tx`; a bit takes `bit_ns`."""

    def __init__(self, rx, tx, bit_ns: int) -> None:
        self.rx, self.tx, self.bit_ns = rx, tx, bit_ns
        self.received = bytearray()

    async def send(self, octets: Iterable[int]) -> None:
        """Send bytes, 8N1, without a gap."""
        for octet in octets:
            for bit in (0, *(octet >> i & 1 for i in range(8)), 1):
                self.rx.value = bit
                await Timer(self.bit_ns, "ns")

    async def listen(self) -> None:
        """Gather bytes for ever."""
        while True:
            await FallingEdge(self.tx)
            await Timer(self.bit_ns // 2, "ns")
            assert self.tx.value == 0
            octet = 0
            for i in range(8):
                await Timer(self.bit_ns, "ns")
                octet |= int(self.tx.value) << i
            await Timer(self.bit_ns, "ns")
            assert self.tx.value == 1
            self.received.append(octet)
