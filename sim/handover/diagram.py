"""A block diagram as SVG: a row per layer, a box per kernel, and on every link its width and beats."""

import re
from html import escape

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.classify import Classify
from cbnn.hw.frame_guard import FrameGuard
from cbnn.hw.mvtu.mvtu import Mvtu
from cbnn.hw.result_marks import ResultMarks
from cbnn.hw.stream import Kernel, Port

BOX, GAP, HEIGHT, ROW, MARGIN = 168, 92, 74, 118, 24
"""Pixels: width of a box, space for a link, height of a box, of a row, and around all."""
STYLE = ("text{font:12px system-ui,sans-serif;fill:#1b1f24}.title{font-weight:600}.small{font-size:11px;fill:#57606a}"
         "rect{fill:#f6f8fa;stroke:#8c959f}.matrix{fill:#ddf4ff}.slowest{stroke:#bc4c00;stroke-width:2.5}"
         "path{fill:none;stroke:#57606a;marker-end:url(#tip)}")
KINDS = {"SlidingWindow": "sliding window", "WidthConverter": "width converter", "ReplayBuffer": "replay buffer",
         "Mvtu": "matrix unit", "MaxPool": "max pool", "Fifo": "FIFO", "RegisterSlice": "register slice",
         "Classify": "scores and class", "SliceSelect": "slice selection", "FrameGuard": "frame guard",
         "ResultMarks": "result marks"}


def block_diagram(accelerator: Accelerator) -> str:
    """Return the diagram; cycles are per image, LUTs estimated."""
    rows = _rows(accelerator)
    title = f"{accelerator.name}: {accelerator.topology}"
    width = 2 * MARGIN + max(max(map(len, rows)) * (BOX + GAP), 8 * len(title))
    height = 2 * MARGIN + 12 + len(rows) * ROW
    shapes = [f'<text class="title" x="{MARGIN}" y="{MARGIN}">{escape(title)}</text>',
              f'<text class="small" x="{MARGIN}" y="{MARGIN + 16}">Cycles per image; orange: the slowest. Blue: matrix '
              "units, which hold the weights. Bits of a beat and beats per image on every link. LUTs are estimated."
              "</text>"]
    for y, row in enumerate(rows):
        for x, part in enumerate(row):
            shapes += _box(accelerator, part, *_corner(x, y))
            if x + 1 < len(row):
                shapes += _link(x, y, _given(part, accelerator))
            elif y + 1 < len(rows):
                shapes += _turn(x, y, _given(part, accelerator))
    body = "\n".join(shapes)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">\n<style>{STYLE}</style>\n'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#57606a;stroke:none"/></marker></defs>\n'
            f'<rect width="{width}" height="{height}" style="fill:#fff;stroke:none"/>\n{body}\n</svg>\n')


def short_name(accelerator: Accelerator, part: FrameGuard | Kernel | ResultMarks) -> str:
    """Name of a part without the accelerator's."""
    return part.name.removeprefix(f"{accelerator.name}_")


def count(n: float, thing: str) -> str:
    """Return a number of things in words: ``1 beat``, ``5 beats``."""
    return f"{int(n) if n == int(n) else n:,} {thing}{'' if n == 1 else 's'}"


def _rows(accelerator: Accelerator) -> list[list[FrameGuard | Kernel | ResultMarks]]:
    """Parts of a row: what comes before the layers, each layer, what comes after them."""
    rows: dict[str, list] = {}
    for part in accelerator.parts:
        layer = re.search(r"\d+", short_name(accelerator, part))
        key = layer[0] if layer else "before" if rows.keys() <= {"before"} else "after"
        rows.setdefault(key, []).append(part)
    return list(rows.values())


def _corner(x: int, y: int) -> tuple[int, int]:
    return MARGIN + x * (BOX + GAP), MARGIN + 32 + y * ROW


def _given(part: FrameGuard | Kernel | ResultMarks, accelerator: Accelerator) -> Port:
    if isinstance(part, Kernel):
        return part.m_axis
    return accelerator.s_axis if isinstance(part, FrameGuard) else accelerator.m_axis


def _box(accelerator: Accelerator, part: FrameGuard | Kernel | ResultMarks, x: int, y: int) -> list[str]:
    styles = ["matrix"] if isinstance(part, Mvtu) else []
    lines = ["class only" if isinstance(part, Classify) and part.class_only else KINDS[type(part).__name__]]
    if isinstance(part, Mvtu):
        lines[0] += f", PE {part.pe}, SIMD {part.simd}"
    if isinstance(part, Kernel):
        if part.interval_cycles == accelerator.interval_cycles:
            styles.append("slowest")
        memory = f", holds {part.schedule.capacity:,}" if part.schedule.capacity else ""
        lines.append(f"{part.interval_cycles:,} cycles{memory}")
    lines.append(f"{part.luts:,} LUTs" + (f", {count(part.block_rams, 'block RAM')}" if part.block_rams else ""))
    text = [f'<text class="small" x="{x + 8}" y="{y + 34 + 15 * i}">{escape(line)}</text>'
            for i, line in enumerate(lines)]
    return [f'<rect class="{" ".join(styles)}" x="{x}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="5"/>',
            f'<text class="title" x="{x + 8}" y="{y + 18}">{escape(short_name(accelerator, part))}</text>', *text]


def _link(x: int, y: int, port: Port) -> list[str]:
    left, top = _corner(x, y)
    start, middle = left + BOX, top + HEIGHT // 2
    return [f'<path d="M{start} {middle}H{start + GAP}"/>', *_labels(start + 6, middle, port)]


def _turn(x: int, y: int, port: Port) -> list[str]:
    """Draw a link from the end of a row to the begin of the next."""
    left, top = _corner(x, y)
    first, below = _corner(0, y + 1)
    start, middle, lane = left + BOX, top + HEIGHT // 2, top + HEIGHT + (ROW - HEIGHT) // 2
    return [f'<path d="M{start} {middle}H{start + GAP - 12}V{lane}H{first - 12}V{below + HEIGHT // 2}H{first}"/>',
            *_labels(start + 6, middle, port)]


def _labels(x: int, y: int, port: Port) -> list[str]:
    return [f'<text class="small" x="{x}" y="{y - 6}">{count(port.width, "bit")}</text>',
            f'<text class="small" x="{x}" y="{y + 16}">{count(port.beats, "beat")}</text>']
