"""Verification: generated Verilog against the golden model, bit for bit, and its cycles against the prediction."""

from dataclasses import asdict, dataclass
from pathlib import Path

from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator, input_beats, output_beats
from cbnn.hw.verilog import FILE_LIST, generate
from cbnn.model import golden
from cbnn.model.network import Network
from cbnn.sim.cosim import Observation, Run, check_simulator, cosimulate
from cbnn.sim.dataflow import check_percentages, simulate

MIN_IMAGES = 4
"""Images below which no steady interval can be seen."""


@dataclass(frozen=True)
class Cycles:
    """Counts per image.

    Attributes
    ----------
    input_beats : beats of `s_axis`
    first_layer_cycles : cycles in which the first layer's matrix unit works
    interval_cycles : cycles between images in the long run
    latency_cycles : from the first beat of an image in to its last beat out, for the first image
    """

    input_beats: float
    first_layer_cycles: float
    interval_cycles: int
    latency_cycles: int


@dataclass(frozen=True)
class Verification:
    """What a co-simulation showed.

    Attributes
    ----------
    n_images : images compared
    wrong_images : numbers of those of which a score or the class differed
    breaches : breaches of the AXI4-Stream rules, in words
    predicted, measured : cycles; None for measured under idles or stalls, which move them
    """

    n_images: int
    wrong_images: list[int]
    breaches: list[str]
    predicted: Cycles
    measured: Cycles | None

    @property
    def differences(self) -> list[str]:
        """What differs between model and hardware, one sentence each; empty when verified."""
        found = [f"image {i}: the scores of the RTL differ from the golden model's" for i in self.wrong_images]
        found += self.breaches
        if self.measured is not None:
            for name, predicted in asdict(self.predicted).items():
                measured = getattr(self.measured, name)
                if predicted != measured:
                    found.append(f"{name}: {measured} measured, {predicted} predicted")
        return found


def verify(network: Network, accelerator: Accelerator, images: NDArray, verilog: Path, *, idle_percent: int = 0,
           stall_percent: int = 0, seed: int = 0, simulator: str = "icarus", waves: Path | None = None) -> Verification:
    """Generate Verilog into `verilog`, send `images` through it in cocotb, and compare with the golden model.

    Parameters
    ----------
    network, accelerator : the network, and its hardware
    images : integer array (N, height, width, colours), N at least 4 for a steady interval
    verilog : folder for the Verilog; new, empty, or written by an earlier call
    idle_percent, stall_percent : how often the source idles and the sink stalls, 0 to 90
    simulator : ``icarus`` or ``verilator``
    waves : file for the waves of every signal, as FST; only with ``icarus``

    Raises
    ------
    ValueError
        When images, percentages, the simulator or the folder do not suit.
    SimulationError
        When the simulator is missing or the simulation fails or hangs.
    """
    if len(images) < MIN_IMAGES:
        raise ValueError(f"{len(images)} images given; at least {MIN_IMAGES} are needed to see a steady interval")
    check_percentages(idle_percent, stall_percent)
    check_simulator(simulator)
    expected = output_beats(accelerator, golden.scores(network, images))
    beats = tuple(format(beat, "x") for beat in input_beats(accelerator, images))
    generate(accelerator, verilog)
    slowest = sum(kernel.latency_cycles for kernel in accelerator.kernels)
    run = Run(beats, accelerator.input_beats, len(expected), idle_percent, stall_percent, seed,
              max_cycles=20 * (slowest + len(images) * accelerator.interval_cycles),
              drain_cycles=accelerator.interval_cycles)
    first = accelerator.mvtus[0].name.removeprefix(f"{accelerator.name}_")
    [seen] = cosimulate(verilog, accelerator.name, (verilog / FILE_LIST).read_text().split(), [run],
                        busy=[f"u_{first}.go"], simulator=simulator, waves=waves)
    per_image = len(expected) // len(images)
    wrong = [i for i in range(len(images)) if seen.out_beats[i * per_image : (i + 1) * per_image]
             != expected[i * per_image : (i + 1) * per_image]]
    undisturbed = idle_percent == stall_percent == 0
    return Verification(len(images), wrong, seen.breaches, predict(accelerator),
                        _measure(seen, len(images), per_image) if undisturbed else None)


def predict(accelerator: Accelerator) -> Cycles:
    """Cycles without simulating logic: by the kernels' formulas, and latency from the dataflow simulation."""
    return Cycles(accelerator.input_beats, accelerator.first_layer_cycles, accelerator.interval_cycles,
                  simulate(accelerator, 1).latency_cycles)


def _measure(seen: Observation, n_images: int, per_image: int) -> Cycles:
    """Beats and work as the mean of all images; interval of the last ones, by when the pipeline has long been full.

    Latency is that of the first image, which met the pipeline empty.
    """
    ends = seen.out_cycles[per_image - 1 :: per_image]
    [busy] = seen.busy
    return Cycles(_mean(len(seen.in_cycles), n_images), _mean(busy, n_images), ends[-1] - ends[-2],
                  ends[0] - seen.in_cycles[0])


def _mean(total: int, n: int) -> float:
    """Whole where images are alike, as they must be; else a fraction, which no prediction equals."""
    return total // n if total % n == 0 else total / n
