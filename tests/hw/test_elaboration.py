"""Elaboration: what MyHDL is told of callers and sources."""

import inspect

from myhdl import _block, block

import cbnn.hw.stream  # noqa: F401  which makes MyHDL read sources once


def test_callers_are_those_of_inspect():
    def inner():
        return _block.inspect.stack(), inspect.stack()

    mine, theirs = inner()
    assert [(entry[0], entry[3]) for entry in mine] == [(entry[0], entry[3]) for entry in theirs]
    assert mine[0][3] == "inner"


def test_sources_are_those_of_inspect():
    def circuit():
        return block

    frame = inspect.currentframe()
    for look_up in ("getsource", "getsourcefile", "getsourcelines"):
        for asked in (circuit, frame):
            assert getattr(_block.inspect, look_up)(asked) == getattr(inspect, look_up)(asked)
