"""Matrix-vector-threshold unit (MVTU): PE rows times SIMD columns of a binary matrix per cycle.

A vector enters once, in words of SIMD bits, and is replayed from a buffer for every further fold of rows; meanwhile
the next one waits. One word is worked on in every cycle, with no idle cycle between folds, vectors or images.
The structure is FINN's (Umuroglu et al., FPGA 2017); Horner's rule over bit slices is added for weighted first layers.
"""

from dataclasses import dataclass
from itertools import pairwise

from myhdl import ConcatSignal, Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.cost import block_rams, in_block_ram, ram_luts, rom_luts
from cbnn.hw.instance import inside_is_elsewhere, instantiation, placeholder
from cbnn.hw.processing_element import element_stages, processing_element
from cbnn.hw.rom import rom, rom_submodules
from cbnn.hw.stream import Kernel, Rom, Schedule, counter
from cbnn.hw.xnor_popcount import popcount_stages, popcount_submodules, xnor_popcount


@dataclass(frozen=True)
class Mvtu(Kernel):
    """One layer's matrix.

    What enters: vectors, `simd` bits per beat. What leaves: rows, `pe` per beat: a bit each, or, of the last layer,
    the popcount sum.

    Attributes
    ----------
    pass_words : words of a vector that have weights of their own
    neuron_fold : folds of rows
    slice_weights : what each bit slice counts, the MSB first, where slices share their weights; else (1,)
    maximum : the largest sum of a row
    n_vectors : vectors per image
    last : whether sums leave instead of bits
    weights : one word of pe * simd bits per cycle of a pass over the matrix, rows outermost; empty where only
        cycles are asked for
    thresholds : one word of pe thresholds per fold of rows
    ram_style : where the ROMs are: "block", "distributed" (LUTs), or "auto", by their size
    """

    pe: int
    simd: int
    pass_words: int
    neuron_fold: int
    slice_weights: tuple[int, ...]
    maximum: int
    n_vectors: int
    last: bool
    weights: tuple[int, ...] = ()
    thresholds: tuple[int, ...] = ()
    ram_style: str = "auto"

    @property
    def synapse_fold(self) -> int:
        """Words of a vector, all slices."""
        return self.pass_words * len(self.slice_weights)

    @property
    def n_weight_words(self) -> int:
        """Words of the weight ROM."""
        return self.pass_words * self.neuron_fold

    @property
    def sum_width(self) -> int:
        """Bits of a row's sum."""
        return self.maximum.bit_length()

    @property
    def threshold_width(self) -> int:
        """Bits of a threshold, which can be one above the largest sum."""
        return (self.maximum + 1).bit_length()

    s_width = property(lambda self: self.simd)
    m_width = property(lambda self: self.pe * (self.sum_width if self.last else 1))
    s_beats = property(lambda self: self.n_vectors * self.synapse_fold)
    m_beats = property(lambda self: self.n_vectors * self.neuron_fold)

    @property
    def interval_cycles(self) -> int:
        """Exactly SF * NF per vector."""
        return self.n_vectors * self.synapse_fold * self.neuron_fold

    @property
    def pipeline_cycles(self) -> int:
        """From the last word of a row to its result."""
        return 1 + element_stages(self.simd)

    @property
    def latency_cycles(self) -> int:
        """The last word is worked on in the last cycle of the interval; its result follows a pipeline later."""
        return self.interval_cycles - 1 + self.pipeline_cycles

    @property
    def element_bits(self) -> int:
        """Bits of an element that take a LUT each: of its sum, and of a comparison."""
        if self.starts_below_threshold:
            return self.threshold_width + 1
        return self.sum_width + (0 if self.last else self.threshold_width)

    @property
    def horner_bits(self) -> int:
        """Bits of an element's sum that are shifted on the way."""
        return self.sum_width if len(self.slice_weights) > 1 else 0

    @property
    def rom_sizes(self) -> list[tuple[int, int, bool]]:
        """Words, bits and whether in block RAM, of every ROM."""
        sizes = [(self.n_weight_words, self.pe * self.simd)]
        if not self.last:
            sizes.append((self.neuron_fold, self.pe * (self.threshold_width + self.starts_below_threshold)))
        return [(n, width, in_block_ram(n, width, self.ram_style)) for n, width in sizes]

    @property
    def memory_luts(self) -> int:
        """LUTs of ROMs and replay buffer."""
        roms = sum(rom_luts(n, width) for n, width, in_block in self.rom_sizes if not in_block)
        return roms + (ram_luts(self.synapse_fold, self.simd) if self.neuron_fold > 1 else 0)

    @property
    def block_rams(self) -> int:
        """ROMs in block RAM."""
        return sum(block_rams(n, width) for n, width, in_block in self.rom_sizes if in_block)

    @property
    def luts(self) -> int:
        """Estimate: counting at 1.9 per XNOR bit, sum and comparison per PE, ROMs and buffer in distributed RAM."""
        lanes = self.pe * (1.9 * self.simd + 2.5 * self.sum_width + 4)
        weights = self.n_weight_words * self.pe * self.simd / 64 if self.n_weight_words > 1 else 0
        thresholds = 0 if self.last else self.neuron_fold * self.pe * self.threshold_width / 64
        replay = self.simd * -(-self.synapse_fold // 64) * 1.3 if self.neuron_fold > 1 else 0
        return round(lanes + weights + thresholds + replay) + 40

    @property
    def roms(self) -> tuple[Rom, ...]:
        """Weights, and if any thresholds, or the starts of sums."""
        weights = self._rom("weights", self.simd, self.weights)
        if self.last:
            return (weights,)
        if not self.starts_below_threshold:
            return weights, self._rom("thresholds", self.threshold_width, self.thresholds)
        width, above = self.threshold_width, 1 << self.threshold_width
        starts = tuple(sum((above - (word >> i * width) % above) << i * (width + 1) for i in range(self.pe))
                       for word in self.thresholds)
        return weights, self._rom("starts", width + 1, starts)

    def _rom(self, content: str, lane: int, words: tuple[int, ...]) -> Rom:
        width = self.pe * lane
        return Rom(f"{self.name}_{content}", width, words, in_block_ram(len(words), width, self.ram_style))

    @property
    def starts_below_threshold(self) -> bool:
        """Whether sums start so that their top bit is the result; not where they are shifted on the way."""
        return not self.last and len(self.slice_weights) == 1

    @property
    def element_module(self) -> str:
        """Module name of its processing elements."""
        return f"{self.name}_element"

    @property
    def popcount_module(self) -> str:
        """Module name of its XNOR-popcounts."""
        return f"{self.name}_popcount"

    def submodules(self) -> dict:
        """Return what constructs the XNOR-popcount and the processing element."""
        clk, advance, valid, first = (Signal(bool(0)) for _ in range(4))
        inputs, weights = Signal(intbv(0)[self.simd :]), Signal(intbv(0)[self.simd :])
        count = Signal(intbv(0, min=0, max=self.simd + 1))
        shift, start, threshold, result = self.element_signals()
        return {**rom_submodules(self.roms), **popcount_submodules(self.popcount_module),
                self.popcount_module: lambda: xnor_popcount(clk, advance, weights, inputs, count, self.popcount_module),
                self.element_module: lambda: processing_element(
                    clk, advance, valid, first, shift, inputs, weights, start, threshold, result, self.maximum,
                    self.popcount_module)}

    @property
    def kept_modules(self) -> frozenset[str]:
        """ROMs, and the parts of XNOR-popcount, which fill their LUTs unless constant weights shrink them."""
        counters = popcount_submodules(self.popcount_module) if self.n_weight_words > 1 else {}
        return frozenset([*rom_submodules(self.roms), *counters])

    def element_signals(self):
        """Return a processing element's `shift`, `start`, `threshold` and `result`, None where it has none."""
        shift = Signal(intbv(0, min=0, max=max(self.gaps) + 1)) if len(self.slice_weights) > 1 else None
        if self.last:
            return shift, None, None, Signal(intbv(0)[self.sum_width :])
        if self.starts_below_threshold:
            return shift, Signal(intbv(0)[self.threshold_width + 1 :]), None, Signal(bool(0))
        return shift, None, Signal(intbv(0)[self.threshold_width :]), Signal(bool(0))

    @property
    def gaps(self) -> tuple[int, ...]:
        """By how many bits the sum shifts where each slice but the first starts; two of them at least, for a ROM."""
        bits = [weight.bit_length() for weight in self.slice_weights]
        gaps = tuple(high - low for high, low in pairwise(bits))
        return gaps if len(gaps) > 1 else gaps * 2

    schedule = property(lambda self: Schedule(
        Schedule.Kind.FOLDS, (self.pipeline_cycles, self.synapse_fold, self.neuron_fold)))

    def hardware(self, clk, rst, s_axis, m_axis):
        """Return the block."""
        return mvtu(clk, rst, s_axis, m_axis, self)


@block
def mvtu(clk, rst, s_axis, m_axis, unit):
    """Matrix-vector-threshold unit; interval SF * NF cycles per vector, see `Mvtu` for the latency."""
    pe, simd = unit.pe, unit.simd
    advance, go = Signal(bool(0)), Signal(bool(0))  # go: a word is worked on
    word, weight_word = Signal(intbv(0)[simd:]), Signal(intbv(0)[pe * simd :])
    weight_address = counter(unit.n_weight_words)
    n_flags = 5 if len(unit.slice_weights) > 1 else 4
    issued, counted = Signal(intbv(0)[n_flags:]), Signal(intbv(0)[n_flags:])
    image_last, last, first, valid = (counted(i) for i in range(4))
    shift, row_word = unit.element_signals()[0], None
    done, done_image = Signal(bool(0)), Signal(bool(0))

    @always_comb
    def handshake():
        advance.next = m_axis.tready or not m_axis.tvalid

    issuing = issue_words(clk, rst, s_axis, advance, go, word, weight_address, issued, unit)
    weights = rom(clk, advance, weight_address, weight_word, unit.roms[0])
    early = issued if popcount_stages(simd) == 1 else Signal(intbv(0)[n_flags:])  # a cycle ahead of `counted`
    early_last, early_valid = early(1), early(3)
    if popcount_stages(simd) > 1:
        aligning_early = delay(clk, rst, advance, issued, early, popcount_stages(simd) - 1)
    aligning = delay(clk, rst, advance, early, counted, 1)
    if shift is not None:
        shifting = find_shift(clk, rst, advance, valid, first, counted(4), last, shift, unit.gaps)
    if not unit.last:
        row_word = Signal(intbv(0)[unit.roms[1].width :])
        row_ends = (early_valid, early_last) if unit.starts_below_threshold else (valid, last)
        row_words = find_row_word(clk, rst, advance, *row_ends, row_word, unit)
    rows = compute_rows(clk, advance, valid, first, shift, word, weight_word, row_word, m_axis.tdata, unit)

    @always_seq(clk.posedge, reset=rst)
    def finish():
        if advance:
            done.next = valid and last
            m_axis.tvalid.next = done

    @always(clk.posedge)
    def mark_last():
        if advance:
            done_image.next = image_last
            m_axis.tlast.next = done_image

    return instances()


@block
def issue_words(clk, rst, s_axis, advance, go, word, weight_address, issued, unit):
    """Take a word per cycle, from the stream for the first fold of rows and from the replay buffer for the others.

    `issued` says of `word`, bit by bit: last of the image, last of a row, first of a row, valid, and, where there are
    several, first of a bit slice.
    """
    n_words, n_slices, n_rows = unit.pass_words, len(unit.slice_weights), unit.neuron_fold
    to_slice_start = n_words - 1
    in_slice, slice_, row = counter(n_words), counter(n_slices), counter(n_rows)
    fresh, slice_start, slice_end, row_start, row_end = (Signal(bool(0)) for _ in range(5))
    image_end, last_seen = Signal(bool(0)), Signal(bool(0))
    replayed = Signal(intbv(0)[unit.simd :])
    flags = [go, row_start, row_end, image_end]
    all_flags = ConcatSignal(*([slice_start, *flags] if n_slices > 1 else flags))

    @always_comb
    def handshake():
        go.next = advance and (row != 0 or s_axis.tvalid)
        s_axis.tready.next = advance and row == 0

    @always_comb
    def find_ends():
        row_start.next = in_slice == 0 and slice_ == 0
        slice_end.next = in_slice == n_words - 1
        row_end.next = in_slice == n_words - 1 and slice_ == n_slices - 1

    if n_rows > 1:
        @always_comb
        def look():
            fresh.next = row == 0

        buffering = replay_buffer(clk, rst, go, fresh, row_end, s_axis.tdata, replayed, unit.synapse_fold)

        @always_comb
        def find_image_end():
            image_end.next = row_end and row == n_rows - 1 and last_seen

        @always(clk.posedge)
        def take():
            if go and fresh:
                last_seen.next = s_axis.tlast
            if advance:
                if fresh:
                    word.next = s_axis.tdata
                else:
                    word.next = replayed
    else:
        @always_comb
        def find_image_end():
            image_end.next = row_end and s_axis.tlast

        @always(clk.posedge)
        def take():
            if advance:
                word.next = s_axis.tdata

    if n_slices > 1:
        @always_comb
        def find_slice_start():
            slice_start.next = in_slice == 0

    @always_seq(clk.posedge, reset=rst)
    def flag():
        if advance:
            issued.next = all_flags

    @always_seq(clk.posedge, reset=rst)
    def step():
        if go:
            if not slice_end:
                in_slice.next = in_slice + 1
                weight_address.next = weight_address + 1
            else:
                in_slice.next = 0
                if not row_end:
                    slice_.next = slice_ + 1
                    weight_address.next = weight_address - to_slice_start
                else:
                    slice_.next = 0
                    if row == n_rows - 1:
                        row.next = 0
                        weight_address.next = 0
                    else:
                        row.next = row + 1
                        weight_address.next = weight_address + 1

    return instances()


@block
def replay_buffer(clk, rst, go, fresh, row_end, data, replayed, depth):
    """Hold a vector's words as they enter and offer them again, one per cycle, for every further fold of rows."""
    memory = [Signal(intbv(0)[len(data) :]) for _ in range(depth)]
    address = counter(depth)

    @always_comb
    def look():
        replayed.next = memory[address]

    @always(clk.posedge)
    def store():
        if go and fresh:
            memory[address].next = data

    @always_seq(clk.posedge, reset=rst)
    def step():
        if go:
            if row_end:
                address.next = 0
            else:
                address.next = address + 1

    return instances()


@block
def delay(clk, rst, advance, source, delayed, stages):
    """Delay flags as long as XNOR-popcount takes."""
    line = [Signal(intbv(0)[len(source) :]) for _ in range(stages)]

    @always_comb
    def drive():
        delayed.next = line[stages - 1]

    @always(clk.posedge)
    def step():
        if rst:
            for i in range(stages):
                line[i].next = 0
        elif advance:
            line[0].next = source
            for i in range(1, stages):
                line[i].next = line[i - 1]

    return instances()


@block
def find_shift(clk, rst, advance, valid, first, slice_start, last, shift, gaps):
    """Tell the sum by how many bits to shift: none, but where a further bit slice starts."""
    slice_ = counter(len(gaps) + 1)
    gap = Signal(intbv(0, min=0, max=shift.max))

    @always_comb
    def look_up():
        gap.next = gaps[slice_]

    @always_comb
    def choose():
        if slice_start and not first:
            shift.next = gap
        else:
            shift.next = 0

    @always_seq(clk.posedge, reset=rst)
    def step():
        if advance and valid:
            if last:
                slice_.next = 0
            elif slice_start and not first:
                slice_.next = slice_ + 1

    return instances()


@block
def find_row_word(clk, rst, advance, valid, last, row_word, unit):
    """Read what each fold of rows needs, from the second cycle after the one before has its last word."""
    n_rows = unit.neuron_fold
    row = counter(n_rows)
    reading = rom(clk, advance, row, row_word, unit.roms[1])

    @always_seq(clk.posedge, reset=rst)
    def step():
        if advance and valid and last:
            if row == n_rows - 1:
                row.next = 0
            else:
                row.next = row + 1

    return instances()


@block
def compute_rows(clk, advance, valid, first, shift, word, weight_word, row_word, m_tdata, unit):
    """Instantiate the processing elements side by side and join their results into a beat."""
    pe, simd, width = unit.pe, unit.simd, 0 if row_word is None else len(row_word) // unit.pe
    results = [unit.element_signals()[3] for _ in range(pe)]
    result_width = len(results[0])
    elements = [element_instance(clk, advance, valid, first, shift, word, weight_word((i + 1) * simd, i * simd),
                                 None if row_word is None else row_word((i + 1) * width, i * width),
                                 results[i], unit, i) for i in range(pe)]

    if unit.last:
        @always_comb
        def assemble():
            for i in range(pe):
                for i_bit in range(result_width):
                    m_tdata.next[i * result_width + i_bit] = results[i][i_bit]
    else:
        @always_comb
        def assemble():
            for i in range(pe):
                m_tdata.next[i] = results[i]

    return instances()


@block
def element_instance(clk, advance, valid, first, shift, inputs, weights, row_word, result, unit, index):
    """Instantiate a processing element as a module of its own."""
    start, threshold = (row_word, None) if unit.starts_below_threshold else (None, row_word)
    ports = {"clk": clk, "advance": advance, "valid": valid, "first": first, "shift": shift,
             "inputs": inputs, "weights": weights, "start": start, "threshold": threshold}
    element_instance.verilog_code = instantiation(
        unit.element_module, f"element_{index}", {name: s for name, s in ports.items() if s is not None},
        {"result": result})
    if inside_is_elsewhere():
        return placeholder()
    return processing_element(clk, advance, valid, first, shift, inputs, weights, start, threshold, result,
                              unit.maximum, unit.popcount_module)
