"""Data sets: digits, MNIST, Fashion-MNIST, CIFAR-10 and SVHN, from their original files.

Files come from a folder that the user names, or are downloaded once by pooch, their checksums
checked. Nothing is unpickled: CIFAR-10 is read from its binary version.
"""

import hashlib
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbnn.model.data import digits, mat_file, own
from cbnn.model.data.digits import Data
from cbnn.model.files import read_bounded
from cbnn.model.operators.tensor import Shape

VARIABLE = "CBNN_DATA_DIR"
"""Environment variable that names the folder where no argument does."""
NOTE = "NOTE.txt"
"""File beside the data whose first line says what is special about this copy."""
MAX_BYTES = 1 << 28
"""Largest file read, packed or unpacked; SVHN's largest unpacks to 225 million bytes."""
VALIDATION_SEED = 0


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set.

    Attributes
    ----------
    in_shape, input_bits : of its images
    max_pixel : the highest value of a pixel
    url : where its files are downloaded from
    files : names, and the MD5 sums that the original has: of the file, and of what is in it where
        that is known too
    read : turns the files' contents, in their order, into images and labels, train and test
    """

    in_shape: Shape
    input_bits: int
    max_pixel: int
    url: str
    files: dict[str, tuple[str, ...]]
    read: Callable[[list[bytes]], Data]


def load(name: str, folder: Path | None = None) -> Data:
    """Return a data set.

    Parameters
    ----------
    name : one of `DATASETS`
    folder : holds the files, or a folder of the set's name that does; None: the environment
        variable CBNN_DATA_DIR names it, and where that is not set either the files are downloaded,
        once

    Raises
    ------
    ValueError
        When there is no such set, or a file is missing, damaged, too large, or not what was to be
        downloaded.
    """
    if own.named(name):
        if folder is None:
            raise ValueError(f"data set {name} is somebody's own; --data names it")
        found = own.read(folder)
        if found.name != name:
            raise ValueError(f"{folder} holds other data than {name}, which was found there before")
        return found.data
    dataset = find(name)
    if not dataset.files:  # comes with a library
        return dataset.read([])
    folder = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if folder is None:
        return dataset.read([_unpacked(file, read_bounded(_download(dataset, file), MAX_BYTES))
                             for file in dataset.files])
    home = folder / name if (folder / name).is_dir() else folder
    contents, original = [], True
    for file, sums in _present(dataset, home).items():
        packed = read_bounded(home / file, MAX_BYTES)
        contents.append(_unpacked(file, packed))
        original &= bool({_md5(packed), _md5(contents[-1])} & set(sums))
    data = dataset.read(contents)
    if original:
        return data
    noted = read_bounded(home / NOTE, 4096).decode(errors="replace").split("\n")[0] if (home / NOTE).exists() else ""
    return data._replace(note=noted or "not the original files")


def find(name: str) -> Dataset:
    """Return what is known of the set; raise ValueError where there is none of that name."""
    if known := own.named(name):
        return Dataset(known.in_shape, known.input_bits, known.max_pixel, "", {}, _not_here)
    if name not in DATASETS:
        raise ValueError(f"data set {name!r} is not one of {', '.join(DATASETS)}")
    return DATASETS[name]


def _not_here(contents: list[bytes]) -> Data:
    raise AssertionError("somebody's own data are read by `own`")


def validation_split(images: NDArray, labels: NDArray, n: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Split off `n` training images to choose by, always the same: training images and labels, and the `n`."""
    if not 0 < n < len(images):
        raise ValueError(f"{n} of {len(images)} images are to be split off; 1 to {len(images) - 1} can be")
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(images))
    chosen, rest = np.sort(order[:n]), np.sort(order[n:])
    return images[rest], labels[rest], images[chosen], labels[chosen]


def _present(dataset: Dataset, home: Path) -> dict[str, tuple[str, ...]]:
    """Files of the set that the folder holds; CIFAR-10's may lie there unpacked."""
    if dataset is DATASETS["cifar10"] and not all((home / file).exists() for file in dataset.files):
        return dict.fromkeys(CIFAR_FILES, ())
    return dataset.files


def _download(dataset: Dataset, file: str) -> Path:
    import pooch  # only downloading needs it

    try:
        return Path(pooch.retrieve(dataset.url + file, f"md5:{dataset.files[file][0]}", fname=file,
                                   path=pooch.os_cache("cbnn") / _md5(dataset.url.encode())[:8], progressbar=True))
    except Exception as error:  # whatever the network, requests and pooch raise
        reason = str(error).split("\n")[0]
        raise ValueError(f"{file} cannot be downloaded from {dataset.url}: {reason}; a folder that holds it can be "
                         f"named by --data-dir or {VARIABLE}") from error


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _unpacked(file: str, content: bytes) -> bytes:
    """Inflate an IDX file, once its header is known to be sound; others stay as they are."""
    if not file.endswith(".gz") or file.endswith(".tar.gz"):
        return content
    shape = _idx_shape(file, _inflated(file, content, 4 + 4 * MAX_IDX_AXES, whole=False))
    return _inflated(file, content, _idx_bytes(shape))


def _inflated(file: str, content: bytes, max_bytes: int, whole: bool = True) -> bytes:
    """Inflate at most `max_bytes` of a gzip file, which are to be the `whole` file."""
    try:
        inflater = zlib.decompressobj(wbits=31)
        inflated = inflater.decompress(content, max_bytes)
        more = whole and not inflater.eof and inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(f"{file} is not a sound gzip file") from error
    if whole and (more or not inflater.eof):
        raise ValueError(f"{file} {f'holds more than {max_bytes} bytes' if more else 'is cut short'}")
    return inflated


MAX_IDX_AXES = 3


def _idx_shape(file: str, content: bytes) -> tuple[int, ...]:
    """Shape of an array of unsigned bytes in the IDX format: 0, 0, type 8, axes, their lengths, then the bytes."""
    n_axes = 1 if "labels" in file else MAX_IDX_AXES
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, 4 + 4 * n_axes, 4))
    if content[:4] != bytes([0, 0, 8, n_axes]) or len(content) < 4 + 4 * n_axes or _idx_bytes(shape) > MAX_BYTES:
        raise ValueError(f"{file} is not IDX with {n_axes} axes of bytes, or claims more than {MAX_BYTES} bytes")
    return shape


def _idx_bytes(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape) + math.prod(shape)


def _idx(file: str, content: bytes) -> NDArray[np.uint8]:
    shape = _idx_shape(file, content)
    if len(content) != _idx_bytes(shape):
        raise ValueError(f"{file} holds {len(content)} bytes; its header claims {_idx_bytes(shape)}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _read_mnist(contents: list[bytes]) -> Data:
    train, train_labels, test, test_labels = (
        _idx(file, content) for file, content in zip(MNIST_FILES, contents, strict=True))
    return _checked(train[..., np.newaxis], train_labels, test[..., np.newaxis], test_labels, (28, 28, 1))


CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR_MEMBERS = tuple(f"cifar-10-batches-bin/{file}" for file in CIFAR_FILES)
RECORD = 1 + 32 * 32 * 3
"""Bytes of an image of CIFAR-10 and its label."""
TAR_BLOCK = 512
MAX_TAR_BYTES = 60_000 * RECORD + (1 << 20)
"""All of the original's images, and headers and texts beside them."""


def _read_cifar(contents: list[bytes]) -> Data:
    """Read the batches, or the archive that they lie in; an image is a byte of label, then red, green and blue."""
    if len(contents) == 1:
        contents = _members(contents[0])
    batches = []
    for file, content in zip(CIFAR_FILES, contents, strict=True):
        if not content or len(content) % RECORD:
            raise ValueError(f"{file} is of {len(content)} bytes; it must hold images of {RECORD}")
        batches.append(np.frombuffer(content, np.uint8).reshape(-1, RECORD))
    train, test = np.concatenate(batches[:-1]), batches[-1]

    def images(batch: NDArray) -> NDArray:
        return np.ascontiguousarray(batch[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    return _checked(images(train), train[:, 0], images(test), test[:, 0], (32, 32, 3))


def _members(archive: bytes) -> list[bytes]:
    """Files of CIFAR-10 in their order, out of its archive.

    Read by hand, in one pass over what is inflated, which is bounded: only regular files of the six
    names are looked at, so that no link is followed, no sparse file grows and no path matters.
    """
    tar, at = _inflated("the archive of CIFAR-10", archive, MAX_TAR_BYTES), 0
    found: dict[str, bytes] = {}
    while any(header := tar[at : at + TAR_BLOCK]):
        digits_of_size = header[124:136].strip(b" \0")
        if len(header) < TAR_BLOCK or any(byte not in b"01234567" for byte in digits_of_size):
            raise ValueError("the archive of CIFAR-10 is damaged")
        size = int(digits_of_size or b"0", 8)
        content = tar[at + TAR_BLOCK : at + TAR_BLOCK + size]
        name = header[:100].split(b"\0")[0].decode(errors="replace")
        if header[156:157] in (b"0", b"\0") and name in CIFAR_MEMBERS:
            if name in found or len(content) != size:
                raise ValueError(f"the archive of CIFAR-10 holds {name} {'twice' if name in found else 'cut short'}")
            found[name] = content
        at += TAR_BLOCK + size + -size % TAR_BLOCK
    if missing := [name for name in CIFAR_MEMBERS if name not in found]:
        raise ValueError(f"the archive of CIFAR-10 lacks {missing[0]} as a regular file")
    return [found[name] for name in CIFAR_MEMBERS]


def _read_svhn(contents: list[bytes]) -> Data:
    """Read MATLAB files; there the digit 0 has label 10."""
    arrays = []
    for file, content in zip(SVHN_FILES, contents, strict=True):
        try:
            images, labels = (mat_file.read_integers(content, name, MAX_BYTES) for name in ("X", "y"))
        except ValueError as error:
            raise ValueError(f"{file} is not a file of SVHN: {error}") from error
        if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != (images.shape[3], 1):
            raise ValueError(f"{file} holds images {images.dtype} {images.shape} and labels {labels.shape}; uint8 "
                             "(32, 32, 3, N) and (N, 1) are needed")
        if labels.min() < 1 or labels.max() > 10:
            raise ValueError(f"{file} holds labels {labels.min()} to {labels.max()}; they must be 1 to 10")
        arrays += [images.transpose(3, 0, 1, 2), labels[:, 0] % 10]
    train, train_labels, test, test_labels = arrays
    return _checked(train, train_labels, test, test_labels, (32, 32, 3))


def _checked(train: NDArray, train_labels: NDArray, test: NDArray, test_labels: NDArray, shape: Shape) -> Data:
    for images, labels in ((train, train_labels), (test, test_labels)):
        if images.shape[1:] != shape or labels.shape != images.shape[:1] or not len(images):
            raise ValueError(f"images {images.shape} with labels {labels.shape}; {shape} and a label each are needed")
        if labels.max() > 9:
            raise ValueError(f"a label is {labels.max()}; the classes are 0 to 9")
    return Data(np.ascontiguousarray(train), train_labels.astype(np.int64),
                np.ascontiguousarray(test), test_labels.astype(np.int64))


MNIST_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
               "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")
DATASETS = {
    "digits": Dataset(digits.IN_SHAPE, digits.INPUT_BITS, digits.MAX_PIXEL, "", {}, lambda contents: digits.load()),
    "mnist": Dataset((28, 28, 1), 8, 255, "https://ossci-datasets.s3.amazonaws.com/mnist/", dict(zip(MNIST_FILES, (
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637")), strict=True)), _read_mnist),
    "fashion-mnist": Dataset(
        (28, 28, 1), 8, 255, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", dict(zip(MNIST_FILES, (
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d",), ("25c81989df183df01b3e8a0aad5dffbe",),
            ("bef4ecab320f06d8554ea6380940ec79",), ("bb300cfdad3c16e7a12a480ee83cd310",)), strict=True)), _read_mnist),
    "cifar10": Dataset((32, 32, 3), 8, 255, "https://www.cs.toronto.edu/~kriz/",
                       {"cifar-10-binary.tar.gz": ("c32a1d4ab5d03f1284b67883e8d87530",)}, _read_cifar),
    "svhn": Dataset((32, 32, 3), 8, 255, "http://ufldl.stanford.edu/housenumbers/",
                    dict(zip(SVHN_FILES, (("e26dedcc434d2e4c54c9b2d4a06d8373",),
                                          ("eb5a983be6a315427106f1b164d9cef3",)), strict=True)), _read_svhn),
}
