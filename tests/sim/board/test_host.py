"""The host's side of a board's line: what it does when frames are lost, late or wrong."""

import random
import zlib
from functools import partial

import pytest

from cbnn.hw.boards.shell import END, ESCAPE
from cbnn.sim.board import host
from cbnn.sim.board.protocol import Answer, Frames, answer, framed, request


class Board:
    """Answers requests of an image of four bytes; what it says goes through `spoil` first."""

    def __init__(self, spoil=lambda data: data):
        self.spoil, self.heard, self.waiting, self.frames, self.timeout = spoil, 0, b"", Frames(), None

    def reset_input_buffer(self):
        self.waiting = b""

    def write(self, data):
        for content in self.frames.feed(data):
            self.heard += 1
            number, repeats = content[0], content[1] + 1
            said = bytes([number, 7, sum(content[2:]) % 10]) + (1000).to_bytes(3, "little") + (
                repeats * 10).to_bytes(3, "little")
            self.waiting += self.spoil(framed(said))

    def read(self, size):
        data, self.waiting = self.waiting[:size], self.waiting[size:]
        return data


ask = partial(host.ask, patience_s=0.02)


def test_an_answer_is_understood():
    board = Board()
    assert ask(board, bytes([END, ESCAPE, 3, 0]), 1, baud=10**7, repeats=256) == Answer(
        1, 7, (END + ESCAPE + 3) % 10, 1000, 2560)
    assert board.heard == 1


def test_a_lost_answer_is_asked_for_again():
    lost = iter([True, True, False])
    board = Board(lambda data: b"" if next(lost) else data)
    assert ask(board, bytes(4), 1, baud=10**7).number == 3
    assert board.heard == 3


def test_a_silent_board_is_said():
    with pytest.raises(host.BoardError, match="does not answer, 3 times; check port, baud"):
        ask(Board(lambda data: b""), bytes(4), 1, baud=10**7)


def test_a_spoilt_answer_is_never_believed():
    draw = random.Random(1)

    def spoil(data):
        octets = bytearray(data)
        for _ in range(draw.randrange(3)):
            at = draw.randrange(len(octets))
            octets[at : at + draw.randrange(2)] = bytes(draw.randrange(256) for _ in range(draw.randrange(3)))
        return bytes(octets)

    answers = 0
    for i in range(200):
        try:
            said = ask(Board(spoil), bytes([i, 0, 0, 0]), 1, baud=10**8)
        except host.BoardError:
            continue
        answers += 1
        assert (said.damaged_frames, said.class_, said.latency_cycles) == (7, i % 10, 1000)
    assert answers > 150


def test_an_answer_to_another_request_is_not_taken():
    board = Board(lambda data: framed(bytes([9, *next(Frames().feed(data))[1:]])))
    with pytest.raises(host.BoardError):
        ask(board, bytes(4), 1, baud=10**7)


def test_frames_have_their_crc():
    content = bytes([1, 2, END, ESCAPE])
    frame = framed(content)
    assert frame[0] == frame[-1] == END
    assert END not in frame[1:-1]
    assert list(Frames().feed(frame)) == [content]
    assert zlib.crc32(content).to_bytes(4, "little") in frame.replace(bytes([ESCAPE, 0xDC]), bytes([END])).replace(
        bytes([ESCAPE, 0xDD]), bytes([ESCAPE]))
    assert request(3, b"ab", 256)[1:3] == bytes([3, 255])
    assert answer(b"short", 1) is None
