"""Every kernel against a float64 reference of its own, at the extremes too, on every device."""

import numpy as np
import pytest
from support import kernel_cases_images  # noqa: F401 - adds its cases
from support.harness import DTYPES, assert_near, call
from support.kernel_cases import ACTIVATIONS, CASES, SUBNORMAL, gradient_of

from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.kernels import activations, losses, registry
from gpunn.kernels.record import Elementwise
from gpunn.nn import losses as nn_losses

KERNELS = sorted(registry)
FORWARD = [*ACTIVATIONS, "leaky_relu", "softmax"]
LOSSES = {
    "softmax_cross_entropy": "SoftmaxCrossEntropy",
    "binary_cross_entropy": "BinaryCrossEntropy",
    "mean_squared_error": "MeanSquaredError",
}
COSTS = list(LOSSES)


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
    constants = 3, np.zeros(3), np.zeros(1, np.uint32), 0.0 if name.startswith("softmax") else False
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
    scratch_of_loss = np.zeros(200), np.zeros(1, np.uint32)
    given = z, unset[1] * 0, labels, 1.0, *unset, np.zeros(2), 1000, *scratch_of_loss, 0.0
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


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize(("outputs", "n"), [(1, 1000), (3, 129), (300, 200), (1000, 33)])
def test_a_cost_of_many_outputs_and_samples_is_that_of_one_thread(
    backend: Backend, name: str, outputs: int, n: int
) -> None:
    """Whichever way a device shares them out: against NumPy in float64."""
    rng = np.random.default_rng(n)
    z, bias = rng.normal(0, 3, (outputs, n)), rng.normal(size=outputs)
    labels = rng.integers(0, outputs, n).astype(np.int32)
    is_softmax = name.startswith("softmax")
    targets = labels if is_softmax else rng.integers(0, 2, (outputs, n)).astype(np.float64)
    loss = getattr(nn_losses, LOSSES[name])()
    found = []
    for on, dtype in ((backend, "float32"), (select("cpu"), "float64")):
        given = [on.asarray(np.asarray(a, dtype if a.dtype.kind == "f" else a.dtype)) for a in (z, targets, bias)]
        for _ in range(2):
            totals, sums = on.zeros((2,), np.float64), on.zeros((outputs,), dtype)
            loss.evaluate(on, given[0], given[1], totals, 1.0, given[2], sums)
            found.append([on.to_host(a) for a in (totals, sums, loss.gradient, loss.costs)])
    first, again, expected, _ = found
    for a, b, c in zip(first, again, expected, strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=2e-6 * max(1.0, np.abs(c).max()))
    assert first[0][1] == expected[0][1]


@pytest.mark.gpu
@pytest.mark.parametrize("outputs", [5, 200])
def test_a_label_that_no_output_has_is_seen_on_a_device(outputs: int) -> None:
    """It came past the check of the data: the loss says so, and no memory beside the outputs is read."""
    device, loss = select("cuda"), nn_losses.SoftmaxCrossEntropy()
    labels = np.array([1, -1, outputs, 2**31 - 1, -(2**31), 0], np.int32)
    totals = device.zeros((2,), np.float64)
    loss.evaluate(device, device.asarray(np.zeros((outputs, 6), np.float32)), device.asarray(labels), totals)
    bad = np.array([False, True, True, True, True, False])
    np.testing.assert_array_equal(np.isnan(device.to_host(loss.costs)), bad)
    np.testing.assert_array_equal(np.isnan(device.to_host(loss.gradient)), np.broadcast_to(bad, (outputs, 6)))
    assert np.isnan(device.to_host(totals)[0])
