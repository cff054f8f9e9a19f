"""The Vivado script runs as Tcl whose other commands only listen; the driver gives the model's classes."""

import importlib.util
import re
import sys
import tkinter
from types import SimpleNamespace

import numpy as np
import pytest

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.compute import golden
from cbnn.model.network import random_network
from cbnn.model.topology import Topology
from cbnn.sim.handover.folder import hand_over
from cbnn.sim.handover.zynq import zynq_files

# Everything that Tcl itself does not know is Vivado's; what builds leaves the two files that are copied in the end.
LISTEN = """
set called {}
proc unknown {args} { lappend ::called $args; return [lindex $args end] }
proc get_property {what of} { return 100% }
proc launch_runs {args} {
    file mkdir $::work/net_zynq.runs/impl_1 $::work/net_zynq.gen/sources_1/bd/system/hw_handoff
    close [open $::work/net_zynq.runs/impl_1/system_wrapper.bit w]
    close [open $::work/net_zynq.gen/sources_1/bd/system/hw_handoff/system.hwh w]
}
proc puts {text} { set ::said $text }
"""


def laid_out(text, folding):
    topology = Topology.parse(text)
    network = random_network(topology, 3)
    return network, accelerator(network, Folding.parse(folding, topology), "net")


@pytest.fixture(params=[False, True])
def written(request, tmp_path):
    network, unit = laid_out("6x6x1u3-4C3-MP2-6FC", "(2,9)(3,4)")
    images = np.random.default_rng(1).integers(0, 8, (5, 6, 6, 1), np.uint8)
    hand_over(network, unit, images, "of random pixels", tmp_path / "given", control=request.param)
    return tmp_path / "given", network, images, request.param


def test_vivado_script(written):
    folder, _, _, control = written
    tcl = tkinter.Tcl()
    tcl.eval(LISTEN)
    tcl.eval(f"proc info_script {{}} {{}}; source {{{folder}/zynq/zynq.tcl}}")
    project = folder.parent / "net_zynq"
    assert (project / "net.bit").exists()
    assert (project / "net.hwh").exists()
    assert tcl.eval("set said").startswith("done: ")
    calls = tcl.eval("join $called \\n")
    text = (folder / "zynq" / "zynq.tcl").read_text()
    assert "Generated, not run" in text
    pins = set(re.findall(r"accelerator/(\w+)", text))
    assert pins == {"aclk", "aresetn", "s_axis", "m_axis"} | ({"s_axil"} if control else set())
    made = re.findall(r"^create_bd_cell .* (\w+)$", calls, re.MULTILINE)
    assert set(re.findall(r"(\w+)/\w+", "".join(line for line in text.splitlines() if "_bd_" in line or "aclk" in line))
               ) <= set(made) | {"rtl"}
    assert f"CONFIG.NUM_MI {2 if control else 1}" in calls


def test_driver_gives_the_models_classes(written, monkeypatch):
    folder, network, images, _ = written
    for name in ("pack", "pynq_driver"):
        spec = importlib.util.spec_from_file_location(name, folder / "host" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    driver, pack = sys.modules["pynq_driver"], sys.modules["pack"]
    beats = pack.pack(images)
    scores = golden.scores(network, images)

    class Channel:
        def __init__(self, transfer):
            self.transfer = transfer

        def wait(self):
            pass

    waiting = []

    def send(buffer):
        """Find the image whose beats these are, and answer with its result."""
        assert not buffer[:, pack.BEAT_BYTES :].any()
        i = next(i for i in range(len(images)) if (beats[i] == buffer[:, : pack.BEAT_BYTES]).all())
        lanes = np.zeros((pack.RESULT_BEATS, driver.OUT_BYTES), np.uint8)
        for k, score in enumerate(scores[i]):
            beat, lane = divmod(k, pack.SCORES_PER_BEAT)
            place = slice(lane * pack.SCORE_BYTES, (lane + 1) * pack.SCORE_BYTES)
            lanes[beat, place] = list(int(score).to_bytes(pack.SCORE_BYTES, "little", signed=True))
        lanes[-1, pack.SCORES_PER_BEAT * pack.SCORE_BYTES] = scores[i].argmax()
        waiting.pop()[:] = lanes

    dma = SimpleNamespace(sendchannel=Channel(send), recvchannel=Channel(waiting.append))
    monkeypatch.setitem(sys.modules, "pynq", SimpleNamespace(
        Overlay=lambda name: SimpleNamespace(dma=dma), allocate=np.zeros))
    found, classes = driver.Classifier("net.bit").classify(images)
    assert (found == scores).all()
    assert (classes == scores.argmax(axis=1)).all()


def test_beats_wider_than_a_dma_have_no_script():
    _, unit = laid_out("4x4x1u2-200FC", "(200,32)")
    assert zynq_files(unit, control=False) == {}
