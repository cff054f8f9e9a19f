"""The golden model: what the accelerator must compute.

It works on whole batches of images and imitates no hardware. There are two implementations: this one, in plain numpy,
is obviously right; that of `packed` is compiled and eighty times faster. Here popcounts are taken from products of -1
and +1: over n inputs, ``popcount(XNOR(w, x)) = (n + w . x) / 2``, exact in float32 for the n that `Topology` admits.
"""

import os

import numpy as np
from numpy.typing import NDArray

from cbnn.model.network import Network, Parameters
from cbnn.model.slices import bit_slices
from cbnn.model.topology import Conv, LayerShape

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
        from cbnn.model import packed  # numba takes a while to import

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
    from cbnn.model import packed_kernels

    return f"compiled, {packed_kernels.instructions()}"


def classes(network: Network, images: NDArray) -> NDArray[np.int64]:
    """Class of every image, shape (N,): the highest score; of equal scores the first wins."""
    return scores(network, images).argmax(axis=1)


def activations(network: Network, images: NDArray) -> list[NDArray]:
    """Output of every layer: bits as uint8 (N, height, width, channels), at last the scores (N, classes)."""
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
    """Output of every layer for values that were looked up."""
    outputs: list[NDArray] = []
    slices = bit_slices(values, network.topology.kept_slices)
    counts = network.topology.slice_weights
    for shape, parameters in zip(network.topology.shapes, network.parameters, strict=True):
        accumulator = _accumulate(shape, parameters.weights, slices, counts)
        if parameters.offsets is not None:
            outputs.append(accumulator.reshape(len(values), shape.mh) + parameters.offsets)
            break
        assert parameters.thresholds is not None
        thresholds = parameters.thresholds
        bits = (accumulator >= (thresholds if thresholds.ndim == 1 else thresholds[shape.places])).astype(np.uint8)
        outputs.append(_pool(shape, parameters, bits))
        slices, counts = outputs[-1][:, np.newaxis], (1,)
    return outputs


def _accumulate(shape: LayerShape, weights: NDArray[np.uint8], slices: NDArray[np.uint8],
                counts: tuple[int, ...]) -> NDArray[np.int64]:
    """Popcount sums, (N, rows, columns, mh), of `slices` (N, slices, height, width, channels)."""
    own_weights = shape.mw != shape.slice_inputs
    total = np.zeros((len(slices), *shape.window_shape), np.int64)
    for s, count in enumerate(counts):
        columns = slice(s * shape.slice_inputs, (s + 1) * shape.slice_inputs) if own_weights else slice(None)
        signs = 2 * weights[:, columns].astype(np.float32) - 1
        products = _windows(shape, slices[:, s]) @ signs.T
        total += count * ((shape.slice_inputs + products.astype(np.int64)) // 2)
    return total


def _windows(shape: LayerShape, bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """-1 and +1 under every window, (N, rows, columns, slice_inputs), in the order row, column, channel."""
    layer, signs = shape.layer, 2 * bits.astype(np.float32) - 1
    if not isinstance(layer, Conv):
        return signs.reshape(len(bits), 1, 1, -1)
    edge = (layer.padding, layer.padding)
    padded = np.pad(signs, ((0, 0), edge, edge, (0, 0)), constant_values=2 * layer.pad_bit - 1)
    views = np.lib.stride_tricks.sliding_window_view(padded, (layer.kernel, layer.kernel), (1, 2))
    windows = views[:, :: layer.stride, :: layer.stride].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(*windows.shape[:3], -1)


def _pool(shape: LayerShape, parameters: Parameters, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """OR over pool x pool bits; rows and columns that fill no pool are dropped; `invert` acts behind it."""
    if parameters.invert is None:
        return bits
    pool = shape.layer.pool if isinstance(shape.layer, Conv) else 1
    rows, columns, channels = shape.out_shape
    tiles = bits[:, : rows * pool, : columns * pool].reshape(len(bits), rows, pool, columns, pool, channels)
    return tiles.max(axis=(2, 4)) ^ parameters.invert
