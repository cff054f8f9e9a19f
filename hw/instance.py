"""Verilog hierarchy from MyHDL, which by itself would flatten everything into one module.

A block whose function carries a `verilog_code` string converts to that text. So a block that only wraps another one
simulates like it, and converts to an instantiation of the module that the other one becomes. While converting, what
is inside is not built at all: `inside_is_elsewhere` says so, and the wrapper returns `placeholder` instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from myhdl import block

_converting: ContextVar[bool] = ContextVar("converting", default=False)


@contextmanager
def converting() -> Iterator[None]:
    """Within this context modules inside others are instantiated, not built."""
    token = _converting.set(True)
    try:
        yield
    finally:
        _converting.reset(token)


def inside_is_elsewhere() -> bool:
    """Tell whether a module is being converted, so that those inside it have files of their own."""
    return _converting.get()


@block
def placeholder() -> list[Any]:
    """Stand where a module is instantiated."""
    return []


def instantiation(module: str, instance: str, inputs: dict, outputs: dict) -> str:
    """Return the text that instantiates `module`, and tell the converter how its signals are used.

    Parameters
    ----------
    module, instance : names in Verilog
    inputs, outputs : signals by port name; every signal must be an argument of the wrapping block, of that name
    """
    for signal in inputs.values():
        signal.read = True
        signal._markUsed()  # else a signal between two instances alone would not be declared; MyHDL is pinned
    for signal in outputs.values():
        signal.driven = "wire"
        signal._markUsed()
    ports = ",\n".join(f"    .{port}(${port})" for port in (*inputs, *outputs))
    return f"{module} {instance} (\n{ports}\n);"
