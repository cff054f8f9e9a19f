"""Verbs around what a network learns: train, evaluate, predict, sensitivity, compact."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from cbnn.model import datasets, files, golden, storage
from cbnn.model.evaluation import Evaluation, evaluate
from cbnn.model.network import Network
from cbnn.model.sensitivity import n_steps, sensitivity
from cbnn.model.topology import Topology
from cbnn.sim.options import (
    DataDirOption,
    DatasetOption,
    DeviceOption,
    FirstLayerOption,
    JsonOption,
    ModelArgument,
    OutOption,
    SeedOption,
    app,
    check_device,
    kept_slices,
    load_data,
    load_model,
    print_result,
    progress_bar,
    stderr,
    stdout,
)

LayersOption = Annotated[str, typer.Option(help="Topology, as in 16C3-MP2-64FC-10FC; else the data set's own.")]
TeacherOption = Annotated[bool, typer.Option("--teacher", help="Learn from a network of full width in full precision "
                                                               "too, which is trained first.")]
EpochsOption = Annotated[int | None, typer.Option(help="Passes over the images; else the data set's own number.")]


@app.command()
def train(out: OutOption, dataset: DatasetOption = "digits", data_dir: DataDirOption = None, layers: LayersOption = "",
          keep: Annotated[str, typer.Option(help="Slices kept, MSB first, as in 7,6,5; else all.")] = "",
          width: Annotated[float, typer.Option(help="Factor of the rows of all layers but the last.")] = 1.0,
          first_layer: FirstLayerOption = "sliced", teacher: TeacherOption = False, epochs: EpochsOption = None,
          seed: SeedOption = 0,
          as_json: JsonOption = False) -> None:
    """Train a network (needs the extra cbnn[train]), of the digits by default; the shipped ones took 300 epochs."""
    from cbnn.model import binary_module, training  # PyTorch is an extra, and slow to import

    known = datasets.find(dataset)
    layers, recipe = _recipe(dataset, layers, epochs, seed)
    kept = kept_slices(keep) if keep else tuple(range(known.input_bits - 1, -1, -1))
    full = Topology.parse(layers, known.in_shape, known.input_bits, kept, first_layer)  # type: ignore[arg-type]
    topology = full.scaled(width)
    data = datasets.load(dataset, data_dir)
    with progress_bar() as progress:
        def fit(what: Topology, name: str, **options: Any) -> Any:
            task = progress.add_task(f"{name}, epochs", total=recipe.epochs)
            return training.train(what, data.train_images, data.train_labels, recipe,
                                  lambda epoch, loss: progress.update(task, completed=epoch), **options)

        module = fit(topology, "network", teacher=fit(full, "teacher", precision="float") if teacher else None)
    network = binary_module.export(module, known.max_pixel)
    storage.save(network, out)
    print_result({"model": str(out), **_note(data), "kept_slices": list(topology.kept_slices),
                  "accuracy": golden.accuracy(network, data.test_images, data.test_labels)}, as_json)


@app.command("evaluate")
def evaluate_command(
        model: ModelArgument, dataset: DatasetOption = "", data_dir: DataDirOption = None,
        images: Annotated[Path | None, typer.Option(help="An .npy array (N, height, width, colours) of pixels instead, "
                                                         "of any size.")] = None,
        labels: Annotated[Path | None, typer.Option(help="An .npy array of their classes.")] = None,
        partial: Annotated[Path | None, typer.Option(help="File that keeps what was counted, so that an evaluation "
                                                          "which was interrupted goes on.")] = None,
        as_json: JsonOption = False) -> None:
    """Accuracy by the golden model (csim), how sure it is, and who is taken for whom; on a data set's test split."""
    network = load_model(model)
    pixels, classes, note = _labelled(network, dataset, data_dir, images, labels)
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
                          "accuracy": round(seen[0].accuracy, 6)}, as_json)
        raise
    _print_evaluation(model, network.topology, note, result, as_json)


def _print_evaluation(model: str, topology: Topology, note: dict, result: Evaluation, as_json: bool) -> None:
    low, high = result.confidence
    summary = {"model": model, **note, "kept_slices": list(topology.kept_slices), "images": result.n_images,
               "accuracy": round(result.accuracy, 6), "confidence_95_percent": [round(low, 4), round(high, 4)],
               "images_per_second": round(result.n_images / result.seconds), "computed_by": golden.backend_text()}
    if as_json:
        print(json.dumps(summary | {"confusion": result.confusion.tolist()}, indent=2))
        return
    print_result(summary, as_json=False)
    table = Table("label", *map(str, range(len(result.confusion))), title="found as", title_justify="left")
    for label, row in enumerate(result.confusion):
        table.add_row(str(label), *(str(n) if n else "." for n in row))
    stdout.print(table)


@app.command("predict")
def predict_command(model: ModelArgument,
                    image: Annotated[Path, typer.Argument(help="A picture of 8 bits per colour, or an .npy array of "
                                                               "pixels.")],
                    slices: Annotated[Path | None, typer.Option(help="Folder for a picture of every slice.")] = None,
                    as_json: JsonOption = False) -> None:
    """Class and scores of one image, by the golden model; on request what its bit slices look like."""
    from cbnn.model import pictures  # Pillow is for this verb alone

    network = load_model(model)
    pixels = pictures.read_image(image, network)
    scores = golden.scores(network, pixels)[0]
    if slices is not None:
        for path in pictures.write_slices(pixels, network, slices):
            stderr.print(str(path), soft_wrap=True)
    print_result({"image": str(image), "class": int(scores.argmax()), "scores": scores.tolist()}, as_json)


@app.command("sensitivity")
def sensitivity_command(model: ModelArgument, dataset: DatasetOption = "", data_dir: DataDirOption = None,
                        repetitions: Annotated[int, typer.Option(help="Random draws per slice.")] = 5,
                        seed: SeedOption = 0,
                        plot: Annotated[Path | None, typer.Option(help="File for a plot, HTML.")] = None,
                        as_json: JsonOption = False) -> None:
    """Accuracy with slices randomised or zeroed, one by one, from the LSB up, and per colour, without retraining."""
    from cbnn.sim import compaction

    network = load_model(model)
    pixels, classes, note = _labelled(network, dataset, data_dir, None, None)
    with progress_bar() as progress:
        steps = progress.track(sensitivity(network, pixels, classes, repetitions, seed),
                               total=n_steps(network.topology), description="slices")
        results = list(steps)
    rows = [asdict(result) | note | {"mean": result.mean, "spread": result.spread} for result in results]
    if plot is not None:
        files.write_atomically(plot, compaction.sensitivity_page(rows).encode())
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for name, text in note.items():
        stdout.print(f"{name}: {text}")
    stdout.print(compaction.sensitivity_table(results))


@app.command("compact")
def compact_command(
        out: OutOption, dataset: DatasetOption = "digits", data_dir: DataDirOption = None, layers: LayersOption = "",
        max_drop: Annotated[float, typer.Option(help="Accuracy that may be lost, in percentage points.")] = 1.0,
        widths: Annotated[str, typer.Option(help="Widths tried, as in 1,0.5,0.25; else 1 to 0.25.")] = "",
        teacher: TeacherOption = False, epochs: EpochsOption = None, device: DeviceOption = "xc7z020",
        seed: SeedOption = 0,
        as_json: JsonOption = False) -> None:
    """CBNN, the whole method: train, prune slices, shrink, retrain (needs cbnn[train]).

    Finds the smallest network within the loss allowed. Every network that is trained is kept in the folder; run again
    with the same folder it goes on where it was interrupted.
    """
    from cbnn.model import compact  # PyTorch is an extra, and slow to import
    from cbnn.sim import compaction

    check_device(device)
    layers, recipe = _recipe(dataset, layers, epochs, seed)
    known, points = datasets.find(dataset), out / "points"
    tried = compact.checked_widths(Topology.parse(layers, known.in_shape, known.input_bits), max_drop,
                                   _numbers(widths) if widths else None)
    with progress_bar() as progress:
        task = progress.add_task("baseline", total=None)
        found = compact.compact(
            dataset, layers, recipe, points, max_drop=max_drop, widths=tried, teacher=teacher, data_dir=data_dir,
            progress=lambda done, total: progress.update(task, completed=round(done, 2), total=total),
            stage=lambda text: progress.update(task, description=text))
        progress.update(task, description="cycles")
        facts = compaction.summary(found, points, data_dir, device)
    compaction.write(found, facts, points, out)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for table in compaction.tables(facts):
        stdout.print(table)
    stderr.print(f"report: {out / compaction.PAGE}", soft_wrap=True)


def _recipe(dataset: str, layers: str, epochs: int | None, seed: int) -> tuple:
    """Topology and recipe of a data set, with what the user says otherwise."""
    from cbnn.model.training import DEFAULTS

    datasets.find(dataset)
    own, recipe = DEFAULTS[dataset]
    return layers or own, replace(recipe, seed=seed, epochs=recipe.epochs if epochs is None else epochs)


def _labelled(network: Network, dataset: str, data_dir: Path | None, images: Path | None,
              labels: Path | None) -> tuple[NDArray, NDArray, dict]:
    """Images and labels from files, which stay on disk, or of a test split; and what is special about them."""
    if (images is None) != (labels is None):
        raise ValueError("images and labels come in two files; both are needed")
    if images is not None and labels is not None:
        return files.read_array(images, in_place=True), files.read_array(labels), {}
    data, name = load_data(network, dataset, data_dir)
    return data.test_images, data.test_labels, {"dataset": name, **_note(data)}


def _note(data: datasets.Data) -> dict:
    return {"note": data.note} if data.note else {}


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a list of numbers such as 1,0.5,0.25") from error
