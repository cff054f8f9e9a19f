"""The one template of all HTML pages: text, tables and plots in, a page that loads nothing out.

No other file writes HTML. Whatever is put in is text and is escaped here: paragraphs, headings,
cells, and every string of a plot (Plotly reads some tags in its texts, and a plot's JSON stands in
a script element).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    import plotly.graph_objects as go

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto;
padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0 2em; }
th, td { padding: .3em .7em; text-align: right; }
th { border-bottom: 2px solid #444; vertical-align: bottom; font-weight: 600; }
td { border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; white-space: nowrap; }
.text { text-align: left; white-space: normal; }"""


@dataclass(frozen=True)
class Heading:
    """A heading inside a page."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table: headings, rows of cells, and for each column whether it holds text (set left)."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: Sequence[bool]


Part = Union[str, Heading, Grid, "go.Figure"]
"""A part of a page; a string is a paragraph."""


def page(title: str, parts: Sequence[Part]) -> str:
    """Return a self-contained page: the title, then the parts in order."""
    body = "\n".join(map(_part, parts))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<style>{STYLE}</style>{_plotly(parts)}</head><body>
<h1>{escape(title)}</h1>
{body}
</body></html>
"""


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    if isinstance(part, Heading):
        return f"<h2>{escape(part.text)}</h2>"
    return _table(part) if isinstance(part, Grid) else _plot(part)


def _table(grid: Grid) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f'<{tag}{" class=text" if is_text else ""}>{escape(cell)}</{tag}>'
            for cell, is_text in zip(cells, grid.is_text, strict=True)) + "</tr>"

    body = "\n".join(row("td", cells) for cells in grid.rows)
    return f"<table>\n{row('th', grid.headings)}\n{body}\n</table>"


def _plotly(parts: Sequence[Part]) -> str:
    """Return Plotly's script, once for all plots of a page."""
    if all(isinstance(part, (str, Heading, Grid)) for part in parts):
        return ""
    from plotly.offline import get_plotlyjs  # imported here, since that takes a third of a second

    return f"<script>{get_plotlyjs()}</script>"


def _plot(figure: "go.Figure") -> str:
    from plotly.io import to_html

    # Plotly writes <, > and / of the JSON as \\u003c and so on, so that no text ends the script.
    return to_html(_escaped(json.loads(figure.to_json())), full_html=False, validate=False,
                   include_plotlyjs=False)


def _escaped(value: Any) -> Any:
    """Escape every string, at any depth. Plotly does not know the entity of a quotation mark."""
    if isinstance(value, str):
        return escape(value, quote=False)
    if isinstance(value, list):
        return [_escaped(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _escaped(entry) for name, entry in value.items()}
    return value
