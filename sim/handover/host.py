"""Packers for a host: images to bytes of `s_axis`, bytes of `m_axis` to scores and class, in Python and in C.

Both go through the bits of an image in the order of the stream, which is nested loops: of rows, columns, groups of
slices, colours and the slices of a group, see `cbnn.hw.input_stream.input_order`.
"""

from importlib.resources import files
from string import Template
from typing import Any

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.folding import takes_pixels
from cbnn.hw.input_stream import slices_on_bus, slices_together


def constants(accelerator: Accelerator) -> dict[str, Any]:
    """Return what the packers must know of an accelerator, by the names in their templates."""
    network, topology, layout = accelerator.network, accelerator.topology, accelerator.classify
    assert network is not None
    height, width, colours = topology.in_shape
    slices = slices_on_bus(accelerator)
    table = network.pixel_table
    return {
        "name": accelerator.name, "NAME": accelerator.name.upper(), "topology": str(topology),
        "height": height, "width": width, "colours": colours,
        "max_pixel": network.n_pixel_values - 1, "table": None if table is None else table.tolist(),
        "slices": list(slices), "together": slices_together(accelerator), "by_pixel": takes_pixels(topology),
        "beats": accelerator.input_beats, "beat_bits": accelerator.s_axis.width,
        "beat_bytes": accelerator.s_axis.bus_width // 8,
        "result_beats": accelerator.m_axis.beats, "result_bytes": accelerator.m_axis.bus_width // 8,
        "scores_per_beat": layout.n_scores, "score_bytes": layout.lane // 8, "class_bytes": layout.class_lane // 8,
        "n_classes": layout.n_classes,
    }


def python_packer(accelerator: Accelerator) -> str:
    """Text of a Python module that needs nothing but numpy."""
    return template("pack.py.in", {key: repr(value) if not isinstance(value, str) else value
                                   for key, value in constants(accelerator).items()})


def c_packer(accelerator: Accelerator) -> str:
    """Text of a C header."""
    known = constants(accelerator)
    table = known["table"]
    known |= {"slice_list": ", ".join(map(str, known["slices"])), "n_slices": len(known["slices"]),
              "by_pixel": int(known["by_pixel"]), "pixel_type": "uint16_t" if known["max_pixel"] > 255 else "uint8_t",
              "table_list": ", ".join(map(str, table or [0])), "looked_up": "table[value]" if table else "value"}
    known["score_function"] = template("pack_score.h.in", known) if accelerator.classify.n_scores else ""
    return template("pack.h.in", known)


def template(name: str, values: dict) -> str:
    """Fill a template of this room in."""
    text = files("cbnn.sim.handover").joinpath("templates", name).read_text()
    return Template(text).substitute(values)
