"""Descriptions of the accelerator for other build systems: FuseSoC, IP-XACT, LiteX."""

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from xml.etree import ElementTree

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.frame_guard import ERROR_BITS
from cbnn.hw.verilog import padded
from cbnn.sim.handover.host import template

VENDOR, LIBRARY, VERSION = "cbnn", "generated", "1.0"
IPXACT = "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"


class TopPort(NamedTuple):
    """A port of the top module."""

    name: str
    is_input: bool
    width: int = 1


def top_ports(accelerator: Accelerator) -> list[TopPort]:
    """Return the ports of the top module, as its Verilog has them."""
    return [TopPort("aclk", True), TopPort("aresetn", True),
            TopPort("s_axis_tdata", True, padded(accelerator.folding.input_width)), TopPort("s_axis_tvalid", True),
            TopPort("s_axis_tready", False), TopPort("s_axis_tlast", True),
            TopPort("m_axis_tdata", False, accelerator.m_axis.width), TopPort("m_axis_tvalid", False),
            TopPort("m_axis_tready", True), TopPort("m_axis_tlast", False), TopPort("m_axis_tuser", False),
            TopPort("frame_errors", False, ERROR_BITS)]


def fusesoc(accelerator: Accelerator, sources: Iterable[str], mems: Iterable[str]) -> str:
    """Text of a FuseSoC core; sources and .mem files are named relative to it. JSON is YAML."""
    rtl = {"files": list(sources), "file_type": "verilogSource"}
    # Tools look for .mem files where they run.
    mem = {"files": [{mem: {"file_type": "user", "copyto": mem.rsplit("/", 1)[-1]}} for mem in mems]}
    common = {"filesets": ["rtl", "mem"], "toplevel": accelerator.name, "parameters": ["USE_TLAST"]}
    core = {
        "name": f"{VENDOR}:{LIBRARY}:{accelerator.name}:{VERSION}",
        "description": f"Binary neural network {accelerator.topology}",
        "filesets": {"rtl": rtl, "mem": mem},
        "parameters": {"USE_TLAST": {"datatype": "int", "default": 1, "paramtype": "vlogparam",
                                     "description": "0: images are told apart by counting beats"}},
        "targets": {"default": common,
                    "lint": common | {"flow": "lint", "flow_options": {
                        "tool": "verilator", "verilator_options": ["-Wno-fatal"]}},
                    "synth": common | {"flow": "generic", "flow_options": {"tool": "yosys", "arch": "ecp5"}}},
    }
    return "CAPI=2:\n" + json.dumps(core, indent=2) + "\n"


def ip_xact(accelerator: Accelerator, sources: Iterable[str], mems: Iterable[str]) -> str:
    """Text of an IP-XACT component (IEEE 1685-2014)."""
    ElementTree.register_namespace("ipxact", IPXACT)
    component = _tree("component", {
        "vendor": VENDOR, "library": LIBRARY, "name": accelerator.name, "version": VERSION,
        "busInterfaces": {"busInterface": [
            _stream("s_axis", "slave", ("tdata", "tvalid", "tready", "tlast")),
            _stream("m_axis", "master", ("tdata", "tvalid", "tready", "tlast", "tuser"))]},
        "model": {
            "views": {"view": {"name": "rtl", "envIdentifier": ":*Synthesis:",
                               "componentInstantiationRef": "verilog"}},
            "instantiations": {"componentInstantiation": {
                "name": "verilog", "language": "verilog", "moduleName": accelerator.name,
                "moduleParameters": {"moduleParameter": {"name": "USE_TLAST", "value": "1"}},
                "fileSetRef": {"localName": "rtl"}}},
            "ports": {"port": [_port(port) for port in top_ports(accelerator)]}},
        "fileSets": {"fileSet": {"name": "rtl", "file": [
            *({"name": name, "fileType": "verilogSource"} for name in sources),
            *({"name": name, "fileType": "user"} for name in mems)]}},
        "description": f"Binary neural network {accelerator.topology}",
    })
    ElementTree.indent(component)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(component, "unicode") + "\n"


def litex(accelerator: Accelerator) -> str:
    """Text of a LiteX module that wraps the accelerator."""
    return template("litex.py.in", {
        "name": accelerator.name, "class_name": accelerator.name.title().replace("_", ""),
        "topology": str(accelerator.topology),
        "in_bits": padded(accelerator.folding.input_width), "out_bits": accelerator.m_axis.width,
        "error_bits": ERROR_BITS})


def _stream(name: str, mode: str, signals: Iterable[str]) -> dict:
    """Describe an AXI4-Stream interface; elements stand in the order of the schema."""
    reference = {"vendor": "amba.com", "library": "AMBA4", "version": "r0p0_1"}
    return {"name": name, "busType": _Attributes(reference | {"name": "AXI4Stream"}),
            "abstractionTypes": {"abstractionType": {
                "abstractionRef": _Attributes(reference | {"name": "AXI4Stream_rtl"}),
                "portMaps": {"portMap": [{"logicalPort": {"name": signal.upper()},
                                          "physicalPort": {"name": f"{name}_{signal}"}} for signal in signals]}}},
            mode: {}}


def _port(port: TopPort) -> dict:
    wire: dict = {"direction": "in" if port.is_input else "out"}
    if port.width > 1:
        wire["vectors"] = {"vector": {"left": str(port.width - 1), "right": "0"}}
    return {"name": port.name, "wire": wire}


class _Attributes(dict):
    """Attributes of an element that has no content."""


def _tree(tag: str, content: Mapping | str) -> ElementTree.Element:
    """Return an element; a list in a mapping stands for elements of one name."""
    element = ElementTree.Element(f"{{{IPXACT}}}{tag}")
    if isinstance(content, str):
        element.text = content
    elif isinstance(content, _Attributes):
        element.attrib.update(content)
    else:
        for name, value in content.items():
            element.extend(_tree(name, each) for each in (value if isinstance(value, list) else [value]))
    return element
