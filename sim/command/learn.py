"""Verbs around what a network learns: train, evaluate, predict, sensitivity, compact."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.table import Table

from cbnn.model import files
from cbnn.model.compute import golden
from cbnn.model.compute.evaluation import Evaluation, evaluate
from cbnn.model.data import datasets, own
from cbnn.model.exchange import storage
from cbnn.model.learn.sensitivity import n_steps, sensitivity
from cbnn.model.network import Network
from cbnn.model.slices import parse_slices
from cbnn.model.topology import Topology
from cbnn.sim.command.options import (
    DEFAULT_DEVICE,
    DataDirOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    OutOption,
    OwnDataOption,
    SeedOption,
    check_device,
    check_outside,
    load_data,
    load_model,
    load_set,
    numbers,
    own_or_named,
)
from cbnn.sim.command.screen import facts_tables, print_result, progress_bar, tell
from cbnn.sim.command.verbs import next_step, option, refuse, verb

LayersOption = Annotated[str, typer.Option(help="Topology, as in 16C3-MP2-64FC-10FC; else the data set's own.")]
TrainedOnOption = Annotated[str, typer.Option(help=f"Data set: {', '.join(datasets.DATASETS)}.")]
TeacherOption = Annotated[bool, typer.Option("--teacher", help="Learn from a network of full width in full precision "
                                                               "too, which is trained first.")]
EpochsOption = Annotated[int | None, option("Passes over the images; else the data set's own number.", 1, 100_000)]


@verb("train", "cbnn train --dataset digits --slices 4,3 --out my.npz")
def train(out: OutOption, dataset: TrainedOnOption = "digits", data_dir: DataDirOption = None,
          data: OwnDataOption = None,
          layers: LayersOption = "",
          slices: Annotated[str, typer.Option(help="Slices kept, by number, the MSB first, as in 7,6,5 or 7..5; else "
                                                   "all.")] = "",
          width: Annotated[float, option("Factor of the rows of all layers but the last.", 0.001, 1000)] = 1.0,
          first_layer: Annotated[str, typer.Option(help="sliced or weighted.")] = "sliced",
          teacher: TeacherOption = False, epochs: EpochsOption = None,
          seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Train a network (needs the extra cbnn[train]), of the digits by default; the shipped ones took 300 epochs."""
    from cbnn.model.learn import binary_module, training  # PyTorch is an extra, and slow to import

    files.check_file(out)
    check_outside(out, data)
    dataset, data_dir = own_or_named(dataset, data_dir, data)
    known = datasets.find(dataset)
    layers, recipe = _recipe(dataset, layers, epochs, seed)
    kept = parse_slices(slices) if slices else tuple(range(known.input_bits - 1, -1, -1))
    full = Topology.parse(layers, known.in_shape, known.input_bits, kept, first_layer)  # type: ignore[arg-type]
    topology = full.scaled(width)
    examples = load_set(dataset, data_dir)
    with progress_bar() as progress:
        def fit(what: Topology, name: str, **options: Any) -> Any:
            task = progress.add_task(f"{name}, epochs", total=recipe.epochs)
            return training.train(what, examples.train_images, examples.train_labels, recipe,
                                  lambda epoch, loss: progress.update(task, completed=epoch), **options)

        module = fit(topology, "network", teacher=fit(full, "teacher", precision="float") if teacher else None)
    network = binary_module.export(module, known.max_pixel, own.read(data).origin if data is not None else None)
    storage.save(network, out)
    print_result({"model": str(out), **_note(examples), "kept_slices": list(topology.kept_slices),
                  "accuracy": golden.accuracy(network, examples.test_images, examples.test_labels)}, as_json)
    next_step("sensitivity", out, dataset=None if data is not None else dataset)


@verb("evaluate", "cbnn evaluate digits-5")
def evaluate_command(
        model: ModelArgument, dataset: DatasetOption = "", data_dir: DataDirOption = None,
        data: OwnDataOption = None,
        images_file: Annotated[Path | None, typer.Option(help="An .npy array (N, height, width, colours) of pixels "
                                                              "instead, or (N, n) of features, of any size.")] = None,
        labels_file: Annotated[Path | None, typer.Option(help="An .npy array of their classes.")] = None,
        partial: Annotated[Path | None, typer.Option(help="File that keeps what was counted, so that an evaluation "
                                                          "which was interrupted goes on.")] = None,
        as_json: JsonOption = False) -> None:
    """Accuracy by the golden model (csim), its confidence interval, and which classes are confused."""
    if partial is not None:
        files.check_file(partial)
    network = load_model(model)
    pixels, classes, note = _labelled(network, dataset, data_dir, data, images_file, labels_file)
    # Compiles, where this is the first call on the machine.
    golden.scores(network, np.zeros((1, *network.topology.in_shape), np.uint8))
    seen: list[Evaluation] = []
    try:
        with progress_bar() as progress:
            task = progress.add_task("images", total=len(pixels))

            def count(done: Evaluation) -> None:
                seen[:] = [done]
                progress.update(task, completed=done.n_images)

            result = evaluate(network, pixels, classes, count, partial)
    except KeyboardInterrupt:
        if seen:
            print_result({"model": model, **note, "interrupted_after": seen[0].n_images,
                          "accuracy": seen[0].accuracy}, as_json)
        raise
    _print_evaluation(model, network.topology, note, result, as_json)
    next_step("cycles", model, folding="auto")


def _print_evaluation(model: str, topology: Topology, note: dict, result: Evaluation, as_json: bool) -> None:
    summary = {"model": model, **note, "kept_slices": list(topology.kept_slices), "images": result.n_images,
               "accuracy": result.accuracy, "accuracy_confidence_95": list(result.confidence),
               "images_per_second": round(result.n_images / result.seconds), "computed_by": golden.backend_text()}
    table = Table("label", *map(str, range(len(result.confusion))), title="images of a label, by the class found",
                  title_justify="left", box=SIMPLE)
    for label, row in enumerate(result.confusion):
        table.add_row(str(label), *(str(n) if n else "." for n in row))
    print_result(summary | {"confusion": result.confusion.tolist()}, as_json, *facts_tables(summary), table)


@verb("predict", "cbnn predict digits-5 digit.png --slice-pictures slices")
def predict_command(model: ModelArgument,
                    image: Annotated[Path, typer.Argument(help="A picture of 8 bits per colour, or an .npy array of "
                                                               "pixels.")],
                    slice_pictures: Annotated[Path | None, typer.Option(help="Folder for a picture of every "
                                                                             "slice.")] = None,
                    as_json: JsonOption = False) -> None:
    """Class and scores of one image, by the golden model; on request what its bit slices look like."""
    from cbnn.model.data import pictures  # only this verb needs Pillow

    network = load_model(model)
    pixels = pictures.read_image(image, network)
    scores = golden.scores(network, pixels)[0]
    if slice_pictures is not None:
        for path in pictures.write_slices(pixels, network, slice_pictures):
            tell(path)
    found = int(scores.argmax())
    name = {"class_name": network.origin.class_names[found]} if network.origin is not None else {}
    print_result({"image": str(image), "class": found, **name, "scores": scores.tolist()}, as_json)
    next_step("evaluate", model)


@verb("sensitivity", "cbnn sensitivity digits-5 --plot slices.html")
def sensitivity_command(model: ModelArgument, dataset: DatasetOption = "", data_dir: DataDirOption = None,
                        data: OwnDataOption = None,
                        repetitions: Annotated[int, option("Random draws per slice.", 1, 1000)] = 5,
                        seed: SeedOption = 0,
                        plot: Annotated[Path | None, typer.Option(help="File for a plot, HTML.")] = None,
                        as_json: JsonOption = False) -> None:
    """Accuracy with slices randomised or zeroed, one by one, from the LSB up, and per colour, without retraining."""
    from cbnn.sim.report import compaction

    if plot is not None:
        files.check_file(plot)
    network = load_model(model)
    pixels, classes, note = _labelled(network, dataset, data_dir, data, None, None)
    with progress_bar() as progress:
        steps = progress.track(sensitivity(network, pixels, classes, repetitions, seed),
                               total=n_steps(network.topology), description="slices")
        results = list(steps)
    rows = [asdict(result) | note | {"mean": result.mean, "spread": result.spread} for result in results]
    if plot is not None:
        files.write_atomically(plot, compaction.sensitivity_page(rows).encode())
    print_result(rows, as_json, *(f"{name}: {text}" for name, text in note.items()),
                 compaction.sensitivity_table(results))
    own_data = data or (network.origin.data if network.origin is not None and not dataset else None)
    next_step("compact", dataset=None if own_data else note["dataset"], data=own_data, out="compact")


@verb("compact", "cbnn compact --dataset digits --max-drop 1 --out compact")
def compact_command(
        out: OutOption, dataset: TrainedOnOption = "digits", data_dir: DataDirOption = None,
        data: OwnDataOption = None, layers: LayersOption = "",
        max_drop: Annotated[float, option("Accuracy that may be lost, in percentage points.", 0, 99)] = 1.0,
        widths: Annotated[str, typer.Option(help="Widths tried, as in 1,0.5,0.25; else 1 to 0.25.")] = "",
        teacher: TeacherOption = False, epochs: EpochsOption = None, device: DeviceOption = DEFAULT_DEVICE,
        seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """CBNN, the whole method: train, prune slices, shrink, retrain (needs cbnn[train]).

    Finds the smallest network within the loss allowed. Every network that is trained is kept in the
    folder; run again with the same folder it goes on where it was interrupted.
    """
    from cbnn.model.learn import compact  # PyTorch is an extra, and slow to import
    from cbnn.model.learn.points import baseline
    from cbnn.sim.report import compaction

    check_device(device)
    files.OwnFolder(out, ["points"]).check()
    check_outside(out, data)
    dataset, data_dir = own_or_named(dataset, data_dir, data)
    layers, recipe = _recipe(dataset, layers, epochs, seed)
    known, points = datasets.find(dataset), out / "points"
    if data is None and not known.files:
        refuse(f"here: the data set {dataset} comes with a library", "data_dir")
    full = baseline(dataset, layers, recipe, teacher)
    tried = compact.checked_widths(full.topology, max_drop,
                                   numbers("--widths", widths, 0.001, 1) if widths else None)
    with progress_bar() as progress:
        task = progress.add_task("baseline", total=None)
        found = compact.compact(
            full, points, max_drop=max_drop, widths=tried, data_dir=data_dir,
            progress=lambda done, total: progress.update(task, completed=round(done, 2), total=total),
            stage=lambda text: progress.update(task, description=text))
        progress.update(task, description="cycles")
        facts = compaction.summary(found, points, data_dir, device)
    compaction.write(found, facts, points, out)
    print_result(facts, as_json, *compaction.tables(facts))
    tell(f"report: {out / compaction.PAGE}")
    next_step("evaluate", out / compaction.NETWORKS[1], dataset=None if data is not None else dataset)


def _recipe(dataset: str, layers: str, epochs: int | None, seed: int) -> tuple:
    """Topology and recipe of a data set, with what the user says otherwise."""
    from cbnn.model.learn.training import defaults

    datasets.find(dataset)
    usual, recipe = defaults(dataset)
    return layers or usual, replace(recipe, seed=seed, epochs=recipe.epochs if epochs is None else epochs)


def _labelled(network: Network, dataset: str, data_dir: Path | None, own_data: Path | None, images_file: Path | None,
              labels_file: Path | None) -> tuple[NDArray, NDArray, dict]:
    """Images and labels from files, which stay on disk, or of a test split; and what is special about them."""
    if (images_file is None) != (labels_file is None):
        raise ValueError("--images-file and --labels-file belong together; one of them is missing")
    if images_file is not None and labels_file is not None:
        refuse("with --images-file, which holds the images", "dataset", "data_dir", "data")
        images = files.read_array(images_file, in_place=True)
        if images.ndim == 2 and (network.topology.in_shape[0], network.topology.in_shape[2]) == (1, 1):
            ranges = network.origin.ranges if network.origin is not None else ()
            images = (own.coded(images, ranges) if ranges else images)[:, np.newaxis, :, np.newaxis]
        return images, files.read_array(labels_file), {}
    data, name = load_data(network, dataset, data_dir, own_data)
    return data.test_images, data.test_labels, {"dataset": name, **_note(data)}


def _note(data: datasets.Data) -> dict:
    return {"note": data.note} if data.note else {}


