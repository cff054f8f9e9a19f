"""The page that explains the folder to somebody who has never seen cbnn."""

from collections.abc import Sequence
from importlib.metadata import version

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.frame_guard import ERROR_BITS
from cbnn.hw.input_stream import input_order
from cbnn.hw.loading import words_per_row
from cbnn.hw.mvtu.rom import MEM_FOLDER
from cbnn.hw.registers import MEMORY_SHIFT, Register, markdown_table
from cbnn.hw.stream import Port
from cbnn.model.network import Network
from cbnn.sim.handover.cores import top_ports
from cbnn.sim.handover.diagram import count, short_name
from cbnn.sim.handover.host import constants, template
from cbnn.sim.handover.vectors import Vectors


def readme(network: Network, accelerator: Accelerator, vectors: Vectors, source: str,
           table: Sequence[Register]) -> str:
    """Return the page, Markdown.

    Parameters
    ----------
    source : what the images of the vectors are, in words
    table : registers that a host can reach, if any
    """
    topology, layout, known = accelerator.topology, accelerator.classify, constants(accelerator)
    height, width, colours = topology.in_shape
    values = (f"a value from the packers' table of {len(network.pixel_table)}, by the pixel"
              if network.pixel_table is not None else "the pixel itself")
    return template("README.md.in", {
        "name": accelerator.name, "topology": topology, "folding": accelerator.folding,
        "generator": f"cbnn {version('cbnn')}",
        "height": height, "width": width, "colours": count(colours, "colour"), "n_colours": colours,
        "gives": f"the class, one of {layout.n_classes}" if layout.class_only else
                 f"{layout.n_classes} scores and a class",
        "n_scores": 0 if layout.class_only else layout.n_classes, "NAME": accelerator.name.upper(),
        "max_pixel": f"{network.n_pixel_values - 1:,}", "trained_max": f"{network.max_pixel:,}",
        "kept": f"bit{'' if len(topology.kept_slices) == 1 else 's'} {', '.join(map(str, topology.kept_slices))}",
        "n_slices": count(topology.input_bits, "bit"),
        "values": values, "input": accelerator.folding.input,
        "ports": "\n".join(f"| `{port.name}` | {'in' if port.is_input else 'out'} | {port.width} | "
                           f"{PORTS.get(port.name, '')} |" for port in top_ports(accelerator, table)),
        "registers": template("registers.md.in", {
            "table": markdown_table(table), "loading": loading(accelerator) if accelerator.memories else ""})
                     if table else "",
        "estimate": " of the same accelerator with weights that cannot be written" if accelerator.memories else "",
        "beats": count(accelerator.input_beats, "beat"), "beat_bits": count(accelerator.s_axis.width, "bit"),
        "n_beats": accelerator.input_beats, "beat_bytes": known["beat_bytes"],
        "image_bytes": count(accelerator.input_beats * known["beat_bytes"], "byte"),
        "n_result_beats": accelerator.m_axis.beats, "result_beat_bytes": known["result_bytes"],
        "result_bytes": count(accelerator.m_axis.beats * known["result_bytes"], "byte"),
        "unused": above("s_axis", accelerator.s_axis, "not looked at"),
        "zeros": above("m_axis", accelerator.m_axis, "0"), "order": input_order(accelerator),
        "result_beats": count(accelerator.m_axis.beats, "beat"), "result_bits": count(accelerator.m_axis.width, "bit"),
        "lanes": lanes(accelerator), "image": worked_image(vectors),
        "error_bits": ERROR_BITS, "latency": f"{vectors.latency_cycles:,}", "interval": f"{vectors.interval_cycles:,}",
        "kernels": "\n".join(f"| `{short_name(accelerator, kernel)}` | {kernel.interval_cycles:,} | "
                             f"{kernel.latency_cycles:,} | {kernel.luts:,} | {kernel.block_rams:g} |"
                             for kernel in accelerator.kernels)
        + "".join(f"\n| `{short_name(accelerator, part)}` | 0 | 0 | {part.luts:,} | 0 |"
                  for part in (accelerator.guard, accelerator.marks)),
        "luts": f"{accelerator.luts:,}", "block_rams": count(accelerator.block_rams, "block RAM"),
        "n_vectors": len(vectors.images), "source": source, "mem_folder": MEM_FOLDER})


def loading(accelerator: Accelerator) -> str:
    """Say how another network is loaded."""
    memories = "\n".join(
        f"| {i} | `{content.name}` | {content.shape.rows} | {content.row_width} | {words_per_row(content)} |"
        for i, content in enumerate(accelerator.memories))
    n_writes = sum(content.shape.rows * (words_per_row(content) + 1) for content in accelerator.memories)
    return template("loading.md.in", {"NAME": accelerator.name, "memories": memories, "n_writes": f"{n_writes:,}",
                                      "shift": MEMORY_SHIFT})


MAX_LINES = 32
"""Of the worked image, so that it fits a page."""
PORTS = {
    "aclk": "the only clock", "aresetn": "reset, active low, synchronous; one cycle is enough",
    "s_axis_tdata": "beats of an image",
    "s_axis_tlast": "high in the last beat of an image",
    "m_axis_tdata": "beats of a result",
    "m_axis_tlast": "high in the last beat of a result",
    "m_axis_tuser": "high in every beat of a result whose frame was too short or too long",
    "frame_errors": "frames that were too short or too long, since reset; it wraps",
}
"""What ports of the top module are for, beyond what AXI says."""


def above(name: str, port: Port, what: str) -> str:
    """Say what the bits of the bus above a beat are, where there are any."""
    width, left = port.width, port.bus_width - 1
    if left < width:
        return ""
    return f" Bits {width} to {left} of `{name}_tdata` are {what}." if left > width else \
        f" Bit {left} of `{name}_tdata` is {what}."


def lanes(accelerator: Accelerator) -> str:
    """Say where scores and class are in the beats of a result."""
    layout = accelerator.classify
    score = "A score is the weights that agree with their inputs, and an offset of the class."
    if layout.class_only:
        return (f"bits {layout.class_lane - 1} to 0 are the class: that of the highest score, of equal scores the\n"
                f"first. {score}")
    last = layout.pe * layout.lane
    scores = (f"bits {layout.lane - 1} to 0 are the score of class 0, two's complement; the next\n{layout.lane} bits "
              "that of class 1, and so on" if layout.pe > 1 else
              f"bits {layout.lane - 1} to 0 are a score, two's complement")
    following = "the next class" if layout.pe == 1 else f"the next {layout.pe} classes"
    more = f"; the next beat holds {following}" if layout.m_axis.beats > 1 else ""
    return (f"{scores}{more}. Bits {last + layout.class_lane - 1} to {last} of the last beat are the class: that of\n"
            "the highest score, of equal scores the first. In earlier beats these bits are of the best class so far.\n"
            f"{score}")


def worked_image(vectors: Vectors) -> str:
    """Show the first image of the vectors, as pixels and beats as far as they fit a page, and its result."""
    image, beats = vectors.images[0], vectors.beats[0]
    rows = [" ".join(f"{','.join(map(str, pixel)):>3}" for pixel in row[:MAX_LINES])
            + (" ..." if len(row) > MAX_LINES else "") for row in image[:MAX_LINES].tolist()]
    shown = [f"beat {i}: {beat:x}" for i, beat in enumerate(beats[:MAX_LINES])]
    return "\n".join([*rows, *(["..."] if len(image) > MAX_LINES else []), "",
                      "s_axis_tdata, hexadecimal", *shown, *(["..."] if len(beats) > MAX_LINES else []), "",
                      "m_axis_tdata, hexadecimal",
                      *(f"beat {i}: {beat:x}" for i, beat in enumerate(vectors.results[0][:MAX_LINES])),
                      *(["..."] if len(vectors.results[0]) > MAX_LINES else []), "",
                      f"scores {', '.join(map(str, vectors.scores[0, :MAX_LINES].tolist()))}"
                      f"{', ...' if vectors.scores.shape[1] > MAX_LINES else ''}; class {vectors.scores[0].argmax()}"])
