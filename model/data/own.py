"""One's own data: a folder with a folder of pictures per class, an .npz of arrays, or a CSV of features.

A set gets a name that says what it is, so that a search that is continued, and a network that is
looked at later, find it unchanged: ``own-28x28x1u8-255-10-`` and a digest of all that it holds.
"""

import csv
import hashlib
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbnn.model.data.digits import Data
from cbnn.model.files import read_bounded
from cbnn.model.network import Origin
from cbnn.model.operators.tensor import Shape

PATTERN = re.compile(r"own-([0-9]{1,6})x([0-9]{1,6})x([0-9]{1,6})u([0-9]{1,2})-([0-9]{1,5})-([0-9]{1,5})-[0-9a-f]{12}")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MAX_BYTES = 1 << 28
"""Most bytes of pixels, and largest file."""
MAX_CLASSES, MAX_PIXEL = 1000, 65535
TEST_PART = 5
"""One of so many examples of a class is for testing, where the data do not say which."""
SPLIT_SEED = 0
CODE_BITS = 8
"""Of a feature that is no whole number: its range in the training data is cut into so many steps."""
NPZ_NAMES = (("train_images", "train_labels", "test_images", "test_labels"),
             ("x_train", "y_train", "x_test", "y_test"))
LABEL_COLUMNS = ("label", "class", "target")


class OwnData(NamedTuple):
    """A set that was read.

    Attributes
    ----------
    name : see above
    data : images, of uint8 or uint16, and labels
    origin : what a network keeps of it
    """

    name: str
    data: Data
    origin: Origin


class Named(NamedTuple):
    """What the name of a set says."""

    in_shape: Shape
    input_bits: int
    max_pixel: int
    n_classes: int


def named(name: str) -> Named | None:
    """Read the name of a set; None where it is none."""
    if not (match := PATTERN.fullmatch(name)):
        return None
    height, width, colours, bits, max_pixel, n_classes = map(int, match.groups())
    return Named((height, width, colours), bits, max_pixel, n_classes)


def read(path: Path) -> OwnData:
    """Read a folder, an .npz or a CSV.

    - Folder: one folder per class, of PNG, JPEG or BMP files of one size; or such folders in
      ``train`` and ``test``. Pictures without colour give one value per pixel, others three.
    - .npz: arrays of images (N, height, width) or (N, height, width, colours), or of features (N, n),
      whole numbers from 0 on, and labels (N,): ``images`` and ``labels``, or ``train_images``,
      ``train_labels``, ``test_images``, ``test_labels``, or ``x_train``, ``y_train``, ``x_test``,
      ``y_test``; perhaps ``class_names``.
    - CSV: an example per row, the label in the column named label, class or target, else in the last
      one. Features that are no whole numbers from 0 to 255 are scaled, see `CODE_BITS`.

    Where nothing says what is for testing, a fifth of each class is, always the same.

    Raises
    ------
    ValueError
        When something is missing, damaged, mixed up or too large.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    states = ((file, file.lstat()) for file in files)
    return _read(path, tuple((file, state.st_size, state.st_mtime_ns) for file, state in states))


@lru_cache(maxsize=1)
def _read(path: Path, _: tuple) -> OwnData:
    """Read it once, as long as no file changes."""
    if path.is_dir():
        return _finished(path, *_folder(path))
    readers: dict[str, Callable] = {".npz": _npz, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} {'is no folder, .npz or .csv of data' if path.exists() else 'does not exist'}")
    return _finished(path, *readers[path.suffix.lower()](path))


def _finished(path: Path, data: Data, names: tuple[str, ...], ranges: tuple[tuple[float, float], ...]) -> OwnData:
    """Name a set."""
    height, width, colours = data.train_images.shape[1:]
    top = max(int(data.train_images.max()), int(data.test_images.max()), 1)
    top = (1 << CODE_BITS) - 1 if ranges or path.is_dir() else top
    digest = hashlib.sha256(repr((names, ranges)).encode())
    for array in data[:4]:
        digest.update(np.ascontiguousarray(array).tobytes())
    name = (f"own-{height}x{width}x{colours}u{top.bit_length()}-{top}-{len(names)}-{digest.hexdigest()[:12]}")
    return OwnData(name, data, Origin(str(path.absolute()), names, ranges))


def _folder(path: Path) -> tuple[Data, tuple[str, ...], tuple]:
    from cbnn.model.data.pictures import read_pictures  # only folders need Pillow

    homes = {home.name: home for home in _folders_in(path)}
    if set(homes) == {"train", "test"}:
        names = tuple(home.name for home in _folders_in(homes["train"]))
        if tuple(home.name for home in _folders_in(homes["test"])) != names:
            raise ValueError(f"{path}: train and test have folders of other classes")
        files = [_files_in(homes[part] / name) for part in ("train", "test") for name in names]
    else:
        names = tuple(homes)
        files = [_files_in(home) for home in homes.values()]
    _check_names(path, names)
    images = read_pictures([file for some in files for file in some], MAX_BYTES)
    if (images == images[..., :1]).all():
        images = images[..., :1]
    counts = [len(some) for some in files]
    labels = np.repeat(np.arange(len(files)) % len(names), counts)
    if len(files) == len(names):
        return _split(path, images, labels, names), names, ()
    n = sum(counts[: len(names)])
    return Data(images[:n], labels[:n], images[n:], labels[n:]), names, ()


def _folders_in(path: Path) -> list[Path]:
    """Return the folders in one, by name; raise ValueError where there is anything else, hidden files apart."""
    found = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    for entry in found:
        if entry.is_symlink() or not entry.is_dir():
            raise ValueError(f"{entry} lies beside the folders of classes; a picture lies in the folder of its class")
    if not found:
        raise ValueError(f"{path} holds no folders of pictures, one per class")
    return found


def _files_in(path: Path) -> list[Path]:
    found = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    for entry in found:
        if entry.is_symlink() or entry.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{entry} is no picture; a class's folder holds {', '.join(SUFFIXES)} files only")
    if not found:
        raise ValueError(f"{path} holds no picture")
    return found


def _npz(path: Path) -> tuple[Data, tuple[str, ...], tuple]:
    arrays = _arrays(path)
    given = next((names for names in NPZ_NAMES if set(names) <= set(arrays)), None)
    if given is None and not {"images", "labels"} <= set(arrays):
        raise ValueError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; it must hold images and labels, or "
                         f"{' or '.join(', '.join(names) for names in NPZ_NAMES)}")
    pairs = [given[:2], given[2:]] if given else [("images", "labels")]
    parts = [(_pixels(path, arrays[images]), arrays[labels]) for images, labels in pairs]
    for images, labels in parts:
        if labels.size != len(images) or labels.dtype.kind not in "ui" or not len(images):
            raise ValueError(f"{path} holds {len(images)} images and labels {labels.dtype} {labels.shape}; each image "
                             "needs one whole number")
    highest = max(int(labels.max()) for _, labels in parts)
    if min(int(labels.min()) for _, labels in parts) < 0 or highest >= MAX_CLASSES:
        raise ValueError(f"{path}: labels are 0 to {MAX_CLASSES - 1}; one of them is not")
    names = tuple(map(str, arrays.get("class_names", np.arange(highest + 1)).tolist()))
    if len(names) <= highest:
        raise ValueError(f"{path} holds {len(names)} class names; a label is {highest}")
    _check_names(path, names)
    train, labels = parts[0][0], parts[0][1].ravel().astype(np.int64)
    if len(parts) == 1:
        return _split(path, train, labels, names), names, ()
    test, test_labels = parts[1][0], parts[1][1].ravel().astype(np.int64)
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(f"{path} holds images of {train.shape[1:]} to train and of {test.shape[1:]} to test with")
    return Data(train, labels, test, test_labels), names, ()


def _arrays(path: Path) -> dict[str, NDArray]:
    """Return the arrays of an .npz, numbers and text only."""
    content = read_bounded(path, MAX_BYTES)
    found: dict[str, NDArray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ValueError("too large")
            for member in archive.infolist():
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = np.lib.format.read_array(
                        io.BytesIO(file.read(member.file_size)), allow_pickle=False)
    except Exception as error:  # a dozen types
        raise ValueError(f"{path} is no .npz of numbers of at most {MAX_BYTES} bytes, or is damaged") from error
    return found


def _pixels(path: Path, array: NDArray) -> NDArray:
    """Return images (N, height, width, colours) of one to three axes beside the first."""
    if array.dtype.kind not in "ui" or not 2 <= array.ndim <= 4 or not array.size:
        raise ValueError(f"{path}: images are {array.dtype} {array.shape}; they must be whole numbers (N, height, "
                         "width), (N, height, width, colours) or, of features, (N, n)")
    if array.min() < 0 or array.max() > MAX_PIXEL:
        raise ValueError(f"{path}: pixels span {array.min()} to {array.max()}; they must be 0 to {MAX_PIXEL}")
    if array.ndim == 2:
        array = array[:, np.newaxis]
    if array.ndim == 3:
        array = array[..., np.newaxis]
    return array.astype(np.uint8 if array.max() < 1 << 8 else np.uint16)


def _csv(path: Path) -> tuple[Data, tuple[str, ...], tuple[tuple[float, float], ...]]:
    rows = _rows(path)
    titles = rows.pop(0) if rows and not all(map(_is_number, rows[0][:-1])) else []
    if not rows or len(rows[0]) < 2:
        raise ValueError(f"{path} holds no row of features and a label")
    n = len(rows[0])
    for i, row in enumerate([titles, *rows] if titles else rows, 1):
        if len(row) != n:
            raise ValueError(f"{path}: row {i} has {len(row)} columns; row {2 if titles else 1} has {n}")
    at = next((i for i, title in enumerate(titles) if title.strip().lower() in LABEL_COLUMNS), n - 1)
    texts = [row[at].strip() for row in rows]
    names = tuple(sorted(set(texts), key=lambda text: (float(text), text) if _is_number(text) else (math.inf, text)))
    _check_names(path, names)
    numbers = {name: i for i, name in enumerate(names)}
    labels = np.array([numbers[text] for text in texts])
    values = np.array([[_number(path, i, value) for value in row[:at] + row[at + 1 :]]
                       for i, row in enumerate(rows, 2 if titles else 1)])
    split = _split(path, values[:, np.newaxis, :, np.newaxis], labels, names)
    top = (1 << CODE_BITS) - 1
    if (values == np.rint(values)).all() and 0 <= values.min() and values.max() <= top:
        ranges: tuple[tuple[float, float], ...] = ()
        codes = [images.astype(np.uint8) for images in (split.train_images, split.test_images)]
    else:
        train = split.train_images
        ranges = tuple(zip(train.min((0, 1, 3)).tolist(), train.max((0, 1, 3)).tolist(), strict=True))
        codes = [coded(images[..., 0], ranges)[..., np.newaxis] for images in (split.train_images, split.test_images)]
    return Data(codes[0], split.train_labels, codes[1], split.test_labels), names, ranges


def example(path: Path) -> NDArray[np.float64]:
    """Return the features of a CSV of one row without a label, shape (n,); a row of titles may come before it."""
    rows = _rows(path)
    if len(rows) == 2 and not all(map(_is_number, rows[0])):
        rows.pop(0)
    if len(rows) != 1:
        raise ValueError(f"{path} holds {len(rows)} rows; an example is one row")
    return np.array([_number(path, 1, value) for value in rows[0]])


def coded(features: NDArray, ranges: Iterable[tuple[float, float]]) -> NDArray[np.uint8]:
    """Return the codes of features (…, n): their place in their range, of as many steps as `CODE_BITS` have."""
    low, high = np.array(list(ranges)).T
    span, top = np.where(high > low, high - low, 1), (1 << CODE_BITS) - 1
    return np.clip(np.rint((features - low) / span * top), 0, top).astype(np.uint8)


def _rows(path: Path) -> list[list[str]]:
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8") from error


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(path: Path, row: int, text: str) -> float:
    if not _is_number(text):
        raise ValueError(f"{path}: row {row} holds {text!r}, which is no number")
    return float(text)


def _check_names(path: Path, names: tuple[str, ...]) -> None:
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{path} has {len(names)} class{'' if len(names) == 1 else 'es'}; it must have 2 to "
                         f"{MAX_CLASSES}")


def _split(path: Path, images: NDArray, labels: NDArray, names: tuple[str, ...]) -> Data:
    """Set a fifth of each class apart to test with, at least one."""
    draw, test = np.random.default_rng(SPLIT_SEED), np.zeros(len(images), bool)
    for i, name in enumerate(names):
        members = np.flatnonzero(labels == i)
        if len(members) < 2:
            raise ValueError(f"{path}: class {name!r} has {len(members)} example{'' if len(members) == 1 else 's'}; at "
                             "least one to train and one to test with are needed")
        test[draw.permutation(members)[: max(1, len(members) // TEST_PART)]] = True
    return Data(images[~test], labels[~test].astype(np.int64), images[test], labels[test].astype(np.int64))
