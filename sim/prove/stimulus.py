"""Stimulus: the images that are sent through a network where none are given."""

import numpy as np
from numpy.typing import NDArray

from cbnn.model.data import digits
from cbnn.model.network import Network
from cbnn.model.topology import Topology


def takes_digits(topology: Topology) -> bool:
    """Return whether a network takes the images of the digits networks."""
    return (topology.in_shape, topology.input_bits) == (digits.IN_SHAPE, digits.INPUT_BITS)


def sample_images(network: Network, n: int, seed: int) -> NDArray:
    """Return `n` images that suit a network: digits of the test split if it takes digits, else random pixels."""
    if takes_digits(network.topology) and network.pixel_table is None:
        return digits.load().test_images[:n]
    high = network.n_pixel_values
    return np.random.default_rng(seed).integers(0, high, (n, *network.topology.in_shape), np.uint16)
