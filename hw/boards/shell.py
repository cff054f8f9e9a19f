"""Shell: takes images from a serial line, plays them on the accelerator, and sends the class and its cycles back.

Frames are as RFC 1055 (SLIP) has them: END (0xC0) before and after, and inside 0xDB 0xDC for 0xC0, 0xDB 0xDD for 0xDB.
No byte inside a frame is END, so that after any disturbance the next frame is found. A frame ends with the CRC-32 of
what is before it, the lowest byte first:

    request  number, repeats - 1, the beats of an image, CRC
    answer   number, damaged frames, class, cycles of latency, cycles of interval, CRC

An image is in the image memory, and its CRC was right, before its first beat is played. Then it is played so many
times without a gap: so latency and interval are those of the accelerator, not of the line. The answer is about the last
result. A request is known to be whole by its length and CRC; the END after it is not waited for, since the next request
would be taken for it where it is lost. A frame of the wrong length or CRC is counted, and gets no answer, which could
meet the next frame; the accelerator never sees it. While the shell plays and answers it does not listen.
"""

from dataclasses import dataclass

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.boards.crc import RESIDUE, crc32
from cbnn.hw.boards.uart import uart_receive, uart_send
from cbnn.hw.stream import Stream, clock_and_reset, counter

END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE = 0xC0, 0xDB, 0xDC, 0xDD
CYCLE_BYTES = 3
"""Bytes of latency and interval."""
CRC_BYTES = 4


@dataclass(frozen=True)
class Shell:
    """A serial line on one side, the accelerator's streams on the other.

    Attributes
    ----------
    beats, beat_bytes : of an image, as the accelerator takes it
    result_bits : of `m_axis_tdata`
    class_bits : its topmost bits, the class
    divider : clock cycles per bit of the line, at least 4
    """

    name: str
    beats: int
    beat_bytes: int
    result_bits: int
    class_bits: int
    divider: int

    @property
    def request_bytes(self) -> int:
        """Bytes of a request with its CRC, before any is escaped."""
        return 2 + self.beats * self.beat_bytes + CRC_BYTES

    @property
    def answer_bytes(self) -> int:
        """Bytes of an answer without its CRC."""
        return 2 + self.class_bits // 8 + 2 * CYCLE_BYTES

    def construct(self):
        """Return the block with signals of its own, to be converted."""
        clk, rst = clock_and_reset()
        return self.hardware(clk, rst, Signal(bool(1)), Signal(bool(1)), Stream(8 * self.beat_bytes),
                             Stream(self.result_bits))

    def hardware(self, clk, rst, rx, tx, to_play, result):
        """Return the block."""
        return shell(clk, rst, rx, tx, to_play, result, self)


class Exchange:
    """A request and its answer, on their way through the shell.

    It is `listening`, `playing` or `replying`. The request has `number` and `repeats`; a `beat` to `store` at
    `place`; its bytes, CRC included, as `data` where there is `some`. When it is `over`, as it is whole or as its frame
    ends, it is `right` in the next cycle, or else counted in `damaged`. The answer has class, latency and interval, in
    the cycle in which `measured` is high. `crc` is of the frame that comes or goes, when it is `settled`.
    """

    def __init__(self, unit: Shell) -> None:
        self.listening, self.playing, self.replying = (Signal(bool(0)) for _ in range(3))
        self.number, self.repeats, self.data, self.damaged = (Signal(modbv(0)[8:]) for _ in range(4))
        self.some, self.over, self.store, self.right, self.measured = (Signal(bool(0)) for _ in range(5))
        self.beat, self.place = Signal(modbv(0)[8 * unit.beat_bytes :]), counter(unit.beats)
        self.class_ = Signal(modbv(0)[unit.class_bits :])
        self.latency, self.interval = (Signal(modbv(0)[8 * CYCLE_BYTES :]) for _ in range(2))
        self.crc, self.settled = Signal(modbv(0)[32:]), Signal(bool(0))


class Line:
    """Bytes to send: `octet` is `offered` until it is `taken`. `data` goes into the CRC where there is `some`."""

    def __init__(self) -> None:
        self.octet, self.data = (Signal(modbv(0)[8:]) for _ in range(2))
        self.offered, self.taken, self.some, self.over = (Signal(bool(0)) for _ in range(4))


@block
def shell(clk, rst, rx, tx, to_play, result, unit):
    """Listen, play, answer, one after the other."""
    state = Signal(intbv(0, min=0, max=3))
    listen, play, reply = 0, 1, 2
    crc_clear, crc_take, arrived = (Signal(bool(0)) for _ in range(3))
    octet, crc_data = (Signal(modbv(0)[8:]) for _ in range(2))
    exchange, line = Exchange(unit), Line()

    receiving = uart_receive(clk, rst, rx, octet, arrived, unit.divider)
    reading = read_request(clk, rst, octet, arrived, exchange, unit)
    playing_it = play_image(clk, rst, exchange, to_play, unit)
    measuring = measure(clk, rst, exchange, to_play, result, unit)
    writing = write_answer(clk, rst, exchange, line, unit)
    sending = uart_send(clk, rst, line.octet, line.offered, line.taken, tx, unit.divider)
    checking = crc32(clk, rst, crc_clear, crc_data, crc_take, exchange.crc, exchange.settled)

    @always_comb
    def name_states():
        exchange.listening.next = state == listen
        exchange.playing.next = state == play
        exchange.replying.next = state == reply

    @always_seq(clk.posedge, reset=rst)
    def turn():
        if state == listen:
            if exchange.right:
                state.next = play
        elif state == play:
            if exchange.measured:
                state.next = reply
        elif line.over:
            state.next = listen

    @always_comb
    def check():
        # One register serves the frame that comes and the one that goes.
        crc_clear.next = exchange.over or line.over
        if exchange.replying:
            crc_data.next = line.data
            crc_take.next = line.some
        else:
            crc_data.next = exchange.data
            crc_take.next = exchange.some

    return instances()


@block
def read_request(clk, rst, octet, arrived, exchange, unit):
    """Take a frame apart. A frame with nothing in it, as between two frames, is none."""
    total, last_byte, last_beat = unit.request_bytes, unit.beat_bytes - 1, unit.beats - 1
    image_end, top = total - CRC_BYTES, 8 * last_byte
    count = counter(total + 2)
    in_beat = counter(unit.beat_bytes)
    escaped, data_comes, whole = (Signal(bool(0)) for _ in range(3))
    value = Signal(modbv(0)[8:])

    @always_comb
    def unescape():
        data_comes.next = exchange.listening and arrived and octet != END and octet != ESCAPE
        exchange.over.next = exchange.listening and (whole or (arrived and octet == END))
        if escaped and octet == ESCAPED_END:
            value.next = END
        elif escaped and octet == ESCAPED_ESCAPE:
            value.next = ESCAPE
        else:
            value.next = octet

    @always_comb
    def show():
        exchange.data.next = value
        exchange.some.next = data_comes

    @always_seq(clk.posedge, reset=rst)
    def follow():
        exchange.right.next = False
        whole.next = count == total and exchange.settled and exchange.crc == RESIDUE and not whole
        if exchange.over:
            escaped.next = False
            count.next = 0
            if whole:
                exchange.right.next = True
            elif count != 0:
                exchange.damaged.next = exchange.damaged + 1
        elif exchange.listening and arrived:
            escaped.next = octet == ESCAPE
            if data_comes and count <= total:
                count.next = count + 1

    @always(clk.posedge)
    def keep():
        if data_comes:
            if count == 0:
                exchange.number.next = value
            elif count == 1:
                exchange.repeats.next = value
            else:
                exchange.beat.next = (exchange.beat >> 8) | (value << top)

    @always_seq(clk.posedge, reset=rst)
    def assemble():
        exchange.store.next = False
        if exchange.over:
            in_beat.next = 0
            exchange.place.next = 0
        elif data_comes and count > 1 and count < image_end:
            if in_beat == last_byte:
                in_beat.next = 0
                exchange.store.next = True
            else:
                in_beat.next = in_beat + 1
        elif exchange.store:
            if exchange.place == last_beat:
                exchange.place.next = 0
            else:
                exchange.place.next = exchange.place + 1

    return instances()


@block
def play_image(clk, rst, exchange, to_play, unit):
    """Keep the image, and play it; a beat per cycle where the accelerator takes it."""
    last_beat = unit.beats - 1
    memory = [Signal(modbv(0)[8 * unit.beat_bytes :]) for _ in range(unit.beats)]
    place, next_place = (counter(unit.beats) for _ in range(2))
    left = Signal(modbv(0)[8:])
    data = Signal(modbv(0)[8 * unit.beat_bytes :])
    pending, moved = (Signal(bool(0)) for _ in range(2))

    @always_comb
    def offer():
        to_play.tdata.next = data
        to_play.tvalid.next = exchange.playing and pending
        to_play.tlast.next = place == last_beat
        moved.next = exchange.playing and pending and to_play.tready

    @always_comb
    def choose():
        # The memory is a cycle ahead, since it answers a cycle later.
        if not exchange.playing or (moved and place == last_beat):
            next_place.next = 0
        elif moved:
            next_place.next = place + 1
        else:
            next_place.next = place

    @always(clk.posedge)
    def remember():
        if exchange.store:
            memory[exchange.place].next = exchange.beat
        data.next = memory[next_place]

    @always_seq(clk.posedge, reset=rst)
    def walk():
        place.next = next_place
        if not exchange.playing:
            pending.next = True
            left.next = exchange.repeats
        elif moved and place == last_beat:
            left.next = left - 1
            pending.next = left != 0

    return instances()


@block
def measure(clk, rst, exchange, to_play, result, unit):
    """Count cycles from the first beat in, and note the class and when results end."""
    result_bits, class_low = unit.result_bits, unit.result_bits - unit.class_bits
    cycle, ended = (Signal(modbv(0)[8 * CYCLE_BYTES :]) for _ in range(2))
    started, any_result, ends = (Signal(bool(0)) for _ in range(3))
    left = Signal(modbv(0)[8:])

    @always_comb
    def take():
        result.tready.next = True
        ends.next = exchange.playing and result.tvalid and result.tlast

    @always_seq(clk.posedge, reset=rst)
    def count():
        exchange.measured.next = ends and left == 0
        if not exchange.playing:
            started.next = False
            any_result.next = False
            cycle.next = 0
            left.next = exchange.repeats
        else:
            if started or (to_play.tvalid and to_play.tready):
                started.next = True
                cycle.next = cycle + 1
            if ends:
                any_result.next = True
                left.next = left - 1

    @always(clk.posedge)
    def note():
        if ends:
            exchange.class_.next = result.tdata[result_bits:class_low]
            ended.next = cycle
            if any_result:
                exchange.interval.next = cycle - ended
            else:
                exchange.latency.next = cycle
                exchange.interval.next = 0

    return instances()


@block
def write_answer(clk, rst, exchange, line, unit):
    """Send END, the answer, its CRC, END."""
    n_bytes, closing = unit.answer_bytes, unit.answer_bytes + CRC_BYTES + 1
    place = counter(closing + 1)
    rest = Signal(modbv(0)[8 * n_bytes :])
    escaping, special, delimiter = (Signal(bool(0)) for _ in range(3))
    plain = Signal(modbv(0)[8:])
    everything = ConcatSignal(exchange.interval, exchange.latency, exchange.class_, exchange.damaged, exchange.number)

    @always_comb
    def choose():
        if place <= n_bytes:
            plain.next = rest[8:]
        elif place == n_bytes + 1:
            plain.next = ~exchange.crc[8:]
        elif place == n_bytes + 2:
            plain.next = ~exchange.crc[16:8]
        elif place == n_bytes + 3:
            plain.next = ~exchange.crc[24:16]
        else:
            plain.next = ~exchange.crc[32:24]

    @always_comb
    def classify():
        delimiter.next = place == 0 or place == closing
        special.next = plain == END or plain == ESCAPE

    @always_comb
    def offer():
        line.offered.next = exchange.replying
        line.data.next = plain
        line.over.next = line.taken and place == closing
        line.some.next = line.taken and place != 0 and place <= n_bytes and (escaping or not special)
        if delimiter:
            line.octet.next = END
        elif not special:
            line.octet.next = plain
        elif not escaping:
            line.octet.next = ESCAPE
        elif plain == END:
            line.octet.next = ESCAPED_END
        else:
            line.octet.next = ESCAPED_ESCAPE

    @always_seq(clk.posedge, reset=rst)
    def step():
        if line.taken:
            if special and not delimiter and not escaping:
                escaping.next = True
            else:
                escaping.next = False
                if place == closing:
                    place.next = 0
                else:
                    place.next = place + 1

    @always(clk.posedge)
    def shift():
        if not exchange.replying:
            rest.next = everything
        elif line.some:
            rest.next = rest >> 8

    return instances()
