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
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbnn.model.data.digits import Data
from cbnn.model.files import read_bounded
from cbnn.model.network import MAX_BOUND, Origin
from cbnn.model.operators.tensor import Shape

PATTERN = re.compile(r"own-([0-9]{1,6})x([0-9]{1,6})x([0-9]{1,6})u([0-9]{1,2})-([0-9]{1,5})-([0-9]{1,5})-[0-9a-f]{12}")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MAX_BYTES = 1 << 28
"""Most bytes of pixels, and largest file."""
MAX_CLASSES, MAX_PIXEL = 1000, 65535
TEST_PART = 5
"""One of so many examples of a class is for testing, where the data do not say which."""
SPLIT_SEED = 0
MAX_NAME = 100
"""Longest name of a class."""
CODE_BITS = 8
"""Of a feature that is no whole number: its range in the training data is cut into so many steps."""
NPZ_NAMES = (("train_images", "train_labels", "test_images", "test_labels"),
             ("x_train", "y_train", "x_test", "y_test"))
LABEL_COLUMNS = ("label", "class", "target")


Found = tuple[Data, tuple[str, ...], tuple[tuple[float, float], ...]]
"""A set, the names of its classes, and the ranges of its features."""


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


def read(path: Path, origin: Origin | None = None) -> OwnData:
    """Read a folder, an .npz or a CSV.

    - Folder: one folder per class, of PNG, JPEG or BMP files of one size; or such folders in
      ``train`` and ``test``. Pictures without colour give one value per pixel, others three.
    - .npz: arrays of images (N, height, width) or (N, height, width, colours), whole numbers from 0
      on, or of features (N, n), and labels (N,), whole numbers or text: ``images`` and ``labels``,
      or ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, or ``x_train``,
      ``y_train``, ``x_test``, ``y_test``; perhaps ``class_names``.
    - CSV: an example per row, the label in the column named label, class or target, else in the last
      one. Features that are no whole numbers from 0 to 255 are scaled, see `CODE_BITS`.

    Where nothing says what is for testing, a fifth of each class is, always the same.

    Parameters
    ----------
    origin : of the network that is to see them: it numbers the classes, and has the ranges of the
        features; None: the data do

    Raises
    ------
    ValueError
        When something is missing, damaged, mixed up or too large, or a class is not the network's.
    """
    if path.is_dir():
        names, files = _layout(path)
        every = [file for some in files for file in some]
    else:
        names, files, every = (), [], [path]
        if path.suffix.lower() not in (".npz", ".csv"):
            raise ValueError(f"{path} {'is no folder, .npz or .csv of data' if path.exists() else 'does not exist'}")
    try:
        states = tuple((file, (state := file.lstat()).st_size, state.st_mtime_ns) for file in every)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    return _read(path, origin, names, tuple(map(tuple, files)), states)


@lru_cache(maxsize=1)
def _read(path: Path, origin: Origin | None, names: tuple[str, ...], files: tuple[tuple[Path, ...], ...],
          _: tuple) -> OwnData:
    """Read it once, as long as no file changes."""
    if files:
        found = _folder(path, origin, names, files)
    else:
        found = (_npz if path.suffix.lower() == ".npz" else _csv)(path, origin)
    data, class_names, ranges = found
    height, width, colours = data.train_images.shape[1:]
    top = max(int(data.train_images.max()), int(data.test_images.max()), 1)
    top = (1 << CODE_BITS) - 1 if ranges or files else top
    digest = hashlib.sha256(repr((class_names, ranges)).encode())
    for array in data[:4]:
        digest.update(np.ascontiguousarray(array).tobytes())
    name = f"own-{height}x{width}x{colours}u{top.bit_length()}-{top}-{len(class_names)}-{digest.hexdigest()[:12]}"
    if origin is not None and name != origin.name:
        data = data._replace(note="not the data that the network was trained on")
    return OwnData(name, data, Origin(str(path.absolute()), name, class_names, ranges))


def _layout(path: Path) -> tuple[tuple[str, ...], list[list[Path]]]:
    """Return the classes of a folder, and the files of each; twice as many lists where it says what is for testing."""
    homes = {home.name: home for home in _folders_in(path)}
    if set(homes) != {"train", "test"}:
        return tuple(homes), [_files_in(home) for home in homes.values()]
    names = tuple(home.name for home in _folders_in(homes["train"]))
    if tuple(home.name for home in _folders_in(homes["test"])) != names:
        raise ValueError(f"{path}: train and test have folders of other classes")
    return names, [_files_in(homes[part] / name) for part in ("train", "test") for name in names]


def _folder(path: Path, origin: Origin | None, found: tuple[str, ...], files: Sequence[Sequence[Path]]) -> Found:
    from cbnn.model.data.pictures import read_pictures  # only folders need Pillow

    names = _class_names(path, found, origin)
    images = read_pictures([file for some in files for file in some], MAX_BYTES)
    if (images == images[..., :1]).all():
        images = images[..., :1]
    counts = [len(some) for some in files]
    labels = np.repeat([names.index(found[i % len(found)]) for i in range(len(files))], counts)
    if len(files) == len(found):
        return _split(path, images, labels, names), names, ()
    n = sum(counts[: len(found)])
    return Data(images[:n], labels[:n], images[n:], labels[n:]), names, ()


def _folders_in(path: Path) -> list[Path]:
    """Return the folders in one, by name; raise ValueError where there is anything else, hidden files apart."""
    found = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    for entry in found:
        if entry.is_symlink() or not entry.is_dir():
            raise ValueError(f"{entry} lies beside the folders of classes; a picture lies in the folder of its class, "
                             "and links are not followed")
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


def _npz(path: Path, origin: Origin | None) -> Found:
    arrays = _arrays(path)
    given = next((names for names in (*NPZ_NAMES, *(names[:2] for names in NPZ_NAMES), ("images", "labels"))
                  if set(names) <= set(arrays)), None)
    if given is None:
        raise ValueError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; it must hold images and labels, or "
                         f"{' or '.join(', '.join(names) for names in NPZ_NAMES)}")
    parts = [(_pixels(path, arrays[given[i]]), arrays[given[i + 1]]) for i in range(0, len(given), 2)]
    if all(labels.dtype.kind == "U" for _, labels in parts):
        texts = _class_names(path, _in_order(text for _, labels in parts for text in labels.ravel().tolist()), origin)
        arrays["class_names"] = np.array(texts)
        parts = [(images, np.array([texts.index(text) for text in labels.ravel().tolist()], np.int64))
                 for images, labels in parts]
    for images, labels in parts:
        if labels.size != len(images) or labels.dtype.kind not in "ui" or not len(images):
            raise ValueError(f"{path} holds {len(images)} images and labels {labels.dtype} {labels.shape}; each image "
                             "needs one whole number, or one text")
    highest = max(int(labels.max()) for _, labels in parts)
    if min(int(labels.min()) for _, labels in parts) < 0 or highest >= MAX_CLASSES:
        raise ValueError(f"{path}: labels are 0 to {MAX_CLASSES - 1}; one of them is not")
    n_classes = highest + 1 if origin is None else max(highest + 1, len(origin.class_names))
    names = tuple(map(str, arrays.get("class_names", np.arange(n_classes)).tolist()))
    if len(names) <= highest:
        raise ValueError(f"{path} holds {len(names)} class names; a label is {highest}")
    if _class_names(path, names, origin) != names:
        raise ValueError(f"{path} numbers its classes otherwise than the network")
    train, labels = parts[0][0], parts[0][1].ravel().astype(np.int64)
    if len(parts) == 1:
        return _with_codes(path, _split(path, train, labels, names), names, origin)
    test, test_labels = parts[1][0], parts[1][1].ravel().astype(np.int64)
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(f"{path} holds images of {train.shape[1:]} to train and of {test.shape[1:]} to test with")
    return _with_codes(path, Data(train, labels, test, test_labels), names, origin)


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
    """Return images (N, height, width, colours) of one to three axes beside the first, or features as they are."""
    if array.dtype.kind == "f" and array.ndim == 2 and array.size:
        array = array.astype(np.float64)
        if not (np.abs(array) <= MAX_BOUND).all():
            raise ValueError(f"{path} holds a feature that is no number, or beyond {MAX_BOUND:g}")
        return array[:, np.newaxis, :, np.newaxis]
    if array.dtype.kind not in "ui" or not 2 <= array.ndim <= 4 or not array.size:
        raise ValueError(f"{path}: images are {array.dtype} {array.shape}; they must be whole numbers (N, height, "
                         "width) or (N, height, width, colours), or features (N, n)")
    if array.min() < 0 or array.max() > MAX_PIXEL:
        raise ValueError(f"{path}: pixels span {array.min()} to {array.max()}; they must be 0 to {MAX_PIXEL}")
    if array.ndim == 2:
        array = array[:, np.newaxis]
    if array.ndim == 3:
        array = array[..., np.newaxis]
    return array.astype(np.uint8 if array.max() < 1 << 8 else np.uint16)


def _csv(path: Path, origin: Origin | None) -> Found:
    rows = _rows(path)
    titles = rows.pop(0) if rows and not all(map(_is_number, rows[0][:-1])) else []
    if not rows or len(rows[0]) < 2:
        raise ValueError(f"{path} holds no row of features and a label, with commas between them")
    n = len(rows[0])
    for i, row in enumerate([titles, *rows] if titles else rows, 1):
        if len(row) != n:
            raise ValueError(f"{path}: row {i} has {len(row)} columns; row {2 if titles else 1} has {n}")
    at = next((i for i, title in enumerate(titles) if title.strip().lower() in LABEL_COLUMNS), n - 1)
    texts = [row[at].strip() for row in rows]
    names = _class_names(path, _in_order(texts), origin)
    numbers = {name: i for i, name in enumerate(names)}
    labels = np.array([numbers[text] for text in texts])
    values = np.array([[_number(path, i, value) for value in row[:at] + row[at + 1 :]]
                       for i, row in enumerate(rows, 2 if titles else 1)])
    return _with_codes(path, _split(path, values[:, np.newaxis, :, np.newaxis], labels, names), names, origin)


def _in_order(texts: Iterable[str]) -> tuple[str, ...]:
    """Return different texts, numbers first."""
    return tuple(sorted(set(texts), key=lambda text: (float(text), text) if _is_number(text) else (math.inf, text)))


def _with_codes(path: Path, data: Data, names: tuple[str, ...], origin: Origin | None) -> Found:
    """Return a set with pixels; features (N, 1, n, 1) that are no whole numbers become codes."""
    train, test = data.train_images, data.test_images
    if train.dtype.kind != "f" and test.dtype.kind != "f":
        return data, names, ()
    top = (1 << CODE_BITS) - 1
    whole = all((part == np.rint(part)).all() and 0 <= part.min() and part.max() <= top for part in (train, test))
    if whole and (origin is None or not origin.ranges):
        return data._replace(train_images=train.astype(np.uint8), test_images=test.astype(np.uint8)), names, ()
    if origin is not None and not origin.ranges:
        raise ValueError(f"{path} holds features that are no whole numbers from 0 to {top}; the network takes such")
    ranges = tuple(zip(train.min((0, 1, 3)).tolist(), train.max((0, 1, 3)).tolist(), strict=True))
    if origin is not None:
        ranges = origin.ranges
    if len(ranges) != train.shape[2]:
        raise ValueError(f"{path} has {train.shape[2]} features; the network takes {len(ranges)}")
    codes = [coded(part[..., 0], ranges)[..., np.newaxis] for part in (train, test)]
    return data._replace(train_images=codes[0], test_images=codes[1]), names, ranges


def example(path: Path) -> NDArray[np.float64]:
    """Return the features of a CSV of one row without a label, shape (n,); a row of titles may come before it."""
    rows = _rows(path)
    if len(rows) == 2 and not all(map(_is_number, rows[0])):
        rows.pop(0)
    if len(rows) != 1:
        raise ValueError(f"{path} holds {len(rows)} rows; an example is one row")
    return np.array([_number(path, 1, value) for value in rows[0]])


def coded(features: NDArray, ranges: Iterable[tuple[float, float]]) -> NDArray[np.uint8]:
    """Return the codes of features (…, n): their place in their range, of as many steps as `CODE_BITS` have.

    Raises
    ------
    ValueError
        When a feature is no number of at most `MAX_BOUND`.
    """
    features = features.astype(np.float64)
    if not (np.abs(features) <= MAX_BOUND).all():
        raise ValueError(f"a feature is no number from -{MAX_BOUND:g} to {MAX_BOUND:g}")
    low, high = np.array(list(ranges)).T
    span, top = np.where(high > low, high - low, 1), (1 << CODE_BITS) - 1
    return np.clip(np.rint((features - low) / span * top), 0, top).astype(np.uint8)


def _rows(path: Path) -> list[list[str]]:
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8, or a field of it is very long") from error


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) <= MAX_BOUND
    except ValueError:
        return False


def _number(path: Path, row: int, text: str) -> float:
    if not _is_number(text):
        raise ValueError(f"{path}: row {row} holds {text[:40]!r}, which is no number, or beyond {MAX_BOUND:g}")
    return float(text)


def _class_names(path: Path, found: tuple[str, ...], origin: Origin | None) -> tuple[str, ...]:
    """Return the names of all classes, in their order: those found, or the network's."""
    if (longest := max(map(len, found))) > MAX_NAME:
        raise ValueError(f"{path}: the name of a class has {longest} characters; at most {MAX_NAME} are read")
    if origin is not None:
        if strange := sorted(set(found) - set(origin.class_names)):
            raise ValueError(f"{path} has a class {strange[0]!r}; the network knows "
                             f"{', '.join(origin.class_names[:20])}")
        return origin.class_names
    if not 2 <= len(found) <= MAX_CLASSES:
        raise ValueError(f"{path} has {len(found)} class{'' if len(found) == 1 else 'es'}; it must have 2 to "
                         f"{MAX_CLASSES}")
    return found


def _split(path: Path, images: NDArray, labels: NDArray, names: tuple[str, ...]) -> Data:
    """Set a fifth of each class apart to test with, at least one."""
    draw, test = np.random.default_rng(SPLIT_SEED), np.zeros(len(images), bool)
    for i, name in enumerate(names):
        members = np.flatnonzero(labels == i)
        if len(members) == 1:
            raise ValueError(f"{path}: class {name!r} has 1 example; at "
                             "least one to train and one to test with are needed")
        if len(members):
            test[draw.permutation(members)[: max(1, len(members) // TEST_PART)]] = True
    return Data(images[~test], labels[~test].astype(np.int64), images[test], labels[test].astype(np.int64))
