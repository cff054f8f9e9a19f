"""Trained networks as points on disk: what to train, side by side on the cores, never twice.

A point is a network to train, down to the seed. Its result lies in a folder under a name made from
all of that, so that work which was interrupted goes on where it stopped, and another search finds
what it needs already there.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from numpy.typing import NDArray

from cbnn.model.compute import golden
from cbnn.model.data import datasets, own
from cbnn.model.exchange import storage
from cbnn.model.files import MAX_JSON_BYTES, Fraction, decode_json, read_bounded, write_atomically
from cbnn.model.learn.training import Recipe, accuracy, train
from cbnn.model.network import Network
from cbnn.model.processes import completed, report
from cbnn.model.topology import Topology

VALIDATION = {"digits": 250}
"""Training images that are set apart to choose by."""
DEFAULT_VALIDATION = 5000
OWN_VALIDATION_PART = 5
"""Of somebody's own data one of so many training images is set apart."""
Progress = Callable[[float, int], None]
"""Called with the points done, the begun ones in part, and all of them."""


@dataclass(frozen=True)
class Point:
    """A network to train.

    Attributes
    ----------
    dataset : one of `datasets.DATASETS`
    layers : the topology at full width
    kept_slices : MSB first
    widths : by which the rows of each layer but the last are multiplied, or one for all
    recipe : how to train
    first_layer, precision : see `Topology` and `binary_module.Precision`
    teacher : whether it learns from a network of full width and full precision too, which is
        trained first
    """

    dataset: str
    layers: str
    kept_slices: tuple[int, ...]
    widths: tuple[float, ...]
    recipe: Recipe
    first_layer: Literal["sliced", "weighted"] = "sliced"
    precision: Literal["binary", "float first layer", "float"] = "binary"
    teacher: bool = False

    @property
    def topology(self) -> Topology:
        """The topology to train."""
        known = datasets.find(self.dataset)
        full = Topology.parse(self.layers, known.in_shape, known.input_bits, self.kept_slices, self.first_layer)
        return full.scaled(*self.widths)

    @property
    def name(self) -> str:
        """Name of its files."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.dataset}-{digest[:16]}"


def baseline(dataset: str, layers: str, recipe: Recipe, teacher: bool = False) -> Point:
    """Return the point that keeps all slices of a data set and has the full width."""
    everything = tuple(range(datasets.find(dataset).input_bits - 1, -1, -1))
    return Point(dataset, layers, everything, (1.0,), recipe, teacher=teacher)


class Result(msgspec.Struct, frozen=True):
    """What came of a point.

    Attributes
    ----------
    validation_accuracy : on the images set apart, by the golden model, or by PyTorch where not all
        is binary
    test_accuracy : only where not all is binary, since such a network is not kept; nothing may be
        chosen by it
    seconds : that training took
    network : file of the exported network in the same folder; None where not all is binary
    note : says where the data are not the original
    """

    validation_accuracy: Fraction
    test_accuracy: Fraction | None
    seconds: Annotated[float, Meta(ge=0)]
    network: str | None
    note: str

    def load(self, folder: Path) -> Network:
        """Read the network."""
        assert self.network is not None
        return storage.load(folder / self.network)


def split(dataset: str, data: datasets.Data) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return images and labels to train by, and those to choose by."""
    n = VALIDATION.get(dataset, DEFAULT_VALIDATION)
    if own.named(dataset):
        n = len(data.train_images) // OWN_VALIDATION_PART
    return datasets.validation_split(data.train_images, data.train_labels, n)


def read_result(point: Point, folder: Path) -> Result | None:
    """Return the point's result; None where it was not trained.

    Raises
    ------
    ValueError
        When the file is not what `train_points` writes, or its network is missing.
    """
    path = folder / f"{point.name}.json"
    if not path.exists():
        return None
    content = read_bounded(path, MAX_JSON_BYTES)
    try:
        entry = decode_json(content, _Entry)
        if msgspec.to_builtins(entry.point) != msgspec.to_builtins(point):
            raise ValueError("it is of another point")
        if (point.precision == "binary") != (entry.result.network == f"{point.name}.npz"):
            raise ValueError("it names another network")
        if entry.result.network is not None:
            network = read_bounded(folder / entry.result.network, storage.MAX_BYTES)
            if hashlib.sha256(network).hexdigest() != entry.network_sha256:
                raise ValueError(f"{entry.result.network} is not the network that was trained")
    except ValueError as error:
        raise ValueError(f"{path} is not the result of a training: {error}; delete it to train again") from error
    return entry.result


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A result on disk."""

    point: Point
    result: Result
    network_sha256: str


def train_points(points: Sequence[Point], folder: Path, data_dir: Path | None = None,
                 progress: Progress = lambda done, total: None) -> list[Result]:
    """Train what is not in the folder yet, as many side by side as there are cores; return all results.

    Raises
    ------
    ValueError
        When a point cannot be trained, or the data are not to be had.
    """
    points = list(points)
    for point in points:
        _ = point.topology
    found = {point: read_result(point, folder) for point in dict.fromkeys(points)}
    missing = [point for point, result in found.items() if result is None]
    n_done = len(found) - len(missing)
    progress(n_done, len(found))
    if missing:
        _train(missing, folder, data_dir, lambda done: progress(n_done + done, len(found)))
        found |= {point: read_result(point, folder) for point in missing}
    results = [result for point in points if (result := found[point]) is not None]
    assert len(results) == len(points)
    return results


def _train(points: list[Point], folder: Path, data_dir: Path | None, progress: Callable[[float], None]) -> None:
    parts: dict[str, float] = {}

    def hear(told: tuple[str, float]) -> None:
        parts.update([told])
        progress(sum(parts.values()))

    with closing(completed(partial(train_point, folder=folder, data_dir=data_dir), points, hear)) as done:
        for point, _ in done:
            hear((point.name, 1.0))


def train_point(point: Point, folder: Path, data_dir: Path | None) -> None:
    """Train a point, write its network and its result; `report` how far it is."""
    from cbnn.model.learn.binary_module import export

    data = datasets.load(point.dataset, data_dir)
    images, labels, validation_images, validation_labels = split(point.dataset, data)
    start = time.perf_counter()
    teacher = None
    if point.teacher:
        full = Point(point.dataset, point.layers, point.kept_slices, (1.0,), point.recipe).topology
        teacher = train(full, images, labels, point.recipe, precision="float")

    def progress(epoch: int, loss: float) -> None:
        report((point.name, epoch / point.recipe.epochs))

    module = train(point.topology, images, labels, point.recipe, progress, point.precision, teacher)
    seconds, test, digest = time.perf_counter() - start, None, ""
    if point.precision == "binary":
        origin = own.read(data_dir).origin if data_dir is not None and own.named(point.dataset) else None
        network = export(module, datasets.find(point.dataset).max_pixel, origin)
        path = folder / f"{point.name}.npz"
        storage.save(network, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        validation = golden.accuracy(network, validation_images, validation_labels)
    else:
        validation = accuracy(module, validation_images, validation_labels)
        test = accuracy(module, data.test_images, data.test_labels)
    result = Result(validation, test, seconds, f"{point.name}.npz" if digest else None, data.note)
    entry = msgspec.json.encode(_Entry(point, result, digest))
    write_atomically(folder / f"{point.name}.json", msgspec.json.format(entry, indent=1) + b"\n")
