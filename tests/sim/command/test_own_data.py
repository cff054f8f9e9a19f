"""One's own data, from pictures to cycles, through the command."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")


@pytest.fixture
def pets(tmp_path):
    """Three classes of pictures that differ by where they are bright."""
    draw = np.random.default_rng(0)
    for i, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for j in range(30):
            picture = draw.integers(0, 60, (6, 6), np.uint8)
            picture[2 * i : 2 * i + 2] += 150
            Image.fromarray(picture).save(tmp_path / "pets" / name / f"{j}.png")
    return tmp_path / "pets"


@pytest.mark.usefixtures("points_are_trained_here")
def test_from_pictures_to_a_compact_network(pets, tmp_path, cbnn):
    small = ["--layers", "4C3-MP2-8FC-3FC", "--epochs", 3]
    code, out, _ = cbnn("train", "--data", pets, *small, "--out", tmp_path / "pets.npz", "--json")
    assert (code, json.loads(out)["kept_slices"]) == (0, [7, 6, 5, 4, 3, 2, 1, 0])
    model, picture = tmp_path / "pets.npz", pets / "dog" / "3.png"
    code, out, _ = cbnn("predict", model, picture, "--json")
    said = json.loads(out)
    assert (code, said["class_name"]) == (0, ("cat", "dog", "owl")[said["class"]])
    for verb, named in (("evaluate", []), ("evaluate", ["--data", pets]), ("sensitivity", ["--repetitions", 1])):
        code, out, err = cbnn(verb, model, *named, "--json")  # the network knows where its data are
        assert (code, err) == (0, "")
    code, out, _ = cbnn("compact", "--data", pets, *small, "--widths", "1,0.5", "--out", tmp_path / "compact", "--json")
    assert code == 0
    assert json.loads(out)["dataset"].startswith("own-6x6x1u8-255-3-")
    code, out, _ = cbnn("cycles", tmp_path / "compact" / "compact.npz", "--folding", "auto", "--json")
    assert code == 0
    (pets / "dog" / "3.png").unlink()
    code, _, err = cbnn("compact", "--data", pets, *small, "--widths", "1,0.5", "--out", tmp_path / "compact")
    assert code == 0  # other data are another search


def test_data_that_are_gone_are_said(pets, tmp_path, cbnn):
    cbnn("train", "--data", pets, "--layers", "8FC-3FC", "--epochs", 1, "--out", tmp_path / "pets.npz")
    pets.rename(tmp_path / "moved")
    code, out, err = cbnn("evaluate", tmp_path / "pets.npz")
    assert (code, out) == (2, "")
    assert err == f"cbnn: the network was trained on {pets}, which is not there; --data or --dataset name other data\n"
    assert cbnn("evaluate", tmp_path / "pets.npz", "--data", tmp_path / "moved")[0] == 0


def test_nothing_is_written_into_the_data(pets, cbnn):
    code, out, err = cbnn("train", "--data", pets, "--epochs", 1, "--out", pets / "net.npz")
    assert (code, out) == (2, "")
    assert err == f"cbnn: {pets / 'net.npz'} lies in the data, {pets}, which it would become a part of\n"


@pytest.mark.parametrize(("words", "sentence"), [
    (["--data", "{0}", "--dataset", "digits"], "--dataset has no effect with --data, which holds the images"),
    (["--data", "{0}/cat/0.png"], "{0}/cat/0.png is no folder, .npz or .csv of data"),
    (["--data", "{0}/none.csv"], "{0}/none.csv cannot be read: No such file or directory")])
def test_wrong_words_are_one_sentence(pets, tmp_path, cbnn, words, sentence):
    code, out, err = cbnn("train", *(word.format(pets) for word in words), "--out", tmp_path / "x.npz")
    assert (code, out, err) == (2, "", f"cbnn: {sentence.format(pets)}\n")
    assert not (tmp_path / "x.npz").exists()


def test_a_file_of_features_is_scaled_as_those_to_train_with(tmp_path, cbnn):
    values, labels = np.random.default_rng(1).normal(size=(60, 3)), np.arange(60) % 2
    values[:, 0] += 4 * labels
    np.savez(tmp_path / "a.npz", x_train=values[:40], y_train=labels[:40], x_test=values[40:], y_test=labels[40:])
    np.save(tmp_path / "x.npy", values[40:])
    np.save(tmp_path / "y.npy", labels[40:])
    code, out, _ = cbnn("train", "--data", tmp_path / "a.npz", "--epochs", 3, "--out", tmp_path / "net.npz", "--json")
    assert code == 0
    code, again, _ = cbnn("evaluate", tmp_path / "net.npz", "--images-file", tmp_path / "x.npy", "--labels-file",
                          tmp_path / "y.npy", "--json")
    assert (code, json.loads(again)["accuracy"]) == (0, json.loads(out)["accuracy"])
