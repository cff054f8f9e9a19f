"""One bench for every kernel: `rtl(kernel, beats)` is what its Verilog makes of these beats. Benches of a top too."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cocotb_tools.runner import get_runner
from numpy.typing import NDArray

from cbnn.hw.stream import Kernel
from cbnn.hw.verilog import write_kernel
from cbnn.sim.prove.cosim import Observation, Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design

Bits = NDArray[np.uint8]
"""0 and 1, shape (beats, bits of a beat), element 0 first."""


@pytest.fixture
def rtl(tmp_path: Path) -> Callable[[Kernel, Bits], Bits]:
    """Give the function that plays beats of several images, back to back, on a kernel's generated Verilog.

    It plays them without stalls, with an idle source, with back-pressure, with both, and behind a reset in the middle
    of an image. All of these must give the same beats, which it returns, `tlast` in the last beat of each image and
    nowhere else, and no breach of the stream's rules; without stalls latency and interval must be those that the
    kernel states, to the cycle.
    """
    def play(kernel: Kernel, beats: Bits) -> Bits:
        n_images = len(beats) // kernel.s_axis.beats
        assert beats.shape == (n_images * kernel.s_axis.beats, kernel.s_axis.width)
        assert n_images >= 2
        sources = tuple(f"{module}.v" for module in write_kernel(kernel, tmp_path))
        seen = cosimulate(Design(tmp_path, kernel.name, sources, "clk", "rst", 1), _runs(kernel, beats, n_images))
        _check_cycles(kernel, seen[0])
        for run in seen:
            assert run.breaches == []
            assert run.out_last == ([False] * (kernel.m_axis.beats - 1) + [True]) * n_images
            assert run.out_beats == seen[0].out_beats
        return np.array([[beat >> i & 1 for i in range(kernel.m_axis.width)] for beat in seen[0].out_beats], np.uint8)

    return play


def _runs(kernel: Kernel, beats: Bits, n_images: int) -> list[Run]:
    words = tuple(format(int("".join(map(str, beat[::-1])), 2), "x") for beat in beats.tolist())
    stalls = [{}, {"idle_percent": 50}, {"stall_percent": 70}, {"idle_percent": 40, "stall_percent": 50},
              {"idle_percent": 20, "stall_percent": 20,
               "reset_after": kernel.s_axis.beats + 1 + kernel.s_axis.beats // 2}]
    patience = 20 * (kernel.latency_cycles + n_images * kernel.interval_cycles) + 200
    return [Run(words, image_ends(n_images, kernel.s_axis.beats), n_images * kernel.m_axis.beats, seed=seed,
                max_cycles=patience, **stall)
            for seed, stall in enumerate(stalls)]


def _check_cycles(kernel: Kernel, seen: Observation) -> None:
    last_out = np.array(seen.out_cycles[kernel.m_axis.beats - 1 :: kernel.m_axis.beats])
    assert last_out[0] - seen.in_cycles[0] == kernel.latency_cycles
    assert np.diff(last_out).tolist() == [kernel.interval_cycles] * (len(last_out) - 1)


@pytest.fixture
def simulate_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the function that runs a bench's tests on the top module `net` of a folder; a failure shows its log.

    The bench is a file beside this one, and reads the job from the file that CONTROL_JOB names; a test of it can be
    named.
    """
    def simulate(job: dict, folder: Path, bench: str, test: str | None = None) -> None:
        file, work, log = tmp_path / "job.json", tmp_path / "work", tmp_path / "test.log"
        file.write_text(json.dumps(job))
        monkeypatch.syspath_prepend(Path(__file__).parent)
        runner = get_runner("icarus")
        runner.build(sources=[folder / name for name in (folder / "files.f").read_text().split()], hdl_toplevel="net",
                     build_dir=work, build_args=["-g2012", "-Wall"], timescale=("1ns", "1ps"))
        for content in folder.glob("*.mem"):
            (work / content.name).write_bytes(content.read_bytes())
        try:
            runner.test(test_module=bench, testcase=test, hdl_toplevel="net", hdl_toplevel_lang="verilog",
                        build_dir=work, test_dir=work, log_file=log, results_xml=str(work / "results.xml"),
                        timescale=("1ns", "1ps"),
                        extra_env={"CONTROL_JOB": str(file), "COCOTB_LOG_LEVEL": "WARNING",
                                   "COCOTB_REWRITE_ASSERTION_FILES": ""})
        except SystemExit:
            pytest.fail(log.read_text())

    return simulate
