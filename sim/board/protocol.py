"""The host's side of the serial line, see `cbnn.hw.boards.shell`: frames, requests, answers."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from cbnn.hw.boards.shell import CYCLE_BYTES, END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE

MAX_REPEATS = 256


class Answer(NamedTuple):
    """What a board says of a request.

    Attributes
    ----------
    number : of the request
    damaged_frames : that the board has seen since reset; it wraps at 256
    class_ : of the image
    latency_cycles : from the first beat of the first repeat in to the last beat of its result
    interval_cycles : between the last two results; 0 where the image was played once
    """

    number: int
    damaged_frames: int
    class_: int
    latency_cycles: int
    interval_cycles: int


def framed(content: bytes) -> bytes:
    """Return a frame: END, the content and its CRC with END and ESCAPE escaped, END."""
    content += zlib.crc32(content).to_bytes(4, "little")
    body = content.replace(bytes([ESCAPE]), bytes([ESCAPE, ESCAPED_ESCAPE]))
    body = body.replace(bytes([END]), bytes([ESCAPE, ESCAPED_END]))
    return bytes([END, *body, END])


def request(number: int, image: bytes, repeats: int = 1) -> bytes:
    """Return the frame that asks for an image's class; `image` is its beats, `number` 1 to 255, `repeats` 1 to 256."""
    assert 1 <= number <= 255
    assert 1 <= repeats <= MAX_REPEATS
    return framed(bytes([number, repeats - 1]) + image)


class Frames:
    """Takes bytes as they come, and gives the content of frames whose CRC is right."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Take bytes; give the contents, without CRC, of frames that end in them."""
        for octet in received:
            if octet != END:
                self._body.append(octet)
                continue
            body, self._body = bytes(self._body), bytearray()
            body = body.replace(bytes([ESCAPE, ESCAPED_END]), bytes([END]))
            body = body.replace(bytes([ESCAPE, ESCAPED_ESCAPE]), bytes([ESCAPE]))
            if len(body) > 4 and zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little"):
                yield body[:-4]


def answer(content: bytes, class_bytes: int) -> Answer | None:
    """Read an answer; None where it is none."""
    if len(content) != 2 + class_bytes + 2 * CYCLE_BYTES:
        return None
    cycles = 2 + class_bytes
    return Answer(content[0], content[1], int.from_bytes(content[2:cycles], "little"),
                  int.from_bytes(content[cycles : cycles + CYCLE_BYTES], "little"),
                  int.from_bytes(content[cycles + CYCLE_BYTES :], "little"))
