"""The demo: handwritten digits at every pruning level, from golden model to cycles on the RTL."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import accelerator
from cbnn.hw.verilog import check_replaceable
from cbnn.model import digits, golden, storage
from cbnn.model.folding import Folding
from cbnn.model.network import Network, prune_slices
from cbnn.model.storage import write_atomically
from cbnn.model.topology import Topology
from cbnn.sim.cosim import check_simulator
from cbnn.sim.report import write_report
from cbnn.sim.search import Budget, Search
from cbnn.sim.verify import Cycles, verify

FOLDINGS = {"first layer slowest": "(2,9)(16,48)(16,16)(4,16)(5,8)", "balanced": "(8,9)(16,16)(8,16)(4,16)(5,8)"}
"""The two foldings of the demo, by name."""
N_IMAGES = 16
TABLE = "table.json"
REPORT = "report.html"


@dataclass(frozen=True)
class Row:
    """One pruning level at one folding; cycles per image.

    Attributes
    ----------
    accuracy_before, accuracy_after : on the test split, with slices pruned but not retrained, and retrained
    predicted, measured : cycles by formula, and on the RTL
    layer_cycles : cycles of every layer's matrix unit, by formula
    luts : estimate at this folding
    refolded, refolded_interval_cycles : the fastest folding within the LUTs of all slices, and its interval
    saved_cycles, saved_percent : interval saved against all slices at the same folding
    n_images : images of which every score was compared on the RTL
    """

    folding_name: str
    folding: str
    kept_slices: list[int]
    accuracy_before: float
    accuracy_after: float
    predicted: Cycles
    measured: Cycles
    layer_cycles: list[int]
    luts: int
    refolded: str
    refolded_interval_cycles: int
    saved_cycles: int
    saved_percent: float
    n_images: int


class MismatchError(Exception):
    """RTL and model differ."""


def shipped() -> dict[str, Path]:
    """Return the networks that come with the package, by name."""
    folder = Path(str(files("cbnn.model"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


def shipped_digits() -> list[Network]:
    """Return the digits networks that come with the package, all slices first."""
    return [storage.load(shipped()[f"digits-{n}"]) for n in range(digits.INPUT_BITS, 0, -1)]


def run_demo(out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Row]:
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
    rows: dict[tuple[str, int], Row] = {}
    progress(0, len(jobs))
    with ProcessPoolExecutor() as pool:
        futures = {pool.submit(level, networks, name, n, out / "verilog" / _folder(name, n)): (name, n)
                   for name, n in jobs}
        try:
            for future in as_completed(futures):
                rows[futures[future]] = future.result()
                progress(len(rows), len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    ordered = [rows[job] for job in jobs]
    write_table(ordered, out)
    write_report(json.loads((out / TABLE).read_text()), out / REPORT)
    return ordered


def write_table(rows: list[Row], out: Path) -> None:
    """Write the rows as ``table.json``."""
    write_atomically(out / TABLE, (json.dumps([asdict(row) for row in rows], indent=2) + "\n").encode())


def read_table(folder: Path) -> list[dict]:
    """Return the rows of ``table.json`` in a folder that the demo wrote.

    Raises
    ------
    ValueError
        When there is no such table.
    """
    try:
        rows = json.loads((folder / TABLE).read_text())
        if not isinstance(rows, list) or not rows or any(set(row) != {f.name for f in fields(Row)} for row in rows):
            raise ValueError("its rows are not the demo's")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder} holds no table of the demo: {error}") from error
    return rows


def takes_digits(topology: Topology) -> bool:
    """Tell whether a network's input is that of the digits networks."""
    return (topology.in_shape, topology.input_bits) == (digits.IN_SHAPE, digits.INPUT_BITS)


def sample_images(topology: Topology, n: int, seed: int) -> NDArray:
    """Return `n` images that suit a network: digits of the test split where it takes digits, else random pixels."""
    if takes_digits(topology):
        return digits.load().test_images[:n]
    high = 1 << topology.input_bits
    return np.random.default_rng(seed).integers(0, high, (n, *topology.in_shape), np.uint16)


def check_out(out: Path) -> None:
    """Raise ValueError unless `out` is new, empty, or holds nothing but what the demo wrote."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; the demo writes to a folder")
    present = {path.name for path in out.iterdir()} if out.exists() else set()
    folders = {_folder(name, n) for name in FOLDINGS for n in range(digits.INPUT_BITS)}
    if (out / "verilog").is_dir():
        present |= {f"verilog/{path.name}" for path in (out / "verilog").iterdir()}
    if stray := present - {TABLE, REPORT, "verilog"} - {f"verilog/{folder}" for folder in folders}:
        raise ValueError(f"{out} holds {min(stray)}, which the demo did not write; name an empty or a new folder")
    for folder in folders:
        check_replaceable(out / "verilog" / folder)


def _folder(name: str, n_pruned: int) -> str:
    return f"{name.replace(' ', '-')}-{digits.INPUT_BITS - n_pruned}"


def level(networks: list[Network], name: str, n: int, verilog: Path) -> Row:
    """One row: `n` slices pruned at the folding `name`."""
    full, network = networks[0], networks[n]
    data = digits.load()
    folding = Folding.parse(FOLDINGS[name], network.topology)
    unit = accelerator(network, folding, "digits")
    result = verify(network, unit, data.test_images[:N_IMAGES], verilog)
    if result.differences or result.measured is None:
        raise MismatchError(f"{name}, {len(network.topology.kept_slices)} slices: {result.differences[0]}")
    baseline = accelerator(full.topology, Folding.parse(FOLDINGS[name], full.topology))
    faster = Search(network.topology, folding.input_width).fastest(Budget(baseline.luts))
    before = prune_slices(full, network.topology.kept_slices)
    saved = baseline.interval_cycles - result.measured.interval_cycles
    return Row(
        name, str(folding), list(network.topology.kept_slices),
        golden.accuracy(before, data.test_images, data.test_labels),
        golden.accuracy(network, data.test_images, data.test_labels),
        result.predicted, result.measured, [mvtu.interval_cycles for mvtu in unit.mvtus], unit.luts,
        str(faster.folding), faster.interval_cycles, saved, 100 * saved / baseline.interval_cycles, result.n_images)
