"""Matrix-vector-threshold unit (MVTU): PE rows times SIMD columns of a binary matrix per cycle.

A vector enters in words of SIMD bits, once per fold of rows, as the replay buffer in front gives it.
The unit takes a word in every cycle, with no idle cycle between folds, vectors or images. The
structure is FINN's (Umuroglu et al., FPGA 2017). Added are Horner's rule over bit slices that share
weights, where these come one after another, and weighted counts, where they come side by side.

Several windows can be worked on at once: there is a row of processing elements for each of them.
"""

from dataclasses import dataclass
from itertools import pairwise

from cbnn.hw.cost import RomShape, in_block_ram
from cbnn.hw.mvtu.circuit import mvtu, rom_contents, submodules
from cbnn.hw.mvtu.processing_element import ACCUMULATOR_STAGES
from cbnn.hw.mvtu.rom import rom_submodules
from cbnn.hw.mvtu.weighted_count import WordCount
from cbnn.hw.mvtu.xnor_popcount import Counters
from cbnn.hw.stream import Kernel, Port, Rom, Schedule


@dataclass(frozen=True)
class Mvtu(Kernel):
    """One layer's matrix.

    What enters: vectors, `simd` bits of each of `mmv` neighbouring ones per beat, each as often as there are folds of
    rows. What leaves: rows, `pe` per vector and beat: a bit each, or, of the last layer, the score. The first vector
    has the lowest bits.

    Attributes
    ----------
    pass_words : words of a vector that have weights of their own
    neuron_fold : folds of rows
    slice_weights : what each bit slice, or the lowest of each group side by side, counts, the highest first, where
        slices share their weights; else (1,)
    maximum : the largest sum of a row
    n_vectors : vectors per image
    score_width : bits of a score, in the last layer; 0 in the others
    weights : one word of pe * simd bits, or less where lanes share them, per cycle of a pass over the matrix, rows
        outermost; empty where only cycles are asked for
    thresholds : one word of mmv * pe thresholds per fold of rows, place by place; in the last layer of pe offsets,
        which are added to the sums, of `score_width` bits each and not negative
    place_ends : last row of windows, and last column of beats, of each run that has thresholds of its own; one run of
        each where all windows share theirs
    ram_style : where the ROMs are: "block", "distributed" (LUTs), or "auto", by their size
    lanes : what slices side by side count, see `WordCount`
    mmv : vectors at once; above 1 only where one beat holds them whole, and all rows are worked on
    writable : whether a host can write weights, and what rows need
    """

    pe: int
    simd: int
    pass_words: int
    neuron_fold: int
    slice_weights: tuple[int, ...]
    maximum: int
    n_vectors: int
    score_width: int = 0
    weights: tuple[int, ...] = ()
    thresholds: tuple[int, ...] = ()
    place_ends: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (0,))
    ram_style: str = "auto"
    lanes: tuple[int, ...] = (1,)
    mmv: int = 1
    writable: bool = False

    LUT_CONSTANTS = (9.75, 1.66, 0.92, 1.03, 1.14, 0.89, 1.03, 0.78, 0.96)

    @property
    def last(self) -> bool:
        """Whether scores leave instead of bits."""
        return self.score_width > 0

    @property
    def synapse_fold(self) -> int:
        """Words of a vector, all slices."""
        return self.pass_words * len(self.slice_weights)

    @property
    def n_weight_words(self) -> int:
        """Words of the weight ROM."""
        return self.pass_words * self.neuron_fold

    @property
    def n_row_words(self) -> int:
        """Words of what every row needs."""
        return self.neuron_fold * len(self.place_ends[0]) * len(self.place_ends[1])

    @property
    def starts(self) -> bool:
        """True if the accumulator can start at -T, so that its sign is the result.

        In the last layer it starts at the class's offset, so that it is the score. False for
        weighted slices, whose accumulator is shifted between slices.
        """
        return len(self.slice_weights) == 1

    @property
    def sum_width(self) -> int:
        """Bits of a row's sum."""
        if not self.starts:
            return self.maximum.bit_length()
        return self.score_width or self.threshold_width + 1

    @property
    def threshold_width(self) -> int:
        """Bits of a threshold, which can be one above the largest sum, or of an offset."""
        return self.score_width or (self.maximum + 1).bit_length()

    n_beats = property(lambda self: self.n_vectors // self.mmv * self.neuron_fold)
    inputs = property(lambda self: (Port(self.mmv * self.simd, self.n_beats * self.synapse_fold),))
    outputs = property(lambda self: (Port(self.mmv * self.pe * max(1, self.score_width), self.n_beats),))
    count = property(lambda self: WordCount(self.simd, self.lanes))

    @property
    def interval_cycles(self) -> int:
        """Exactly SF * NF per vector, or per group of vectors at once."""
        return self.s_axis.beats

    @property
    def weight_cycles(self) -> int:
        """From an address to its weights."""
        return self.rom_shapes[0].read_cycles

    @property
    def flag_cycles(self) -> int:
        """From a word and its flags to the count, with which flags, and what the row needs, must be in time."""
        return self.weight_cycles - 1 + self.count.stages

    @property
    def pipeline_cycles(self) -> int:
        """From the last word of a row to its result."""
        return self.weight_cycles + self.count.stages + ACCUMULATOR_STAGES

    @property
    def latency_cycles(self) -> int:
        """The last word is worked on in the last cycle of the interval; its result follows a pipeline later."""
        return self.interval_cycles - 1 + self.pipeline_cycles

    @property
    def element_bits(self) -> int:
        """Bits of an element's sum, and of what is done with it: shifts, and a comparison.

        Constant weights are optimised together with the element. Then gaps are constant too, so that
        the lowest bits of a shifted sum are those of the count, and nothing is compared with a
        constant threshold; where what a row needs is read, the sum takes no LUTs of its own.
        """
        if self.n_weight_words == 1 and self.n_row_words == 1:
            return self.sum_width - (0 if self.starts else min(self.gaps))
        threshold = 0 if self.starts else self.threshold_width
        if self.n_weight_words == 1:
            return threshold
        return self.sum_width * (1 if self.starts else max(self.gaps).bit_length()) + threshold

    @property
    def rom_shapes(self) -> tuple[RomShape, RomShape]:
        """Of weights, and of what every row needs; that is in block RAM only where it still comes in time."""
        size = self.n_weight_words, self.pe * self.count.values
        weights = RomShape(*size, in_block_ram(*size, self.ram_style))
        size = self.n_row_words, self.mmv * self.pe * (self.sum_width if self.starts else self.threshold_width)
        rows = RomShape(*size, in_block_ram(*size, self.ram_style))
        in_time = weights.read_cycles - 1 + self.count.stages + (not self.starts) >= rows.read_cycles
        return weights, rows if in_time else RomShape(*size, block_ram=False)

    @property
    def block_rams(self) -> int:
        """ROMs in block RAM."""
        return sum(shape.block_rams for shape in self.rom_shapes)

    @property
    def lut_terms(self) -> tuple[float, ...]:
        """XNOR-popcounts; with constant weights the bits of all rows, and of one; sums; ROMs.

        Rows share some logic of constant weights, the windows of a beat share none. The ROMs are of
        weights and of what rows need; last are bits of their addresses, half as much again where a
        count is no power of two, so that it is compared with its end.
        """
        weights, rows = self.rom_shapes
        addresses = sum((n - 1).bit_length() * (1 if n & (n - 1) == 0 else 1.5)
                        for n in (self.n_weight_words, self.n_row_words))
        elements = self.mmv * self.pe
        unfolded = self.mmv * self.simd if self.n_weight_words == 1 else 0
        nines, rest, added = self.count.popcount_lut_terms
        folded = 0 if unfolded else elements
        return (folded * nines, folded * rest, folded * (added + self.count.added_bits), self.pe * unfolded, unfolded,
                elements * self.element_bits, weights.luts, rows.luts, addresses)

    @property
    def roms(self) -> tuple[Rom, ...]:
        """Weights, and what every row needs."""
        return rom_contents(self)

    @property
    def memories(self) -> dict[str, Rom]:
        """Both ROMs, where they are writable."""
        return dict(zip(("to_weights", "to_rows"), self.roms, strict=True)) if self.writable else {}

    @property
    def element_module(self) -> str:
        """Module name of its processing elements."""
        return f"{self.name}_element"

    @property
    def popcount_module(self) -> str:
        """Module name of its XNOR-popcounts."""
        return f"{self.name}_popcount"

    @property
    def count_module(self) -> str:
        """Module name of what counts a word: a popcount, or one for every lane, and what adds them."""
        return self.popcount_module if len(self.lanes) == 1 else f"{self.name}_count"

    @property
    def counters(self) -> Counters:
        """Fixed circuits of its XNOR-popcounts, one module of each for all units of the accelerator.

        The accelerator's name is what stands before the last underscore in the unit's.
        """
        return Counters(self.name.rpartition("_")[0] or self.name, kept=self.n_weight_words > 1 or self.writable)

    def submodules(self) -> dict:
        """Return what constructs ROMs, counters, XNOR-popcount and processing element."""
        return submodules(self)

    @property
    def kept_modules(self) -> frozenset[str]:
        """ROMs; of the counters each instance says whether it is kept."""
        return frozenset(rom_submodules(self.roms))

    @property
    def gaps(self) -> tuple[int, ...]:
        """By how many bits the sum shifts where each slice but the first starts; two of them at least, for a ROM."""
        bits = [weight.bit_length() for weight in self.slice_weights]
        gaps = tuple(high - low for high, low in pairwise(bits))
        return gaps if len(gaps) > 1 else gaps * 2

    schedule = property(lambda self: Schedule(
        Schedule.Kind.EACH, (self.pipeline_cycles,), (0,) * (self.synapse_fold - 1) + (1,)))

    def hardware(self, clk, rst, s_axis, m_axis, to_weights=None, to_rows=None):
        """Return the block."""
        return mvtu(clk, rst, s_axis, m_axis, to_weights, to_rows, self)
