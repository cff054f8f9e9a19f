"""Verilog that is to be simulated: where it is, and how it is clocked."""

from dataclasses import dataclass
from pathlib import Path

from cbnn.hw.verilog import FILE_LIST


@dataclass(frozen=True)
class Design:
    """A module and its sources.

    Attributes
    ----------
    folder : of the sources and .mem files; simulation only reads it
    top : name of the module
    sources : names of its files and of those that it needs
    clock, reset, reset_level : its ports, and the level at which it is reset
    """

    folder: Path
    top: str
    sources: tuple[str, ...]
    clock: str = "aclk"
    reset: str = "aresetn"
    reset_level: int = 0

    @classmethod
    def generated(cls, folder: Path, top: str) -> "Design":
        """Return what `cbnn.hw.verilog.generate` wrote."""
        return cls(folder, top, tuple((folder / FILE_LIST).read_text().split()))
