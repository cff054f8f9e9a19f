"""Elaboration in MyHDL without reading source files again and again.

For every block and every process MyHDL calls `inspect.stack`, which finds and reads the source of each caller, though
only names and variables are used: most of the time of a conversion, and more the deeper the caller is. It also asks for
the source of a function once per instance. What is put in its place gives the same answers. MyHDL's version is pinned.
"""

import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, SimpleNamespace
from typing import Any

from myhdl import _block, _instance, _misc, _util, _Waiter


def read_sources_once() -> None:
    """Make MyHDL look at callers without their source, and at the source of a function once in a process."""
    quick = SimpleNamespace(**vars(inspect))
    quick.stack = lambda: _callers(sys._getframe(1))
    quick.getouterframes = _callers
    quick.getsource = _once(inspect.getsource)
    quick.getsourcefile = _once(inspect.getsourcefile)
    quick.getsourcelines = _once(inspect.getsourcelines)
    for module in (_block, _instance, _misc, _util, _Waiter):
        module.inspect = quick


def _callers(frame: FrameType | None) -> list[tuple[FrameType, None, None, str]]:
    """Return, of a frame and all that called it, what MyHDL reads of `inspect.FrameInfo`."""
    found = []
    while frame:
        found.append((frame, None, None, frame.f_code.co_name))
        frame = frame.f_back
    return found


def _once(look_up: Callable[[CodeType], Any]) -> Callable[[FunctionType | FrameType], Any]:
    known = lru_cache(maxsize=None)(look_up)
    return lambda asked: known(asked.f_code if isinstance(asked, FrameType) else asked.__code__)
