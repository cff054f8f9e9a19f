"""Timeline: what every kernel does, and how full every memory is, as a trace for Perfetto and as a picture.

The trace is Chrome's JSON (open it in ui.perfetto.dev or chrome://tracing); a cycle is drawn as a microsecond.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbnn.model.files import write_atomically
from cbnn.sim.predict.cycles import slowest_kernel
from cbnn.sim.predict.trace import Trace
from cbnn.sim.report.page import page

if TYPE_CHECKING:
    import plotly.graph_objects as go

STATES = ("starved", "blocked", "busy")
"""Names of `trace.STARVED`, `BLOCKED` and `BUSY`."""
COLOURS = np.array([(232, 232, 232), (214, 69, 65), (59, 111, 182)])
"""Of the states, red, green and blue."""
COLUMNS = 600
"""Columns of the picture at most; each shows the mean of its cycles."""
RUN_CYCLES = 4000
"""Runs of a state per kernel in the trace at most; cycles are drawn in groups to keep to it."""


def write_trace(trace: Trace, path: Path) -> None:
    """Write the trace, atomically: a row per kernel with its states, and a counter per memory."""
    events: list[dict] = [{"ph": "M", "pid": 0, "name": "process_name", "args": {"name": "cycles as microseconds"}}]
    for i, kernel in enumerate(trace.kernels):
        events.append({"ph": "M", "pid": 0, "tid": i, "name": "thread_name", "args": {"name": kernel.name}})
        starts, states, ends = _runs(trace.states(i))
        events += [{"ph": "X", "pid": 0, "tid": i, "name": STATES[state], "ts": int(start), "dur": int(end - start)}
                   for start, state, end in zip(starts, states, ends, strict=True)]
        if kernel.schedule.capacity:
            cycles, levels = trace.held(i)
            kept = slice(None, None, -(-len(cycles) // RUN_CYCLES))
            events += [{"ph": "C", "pid": 0, "name": f"{kernel.name} holds", "ts": int(cycle), "args": {"": int(level)}}
                       for cycle, level in zip(cycles[kept], levels[kept], strict=True)]
    write_atomically(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}).encode())


def _runs(states: NDArray[np.uint8]) -> tuple[NDArray, NDArray, NDArray]:
    """Return starts, states and ends of runs of a state.

    Where there are too many, cycles are grouped, and a group has the state of most of its cycles.
    """
    group = 1
    while True:
        n_groups = -(-len(states) // group)
        padded = np.pad(states, (0, n_groups * group - len(states)), mode="edge").reshape(n_groups, group)
        common = np.stack([(padded == state).sum(axis=1) for state in range(len(STATES))]).argmax(axis=0)
        starts = np.flatnonzero(np.diff(common, prepend=-1))
        if len(starts) <= RUN_CYCLES:
            return starts * group, common[starts], np.minimum(np.append(starts[1:], n_groups) * group, len(states))
        group *= 2


def write_timeline(trace: Trace, path: Path) -> None:
    """Write the picture as a page of its own that loads nothing from anywhere."""
    facts = (f"{trace.n_simulated} images, {int(trace.taken(-1)[-1]) + 1:,} cycles. Blue: busy, moves "
             "a beat; red: blocked, offers a beat that is not taken; grey: starved, waits for a beat. "
             f"Slowest kernel: {slowest_kernel(trace.kernels).name}.")
    text = page("Timeline", [facts, _states_figure(trace), _levels_figure(trace)])
    write_atomically(path, text.encode())


def _columns(n_cycles: int) -> NDArray[np.int64]:
    """Where the columns of the picture start."""
    return np.linspace(0, n_cycles, min(COLUMNS, n_cycles) + 1).astype(np.int64)[:-1]


def _states_figure(trace: Trace) -> "go.Figure":
    import plotly.graph_objects as go

    rows = []
    for i in range(len(trace.kernels)):
        states = trace.states(i)
        starts = _columns(len(states))
        widths = np.diff(np.append(starts, len(states)))
        shares = [np.add.reduceat((states == state).astype(np.int64), starts) / widths for state in range(len(STATES))]
        rows.append(np.stack(shares, axis=1) @ COLOURS)
    step = len(states) / len(starts)
    names = [kernel.name for kernel in trace.kernels]
    figure = go.Figure(go.Image(z=np.array(rows), x0=0, dx=step, hoverinfo="x"))
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, scaleanchor=False)
    figure.update_xaxes(title="cycle", constrain="domain", hoverformat=",.0f")
    figure.update_layout(title="What every kernel does", template="plotly_white", height=140 + 20 * len(names),
                         margin={"l": 190})
    return figure


def _levels_figure(trace: Trace) -> "go.Figure":
    import plotly.graph_objects as go

    n_cycles = int(trace.taken(-1)[-1]) + 1
    starts = _columns(n_cycles)
    names, rows = [], []
    for i, kernel in enumerate(trace.kernels):
        if size := kernel.schedule.capacity:
            cycles, levels = trace.held(i)
            at = np.searchsorted(cycles, starts, "right") - 1
            rows.append(np.where(at >= 0, levels[at], 0) / size)
            names.append(f"{kernel.name} ({levels.max():,} of {size:,})")
    figure = go.Figure(go.Heatmap(z=np.array(rows), x=starts, y=names, zmin=0, zmax=1, colorscale="Blues",
                                  colorbar={"title": "full", "tickformat": ".0%"}))
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="cycle")
    figure.update_layout(title="How full every memory is (most that it held, and its size)", template="plotly_white",
                         height=160 + 24 * len(names), margin={"l": 230})
    return figure
