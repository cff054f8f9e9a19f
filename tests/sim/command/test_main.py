"""The command line: output, exit codes, one clear sentence for what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cbnn.model.exchange import storage
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.command import demo, main
from cbnn.sim.prove.volume import Volume
from cbnn.sim.report import levels

TINY = Topology.parse("4C3-MP2-3FC", (4, 4, 1), 2)
FOLDING = "(2,9)(1,4)"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    storage.save(random_network(TINY, 1), tmp_path / "tiny.npz")
    return tmp_path / "tiny.npz"


def test_every_verb_has_help(cbnn) -> None:
    code, out, _ = cbnn("--help")
    assert code == 0
    for verb in ("demo", "train", "evaluate", "sensitivity", "generate", "verify", "volume", "cycles", "report"):
        assert verb in out
        assert cbnn(verb, "--help")[0] == 0


def test_cycles_of_a_topology(cbnn) -> None:
    code, out, _ = cbnn("cycles", "32x32x3u8-128C3-128C3-MP2-10FC", "--slices", "7..0",
                        "--slices", "7..1", "--folding", "(128,27)(128,96)(1,8)", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["kept_slices"][-1], row["first_layer_cycles"]) for row in rows] == [(0, 8192), (1, 7168)]
    assert rows[0]["interval_cycles"] == 10 * 128 * 256 // 8


def test_evaluate_prints_what_the_golden_model_says(cbnn) -> None:
    code, out, _ = cbnn("evaluate", "digits-5", "--json")
    assert code == 0
    assert json.loads(out)["images"] == 540
    assert json.loads(out)["accuracy"] >= 0.95
    assert "95.19 %" in cbnn("evaluate", "digits-5")[1]


def test_sensitivity_lists_slices_one_by_one_and_cumulatively(cbnn) -> None:
    code, out, _ = cbnn("sensitivity", "digits-2", "--repetitions", 1, "--json")
    assert code == 0
    assert [(row["mode"], row["slice"]) for row in json.loads(out)] == [
        (mode, b) for mode in ("single", "cumulative", "zeroed", "zeroed cumulative") for b in (3, 4)]


def test_generate_then_verify(cbnn, tiny: Path, tmp_path: Path) -> None:
    code, out, err = cbnn("generate", tiny, "--folding", FOLDING, "--out", tmp_path / "v", "--name", "tiny")
    assert code == 0
    assert (tmp_path / "v" / "rtl" / "tiny.v").exists()
    assert out.strip() == str(tmp_path / "v" / "README.md")
    assert err.splitlines()[-2] == f"try it: make -C {tmp_path / 'v' / 'sim'}"
    code, out, _ = cbnn("verify", tiny, "--folding", FOLDING, "--out", tmp_path / "w", "--images", 4, "--json")
    result = json.loads(out)
    assert code == 0
    assert (next(iter(result)), result["result"], result["wrong_images"]) == ("result", "PASS", [])
    assert result["measured"]["interval_cycles"] == result["predicted"]["interval_cycles"]


def test_the_class_only(cbnn, tiny: Path, tmp_path: Path) -> None:
    code, *_ = cbnn("generate", tiny, "--folding", FOLDING, "--out", tmp_path / "v", "--output", "class")
    said = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert (code, said["m_axis"]["beats"], said["m_axis"]["tdata_bits"], said["m_axis"]["scores"]) == (0, 1, 8, 0)


def test_a_difference_exits_1(cbnn, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbnn.sim.prove.verify.golden.scores", lambda network, images: np.zeros((len(images), 3), int))
    code, out, err = cbnn("verify", tiny, "--folding", FOLDING, "--out", tmp_path / "v", "--images", 4)
    assert code == 1
    assert out.split()[:2] == ["result", "FAIL"]
    assert err.strip().endswith("cbnn: image 0: the result of the RTL differs from the golden model's")


def test_a_folding_from_json(cbnn, tmp_path: Path) -> None:
    file = tmp_path / "folding.json"
    file.write_text(json.dumps({"MVTU_0": {"PE": 2, "SIMD": 9}, "MVTU_1": {"PE": 1, "SIMD": 4}}))
    code, out, _ = cbnn("cycles", "4x4x1u2-4C3-MP2-3FC", "--folding", file, "--json")
    assert code == 0
    assert json.loads(out)[0]["first_layer_cycles"] == 2 * 2 * 16


@pytest.mark.parametrize(("words", "sentence"), [
    (("evaluate", "nothing.npz"), "nothing.npz cannot be read: No such file or directory"),
    (("cycles", "8x8u8-4C3-10FC", "--folding", "(1,1)(1,1)"), "'8x8u8' does not describe an input; "),
    (("cycles", "8x8x1u8-4C3-10FC", "--folding", "(3,1)(1,1)"), "layer 0: 4 rows do not fold onto 3 PEs; 2 or 4 would"),
    (("cycles", "8x8x1u8-4C3-10FC", "--folding", "(1,5)(1,1)"),
     "layer 0: 72 inputs (8 slices) do not fold into words of 5; 4 or 6 would"),
    (("cycles", "8x8x1u8-4C3-10FC", "--folding", "(1,1)(1,1)", "--slices", "8"),
     "slice 8 cannot be kept; the network has the slices 7, 6, 5, 4, 3, 2, 1, 0"),
    (("cycles", "8x8x1u8-4C3-10FC", "--folding", "(1,1)(1,1)", "--slices", "four"),
     "slices 'four' are not written like 3, 4,3,2 or 4..2: numbers of slices, the highest first"),
    (("train", "--slices", "6", "--out", "x.npz"), "slice 6 does not exist; pixels of 5 bits have 0 to 4"),
    *((("train", "--slices", text, "--out", "x.npz"),
       f"slices {text!r} are not written like 3, 4,3,2 or 4..2: numbers of slices, the highest first")
      for text in ("a", "4,", "2..4", "4..1000000000", "9" * 20)),
    (("train", "--dataset", "imagenet", "--out", "x.npz"), "data set 'imagenet' is not one of digits, mnist, "),
    (("compact", "--max-drop", "-1", "--out", "x"), "--max-drop is -1.0; it must be 0 to 99"),
    (("compact", "--widths", "0.5", "--out", "x"), "widths must decrease strictly from 1; got 0.5"),
    (("compact", "--device", "z80", "--out", "x"), "device 'z80' is not one of xc7z010, "),
    (("evaluate", "digits-5", "--images-file", "x.npy"),
     "--images-file and --labels-file belong together; one of them is missing"),
    (("evaluate", "mnist-cnn", "--dataset", "mnist", "--data-dir", "nowhere"),
     "nowhere/train-images-idx3-ubyte.gz cannot be read: No such file or directory"),
    (("report", "nowhere"), "nowhere/table.json cannot be read: No such file or directory"),
    (("generate", "digits-5", "--folding", "(1,1)", "--out", "x"),
     "the folding is of 1 layers; the network has 5"),
    (("generate", "digits-5", "--folding", "(1,1)", "--out", "x", "--output", "classes"),
     "output 'classes' is not known; it can be scores or class"),
    (("verify", "digits-5", "--folding", "(16,9)(16,16)(8,16)(8,16)(10,8)", "--out", "x", "--images", "3"),
     "--images is 3; it must be 4 to 10,000"),
    (("verify", "digits-5", "--folding", "(16,9)(16,16)(8,16)(8,16)(10,8)", "--out", "x", "--simulator", "abacus"),
     "simulator 'abacus' is not known; the simulators are icarus and verilator"),
    (("volume", "8x8x1u8-4FC-3FC", "--folding", "(2,8)(1,4)", "--images", "0"),
     "--images is 0; it must be 1 to 1,000,000"),
    (("volume", "8x8x1u8-4FC-3FC", "--folding", "(2,8)(1,4)", "--images-file", "none.npy"),
     "none.npy cannot be read: No such file or directory"),
])
def test_bad_input_is_one_sentence(cbnn, words: tuple, sentence: str, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cbnn(*words)
    assert code == 2
    assert out == ""
    assert err.startswith(f"cbnn: {sentence}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_volume_streams_what_a_file_holds(cbnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(6 * 64).reshape(6, 8, 8, 1) % 4
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "objects.npy", np.array([{}]))
    np.savez(tmp_path / "several.npz", images)
    sent = []

    def stream(network, unit, pixels, **options):
        sent.append(pixels)
        return Volume(np.zeros(5, int), np.zeros(5, int), np.ones((5, 2), int), [4], [], [], 99, 1.0, 0.5)

    monkeypatch.setattr(main.volume, "stream", stream)
    words = ("volume", "8x8x1u2-4FC-3FC", "--folding", "(2,8)(1,4)", "--images", 5, "--json", "--images-file")
    code, out, err = cbnn(*words, tmp_path / "images.npy")
    assert np.array_equal(sent[0], images[:5])
    assert json.loads(out)["cycles_per_second"] == 198
    assert json.loads(out)["result"] == "FAIL"
    assert (code, err.splitlines()[-1]) == (1, "cbnn: image 4: the result of the RTL differs from the golden model's")
    for name, reason in (("objects.npy", "holds object (1,); arrays of little-endian integers or floats are read"),
                         ("several.npz", "is not an .npy file")):
        code, _, err = cbnn(*words, tmp_path / name)
        assert (code, err) == (2, f"cbnn: {tmp_path / name} {reason}\n")


def test_wrong_usage_exits_2(cbnn) -> None:
    assert cbnn("cycles")[0] == 2
    assert cbnn("frobnicate")[0] == 2


def test_missing_icarus_exits_2_and_writes_nothing(cbnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code, _, err = cbnn("demo", "--out", tmp_path / "demo")
    assert code == 2
    assert err.endswith("cbnn: Icarus Verilog (iverilog) is not installed; install the package iverilog\n")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_keeps_off_a_folder_that_holds_something_else(cbnn, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = cbnn("demo", "--out", tmp_path)
    assert code == 2
    assert f"{tmp_path} holds thesis.tex, which is not as cbnn wrote it; name an empty or a new folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_level_of_the_demo_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cbnn) -> None:
    """The last level at the balanced folding, whole: golden model, Verilog, Icarus, cycles, table, page."""
    monkeypatch.setattr(demo, "N_IMAGES", 4)
    row = demo.level(("balanced", 4), tmp_path)
    assert row["measured"] == {name: row[name] for name in row["measured"]}
    assert (row["interval_cycles"], row["measured"]["first_layer_cycles"]) == (576, 2 * 64)
    assert (row["saved_cycles"], row["saved_percent"]) == (64, 10.0)
    demo.write_table([row], tmp_path)
    code, out, err = cbnn("report", tmp_path)
    assert code == 0, err
    assert "576" in out
    page = (tmp_path / "report.html").read_text()
    assert "http://" not in page.split("<h2>", 1)[1].split("<script", 1)[0]
    assert page.count("<table>") == 1
    [row] = demo.read_table(tmp_path)
    for name in levels.LEVELS:
        assert f"<td>{levels.cell(row, name)}</td>" in page


CBNN = Path(sys.executable).with_name("cbnn")
VERIFY = ("verify", "digits-5", "--folding", "(8,9)(16,16)(8,16)(4,16)(5,8)", "--images", "60", "--out")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_simulation_with_its_own_code(tiny: Path, tmp_path: Path, number: signal.Signals,
                                                      code: int) -> None:
    words = ("verify", tiny, "--folding", FOLDING, "--images", "2000", "--out", tmp_path / "v")
    with subprocess.Popen([CBNN, *words], stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        end = time.monotonic() + 60
        while not list(tmp_path.glob("cbnn-*/test.log")) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.count("\n") <= 1
    assert {path.name for path in tmp_path.iterdir()} == {tiny.name, "v"}


def test_whoever_starts_it_under_nohup_is_not_ended_by_hanging_up(tmp_path: Path) -> None:
    with subprocess.Popen(["/usr/bin/env", "nohup", CBNN, *VERIFY, tmp_path / "v", "--images", "8"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(3)
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM


def test_a_closed_stdout_is_no_failure() -> None:
    script = f'exec "$0" cycles 4x4x1u2-4C3-MP2-3FC --folding "{FOLDING}" >&-'
    done = subprocess.run(["/bin/sh", "-c", script, CBNN], check=False, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_paths_of_any_letters(cbnn, tiny: Path, tmp_path: Path) -> None:
    for name in ("a b", "a'b", 'a"b', "a\nb", "$(x)"):
        assert cbnn("verify", tiny, "--folding", FOLDING, "--images", 4, "--out", tmp_path / name)[0] == 0


@pytest.mark.parametrize("words", [
    ("demo",), ("compact", "--epochs", "1"), ("predict", "digits-5", "image.npy"),
    ("simulate", *VERIFY[1:4]), ("generate", *VERIFY[1:4])])
@pytest.mark.parametrize("name", ["table.json", "report.html", "compact.html", "slice-3-kept.png", "kernels.json",
                                  "manifest.json", ".x.cbnn-01234567"])
def test_files_of_others_are_never_replaced(cbnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple,
                                            name: str) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", np.zeros((8, 8, 1), np.uint8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    option = "--slice-pictures" if words[0] == "predict" else "--out"
    code, _, err = cbnn(*words, option, tmp_path / "out")
    assert (code, err) == (2, f"cbnn: {tmp_path / 'out'} holds {name}, which is not as cbnn wrote it; name an empty or "
                              "a new folder\n")
    assert (tmp_path / "out" / name).read_text() == "mine"


@pytest.mark.parametrize("words", [
    ("train", "--out", "FOLDER"), ("sensitivity", "digits-5", "--plot", "FOLDER"),
    ("fifos", *VERIFY[1:4], "--out", "FOLDER"),
    (*VERIFY, "v", "--waves", "FOLDER"), ("evaluate", "digits-5", "--partial", "FOLDER")])
def test_where_nothing_can_be_written_is_said_before_the_work(cbnn, tmp_path: Path, words: tuple,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    started = time.process_time()
    assert cbnn(*words) == (2, "", "cbnn: " + f"{tmp_path / 'FOLDER'} is a folder; a file is to be written\n")
    assert time.process_time() - started < 2
    assert [path.name for path in tmp_path.iterdir()] == ["FOLDER"]
