"""How a matrix unit is built: what its ROMs hold, its modules, and the block that joins them.

    s_axis -> words wait for their weights ->  processing elements, side by side -> m_axis
           -> sequencer -> weight ROM      ->
                        -> row ROM         ->

`unit` is the `Mvtu` everywhere, which says what it is: folds, widths, cycles.
"""

from itertools import pairwise

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.delay import advance_when_free, delay
from cbnn.hw.instance import Place, instance
from cbnn.hw.mvtu.processing_element import processing_element
from cbnn.hw.mvtu.rom import rom, rom_submodules
from cbnn.hw.mvtu.sequencer import Flags, Issued, find_row, find_shift, issue_words
from cbnn.hw.mvtu.weighted_count import weighted_count
from cbnn.hw.mvtu.xnor_popcount import xnor_popcount
from cbnn.hw.stream import Rom, counter


def rom_contents(unit) -> tuple[Rom, Rom]:
    """Return weights, and what every row needs: where its sum starts, or its threshold or offset.

    A threshold of 5 in 4 bits is a start of 16 - 5 = 11 in 5 bits, see `processing_element`.
    """
    weights, rows = unit.rom_shapes
    name, words = "thresholds" if not unit.starts else "starts", unit.thresholds
    if unit.starts and not unit.last:
        width, above = unit.threshold_width, 1 << unit.threshold_width
        words = tuple(sum((above - (word >> i * width) % above) << i * (width + 1) for i in range(unit.mmv * unit.pe))
                      for word in unit.thresholds)
    return (Rom(f"{unit.name}_weights", weights.width, unit.weights, weights.block_ram, unit.writable),
            Rom(f"{unit.name}_{name}", rows.width, words, rows.block_ram, unit.writable))


def submodules(unit) -> dict:
    """Return what constructs the unit's modules: ROMs, counters, XNOR-popcount, processing element."""
    clk, advance, valid, first = (Signal(bool(0)) for _ in range(4))
    inputs, weights, word = (Signal(intbv(0)[n:]) for n in (unit.simd, *[unit.count.values] * 2))
    count, agreements = (Signal(intbv(0, min=0, max=n + 1)) for n in (unit.count.highest, unit.count.values))
    shift, row, result = element_signals(unit)
    modules = {**rom_submodules(unit.roms), **unit.counters.modules(unit.count.values),
               unit.popcount_module: lambda: xnor_popcount(clk, advance, weights, word, agreements, unit.counters),
               unit.element_module: lambda: processing_element(
                   clk, advance, valid, first, shift, inputs, weights, row, result, unit)}
    if len(unit.lanes) > 1:
        modules[unit.count_module] = lambda: weighted_count(clk, advance, weights, inputs, count, unit)
    return modules


def element_signals(unit):
    """Return a processing element's `shift`, None where it has none, `row` and `result`."""
    shift = None if unit.starts else counter(max(unit.gaps) + 1)
    row = Signal(intbv(0)[unit.sum_width if unit.starts else unit.threshold_width :])
    return shift, row, Signal(intbv(0)[unit.score_width :]) if unit.last else Signal(bool(0))


@block
def mvtu(clk, rst, s_axis, m_axis, to_weights, to_rows, unit):
    """Matrix-vector-threshold unit: a word of a vector per cycle, all processing elements at once.

    A vector comes once per fold of rows, word by word. A beat leaves for each fold: a bit or a score
    per processing element, element 0 lowest. Vectors of two words, two folds of rows, and a pipeline
    of four cycles (a dot is no beat):

        in   a b a b c d c d . . . .
        out  . . . . . 0 . 1 . 0 . 1     the fold whose rows leave
    """
    # `to_weights` and `to_rows` write the ROMs where these are writable; else they are None.
    width = unit.mmv * unit.simd
    # go: a word is worked on. Test benches count these cycles, so it is a signal of the module.
    advance, go = Signal(bool(0)), Signal(bool(0))
    # The word waits for its weights, which block RAM gives a cycle or two later than LUTs.
    words = [Signal(intbv(0)[width:]) for _ in range(unit.weight_cycles)]
    word, weight_word = words[-1], Signal(intbv(0)[unit.pe * unit.count.values :])
    row_word = Signal(intbv(0)[unit.roms[1].width :])
    weight_address = counter(unit.n_weight_words)
    n_flags = 4 if unit.starts else 5
    # Flags of a word, from when it is taken to when it is counted.
    flags = [Signal(intbv(0)[n_flags:]) for _ in range(unit.flag_cycles + 1)]
    counted = flags[-1]
    at_count = Flags(counted)
    valid, last, image_last = at_count.valid, at_count.last, at_count.image_last
    # What a row needs is read when these show its predecessor's last word, so that it comes with the
    # count, where sums start from it, or a cycle later with the sum, which is compared with it.
    row_flags = flags[unit.flag_cycles + (0 if unit.starts else 1) - unit.rom_shapes[1].read_cycles]
    shift = element_signals(unit)[0]
    done, done_image = Signal(bool(0)), Signal(bool(0))

    handshaking = advance_when_free(m_axis, advance)
    issuing = issue_words(clk, rst, s_axis, advance, Issued(go, words[0], weight_address, flags[0]), unit)
    weights = rom(clk, advance, weight_address, weight_word, unit.roms[0], to_weights)
    aligning = [delay(clk, rst, advance, before, after, 1) for before, after in pairwise(flags)]
    aligning_words = [delay(clk, None, advance, before, after, 1) for before, after in pairwise(words)]
    row_words = find_row(clk, rst, advance, Flags(row_flags), row_word, to_rows, unit)
    if shift is not None:
        shifting = find_shift(clk, rst, advance, at_count, shift, unit.gaps)
    rows = compute_rows(clk, advance, at_count, shift, (word, weight_word, row_word), m_axis.tdata, unit)

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
def compute_rows(clk, advance, flags, shift, words, m_tdata, unit):
    """Instantiate the processing elements side by side and join their results into a beat.

    `words` are the inputs, which all elements of a vector share, then the weights, of which every
    row takes its part, whatever the vector, and what the rows need. Element 0 has the lowest bits.
    """
    word, weight_word, row_word = words
    valid, first = flags.valid, flags.first
    simd, values, n_elements = unit.simd, unit.count.values, unit.mmv * unit.pe
    width = len(row_word) // n_elements
    vectors = [word((i + 1) * simd, i * simd) for i in range(unit.mmv)] if unit.mmv > 1 else [word]
    weights = [weight_word((i + 1) * values, i * values) for i in range(unit.pe)]
    results = [element_signals(unit)[2] for _ in range(n_elements)]
    result_width = len(results[0])
    elements = [instance(Place(unit.element_module, f"element_{i}"), processing_element,
                         clk, advance, valid, first, shift, vectors[i // unit.pe], weights[i % unit.pe],
                         row_word((i + 1) * width, i * width), results[i], unit) for i in range(n_elements)]

    if unit.last:
        @always_comb
        def assemble():
            for i in range(n_elements):
                for i_bit in range(result_width):
                    m_tdata.next[i * result_width + i_bit] = results[i][i_bit]
    else:
        @always_comb
        def assemble():
            for i in range(n_elements):
                m_tdata.next[i] = results[i]

    return instances()
