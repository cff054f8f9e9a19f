"""Data sets: the original formats, read exactly; whatever is wrong with a file is one sentence."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from cbnn.model import datasets, digits
from cbnn.model.datasets import CIFAR_FILES, MNIST_FILES, load, validation_split

RNG = np.random.default_rng(0)
TRAIN, TRAIN_LABELS = RNG.integers(0, 256, (6, 28, 28), np.uint8), RNG.integers(0, 10, 6).astype(np.uint8)
TEST, TEST_LABELS = RNG.integers(0, 256, (3, 28, 28), np.uint8), RNG.integers(0, 10, 3).astype(np.uint8)

NOT_IDX = "t10k-images-idx3-ubyte.gz is not IDX with 3 axes of bytes, or is cut short"


def idx(array: np.ndarray) -> bytes:
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for file, array in zip(MNIST_FILES, (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS), strict=True):
        (tmp_path / file).write_bytes(gzip.compress(idx(array)))
    return tmp_path


def cifar(folder: Path) -> np.ndarray:
    images = RNG.integers(0, 256, (6, 2, 32, 32, 3), np.uint8)
    for i, file in enumerate(CIFAR_FILES):
        records = [bytes([i]) + image.transpose(2, 0, 1).tobytes() for image in images[i]]
        (folder / file).write_bytes(b"".join(records))
    return images


def test_idx(mnist: Path) -> None:
    data = load("mnist", mnist)
    np.testing.assert_array_equal(data.train_images[..., 0], TRAIN)
    np.testing.assert_array_equal(data.test_images[..., 0], TEST)
    np.testing.assert_array_equal(data.train_labels, TRAIN_LABELS)
    assert data.test_labels.dtype == np.int64
    assert data.note == "not the original files"


def test_a_folder_of_the_sets_name_and_the_environment(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mnist / "fashion-mnist").mkdir()
    for file in MNIST_FILES:
        (mnist / file).rename(mnist / "fashion-mnist" / file)
    (mnist / "fashion-mnist" / "NOTE.txt").write_text("a drawing\nmore")
    monkeypatch.setenv("CBNN_DATA_DIR", str(mnist))
    assert load("fashion-mnist").note == "a drawing"


def test_cifar_unpacked_and_in_its_archive(tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    images = cifar(tmp_path / "loose")
    data = load("cifar10", tmp_path / "loose")
    np.testing.assert_array_equal(data.train_images, images[:5].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(data.test_images, images[5])
    assert data.train_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "loose", "cifar-10-batches-bin")
    np.testing.assert_array_equal(load("cifar10", tmp_path / "packed").train_images, data.train_images)


def test_svhn_calls_zero_ten(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
    for name in ("train", "test"):
        labels = np.array([[10], [1], [9], [2]])
        savemat(tmp_path / f"{name}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels})
    data = load("svhn", tmp_path)
    np.testing.assert_array_equal(data.train_images, images)
    assert data.test_labels.tolist() == [0, 1, 9, 2]


def test_digits() -> None:
    np.testing.assert_array_equal(load("digits").test_images, digits.load().test_images)


def test_originals_are_known_by_their_sums(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def md5(content: bytes) -> str:
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    known = datasets.DATASETS["mnist"]
    packed = [(mnist / file).read_bytes() for file in MNIST_FILES]
    sums = [(md5(gzip.decompress(content)),) if i % 2 else (md5(content),) for i, content in enumerate(packed)]
    for file, one in zip(MNIST_FILES, sums, strict=True):
        monkeypatch.setitem(known.files, file, one)
    assert load("mnist", mnist).note == ""
    monkeypatch.setitem(known.files, MNIST_FILES[2], ("0",))
    assert load("mnist", mnist).note == "not the original files"


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda packed: packed[:-9], "t10k-images-idx3-ubyte.gz is cut short, or holds more than 1073741824 bytes"),
    (lambda packed: b"", "t10k-images-idx3-ubyte.gz is cut short, or holds more than 1073741824 bytes"),
    (lambda packed: b"\0" + packed, "t10k-images-idx3-ubyte.gz is not a gzip file: "),
    (lambda packed: gzip.compress(idx(TEST)[:-1]), NOT_IDX),
    (lambda packed: gzip.compress(idx(TEST_LABELS)), NOT_IDX),
    (lambda packed: gzip.compress(b""), NOT_IDX),
    (lambda packed: gzip.compress(idx(TEST[:2])),
     "images (2, 28, 28, 1) with labels (3,); (28, 28, 1) and a label each are needed"),
    (lambda packed: gzip.compress(idx(TEST[:, :9])),
     "images (3, 9, 28, 1) with labels (3,); (28, 28, 1) and a label each are needed"),
])
def test_damaged_mnist(mnist: Path, spoil: object, sentence: str) -> None:
    path = mnist / MNIST_FILES[2]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        load("mnist", mnist)
    assert str(caught.value).startswith(sentence)


def test_damaged_others(tmp_path: Path) -> None:
    cifar(tmp_path)
    for content, sentence in ((b"x" * 3072, "test_batch.bin is of 3072 bytes; it must hold images of 3073"),
                              (b"\x0b" + bytes(3072), "a label is 11; the classes are 0 to 9")):
        (tmp_path / "test_batch.bin").write_bytes(content)
        with pytest.raises(ValueError) as caught:
            load("cifar10", tmp_path)
        assert str(caught.value) == sentence
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="the archive of CIFAR-10 cannot be read: "):
        load("cifar10", tmp_path)
    for name in ("train", "test"):
        (tmp_path / f"{name}_32x32.mat").write_bytes(b"MATLAB no more")
    with pytest.raises(ValueError, match="a file of SVHN is not a MATLAB file with X and y: "):
        load("svhn", tmp_path)


def test_no_such_set_and_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        load("imagenet")
    assert str(caught.value) == "data set 'imagenet' is not one of digits, mnist, fashion-mnist, cifar10, svhn"
    with pytest.raises(ValueError) as caught:
        load("cifar10", tmp_path)
    assert str(caught.value) == f"{tmp_path / 'data_batch_1.bin'} cannot be read: No such file or directory"


def test_what_was_downloaded_is_checked(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    monkeypatch.delenv("CBNN_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    known = datasets.DATASETS["mnist"]

    def retrieve(url: str, known_hash: str, **options: object) -> str:
        file = url.removeprefix(known.url)
        found = hashlib.md5((mnist / file).read_bytes(), usedforsecurity=False).hexdigest()
        if known_hash != f"md5:{found}":
            raise ValueError(f"MD5 hash of downloaded file ({file}) does not match the known hash")
        return str(mnist / file)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(ValueError) as caught:
        load("mnist")
    assert str(caught.value) == (
        f"{MNIST_FILES[0]} cannot be downloaded from {known.url}: MD5 hash of downloaded file ({MNIST_FILES[0]}) does "
        "not match the known hash; a folder that holds it can be named by --data-dir or CBNN_DATA_DIR")
    for file in MNIST_FILES:
        sums = hashlib.md5((mnist / file).read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(known.files, file, (sums,))
    assert load("mnist").note == ""


def test_validation_split() -> None:
    images, labels = np.arange(20).reshape(20, 1), np.arange(20)
    rest, rest_labels, chosen, chosen_labels = validation_split(images, labels, 5)
    assert len(chosen) == 5
    assert sorted([*rest_labels.tolist(), *chosen_labels.tolist()]) == labels.tolist()
    np.testing.assert_array_equal(rest[:, 0], rest_labels)
    np.testing.assert_array_equal(validation_split(images, labels, 5)[3], chosen_labels)
    for n in (0, 20):
        with pytest.raises(ValueError) as caught:
            validation_split(images, labels, n)
        assert str(caught.value) == f"{n} of 20 images are to be split off; 1 to 19 can be"


@pytest.mark.skipif(not os.environ.get("CBNN_DATA_DIR"), reason="CBNN_DATA_DIR does not name a folder of data sets")
@pytest.mark.parametrize(("name", "sizes"), [("mnist", (60_000, 10_000)), ("cifar10", (50_000, 10_000))])
def test_whole_sets(name: str, sizes: tuple[int, int]) -> None:
    data = load(name)
    assert (len(data.train_images), len(data.test_images)) == sizes
    assert np.bincount(data.test_labels).min() > 800


def test_archive_without_the_batches(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz"):
        pass
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content.getvalue())
    with pytest.raises(ValueError, match="the archive of CIFAR-10 cannot be read: "):
        load("cifar10", tmp_path)
