"""The golden model: what the accelerator must compute.

It works on whole batches of images and imitates no hardware. There are two implementations: this
one, what the operators compute in plain numpy, is obviously right; that of `packed` is compiled and
eighty times faster.
"""

import os

import numpy as np
from numpy.typing import NDArray

from cbnn.model.network import Network
from cbnn.model.slices import bit_slices
from cbnn.model.topology import INPUT

BACKENDS = ("compiled", "numpy")
"""Implementations; the first is the default, the environment variable CBNN_BACKEND names another."""
BATCH = 256
"""Images worked on at once; bounds the memory for windows."""


def scores(network: Network, images: NDArray, backend: str | None = None) -> NDArray[np.int64]:
    """Score of every class for every image.

    Parameters
    ----------
    network : the network
    images : integer array, shape (N, height, width, colours), of pixels as data sets have them
    backend : one of `BACKENDS`; they give the same scores

    Returns
    -------
    int64 array, shape (N, classes): popcount plus the class's offset

    Raises
    ------
    ValueError
        When the images' shape, dtype or range is not the network's, or there is no such backend.
    """
    backend = _backend(backend)
    if backend == "compiled":
        from cbnn.model.compute import packed  # numba takes a while to import

        return packed.scores(network, images)
    values = network.look_up(images)
    batches = (values[i : i + BATCH] for i in range(0, len(values), BATCH))
    return np.concatenate([_forward(network, batch)[-1] for batch in batches])


def _backend(name: str | None = None) -> str:
    name = name or os.environ.get("CBNN_BACKEND") or BACKENDS[0]
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r} is not one of {', '.join(BACKENDS)}")
    return name


def backend_text() -> str:
    """Name the implementation that `scores` takes here and, where it is the compiled one, what counts its bits."""
    if _backend() == "numpy":
        return "numpy"
    from cbnn.model.compute import packed_kernels

    return f"compiled, {packed_kernels.instructions()}"


def classes(network: Network, images: NDArray) -> NDArray[np.int64]:
    """Class of every image, shape (N,): the highest score; of equal scores the first wins."""
    return scores(network, images).argmax(axis=1)


def activations(network: Network, images: NDArray) -> list[NDArray]:
    """Output of every node: bits as uint8 (N, height, width, channels), at last the scores (N, classes)."""
    return list(_forward(network, network.look_up(images)))


def accuracy(network: Network, images: NDArray, labels: NDArray) -> float:
    """Fraction of images whose class is their label.

    Raises
    ------
    ValueError
        When the images do not suit the network, or there is not one label per image.
    """
    check_labels(labels, len(images))
    return float(np.mean(classes(network, images) == labels))


def check_labels(labels: NDArray, n_images: int) -> None:
    """Raise ValueError unless `labels` is an array of one label per image."""
    if labels.shape != (n_images,):
        raise ValueError(f"labels of shape {labels.shape} given for {n_images} images; one label per image is needed")


def _forward(network: Network, values: NDArray) -> list[NDArray]:
    """Output of every node for values that were looked up."""
    topology = network.topology
    outputs = {INPUT: bit_slices(values, topology.kept_slices)}
    for i, (node, shape) in enumerate(zip(topology.nodes, topology.shapes, strict=True)):
        outputs[i] = shape.compute(network.parameters[i], *(outputs[source] for source in node.inputs))
    del outputs[INPUT]
    scores = outputs.pop(len(topology.nodes) - 1)
    return [*(bits[:, 0] for bits in outputs.values()), scores]
