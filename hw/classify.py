"""Scores and class: finds the first of the highest scores."""

from dataclasses import dataclass

import numpy as np
from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv, modbv
from numpy.typing import NDArray

from cbnn.hw.delay import advance_when_free, delay
from cbnn.hw.stream import Kernel, Port, Schedule, counter


def signed_width(low: int, high: int) -> int:
    """Bits of a two's complement number that holds `low` to `high`."""
    return max(high, -low - 1, 0).bit_length() + 1


def lane_width(low: int, high: int) -> int:
    """Bits of a two's complement lane, whole bytes, that holds `low` to `high`."""
    return (signed_width(low, high) + 7) // 8 * 8


@dataclass(frozen=True)
class Classify(Kernel):
    """Scores and the class, or the class only.

    What enters: scores, `pe` per beat, class 0 first, of `width` bits each and lifted by half their range, so that
    none is negative. What leaves, per beat: `pe` scores, two's complement, each in a lane of whole bytes; above them,
    also in whole bytes, the class whose score is the highest so far (of equal scores the first), which in the last
    beat is the class of the image.

    Of class only a beat leaves per image, in the cycle in which the last of the others would: the class, in whole
    bytes.

    Attributes
    ----------
    low, high : bounds of the scores
    class_only : whether no scores leave
    """

    pe: int
    low: int
    high: int
    n_classes: int
    class_only: bool = False

    LUT_CONSTANTS = (1.29, 1.9, 6.9)
    width = property(lambda self: signed_width(self.low, self.high))
    lane = property(lambda self: lane_width(self.low, self.high))
    class_lane = property(lambda self: lane_width(0, self.n_classes - 1))
    inputs = property(lambda self: (Port(self.pe * self.width, self.n_classes // self.pe),))
    outputs = property(lambda self: (Port(self.n_scores * self.lane + self.class_lane,
                                          1 if self.class_only else self.s_axis.beats),))

    @property
    def n_scores(self) -> int:
        """Scores in a beat that leaves."""
        return 0 if self.class_only else self.pe

    @property
    def levels(self) -> int:
        """Levels of the tree that compares the scores of a beat."""
        return (self.pe - 1).bit_length()

    @property
    def interval_cycles(self) -> int:
        """A beat per cycle."""
        return self.s_axis.beats

    @property
    def latency_cycles(self) -> int:
        """Scores are taken, compared level by level, and compared with the best before."""
        return self.s_axis.beats - 1 + self.levels + 2

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """The best score, and a delay of all where they leave; comparators with their multiplexers; control."""
        return (1 if self.class_only else self.pe) * self.width, (self.pe - 1) * self.width, 1

    @property
    def schedule(self) -> Schedule:
        """A beat leaves for every one that enters; of class only for the last of an image."""
        table = (0,) * (self.s_axis.beats - 1) + (1,) if self.class_only else (1,)
        return Schedule(Schedule.Kind.EACH, (self.levels + 2,), table)

    @property
    def layout(self) -> dict[str, int]:
        """What a host needs to know to read a beat; widths in bits."""
        return {"tdata_bits": self.m_axis.bus_width, "used_bits": self.m_axis.width, "scores": self.n_scores,
                "score_bits": self.lane, "class_bits": self.class_lane, "beats": self.m_axis.beats}

    def encoded(self, scores: NDArray[np.int64]) -> list[int]:
        """Return every beat of every image, from scores (N, classes)."""
        if self.class_only:
            return scores.argmax(axis=1).tolist()
        beats: list[int] = []
        for row in scores:
            for i in range(0, len(row), self.pe):
                word = sum((int(score) % 2**self.lane) << (p * self.lane)
                           for p, score in enumerate(row[i : i + self.pe]))
                beats.append(word | int(row[: i + self.pe].argmax()) << (self.pe * self.lane))
        return beats

    def classes(self, beats: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the class of every image, (N,), from its last beat as bytes, (N, bytes), the lowest first."""
        lane = beats[:, self.n_scores * self.lane // 8 : self.m_axis.width // 8].astype(np.int64)
        return (lane << (8 * np.arange(lane.shape[1]))).sum(axis=1)

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block."""
        return (give_class if self.class_only else classify)(clk, rst, s_axis, m_axis, self)


@block
def classify(clk, rst, s_axis, m_axis, unit):
    """Scores and class: scores as two's complement, above them the class of the best so far.

    Scores come lifted by half their range, so that they compare as unsigned numbers, and their top
    bit inverted is the sign. One beat per cycle. Four classes, two scores per beat (a dot is no beat):

        in      3,7  9,2   .    .    .
        scores   .    .    .   3,7  9,2
        class    .    .    .    1    2
    """
    pe, levels, lane, class_lane = unit.pe, unit.levels, unit.lane, unit.class_lane
    width = unit.width
    advance = Signal(bool(0))
    scores, scores_late = [Signal(intbv(0)[pe * width :]) for _ in range(2)]
    lanes = [Signal(modbv(0)[lane:]) for _ in range(pe)]
    beat_best = Signal(intbv(0)[width:])
    beat_index = Signal(intbv(0)[max(1, levels) :])
    class_ = Signal(intbv(0)[class_lane:])
    flags = Signal(intbv(0)[2:])
    last, valid = flags(0), flags(1)

    handshaking = advance_when_free(m_axis, advance)

    @always_comb
    def accept():
        s_axis.tready.next = advance

    @always(clk.posedge)
    def take():
        if advance:
            scores.next = s_axis.tdata

    # Scores wait for the best of their beat, a cycle per level; flags also for the register that takes scores.
    comparing = find_best(clk, advance, scores, (beat_best, beat_index), unit)
    delaying = [delay(clk, None, advance, scores, scores_late, levels),
                delay(clk, rst, advance, ConcatSignal(s_axis.tvalid, s_axis.tlast), flags, levels + 1)]
    extending = [extend_sign(scores_late((i + 1) * width, i * width), lanes[i]) for i in range(pe)]
    keeping = keep_best(clk, rst, advance, (valid, last), (beat_best, beat_index), class_, unit)

    @always_seq(clk.posedge, reset=rst)
    def finish():
        if advance:
            m_axis.tvalid.next = valid

    @always(clk.posedge)
    def assemble():
        if advance:
            m_axis.tlast.next = last
            for i in range(pe):
                for i_bit in range(lane):
                    m_axis.tdata.next[i * lane + i_bit] = lanes[i][i_bit]
            for i_bit in range(class_lane):
                m_axis.tdata.next[pe * lane + i_bit] = class_[i_bit]

    return instances()


@block
def give_class(clk, rst, s_axis, m_axis, unit):
    """Class: that of the highest score, of equal scores the first.

    Scores come lifted by half their range, so that they compare as unsigned numbers. One beat per
    cycle, and one per image out. Four classes, two scores per beat (a dot is no beat):

        in     3,7  9,2   .    .    .
        class   .    .    .    .    2
    """
    levels = unit.levels
    advance = Signal(bool(0))
    scores = Signal(intbv(0)[unit.pe * unit.width :])
    beat_best = Signal(intbv(0)[unit.width :])
    beat_index = Signal(intbv(0)[max(1, levels) :])
    class_ = Signal(intbv(0)[unit.class_lane :])
    flags = Signal(intbv(0)[2:])
    last, valid = flags(0), flags(1)

    handshaking = advance_when_free(m_axis, advance)

    @always_comb
    def accept():
        s_axis.tready.next = advance

    @always(clk.posedge)
    def take():
        if advance:
            scores.next = s_axis.tdata

    # Flags wait for the best of their beat, a cycle per level, and for the register that takes scores.
    comparing = find_best(clk, advance, scores, (beat_best, beat_index), unit)
    delaying = delay(clk, rst, advance, ConcatSignal(s_axis.tvalid, s_axis.tlast), flags, levels + 1)
    keeping = keep_best(clk, rst, advance, (valid, last), (beat_best, beat_index), class_, unit)

    @always_seq(clk.posedge, reset=rst)
    def finish():
        if advance:
            m_axis.tvalid.next = valid and last

    @always(clk.posedge)
    def assemble():
        if advance:
            m_axis.tlast.next = last
            m_axis.tdata.next = class_

    return instances()


@block
def extend_sign(biased, lane):
    """One lane: the score as two's complement; its top bit comes inverted.

    Scores of 4 bits in a lane of 8: -3 comes as 8 - 3 = 0101 and becomes 11111101.
    """
    top, width = len(biased) - 1, len(lane)
    own_biased = Signal(intbv(0)[len(biased) :])

    @always_comb
    def copy():
        own_biased.next = biased

    @always_comb
    def extend():
        for i in range(top):
            lane.next[i] = own_biased[i]
        for i in range(top, width):
            lane.next[i] = not own_biased[top]

    return instances()


@block
def find_best(clk, advance, scores, winner_of_beat, unit):
    """Find the highest of the scores of a beat, the first of equal ones, and its place.

    Scores are compared in pairs, level by level, a cycle each: of 3 7 7 2 5 the levels keep 7 7 5
    at places 1 2 4, then 7 5 at 1 4, then 7 at 1.
    """
    best, index = winner_of_beat
    pe, levels, width = unit.pe, unit.levels, unit.width
    values = [[Signal(intbv(0)[width:]) for _ in range(-(-pe // 2**level))] for level in range(levels + 1)]
    places = [[Signal(intbv(0)[max(1, level) :]) for _ in range(-(-pe // 2**level))] for level in range(levels + 1)]
    splitting = [split_score(scores((i + 1) * width, i * width), values[0][i]) for i in range(pe)]
    comparing = [compare_pairs(clk, advance, values[level], places[level], values[level + 1], places[level + 1],
                               level) for level in range(levels)]
    winner, place = values[levels][0], places[levels][0]
    if levels:
        @always_comb
        def drive():
            best.next = winner
            index.next = place
    else:
        @always_comb
        def drive():
            best.next = winner
            index.next = 0

    return splitting, comparing, drive


@block
def split_score(scores, score):
    """One lane of a beat."""

    @always_comb
    def split():
        score.next = scores

    return instances()


@block
def compare_pairs(clk, advance, values, places, next_values, next_places, level):
    """One level of the tree: the higher of each pair, the first of equal ones; a value without a partner passes."""
    n_pairs, odd = len(values) // 2, len(values) % 2
    step = 1 << level

    if level == 0:
        @always(clk.posedge)
        def compare():
            if advance:
                for i in range(n_pairs):
                    # Only a higher one is preferred, so that the first of equal ones wins.
                    if values[2 * i + 1] > values[2 * i]:
                        next_values[i].next = values[2 * i + 1]
                        next_places[i].next = 1
                    else:
                        next_values[i].next = values[2 * i]
                        next_places[i].next = 0
    else:
        @always(clk.posedge)
        def compare():
            if advance:
                for i in range(n_pairs):
                    if values[2 * i + 1] > values[2 * i]:
                        next_values[i].next = values[2 * i + 1]
                        next_places[i].next = places[2 * i + 1] + step
                    else:
                        next_values[i].next = values[2 * i]
                        next_places[i].next = places[2 * i]

    if not odd:
        return compare
    if level == 0:
        @always(clk.posedge)
        def pass_on():
            if advance:
                next_values[n_pairs].next = values[2 * n_pairs]
                next_places[n_pairs].next = 0
    else:
        @always(clk.posedge)
        def pass_on():
            if advance:
                next_values[n_pairs].next = values[2 * n_pairs]
                next_places[n_pairs].next = places[2 * n_pairs]
    return compare, pass_on


@block
def keep_best(clk, rst, advance, flags, winner_of_beat, class_, unit):
    """Keep the best score and its class from beat to beat; `class_` includes the present beat.

    Of equal scores the first is kept. Best scores of beats of 5 classes each, the last of an image
    in the third beat:

        score   4 4 6|1
        index   2 0 3|1
        class   2 2 13|1
    """
    valid, last = flags
    beat_best, beat_index = winner_of_beat
    pe, width, n_classes = unit.pe, unit.width, unit.n_classes
    started = Signal(bool(0))
    best = Signal(intbv(0)[width:])
    best_class, beat_class = counter(n_classes), counter(n_classes)
    base = counter(n_classes)
    better = Signal(bool(0))

    @always_comb
    def compare():
        better.next = not started or beat_best > best
        beat_class.next = base + beat_index

    # The class leaves with the image's last beat, so that this beat has to count at once.
    @always_comb
    def choose():
        if better:
            class_.next = beat_class
        else:
            class_.next = best_class

    @always_seq(clk.posedge, reset=rst)
    def step():
        if advance and valid:
            # The first beat of an image wins whatever the image before has left.
            started.next = not last
            if last:
                base.next = 0
            else:
                base.next = base + pe

    @always(clk.posedge)
    def keep():
        if advance and valid and better:
            best.next = beat_best
            best_class.next = beat_class

    return instances()
