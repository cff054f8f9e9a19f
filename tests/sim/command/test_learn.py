"""The verbs around learning: data from files and sets, interruption, the whole method on a small scale."""

import json
from pathlib import Path

import numpy as np
import pytest

from cbnn.model.compute import evaluation, golden
from cbnn.model.exchange import storage
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.command import learn
from cbnn.sim.report import compaction

NETWORK = random_network(Topology.parse("6FC-3FC", (3, 2, 1), 3), 1)
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 8, (600, 3, 2, 1), np.uint8), RNG.integers(0, 3, 600)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    storage.save(NETWORK, Path("net.npz"))
    np.save("images.npy", IMAGES)
    np.save("labels.npy", LABELS)
    return "evaluate", "net.npz", "--images-file", "images.npy", "--labels-file", "labels.npy", "--json"


def test_files_of_any_size_are_evaluated(cbnn, files) -> None:
    code, out, _ = cbnn(*files)
    result = json.loads(out)
    assert code == 0
    assert result["accuracy"] == round(golden.accuracy(NETWORK, IMAGES, LABELS), 6)
    assert np.sum(result["confusion"]) == 600
    assert result["computed_by"].startswith("compiled, ")


def test_an_interrupted_evaluation_goes_on(cbnn, files, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(cbnn(*files)[1])
    calls = []

    def classes(network, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return golden.scores(network, images).argmax(axis=1)

    monkeypatch.setattr(evaluation.golden, "classes", classes)
    code, out, err = cbnn(*files, "--partial", "partial.json")
    assert code == 130
    assert err.endswith("cbnn: interrupted\n")
    assert json.loads(out)["interrupted_after"] == 256
    code, out, _ = cbnn(*files, "--partial", "partial.json")
    assert code == 0
    assert calls == [256, 256, 256, 88]
    assert json.loads(out)["confusion"] == whole["confusion"]
    np.save("images.npy", IMAGES[::-1])
    code, _, err = cbnn(*files, "--partial", "partial.json")
    assert code == 2
    assert err.endswith(
        "cbnn: partial.json holds the evaluation of another network or of other images; name another file\n")


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda: np.save("labels.npy", LABELS[:-1]),
     "labels of shape (599,) given for 600 images; one label per image is needed"),
    (lambda: np.save("images.npy", IMAGES * 0.5), "images are float64; pixels must be integers"),
    (lambda: np.save("images.npy", np.full(IMAGES.shape, np.nan)), "images are float64; pixels must be integers"),
    (lambda: np.save("images.npy", IMAGES + 1), "pixels 1 to 8 given; 3 bits hold 0 to 7"),
    (lambda: np.save("images.npy", IMAGES[:0]), "labels of shape (600,) given for 0 images; one label per image is "),
    (lambda: np.save("images.npy", IMAGES[:, :1]), "images of shape (256, 1, 2, 1) given; the network takes (N, 3, 2,"),
    (lambda: Path("images.npy").write_bytes(b"\x93NUMPY"), "images.npy is not an .npy file"),
])
def test_bad_files_are_one_sentence(cbnn, files, spoil, sentence: str) -> None:
    spoil()
    code, out, err = cbnn(*files)
    assert code == 2
    assert out == ""
    assert err.splitlines()[-1].startswith(f"cbnn: {sentence}")


def test_a_network_that_no_data_set_suits(cbnn, files) -> None:
    code, _, err = cbnn("evaluate", "net.npz")
    assert code == 2
    assert err == "cbnn: the network takes images of 3x2x1 and 3 bits, which no data set has\n"


def test_sensitivity_draws(cbnn, tmp_path: Path) -> None:
    code, out, _ = cbnn("sensitivity", "digits-2", "--repetitions", 2, "--plot", tmp_path / "plot.html")
    assert code == 0
    assert "randomised with all below" in out
    assert "zeroed" in out
    assert "What each slice carries" in (tmp_path / "plot.html").read_text()


def test_train_what_is_named(cbnn, tmp_path: Path) -> None:
    code, out, _ = cbnn("train", "--layers", "8C3-MP2-16FC-10FC", "--slices", "4,2", "--width", 0.5, "--epochs", 1,
                        "--first-layer", "weighted", "--teacher", "--out", tmp_path / "net.npz", "--json")
    assert code == 0
    network = storage.load(tmp_path / "net.npz")
    assert (str(network.topology), network.max_pixel) == ("8x8x1u5w:4,2-4C3-MP2-8FC-10FC", 16)
    assert json.loads(out)["kept_slices"] == [4, 2]


@pytest.mark.usefixtures("points_are_trained_here")
def test_compact_finds_reports_and_goes_on(cbnn, tmp_path: Path) -> None:
    words = ("compact", "--layers", "8C3-MP2-16FC-10FC", "--epochs", 1, "--widths", "1,0.5", "--max-drop", 90, "--out",
             tmp_path / "c")
    code, out, _ = cbnn(*words)
    assert code == 0
    assert "x fewer" in out
    facts = json.loads((tmp_path / "c" / compaction.SUMMARY).read_text())
    small = storage.load(tmp_path / "c" / "compact.npz")
    assert small.topology.n_weight_bits == facts["compact"]["weight_bits"] < facts["baseline"]["weight_bits"]
    assert len(small.topology.kept_slices) == 1
    assert len(facts["compact"]["test_accuracies"]) == 3
    assert facts["times_fewer_weight_bits"] == facts["baseline"]["weight_bits"] / facts["compact"]["weight_bits"]
    assert "What was tried" in (tmp_path / "c" / compaction.PAGE).read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "points").iterdir()}
    assert cbnn(*words, "--json")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "points").iterdir()} == before


def test_data_that_are_not_the_original_say_so(cbnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = learn.datasets.Data(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, int), *(
        (images[:8], labels[:8]) for images, labels in [learn.datasets.load("digits")[2:4]]).__next__(), "JPEG copy")
    monkeypatch.setattr(learn.datasets, "load", lambda *_: data)
    assert json.loads(cbnn("evaluate", "digits-5", "--json")[1])["note"] == "JPEG copy"
    assert "JPEG copy" in cbnn("sensitivity", "digits-1", "--repetitions", 1)[1]
