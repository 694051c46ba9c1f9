"""Every kernel against a float64 reference of its own, at the extremes too, on every device."""

import numpy as np
import pytest
from support import kernel_cases_images  # noqa: F401 - adds its cases
from support.harness import DTYPES, assert_near, call
from support.kernel_cases import ACTIVATIONS, CASES, SUBNORMAL, gradient_of

from gpunn.backend.base import Backend
from gpunn.kernels import activations, losses, registry
from gpunn.kernels.record import Elementwise

KERNELS = sorted(registry)
FORWARD = [*ACTIVATIONS, "leaky_relu", "softmax"]
COSTS = ["softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error"]


@pytest.mark.parametrize("n", [1, 7, 150])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_computes_its_equation(backend: Backend, name: str, dtype: str, n: int) -> None:
    assert name in CASES, f"write a case for the kernel {name} in tests/support/kernel_cases.py"
    for case in CASES[name](dtype, np.random.default_rng(n), n):
        after = call(backend, registry[name], *case.arguments)
        for at, expected in (case.expected | (case.on_device if backend.device != "cpu" else {})).items():
            assert after[at].dtype == case.arguments[at].dtype
            if after[at].dtype.kind in "iu":
                np.testing.assert_array_equal(after[at], expected)
            else:
                unchanged = expected is case.arguments[at]
                assert_near(after[at], expected, ulps=0 if unchanged else 8, scale=case.scale, what=f"{name}, {at}")


def test_no_case_is_left_of_a_kernel_that_is_gone() -> None:
    assert set(CASES) <= set(registry)


def test_a_kernel_has_both_bodies() -> None:
    for kernel in registry.values():
        body = kernel.operation if isinstance(kernel, Elementwise) else kernel.source
        assert body.strip()
        assert callable(kernel.host)


def test_two_kernels_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two kernels are called 'relu'"):
        Elementwise("relu", "T z", "T a", "a = z;", host=lambda z, a: None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_an_activation_lets_nan_through(backend: Backend, name: str, dtype: str) -> None:
    z = np.array([[1.0, np.nan, -1.0, 2.0]], dtype)
    constants = (0.01,) if name == "leaky_relu" else ()
    *_, out_of_place = call(backend, registry[name], z, *constants, np.zeros_like(z))
    *_, in_place = call(backend, registry[name], z, *constants, z)
    for a in (out_of_place, in_place):
        np.testing.assert_array_equal(np.isnan(a), [[False, True, False, False]])


@pytest.mark.parametrize("name", FORWARD)
def test_a_gradient_lets_nan_through(backend: Backend, name: str) -> None:
    gradient = registry[gradient_of(name)]
    constants = (0.01,) if name == "leaky_relu" else ()
    a = np.array([[0.5, 0.25, 0.0, 0.75]])
    *_, dz = call(backend, gradient, np.array([[1.0, np.nan, np.nan, 2.0]]), a, *constants, np.zeros_like(a))
    np.testing.assert_array_equal(np.isnan(dz), [[False, True, True, False]])


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_lets_nan_through(backend: Backend, name: str) -> None:
    z = np.array([[1.0, np.nan, 0.5], [0.0, 1.0, -3.0]])
    targets = np.array([0, 1, 1], np.int32) if name.startswith("softmax") else np.eye(2)[:, [0, 1, 1]].copy()
    unset = (np.zeros((2, 3)), np.zeros(2), np.zeros(3), np.zeros(2))
    constants = 3, 0.0 if name.startswith("softmax") else False
    gradient, _, costs, totals = call(backend, registry[name], z, np.zeros(2), targets, 1.0, *unset, *constants)[4:8]
    assert np.isnan(totals[0])
    np.testing.assert_array_equal(np.isnan(costs), [False, True, False])
    assert np.isnan(gradient[0, 1])
    assert np.isfinite(gradient[:, [0, 2]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_finite_input_gives_finite_activations_and_gradients(backend: Backend, name: str, dtype: str) -> None:
    tiny = SUBNORMAL[dtype]
    z = np.array([[1000, -1000, 1e30, -1e30, 0, -0.0, tiny, -tiny, 88.8, -88.8, 709.9, -709.9]], dtype)
    constants = (0.01,) if name == "leaky_relu" else ()
    *_, a = call(backend, registry[name], z, *constants, np.zeros_like(z))
    assert np.isfinite(a).all()
    seen = z if name == "leaky_relu" else a
    gradient = registry[gradient_of(name)]
    *_, dz = call(backend, gradient, np.ones_like(z), seen, *constants, np.zeros_like(z))
    assert np.isfinite(dz).all()


@pytest.mark.parametrize(
    ("forward", "backward", "derivative"),
    [
        (activations.sigmoid, activations.sigmoid_gradient, lambda z: 1 / (2 + np.exp(z) + np.exp(-z))),
        (activations.tanh, activations.tanh_gradient, lambda z: 1 / np.cosh(z) ** 2),
        (activations.softplus, activations.softplus_gradient, lambda z: 1 / (1 + np.exp(-z))),
        (activations.relu, activations.relu_gradient, lambda z: np.where(z > 0, 1.0, 0.0)),
    ],
)
def test_a_derivative_written_from_the_output_is_that_by_the_input(
    backend: Backend, forward: Elementwise, backward: Elementwise, derivative: object
) -> None:
    z = np.linspace(-15, 15, 601)
    _, a = call(backend, forward, z, np.zeros_like(z))
    *_, dz = call(backend, backward, np.ones_like(z), a, np.zeros_like(z))
    np.testing.assert_allclose(dz, derivative(z), rtol=0, atol=1e-15)


def test_softmax_adds_up_to_one_and_ignores_a_constant(backend: Backend) -> None:
    z = np.random.default_rng(0).normal(0, 30, (10, 40)).astype(np.float32)
    _, a = call(backend, activations.softmax, z, np.zeros_like(z))
    _, shifted = call(backend, activations.softmax, z + np.float32(512), np.zeros_like(z))
    np.testing.assert_allclose(a.sum(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(shifted, a, atol=5e-5)


def test_sums_are_the_same_to_the_bit_each_time(backend: Backend) -> None:
    values = np.random.default_rng(0).normal(size=10_001).astype(np.float32)
    z, labels = values[:10_000].reshape(10, 1000), np.zeros(1000, np.int32)
    unset = [np.zeros(shape, np.float32) for shape in ((10, 1000), 10, 1000)]
    given = z, unset[1] * 0, labels, 1.0, *unset, np.zeros(2), 1000, 0.0
    totals = {call(backend, losses.softmax_cross_entropy, *given)[7].tobytes() for _ in range(3)}
    scratch = np.zeros(1, np.float32), np.zeros(16, np.float32), np.zeros(1, np.uint32)
    rows = {call(backend, registry["row_sums"], values[None], *scratch)[1].tobytes() for _ in range(3)}
    assert len(totals) == len(rows) == 1


def test_a_regulariser_leaves_a_weight_of_zero_alone(backend: Backend) -> None:
    """With L1 the gradient gains (λ/n) sign w, which is 0 at w = 0."""
    w, g = np.array([0.0, -0.0, 2.0, -2.0]), np.zeros(4)
    rate, clock = np.array([1.0]), np.zeros(4, np.int32)
    *_, after, _ = call(backend, registry["sgd"], g, rate, 4, 0.5, 0.0, w, clock)
    np.testing.assert_array_equal(after, [0.0, 0.0, 1.5, -1.5])
