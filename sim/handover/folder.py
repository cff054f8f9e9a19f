"""Writes the folder for a colleague, whole or not at all."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.registers import Register, c_defines, registers
from cbnn.hw.verilog import MANIFEST, manifest, write_verilog
from cbnn.model.files import OwnFolder, folder_written
from cbnn.model.network import Network
from cbnn.sim.handover.cores import TLAST_MEANING, fusesoc, ip_xact, litex, top_ports
from cbnn.sim.handover.diagram import block_diagram
from cbnn.sim.handover.host import c_packer, constants, python_packer, template
from cbnn.sim.handover.readme import readme
from cbnn.sim.handover.vectors import MIN_VECTORS, vectors
from cbnn.sim.handover.zynq import zynq_files
from cbnn.sim.predict.cycles import predict
from cbnn.sim.prove.verify import icarus_seconds

BUILD = "sim/build"
"""Where the test bench builds; what lies there stays when the folder is written again."""
MAX_VECTORS = 16
BENCH_S = 10
"""Seconds that Icarus is to take for the images, which the bench plays twice and more."""


def bench_images(accelerator: Accelerator) -> int:
    """Return how many images the test bench gets: as many as Icarus plays in some seconds, 4 to 16."""
    return max(MIN_VECTORS, min(MAX_VECTORS, int(MAX_VECTORS * BENCH_S / icarus_seconds(accelerator, MAX_VECTORS))))


def facts(network: Network, accelerator: Accelerator, table: Sequence[Register]) -> dict:
    """Return what the manifest of the folder says beyond that of the Verilog."""
    known = constants(accelerator)
    return {
        "clock": {"port": "aclk"}, "reset": {"port": "aresetn", "active": "low", "synchronous": True},
        "parameters": {"USE_TLAST": {"default": 1, "meaning": TLAST_MEANING}},
        "ports": [{"name": port.name, "direction": "input" if port.is_input else "output", "bits": port.width}
                  for port in top_ports(accelerator, table)],
        "classes": known["n_classes"],
        "pixel": {"max": known["max_pixel"], "max_in_training": network.max_pixel, "table": known["table"]},
        "packing": {"slices": known["slices"], "slices_together": known["together"], "by_pixel": known["by_pixel"]},
        "bytes": {"s_axis_beat": known["beat_bytes"], "image": known["beats"] * known["beat_bytes"],
                  "m_axis_beat": known["result_bytes"], "result": known["result_beats"] * known["result_bytes"]},
        "luts_estimate": accelerator.luts, "block_rams_estimate": accelerator.block_rams,
        "beside_kernels": [{"module": part.name, "luts_estimate": part.luts}
                           for part in (accelerator.guard, accelerator.marks)],
    }


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
    OwnFolder(folder, [BUILD]).check()  # before the work
    played, name = vectors(network, accelerator, images), accelerator.name
    predicted = asdict(predict(accelerator))
    table = registers(accelerator, predicted) if control else ()
    on_zynq = zynq_files(accelerator, control)
    with folder_written(folder, inner=[BUILD]) as fresh:
        for room in ("rtl", "sim", "host", *(["zynq"] if on_zynq else [])):
            (fresh / room).mkdir()
        verilog, mems = write_verilog(accelerator, fresh / "rtl", table)
        sources, mems = [f"rtl/{file}" for file in verilog], [f"rtl/{file}" for file in mems]
        texts = {
            MANIFEST: json.dumps(manifest(accelerator, sources, mems, predicted, table)
                                 | facts(network, accelerator, table) | {"test_images": source}, indent=2) + "\n",
            "README.md": readme(network, accelerator, played, source, table),
            "diagram.svg": block_diagram(accelerator),
            "sim/Makefile": template("Makefile", {"top": name}),
            "sim/test_stream.py": template("test_stream.py", {}),
            "sim/vectors.json": json.dumps(played.content()) + "\n",
            "host/pack.py": python_packer(accelerator),
            f"host/{name}_pack.h": c_packer(accelerator),
            f"{name}.core": fusesoc(accelerator, sources, mems),
            "component.xml": ip_xact(accelerator, sources, mems, table),
            f"litex_{name}.py": litex(accelerator, table),
            **on_zynq,
        }
        if control:
            texts["host/registers.h"] = c_defines(table)
        for file, text in texts.items():
            (fresh / file).write_text(text)
    return folder / "README.md"
