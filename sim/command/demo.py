"""The demo: handwritten digits at every pruning level, from golden model to cycles on the RTL."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, get_type_hints

import msgspec
from msgspec import Meta

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.compute import golden
from cbnn.model.data import digits
from cbnn.model.exchange.shipped import shipped_digits
from cbnn.model.files import MAX_JSON_BYTES, OwnFolder, decode_json, read_bounded
from cbnn.model.network import prune_slices
from cbnn.model.processes import completed
from cbnn.sim.predict import cycles
from cbnn.sim.predict.cycles import Level
from cbnn.sim.prove.simulators import check_simulator
from cbnn.sim.prove.verify import verify
from cbnn.sim.prove.verilated import MismatchError
from cbnn.sim.report.levels import write_report

FOLDINGS = {"first layer slowest": "(2,9)(16,48)(16,16)(4,16)(5,8)", "balanced": "(8,9)(16,16)(8,16)(4,16)(5,8)"}
"""The two foldings of the demo, by name."""
N_IMAGES = 16
TABLE = "table.json"
REPORT = "report.html"
ROW = msgspec.defstruct("Row", [("folding_name", str), ("n_images", int),
                                *get_type_hints(Level, include_extras=True).items()], forbid_unknown_fields=True)
"""A row of the table: the folding's name, images run on the RTL, and a `Level`."""


def run_demo(out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[dict]:
    """Evaluate, generate, simulate and compare every pruning level at both foldings; write table and report.

    Parameters
    ----------
    out : folder for ``table.json``, ``report.html`` and the Verilog of every level
    progress : called with the levels done and all of them

    Raises
    ------
    ValueError
        When `out` holds something that the demo did not write.
    SimulationError
        When Icarus is missing or fails.
    MismatchError
        When RTL and model differ; no table and no report are written then.
    """
    networks = shipped_digits()
    jobs = [(name, n) for name in FOLDINGS for n in range(len(networks))]
    check_simulator()
    check_out(out)
    rows: dict[tuple[str, int], dict] = {}
    progress(0, len(jobs))
    with closing(completed(partial(level, out=out), jobs)) as done:
        for job, row in done:
            rows[job] = row
            progress(len(rows), len(jobs))
    ordered = [rows[job] for job in jobs]
    write_table(ordered, out)
    write_report(json.loads((out / TABLE).read_text()), out / REPORT)
    return ordered


def write_table(rows: list[dict], out: Path) -> None:
    """Write the rows as ``table.json``."""
    OwnFolder(out, ["verilog"]).write(TABLE, (json.dumps(rows, indent=2) + "\n").encode())


def read_table(folder: Path) -> list[dict]:
    """Return the rows of ``table.json`` in a folder that the demo wrote.

    Raises
    ------
    ValueError
        When there is no such table.
    """
    content = read_bounded(folder / TABLE, MAX_JSON_BYTES)
    try:
        decode_json(content, Annotated[list[ROW], Meta(min_length=1)])  # type: ignore
    except ValueError as error:
        raise ValueError(f"{folder / TABLE} is no table of the demo: {error}") from error
    return json.loads(content)


def check_out(out: Path) -> None:
    """Raise ValueError unless `out` is new, empty, or holds nothing but what the demo wrote."""
    folders = {_folder(name, n) for name in FOLDINGS for n in range(digits.INPUT_BITS)}
    OwnFolder(out, ["verilog"]).check()
    OwnFolder(out / "verilog", folders).check()
    for folder in folders:
        OwnFolder(out / "verilog" / folder).check()


def _folder(name: str, n_pruned: int) -> str:
    return f"{name.replace(' ', '-')}-{digits.INPUT_BITS - n_pruned}"


def level(job: tuple[str, int], out: Path) -> dict:
    """Return the row of a folding, by name, and a number of slices pruned, measured on the RTL.

    Raises
    ------
    MismatchError
        When RTL and model differ.
    """
    (name, n), networks = job, shipped_digits()
    full, network, verilog = networks[0], networks[n], out / "verilog" / _folder(name, n)
    kept = network.topology.kept_slices
    data = digits.load()
    folding = Folding.parse(FOLDINGS[name], network.topology)
    unit = accelerator(network, folding, "digits")
    result = verify(network, unit, data.test_images[:N_IMAGES], verilog)
    if result.differences:
        raise MismatchError(f"{name}, {len(kept)} slices: {result.differences[0]}")
    before, after = (golden.accuracy(trained, data.test_images, data.test_labels)
                     for trained in (prune_slices(full, kept), network))
    baseline = cycles.full_level(full, Folding.parse(FOLDINGS[name], full.topology))
    row = cycles.level(network, folding, baseline, accuracy_before=before, accuracy_after=after,
                       measured=result.measured)
    return {"folding_name": name, "n_images": result.n_images} | asdict(row)
