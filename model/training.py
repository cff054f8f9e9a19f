"""Training with PyTorch: latent weights, straight-through gradients, and an exact way to the integer network.

Sources: straight-through gradients and clipped latent weights are Courbariaux et al., "Binarized Neural
Networks", arXiv 1602.02830, section 1; batch norm with the sign as one threshold is Umuroglu et al., "FINN",
arXiv 1612.07119, section 4.2.2.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbnn.model import digits
from cbnn.model.batch_norm import BatchNorm, fold
from cbnn.model.network import Network, Parameters
from cbnn.model.slices import bit_slices, check_images
from cbnn.model.topology import Conv, LayerShape, Topology

try:
    import torch
except ImportError as error:
    raise ImportError("training needs PyTorch, which is not installed; install cbnn[train]") from error
from torch import Tensor, nn
from torch.nn import functional

SPREAD = 0.1
"""First latent weights are drawn from -SPREAD to SPREAD: far inside the clip at 1, so that signs still turn."""
SMOOTHING = 0.1
"""Label smoothing of the loss."""
Progress = Callable[[int, float], None]
"""Called behind every epoch with its number, from 1, and its mean loss."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes
    ----------
    epochs : passes over the images
    batch : images per step; the last, smaller step of an epoch is dropped
    learning_rate : Adam's, at the start; it falls to zero along a cosine
    shift : every image is moved at random by up to this many pixels each way; pixels of value 0 enter
    seed : of first weights, order and shifts

    Raises
    ------
    ValueError
        When a value is out of range.
    """

    epochs: int = 100
    batch: int = 64
    learning_rate: float = 0.01
    shift: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch", 2), ("shift", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive and finite")


DIGITS_TOPOLOGY = "16C3-16C3-MP2-32C3-MP2-64FC-10FC"
DIGITS_RECIPE = Recipe(epochs=300, batch=32, learning_rate=0.01, shift=0, seed=0)
"""Chosen on validation splits of the training images; shifting these small, centred digits costs accuracy."""


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return (values >= 0).to(values.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (values,) = context.saved_tensors
        return gradient.mul(values.abs() <= 1)


def sign(values: Tensor) -> Tensor:
    """Return +1 where a value is not negative, else -1; the gradient passes straight through inside [-1, 1]."""
    signs: Tensor = _Sign.apply(values)
    return signs


class BinaryLayer(nn.Module):
    """What every layer has: ``latent`` weights, (mh, channels, rows, columns), and their bipolar sums.

    ``one`` is a set input, 1 but at a weighted first layer, where it is all the slices of a colour together.
    """

    def __init__(self, shape: LayerShape, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        layer = shape.layer
        self.shape, self.one = shape, shape.max_accumulator / shape.mw
        self.pad = self.one if isinstance(layer, Conv) and layer.pad_bit else -self.one
        kernel = (layer.kernel, layer.kernel) if isinstance(layer, Conv) else shape.in_shape[:2]
        latent = torch.empty(shape.mh, channels, *kernel).uniform_(-SPREAD, SPREAD, generator=generator)
        self.latent = nn.Parameter(latent)

    def sums(self, values: Tensor) -> Tensor:
        """Bipolar sums behind max pooling, (N, mh, rows, columns), exact for float64 `values`."""
        signs, layer = sign(self.latent).to(values.dtype), self.shape.layer
        if not isinstance(layer, Conv):
            return functional.linear(values.flatten(1), signs.flatten(1))[:, :, None, None]
        padded = functional.pad(values, (layer.padding,) * 4, value=self.pad) if layer.padding else values
        sums = functional.conv2d(padded, signs, stride=layer.stride)
        return functional.max_pool2d(sums, layer.pool) if layer.pool > 1 else sums

    def weights(self, n_slices: int) -> NDArray[np.uint8]:
        """Weight bits, (mh, mw), in window order: slice, row, column, channel."""
        bits = (self.latent.detach() >= 0).numpy().astype(np.uint8)
        mh, channels, rows, columns = bits.shape
        split = bits.reshape(mh, n_slices, channels // n_slices, rows, columns)
        return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2)).reshape(mh, -1)


class HiddenLayer(BinaryLayer):
    """Sums, max pooling, batch norm, sign."""

    def __init__(self, shape: LayerShape, channels: int, generator: torch.Generator) -> None:
        super().__init__(shape, channels, generator)
        self.norm = nn.BatchNorm2d(shape.mh)

    def forward(self, values: Tensor) -> Tensor:
        """Bipolar activations; in eval mode batch norm's sign is taken by the thresholds that it folds into."""
        sums = self.sums(values)
        if self.training:
            return sign(self.norm(sums))
        folded = self.folded(self.weights(1), pooled=True)  # leaves the weights alone, whatever the scale's sign
        assert folded.thresholds is not None
        assert folded.invert is not None
        least = torch.from_numpy(2 * folded.thresholds - self.shape.max_accumulator)[:, None, None]
        return sign(((sums >= least) ^ torch.from_numpy(folded.invert)[:, None, None]).double() - 0.5)

    def folded(self, weights: NDArray[np.uint8], pooled: bool) -> Parameters:
        """Integer parameters of this layer, batch norm taken in float64."""
        state = self.norm.state_dict()
        scale, shift, mean, variance = (
            state[name].numpy().astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var"))
        norm = BatchNorm(scale, shift, mean, variance, self.norm.eps)
        return fold(weights, norm, self.shape.max_accumulator, pooled)


class ScoreLayer(BinaryLayer):
    """Sums plus an integer offset per class; in training one positive scale, shared by the classes, makes logits."""

    def __init__(self, shape: LayerShape, channels: int, generator: torch.Generator) -> None:
        super().__init__(shape, channels, generator)
        self.offset = nn.Parameter(torch.zeros(shape.mh))
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * np.log(shape.max_accumulator), dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """Logits (N, classes) in training, else the golden model's scores."""
        sums = self.sums(values).flatten(1)
        offset = self.offset + (self.offset.round() - self.offset).detach()
        if self.training:
            return (sums + 2 * offset) * self.log_scale.exp()
        return (sums + self.shape.max_accumulator) / 2 + self.offset.detach().round()


class BinaryModule(nn.Module):
    """The trainable form of a topology.

    In eval mode it computes in float64, which holds every integer here exactly, what the exported network does:
    bits as -1 and +1, and scores.
    """

    layers: Sequence[BinaryLayer]

    def __init__(self, topology: Topology, generator: torch.Generator) -> None:
        super().__init__()
        self.topology = topology
        layers: list[BinaryLayer] = []
        for i, shape in enumerate(topology.shapes):
            kind = HiddenLayer if i < len(topology.layers) - 1 else ScoreLayer
            channels = shape.in_shape[2] * (shape.mw // shape.slice_inputs)
            layers.append(kind(shape, channels, generator))
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]

    def activations(self, values: Tensor) -> list[Tensor]:
        """Output of every layer for the encoded images, (N, channels, rows, columns), at last (N, classes)."""
        values = values if self.training else values.double()
        outputs: list[Tensor] = []
        for layer in self.layers:
            values = layer(values)
            outputs.append(values)
        return outputs

    def forward(self, values: Tensor) -> Tensor:
        """Logits in training, scores in eval mode, (N, classes), of encoded images."""
        return self.activations(values)[-1]


def encode(topology: Topology, images: NDArray) -> Tensor:
    """Images as the first layer sees them: float32 (N, channels, height, width).

    Sliced: -1 and +1, a channel per slice and colour, slice outermost, MSB first. Weighted: a channel per colour,
    the sum of -1 and +1 times what each slice counts.

    Raises
    ------
    ValueError
        When the images' shape, dtype or range is not the topology's.
    """
    check_images(images, topology.in_shape, topology.input_bits)
    bipolar = 2 * bit_slices(images, topology.kept_slices).transpose(0, 1, 4, 2, 3).astype(np.float32) - 1
    if topology.first_layer == "weighted":
        bipolar = np.einsum("nschw,s->nchw", bipolar, np.array(topology.slice_weights, np.float32))
    return torch.from_numpy(np.ascontiguousarray(bipolar.reshape(len(images), -1, *topology.in_shape[:2])))


def train(topology: Topology, images: NDArray, labels: NDArray, recipe: Recipe,
          progress: Progress | None = None) -> BinaryModule:
    """Train `topology` from random weights: Adam, cosine decay, cross-entropy, latent weights clipped to [-1, 1].

    The same call gives the same weights, bit for bit, on the same machine: it runs on one CPU thread and draws from
    generators of its own.

    Parameters
    ----------
    topology : what to train
    images : integer array, shape (N, height, width, colours), pixels 0 to 2**input_bits - 1
    labels : integer array, shape (N,), classes 0 to classes - 1
    recipe : how to train
    progress : told of every epoch

    Returns
    -------
    The module, in eval mode.

    Raises
    ------
    ValueError
        When images or labels do not suit the topology, or fill no batch.
    """
    values, targets = encode(topology, images), _check_labels(topology, labels, len(images))
    if len(images) < recipe.batch:
        raise ValueError(f"{len(images)} images do not fill a batch of {recipe.batch}")
    generator = torch.Generator().manual_seed(recipe.seed)
    with _deterministic():
        module = BinaryModule(topology, generator).train()
        steps = recipe.epochs * (len(images) // recipe.batch)
        optimiser = torch.optim.Adam(module.parameters(), recipe.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for epoch in range(1, recipe.epochs + 1):
            losses = []
            for chosen in _batches(len(images), recipe.batch, generator):
                batch = _shifted(values[chosen], recipe.shift, -module.layers[0].one, generator)
                loss = functional.cross_entropy(module(batch), targets[chosen], label_smoothing=SMOOTHING)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                with torch.no_grad():
                    for layer in module.layers:
                        layer.latent.clamp_(-1, 1)
                losses.append(loss.item())
            if progress:
                progress(epoch, float(np.mean(losses)))
    return module.eval()


def train_digits(kept_slices: tuple[int, ...], recipe: Recipe = DIGITS_RECIPE,
                 progress: Progress | None = None) -> BinaryModule:
    """Train the network for the handwritten digits at one level of pruning, as shipped in ``pretrained/``."""
    topology = Topology.parse(DIGITS_TOPOLOGY, digits.IN_SHAPE, digits.INPUT_BITS, kept_slices)
    data = digits.load()
    return train(topology, data.train_images, data.train_labels, recipe, progress)


def export(module: BinaryModule) -> Network:
    """Return the integer network that computes exactly what `module` does in eval mode.

    Raises
    ------
    ValueError
        When training diverged, so that batch norm holds values that are not finite.
    """
    parameters: list[Parameters] = []
    for shape, layer in zip(module.topology.shapes, module.layers, strict=True):
        weights = layer.weights(shape.mw // shape.slice_inputs)
        if isinstance(layer, HiddenLayer):
            parameters.append(layer.folded(weights, isinstance(shape.layer, Conv) and shape.layer.pool > 1))
        elif isinstance(layer, ScoreLayer):
            parameters.append(Parameters(weights, offsets=layer.offset.detach().round().numpy().astype(np.int64)))
    return Network(module.topology, tuple(parameters))


@contextmanager
def _deterministic() -> Iterator[None]:
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads)


def _check_labels(topology: Topology, labels: NDArray, n_images: int) -> Tensor:
    if labels.shape != (n_images,):
        raise ValueError(f"labels of shape {labels.shape} given for {n_images} images; one label per image is needed")
    if labels.dtype.kind not in "ui":
        raise ValueError(f"labels are {labels.dtype}; classes must be integers")
    low, high, last = int(labels.min()), int(labels.max()), topology.n_classes - 1
    if low < 0 or high > last:
        raise ValueError(f"labels {low} to {high} given; the classes are 0 to {last}")
    return torch.from_numpy(labels.astype(np.int64))


def _batches(n: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(n, generator=generator)
    for start in range(0, n - batch + 1, batch):
        yield order[start : start + batch]


def _shifted(values: Tensor, shift: int, black: float, generator: torch.Generator) -> Tensor:
    """Move every image of (N, channels, height, width) by its own -shift to shift pixels, small moves more often."""
    if not shift:
        return values
    n, _, height, width = values.shape
    padded = functional.pad(values, (shift,) * 4, value=black)
    corner = torch.randint(0, shift + 1, (2, 2, n, 1), generator=generator).sum(0)
    rows, columns = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
    image = torch.arange(n)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
