"""Data of one's own: what is read, how it is split and named, and one sentence for what is wrong with it."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbnn.model.data import datasets, own
from cbnn.model.data.pictures import read_image
from cbnn.model.exchange import storage
from cbnn.model.network import Origin, random_network
from cbnn.model.topology import Topology

read = own.read


def write_pictures(folder: Path, names=("cat", "dog", "owl"), n=6, mode="L", size=(5, 4)):
    draw = np.random.default_rng(1)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            shape = size if mode == "L" else (*size, 3)
            Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(("mode", "colours"), [("L", 1), ("RGB", 3)])
def test_a_folder_of_pictures(tmp_path, mode, colours):
    found = own.read(write_pictures(tmp_path / "pets", mode=mode))
    data = found.data
    assert own.named(found.name) == ((5, 4, colours), 8, 255, 3)
    assert data.train_images.shape == (15, 5, 4, colours)
    assert (np.bincount(data.train_labels).tolist(), np.bincount(data.test_labels).tolist()) == ([5] * 3, [1] * 3)
    assert found.origin == Origin(str(tmp_path / "pets"), found.name, ("cat", "dog", "owl"), ())
    pixels = np.asarray(Image.open(tmp_path / "pets" / "cat" / "0.png")).reshape(5, 4, colours)
    assert any((image == pixels).all() for image in data.train_images)
    assert read(tmp_path / "pets").name == found.name


def test_folders_to_train_and_to_test_with(tmp_path):
    write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "test", n=2)
    data = read(tmp_path).data
    assert (len(data.train_images), data.test_labels.tolist()) == (18, [0, 0, 1, 1, 2, 2])


def test_hidden_files_are_left_out_and_another_picture_gives_another_name(tmp_path):
    before = own.read(write_pictures(tmp_path / "pets")).name
    (tmp_path / "pets" / ".DS_Store").write_text("")
    (tmp_path / "pets" / "cat" / ".thumbs").write_text("")
    assert read(tmp_path / "pets").name == before
    Image.new("L", (4, 5)).save(tmp_path / "pets" / "cat" / "0.png")
    assert read(tmp_path / "pets").name != before


@pytest.mark.parametrize("names", [("train_images", "train_labels", "test_images", "test_labels"),
                                   ("x_train", "y_train", "x_test", "y_test")])
def test_arrays_to_train_and_to_test_with(tmp_path, names):
    draw = np.random.default_rng(2)
    train, test = draw.integers(0, 17, (9, 3, 2), np.uint8), draw.integers(0, 9, (4, 3, 2), np.uint8)
    train[0, 0, 0] = 16
    arrays = (train, np.arange(9)[:, np.newaxis] % 4, test, np.arange(4))  # labels as MedMNIST has them
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)), class_names=np.array(["a", "b", "c", "d"]))
    found = read(tmp_path / "a.npz")
    assert own.named(found.name) == ((3, 2, 1), 5, 16, 4)
    np.testing.assert_array_equal(found.data.train_images[..., 0], train)
    assert found.data.test_labels.tolist() == [0, 1, 2, 3]
    assert found.origin.class_names == ("a", "b", "c", "d")


def test_arrays_of_features_are_split(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.arange(60).reshape(20, 3), labels=np.arange(20) % 2)
    found = read(tmp_path / "a.npz")
    assert own.named(found.name) == ((1, 3, 1), 6, 59, 2)
    assert (len(found.data.train_images), len(found.data.test_images)) == (16, 4)


def test_features_with_a_point_and_labels_of_text(tmp_path):
    values = np.random.default_rng(3).normal(size=(30, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=values[:20], y_train=np.array(["no", "yes"] * 10),
             x_test=values[20:], y_test=np.array(["yes", "no"] * 5))
    found = read(tmp_path / "a.npz")
    assert (own.named(found.name), found.origin.class_names) == (((1, 4, 1), 8, 255, 2), ("no", "yes"))
    assert found.data.test_labels.tolist() == [1, 0] * 5
    expected = own.coded(values[20:].astype(np.float64), found.origin.ranges)
    np.testing.assert_array_equal(found.data.test_images[:, 0, :, 0], expected)


def test_a_table_of_a_library_is_read_as_it_is(tmp_path):
    shutil.copy(str(files("sklearn") / "datasets" / "data" / "iris.csv"), tmp_path / "iris.csv")
    found = read(tmp_path / "iris.csv")
    assert own.named(found.name) == ((1, 4, 1), 8, 255, 3)
    assert (len(found.data.train_images), len(found.data.test_images)) == (120, 30)
    assert found.data.train_images.min((0, 1, 3)).tolist() == [0] * 4
    assert found.data.train_images.max((0, 1, 3)).tolist() == [255] * 4
    assert found.origin.ranges[0][0] >= 4.3
    (tmp_path / "flower.csv").write_text("5.1,3.5,1.4,0.2\n")
    network = random_network(Topology.parse("1x4x1u8-5FC-3FC"), 0)
    network = storage_round_trip(network, found.origin, tmp_path)
    codes = read_image(tmp_path / "flower.csv", network)
    assert codes.shape == (1, 1, 4, 1)
    np.testing.assert_array_equal(codes[0, 0, :, 0], own.coded(np.array([5.1, 3.5, 1.4, 0.2]), found.origin.ranges))


def storage_round_trip(network, origin, folder):
    kept = type(network)(network.topology, network.parameters, origin=origin)
    storage.save(kept, folder / "kept.npz")
    loaded = storage.load(folder / "kept.npz")
    assert loaded.origin == origin
    return loaded


def test_columns_are_found_by_their_titles(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffClass,a,b\nx,0,3\ny,1,2\nx,2,1\ny,9,0\n")
    found = read(tmp_path / "t.csv")
    assert found.origin.class_names == ("x", "y")
    assert found.origin.ranges == ()  # whole numbers are pixels as they are
    assert sorted([*found.data.train_images[:, 0, 0, 0], *found.data.test_images[:, 0, 0, 0]]) == [0, 1, 2, 9]


def beside(folder):
    Image.new("L", (4, 5)).save(folder / "x.png")


def odd(folder):
    Image.new("L", (5, 5)).save(folder / "dog" / "9.png")


def text(folder):
    (folder / "dog" / "notes.txt").write_text("")


def empty(folder):
    (folder / "ape").mkdir()


def link(folder):
    (folder / "dog" / "l.png").symlink_to(folder / "cat" / "0.png")


def broken(folder):
    (folder / "dog" / "9.png").write_bytes(b"\x89PNG")


@pytest.mark.parametrize(("spoil", "complaint"), [
    (beside, "x.png lies beside the folders of classes; a picture lies in the folder of its class, and links are"),
    (odd, "9.png is 5x5 pixels; {0}/cat/0.png is 5x4"),
    (text, "notes.txt is no picture; a class's folder holds .png, "),
    (empty, "ape holds no picture"), (link, "l.png is no picture"), (broken, "9.png is not a whole picture of a kind")])
def test_folders_that_are_not_right(tmp_path, spoil, complaint):
    folder = write_pictures(tmp_path / "pets")
    spoil(folder)
    with pytest.raises(ValueError) as caught:
        own.read(folder)
    assert complaint.format(folder) in str(caught.value)


@pytest.mark.parametrize(("arrays", "complaint"), [
    ({"pictures": np.zeros((3, 2, 2), np.uint8)}, "holds pictures; it must hold images and labels, or train_images"),
    ({"images": np.zeros((3, 2, 2)), "labels": np.arange(3)}, "images are float64 (3, 2, 2); they must be whole"),
    ({"images": np.full((3, 2, 2), -1), "labels": np.arange(3)}, "pixels span -1 to -1; they must be 0 to 65535"),
    ({"images": np.array([[np.nan, 1.0]] * 3), "labels": np.arange(3)}, "holds a feature that is no number, or beyond"),
    ({"images": np.zeros((3, 2, 2), np.uint8), "labels": np.arange(2)}, "holds 3 images and labels int64 (2,)"),
    ({"images": np.zeros((3, 2, 2), np.uint8), "labels": np.arange(3)}, "class '0' has 1 example; at least one to"),
    ({"images": np.zeros((3, 2, 2), np.uint8), "labels": np.zeros(3, int)}, "has 1 class; it must have 2 to 1000"),
    ({"images": np.zeros((3, 2, 2), np.uint8), "labels": np.array([0, 1, 5000])}, "labels are 0 to 999; one of them"),
    ({"images": np.array([object()]), "labels": np.arange(1)}, "is no .npz of numbers"),
])
def test_arrays_that_are_not_right(tmp_path, arrays, complaint):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "a.npz")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(("content", "complaint"), [
    ("1,2,a\n3,b\n", "row 2 has 2 columns; row 1 has 3"), ("1,x,a\n", "holds no row of features"), ("", "holds no row"),
    ("1,2,a\n1,y,b\n", "row 2 holds 'y', which is no number, or beyond 1e+300"),
    ("1,2,a\n1,nan,b\n", "row 2 holds 'nan'"), ("1,2,a\n1,1e308,b\n", "row 2 holds '1e308'"),
    ("1\n2\n", "holds no row of features and a label"), ("1,2,a\n3,4,a\n", "has 1 class; it must have 2 to 1000"),
    ("a\0b,\xff", "holds no row")])
def test_tables_that_are_not_right(tmp_path, content, complaint):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "t.csv")
    assert complaint in str(caught.value)


def test_data_that_changed_are_not_taken_for_what_they_were(tmp_path):
    name = own.read(write_pictures(tmp_path / "pets")).name
    assert len(datasets.load(name, tmp_path / "pets").train_images) == 15
    odd_one = Image.new("L", (4, 5))
    odd_one.save(tmp_path / "pets" / "cat" / "0.png")
    with pytest.raises(ValueError, match="holds other data than own-5x4x1u8-255-3-"):
        datasets.load(name, tmp_path / "pets")


@pytest.mark.parametrize(("origin", "complaint"), [
    (Origin("/d", "own", ("a",)), "1 class names given; the network has 3 classes"),
    (Origin("/d", "own", ("a", "b", "c"), ((0.0, 1.0),)), "1 ranges given; the network takes 4 features"),
    (Origin("/d", "own", ("a", "b", "c"), ((0.0, float("inf")),) * 4), r"a range of a feature goes beyond 1e\+300"),
    (Origin("d", "own", ("a", "b", "c")), "which is no absolute path")])
def test_origins_that_do_not_suit_are_refused(origin, complaint):
    network = random_network(Topology.parse("1x4x1u8-5FC-3FC"), 0)
    with pytest.raises(ValueError, match=complaint):
        type(network)(network.topology, network.parameters, origin=origin)


def test_origins_on_disk_are_checked(tmp_path):
    network = random_network(Topology.parse("1x4x1u8-5FC-3FC"), 0)
    good = storage_round_trip(network, Origin("/d", "own", ("a", "b", "c")), tmp_path)
    with np.load(tmp_path / "kept.npz") as kept:
        arrays = dict(kept)
    header = json.loads(arrays["header"].tobytes())
    header["origin"]["class_names"] = 3
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=r"is not a cbnn network: .*class_names"):
        storage.load(tmp_path / "bad.npz")
    assert good.origin is not None


def test_a_network_numbers_its_classes_and_has_its_ranges(tmp_path):
    (tmp_path / "t.csv").write_text("".join(f"{i / 8},{i % 5}.5,{'xyz'[i % 3]}\n" for i in range(30)))
    origin = read(tmp_path / "t.csv").origin
    rows = [(0, 0.5, "z"), (1.25, 2.5, "y"), (9, 0.5, "z"), (0, 0, "y")]
    (tmp_path / "u.csv").write_text("".join(f"{a},{b},{label}\n" for a, b, label in rows))
    found = read(tmp_path / "u.csv", origin)
    assert set(found.data.train_labels) == {1, 2}
    assert found.data.note == "not the data that the network was trained on"
    assert read(tmp_path / "t.csv", origin).data.note == ""
    codes = np.concatenate([found.data.train_images, found.data.test_images])[:, 0, :, 0]
    expected = own.coded(np.array([row[:2] for row in rows]), origin.ranges)
    assert sorted(codes.tolist()) == sorted(expected.tolist())
    (tmp_path / "u.csv").write_text("0,0,x\n1,1,zebra\n")
    with pytest.raises(ValueError, match="has a class 'zebra'; the network knows x, y, z"):
        read(tmp_path / "u.csv", origin)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e301])
def test_features_that_are_no_numbers_are_refused(tmp_path, value):
    network = random_network(Topology.parse("1x2x1u8-5FC-3FC"), 0)
    network = storage_round_trip(network, Origin("/d", "own", ("a", "b", "c"), ((0.0, 1.0),) * 2), tmp_path)
    np.save(tmp_path / "x.npy", np.array([0.5, value]))
    with pytest.raises(ValueError, match="a feature is no number from"):
        read_image(tmp_path / "x.npy", network)


def test_a_whole_disk_is_not_walked(monkeypatch):
    monkeypatch.setattr(Path, "rglob", None)
    with pytest.raises(ValueError, match=r"links are not followed|cannot be read|is no picture|holds no"):
        read(Path("/"))
