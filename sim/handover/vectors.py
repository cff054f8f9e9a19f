"""Test vectors: images as beats, what must come out, and in which cycle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbnn.hw.accelerator import Accelerator
from cbnn.hw.input_stream import input_beats
from cbnn.model.compute import golden
from cbnn.model.network import Network
from cbnn.sim.predict.dataflow import simulate

MIN_VECTORS = 4
"""Images that the bench needs: a whole one on both sides of two damaged ones."""


@dataclass(frozen=True)
class Vectors:
    """Images and their results, of an accelerator that nothing holds up.

    Attributes
    ----------
    images : pixels (N, height, width, colours), as data sets have them
    beats : `s_axis_tdata` (N, beats of an image)
    scores : (N, classes)
    results : `m_axis_tdata` (N, beats of a result)
    cycles : when those leave (N, beats of a result), counted from the cycle in which the first beat
        of all is taken
    """

    images: NDArray
    beats: list[list[int]]
    scores: NDArray[np.int64]
    results: list[list[int]]
    cycles: NDArray[np.int64]

    @property
    def latency_cycles(self) -> int:
        """Cycles from the first beat in to the last beat of the first result."""
        return int(self.cycles[0, -1])

    @property
    def interval_cycles(self) -> int:
        """Cycles between the last two results."""
        return int(self.cycles[-1, -1] - self.cycles[-2, -1])

    def content(self) -> dict:
        """Return what the bench reads; beats are hexadecimal."""
        rows = zip(self.images.tolist(), self.beats, self.results, self.cycles.tolist(), self.scores.tolist(),
                   strict=True)
        return {"beats_per_image": len(self.beats[0]),
                "hold_cycles": self.latency_cycles + 3 * self.interval_cycles,
                # No correct accelerator moves no beat for so long, however often the bench holds it up.
                "patience_cycles": 20 * (self.latency_cycles + self.interval_cycles) + 1000,
                "images": [{"pixels": pixels, "beats": [f"{beat:x}" for beat in beats],
                            "result": [f"{beat:x}" for beat in result], "result_cycles": cycles, "scores": scores,
                            "class": int(np.argmax(scores))}
                           for pixels, beats, result, cycles, scores in rows]}


def vectors(network: Network, accelerator: Accelerator, images: NDArray) -> Vectors:
    """Return test vectors of at least `MIN_VECTORS` images.

    Raises
    ------
    ValueError
        When there are fewer, or they do not suit the network.
    """
    n = len(images)
    if n < MIN_VECTORS:
        raise ValueError(f"{n} images given; a test bench needs at least {MIN_VECTORS}")
    scores = golden.scores(network, images)
    trace = simulate(accelerator, n)
    cycles = np.array(trace.taken(-1)).reshape(n, -1) - int(trace.entered[0])
    return Vectors(images, _rows(input_beats(accelerator, images), n), scores,
                   _rows(accelerator.classify.encoded(scores), n), cycles)


def _rows(values: list[int], n: int) -> list[list[int]]:
    return [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
