"""From kernels and links to the numbers that `beat_times` reads.

Every kernel takes one link and gives one. A replay buffer becomes one kernel with the matrix unit
after it, and the link between them is not simulated.
"""

from collections.abc import Sequence

import numpy as np

from cbnn.hw.stream import OUTSIDE, Kernel, Link, Schedule
from cbnn.sim.predict.beat_times import RULE, Kernels, Numbers


def ends(links: Sequence[Link]) -> tuple[dict[int, int], dict[int, int]]:
    """Return the number of the link that every kernel takes, and of the one that it gives.

    Kernels go by their number. `OUTSIDE` takes the link that leaves, and gives the one that enters.
    """
    return ({link.sink: i for i, link in enumerate(links)},
            {link.source: i for i, link in enumerate(links)})


def kernel_rules(kernels: Sequence[Kernel], schedules: Sequence[Schedule],
                 links: Sequence[Link]) -> Kernels:
    """Return the rules of all kernels that are simulated, and the tables that they look up.

    `schedules` are those of the kernels, which take time to make.

    Raises
    ------
    ValueError
        When a kernel has several ports, or no fitting matrix unit follows a replay buffer.
    """
    for kernel in kernels:
        if len(kernel.inputs) != 1 or len(kernel.outputs) != 1:
            raise ValueError(f"{kernel.name} takes {len(kernel.inputs)} streams and gives "
                             f"{len(kernel.outputs)}; the dataflow simulation supports one of each")
    takes, gives = ends(links)
    rules: list[dict[str, int]] = []
    tables: list[Numbers] = [np.zeros(0, np.int64)]
    units = {links[gives[i]].sink for i, schedule in enumerate(schedules)
             if schedule.kind == Schedule.Kind.REPLAY}
    for i, (kernel, schedule) in enumerate(zip(kernels, schedules, strict=True)):
        if i in units:
            continue  # it is part of the replay buffer before it
        rule = {"kind": int(schedule.kind), "takes": takes[i], "gives": gives[i],
                "capacity": schedule.capacity}
        if schedule.kind in (Schedule.Kind.GATHER, Schedule.Kind.HAND_OUT):
            rule["ratio"], = schedule.numbers
        elif schedule.kind == Schedule.Kind.EACH:
            rule["pipeline"], = schedule.numbers
            rule |= {"table": sum(map(len, tables)), "beats": len(schedule.table)}
            tables.append(np.asarray(schedule.table, np.int64))
        elif schedule.kind == Schedule.Kind.REPLAY:
            unit = links[gives[i]].sink
            rule |= _folds(kernel, schedule, None if unit == OUTSIDE else schedules[unit])
            rule["gives"] = gives[unit]
        elif schedule.kind == Schedule.Kind.WINDOWS:
            pipeline, _, beats, n_rows = schedule.numbers
            freed, needed = np.split(np.asarray(schedule.table, np.int64), [n_rows])
            rule |= {"pipeline": pipeline, "beats": beats, "windows": len(needed), "frees": n_rows,
                     "table": sum(map(len, tables))}
            tables += [needed, freed]
        rules.append(rule)
    assert RULE.names
    rows = [tuple(rule.get(name, 0) for name in RULE.names) for rule in rules]
    return Kernels(np.array(rows, RULE), np.concatenate(tables))


def _folds(buffer: Kernel, schedule: Schedule, unit: Schedule | None) -> dict[str, int]:
    """Return the numbers of a replay buffer and the matrix unit after it."""
    _, vector, folds = schedule.numbers
    if unit is None or unit.table != (0,) * (vector - 1) + (1,):
        raise ValueError(f"{buffer.name} replays vectors of {vector} words; a matrix unit of "
                         f"{vector} words per vector must follow")
    pipeline, = unit.numbers
    return {"pipeline": pipeline, "vector": vector, "folds": folds,
            "frees": buffer.s_axis.beats // vector}
