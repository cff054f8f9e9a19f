"""What pruning input slices saves on FPGAs of three sizes, each network folded anew at every level.

    python bench/account.py [NAME ...]

A level is compared with all slices three times: fastest in the FPGA, fastest within the LUTs of
all slices, and fewest LUTs at the cycles of all slices. So no folding flatters a level. All have a
bus of at most 64 bits, on which the kept slices come packed; what whole bytes make of it stands
beside. The classic BNN, whose first layer weights the slices of a pixel, is a row of its own. LUTs
and block RAMs are estimates.

Numbers go to bench/results/account.json, tables to docs/cbnn-method.md and README.md, with the
accuracies of bench/results/method.json. Cycles there and on the model cards are found anew too.
All of it takes about ten minutes.
"""

import json
import sys
from dataclasses import replace
from functools import cache

import studies
from rtl import write_table
from studies import BASELINE, CBNN, DEVICE, RETRAINED, ROOT, STUDIES, WEIGHTED

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.folding import MAX_INPUT_WIDTH, pixel_bytes
from cbnn.hw.slice_order import divisors, slices_together
from cbnn.model.exchange.shipped import shipped_digits
from cbnn.model.files import write_atomically
from cbnn.model.slices import slices_text
from cbnn.model.topology import Topology
from cbnn.sim.predict.search import DEVICES, Budget, Search

RESULTS = ROOT / "bench" / "results" / "account.json"
FPGAS = ("xc7z020", "xc7k325t", "xc7vx690t")
CLASSIC, NARROW, SHRUNK = "weighted", "7..0, narrower", "7, narrower"
CNN, MLP = STUDIES["mnist-cnn"], STUDIES["mnist-mlp"]
NETWORKS = {
    "mnist-cnn": CNN.point(0).topology,
    "mnist-mlp": MLP.point(0).topology,
    "mnist-cnn, compact": CNN.point(0, widths=CNN.widths).topology,
    "mnist-mlp, compact": MLP.point(0, widths=MLP.widths).topology,
    "digits": Topology.parse("8x8x1u5-16C3-16C3-MP2-32C3-MP2-64FC-10FC"),
    "VGG": Topology.parse("32x32x3u8-128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-"
                          "1024FC-1024FC-10FC"),
}
HEADLINE = {
    CLASSIC: ("8 bits, weighted (classic BNN)", WEIGHTED), "7..0": ("8 slices", BASELINE),
    "7": ("1 slice", RETRAINED), NARROW: ("8 slices, narrower network", None),
    SHRUNK: ("1 slice, narrower network", CBNN),
}
"""Rows of README's table: what they are, and their names in bench/results/method.json."""
HEADINGS = ("FPGA", "slices", "fastest: cycles", "LUTs", "block RAMs",
            "in the LUTs of all slices: cycles", "at the cycles of all slices: LUTs", "block RAMs",
            "beats", "of whole bytes: beats", "cycles")


def sent_bits(topology: Topology, whole_bytes: bool) -> int:
    """Bits of an image on the bus."""
    if whole_bytes:
        return topology.tensor.n_values * 8 * pixel_bytes(topology)
    return topology.tensor.n_bits


@cache
def searches(topology: Topology, whole_bytes: bool = False,
             most: int = MAX_INPUT_WIDTH) -> list[Search]:
    """All foldings on a bus of at most so many bits, a search for every width above 32.

    Beats hold all colours of a pixel, of one slice or of whole bytes.
    """
    unit = topology.in_shape[2] * (8 * pixel_bytes(topology) if whole_bytes else 1)
    widths = [unit * d for d in divisors(sent_bits(topology, whole_bytes) // unit)
              if MAX_INPUT_WIDTH // 2 < unit * d <= most]
    return [Search(topology, width, whole_bytes) for width in widths]


def fastest(found: list[Search], budget: Budget) -> Accelerator | None:
    """Fewest cycles within a budget, and of these the fewest LUTs; None where nothing fits."""
    units = []
    for search in found:
        try:
            search.cheapest(search.intervals[-1], budget)  # says at once where nothing fits
            units.append(search.fastest(budget))
        except ValueError:
            pass  # nothing fits on a bus of this width
    return min(units, key=lambda unit: (unit.interval_cycles, unit.luts), default=None)


def interval_cycles(name: str) -> dict[str, int]:
    """Cycles per image on one FPGA."""
    units = {row: fastest(searches(topology), Budget(*DEVICES[DEVICE]))
             for row, topology in studies.topologies_of(STUDIES[name]).items()}
    return {row: unit.interval_cycles for row, unit in units.items() if unit}


def fold_again() -> None:
    """Find the cycles of bench/method.py's networks anew; write results, model cards and table."""
    results = json.loads(studies.RESULTS.read_text())
    for name, result in results.items():
        result["interval_cycles"] = interval_cycles(name)
        if name in studies.SHIPPED:
            studies.write_cards(name, result)
    studies.write_results(results)


def levels(name: str) -> dict[str, Topology]:
    """Topologies of the rows of a network, the one that all are compared with first."""
    full = NETWORKS[name]
    n = len(full.kept_slices)
    kept = [full.kept_slices[:count] for count in (n, n // 2, 1)]
    if name == "digits":
        kept = [network.topology.kept_slices for network in shipped_digits()]
    rows = {slices_text(slices): full.keep(slices) for slices in kept}
    if name in STUDIES:
        study = STUDIES[name]
        rows[NARROW] = study.point(0, widths=study.widths).topology
        rows[SHRUNK] = rows[NARROW].keep(study.kept_slices)
    return rows | {CLASSIC: replace(full, first_layer="weighted")}


def account(name: str) -> dict:
    """Rows of a network on every FPGA, and its cycles with a bit-serial first layer."""
    full, *_ = rows = levels(name)
    serial = [_bit_serial(Search(rows[full], search.input_width))
              for search in searches(rows[full])]
    result: dict = {"topology": str(rows[full]), "fpgas": {}, "bit serial": {}}
    for fpga in FPGAS:
        budget = Budget(*DEVICES[fpga])
        result["bit serial"][fpga] = cell(fastest(serial, budget))
        all_slices = fastest(searches(rows[full]), budget)
        result["fpgas"][fpga] = {row: _row(topology, budget, all_slices)
                                 for row, topology in rows.items()}
    return result


def _row(topology: Topology, budget: Budget, all_slices: Accelerator | None) -> dict:
    packed, whole = searches(topology), searches(topology, whole_bytes=True)
    unit = fastest(packed, budget)
    row = {"beats": _beats(packed), "byte_beats": _beats(whole), "fastest": cell(unit),
           "bytes": cell(fastest(whole, budget))}
    if unit:
        best = min(packed, key=lambda search: search.intervals[0])
        row["limit"] = best.limit if unit.interval_cycles == best.intervals[0] else None
        if unit.interval_cycles == unit.input_beats:
            wide = fastest(searches(topology, most=topology.tensor.n_bits), budget)
            if wide and wide.interval_cycles < unit.interval_cycles:
                row["wide"] = cell(wide)
    if all_slices:
        row["within"] = cell(fastest(packed, Budget(all_slices.luts, budget.block_rams)))
        row["smallest"] = cell(_cheapest(packed, all_slices.interval_cycles,
                                         Budget(None, budget.block_rams)))
    return row


def _beats(found: list[Search]) -> int:
    """Beats of an image on the widest bus of these."""
    widest = found[-1]
    assert widest.input_width is not None
    return sent_bits(widest.topology, widest.whole_bytes) // widest.input_width


def _cheapest(found: list[Search], cycles: int, budget: Budget) -> Accelerator | None:
    units = []
    for search in found:
        try:
            units.append(search.cheapest(cycles, budget))
        except ValueError:
            pass  # nothing is so fast on a bus of this width
    return min(units, key=lambda unit: (unit.luts, unit.block_rams), default=None)


def _bit_serial(search: Search) -> Search:
    """Leave the foldings that take one slice at a time, and one window."""
    shape = search.layers[0]
    search.options = [[option for option in options if option.folding.mmv == 1 and
                       (i > 0 or slices_together(shape, option.folding.simd) == 1)]
                      for i, options in enumerate(search.options)]
    least = max(min(option.cycles for option in options) for options in search.options)
    search.intervals = [cycles for cycles in search.intervals if cycles >= least]
    return search


def cell(unit: Accelerator | None) -> dict | None:
    """Return what is kept of a folding."""
    if unit is None:
        return None
    return {"cycles": unit.interval_cycles, "luts": unit.luts, "block_rams": unit.block_rams,
            "folding": str(unit.folding), "input_width": unit.folding.input_width}


def shown(row: dict, key: str, *numbers: str) -> list[str]:
    """Cells of a table."""
    found = row.get(key)
    return [f"{found[number]:,}" if found else "-" for number in numbers]


def line(*cells: str) -> str:
    """Row of a table."""
    return f"| {' | '.join(cells)} |"


def tables(results: dict) -> str:
    """Tables of the page: FPGAs that give the same are shown together."""
    lines = []
    for name in NETWORKS:
        if name in results:
            blocks = _together(results[name]["fpgas"])
            lines += [f"**{name}**, `{results[name]['topology']}`", "", line(*HEADINGS),
                      "|" + "---|" * len(HEADINGS)]
            lines += [_line_of(fpgas, label, row) for fpgas, rows in blocks
                      for label, row in rows.items()]
            lines += ["", *(f"- {note}" for block in blocks for note in notes(*block)), ""]
    return "\n".join([*lines, *serial_table(results)])


def _line_of(fpgas: str, label: str, row: dict) -> str:
    return line(fpgas, label, *shown(row, "fastest", "cycles", "luts", "block_rams"),
                *shown(row, "within", "cycles"), *shown(row, "smallest", "luts", "block_rams"),
                f"{row['beats']:,}", f"{row['byte_beats']:,}", *shown(row, "bytes", "cycles"))


def _together(fpgas: dict[str, dict]) -> list[tuple[str, dict]]:
    """Join the names of FPGAs that give the same rows."""
    joined: list[tuple[str, dict]] = []
    for rows in fpgas.values():
        names = ", ".join(fpga for fpga, own in fpgas.items() if own == rows)
        if (names, rows) not in joined:
            joined.append((names, rows))
    return joined


def notes(fpgas: str, rows: dict) -> list[str]:
    """Sentences on what fits, what limits, and where pruning saves nothing."""
    full, *_ = rows
    missing = [label for label, row in rows.items() if row["fastest"] is None]
    if len(missing) == len(rows):
        return [f"{fpgas}: nothing fits, whatever is pruned."]
    found = [f"{fpgas}: does not fit: {', '.join(missing)}."] if missing else []
    limits: dict[str, list[str]] = {}
    for label, row in rows.items():
        if row.get("limit") and "wide" not in row:
            limits.setdefault(row["limit"].split(" at ")[0], []).append(label)
    found += [f"{fpgas} could hold more, but no folding is faster: {limit} ({'; '.join(labels)})."
              for limit, labels in limits.items()]
    wider = {label: row["wide"] for label, row in rows.items() if "wide" in row}
    if wider:
        found.append(f"{fpgas}: the bus limits. Cycles on a wider one: " + "; ".join(
            f"{label} takes {at['cycles']:,} at {at['input_width']:,} bits"
            for label, at in wider.items()) + ".")
    if reference := rows[full]["fastest"]:
        levels = {label: row for label, row in rows.items() if label not in (full, CLASSIC)}
        for what, key, number in (("cycles in the LUTs of all slices", "within", "cycles"),
                                  ("LUTs at the cycles of all slices", "smallest", "luts")):
            without = [label for label, row in levels.items()
                       if (row[key] or reference)[number] >= reference[number]]
            if without:
                found.append(f"{fpgas}: pruning saves no {what} ({'; '.join(without)}).")
    return found


def serial_table(results: dict) -> list[str]:
    """Cycles of all slices, as the first layer was and as it is."""
    names = [name for name in NETWORKS if name in results]
    now = [next(iter(results[name]["fpgas"][DEVICE].values())) for name in names]
    return [line(f"all slices, {DEVICE}: cycles", *names), "|" + "---|" * (len(names) + 1),
            line("first layer bit serial, one window at a time",
                 *(shown(results[name]["bit serial"], DEVICE, "cycles")[0] for name in names)),
            line("as the search folds now", *(shown(row, "fastest", "cycles")[0] for row in now))]


def headline(results: dict, measured: dict) -> str:
    """Table of README: accuracy beside cycles and LUTs."""
    headings = ("network", "first layer", "test accuracy, %", "weight bits",
                *(f"fastest in {fpga}: cycles" for fpga in FPGAS),
                f"{DEVICE}, in the LUTs of 8 slices: cycles", "at the cycles of 8 slices: LUTs",
                "beats")
    lines = [line(*headings), "|" + "---|" * len(headings)]
    for name, short in (("mnist-cnn", "CNN"), ("mnist-mlp", "MLP")):
        fpgas, topologies = results[name]["fpgas"], levels(name)
        for label, (text, measured_as) in HEADLINE.items():
            facts, here = measured[name]["rows"].get(measured_as), fpgas[DEVICE][label]
            accuracy = f"{facts['mean']:.2f} ± {facts['spread']:.2f}" if facts else "not trained"
            cycles = [shown(fpgas[fpga][label], "fastest", "cycles")[0] for fpga in FPGAS]
            lines.append(line(
                short, text, accuracy, f"{topologies[label].n_weight_bits:,}", *cycles,
                *shown(here, "within", "cycles"), *shown(here, "smallest", "luts"),
                str(here["beats"])))
    return "\n".join(lines)


def main() -> None:
    """Search for what is named, or all."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or NETWORKS:
        results[name] = account(name)
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        print(name, flush=True)
    fold_again()
    write_table("account", tables(results), studies.PAGE)
    measured = json.loads(studies.RESULTS.read_text())
    write_table("account", headline(results, measured), ROOT / "README.md")


if __name__ == "__main__":
    main()
