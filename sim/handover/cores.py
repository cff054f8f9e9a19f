"""Descriptions of the accelerator for other build systems: FuseSoC, IP-XACT, LiteX."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.frame_guard import ERROR_BITS
from cbnn.hw.registers import ADDRESS_BITS, DATA_BITS, Access, Register
from cbnn.hw.verilog import top_module
from cbnn.sim.handover.host import template

VENDOR, LIBRARY, VERSION = "cbnn", "generated", "1.0"
MEMORY_MAP = "registers"
TLAST_MEANING = "0: s_axis_tlast is ignored, and images are told apart by counting beats"
IPXACT = "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"


class TopPort(NamedTuple):
    """A port of the top module."""

    name: str
    is_input: bool
    width: int = 1


def top_ports(accelerator: Accelerator, table: Sequence[Register] = ()) -> list[TopPort]:
    """Return the ports of the top module, as its Verilog has them."""
    found = re.findall(r"^    (input|output) wire (?:\[(\d+):0\] )?(\w+)", top_module(accelerator, table), re.MULTILINE)
    return [TopPort(name, direction == "input", int(left or 0) + 1) for direction, left, name in found]


def fusesoc(accelerator: Accelerator, sources: Iterable[str], mems: Iterable[str]) -> str:
    """Text of a FuseSoC core; sources and .mem files are named relative to it. JSON is YAML."""
    filesets: dict[str, dict] = {"rtl": {"files": list(sources), "file_type": "verilogSource"}}
    # Tools look for .mem files where they run.
    if copied := [{mem: {"file_type": "user", "copyto": mem.rsplit("/", 1)[-1]}} for mem in mems]:
        filesets["mem"] = {"files": copied}
    common = {"filesets": list(filesets), "toplevel": accelerator.name, "parameters": ["is_toplevel ? (USE_TLAST)"]}
    core = {
        "name": f"{VENDOR}:{LIBRARY}:{accelerator.name}:{VERSION}",
        "description": f"Binary neural network {accelerator.topology}",
        "filesets": filesets,
        "parameters": {"USE_TLAST": {"datatype": "int", "default": 1, "paramtype": "vlogparam",
                                     "description": TLAST_MEANING}},
        "targets": {"default": common,
                    "lint": common | {"flow": "lint", "flow_options": {
                        "tool": "verilator", "verilator_options": ["-Wno-fatal"]}},
                    "synth": common | {"flow": "generic", "flow_options": {"tool": "yosys", "arch": "ecp5"}}},
    }
    return "CAPI=2:\n" + json.dumps(core, indent=2) + "\n"


def ip_xact(accelerator: Accelerator, sources: Iterable[str], mems: Iterable[str],
            table: Sequence[Register] = ()) -> str:
    """Text of an IP-XACT component (IEEE 1685-2014)."""
    ElementTree.register_namespace("ipxact", IPXACT)
    ports = top_ports(accelerator, table)
    streams = [_bus("s_axis", "AXI4Stream", "slave", ports), _bus("m_axis", "AXI4Stream", "master", ports)]
    component = _tree("component", {
        "vendor": VENDOR, "library": LIBRARY, "name": accelerator.name, "version": VERSION,
        "busInterfaces": {"busInterface": [*streams, *([_bus("s_axil", "AXI4Lite", "slave", ports)] if table else ())]},
        **({"memoryMaps": {"memoryMap": {"name": MEMORY_MAP, "addressBlock": _registers(table)}}} if table else {}),
        "model": {
            "views": {"view": {"name": "rtl", "envIdentifier": ":*Synthesis:",
                               "componentInstantiationRef": "verilog"}},
            "instantiations": {"componentInstantiation": {
                "name": "verilog", "language": "verilog", "moduleName": accelerator.name,
                "moduleParameters": {"moduleParameter": {"name": "USE_TLAST", "value": "USE_TLAST"}},
                "fileSetRef": {"localName": "rtl"}}},
            "ports": {"port": [_port(port) for port in ports]}},
        "fileSets": {"fileSet": {"name": "rtl", "file": [
            *({"name": name, "fileType": "verilogSource"} for name in sources),
            *({"name": name, "fileType": "user"} for name in mems)]}},
        "description": f"Binary neural network {accelerator.topology}",
        "parameters": {"parameter": {"@parameterId": "USE_TLAST", "@resolve": "user", "@type": "int",
                                     "name": "USE_TLAST", "description": TLAST_MEANING, "value": "1"}},
    })
    ElementTree.indent(component)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(component, "unicode") + "\n"


def litex(accelerator: Accelerator, table: Sequence[Register] = ()) -> str:
    """Text of a LiteX module that wraps the accelerator."""
    ports = top_ports(accelerator, table)
    bus = [f"{'i' if port.is_input else 'o'}_{port.name}=bus.{channel}.{signal}"
           for port in ports if (found := re.fullmatch(r"s_axil_(aw|w|b|ar|r)(\w+)", port.name))
           for channel, signal in [found.groups()]]
    return template("litex.py.in", {
        "name": accelerator.name,
        "topology": str(accelerator.topology),
        "in_bits": accelerator.s_axis.bus_width, "out_bits": accelerator.m_axis.bus_width,
        "error_bits": ERROR_BITS,
        "import_bus": "from litex.soc.interconnect.axi import AXILiteInterface\n" if table else "",
        "make_bus": f"\n        self.bus = bus = AXILiteInterface({DATA_BITS}, {ADDRESS_BITS})" if table else "",
        "bus": "".join(f",\n            {connection}" for connection in bus)})


def _bus(name: str, kind: str, mode: str, ports: Sequence[TopPort]) -> dict:
    """Describe an AXI interface of these ports; elements stand in the order of the schema."""
    reference = {"@vendor": "amba.com", "@library": "AMBA4", "@version": "r0p0_1"}
    signals = [port.name.removeprefix(f"{name}_") for port in ports if port.name.startswith(f"{name}_")]
    return {"name": name, "busType": reference | {"@name": kind},
            "abstractionTypes": {"abstractionType": {
                "abstractionRef": reference | {"@name": f"{kind}_rtl"},
                "portMaps": {"portMap": [{"logicalPort": {"name": signal.upper()},
                                          "physicalPort": {"name": f"{name}_{signal}"}} for signal in signals]}}},
            mode: {"memoryMapRef": {"@memoryMapRef": MEMORY_MAP}} if kind == "AXI4Lite" else {}}


def _registers(table: Sequence[Register]) -> dict:
    """Describe the registers."""
    return {"name": "all", "baseAddress": "0", "range": str(1 << ADDRESS_BITS), "width": str(DATA_BITS),
            "register": [{"name": row.name, "description": row.meaning, "addressOffset": str(row.offset),
                          "size": str(DATA_BITS), "volatile": "false" if row.constant else "true",
                          "access": "read-only" if row.access is Access.READ else "read-write",
                          "field": {"name": "value", "bitOffset": "0",
                                    "resets": {"reset": {"value": str(row.value)}}, "bitWidth": str(row.bits)}}
                         for row in table]}


def _port(port: TopPort) -> dict:
    wire: dict = {"direction": "in" if port.is_input else "out"}
    if port.width > 1:
        wire["vectors"] = {"vector": {"left": str(port.width - 1), "right": "0"}}
    return {"name": port.name, "wire": wire}


def _tree(tag: str, content: Mapping | str) -> ElementTree.Element:
    """Return an element; a list in a mapping stands for elements of one name, and @ before a name for an attribute."""
    element = ElementTree.Element(f"{{{IPXACT}}}{tag}")
    if isinstance(content, str):
        element.text = content
        return element
    for name, value in content.items():
        if name.startswith("@"):
            element.set(name[1:], value)
        else:
            element.extend(_tree(name, each) for each in (value if isinstance(value, list) else [value]))
    return element
