"""Stages of a build: what a tool made is kept until the build is finished, so that a killed one goes on there."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cbnn.model.files import OwnFolder
from cbnn.model.processes import ToolError, vanishing
from cbnn.sim.synth.synthesis import run_tool


class Stages:
    """Runs of tools whose results are kept in a folder, by everything that went into them.

    A key is the digest of the tool's version, its words, and the files that it reads. So whatever
    makes a difference begins anew, and nothing else does.

    Parameters
    ----------
    folder : is new, or holds what an earlier run kept

    Raises
    ------
    ValueError
        When it holds anything else.
    """

    def __init__(self, folder: Path) -> None:
        self._own = OwnFolder(folder)
        self._own.check()
        self._versions: dict[str, str] = {}

    def run(self, tool: str, words: Sequence[str], folder: Path, reads: Sequence[str], writes: Sequence[str],
            log: str) -> None:
        """Run a tool as `run_tool` does, or put what it wrote to `writes` and `log` before into `folder`."""
        if tool not in self._versions:
            self._versions[tool] = run_tool(tool, ["-V"], folder, log)
        digest = hashlib.sha256(json.dumps([tool, self._versions[tool], *words]).encode())
        for name in reads:
            digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
        key, names = digest.hexdigest()[:32], [*writes, log]
        kept = self._own.path / key
        if not (kept / log).exists():  # it is the last that is kept
            run_tool(tool, list(words), folder, log)
            for name in names:
                self._own.write(f"{key}/{name}", (folder / name).read_bytes())
        else:
            for name in names:
                (folder / name).write_bytes((kept / name).read_bytes())


@contextmanager
def unfinished(folder: Path) -> Iterator[Stages]:
    """Give the stages of what is to become `folder`; they stay only where this process is stopped or killed.

    Raises
    ------
    ValueError
        When `folder`, or the one of the stages, ``<folder>.unfinished``, holds what is not ours.
    """
    OwnFolder(folder).check()  # before the work
    folder = Path(os.path.normpath(folder.absolute()))
    work = folder.with_name(f"{folder.name}.unfinished")
    stages = Stages(work)
    try:
        yield stages
    except (ToolError, ValueError):
        with vanishing(work):
            raise
    with vanishing(work):
        pass
