"""The verb that loads a network into an accelerator that is there already."""

from pathlib import Path
from typing import Annotated

import typer

from cbnn.model.files import check_file, read_bounded, visible, write_atomically
from cbnn.sim.command.options import ModelArgument, OutOption, load_model
from cbnn.sim.command.screen import tell
from cbnn.sim.command.verbs import next_step, verb
from cbnn.sim.handover import loading


@verb("load", "cbnn load retrained.npz --folder digits --out retrained.load")
def load_command(
        model: ModelArgument,
        folder: Annotated[Path, typer.Option(help="Folder that cbnn generate --control --writable wrote.")],
        out: OutOption) -> None:
    """Write what a host writes over AXI4-Lite to run this network, without a new bitstream.

    The network must have the topology of the one that the folder was generated from. The file has a
    register's offset and a word per line; the folder's README.md shows how a host plays it.
    """
    check_file(out)
    if out.exists() and not read_bounded(out, loading.MAX_BYTES).startswith(loading.BEGIN):
        raise ValueError(f"{out} is there already, and is no file of cbnn load")
    pairs = loading.writes(load_model(model), folder)
    write_atomically(out, loading.text(pairs).encode())
    print(visible(out))
    tell(f"{len(pairs):,} writes")
    next_step("evaluate", model)
