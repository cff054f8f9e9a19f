"""The networks that come with the package."""

from importlib.resources import files
from pathlib import Path

from cbnn.model.data import digits
from cbnn.model.exchange import storage
from cbnn.model.network import Network


def shipped() -> dict[str, Path]:
    """Return the networks that come with the package, by name."""
    folder = Path(str(files("cbnn.model"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


def shipped_digits() -> list[Network]:
    """Return the digits networks that come with the package, all slices first."""
    return [storage.load(shipped()[f"digits-{n}"]) for n in range(digits.INPUT_BITS, 0, -1)]
