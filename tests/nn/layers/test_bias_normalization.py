"""Bias and activation before BatchNorm: on a GPU, where blocks share channels, they go along in its passes."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gpunn import BatchNorm, Conv2D, Dense, GlobalAveragePool2D, ReLU, Sequential, Sigmoid, Softplus, Tanh
from gpunn.backend.base import Backend
from gpunn.backend.cpu import NumpyBackend

SHAPE, N = (16, 16, 3), 32
"""With 32 filters 2¹⁸ values."""


class Recorded(NumpyBackend):
    """The CPU, taking the ways of a GPU, which counts the kernels that it runs."""

    device = "recorded"

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter[str]()

    def run(self, kernel: Any, *arguments: Any) -> None:
        self.names[kernel.name] += 1
        super().run(kernel, *arguments)


def network(backend: Backend, activation: Any, dtype: str, *frozen: int) -> Sequential:
    model = Sequential([Conv2D(32, 1), activation(), BatchNorm(), GlobalAveragePool2D(), Dense(3)])
    for place in frozen:
        model.layers[place].trainable = False
    return model.build(SHAPE, N, backend, dtype, seed=3)


def results(model: Sequential, training: bool = True) -> dict[str, Any]:
    """What comes out, the gradients, and what BatchNorm remembers."""
    rng = np.random.default_rng(5)
    x, dy = rng.normal(1, 2, (N, *SHAPE)), rng.normal(size=(N, 3))
    found = {"y": model.forward(x, training=training)}
    if training:
        model.backward(dy)
        found |= {p.name: p.grad for p in model.parameters}
    to_host = model.backend.to_host
    found |= {name: array for name, array in model.arrays().items() if "batchnorm" in name}
    return {name: np.array(to_host(value)) for name, value in found.items() if value is not None}


@pytest.mark.parametrize("activation", [ReLU, Sigmoid, Tanh, Softplus])
def test_they_compute_what_they_compute_alone(backend: Backend, activation: Any) -> None:
    expected = results(network(NumpyBackend(), activation, "float64"))
    model = network(backend, activation, "float64")
    for _ in range(2):  # the second finds the tickets as the first did
        found = results(model)
        for name, value in expected.items():
            if ".mean" not in name and ".variance" not in name:
                np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    means = np.array(model.arrays()["batchnorm1.mean"])
    np.testing.assert_allclose(means, 1.9 * expected["batchnorm1.mean"], rtol=1e-9)  # m + 0.9 m, of two batches alike


def test_a_spread_is_kept_that_is_small_beside_the_values(backend: Backend) -> None:
    model = network(backend, ReLU, "float32")
    model.load_arrays({**model.arrays(), "conv1.b": np.full(32, 1e4, np.float32)})
    rng = np.random.default_rng(6)
    x = rng.normal(0, 0.1, (N, *SHAPE))
    model.forward(x, training=True)
    w = model.arrays()["conv1.w"].reshape(32, 3).astype(np.float64)
    a = (np.tensordot(x.astype(np.float32), w, (3, 1)).astype(np.float32) + np.float32(1e4)).astype(np.float64)
    expected = 0.9 + 0.1 * a.reshape(-1, 32).var(axis=0) * a.size / (a.size - 32)
    np.testing.assert_allclose(model.arrays()["batchnorm1.variance"], expected, rtol=1e-6)


def test_a_launch_less_is_made_forward_and_back() -> None:
    device = Recorded()
    model = network(device, ReLU, "float32")
    device.names.clear()
    results(model)
    of_both = {name: count for name, count in device.names.items() if "relu" in name or "norm" in name}
    assert of_both == {
        "bias_relu_and_moments": 1,
        "normalize_as_remembered": 1,
        "normalize_sums": 1,
        "normalize_relu_gradient_and_sums": 1,
    }


@pytest.mark.parametrize("frozen", [0, 2])
def test_a_frozen_layer_is_left_as_it_is(frozen: int) -> None:
    device = Recorded()
    model = network(device, ReLU, "float32", frozen)
    device.names.clear()
    results(model)
    assert device.names["bias_relu"] == 1
    assert not any("and_moments" in name or name == "normalize_relu_gradient_and_sums" for name in device.names)


def test_answers_are_given_without() -> None:
    device = Recorded()
    model = network(device, ReLU, "float32")
    device.names.clear()
    first = results(model, training=False)["y"]
    assert device.names["bias_relu"] == device.names["normalize_as_remembered"] == 1
    np.testing.assert_array_equal(results(model, training=False)["y"], first)
