"""Layers: what they compute, the shapes they take, the memory they use, and how their weights begin."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import OptionError, ShapeError
from gpunn.nn.initializers import Constant, Initializer
from gpunn.nn.layers import Layer

ACTIVATIONS = [gn.Sigmoid, gn.Tanh, gn.ReLU, gn.LeakyReLU, gn.Softplus, gn.Softmax]
EQUATIONS: dict[type[Layer], Any] = {
    gn.Sigmoid: lambda z: 1 / (1 + np.exp(-z)),
    gn.Tanh: lambda z: (np.exp(2 * z) - 1) / (np.exp(2 * z) + 1),
    gn.ReLU: lambda z: z * (z > 0),
    gn.LeakyReLU: lambda z: np.where(z > 0, z, 0.01 * z),
    gn.Softplus: lambda z: np.log(1 + np.exp(z)),
    gn.Softmax: lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
}


def built(backend: Backend, layers: Sequence[Layer], shape: tuple[int, ...] = (3,), seed: int = 0) -> gn.Sequential:
    return gn.Sequential(layers).build(shape, 8, backend, "float64", seed)


def output(model: gn.Sequential, x: NDArray[Any]) -> NDArray[Any]:
    assert model.backend is not None
    return model.backend.to_host(model.forward(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_computes_its_equations(backend: Backend, activation: type[Layer]) -> None:
    """(1)-(3): with a batch as rows, Z = X Wᵀ + b, then f(Z), layer after layer."""
    model = built(backend, [gn.Dense(5, bias=0.5), activation(), gn.Dense(4, bias=-0.25), activation()])
    x = np.random.default_rng(0).normal(size=(7, 3))
    a = x
    for layer in ("dense1", "dense2"):
        w, b = (backend.to_host(model.parameters[f"{layer}.{letter}"].value) for letter in "wb")
        a = EQUATIONS[activation](a @ w.T + b)
    np.testing.assert_allclose(output(model, x), a, rtol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_may_come_first(backend: Backend, activation: type[Layer]) -> None:
    x = np.random.default_rng(1).normal(size=(5, 3))
    before = x.copy()
    np.testing.assert_allclose(output(built(backend, [activation()]), x), EQUATIONS[activation](x), rtol=1e-13)
    np.testing.assert_array_equal(x, before)


def test_the_inputs_of_a_network_are_not_overwritten(backend: Backend) -> None:
    x = np.random.default_rng(2).normal(size=(5, 3))
    before = x.copy()
    model = built(backend, [gn.Flatten(), gn.ReLU(), gn.Dense(2), gn.Sigmoid()])
    model.forward(x, training=True)
    model.backward(backend.asarray(np.ones((5, 2))))
    np.testing.assert_array_equal(x, before)


def test_every_batch_up_to_the_largest_gives_the_same_rows(backend: Backend) -> None:
    model = built(backend, [gn.Dense(6), gn.Tanh(), gn.Dense(4), gn.Softmax()])
    x = np.random.default_rng(3).normal(size=(8, 3))
    whole = output(model, x)
    for n in (1, 2, 5, 8):
        np.testing.assert_allclose(output(model, x[:n]), whole[:n], rtol=1e-14)


def test_flatten_puts_channels_before_height_and_width(backend: Backend) -> None:
    """In the order of PyTorch and ONNX, so that weights move over unchanged."""
    x = np.arange(2 * 3 * 4 * 2, dtype=np.float64).reshape(2, 3, 4, 2)
    model = built(backend, [gn.Flatten()], (3, 4, 2))
    assert model.output_shape == (24,)
    expected = [[x[j, row, column, c] for c in range(2) for row in range(3) for column in range(4)] for j in range(2)]
    np.testing.assert_array_equal(output(model, x), expected)


def test_images_go_flat_into_a_dense_layer_as_flatten_would_have_them(backend: Backend) -> None:
    x = np.random.default_rng(4).normal(size=(3, 4, 5, 2))
    flattened = built(backend, [gn.Flatten(), gn.Dense(6)], (4, 5, 2))
    direct = built(backend, [gn.Dense(6)], (40,))
    np.testing.assert_allclose(output(direct, x), output(flattened, x), rtol=1e-14)


# Gradients on their way back


class Probe(Layer):
    """Hands everything on, and keeps what it saw; on a device a pass may be rehearsed before."""

    name_prefix = "probe"
    output_is_free = False

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.context = context
        self.seen: list[Any] = []
        self.passes: set[str] = set()
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        self.seen.append(x)
        self.passes.add("forward")
        return x

    def backward(self, dy: Any) -> Any:
        self.passes.add("backward")
        return dy


def test_the_first_layer_with_weights_computes_no_gradient_of_its_input(backend: Backend) -> None:
    probe = Probe()
    model = built(backend, [probe, gn.Dense(4), gn.Sigmoid(), gn.Dense(2)])
    model.forward(np.ones((2, 3)))
    model.backward(backend.asarray(np.ones((2, 2))))
    assert probe.passes == {"forward"}


@pytest.mark.parametrize("after", [[], [gn.Flatten()], [gn.Flatten(), gn.Flatten()]], ids=len)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_that_backward_is_given_stays_as_it_is(
    backend: Backend, activation: type[Layer], after: list[Layer]
) -> None:
    model = built(backend, [gn.Dense(4), activation(), *after])
    rng = np.random.default_rng(5)
    dy = backend.asarray(rng.normal(size=(4, 6))).T  # as a loss gives it: no copy is needed to turn it round
    before = backend.to_host(dy)
    model.forward(rng.normal(size=(6, 3)))
    for _ in range(2):
        model.backward(dy)
        np.testing.assert_array_equal(backend.to_host(dy), before)


def test_gradients_are_assigned_and_not_added_up(backend: Backend) -> None:
    model = built(backend, [gn.Dense(4), gn.Tanh(), gn.Dense(2)])
    model.forward(np.ones((2, 3)))
    gradients = []
    for _ in range(2):
        model.backward(backend.asarray(np.ones((2, 2))))
        gradients.append({p.name: backend.to_host(p.grad) for p in model.parameters})
    for name, first in gradients[0].items():
        np.testing.assert_array_equal(gradients[1][name], first)
        assert np.abs(first).max() > 0


@pytest.mark.parametrize("first", [Probe, *ACTIVATIONS])
def test_every_layer_but_a_product_sees_its_samples_last_and_contiguous(backend: Backend, first: type[Layer]) -> None:
    """Kernels that count elements by themselves rely on it; a product takes either way round."""
    probe = Probe()
    model = built(backend, [probe, first(), gn.Dense(2)])
    model.forward(np.random.default_rng(6).normal(size=(5, 3)))
    assert probe.seen[0].shape == (3, 5)
    assert probe.seen[0].flags.c_contiguous


# Memory


@pytest.mark.parametrize(
    ("layers", "outputs"),
    [
        ([gn.Dense(4), gn.Sigmoid()], 4),  # the activation overwrites z
        ([gn.Dense(4), gn.Softplus()], 4),
        ([gn.Dense(4), gn.LeakyReLU()], 4 + 4),  # whose derivative is written from z
        ([gn.Dense(4), gn.Sigmoid(), gn.Tanh()], 4 + 4),  # the derivative of the sigmoid is written from a
        ([gn.Dense(4), gn.LeakyReLU(), gn.Sigmoid()], 4 + 4),
        ([gn.Dense(4), gn.Flatten(), gn.ReLU()], 4),
    ],
    ids=str,
)
def test_an_activation_overwrites_its_input_where_nobody_needs_it(
    backend: Backend, layers: list[Layer], outputs: int
) -> None:
    model = built(backend, [*layers, gn.Dense(2)])
    capacity, item = model.capacity, 8
    forward = sum(model.buffer_bytes.values()) - capacity * item * (2 + 4)  # z and ∂C/∂a of the last layer
    assert forward == outputs * capacity * item


def test_in_place_or_not_the_numbers_are_the_same(backend: Backend) -> None:
    x, dy = np.random.default_rng(7).normal(size=(5, 3)), np.random.default_rng(8).normal(size=(5, 2))
    results = []
    for between in ([], [Probe()]):  # the probe keeps its output, so the activation needs memory of its own
        model = built(backend, [gn.Dense(4), *between, gn.Sigmoid(), gn.Dense(2)])
        y = output(model, x)
        model.backward(backend.asarray(dy))
        results.append((y, backend.to_host(model.parameters["dense1.w"].grad)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


# Shapes and options that cannot be


@pytest.mark.parametrize("layer", [gn.Dense(3), gn.Softmax()], ids=repr)
def test_a_layer_of_features_refuses_images_and_names_flatten(backend: Backend, layer: Layer) -> None:
    with pytest.raises(ShapeError, match=r"got \(4, 4, 1\): put Flatten\(\) before it") as caught:
        built(backend, [gn.Tanh(), layer], (4, 4, 1))
    assert one_line(caught.value).startswith(f"{layer.name_prefix}1: ")


@pytest.mark.parametrize("units", [0, -1, 2.5, True, "many", None, float("nan"), float("inf")])
def test_units_must_be_a_whole_number_above_zero(units: Any) -> None:
    with pytest.raises(OptionError, match="units of Dense must be a whole number") as caught:
        gn.Dense(units)
    assert repr(units) in one_line(caught.value)


@pytest.mark.parametrize("alpha", [1.01, float("nan"), float("-inf"), float("inf")])
def test_the_slope_of_a_leaky_relu_is_finite_and_at_most_one(alpha: float) -> None:
    with pytest.raises(OptionError, match="alpha of LeakyReLU"):
        gn.LeakyReLU(alpha)


def test_unknown_weights_are_refused_with_those_there_are(backend: Backend) -> None:
    with pytest.raises(OptionError, match="unknown weights 'best': expected auto, he, glorot, lecun, normal"):
        built(backend, [gn.Dense(3, weights="best")])


def test_a_layer_shows_how_it_was_made() -> None:
    assert repr(gn.LeakyReLU(0.2)) == "LeakyReLU(0.2)"
    assert repr(gn.Dense(7)) == "Dense(7)"
    assert repr(gn.Dense(7, weights="he")) == "Dense(7, weights='he')"


# Initial values


def first_weights(backend: Backend, dense: gn.Dense, *after: Layer, inputs: int = 300, seed: int = 0) -> NDArray[Any]:
    model = built(backend, [dense, *after], (inputs,), seed)
    return backend.to_host(model.parameters["dense1.w"].value)


@pytest.mark.parametrize(
    ("weights", "deviation"),
    [
        (gn.He(), np.sqrt(2 / 300)),
        (gn.Glorot(), np.sqrt(2 / (300 + 200))),
        (gn.LeCun(), np.sqrt(1 / 300)),
        (gn.Normal(), 1.0),
        (gn.Normal(0.03), 0.03),
        ("he", np.sqrt(2 / 300)),
        ("glorot", np.sqrt(2 / 500)),
        ("lecun", np.sqrt(1 / 300)),
        ("normal", 1.0),
    ],
    ids=str,
)
def test_weights_begin_with_the_variance_of_their_distribution(
    backend: Backend, weights: Initializer | str, deviation: float
) -> None:
    w = first_weights(backend, gn.Dense(200, weights=weights))
    assert w.shape == (200, 300)
    assert abs(w.std() / deviation - 1) < 0.015  # five standard errors of 60,000 draws
    assert abs(w.mean()) < 5 * deviation / np.sqrt(w.size)


def test_glorots_weights_are_uniform_and_hes_normal(backend: Backend) -> None:
    glorot, he = first_weights(backend, gn.Dense(200, gn.Glorot())), first_weights(backend, gn.Dense(200, gn.He()))
    assert np.abs(glorot).max() <= np.sqrt(6 / 500)
    assert abs(np.mean((glorot / glorot.std()) ** 4) - 1.8) < 0.05
    assert abs(np.mean((he / he.std()) ** 4) - 3.0) < 0.15


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([gn.ReLU()], gn.He()), ([gn.LeakyReLU()], gn.He()), ([gn.Softplus()], gn.He()),
        ([gn.Sigmoid()], gn.Glorot()), ([gn.Tanh()], gn.Glorot()), ([gn.Softmax()], gn.Glorot()), ([], gn.Glorot()),
    ],
    ids=str,
)  # fmt: skip
def test_automatic_weights_suit_the_activation_that_follows(
    backend: Backend, after: list[Layer], expected: Initializer
) -> None:
    automatic = first_weights(backend, gn.Dense(4), *after, inputs=3)
    np.testing.assert_array_equal(automatic, first_weights(backend, gn.Dense(4, expected), *after, inputs=3))


def test_biases_begin_as_one_constant(backend: Backend) -> None:
    model = built(backend, [gn.Dense(4, bias=0.75), gn.Dense(2)])
    np.testing.assert_array_equal(backend.to_host(model.parameters["dense1.b"].value), 0.75)
    np.testing.assert_array_equal(backend.to_host(model.parameters["dense2.b"].value), 0.0)


def test_initial_weights_follow_the_seed_and_differ_between_layers(backend: Backend) -> None:
    same = [built(backend, [gn.Dense(3), gn.Dense(3)], seed=1).parameters.to_host() for _ in range(2)]
    other = built(backend, [gn.Dense(3), gn.Dense(3)], seed=2).parameters.to_host()
    np.testing.assert_array_equal(same[0]["dense1.w"], same[1]["dense1.w"])
    assert not np.array_equal(same[0]["dense1.w"], other["dense1.w"])
    assert not np.array_equal(same[0]["dense1.w"], same[0]["dense2.w"])


def test_initial_weights_are_the_same_in_every_dtype(backend: Backend) -> None:
    double = built(backend, [gn.Dense(3)]).parameters.to_host()["dense1.w"]
    single = gn.Sequential([gn.Dense(3)]).build((3,), device=backend, dtype="float32").parameters.to_host()["dense1.w"]
    np.testing.assert_array_equal(single, double.astype(np.float32))


@pytest.mark.parametrize(
    "make", [lambda: gn.Normal(-1.0), lambda: gn.Normal(float("nan")), lambda: Constant(float("inf"))]
)
def test_a_distribution_refuses_what_is_no_deviation(make: Any) -> None:
    with pytest.raises(OptionError):
        make()
