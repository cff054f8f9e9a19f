"""Volume: whole test sets through the RTL, by Verilator and a bench in C++; every score and every cycle compared."""

import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.input_stream import input_beats
from cbnn.hw.stream import Port
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.network import Network
from cbnn.model.processes import scratch_folder, started
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.predict.outside import check_percentages
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.verify import FREE, Traffic, mark_breaches, sentences
from cbnn.sim.prove.verilated import Harness, MismatchError, SimulationError, build, check_verilator

BATCH = 256
"""Images packed at once; bounds the memory for beats."""


@dataclass(frozen=True)
class Volume:
    """What streaming showed; cycles count from the end of reset.

    Attributes
    ----------
    classes : the RTL's class of every image, int64 (N,)
    in_cycles : the cycle of every image's first beat in, int64 (N,)
    out_cycles : the cycle of every beat out, int64 (N, beats per image)
    wrong_images : numbers of images of which a score or the class differs from the golden model's
    mistimed_images : numbers of images of which `in_cycles` or `out_cycles` differ from the dataflow simulation's
    breaches : breaches of the AXI4-Stream rules, and wrong `tlast`, `tuser` or `frame_errors`
    n_cycles : cycles simulated
    build_seconds, run_seconds : time for generating and compiling, and for simulating
    """

    classes: NDArray[np.int64]
    in_cycles: NDArray[np.int64]
    out_cycles: NDArray[np.int64]
    wrong_images: list[int]
    mistimed_images: list[int]
    breaches: list[str]
    n_cycles: int
    build_seconds: float
    run_seconds: float

    @property
    def latency_cycles(self) -> int:
        """From the first beat of the first image in to its last beat out."""
        return int(self.out_cycles[0, -1] - self.in_cycles[0])

    @property
    def interval_cycles(self) -> int | None:
        """Between the last beats of the last two images; None of a single one."""
        return int(self.out_cycles[-1, -1] - self.out_cycles[-2, -1]) if len(self.out_cycles) > 1 else None

    @property
    def differences(self) -> list[str]:
        """What differs between model and hardware, one sentence each; empty when all is equal."""
        return sentences(self.wrong_images, self.mistimed_images, self.breaches)


def stream(network: Network, accelerator: Accelerator, images: NDArray, *, traffic: Traffic = FREE,
           executable: Path | None = None,
           progress: Callable[[int, int], None] = lambda done, total: None) -> Volume:
    """Send `images` back to back through the verilated RTL; compare with the golden model and the predicted cycles.

    Parameters
    ----------
    network, accelerator : the network, and its hardware
    images : integer array (N, height, width, colours)
    traffic : how often the source idles and the sink stalls, in the same cycles as in `cosim.Run`; its seed is also
        that of what registers hold before reset
    executable : from `compiled`, to stream several sets; None: compile
    progress : called with the images done and all of them

    Raises
    ------
    ValueError
        When images or percentages do not suit.
    SimulationError
        When Verilator or a C++ compiler is missing or fails.
    MismatchError
        When the hardware hangs.
    """
    check_percentages(traffic.idle_percent, traffic.stall_percent)
    if not len(images):
        raise ValueError("0 images given; at least 1 is needed")
    check_verilator()
    expected = _as_bytes(accelerator.classify.encoded(golden.scores(network, images)), accelerator.m_axis)
    started = time.monotonic()
    with nullcontext(executable) if executable else compiled(accelerator) as program:
        build_seconds = time.monotonic() - started
        folder = program.parent
        _write_input(folder, accelerator, images)
        _write_draws(folder, traffic.seed)
        patience = 20 * (accelerator.interval_cycles + sum(kernel.latency_cycles for kernel in accelerator.kernels))
        started = time.monotonic()
        n_cycles, n_breaches, frame_errors = _play(program, accelerator, len(images), [
            patience, traffic.idle_percent, traffic.stall_percent, abs(traffic.seed) % 2**30 + 1], progress)
        run_seconds = time.monotonic() - started
        beats = _read_output(folder, accelerator, len(images))
        starts = np.fromfile(folder / "starts.bin", "<u8").astype(np.int64)
    wrong = (beats["data"] != expected.reshape(beats["data"].shape)).any(axis=(1, 2))
    out_cycles = beats["cycle"].astype(np.int64)
    in_timed, out_timed = _predict(accelerator, len(images), traffic)
    mistimed = (starts != in_timed) | (out_cycles != out_timed).any(axis=1)
    breaches = mark_breaches(beats["last"], beats["user"], frame_errors)
    if n_breaches:
        breaches.insert(0, f"m_axis: {n_breaches} beats offered and not taken were changed or "
                           "withdrawn")
    classes = accelerator.classify.classes(beats["data"][:, -1])
    return Volume(classes, starts, out_cycles, np.flatnonzero(wrong).tolist(), np.flatnonzero(mistimed).tolist(),
                  breaches, n_cycles, build_seconds, run_seconds)


@contextmanager
def compiled(accelerator: Accelerator) -> Iterator[Path]:
    """Give an executable for `stream`, in a temporary folder of its own that goes with the context."""
    check_verilator()
    with scratch_folder() as folder:
        verilog, work = folder / "verilog", folder / "work"
        generate(accelerator, verilog)
        work.mkdir()
        for content in verilog.glob("*.mem"):
            shutil.copy(content, work)
        control = folder / "elements.vlt"
        control.write_text(_control(accelerator))
        harness = Harness(Path(str(files("cbnn.sim.prove"))) / "volume.cpp", compiler_options=("-DVL_TIME_CONTEXT",))
        yield build(Design.generated(verilog, accelerator.name), work, "Vdut", harness,
                    ["-fno-table", "-fno-dfg", str(control)])


def _control(accelerator: Accelerator) -> str:
    """Verilator's control file that makes the processing elements of a unit one function, not a copy each.

    They are not inlined, and their ports, being visible from outside, are not replaced by what drives them; tables and
    the data-flow graph's optimiser would tell them apart again. So what is compiled grows with the number of units
    rather than of elements: a twentieth for a network as wide as the VGG of Courbariaux et al.
    """
    lines = [line for unit in accelerator.mvtus for line in (
        f'no_inline -module "{unit.element_module}"',
        *(f'public_flat_rd -module "{unit.element_module}" -var "{port}"' for port in ("weights", "row", "result")))]
    return "\n".join(["`verilator_config", *lines, ""])


def _as_bytes(beats: list[int], port: Port) -> NDArray[np.uint8]:
    """Beats as bytes of the bus, shape (beats, bytes), the lowest first."""
    n_bytes = port.bus_width // 8
    return np.frombuffer(b"".join(beat.to_bytes(n_bytes, "little") for beat in beats), np.uint8).reshape(-1, n_bytes)


def _write_input(folder: Path, accelerator: Accelerator, images: NDArray) -> None:
    with (folder / "input.bin").open("wb") as file:
        for i in range(0, len(images), BATCH):
            beats = input_beats(accelerator, images[i : i + BATCH])
            file.write(_as_bytes(beats, accelerator.s_axis).tobytes())


def _write_draws(folder: Path, seed: int) -> None:
    """Write the states of the random numbers that `bench.Stalls` draws for idles and for stalls."""
    states = [random.Random(number).getstate()[1] for number in (seed, seed + 1)]
    (folder / "draws.bin").write_bytes(b"".join(struct.pack("<625I", *state) for state in states))


def _play(program: Path, accelerator: Accelerator, n_images: int, numbers: list[int],
          progress: Callable[[int, int], None]) -> tuple[int, int, int]:
    """Run the bench; return its cycles, the breaches of the protocol and the bad frames counted."""
    first, last = accelerator.s_axis, accelerator.m_axis
    n_in, n_out = n_images * first.beats, n_images * last.beats
    words = [first.bus_width // 8, last.bus_width // 8, n_in, first.beats, n_out, *numbers]
    line = ""
    progress(0, n_images)
    with started([str(program), *map(str, words)], cwd=program.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                 text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            progress(int(line.split()[2]) // last.beats, n_images)
        complaint, code = process.stderr.read().strip(), process.wait()
    if code:
        raise SimulationError(f"simulation of {accelerator.name} failed: {complaint or f'exit code {code}'}")
    n_cycles, taken, given, n_breaches, frame_errors = map(int, line.split())
    if given < n_out:
        raise MismatchError(f"{accelerator.name} hangs: {taken} of {n_in} beats in, {given} of {n_out} out after "
                              f"{n_cycles} cycles")
    return n_cycles, n_breaches, frame_errors


def _read_output(folder: Path, accelerator: Accelerator, n_images: int) -> NDArray:
    """Beats out, shape (N, beats per image), with fields `cycle`, `last`, `user` and `data`."""
    last = accelerator.m_axis
    record = np.dtype([("cycle", "<u8"), ("last", "u1"), ("user", "u1"),
                       ("data", "u1", (last.bus_width // 8,))])
    return np.fromfile(folder / "output.bin", record).reshape(n_images, last.beats)


def _predict(accelerator: Accelerator, n_images: int, traffic: Traffic) -> tuple[NDArray[np.int64],
                                                                                 NDArray[np.int64]]:
    """`in_cycles` and `out_cycles` as the dataflow simulation has them."""
    first, last = accelerator.s_axis, accelerator.m_axis
    trace = simulate(accelerator, n_images, **traffic._asdict())
    return trace.taken(0)[:: first.beats], trace.taken(-1).reshape(n_images, last.beats)
