"""Data sets: the original formats, read exactly; whatever is wrong with a file is one sentence."""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from cbnn.model.data import datasets, digits
from cbnn.model.data.datasets import CIFAR_FILES, MNIST_FILES, load, validation_split

RNG = np.random.default_rng(0)
TRAIN, TRAIN_LABELS = RNG.integers(0, 256, (6, 28, 28), np.uint8), RNG.integers(0, 10, 6).astype(np.uint8)
TEST, TEST_LABELS = RNG.integers(0, 256, (3, 28, 28), np.uint8), RNG.integers(0, 10, 3).astype(np.uint8)

NOT_IDX = "t10k-images-idx3-ubyte.gz is not IDX with 3 axes of bytes, or claims more than 268435456 bytes"


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
    (lambda packed: packed[:-9], "t10k-images-idx3-ubyte.gz is cut short"),
    (lambda packed: b"", NOT_IDX),
    (lambda packed: b"\0" + packed, "t10k-images-idx3-ubyte.gz is not a sound gzip file"),
    (lambda packed: packed[:-8] + bytes(8), "t10k-images-idx3-ubyte.gz is not a sound gzip file"),
    (lambda packed: gzip.compress(idx(TEST)[:-1]),
     "t10k-images-idx3-ubyte.gz holds 2367 bytes; its header claims 2368"),
    (lambda packed: gzip.compress(idx(TEST) + b"x"), "t10k-images-idx3-ubyte.gz holds more than 2368 bytes"),
    (lambda packed: gzip.compress(idx(TEST)[:4] + b"\xff" * 12), NOT_IDX),
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
    with pytest.raises(ValueError) as caught:
        load("cifar10", tmp_path)
    assert str(caught.value) == "the archive of CIFAR-10 is not a sound gzip file"
    for name in ("train", "test"):
        (tmp_path / f"{name}_32x32.mat").write_bytes(b"MATLAB no more")
    with pytest.raises(ValueError) as caught:
        load("svhn", tmp_path)
    assert str(caught.value) == "train_32x32.mat is not a file of SVHN: it is no MATLAB file of level 5"


BATCHES = {f"cifar-10-batches-bin/{file}": bytes([i]) * 3073 for i, file in enumerate(CIFAR_FILES)}
TEST_BATCH = f"cifar-10-batches-bin/{CIFAR_FILES[-1]}"


def archive(folder: Path, members: dict[str, bytes], more: Sequence[tarfile.TarInfo] = ()) -> Path:
    """Write an archive of files, and of members without content."""
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in more:
            tar.addfile(member)
    return folder


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_an_archive_holds_what_it_likes_beside_the_batches(tmp_path: Path) -> None:
    others = [link("cifar-10-batches-bin", "", tarfile.DIRTYPE), link("loop", "loop", tarfile.SYMTYPE),
              link(TEST_BATCH, "/etc/passwd", tarfile.SYMTYPE), link("pipe", "", tarfile.FIFOTYPE)]
    data = load("cifar10", archive(tmp_path, {"/etc/passwd": b"x", "../up": b"x" * 600, **BATCHES}, others))
    assert data.train_labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE, tarfile.DIRTYPE])
def test_no_link_of_an_archive_is_followed(tmp_path: Path, kind: bytes) -> None:
    without = {name: content for name, content in BATCHES.items() if name != TEST_BATCH}
    with pytest.raises(ValueError) as caught:
        load("cifar10", archive(tmp_path, without, [link(TEST_BATCH, TEST_BATCH, kind)]))
    assert str(caught.value) == f"the archive of CIFAR-10 lacks {TEST_BATCH} as a regular file"


def test_a_batch_that_an_archive_holds_twice(tmp_path: Path) -> None:
    twice = tarfile.TarInfo(TEST_BATCH)
    with pytest.raises(ValueError) as caught:
        load("cifar10", archive(tmp_path, BATCHES, [twice]))
    assert str(caught.value) == f"the archive of CIFAR-10 holds {TEST_BATCH} twice"


@pytest.mark.parametrize(("size", "sentence"), [
    (b"-0000001000\0", "is damaged"), (b"\x80" + b"\xff" * 11, "is damaged"), (b"77777777777\0", "cut short"),
    (b"0_1\0", "is damaged")])
def test_sizes_of_an_archive(tmp_path: Path, size: bytes, sentence: str) -> None:
    header = tarfile.TarInfo(next(iter(BATCHES))).tobuf(tarfile.USTAR_FORMAT)
    content = header[:124] + size.ljust(12, b"\0") + header[136:]
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError) as caught:
        load("cifar10", tmp_path)
    assert str(caught.value).startswith("the archive of CIFAR-10 ")
    assert str(caught.value).endswith(sentence)


@contextmanager
def refused_within(mebibytes: int) -> Iterator[None]:
    """Expect a refusal that has taken no more memory than so much."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes << 20
    finally:
        tracemalloc.stop()


def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    deflater, mebibyte = zlib.compressobj(1, wbits=31), bytes(1 << 20)
    packed = b"".join(deflater.compress(b"x" + mebibyte) for _ in range(600)) + deflater.flush()
    with refused_within(400):
        datasets.DATASETS["cifar10"].read([packed])
    (tmp_path / MNIST_FILES[0]).write_bytes(packed)
    with refused_within(300):  # what may be read is allocated
        load("mnist", tmp_path)


def svhn(folder: Path, compress: bool = True, **arrays: object) -> Path:
    images, labels = RNG.integers(0, 256, (32, 32, 3, 4), np.uint8), np.array([[10], [1], [9], [2]], np.uint8)
    for name in ("train", "test"):
        savemat(folder / f"{name}_32x32.mat", {"X": images, "y": labels} | arrays, do_compression=compress)
    return folder


IMAGES = np.zeros((32, 32, 3, 4))
LABELS = np.array([[1], [2], [3], [4]])


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("arrays", "sentence"), [
    ({"X": IMAGES}, "an array of it holds 98304 bytes of type 9; "),
    ({"X": IMAGES.astype(np.float32)}, "an array of it holds 49152 bytes of type 7; "),
    ({"X": IMAGES.astype(complex)}, "X is complex; integers are needed"),
    ({"X": IMAGES.astype(np.int16)}, "holds images int16 (32, 32, 3, 4) and labels (4, 1); uint8 "),
    ({"X": IMAGES.astype(np.uint8)[:, :, 0]}, "holds images uint8 (32, 32, 4) and labels (4, 1); "),
    ({"X": "text"}, "it holds no array of numbers called X"),
    ({"X": {"a": 1}}, "it holds no array of numbers called X"),
    ({"y": LABELS * 1.0}, "an array of it holds 32 bytes of type 9; "),
    ({"y": LABELS + 0.7}, "an array of it holds 32 bytes of type 9; "),
    ({"y": LABELS * np.nan}, "an array of it holds 32 bytes of type 9; "),
    ({"y": LABELS * 1j}, "y is complex; integers are needed"),
    ({"y": LABELS + 7}, "holds labels 8 to 11; they must be 1 to 10"),
    ({"y": LABELS - 1}, "holds labels 0 to 3; they must be 1 to 10"),
    ({"y": LABELS - 257}, "holds labels -256 to -253; they must be 1 to 10"),
    ({"y": LABELS.astype(np.uint64) + (1 << 63)}, "holds labels 9223372036854775809 to 9223372036854775812; "),
    ({"y": LABELS[:3]}, "and labels (3, 1); "), ({"y": LABELS.T}, "and labels (1, 4); ")])
def test_svhn_of_other_kinds(tmp_path: Path, arrays: dict, sentence: str, compress: bool) -> None:
    with pytest.raises(ValueError) as caught:
        load("svhn", svhn(tmp_path, compress, **arrays))
    assert str(caught.value).startswith("train_32x32.mat ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compress", [False, True])
def test_svhn_with_a_byte_changed(tmp_path: Path, compress: bool) -> None:
    """What is read all the same has pixels and labels in their ranges, and is the same where it has a checksum."""
    path, rng = svhn(tmp_path, compress) / "train_32x32.mat", np.random.default_rng(1)
    content, whole = path.read_bytes(), load("svhn", tmp_path)
    for at in [*range(124, 260), *range(len(content) - 80, len(content)), *rng.integers(0, len(content), 60).tolist()]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :])
        try:
            data = load("svhn", tmp_path)
        except ValueError as error:
            assert str(error).startswith("train_32x32.mat is not a file of SVHN: ") or "labels" in str(error)  # noqa: PT017
            continue
        assert (data.train_images.dtype, data.train_images.shape) == (np.uint8, (4, 32, 32, 3))
        assert set(data.train_labels.tolist()) <= set(range(10))
        if compress:
            np.testing.assert_array_equal(data.train_images, whole.train_images)
            np.testing.assert_array_equal(data.train_labels, whole.train_labels)


def test_svhn_that_claims_gigabytes() -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    for n, bound in ((80_000, 300), (1_000_000, 2)):  # within and beyond what is read; the numbers go on in both
        front = (element(6, struct.pack("<II", 9, 0)) + element(5, struct.pack("<4i", 32, 32, 3, n)) + element(1, b"X")
                 + struct.pack("<II", 2, 3072 * n))
        deflater, mebibyte = zlib.compressobj(1), bytes(1 << 20)
        packed = deflater.compress(struct.pack("<II", 14, 1 << 31) + front)
        packed += b"".join(deflater.compress(mebibyte) for _ in range(600)) + deflater.flush()
        array = struct.pack("<II", 15, len(packed)) + packed
        content = bytes(124) + b"\x00\x01IM" + 9 * array
        with refused_within(bound):
            datasets.DATASETS["svhn"].read([content, content])


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
    with pytest.raises(ValueError) as caught:
        load("cifar10", archive(tmp_path, {}))
    assert str(caught.value) == ("the archive of CIFAR-10 lacks cifar-10-batches-bin/data_batch_1.bin as a regular "
                                 "file")
