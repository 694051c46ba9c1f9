"""A probed network gives the outputs of its layers, as the layers by themselves compute them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.serve.network import ServedNetwork
from gpunn.serve.probes import ProbedNetwork

NETWORKS = {
    "residual": lambda: [
        gn.Conv2D(4, 3, padding="same"), gn.BatchNorm(), gn.ReLU(),
        gn.Residual([gn.Conv2D(6, 3, stride=2, padding="same"), gn.ReLU(), gn.Conv2D(6, 3, padding="same")]), gn.ReLU(),
        gn.Residual([gn.Conv2D(6, 1), gn.Tanh()]), gn.GlobalAveragePool2D(), gn.Dense(3), gn.Softmax(),
    ],
    "projection": lambda: [
        gn.Residual([gn.Conv2D(5, 3)], [gn.Conv2D(5, 3), gn.BatchNorm()]), gn.Flatten(), gn.Dense(3),
    ],
    "branches": lambda: [
        gn.Concatenate([], [gn.Conv2D(2, 3, padding="same"), gn.ReLU()], [gn.MaxPool2D(3, 1, "same"), gn.Conv2D(3, 1)]),
        gn.MaxPool2D(2), gn.Flatten(), gn.Dropout(0.5), gn.Dense(3),
    ],
    "chains": lambda: [
        gn.Chain([gn.Chain([gn.Flatten(), gn.Dense(7)]), gn.ReLU()]), gn.Chain([gn.Dense(3), gn.Sigmoid()]),
    ],
    "deep": lambda: [
        gn.Residual([gn.Concatenate([gn.Residual([gn.Conv2D(2, 1), gn.ReLU()])], [gn.Conv2D(1, 3, padding="same")]),
                     gn.Conv2D(2, 1)]), gn.AveragePool2D(2), gn.Flatten(), gn.Dense(3),
    ],
    "fused": lambda: [gn.Flatten(), gn.Dense(9), gn.ReLU(), gn.Dense(8), gn.LeakyReLU(-0.5), gn.Dense(3), gn.Softmax()],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_probed_network_ends_in_the_output_of_the_network(name: str, dtype: str) -> None:
    model = gn.Sequential(NETWORKS[name]()).build((6, 6, 2), 8, "cpu", dtype, seed=3)
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 2))
    wanted, before = np.array(model.forward(x)), model.arrays()
    probed = ProbedNetwork(model)
    seen = probed.outputs(x, 1.0)
    assert [values.shape[1:] for values in seen] == [layer.shape for layer in probed.layers]
    assert np.abs(seen[-1] - wanted).max() < 1e-6
    assert np.array_equal(model.forward(x), wanted)  # the network is as it was
    assert all(np.array_equal(model.arrays()[key], before[key]) for key in before)
    for place in range(len(probed.layers)):  # some are the same as all
        assert np.array_equal(probed.outputs(x, 1.0, [place])[0], seen[place])
    assert not probed.layers[-1].probe.is_on


def test_outputs_are_those_of_each_layer_by_itself() -> None:
    model = gn.Sequential(NETWORKS["residual"]()).build((6, 6, 2), 8, "cpu", "float64", seed=3)
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 2))
    probed = ProbedNetwork(model)
    seen = dict(zip((each.layer.name for each in probed.layers), probed.outputs(x, 1.0), strict=True))
    assert list(seen) == [
        "conv1", "batchnorm1", "relu1", "residual1.conv1", "residual1.relu1", "residual1.conv2", "residual1", "relu2",
        "residual2.conv1", "residual2.tanh1", "residual2", "globalaveragepool1", "dense1", "softmax1",
    ]  # fmt: skip
    assert [layer.depth for layer in probed.layers] == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    assert np.array_equal(seen["relu1"], np.maximum(seen["batchnorm1"], 0))
    assert (seen["batchnorm1"] < 0).any()  # it kept its own output, though ReLU may work in place
    assert np.array_equal(seen["residual1.relu1"], np.maximum(seen["residual1.conv1"], 0))
    assert np.allclose(seen["residual2"], seen["relu2"] + seen["residual2.tanh1"], atol=1e-12)
    assert np.allclose(seen["globalaveragepool1"], seen["residual2"].mean(axis=(1, 2)), atol=1e-12)
    w = model.arrays()["dense1.w"]
    assert np.allclose(seen["dense1"], seen["globalaveragepool1"] @ w.T + model.arrays()["dense1.b"], atol=1e-12)
    first = model.arrays()["conv1.w"]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    at = np.einsum("nuvc,fcuv->nf", padded[:, 2:5, 3:6], first)
    assert np.allclose(seen["conv1"][:, 2, 3], at + model.arrays()["conv1.b"], atol=1e-12)


def test_weights_of_a_unit_are_an_image_where_it_sees_one() -> None:
    layers = [
        gn.Conv2D(3, 2),
        gn.ReLU(),
        gn.MaxPool2D(2),
        gn.Flatten(),
        gn.Dense(4),
        gn.ReLU(),
        gn.Dropout(0.5),
        gn.Dense(2),
    ]
    model = gn.Sequential(layers).build((5, 5, 2), 8, "cpu")
    probed, arrays = ProbedNetwork(model), model.arrays()
    for place in (0, 1, 2):  # the activation and the pooling of a map are of its filter
        weights, bias = probed.weights_of(place, 1)
        assert np.array_equal(weights, arrays["conv1.w"][1].transpose(1, 2, 0))
        assert bias == arrays["conv1.b"][1]
    assert probed.weights_of(3, 0) == (None, None)
    weights, _ = probed.weights_of(4, 3)
    assert np.array_equal(weights, arrays["dense1.w"][3].reshape(3, 2, 2).transpose(1, 2, 0))  # of the pooled maps
    weights, _ = probed.weights_of(6, 3)
    assert weights.shape == (2, 2, 3)
    weights, _ = probed.weights_of(7, 1)
    assert np.array_equal(weights, arrays["dense2.w"][1])
    flat = gn.Sequential([gn.Dense(4)]).build((64,), 8, "cpu")
    weights, _ = ProbedNetwork(flat).weights_of(0, 2)
    assert np.array_equal(weights, flat.arrays()["dense1.w"][2])


def test_tokens_and_transposed_convolutions_can_be_probed_too() -> None:
    model = gn.Sequential([gn.Embedding(7, 4), gn.Conv2D(3, (1, 2)), gn.Flatten(), gn.Dense(2)]).build((5,), 8, "cpu")
    tokens = np.array([[0, 1, 2, 3, 6]])
    seen = ProbedNetwork(model).outputs(model._batch(tokens, model.backend), 1.0)
    assert np.array_equal(seen[0][0, 0], model.arrays()["embedding1.w"][tokens[0]])
    assert np.array_equal(seen[-1], model.forward(tokens))
    up = gn.Sequential([gn.ConvTranspose2D(3, 2, 2), gn.ReLU()]).build((3, 3, 2), 8, "cpu")
    weights, bias = ProbedNetwork(up).weights_of(1, 2)
    assert np.array_equal(weights, up.arrays()["convtranspose1.w"][:, 2].transpose(1, 2, 0))
    assert bias == up.arrays()["convtranspose1.b"][2]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["residual", "branches", "fused"])
def test_a_probed_network_on_a_gpu_gives_what_one_on_the_cpu_gives(name: str) -> None:
    model = gn.Sequential(NETWORKS[name]()).build((6, 6, 2), 8, "cpu", seed=3)
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 2)).astype(np.float32)
    there = gn.Sequential(NETWORKS[name]()).build((6, 6, 2), 8, "cuda", seed=3)
    there.load_arrays(model.arrays())
    wanted, probed = ProbedNetwork(model).outputs(x, 1.0), ProbedNetwork(there)
    for count in (5, 1):
        for ours, theirs in zip(probed.outputs(x[:count], 1.0), wanted, strict=True):
            assert np.allclose(ours, theirs[:count], atol=1e-5)
    assert np.allclose(probed.outputs(x, 1.0, [1])[0], wanted[1], atol=1e-5)


class Turned(gn.Layer):
    """Images with their rows as columns."""

    only_reshapes = True

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[1], input_shape[0], input_shape[2])

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.output_shape(input_shape)

    def forward(self, x: Any, training: bool) -> Any:
        return x.swapaxes(1, 2)

    def backward(self, dy: Any) -> Any:
        return dy.swapaxes(1, 2)


class Doubled(Turned):
    only_reshapes = False
    role = "normalization"

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        return 2 * x


def test_a_layer_of_your_own_is_described_by_its_attributes() -> None:
    model = gn.Sequential([Turned(), Doubled(), gn.MaxPool2D(2), gn.Flatten(), gn.Dense(3)]).build((6, 4, 2), 8, "cpu")
    told = ServedNetwork(model, None, Path("model.safetensors")).describe({})["layers"]
    assert [layer["kind"] for layer in told] == ["other", "normalization", "pooling", "other", "dense"]
    assert [layer["has_units"] for layer in told] == [False, True, True, False, True]
