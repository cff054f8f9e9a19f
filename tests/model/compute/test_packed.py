"""The compiled golden model: equal to the plain one, whatever the network."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding

from cbnn.model.compute import golden, packed
from cbnn.model.data import digits
from cbnn.model.exchange.shipped import shipped_digits
from cbnn.model.network import random_network
from cbnn.model.operators.conv import Conv
from cbnn.model.operators.dense import Dense
from cbnn.model.operators.max_pool import MaxPool
from cbnn.model.topology import Topology


@st.composite
def topologies(draw):
    bits = draw(st.integers(1, 8))
    kept = draw(st.sets(st.integers(0, bits - 1), min_size=1))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from((1, 2, 3, 33))))
    layers, in_shape = [], shape
    for _ in range(draw(st.integers(0, 2))):
        height, width, _ = in_shape
        kernel = draw(st.integers(1, min(5, height, width)))
        stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1))
        smallest = (min(height, width) + 2 * padding - kernel) // stride + 1
        channels = draw(st.sampled_from((1, 5, 63, 64, 65, 130)))
        layers.append(Conv(channels, kernel, stride, padding, draw(st.integers(0, 1))))
        if (size := draw(st.integers(1, min(3, smallest)))) > 1:
            layers.append(MaxPool(size))
        in_shape = Topology.chain(shape, bits, (0,), (*layers, Dense(1))).shapes[-2].out_shape
    layers += [Dense(draw(st.sampled_from((1, 7, 64, 100)))) for _ in range(draw(st.integers(1, 3)))]
    return Topology.chain(shape, bits, tuple(sorted(kept, reverse=True)), layers,
                          draw(st.sampled_from(["sliced", "weighted"])))


@settings(deadline=None, max_examples=150)
@given(topology=topologies(), seed=st.integers(0, 99), n_images=st.sampled_from((1, 2, 33)),
       n_threads=st.sampled_from((1, 3)), by_place=st.booleans())
def test_scores_are_those_of_the_plain_model(topology, seed, n_images, n_threads, by_place):
    network = random_network(topology, seed, by_place)
    images = np.random.default_rng(seed).integers(0, 1 << topology.input_bits, (n_images, *topology.in_shape))
    np.testing.assert_array_equal(packed.scores(network, images, n_threads),
                                  golden.scores(network, images, backend="numpy"))


@pytest.mark.slow(14)
@pytest.mark.parametrize(("cpu", "features", "counted_by"), [
    ("skylake-avx512", "avx512f avx512bw avx512vl avx512dq avx2 popcnt", "avx512bw"),
    ("haswell", "avx2 popcnt", "avx2"), ("nehalem", "popcnt", "popcnt")])
def test_scores_with_the_instructions_of_lesser_cpus(cpu, features, counted_by, tmp_path):
    if lacking := [name for name in features.split() if not binding.get_host_cpu_features().get(name)]:
        pytest.skip(f"this CPU lacks {', '.join(lacking)}")
    environment = os.environ | {
        "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ",".join(f"+{name}" for name in features.split()),
        "NUMBA_CACHE_DIR": str(tmp_path)}
    test = f"{__file__}::{test_scores_are_those_of_the_plain_model.__name__}"
    program = ("import sys, pytest; from cbnn.model.compute.packed_kernels import instructions; "
               f"sys.exit(pytest.main(sys.argv[1:]) or instructions() != {counted_by!r})")
    done = subprocess.run([sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", test], env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("network", shipped_digits(), ids=lambda network: f"{len(network.topology.kept_slices)}")
def test_scores_of_whole_test_sets(network):
    images = digits.load().test_images
    np.testing.assert_array_equal(golden.scores(network, images, backend="compiled"),
                                  golden.scores(network, images, backend="numpy"))


def test_words_are_filled_up_with_zeros():
    bits = np.ones((2, 3, 70), np.uint8)
    words = packed.pack(bits)
    assert words.shape == (2, 3, 2)
    assert words.dtype == np.uint64
    assert (words[..., 0] == np.uint64(2**64 - 1)).all()
    assert (words[..., 1] == np.uint64(2**6 - 1)).all()
    assert packed.pack(np.eye(64, dtype=np.uint8))[5, 0] == np.uint64(32)


def test_the_environment_chooses(monkeypatch):
    network, images = shipped_digits()[0], digits.load().test_images[:4]
    monkeypatch.setattr(packed, "scores", lambda *_: "compiled")
    assert golden.scores(network, images) == "compiled"
    monkeypatch.setenv("CBNN_BACKEND", "numpy")
    assert golden.scores(network, images).shape == (4, 10)
    assert golden.scores(network, images, backend="compiled") == "compiled"
    monkeypatch.setenv("CBNN_BACKEND", "cuda")
    with pytest.raises(ValueError) as caught:
        golden.scores(network, images)
    assert str(caught.value) == "backend 'cuda' is not one of compiled, numpy"
