"""XNOR-popcount: how many bits agree, behind a handshake that makes a kernel of it."""

from dataclasses import dataclass

import numpy as np
import pytest
from myhdl import Signal, always, always_comb, always_seq, block, intbv

from cbnn.hw.mvtu.xnor_popcount import Counters, popcount_stages, xnor_popcount
from cbnn.hw.stream import Kernel, Port, Schedule


@block
def popcount_stream(clk, rst, s_axis, m_axis, simd, stages):
    """Weights in the low half of a beat, inputs in the high half."""
    advance = Signal(bool(0))
    count = Signal(intbv(0, min=0, max=simd + 1))
    valid, last = [Signal(intbv(0)[stages:]) for _ in range(2)]
    # A copy, since slices of a port convert to zeros.
    pair = Signal(intbv(0)[2 * simd :])
    weights, inputs = pair(simd, 0), pair(2 * simd, simd)
    counting = xnor_popcount(clk, advance, weights, inputs, count, Counters("popcount"))

    @always_comb
    def copy():
        pair.next = s_axis.tdata

    @always_comb
    def handshake():
        advance.next = m_axis.tready or not valid[stages - 1]
        s_axis.tready.next = m_axis.tready or not valid[stages - 1]

    @always_comb
    def drive():
        m_axis.tvalid.next = valid[stages - 1]
        m_axis.tlast.next = last[stages - 1]
        m_axis.tdata.next = count

    @always_seq(clk.posedge, reset=rst)
    def mark_valid():
        if advance:
            valid.next[0] = s_axis.tvalid
            for i in range(1, stages):
                valid.next[i] = valid[i - 1]

    @always(clk.posedge)
    def mark_last():
        if advance:
            last.next[0] = s_axis.tlast
            for i in range(1, stages):
                last.next[i] = last[i - 1]

    return counting, handshake, copy, drive, mark_valid, mark_last


@dataclass(frozen=True)
class Popcount(Kernel):
    simd: int
    beats: int

    inputs = property(lambda self: (Port(2 * self.simd, self.beats),))
    outputs = property(lambda self: (Port(self.simd.bit_length(), self.beats),))
    interval_cycles = property(lambda self: self.beats)
    latency_cycles = property(lambda self: self.beats - 1 + popcount_stages(self.simd))
    lut_terms = LUT_CONSTANTS = ()
    schedule = property(lambda self: Schedule(Schedule.Kind.EACH, (popcount_stages(self.simd),), (1,) * self.beats))

    def submodules(self):
        return Counters("popcount").modules(self.simd)

    def hardware(self, clk, rst, s_axis, m_axis):
        return popcount_stream(clk, rst, s_axis, m_axis, self.simd, popcount_stages(self.simd))


@pytest.mark.parametrize("simd", [1, 2, 3, 8, 9, 10, 17, 27, 48, 64, 144, 300])
def test_counts_the_bits_that_agree(rtl, simd):
    beats = np.random.default_rng(simd).integers(0, 2, (24, 2, simd), np.uint8)
    beats[0, 1], beats[1, 1] = beats[0, 0], 1 - beats[1, 0]
    agreeing = (beats[:, 0] == beats[:, 1]).sum(axis=1)
    expected = (agreeing[:, np.newaxis] >> np.arange(simd.bit_length()) & 1).astype(np.uint8)
    np.testing.assert_array_equal(rtl(Popcount("unit", simd, 8), beats.reshape(24, -1)), expected)


@pytest.mark.parametrize(("simd", "stages"), [(1, 1), (9, 1), (10, 2), (36, 2), (37, 3), (144, 3), (145, 4)])
def test_states_its_latency(simd, stages):
    assert popcount_stages(simd) == stages
