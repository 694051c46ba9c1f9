"""Stages: max pooling before the bias and activation that it follows gives the very same network on fewer numbers."""

from copy import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.layer_helpers import AsIs

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.nn.layers import Activation, Layer
from gpunn.nn.layers.dense import Bias

INCREASING = [
    gn.Sigmoid(),
    gn.Tanh(),
    gn.ReLU(),
    gn.LeakyReLU(0.01),
    gn.LeakyReLU(0.0),
    gn.LeakyReLU(1.0),
    gn.Softplus(),
]


def built(backend: Backend, layers: list[Layer], dtype: str = "float64", shape: Any = (9, 8, 2)) -> gn.Sequential:
    model = gn.Sequential(layers).build(shape, 8, backend, dtype)
    rng = np.random.default_rng(0)
    model.parameters.load({p.name: rng.normal(size=p.shape) for p in model.parameters})
    return model


def run(backend: Backend, model: gn.Sequential, x: NDArray[Any], training: bool = True) -> tuple[Any, dict[str, Any]]:
    """Outputs, and gradients by parameter."""
    y = backend.to_host(model.forward(x, training))
    model.backward(backend.asarray(np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)))
    return y, {p.name: backend.to_host(p.grad) for p in model.parameters}


def place_of_pooling(model: gn.Sequential) -> list[int]:
    return [number for number, stage in enumerate(model.stages) if isinstance(stage, gn.MaxPool2D)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", [(2, 2), (3, 2), (2, 3), (3, 2, 2)], ids=["even", "overlapping", "gaps", "padded"])
@pytest.mark.parametrize("activation", INCREASING, ids=repr)
def test_pooling_first_gives_the_order_as_written_to_the_bit(
    backend: Backend, activation: Layer, window: tuple[int, ...], dtype: str
) -> None:
    rng = np.random.default_rng(2)
    for spread in (0.1, 1.0, 30.0):
        x = rng.normal(0, spread, (8, 9, 8, 2))
        arranged, as_written = (
            built(backend, [gn.Conv2D(5, 3, bias=-2.5), *layers, gn.MaxPool2D(*window)], dtype)
            for layers in ([copy(activation)], [copy(activation), AsIs()])
        )
        assert place_of_pooling(arranged) == [1]  # right after the products
        assert place_of_pooling(as_written) == [len(as_written.stages) - 1]
        for training in (True, False):
            results = [backend.to_host(model.forward(x, training)) for model in (arranged, as_written)]
            assert results[0].dtype == dtype
            assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (3, 2, "same")], ids=["even", "overlapping", "padded"])
@pytest.mark.parametrize("activation", INCREASING, ids=repr)
def test_pooling_first_gives_the_gradients_of_the_order_as_written(
    backend: Backend, activation: Layer, window: tuple[Any, ...]
) -> None:
    x = np.random.default_rng(3).normal(0, 0.1, (8, 9, 8, 2))
    results = []
    for layers in ([copy(activation)], [copy(activation), AsIs()]):
        model = built(backend, [gn.Conv2D(5, 3), *layers, gn.MaxPool2D(*window), gn.Flatten(), gn.Dense(4)])
        results.append(run(backend, model, x))
    for name, gradient in results[1][1].items():
        np.testing.assert_allclose(results[0][1][name], gradient, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "between",
    [
        [gn.LeakyReLU(-0.5)],
        [gn.LeakyReLU(-1e-9)],
        [gn.BatchNorm()],
        [gn.Dropout(0.5)],
        [gn.AveragePool2D(1)],
        [AsIs()],
    ],
    ids=repr,
)
def test_pooling_does_not_pass_what_may_change_the_order_of_values(backend: Backend, between: list[Layer]) -> None:
    model = built(backend, [gn.Conv2D(3, 3, bias=False), *between, gn.MaxPool2D(2)])
    assert place_of_pooling(model) == [len(model.stages) - 1]


def test_pooling_after_a_falling_activation_is_computed_as_written(backend: Backend) -> None:
    """max(z, αz) with α < 0 is largest where |z| is: the largest z says nothing."""
    x = np.random.default_rng(4).normal(size=(4, 9, 8, 2))
    model = built(backend, [gn.Conv2D(3, 3), gn.LeakyReLU(-0.5), gn.MaxPool2D(2)])
    before = built(backend, [gn.Conv2D(3, 3)])
    z = backend.to_host(before.forward(x))
    a = np.maximum(z, -0.5 * z)[:, :6, :6]
    expected = a[:, :6].reshape(4, 3, 2, 3, 2, 3).max(axis=(2, 4))
    np.testing.assert_allclose(backend.to_host(model.forward(x)), expected, rtol=1e-12)


def test_pooling_passes_all_that_it_may_and_no_more(backend: Backend) -> None:
    model = built(
        backend, [gn.BatchNorm(), gn.Conv2D(3, 3), gn.ReLU(), gn.Tanh(), gn.MaxPool2D(2), gn.Sigmoid(), gn.MaxPool2D(2)]
    )
    kinds = [type(stage) for stage in model.stages]
    assert kinds[:4] == [gn.BatchNorm, gn.Conv2D, gn.MaxPool2D, gn.MaxPool2D]
    assert len(place_of_pooling(model)) == 2
    x = np.random.default_rng(5).normal(size=(4, 9, 8, 2))
    layers = [
        gn.BatchNorm(),
        gn.Conv2D(3, 3),
        gn.ReLU(),
        gn.Tanh(),
        AsIs(),
        gn.MaxPool2D(2),
        gn.Sigmoid(),
        AsIs(),
        gn.MaxPool2D(2),
    ]
    as_written = built(backend, layers)
    assert backend.to_host(model.forward(x)).tobytes() == backend.to_host(as_written.forward(x)).tobytes()


def test_pooling_passes_a_bias_alone(backend: Backend) -> None:
    model = built(backend, [gn.Conv2D(3, 3), gn.MaxPool2D(2)])
    assert [type(stage) for stage in model.stages] == [gn.Conv2D, gn.MaxPool2D, Bias]
    x = np.random.default_rng(6).normal(size=(4, 9, 8, 2))
    as_written = built(backend, [gn.Conv2D(3, 3), AsIs(), gn.MaxPool2D(2)])
    assert backend.to_host(model.forward(x)).tobytes() == backend.to_host(as_written.forward(x)).tobytes()


def test_a_mean_is_not_moved(backend: Backend) -> None:
    """f of a mean is not the mean of f."""
    model = built(backend, [gn.Conv2D(3, 3), gn.Sigmoid(), gn.AveragePool2D(2)])
    assert isinstance(model.stages[-1], gn.AveragePool2D)


def test_every_activation_of_a_convolution_is_kept_on_the_smaller_image(backend: Backend) -> None:
    """Bias and activation see a quarter of the elements; their gradient needs no more memory than that."""
    arranged, as_written = (
        built(
            backend,
            [gn.Conv2D(4, 3), gn.LeakyReLU(), *between, gn.MaxPool2D(2), gn.Flatten(), gn.Dense(2)],
            shape=(10, 8, 2),
        )
        for between in ([], [AsIs()])
    )
    assert arranged.buffer_bytes["leakyrelu1"] * 4 == as_written.buffer_bytes["leakyrelu1"]


def test_shapes_and_names_are_those_of_the_layers_as_written(backend: Backend) -> None:
    model = built(backend, [gn.Conv2D(4, 3), gn.ReLU(), gn.MaxPool2D(2), gn.Flatten(), gn.Dense(2)], shape=(10, 8, 2))
    assert model.shapes == [(8, 6, 4), (8, 6, 4), (4, 3, 4), (48,), (2,)]
    assert [layer.name for layer in model.layers] == ["conv1", "relu1", "maxpool1", "flatten1", "dense1"]
    assert [p.name for p in model.parameters] == ["conv1.w", "conv1.b", "dense1.w", "dense1.b"]
    assert not any(isinstance(layer, Bias) for layer in model.layers)


def test_the_order_of_stages_does_not_change_the_initial_weights(backend: Backend) -> None:
    arranged, as_written = (
        gn.Sequential([gn.Conv2D(4, 3), *layers, gn.MaxPool2D(2), gn.Flatten(), gn.Dense(2)]).build(
            (9, 9, 1), 8, backend
        )
        for layers in ([gn.ReLU()], [gn.ReLU(), AsIs()])
    )
    for name, value in as_written.parameters.to_host().items():
        np.testing.assert_array_equal(arranged.parameters.to_host()[name], value)


def test_an_activation_knows_whether_it_increases() -> None:
    assert all(layer.increases for layer in INCREASING if isinstance(layer, Activation))
    assert not gn.LeakyReLU(-0.1).increases
