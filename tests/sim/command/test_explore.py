"""The verbs that explore: what they print, what they write, and one sentence for what goes wrong."""

import json

import numpy as np
import pytest

from cbnn.hw.folding import Folding
from cbnn.model.compute.golden import accuracy
from cbnn.model.data import digits
from cbnn.model.exchange.shipped import shipped_digits
from cbnn.model.exchange.storage import save
from cbnn.model.files import RECORD
from cbnn.model.network import Network, prune_slices
from cbnn.model.topology import Topology
from cbnn.sim.report.performance import FILES

WORDS = ("6x6x1u3-8C3-MP2-12FC-4FC",)
TOPOLOGY = Topology.parse("8C3-MP2-12FC-4FC", (6, 6, 1), 3)
FOLDING = ("--folding", "(8,9)(2,8)(1,4)")


def test_cycles_have_latency_and_of_digits_accuracy(cbnn):
    code, out, _ = cbnn("cycles", "digits-5", "--folding", "(8,9)(16,16)(8,16)(4,16)(5,8)", "--slices", "4..0",
                        "--slices", "4..1", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["latency_cycles"] for row in rows] == [1204, 1120]
    assert [round(row["accuracy_before"], 2) for row in rows] == [0.95, 0.95]
    assert json.loads(cbnn("cycles", *WORDS, *FOLDING, "--json")[1])[0]["accuracy_before"] is None


def test_cycles_keep_the_slices_that_are_named(cbnn):
    words = ("cycles", "digits-5", "--folding", "(8,9)(16,16)(8,16)(4,16)(5,8)")
    [row] = json.loads(cbnn(*words, "--slices", "3", "--json")[1])
    data = digits.load()
    assert row["kept_slices"] == [3]
    assert row["accuracy_before"] == accuracy(prune_slices(shipped_digits()[0], (3,)), data.test_images,
                                              data.test_labels)
    lines = [line.split() for line in cbnn(*words, "--slices", "3", "--slices", "4,2")[1].splitlines()]
    assert ["3", f"{100 * row['accuracy_before']:.2f}"] in [line[:2] for line in lines]
    assert "4,2" in [line[0] for line in lines if line]
    assert [row["kept_slices"] for row in json.loads(cbnn(*words, "--json")[1])] == [
        [4, 3, 2, 1, 0], [4, 3, 2, 1], [4, 3, 2], [4, 3], [4]]


def test_cycles_code_pixels_and_name_the_data_set(cbnn, tmp_path):
    network = shipped_digits()[0]
    turned = Network(network.topology, network.parameters, np.arange(31, -1, -1))
    save(turned, tmp_path / "turned.npz")
    words = ("cycles", tmp_path / "turned.npz", "--folding", "(8,9)(16,16)(8,16)(4,16)(5,8)", "--slices", "4..0")
    data = digits.load()
    code, out, _ = cbnn(*words, "--json")
    assert code == 0
    assert json.loads(out)[0]["accuracy_before"] == accuracy(turned, data.test_images, data.test_labels)
    assert json.loads(out)[0]["dataset"] == "digits"
    assert "accuracy: digits" in cbnn(*words)[1]
    code, _, err = cbnn("cycles", *WORDS, *FOLDING, "--dataset", "mnist")
    assert (code, err) == (2, "cbnn: --dataset has no effect here: the topology 6x6x1u3-8C3-MP2-12FC-4FC has no "
                              "weights, and so no accuracy\n")
    code, out, err = cbnn(*words, "--dataset", "mnist")
    assert (code, out) == (2, "")
    assert err == ("cbnn: data set 'mnist' does not suit: the network takes images of 8x8x1 and 5 bits; digits "
                   "does\n")


def test_simulate_prints_kernels_and_writes_a_report(cbnn, tmp_path):
    code, out, err = cbnn("simulate", *WORDS, *FOLDING, "--out", tmp_path / "report", "--mhz", 50)
    assert code == 0
    assert "accelerator_mvtu0" in out
    assert "II" in out
    assert err.splitlines()[0] == f"report: {tmp_path / 'report'}"
    assert {path.name for path in (tmp_path / "report").iterdir()} == {RECORD, *FILES}
    undisturbed, stalled = (json.loads(cbnn("simulate", *WORDS, *FOLDING, "--json", "--stall", stall)[1])["network"]
                            for stall in (0, 80))
    assert undisturbed["max_cycles"] == 108
    assert stalled["critical_path_cycles"] > undisturbed["critical_path_cycles"]


def test_fold_for_an_interval_a_device_and_along_the_front(cbnn, tmp_path):
    code, out, _ = cbnn("fold", *WORDS, "--interval", 400, "--out", tmp_path / "f.json", "--json")
    assert code == 0
    [row] = json.loads(out)
    assert row["interval_cycles"] <= 400
    assert str(Folding.load(tmp_path / "f.json", TOPOLOGY)) == row["folding"]
    [same] = json.loads(cbnn("fold", *WORDS, "--fps", 250_000, "--mhz", 100, "--json")[1])
    assert same == row
    [fastest] = json.loads(cbnn("fold", *WORDS, "--device", "xc7z010", "--luts", 900, "--json")[1])
    assert fastest["luts"] <= 900
    front = json.loads(cbnn("fold", *WORDS, "--front", 6, "--json")[1])
    assert len(front) > 2
    assert [row["luts"] for row in front] == sorted((row["luts"] for row in front), reverse=True)
    assert "images/s" in cbnn("fold", *WORDS, "--front", 6)[1]


def test_fifos_are_written_as_a_folding(cbnn, tmp_path):
    code, out, _ = cbnn("fifos", *WORDS, *FOLDING, "--out", tmp_path / "f.json", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["bits"] <= result["bits_before"]
    layers = Folding.load(tmp_path / "f.json", TOPOLOGY).layers
    assert [layer.fifo_depth for layer in layers] == result["depths"]


def test_sweep_prints_every_point(cbnn, tmp_path):
    words = ("sweep", *WORDS, "--out", tmp_path / "s.db", "--slices", "2..0", "--slices", "1", "--widths", "1,0.5")
    code, out, _ = cbnn(*words, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["kept_slices"], row["width"]) for row in rows] == [
        ([2, 1, 0], 1.0), ([2, 1, 0], 0.5), ([1], 1.0), ([1], 0.5)]
    assert cbnn(*words)[1].count("xc7z020") == 4


@pytest.mark.parametrize(("words", "sentence"), [
    (("fold", *WORDS), "nothing bounds the search; give --interval, --fps, --luts, --block-rams, --device or --front"),
    (("fold", *WORDS, "--interval", 9, "--fps", 9), "--interval and --fps are given; only one of them can be"),
    (("fold", *WORDS, "--fps", 0), "--fps is 0.0; it must be 0.001 to 1,000,000,000"),
    (("fold", *WORDS, "--device", "fpga"), "device 'fpga' is not one of xc7z010, xc7z020, xc7a35t, xc7a100t, xc7k325t, "
                                           "xc7vx690t"),
    (("simulate", *WORDS, *FOLDING, "--images", 0), "--images is 0; it must be 1 to 1,000,000"),
    (("simulate", *WORDS, *FOLDING, "--stall", 99), "--stall is 99; it must be 0 to 90"),
    (("simulate", *WORDS, "--folding", "(1,1)"), "the folding is of 1 layers; the network has 3"),
    (("sweep", *WORDS, "--out", "x.db", "--widths", "wide"),
     "--widths is 'wide'; it must be numbers with commas between them, as in 1,0.5"),
])
def test_wrong_input_is_one_sentence(cbnn, words, sentence):
    assert cbnn(*words) == (2, "", f"cbnn: {sentence}\n")
