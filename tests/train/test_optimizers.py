"""Optimizers, step by step, against their equations written in float64 for each parameter."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import call, one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import OptionError
from gpunn.kernels.updates import adam as adam_kernel
from gpunn.kernels.updates import of_mean
from gpunn.train.optimizers import Optimizer, Regularizer
from gpunn.train.schedules import Constant

N = 50  # size of the training set
RATES = np.array([0.5, 0.25, 0.125, 0.0625, 0.5])
Arrays = dict[str, NDArray[Any]]


def network(backend: Backend, dtype: str = "float64") -> gn.Sequential:
    return gn.Sequential([gn.Dense(4, bias=0.5), gn.Tanh(), gn.Dense(3, bias=-0.5)]).build((5,), 6, backend, dtype, 7)


def gradient_of(step: int, names: Arrays) -> Arrays:
    rng = np.random.default_rng(step)
    return {name: rng.normal(size=value.shape) for name, value in names.items()}


def followed(
    backend: Backend, optimizer: Optimizer, regularizer: Regularizer | None, dtype: str = "float64"
) -> list[Arrays]:
    """The parameters after each of five steps, the gradients given."""
    model = network(backend, dtype)
    optimizer.build(model.parameters, regularizer, N)
    if isinstance(optimizer, gn.SGD) and optimizer._folded:  # the gradients are given here, not made by a product
        p = model.parameters
        optimizer._folded, optimizer._values, optimizer._gradients = [], p.values, p.gradients
        optimizer._decayed = p.decayed
    rates = backend.asarray(RATES, dtype)
    trajectory = []
    for number in range(len(RATES)):
        clock = backend.asarray(np.array([number, number, 0, 0], np.int32))
        optimizer.before_backward(rates, clock)
        for name, gradient in gradient_of(number, model.parameters.to_host()).items():
            backend.assign(model.parameters[name].grad, gradient)
        optimizer.update(rates, clock)
        trajectory.append(model.parameters.to_host())
    return trajectory


def expected(backend: Backend, rule: Any, l1: float = 0.0, l2: float = 0.0, decay: float = 0.0) -> list[Arrays]:
    """The same from the equations: `rule` gives the change of one parameter by its gradient."""
    values = network(backend).parameters.to_host()
    memory: dict[str, Any] = {name: {} for name in values}
    trajectory = []
    for number, eta in enumerate(RATES):
        gradients = gradient_of(number, values)
        for name in values:
            g = gradients[name]
            if name.endswith(".w"):  # (19): weights only; biases are not decayed (22)
                g = g + l2 / N * values[name] + l1 / N * np.sign(values[name])
            kept = 1 - eta * decay if name.endswith(".w") else 1.0
            values[name] = kept * values[name] - rule(g, memory[name], eta, number + 1)
        trajectory.append(dict(values))
    return trajectory


def assert_same(actual: list[Arrays], wanted: list[Arrays], tolerance: float = 1e-13) -> None:
    for step, (a, b) in enumerate(zip(actual, wanted, strict=True)):
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=f"{name}, step {step}")


def plain(g: Any, memory: Any, eta: float, t: int) -> Any:
    return eta * g


def momentum(g: Any, memory: Any, eta: float, t: int) -> Any:
    memory["v"] = 0.9 * memory.get("v", 0.0) + g
    return eta * memory["v"]


def nesterov(g: Any, memory: Any, eta: float, t: int) -> Any:
    memory["v"] = 0.9 * memory.get("v", 0.0) + g
    return eta * (g + 0.9 * memory["v"])


def adam(g: Any, memory: Any, eta: float, t: int) -> Any:
    memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * g
    memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * g**2
    return eta * (memory["m"] / (1 - 0.8**t)) / (np.sqrt(memory["v"] / (1 - 0.95**t)) + 1e-3)


RULES = [
    pytest.param(lambda: gn.SGD(0.1), plain, id="plain"),
    pytest.param(lambda: gn.SGD(0.1, momentum=0.9), momentum, id="momentum"),
    pytest.param(lambda: gn.SGD(0.1, momentum=0.9, nesterov=True), nesterov, id="nesterov"),
    pytest.param(lambda: gn.Adam(0.1, beta1=0.8, beta2=0.95, epsilon=1e-3), adam, id="adam"),
]


@pytest.mark.parametrize(("make", "rule"), RULES)
@pytest.mark.parametrize(
    ("regularizer", "l1", "l2"), [(None, 0, 0), (gn.L2(4.0), 0, 4.0), (gn.L1(3.0), 3.0, 0)], ids=str
)
def test_an_optimizer_follows_its_equation(
    backend: Backend, make: Any, rule: Any, regularizer: Regularizer | None, l1: float, l2: float
) -> None:
    assert_same(followed(backend, make(), regularizer), expected(backend, rule, l1, l2))


@pytest.mark.parametrize(("make", "rule"), RULES)
def test_float32_follows_float64_to_rounding(backend: Backend, make: Any, rule: Any) -> None:
    assert_same(followed(backend, make(), gn.L2(4.0), "float32"), expected(backend, rule, 0, 4.0), 2e-5)


def test_adams_first_step_is_as_long_as_the_rate_whatever_the_gradient(backend: Backend) -> None:
    before = network(backend).parameters.to_host()
    after = followed(backend, gn.Adam(0.1, epsilon=1e-12), None)[0]
    for name in before:
        np.testing.assert_allclose(np.abs(after[name] - before[name]), RATES[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strength", [0.0, 5.0])
def test_the_update_inside_the_product_is_that_of_the_kernel(dtype: str, strength: float) -> None:
    """(21) as one gemm, w := (1 - ηλ/n) w - η δ aᵀ, against the gradient array and the kernel that follows it."""
    from gpunn.backend.devices import select

    backend = select("cpu")
    rng = np.random.default_rng(0)
    results = []
    for folds in (True, False):
        model, loss, optimizer = network(backend, dtype), gn.SoftmaxCrossEntropy(), gn.SGD(0.1)
        optimizer.build(model.parameters, gn.L2(strength) if strength else None, N)
        assert len(optimizer._folded) == 2
        if not folds:
            p = model.parameters
            optimizer._folded, optimizer._values, optimizer._gradients = [], p.values, p.gradients
            optimizer._decayed = p.decayed
        rng = np.random.default_rng(0)
        for number in range(len(RATES)):
            rates, clock = np.asarray(RATES, dtype), np.array([number, number, 0, 0], np.int32)
            loss.forward(model.forward(rng.normal(size=(6, 5)), training=True), rng.integers(0, 3, 6))
            optimizer.before_backward(rates, clock)
            model.backward(loss.backward())
            optimizer.update(rates, clock)
        weights = [p for p in model.parameters if p.weight_decay]
        assert all((p.grad is None) == folds for p in weights)
        results.append(model.parameters.to_host())
    tolerance = 1e-14 if dtype == "float64" else 1e-5
    assert_same([results[0]], [results[1]], tolerance)


@pytest.mark.parametrize(
    ("optimizer", "regularizer"),
    [(gn.SGD(0.1, momentum=0.5), None), (gn.SGD(0.1), gn.L1(1.0)), (gn.Adam(), gn.L2(1.0))],
)
def test_what_remembers_gradients_or_has_l1_keeps_its_gradients(
    backend: Backend, optimizer: Optimizer, regularizer: Regularizer | None
) -> None:
    model = network(backend)
    optimizer.build(model.parameters, regularizer, N)
    optimizer.before_backward(backend.asarray(RATES), backend.zeros((1,), np.int32))
    assert all(p.grad is not None for p in model.parameters)


def test_what_an_optimizer_remembers_has_names(backend: Backend) -> None:
    model = network(backend)
    names = {}
    for optimizer in (gn.SGD(0.1), gn.SGD(0.1, momentum=0.9), gn.Adam(), gn.AdamW()):
        optimizer.build(model.parameters)
        names[repr(type(optimizer)), len(optimizer.state)] = sorted(optimizer.state)
        assert all(array.shape == model.parameters.values.shape for array in optimizer.state.values())
    assert sorted(names.values()) == [[], ["first", "second"], ["first", "second"], ["velocity"]]


@pytest.mark.parametrize("regularizer", [None, gn.L2(4.0)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-5)])
def test_adamw_takes_the_decay_from_the_weights_and_not_from_the_means(
    backend: Backend, dtype: str, tolerance: float, regularizer: Regularizer | None
) -> None:
    """w := (1 - ηλ) w - η m̂ / (√v̂ + ε): η of the schedule, biases as Adam has them."""
    optimizer = gn.AdamW(0.1, 0.25, beta1=0.8, beta2=0.95, epsilon=1e-3)
    wanted = expected(backend, adam, 0.0, 4.0 if regularizer else 0.0, 0.25)
    assert_same(followed(backend, optimizer, regularizer, dtype), wanted, tolerance)


BETAS = (0.9, 0.99, 0.999, 0.9999)


@pytest.mark.parametrize("beta", BETAS)
def test_adams_powers_are_exact_in_float32_for_every_step(beta: float) -> None:
    """1 - βᵗ = -expm1(t log β), as a device computes it, for each of a million steps."""
    t = np.arange(1, 10**6 + 1)
    log_beta = np.float32(of_mean(beta)[2])
    product = t.astype(np.float32) * log_beta
    assert product.dtype == np.float32
    np.testing.assert_allclose(-np.expm1(product), -np.expm1(t * math.log(beta)), rtol=2e-7, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("betas", [*zip(BETAS, reversed(BETAS), strict=True), (0.0, 0.999), (0.9, 0.0), (0.0, 0.0)])
def test_adam_divides_by_the_powers_of_the_step(backend: Backend, dtype: str, betas: tuple[float, float]) -> None:
    """Of g = m = 1 before the step, and of v = 0 and 1: m stays 1 then, and v is 1 - β₂ and 1."""
    means = *of_mean(betas[0]), *of_mean(betas[1])
    first, second, begun = np.ones(2, dtype), np.array([0, 1], dtype), 5
    for t in (1, 2, 3, 7, 100, 1000, 12_345, 100_000, 10**6):
        clock = np.array([0, begun + t - 1, 0, 0], np.int32)
        arrays = first.copy(), second.copy(), np.zeros(2, dtype), clock
        settings = 0, 0.0, 0.0, *means, 0.25, 0.0, begun
        value = call(backend, adam_kernel, np.ones(2, dtype), np.ones(1, dtype), *settings, *arrays)[-2]
        m_hat, v_hats = 1 / (1 - betas[0] ** t), (v / (1 - betas[1] ** t) for v in (1 - betas[1], 1))
        wanted = [-m_hat / (math.sqrt(v_hat) + 0.25) for v_hat in v_hats]
        np.testing.assert_allclose(value, wanted, rtol=1e-6 if dtype == "float32" else 1e-12, err_msg=f"step {t}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_without_decay_is_adam_to_the_same_bits(backend: Backend, dtype: str) -> None:
    plain = followed(backend, gn.Adam(0.1, epsilon=1e-3), gn.L2(4.0), dtype)
    assert_same(followed(backend, gn.AdamW(0.1, 0.0, epsilon=1e-3), gn.L2(4.0), dtype), plain, 0.0)
    assert any((a["dense1.w"] != b["dense1.w"]).any() for a, b in zip(
        followed(backend, gn.AdamW(0.1, epsilon=1e-3), gn.L2(4.0), dtype), plain, strict=True
    ))  # fmt: skip


def test_a_decay_too_small_to_change_a_factor_of_float32_still_shrinks_the_weights(backend: Backend) -> None:
    """1 - ηλ is 1 in float32 where ηλ is 2⁻²⁶; added to a step of its own size the decay counts."""
    model, optimizer = network(backend, "float32"), gn.AdamW(0.25, 2.0**-24, epsilon=1e-8)
    optimizer.build(model.parameters, None, N)
    w = np.full(model.parameters["dense1.w"].shape, 2.0**20, np.float32)
    backend.assign(model.parameters["dense1.w"].value, w)
    for p in model.parameters:
        backend.assign(p.grad, np.zeros(p.shape, np.float32))
    backend.assign(model.parameters["dense1.w"].grad, np.full(w.shape, 1e-3, np.float32))
    optimizer.update(backend.asarray(np.full(5, 0.25), "float32"), backend.asarray(np.zeros(4, np.int32)))
    # The step is 0.25, the decay 2⁻⁶, and floats at 2²⁰ are 1/16 apart below it.
    after = model.parameters.to_host()["dense1.w"]
    np.testing.assert_array_equal(after, np.float32(2.0**20 - 0.25 - 2.0**-6))


def test_building_again_forgets_the_momentum(backend: Backend) -> None:
    optimizer = gn.SGD(0.1, momentum=0.9)
    first = followed(backend, optimizer, None)
    assert_same(followed(backend, optimizer, None), first, 0.0)


# Regularisers


def test_the_cost_of_l2_is_the_half_mean_square_and_of_l1_the_mean_size() -> None:
    """(18) λ/2n Σ w², and λ/n Σ |w|."""
    w = np.array([3.0, -4.0, 0.0])
    assert gn.L2(5.0).cost(w, 10) == pytest.approx(5.0 / 20 * 25)
    assert gn.L1(5.0).cost(w, 10) == pytest.approx(5.0 / 10 * 7)
    assert gn.L2(5.0).coefficients(10) == (0.0, 0.5)
    assert gn.L1(5.0).coefficients(10) == (0.5, 0.0)


def test_a_regulariser_adds_up_in_double_precision() -> None:
    w = np.full(100_000, 1e-3, np.float32)
    exact = 100_000 * float(w[0])
    assert gn.L1(1.0).cost(w, 1) == pytest.approx(exact, rel=1e-12)
    assert gn.L2(2.0).cost(w, 1) == pytest.approx(exact * float(w[0]), rel=1e-12)


# Arguments that cannot be

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "make",
    [
        *(lambda v=v: gn.SGD(v) for v in (0, -0.1, NAN, INF)),
        *(lambda v=v: gn.Adam(v) for v in (0, -0.1, NAN, INF)),
        *(lambda v=v: gn.SGD(0.1, momentum=v) for v in (-0.1, 1, NAN, INF)),
        lambda: gn.SGD(0.1, nesterov=True),
        *(lambda v=v: gn.Adam(beta1=v) for v in (-0.1, 1, NAN)),
        *(lambda v=v: gn.Adam(beta2=v) for v in (-0.1, 1, NAN)),
        *(lambda v=v: gn.Adam(epsilon=v) for v in (0, -1, NAN, INF)),
        *(lambda v=v: gn.AdamW(weight_decay=v) for v in (-0.1, NAN, INF, "0.1")),
        *(lambda v=v: gn.AdamW(**v) for v in ({"beta1": 1}, {"beta2": -1}, {"epsilon": 0})),
        *(lambda v=v: gn.L1(v) for v in (-1, NAN, INF)),
        *(lambda v=v: gn.L2(v) for v in (-1, NAN, INF)),
    ],
)
def test_a_hyper_parameter_that_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert "got" in one_line(caught.value)


def test_a_number_is_a_constant_rate_and_a_schedule_is_itself() -> None:
    assert isinstance(gn.SGD(0.25).schedule, Constant)
    assert gn.SGD(0.25).schedule.rate == 0.25
    cosine = gn.Cosine(0.5)
    assert gn.Adam(cosine).schedule is cosine


@pytest.mark.parametrize(
    "text",
    [
        "SGD(0.2, momentum=0.9)",
        "Adam(0.001)",
        "AdamW(0.001)",
        "AdamW(Cosine(0.01), weight_decay=0.1)",
        "SGD(Cosine(0.1), momentum=0.5, nesterov=True)",
        "OneCycle(0.1)",
    ],
)
def test_an_optimizer_is_shown_as_the_python_that_makes_it(text: str) -> None:
    assert repr(eval(text, vars(gn))) == text
