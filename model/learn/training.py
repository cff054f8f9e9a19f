"""Training with PyTorch: Adam on clipped latent weights, straight-through gradients, cosine decay.

On a GPU where there is one, in mixed precision; else on one CPU core, so that several networks
train side by side and the same call gives the same weights.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbnn.model.data import own
from cbnn.model.learn.binary_module import BinaryModule, Precision, encode, encode_pixels, pixels
from cbnn.model.topology import Topology

# isort: split
import torch  # after binary_module, which says what to install where it is missing
from torch import Tensor
from torch.nn import functional

# PyTorch's compiler makes a folder for its cache as soon as it is imported, as optimisers do. Nothing is compiled here,
# so that any folder that exists will do.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())

SMOOTHING = 0.1
"""Label smoothing of the loss."""
TEMPERATURE = 4.0
"""Softens the teacher's answers (Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531)."""
Progress = Callable[[int, float], None]
"""Called after every epoch with its number, from 1, and its mean loss."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes
    ----------
    epochs : passes over the images
    batch : images per step; the last, smaller step of an epoch is dropped
    learning_rate : Adam's, at the start; it falls to zero along a cosine
    shift : every image is moved at random by up to this many pixels each way; pixels of value 0
        enter
    flip : every other image, at random, is seen in a mirror, left for right
    seed : of first weights, order, shifts and flips

    Raises
    ------
    ValueError
        When a value is out of range.
    """

    epochs: int = 100
    batch: int = 64
    learning_rate: float = 0.01
    shift: int = 0
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch", 2), ("shift", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive and finite")


VGG = "128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-1024FC-1024FC-10FC"
"""BinaryNet's topology for CIFAR-10, arXiv 1602.02830, and the paper's."""
LENET = "32C5P0-MP2-64C5P0-MP2-256FC-10FC"
DEFAULTS = {
    # Chosen on validation splits of the training images; shifting these small, centred digits costs accuracy. The
    # shipped networks were trained for 300 epochs.
    "digits": ("16C3-16C3-MP2-32C3-MP2-64FC-10FC", Recipe(epochs=100, batch=32)),
    "mnist": (LENET, Recipe(epochs=20, batch=128, learning_rate=0.005, shift=1)),
    "fashion-mnist": (LENET, Recipe(epochs=40, batch=128, learning_rate=0.005, shift=1, flip=True)),
    "cifar10": (VGG, Recipe(epochs=300, batch=100, learning_rate=0.005, shift=4, flip=True)),
    "svhn": (VGG, Recipe(epochs=100, batch=100, learning_rate=0.005, shift=2)),
}
"""Topology and recipe of every data set; those of Fashion-MNIST, CIFAR-10 and SVHN are not tried out in full."""


def defaults(dataset: str) -> tuple[str, Recipe]:
    """Return topology and recipe of a data set; of somebody's own by the size of its images."""
    if (known := own.named(dataset)) is None:
        return DEFAULTS[dataset]
    smaller = min(known.in_shape[:2])
    body = "32C3-MP2-64C3-MP2-128FC" if smaller >= 16 else "16C3-MP2-32C3-MP2-64FC" if smaller >= 8 else "128FC-64FC"
    return f"{body}-{known.n_classes}FC", Recipe(epochs=50, batch=16, learning_rate=0.005)


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(topology: Topology, images: NDArray, labels: NDArray, recipe: Recipe, progress: Progress | None = None,
          precision: Precision = "binary", teacher: BinaryModule | None = None) -> BinaryModule:
    """Train `topology` from random weights: Adam, cosine decay, cross-entropy, latent weights clipped to [-1, 1].

    The same call gives the same weights, bit for bit, on the same machine without a GPU: it runs on
    one CPU thread and draws from generators of its own.

    Parameters
    ----------
    topology : what to train
    images : integer array, shape (N, height, width, colours), pixels 0 to 2**input_bits - 1
    labels : integer array, shape (N,), classes 0 to classes - 1
    recipe : how to train
    progress : told of every epoch
    precision : what is binary
    teacher : a trained module for the same images whose softened answers are learnt too, as much as
        the labels

    Returns
    -------
    The module, in eval mode, on the CPU.

    Raises
    ------
    ValueError
        When images or labels do not suit the topology, or fill no batch.
    """
    where = device()
    values, targets = pixels(topology, images).to(where), _check_labels(topology, labels, len(images)).to(where)
    if len(images) < recipe.batch:
        raise ValueError(f"{len(images)} images do not fill a batch of {recipe.batch}; training needs so many")
    generator = torch.Generator().manual_seed(recipe.seed)
    with _deterministic(where):
        module = BinaryModule(topology, generator, precision).train().to(where)
        if teacher is not None:
            teacher = teacher.to(where)
        steps = recipe.epochs * (len(images) // recipe.batch)
        optimiser = torch.optim.Adam(module.parameters(), recipe.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for epoch in range(1, recipe.epochs + 1):
            losses = []
            for chosen in _batches(len(images), recipe.batch, generator):
                batch = _flipped(_shifted(values[chosen.to(where)], recipe.shift, generator), recipe.flip, generator)
                with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
                    loss = _loss(module, batch, targets[chosen.to(where)], teacher)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                with torch.no_grad():
                    for layer in module.layers:
                        layer.latent.clamp_(-1, 1)
                losses.append(loss.detach())
            if progress:
                progress(epoch, float(torch.stack(losses).mean()))
    return module.eval().cpu()


def _loss(module: BinaryModule, batch: Tensor, targets: Tensor, teacher: BinaryModule | None) -> Tensor:
    logits = module(encode_pixels(module.topology, batch))
    loss = functional.cross_entropy(logits, targets, label_smoothing=SMOOTHING)
    if teacher is None:
        return loss
    with torch.no_grad():
        wanted = functional.softmax(teacher(encode_pixels(teacher.topology, batch)) / TEMPERATURE, 1)
    return (loss + TEMPERATURE**2 * functional.kl_div(functional.log_softmax(logits / TEMPERATURE, 1), wanted,
                                                     reduction="batchmean")) / 2


def classes(module: BinaryModule, images: NDArray, batch: int = 256) -> NDArray[np.int64]:
    """Class that the module itself, on the CPU, finds for every image, shape (N,)."""
    with torch.no_grad():
        return np.concatenate([module(encode(module.topology, images[i : i + batch])).argmax(1).numpy()
                               for i in range(0, len(images), batch)])


def accuracy(module: BinaryModule, images: NDArray, labels: NDArray) -> float:
    """Fraction of images that the module itself puts into their class: the way to judge one that is not binary."""
    return float(np.mean(classes(module, images) == labels))


@contextmanager
def _deterministic(where: torch.device) -> Iterator[None]:
    if where.type != "cpu":
        yield
        return
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


def _shifted(values: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move every image of (N, colours, height, width) by its own -shift to shift pixels, small moves more often."""
    if not shift:
        return values
    n, _, height, width = values.shape
    padded = functional.pad(values, (shift,) * 4, value=0)
    corner = torch.randint(0, shift + 1, (2, 2, n, 1), generator=generator).sum(0)
    rows, columns = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
    image = torch.arange(n)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _flipped(values: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Mirror every other image, at random."""
    if not flip:
        return values
    mirrored = torch.randint(0, 2, (len(values), 1, 1, 1), generator=generator).to(values.device)
    return torch.where(mirrored > 0, values.flip(3), values)
