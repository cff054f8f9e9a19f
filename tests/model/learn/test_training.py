"""Training ends in a network that computes exactly what the module did, and the shipped digits keep their promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cbnn.model.compute import golden
from cbnn.model.data import digits
from cbnn.model.exchange import storage
from cbnn.model.exchange.shipped import shipped
from cbnn.model.learn.batch_norm import BatchNorm
from cbnn.model.learn.binary_module import BinaryModule, encode, export
from cbnn.model.learn.training import Recipe, train
from cbnn.model.network import Network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.topology import Topology

SHORT = Recipe(epochs=2, batch=32, shift=1, seed=3)
COLOURED = (9, 8, 3)
TOPOLOGIES = {
    "sliced": Topology.parse("6C3-MP2-7C3-12FC-4FC", COLOURED, 3, (2, 0)),
    "weighted": Topology.parse("6C3B1-5C3-MP3-4FC", COLOURED, 4, (3, 1), "weighted"),
    "strided": Topology.parse("6C3S2P0-9C2P1B1-MP2-4FC", COLOURED, 3),
    "dense": Topology.parse("9FC-8FC-4FC", COLOURED, 2),
    "scores alone": Topology.parse("4FC", COLOURED, 2, (1,), "weighted"),
}


def random_images(topology: Topology, n: int = 96) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 1 << topology.input_bits, (n, *topology.in_shape), np.uint8)
    return images, rng.integers(0, topology.n_classes, n)


def negate_some(module: BinaryModule) -> None:
    """Give batch norm scales of every sign, and zero, and thresholds that fall on an accumulator exactly."""
    with torch.no_grad():
        for layer in list(module.layers)[:-1]:
            layer.norm.weight[::2] *= -1
            layer.norm.weight[-1] = 0
            layer.norm.bias[1:3] = 0
            layer.norm.running_mean[1:3] = layer.shape.max_accumulator % 2


def assert_equal(module: BinaryModule, network: Network, images: np.ndarray) -> None:
    with torch.no_grad():
        outputs = [o.numpy() for o in module.activations(encode(module.topology, images))]
    nodes, wanted = network.topology.nodes, golden.activations(network, images)
    # The module pools sums, so that what a pool takes never is.
    wanted = [bits for i, bits in enumerate(wanted)
              if i + 1 == len(nodes) or not isinstance(nodes[i + 1].operator, MaxPool)]
    for ours, bits in zip(outputs[:-1], wanted[:-1], strict=True):
        np.testing.assert_array_equal(ours.transpose(0, 2, 3, 1) > 0, bits.astype(bool))
    np.testing.assert_array_equal(outputs[-1], wanted[-1])
    np.testing.assert_array_equal(torch.from_numpy(outputs[-1]).argmax(1).numpy(), golden.classes(network, images))


@pytest.mark.parametrize("negative", [False, True], ids=["as trained", "negative scales"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_export_is_exact(name: str, negative: bool) -> None:
    topology = TOPOLOGIES[name]
    images, labels = random_images(topology)
    module = train(topology, images, labels, SHORT)
    if negative:
        negate_some(module)
    network = export(module)
    assert network.topology == topology
    assert_equal(module, network, images)


def test_the_highest_pixel_of_the_data_goes_into_the_network() -> None:
    module = BinaryModule(Topology.parse("4FC-3FC", (2, 2, 1), 5), torch.Generator())
    assert [export(module, 16).max_pixel, export(module).max_pixel] == [16, 31]


def test_hidden_bits_are_the_sign_of_batch_norm() -> None:
    topology = TOPOLOGIES["strided"]
    images, labels = random_images(topology)
    module = train(topology, images, labels, SHORT)
    negate_some(module)
    values = encode(topology, images).double()
    for layer in list(module.layers)[:-1]:
        with torch.no_grad():
            norm = layer.norm
            sums = layer.sums(values)
            learnt = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            scale, shift, mean, variance = BatchNorm(*(v.double()[:, None, None] for v in learnt), norm.eps)[:4]
            normalised = scale * (sums - mean) / torch.sqrt(variance + norm.eps) + shift
            values = layer(values)
        np.testing.assert_array_equal(values > 0, normalised >= 0)


def test_padding_is_the_pad_bit() -> None:
    for bit in (0, 1):
        topology = Topology.chain((1, 1, 1), 1, (0,), (Conv(1, 3, padding=1, pad_bit=bit), Dense(2)))
        module = BinaryModule(topology, torch.Generator()).eval()
        with torch.no_grad():
            module.layers[0].latent.fill_(1.0)
            sums = module.layers[0].sums(encode(topology, np.ones((1, 1, 1, 1), np.uint8)))
        assert sums.item() == (9 if bit else -7)


def test_training_learns() -> None:
    data, losses = digits.load(), []
    topology = Topology.parse("8C3-MP2-16C3-MP2-10FC", digits.IN_SHAPE, digits.INPUT_BITS)
    module = train(topology, data.train_images, data.train_labels, Recipe(epochs=10, batch=64),
                   lambda epoch, loss: losses.append((epoch, loss)))
    assert [epoch for epoch, _ in losses] == list(range(1, 11))
    assert losses[-1][1] < 0.8 * losses[0][1]
    assert golden.accuracy(export(module), data.test_images, data.test_labels) > 0.6


def test_same_recipe_same_bytes(tmp_path: Path) -> None:
    topology = TOPOLOGIES["sliced"]
    images, labels = random_images(topology)
    threads = torch.get_num_threads()
    for name, seed, disturbance in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        torch.manual_seed(disturbance)
        module = train(topology, images, labels, Recipe(epochs=2, batch=32, shift=1, seed=seed))
        storage.save(export(module), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


PROMISED = {(4, 3, 2, 1, 0): 0.95, (4, 3, 2, 1): 0.96, (4, 3, 2): 0.947, (4, 3): 0.935, (3,): 0.756}


@pytest.mark.parametrize("kept", PROMISED, ids=str)
def test_shipped_digits(kept: tuple[int, ...]) -> None:
    data = digits.load()
    network = storage.load(shipped()[f"digits-{len(kept)}"])
    assert network.topology.kept_slices == kept
    assert network.topology.layers_text == "16C3-16C3-MP2-32C3-MP2-64FC-10FC"
    assert golden.accuracy(network, data.test_images, data.test_labels) >= PROMISED[kept]


@pytest.mark.parametrize(("values", "sentence"), [
    ({"epochs": 0}, "epochs is 0; it must be at least 1"),
    ({"batch": 1}, "batch is 1; it must be at least 2"),
    ({"shift": -1}, "shift is -1; it must be at least 0"),
    ({"seed": -1}, "seed is -1; it must be at least 0"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive and finite"),
    ({"learning_rate": float("nan")}, "learning_rate is nan; it must be positive and finite"),
])
def test_bad_recipe(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Recipe(**values)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("labels", "sentence"), [
    (np.zeros(95, int), "labels of shape (95,) given for 96 images; one label per image is needed"),
    (np.zeros(96), "labels are float64; classes must be integers"),
    (np.full(96, 4), "labels 4 to 4 given; the classes are 0 to 3"),
    (np.full(96, -1), "labels -1 to -1 given; the classes are 0 to 3"),
])
def test_bad_labels(labels: np.ndarray, sentence: str) -> None:
    topology = TOPOLOGIES["sliced"]
    with pytest.raises(ValueError) as caught:
        train(topology, random_images(topology)[0], labels, SHORT)
    assert str(caught.value) == sentence


def test_bad_images() -> None:
    topology = TOPOLOGIES["sliced"]
    images, labels = random_images(topology, 16)
    with pytest.raises(ValueError) as caught:
        train(topology, images, labels, SHORT)
    assert str(caught.value) == "16 images do not fill a batch of 32; training needs so many"
    with pytest.raises(ValueError) as caught:
        train(topology, images + 8, labels, SHORT)
    assert str(caught.value).endswith("3 bits hold 0 to 7")


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
sys.meta_path.insert(0, Absent())
import cbnn.model.compute.golden, cbnn.model.exchange.storage
import cbnn.model.learn.training
"""


def test_without_torch() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: training needs PyTorch, which is not installed; install cbnn[train]")
