"""Damaged and hostile files of every kind that is read: each gives what is in it, or one sentence.

Hypothesis draws mutations of good files. No other exception comes, none takes 2 s of the processor
or 500 MB, and nothing is written. CBNN_MUTATIONS says how many of each kind are drawn.
"""

import gzip
import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from cbnn.model.network import random_network
from cbnn.model.topology import Topology

N_MUTATIONS = int(os.environ.get("CBNN_MUTATIONS", "200"))
MAX_SECONDS, MAX_BYTES = 2, 500 << 20
TOPOLOGY = Topology.parse("5C3-MP2-6FC-4FC", (6, 6, 1), 4)
NETWORK = random_network(TOPOLOGY, 1)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([0, -1, 1 << 31, 1 << 63, 10**30, 1e308, "", "../x", "\ud800", "\n", "x" * 999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=9)
NUMBERS = [struct.pack(form, value) for form in ("<i", ">i", "<q", "<H") for value in (0, 1, -1, 1 << 14, 10**9)
           if form != "<H" or 0 <= value < 1 << 16]


class Kind(NamedTuple):
    """A kind of file: its name, good contents, and what reads it."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


# How contents are changed


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes changed, cut out, doubled, put in; numbers replaced by ones that are out of range."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, n = draw(st.integers(0, len(changed))), draw(st.integers(1, 64))
        how = draw(st.sampled_from(["flip", "flip", "number", "cut", "double", "insert", "end"]))
        if how == "flip" and at < len(changed):
            changed[at] ^= draw(st.integers(1, 255))
        elif how == "number":
            number = draw(st.sampled_from(NUMBERS))
            changed[at : at + len(number)] = number
        elif how == "cut":
            del changed[at : at + n]
        elif how == "double":
            changed[at:at] = changed[at : at + n]
        elif how == "insert":
            changed[at:at] = draw(st.binary(max_size=9))
        elif how == "end":
            del changed[at:]
    return bytes(changed)


@st.composite
def other_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON with a value, a key or a part of it replaced."""
    whole = json.loads(content)

    def change(node: object, depth: int) -> object:
        inner = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not inner or depth == 0:
            return draw(JSON_VALUES)
        key = draw(st.sampled_from(inner))
        if isinstance(node, dict) and draw(st.integers(0, 5)) == 0:
            return {draw(st.text(max_size=9)) if k == key else k: v for k, v in node.items()}
        if draw(st.integers(0, 5)) == 0:
            return {k: v for k, v in node.items() if k != key} if isinstance(node, dict) else node[:-1]
        changed = dict(node) if isinstance(node, dict) else list(node)
        changed[key] = change(node[key], depth - 1)
        return changed

    text = json.dumps(change(whole, draw(st.integers(0, 4))))
    return text.encode(errors="surrogatepass")


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    content = draw(st.sampled_from(seeds))
    if content[:1] in b"{[" and draw(st.booleans()):
        return draw(other_json(content))
    if content[:2] == b"\x1f\x8b" and draw(st.booleans()):  # what is packed is changed, not the packing
        return gzip.compress(draw(damaged(gzip.decompress(content))), 1)
    return draw(damaged(content))
