"""Asks a board for the class of an image, over its serial line."""

import time
from collections.abc import Callable
from typing import Protocol

from cbnn.model.processes import ToolError
from cbnn.sim.board.protocol import Answer, Frames, answer, request

TRIES = 3
BITS_PER_BYTE = 10
"""On the line, with start and stop bit."""
PATIENCE_S = 0.5
"""With a real board: what USB and operating system may add."""


class BoardError(ToolError):
    """The board says nothing, or nothing that can be understood."""


class Port(Protocol):
    """What is needed of a serial port, as pyserial has it."""

    timeout: float | None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, those that come within `timeout` seconds."""

    def write(self, data: bytes) -> int | None:
        """Send bytes."""

    def reset_input_buffer(self) -> None:
        """Forget what came before."""


def line_bits(image: bytes) -> int:
    """Return at least as many bits as request and answer take on the line."""
    return (2 * len(image) + 64) * BITS_PER_BYTE


def ask(port: Port, image: bytes, class_bytes: int, *, baud: int, repeats: int = 1, work_s: float = 0.0,
        patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> Answer:
    """Return what the board says of an image; a frame that is lost is sent again.

    Parameters
    ----------
    image : its beats, as the packers of `cbnn.sim.handover.host` make them
    repeats : how often it is played, 1 to 256
    work_s : seconds that this takes
    patience_s : beyond what transmission and calculation take
    clock : gives the seconds that have passed for the board

    Raises
    ------
    BoardError
        When no answer comes in `TRIES` tries.
    """
    port.timeout = 0.02
    for number in range(1, TRIES + 1):
        frame, frames = request(number, image, repeats), Frames()
        port.reset_input_buffer()
        port.write(frame)
        end = clock() + patience_s + work_s + line_bits(image) / baud
        while clock() < end:
            for content in frames.feed(port.read(256)):
                said = answer(content, class_bytes)
                if said is not None and said.number == number:
                    return said
    raise BoardError(f"the board does not answer, {TRIES} times; check port, baud, and that the bitstream is loaded")
