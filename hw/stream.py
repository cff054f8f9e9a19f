"""The AXI4-Stream link that joins all kernels, and what every kernel states about itself.

Four rules hold on every link:

1. A beat is transferred in a clock cycle where `tvalid` and `tready` are both high.
2. The source may not wait for `tready` before it raises `tvalid`.
3. Once `tvalid` is high, it, `tdata` and `tlast` stay until the beat is transferred.
4. `tlast` is high in the last beat of an image, and only there.

Element 0 of a beat stands in bit 0 of `tdata`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from itertools import accumulate
from typing import ClassVar, NamedTuple

import numpy as np
from myhdl import ConcatSignal, ResetSignal, Signal, intbv
from numpy.typing import NDArray

from cbnn.hw.cost import RomShape
from cbnn.hw.elaboration import read_sources_once

read_sources_once()  # before any block is built: every kernel needs a stream


class Stream:
    """Signals of one link; `width` is that of `tdata` in bits."""

    def __init__(self, width: int) -> None:
        self.tdata = Signal(intbv(0)[width:])
        self.tvalid = Signal(bool(0))
        self.tready = Signal(bool(0))
        self.tlast = Signal(bool(0))


def counter(n: int) -> Signal:
    """Return a signal that counts 0 to n - 1."""
    return Signal(intbv(0, min=0, max=max(n, 2)))


def part(signal: Signal, high: int, low: int) -> Signal:
    """Return the bits from `low` to below `high`, to be joined with others: one bit is taken by its index.

    A slice of one bit inside a `ConcatSignal` converts to an index into a slice, which is no
    Verilog.
    """
    return signal(low) if high == low + 1 else signal(high, low)


def joined(signals: Sequence[Signal]) -> Signal:
    """Return a word of these signals, the first one lowest; MyHDL does not join a single one."""
    return ConcatSignal(*reversed(signals)) if len(signals) > 1 else signals[0]


def packed_beats(bits: NDArray) -> tuple[int, ...]:
    """Return a whole number per row of an array (beats, width) of 0 and 1, element 0 in bit 0."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    return tuple(int.from_bytes(row.tobytes(), "little") for row in packed)


def clock_and_reset() -> tuple[Signal, ResetSignal]:
    """Return `clk` and the synchronous reset `rst`, active high, as kernels take them."""
    return Signal(bool(0)), ResetSignal(0, active=1, isasync=False)


class Port(NamedTuple):
    """A stream that enters or leaves a kernel: bits of a beat, beats per image."""

    width: int
    beats: int

    @property
    def bus_width(self) -> int:
        """Bits of `tdata` where it enters or leaves the top module: the next of 8, 16, 32, 64, and so on.

        DMA engines, FIFOs and interconnects have such widths. The beat is in the low bits.
        """
        return max(8, 1 << (self.width - 1).bit_length())


class Link(NamedTuple):
    """An edge: what leaves a port of one kernel enters one of another; `OUTSIDE` stands for what is around them."""

    source: int
    sink: int
    source_port: int = 0
    sink_port: int = 0


OUTSIDE = -1


@dataclass(frozen=True)
class Rom:
    """Contents of a ROM: `words` of `width` bits.

    Attributes
    ----------
    writable : whether a host can write it, so that it is a RAM, see `cbnn.hw.mvtu.rom.WritePort`
    registered : False: a word is there in the cycle of its address; only of those that are writable
    """

    name: str
    width: int
    words: tuple[int, ...]
    block_ram: bool = False
    writable: bool = False
    registered: bool = True

    @property
    def shape(self) -> RomShape:
        """How it is laid out."""
        return RomShape(len(self.words), self.width, self.block_ram)

    @property
    def constant(self) -> bool:
        """Whether it is its one word; all others are loaded from the file ``<name>.mem``."""
        return len(self.words) == 1 and not self.writable

    @property
    def row_width(self) -> int:
        """Bits of a row."""
        return self.width * self.shape.per_row

    @property
    def rows(self) -> tuple[int, ...]:
        """What every row holds: words side by side."""
        n_rows = self.shape.rows
        return tuple(sum(word << i * self.width for i, word in enumerate(self.words[row::n_rows]))
                     for row in range(n_rows))

    @property
    def mem(self) -> str:
        """The text of the .mem file, a hexadecimal row per line."""
        return "".join(f"{row:0{(self.row_width + 3) // 4}x}\n" for row in self.rows)


@dataclass(frozen=True)
class Schedule:
    """When a kernel moves beats, as `cbnn.sim.predict.beat_times` computes it, whatever they carry.

    Attributes
    ----------
    kind : which rule
    numbers : FIFO: depth in beats. GATHER, HAND_OUT: ratio. EACH: pipeline cycles. REPLAY: depth in
        beats, beats per vector, folds. WINDOWS: pipeline cycles, words of the ring, beats per
        window, rows of windows
    table : EACH: for every beat of an image that enters whether a beat leaves for it. WINDOWS:
        words freed up to and with every row of windows, then words that every window needs, of one
        image
    """

    class Kind(IntEnum):
        """The rules; the functions that compute them are documented in `cbnn.sim.predict.beat_times`."""

        FIFO = 0
        GATHER = 1
        HAND_OUT = 2
        EACH = 3
        REPLAY = 4
        WINDOWS = 5

    kind: Kind
    numbers: tuple[int, ...]
    table: tuple[int, ...] = ()

    @property
    def capacity(self) -> int:
        """Beats, or words of a line buffer, that the kernel holds; 0 of those without memory."""
        if self.kind == self.Kind.WINDOWS:
            return self.numbers[1]
        if self.kind == self.Kind.REPLAY:
            return self.numbers[0] + self.numbers[1]
        return self.numbers[0] if self.kind == self.Kind.FIFO else 0

    @property
    def needs_last(self) -> bool:
        """Whether the last beat that leaves for an image needs the last that enters.

        It does not where a stride or a pool drops the last rows or columns.
        """
        if self.kind == self.Kind.WINDOWS:
            return self.table[-1] == self.table[self.numbers[3] - 1]
        return self.kind != self.Kind.EACH or self.table[-1] == 1


@dataclass(frozen=True)
class Kernel(ABC):
    """A streaming kernel: its ports, and the cycles it takes.

    `name` is the name of its Verilog module. Cycle counts are for one image whose beats are always
    offered and always accepted:

    - `interval_cycles`: cycles between the starts of consecutive images;
    - `latency_cycles`: from the cycle of the first beat in to the cycle of the last beat out.
    """

    LUT_CONSTANTS: ClassVar[tuple[float, ...]]
    """LUTs per unit of each of `lut_terms`, as bench/fit_luts.py fits them."""
    name: str

    @property
    @abstractmethod
    def inputs(self) -> tuple[Port, ...]:
        """Streams that enter."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Port, ...]:
        """Streams that leave."""

    @property
    def s_axis(self) -> Port:
        """The stream that enters, of a kernel that has one."""
        port, = self.inputs
        return port

    @property
    def m_axis(self) -> Port:
        """The stream that leaves, of a kernel that has one."""
        port, = self.outputs
        return port

    @property
    @abstractmethod
    def interval_cycles(self) -> int:
        """Cycles between the starts of consecutive images."""

    @property
    @abstractmethod
    def latency_cycles(self) -> int:
        """Cycles from the first beat in to the last beat out."""

    @property
    def luts(self) -> int:
        """Estimate of its LUTs (xc7); see `cbnn.hw.cost` for how good it is."""
        return round(sum(constant * term for constant, term in
                         zip(self.LUT_CONSTANTS, self.lut_terms, strict=True)))

    @property
    @abstractmethod
    def lut_terms(self) -> tuple[float, ...]:
        """What its LUTs are in proportion to, for each of `LUT_CONSTANTS`."""

    @property
    def block_rams(self) -> int:
        """Its block RAMs, in halves of 18 Kib."""
        return 0

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """When it moves beats."""

    @property
    def images_held(self) -> Fraction:
        """Bound of the images that have entered and not left, parts of images included.

        What has entered and left is counted as beats by beats per image, each on its own link.
        """
        schedule, beats = self.schedule, self.s_axis.beats
        if schedule.kind == Schedule.Kind.EACH:
            # Beats in the pipeline, and those that have come since the last that gave a beat.
            size, total = len(schedule.table), sum(schedule.table)
            lag = max(i * total - left * size
                      for i, left in enumerate(accumulate(schedule.table[:-1], initial=0)))
            return Fraction(schedule.numbers[0], beats) + Fraction(lag, total * beats)
        if schedule.kind == Schedule.Kind.WINDOWS:
            # When rows of windows have been read, their words are free; a beat may wait to leave.
            n_rows = schedule.numbers[3]
            lag = max(freed * n_rows - row * beats
                      for row, freed in enumerate((0, *schedule.table[: n_rows - 1])))
            return (Fraction(schedule.capacity, beats) + Fraction(lag, beats * n_rows)
                    + Fraction(1, self.m_axis.beats))
        # Converters hold a group of beats, or one that is handed out.
        gathered = schedule.numbers[0] if schedule.kind == Schedule.Kind.GATHER else 1
        return Fraction(schedule.capacity or gathered, beats)

    @abstractmethod
    def hardware(self, clk: Signal, rst: Signal, s_axis: Stream, m_axis: Stream):
        """Return the kernel as a MyHDL block; of `memories` each has a `WritePort` more."""

    @property
    def roms(self) -> tuple[Rom, ...]:
        """ROMs it reads."""
        return ()

    @property
    def memories(self) -> dict[str, Rom]:
        """Those of them that a host can write, by the name of the port through which it does."""
        return {}

    def submodules(self) -> dict[str, Callable[[], object]]:
        """Return what constructs the blocks that it instantiates as modules of their own, by module name."""
        return {}

    @property
    def kept_modules(self) -> frozenset[str]:
        """Submodules whose boundaries synthesis is to keep."""
        return frozenset()
