"""Trained networks as points on disk: what to train, side by side on the cores, never twice.

A point is a network to train, down to the seed. Its result lies in a folder under a name made from all of that, so that
work which was interrupted goes on where it stopped, and another search finds what it needs already there.
"""

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from cbnn.model import datasets, golden, storage
from cbnn.model.network import Network
from cbnn.model.topology import Topology
from cbnn.model.training import Recipe, accuracy, train

VALIDATION = {"digits": 250}
"""Training images that are set apart to choose by."""
DEFAULT_VALIDATION = 5000
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
    teacher : whether it learns from a network of full width and full precision too, which is trained first
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


@dataclass(frozen=True)
class Result:
    """What came of a point.

    Attributes
    ----------
    validation_accuracy : on the images set apart, by the golden model, or by PyTorch where not all is binary
    test_accuracy : only where not all is binary, since such a network is not kept; nothing may be chosen by it
    seconds : that training took
    network : file of the exported network in the same folder; None where not all is binary
    note : says where the data are not the original
    """

    validation_accuracy: float
    test_accuracy: float | None
    seconds: float
    network: str | None
    note: str

    def load(self, folder: Path) -> Network:
        """Read the network."""
        assert self.network is not None
        return storage.load(folder / self.network)


def split(dataset: str, data: datasets.Data) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return images and labels to train by, and those to choose by."""
    return datasets.validation_split(data.train_images, data.train_labels, VALIDATION.get(dataset, DEFAULT_VALIDATION))


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
    try:
        entry = json.loads(storage.read_bounded(path, 1 << 16))
        result = Result(**{field.name: entry[field.name] for field in fields(Result)})
        if (point.precision == "binary") != (result.network == f"{point.name}.npz"):
            raise ValueError("it names another network")
        if result.network is not None:
            storage.load(folder / result.network)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the result of a training: {error}; delete it to train again") from error
    return result


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
    # Not forked from here, since PyTorch's and numba's threads do not survive that, but from a server that has imported
    # everything and run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cbnn.model.points"])
    with context.Manager() as manager, ProcessPoolExecutor(min(len(points), os.cpu_count() or 1), context) as pool:
        parts = manager.dict()
        futures = {pool.submit(train_point, point, folder, data_dir, parts) for point in points}
        try:
            while futures:
                done, futures = wait(futures, 1.0, FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress(sum(parts.values()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def train_point(point: Point, folder: Path, data_dir: Path | None, parts: Any) -> None:
    """Train a point, write its network and its result; `parts` is told how far it is."""
    from cbnn.model.binary_module import export

    data = datasets.load(point.dataset, data_dir)
    images, labels, validation_images, validation_labels = split(point.dataset, data)
    start = time.perf_counter()
    teacher = None
    if point.teacher:
        full = Point(point.dataset, point.layers, point.kept_slices, (1.0,), point.recipe).topology
        teacher = train(full, images, labels, point.recipe, precision="float")

    def progress(epoch: int, loss: float) -> None:
        parts[point.name] = epoch / point.recipe.epochs

    module = train(point.topology, images, labels, point.recipe, progress, point.precision, teacher)
    seconds, test = time.perf_counter() - start, None
    if point.precision == "binary":
        network = export(module, datasets.find(point.dataset).max_pixel)
        storage.save(network, folder / f"{point.name}.npz")
        validation = golden.accuracy(network, validation_images, validation_labels)
    else:
        validation = accuracy(module, validation_images, validation_labels)
        test = accuracy(module, data.test_images, data.test_labels)
    result = Result(validation, test, seconds, f"{point.name}.npz" if point.precision == "binary" else None, data.note)
    content = asdict(result) | {"point": asdict(point)}
    storage.write_atomically(folder / f"{point.name}.json", (json.dumps(content, indent=1) + "\n").encode())
    parts[point.name] = 1.0
