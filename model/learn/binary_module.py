"""The trainable form of a topology, in PyTorch, and an exact way from it to the integer network.

Sources: straight-through gradients and clipped latent weights are Courbariaux et al., "Binarized
Neural Networks", arXiv 1602.02830, section 1; batch norm with the sign as one threshold is Umuroglu
et al., "FINN", arXiv 1612.07119, section 4.2.2.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cbnn.model.learn.batch_norm import BatchNorm, fold
from cbnn.model.network import Network, Origin
from cbnn.model.operators.matrix import MatrixParameters, MatrixShape
from cbnn.model.operators.max_pool import PoolParameters, PoolShape
from cbnn.model.operators.operator import Parameters
from cbnn.model.slices import check_images
from cbnn.model.topology import Topology

try:
    import torch
except ImportError as error:
    raise ModuleNotFoundError("training needs PyTorch, which is not installed; install cbnn[train]") from error
from torch import Tensor, nn
from torch.nn import functional

SPREAD = 0.1
"""First latent weights are drawn from -SPREAD to SPREAD: far inside the clip at 1, so that signs still turn."""
Precision = Literal["binary", "float first layer", "float"]
"""What is binary: all weights and activations; all but the first layer's weights; nothing. For comparison: only what is
binary can be exported."""


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

    float_weights = float_outputs = False
    """For comparison with full precision: latent weights as they are, hard tanh for the sign."""

    def __init__(self, shape: MatrixShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.one = shape, shape.max_accumulator / shape.mw
        self.pad = self.one if shape.operator.pad_bit else -self.one
        channels = shape.tensor.n_weighted * shape.in_shape[2]
        latent = torch.empty(shape.mh, channels, *shape.kernel).uniform_(-SPREAD, SPREAD, generator=generator)
        self.latent = nn.Parameter(latent)

    def sums(self, values: Tensor) -> Tensor:
        """Bipolar sums, (N, mh, rows, columns), exact for float64 `values`."""
        operator = self.shape.operator
        signs = (self.latent if self.float_weights else sign(self.latent)).to(values.dtype)
        if self.shape.n_windows == 1 and not operator.padding:
            return functional.linear(values.flatten(1), signs.flatten(1))[:, :, None, None]
        padded = functional.pad(values, (operator.padding,) * 4, value=self.pad) if operator.padding else values
        return functional.conv2d(padded, signs, stride=operator.stride)

    def weights(self) -> NDArray[np.uint8]:
        """Weight bits, (mh, mw)."""
        bits = (self.latent.detach() >= 0).cpu().numpy().astype(np.uint8)
        return self.shape.in_window_order(bits, ("slice", "channel", "row", "column"))


class HiddenLayer(BinaryLayer):
    """Sums, max pooling where a pool takes what leaves, batch norm, sign: learning pools sums, hardware bits."""

    def __init__(self, shape: MatrixShape, pool: PoolShape | None, generator: torch.Generator) -> None:
        super().__init__(shape, generator)
        self.pool = pool
        self.norm = nn.BatchNorm2d(shape.mh)

    def sums(self, values: Tensor) -> Tensor:
        """Bipolar sums after the pool, (N, mh, rows, columns), exact for float64 `values`."""
        sums = super().sums(values)
        return functional.max_pool2d(sums, self.pool.operator.size) if self.pool else sums

    def forward(self, values: Tensor) -> Tensor:
        """Bipolar activations; in eval mode batch norm's sign is taken by the thresholds that it folds into."""
        sums = self.sums(values)
        if self.float_outputs:
            return functional.hardtanh(self.norm(sums.float())).to(values.dtype)
        if self.training:
            return sign(self.norm(sums))
        if self.float_weights:
            return sign(self.norm(sums.float())).to(values.dtype)
        folded, invert = self.folded(pooled=True)  # does not change the weights, whatever the scale's sign
        assert folded.thresholds is not None
        least = torch.from_numpy(2 * folded.thresholds - self.shape.max_accumulator).to(sums.device)[:, None, None]
        return sign(((sums >= least) ^ torch.from_numpy(invert).to(sums.device)[:, None, None]).double() - 0.5)

    def folded(self, pooled: bool) -> tuple[MatrixParameters, NDArray[np.bool_]]:
        """Integer parameters of this layer, batch norm taken in float64, and which rows a pool inverts."""
        state = self.norm.state_dict()
        scale, shift, mean, variance = (
            state[name].cpu().numpy().astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var"))
        norm = BatchNorm(scale, shift, mean, variance, self.norm.eps)
        return fold(self.weights(), norm, self.shape.max_accumulator, pooled)


class ScoreLayer(BinaryLayer):
    """Sums plus an integer offset per class; in training one positive scale, shared by the classes, makes logits."""

    def __init__(self, shape: MatrixShape, generator: torch.Generator) -> None:
        super().__init__(shape, generator)
        self.offset = nn.Parameter(torch.zeros(shape.mh))
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * np.log(shape.max_accumulator), dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """Logits (N, classes) in training and with float weights, else the golden model's scores."""
        sums = self.sums(values).flatten(1)
        offset = self.offset + (self.offset.round() - self.offset).detach()
        if self.training or self.float_weights:
            return (sums + 2 * offset) * self.log_scale.exp()
        return (sums + self.shape.max_accumulator) / 2 + self.offset.detach().round()


class BinaryModule(nn.Module):
    """The trainable form of a topology.

    In eval mode it computes in float64, which holds every integer here exactly, what the exported
    network does: bits as -1 and +1, and scores.
    """

    layers: Sequence[BinaryLayer]

    def __init__(self, topology: Topology, generator: torch.Generator, precision: Precision = "binary") -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(get_args(Precision))}")
        super().__init__()
        self.topology, self.precision = topology, precision
        layers: list[BinaryLayer] = []
        for i, shape in enumerate(topology.shapes):
            if isinstance(shape, MatrixShape) and shape.operator.scores:
                layers.append(ScoreLayer(shape, generator))
            elif isinstance(shape, MatrixShape):
                taker = topology.shapes[topology.taker(i)]
                layers.append(HiddenLayer(shape, taker if isinstance(taker, PoolShape) else None, generator))
        for layer in layers:
            layer.float_outputs = precision == "float"
            layer.float_weights = precision == "float" or (precision != "binary" and layer is layers[0])
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]

    def activations(self, values: Tensor) -> list[Tensor]:
        """Output of every layer for the encoded images, (N, channels, rows, columns), at last (N, classes)."""
        values = values.double() if self.precision == "binary" and not self.training else values
        outputs: list[Tensor] = []
        for layer in self.layers:
            values = layer(values)
            outputs.append(values)
        return outputs

    def forward(self, values: Tensor) -> Tensor:
        """Logits in training, scores in eval mode, (N, classes), of encoded images."""
        return self.activations(values)[-1]


def encode(topology: Topology, images: NDArray) -> Tensor:
    """Images as the first layer sees them, see `encode_pixels`.

    Raises
    ------
    ValueError
        When the images' shape, dtype or range is not the topology's.
    """
    return encode_pixels(topology, pixels(topology, images))


def pixels(topology: Topology, images: NDArray) -> Tensor:
    """Images as int32 (N, colours, height, width), checked, so that a batch of them can be moved about cheaply."""
    check_images(images, topology.in_shape, topology.input_bits)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.int32))


def encode_pixels(topology: Topology, values: Tensor) -> Tensor:
    """Pixels (N, colours, height, width) as the first layer sees them: float32 (N, channels, height, width).

    Sliced: -1 and +1, a channel per slice and colour, slice outermost, MSB first. Weighted: a
    channel per colour, the sum of -1 and +1 times what each slice counts.
    """
    slices = [((values >> b) & 1).float().mul_(2).sub_(1) for b in topology.kept_slices]
    if not topology.tensor.shared:
        return torch.cat(slices, 1)
    return sum(count * bits for count, bits in zip(topology.tensor.slices, slices, strict=True))  # type: ignore


def export(module: BinaryModule, max_pixel: int = 0, origin: Origin | None = None) -> Network:
    """Return the integer network that computes exactly what `module` does in eval mode.

    Parameters
    ----------
    max_pixel, origin : of the data set that it was trained on, see `Network`

    Raises
    ------
    ValueError
        When training diverged, so that batch norm holds values that are not finite, or the module
        is not binary.
    """
    if module.precision != "binary":
        raise ValueError(f"the module's precision is {module.precision!r}; only a binary one can be exported")
    topology, layers = module.topology, iter(module.layers)
    parameters: dict[int, Parameters] = {}
    for i, shape in enumerate(topology.shapes):
        layer = next(layers) if isinstance(shape, MatrixShape) else None
        if isinstance(layer, HiddenLayer):
            parameters[i], invert = layer.folded(pooled=layer.pool is not None)
            if layer.pool:
                parameters[topology.taker(i)] = PoolParameters(invert)
        elif isinstance(layer, ScoreLayer):
            offsets = layer.offset.detach().round().cpu().numpy().astype(np.int64)
            parameters[i] = MatrixParameters(layer.weights(), offsets=offsets)
    return Network(topology, tuple(parameters[i] for i in range(len(topology.nodes))), max_pixel=max_pixel,
                   origin=origin)
