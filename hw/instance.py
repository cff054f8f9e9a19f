"""Verilog hierarchy from MyHDL, which by itself would flatten everything into one module.

A block whose function carries a `verilog_code` string converts to that text. So `instance` simulates like the
circuit that it is given, and converts to an instantiation of the module that the circuit becomes. While a module is
being converted, the circuits inside it are not built at all: each has a file of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import signature
from typing import Any, NamedTuple

from myhdl import SignalType, block

_converting: ContextVar[bool] = ContextVar("converting", default=False)


@contextmanager
def converting() -> Iterator[None]:
    """Within this context circuits inside others are instantiated, not built."""
    token = _converting.set(True)
    try:
        yield
    finally:
        _converting.reset(token)


class Place(NamedTuple):
    """Where a circuit stands in Verilog.

    Attributes
    ----------
    module, name : of the circuit, and of this instance of it
    kept : whether synthesis is to keep the boundary of this instance
    """

    module: str
    name: str
    kept: bool = False


@block
def instance(place, circuit, *arguments):
    """Instantiate `circuit(*arguments)` as a module of its own.

    Those of its arguments that are signals become ports, named as the circuit names them. The last of them is its
    output, the others are inputs.
    """
    named = zip(signature(circuit.func).parameters, arguments, strict=True)
    ports = {port: signal for port, signal in named if isinstance(signal, SignalType)}
    *inputs, output = ports.values()
    for signal in inputs:
        signal.read = True
    output.driven = "wire"
    for signal in ports.values():
        signal._markUsed()  # else one that only joins two instances would not be declared; MyHDL is pinned
    attribute = "(* keep_hierarchy *)\n" if place.kept else ""
    connections = ",\n".join(f"    .{port}(${port})" for port in ports)
    instance.verilog_code = f"{attribute}{place.module} {place.name} (\n{connections}\n);"
    inside = placeholder() if _converting.get() else circuit(*arguments)
    # MyHDL looks up `$port` among the local variables of this function.
    inside.callinfo.symdict.update(ports)
    return inside


@block
def placeholder() -> list[Any]:
    """Stand where a module is instantiated."""
    return []
