"""From a network to a bitstream, and the command that asks a board."""

import json
import os
import re
import threading
import tty

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.boards.boards import BOARDS, ecp5_pll, gowin_pll, ice40_pll
from cbnn.hw.folding import Folding
from cbnn.model.compute import golden
from cbnn.model.exchange import storage
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.board.build import NotPlacedError, build, goal
from cbnn.sim.board.flow import missing, taken, utilisation
from cbnn.sim.board.protocol import Frames, framed
from cbnn.sim.board.stages import unfinished
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.synth.synthesis import SynthesisError

TOPOLOGY = Topology.parse("4x4x1u2-4FC-3FC")
FOLDING = "(1,8)(1,4)"
NETWORK = random_network(TOPOLOGY, 1)


def unit():
    return accelerator(NETWORK, Folding.parse(FOLDING, TOPOLOGY), "net")


@pytest.mark.slow(26)
def test_bitstream_for_the_icebreaker(tmp_path):
    seen = []
    with unfinished(tmp_path / "out") as stages:
        made = build(unit(), goal("icebreaker", None, 115_200, [1, 2]), tmp_path / "out", stages,
                     lambda done, total: seen.append((done, total)))
    assert made.bitstream.stat().st_size > 50_000
    assert made.chosen == max(made.seeds, key=lambda seed: seed.mhz).seed
    assert [seed.seed for seed in made.seeds] == [1, 2]
    assert all(seed.slack_ns == pytest.approx(1e3 / 24 - 1e3 / seed.mhz, abs=0.02) for seed in made.seeds)
    used, total = made.used["ICESTORM_LC"]
    assert 300 < used < total == 5280
    assert seen == [(0, 3), (1, 3), (2, 3)]
    assert json.loads((tmp_path / "out" / "board.json").read_text()) == {
        "board": "icebreaker", "topology": str(TOPOLOGY), "folding": FOLDING, "input_width": 16, "whole_bytes": False,
        "mhz": 24, "baud": 115_200}
    with (pytest.raises(SynthesisError, match=r"the clock of 60 MHz is not reached with 1 seed\(s\), the best of them"),
          unfinished(tmp_path / "fast") as stages):
        build(unit(), goal("icebreaker", 60, 115_200, [1]), tmp_path / "fast", stages)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow(60)
def test_bitstream_for_the_tang_nano(tmp_path):
    with unfinished(tmp_path / "out") as stages:
        made = build(unit(), goal("tangnano20k", None, 115_200, [1]), tmp_path / "out", stages)
    header = made.bitstream.read_text()[:600]
    assert header.startswith("1" * 100)
    assert made.seeds[0].mhz > 54
    used, total = made.used["LUT4"]
    assert 300 < used < total == 20_736
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("pll", "oscillator", "wanted", "mhz"), [
    (ice40_pll, 12, 24, 24), (ice40_pll, 12, 32.2, 31.875), (ice40_pll, 12, 48, 48),
    (ecp5_pll, 25, 75, 75), (ecp5_pll, 25, 110.4, 110), (ecp5_pll, 25, 25, 25),
    (gowin_pll, 27, 54, 54), (gowin_pll, 27, 100, 99), (gowin_pll, 27, 4.6, 4.5)])
def test_plls_run_within_their_limits(pll, oscillator, wanted, mhz):
    found = pll(oscillator, wanted)
    assert found.mhz == pytest.approx(mhz)
    numbers = {name: int(value) for name, value in re.findall(r"\.(\w+)\((?:\d'd)?(\d+)\)", found.verilog)}
    if pll is ice40_pll:
        vco = oscillator * (numbers["DIVF"] + 1)
        assert 533 <= vco <= 1066
        assert found.mhz == vco / 2 ** numbers["DIVQ"]
    elif pll is gowin_pll:
        assert found.mhz == oscillator / (numbers["IDIV_SEL"] + 1) * (numbers["FBDIV_SEL"] + 1)
        assert 3 <= oscillator / (numbers["IDIV_SEL"] + 1)
        assert 500 <= found.mhz * numbers["ODIV_SEL"] <= 1250
    else:
        assert found.mhz == oscillator / numbers["CLKI_DIV"] * numbers["CLKFB_DIV"]
        assert 400 <= found.mhz * numbers["CLKOP_DIV"] <= 800
    with pytest.raises(ValueError, match="no setting of the PLL makes a clock of 2 MHz"):
        pll(oscillator, 2)


LOG = """Info: Device utilisation:
Info: \t         ICESTORM_LC:    6000/   5280   113%
Info: \t        ICESTORM_RAM:      31/     30   103%
Info: \t               SB_IO:       3/     96     3%
Info: \t               SB_GB:       0/      8     0%
"""


GOWIN_LOG = """Info: Device utilisation:
Info: \t                 VCC:       1/      1   100%
Info: \t                LUT4:    3718/  20736    17%
Info: \t                 ALU:    1066/  15552     6%
Info: \t           RAM16SDP4:      52/    648     8%
Info: \t               BSRAM:       3/     46     6%
"""


def test_what_is_missing_is_said():
    assert utilisation(LOG) == {"ICESTORM_LC": (6000, 5280), "ICESTORM_RAM": (31, 30), "SB_IO": (3, 96)}
    assert missing(BOARDS["icebreaker"], utilisation(LOG)) == (
        "it does not fit the iCEBreaker: 6,000 ICESTORM_LC of 5,280, 720 too many; 31 ICESTORM_RAM of 30, 1 too many")
    assert missing(BOARDS["tangnano20k"], utilisation(GOWIN_LOG)) == ""
    assert taken(BOARDS["icebreaker"], utilisation(LOG)) == (6000, 31)
    assert taken(BOARDS["tangnano20k"], utilisation(GOWIN_LOG)) == (3718 + 1066 + 8 * 52, 3)


@pytest.mark.parametrize(("log", "kind", "sentence", "taken"), [
    (LOG, NotPlacedError, "it does not fit the iCEBreaker: 6,000 ICESTORM_LC of 5,280", (6000, 31)),
    (LOG.replace("6000", "5000").replace("31/", "30/"), NotPlacedError, "nextpnr-ice40 failed: no route", None),
    ("ERROR: no such option", SynthesisError, "nextpnr-ice40 failed: no route", None)])
def test_why_it_is_not_placed_is_said(tmp_path, log, kind, sentence, taken):
    class Stages:
        def run(self, tool, words, folder, reads, writes, log_name):
            if tool == "nextpnr-ice40":
                (folder / log_name).write_text(log)
                raise SynthesisError("nextpnr-ice40 failed: no route")

    with pytest.raises(kind) as caught:
        build(unit(), goal("icebreaker", None, 115_200, [1]), tmp_path / "out", Stages())
    assert type(caught.value) is kind
    assert str(caught.value).startswith(sentence)
    assert getattr(caught.value, "taken", None) == taken
    assert not (tmp_path / "out").exists()


@pytest.fixture
def line():
    """Give a pseudo-terminal on which a board answers with the golden model's class, `wrong` if so set."""
    master, slave = os.openpty()
    tty.setraw(slave)
    state = {"class": None, "late": 0}

    def serve():
        frames = Frames()
        while True:
            try:
                received = os.read(master, 256)
            except OSError:
                return
            for content in frames.feed(received):
                n = content[1] + 1
                trace = simulate(unit(), n)
                ends = trace.taken(-1)[unit().m_axis.beats - 1 :: unit().m_axis.beats].tolist()
                interval = ends[-1] - ends[-2] if n > 1 else 0
                os.write(master, framed(bytes([content[0], 0, state["class"]])
                                        + (ends[0] + state["late"]).to_bytes(3, "little")
                                        + interval.to_bytes(3, "little")))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield os.ttyname(slave), state
    os.close(slave)
    thread.join(5)
    os.close(master)


def test_classify_holds_the_board_against_the_model(cbnn, tmp_path, line):
    port, board = line
    image = np.random.default_rng(2).integers(0, 4, (4, 4, 1), np.uint8)
    board["class"] = int(golden.scores(NETWORK, image[np.newaxis])[0].argmax())
    storage.save(NETWORK, tmp_path / "net.npz")
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "board").mkdir()
    record = {"board": "icebreaker", "topology": str(TOPOLOGY), "folding": FOLDING, "input_width": 16,
              "whole_bytes": False, "mhz": 24,
              "baud": 115_200}
    (tmp_path / "board" / "board.json").write_text(json.dumps(record))
    words = ("classify", tmp_path / "net.npz", tmp_path / "image.npy", "--board-folder", tmp_path / "board",
             "--port", port)
    code, out, err = cbnn(*words, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["measured"] == said["predicted"]
    assert said["measured"]["class"] == board["class"]
    assert cbnn(*words, "--repeats", 1)[0] == 0
    board["late"] = 1
    code, _, err = cbnn(*words)
    assert (code, err.startswith("cbnn: the board says ")) == (1, True)
    code, _, err = cbnn(*words[:-1], tmp_path / "no port")
    assert (code, "no port" in err, err.count("\n")) == (2, True, 1)
    (tmp_path / "board" / "board.json").write_text("{}")
    assert cbnn(*words)[0] == 2


@pytest.mark.parametrize(("words", "sentence"), [
    (("--board", "arty"), "board 'arty' is not known; the boards are icebreaker, ulx3s-25f, ulx3s-85f, "
                            "tangnano20k"),
    (("--board", "icebreaker", "--mhz", "10"),
     "no setting of the PLL makes a clock of 10 MHz or a little less of 12 MHz"),
    (("--board", "icebreaker", "--baud", "9999999"), "9999999 baud are too fast for a clock of 24 MHz; a bit takes at "
                                                     "least 4 cycles")])
def test_boards_and_clocks_that_there_are_not(cbnn, tmp_path, words, sentence):
    folding = "(1,9)(1,16)(1,16)(1,16)(1,8)"
    code, _, err = cbnn("board", "digits-1", "--folding", folding, "--out", tmp_path / "x", *words)
    assert (code, err) == (2, f"cbnn: {sentence}\n")
    assert not (tmp_path / "x").exists()
