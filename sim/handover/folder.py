"""Writes the folder for a colleague, whole or not at all."""

import json
from dataclasses import asdict
from pathlib import Path

from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.registers import c_defines, registers
from cbnn.hw.verilog import MANIFEST, manifest, write_verilog
from cbnn.model.files import folder_written
from cbnn.model.network import Network
from cbnn.sim.handover.cores import fusesoc, ip_xact, litex
from cbnn.sim.handover.diagram import block_diagram
from cbnn.sim.handover.host import c_packer, python_packer, template
from cbnn.sim.handover.readme import readme
from cbnn.sim.handover.vectors import MIN_VECTORS, vectors
from cbnn.sim.predict.cycles import predict
from cbnn.sim.prove.verify import icarus_seconds

BUILD = "sim/build"
"""Where the test bench builds; what lies there stays when the folder is written again."""
MAX_VECTORS = 16
BENCH_S = 5
"""Seconds that Icarus is to take for the images, which the bench plays twice and more."""


def bench_images(accelerator: Accelerator) -> int:
    """Return how many images the test bench gets: as many as Icarus plays in some seconds, 4 to 16."""
    return max(MIN_VECTORS, min(MAX_VECTORS, int(MAX_VECTORS * BENCH_S / icarus_seconds(accelerator, MAX_VECTORS))))


def hand_over(network: Network, accelerator: Accelerator, images: NDArray, source: str, folder: Path, *,
              control: bool = False) -> Path:
    """Write Verilog, test bench, packers and descriptions to `folder`; return its README.

    The same accelerator and images give the same bytes. A folder that an earlier call wrote is
    replaced.

    Parameters
    ----------
    images : integer array (N, height, width, colours) for the test bench, N at least 4
    source : what they are, in words
    control : whether a host reads registers over AXI4-Lite, see `cbnn.hw.registers`

    Raises
    ------
    ValueError
        When the images do not suit, or `folder` holds anything that cbnn did not write.
    """
    played, name = vectors(network, accelerator, images), accelerator.name
    predicted = asdict(predict(accelerator))
    table = registers(accelerator, predicted) if control else ()
    with folder_written(folder, inner=[BUILD]) as fresh:
        for room in ("rtl", "sim", "host"):
            (fresh / room).mkdir()
        verilog, mems = write_verilog(accelerator, fresh / "rtl", table)
        sources, mems = [f"rtl/{file}" for file in verilog], [f"rtl/{file}" for file in mems]
        texts = {
            MANIFEST: json.dumps(manifest(accelerator, sources, mems, predicted, table), indent=2) + "\n",
            "README.md": readme(network, accelerator, played, source, table),
            "diagram.svg": block_diagram(accelerator),
            "sim/Makefile": template("Makefile", {"top": name}),
            "sim/test_stream.py": template("test_stream.py", {}),
            "sim/vectors.json": json.dumps(played.content(), indent=1) + "\n",
            "host/pack.py": python_packer(accelerator),
            f"host/{name}_pack.h": c_packer(accelerator),
            f"{name}.core": fusesoc(accelerator, sources, mems),
            "component.xml": ip_xact(accelerator, sources, mems, table),
            f"litex_{name}.py": litex(accelerator, table),
        }
        if control:
            texts["host/registers.h"] = c_defines(table)
        for file, text in texts.items():
            (fresh / file).write_text(text)
    return folder / "README.md"
