"""Verification: every beat of the Verilog against golden model and dataflow simulation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.input_stream import input_beats
from cbnn.hw.verilog import generate
from cbnn.model.compute import golden
from cbnn.model.network import Network
from cbnn.sim.predict.cycles import Cycles, predict
from cbnn.sim.predict.dataflow import simulate
from cbnn.sim.predict.outside import check_percentages
from cbnn.sim.predict.trace import Trace
from cbnn.sim.prove.cosim import Observation, Run, cosimulate, image_ends
from cbnn.sim.prove.design import Design
from cbnn.sim.prove.simulators import check_simulator

ICARUS_LUTS_PER_S = 1.2e6
"""What Icarus simulates: cycles times estimated LUTs per second, within a factor of two; measured
with TFC, LFC and CNV, see docs/performance.md."""
MIN_IMAGES = 4
"""Images below which no steady interval can be seen."""


class Traffic(NamedTuple):
    """When source and sink are ready, as `cosim.Run` and `simulate` have it.

    Attributes
    ----------
    idle_percent : how often the source offers nothing, 0 to 90
    stall_percent : how often the sink takes nothing, 0 to 90
    seed : of both patterns
    """

    idle_percent: int = 0
    stall_percent: int = 0
    seed: int = 0

    @property
    def is_free(self) -> bool:
        """Whether nothing idles or stalls."""
        return self.idle_percent == self.stall_percent == 0


FREE = Traffic()
"""Always ready."""


@dataclass(frozen=True)
class Verification:
    """What a co-simulation showed.

    Attributes
    ----------
    n_images : images compared
    wrong_images : numbers of those of which a score or the class differed
    mistimed_images : numbers of those of which a beat moved in another cycle than predicted
    breaches : breaches of the AXI4-Stream rules, and wrong `tlast`, `tuser` or `frame_errors`
    predicted, measured : cycles of these images without idles and stalls; measured is None under
        idles or stalls
    """

    n_images: int
    wrong_images: list[int]
    mistimed_images: list[int]
    breaches: list[str]
    predicted: Cycles
    measured: Cycles | None

    @property
    def differences(self) -> list[str]:
        """What differs between model and hardware, one sentence each; empty when verified."""
        found = sentences(self.wrong_images, self.mistimed_images, self.breaches)
        if self.measured is not None:
            for name, predicted in asdict(self.predicted).items():
                measured = getattr(self.measured, name)
                if predicted != measured:
                    found.append(f"{name}: {measured} measured, {predicted} predicted")
        return found


def sentences(wrong: list[int], mistimed: list[int], breaches: list[str]) -> list[str]:
    """Return what differs, one sentence each; `wrong` and `mistimed` are numbers of images."""
    return [*(f"image {i}: the result of the RTL differs from the golden model's" for i in wrong),
            *(f"image {i}: its beats moved in other cycles than predicted" for i in mistimed),
            *breaches]


def verify(network: Network, accelerator: Accelerator, images: NDArray, verilog: Path, *,
           traffic: Traffic = FREE, simulator: str = "icarus",
           waves: Path | None = None) -> Verification:
    """Generate Verilog into `verilog`, send `images` through it in cocotb, and compare every beat.

    Parameters
    ----------
    network, accelerator : the network, and its hardware
    images : integer array (N, height, width, colours), N at least 4 for a steady interval
    verilog : folder for the Verilog; new, empty, or written by an earlier call
    traffic : how often the source idles and the sink stalls
    simulator : ``icarus`` or ``verilator``
    waves : file for the waves of every signal, as FST; only with ``icarus``

    Raises
    ------
    ValueError
        When images, percentages, the simulator or the folder do not suit.
    SimulationError
        When the simulator is missing or fails.
    MismatchError
        When the hardware hangs.
    """
    if len(images) < MIN_IMAGES:
        raise ValueError(f"{len(images)} images given; at least {MIN_IMAGES} are needed to see a "
                         "steady interval")
    check_percentages(traffic.idle_percent, traffic.stall_percent)
    check_simulator(simulator)
    n_images, first = len(images), accelerator.kernels.index(accelerator.mvtus[0])
    expected = accelerator.classify.encoded(golden.scores(network, images))
    free = simulate(accelerator, n_images)
    trace = free if traffic.is_free else simulate(accelerator, n_images, **traffic._asdict())
    generate(accelerator, verilog, asdict(predict(accelerator)))
    run = Run(tuple(format(beat, "x") for beat in input_beats(accelerator, images)),
              image_ends(n_images, accelerator.input_beats), len(expected), *traffic,
              **_patience(trace, first))
    unit = accelerator.mvtus[0].name.removeprefix(f"{accelerator.name}_")
    [seen] = cosimulate(Design.generated(verilog, accelerator.name), [run],
                        busy=[f"u_{unit}.go"], simulator=simulator, waves=waves)
    per_image = accelerator.m_axis.beats
    wrong = {i // per_image for i, beat in enumerate(expected) if seen.out_beats[i] != beat}
    marks = mark_breaches(np.reshape(seen.out_last, (n_images, -1)),
                          np.reshape(seen.out_user, (n_images, -1)), seen.frame_errors)
    predicted = _summary(free.entered, free.taken(-1), len(free.taken(first)), n_images)
    measured = _summary(seen.in_cycles, seen.out_cycles, seen.busy[0], n_images)
    return Verification(n_images, sorted(wrong), _mistimed(seen, trace), [*seen.breaches, *marks],
                        predicted, measured if traffic.is_free else None)


def _patience(trace: Trace, first: int) -> dict[str, int]:
    """Cycles after which the RTL hangs, and cycles for which it works on after the last result.

    Rows that a stride or a pool drops may still enter, and be worked on by the first layer.
    """
    end = int(trace.taken(-1)[-1])
    work_end = max(int(trace.entered[-1]), int(trace.taken(first)[-1]))
    return {"max_cycles": 2 * max(end, work_end) + 1000, "drain_cycles": max(0, work_end - end)}


def icarus_seconds(accelerator: Accelerator, n_images: int) -> float:
    """Estimate how long Icarus simulates so many images."""
    cycles = (accelerator.interval_cycles * (n_images - 1)
              + sum(kernel.latency_cycles for kernel in accelerator.kernels))
    return cycles * accelerator.luts / ICARUS_LUTS_PER_S


def _summary(in_cycles: Sequence[int] | NDArray, out_cycles: Sequence[int] | NDArray, busy: int,
             n_images: int) -> Cycles:
    """Beats and work are the mean of all images; latency is the first image's."""
    per_image = len(out_cycles) // n_images
    ends = out_cycles[per_image - 1 :: per_image]
    return Cycles(_mean(len(in_cycles), n_images), _mean(busy, n_images), int(ends[-1] - ends[-2]),
                  int(ends[0] - in_cycles[0]))


def _mean(total: int, n: int) -> float:
    """Return a whole number where images are alike, else a fraction, which no prediction equals."""
    return total // n if total % n == 0 else total / n


def _mistimed(seen: Observation, trace: Trace) -> list[int]:
    """Images of which a beat went in or came out in another cycle than predicted, or not at all."""
    found: set[int] = set()
    for rtl, predicted in ((seen.in_cycles, trace.entered), (seen.out_cycles, trace.taken(-1))):
        cycles, per_image = np.full(len(predicted), -1), len(predicted) // trace.n_images
        cycles[: len(rtl)] = rtl[: len(predicted)]
        found.update((np.flatnonzero(cycles != predicted) // per_image).tolist())
    return sorted(found)


def mark_breaches(last: NDArray, user: NDArray, frame_errors: int | None) -> list[str]:
    """Say what is wrong with the marks after whole images; `last`, `user` are (images, beats)."""
    expected = np.arange(last.shape[1]) == last.shape[1] - 1
    found = [f"m_axis: tlast of image {i} is not in its last beat"
             for i in np.flatnonzero((last != expected).any(axis=1))]
    found += [f"m_axis: tuser marks image {i}, whose frame was whole"
              for i in np.flatnonzero(user.any(axis=1))]
    if frame_errors != 0:
        found.append(f"frame_errors is {frame_errors} after {len(last)} frames that were whole")
    return found
