"""The costs as written, finite for every finite z, and their errors. Their gradients are in test_gradients.py."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import DTYPES, one_line

from gpunn import (
    BinaryCrossEntropy,
    Dense,
    MeanSquaredError,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    load_model,
)
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.errors import DataError, OptionError, ShapeError
from gpunn.kernels.record import Raw
from gpunn.nn.losses import Loss

LOSSES = [MeanSquaredError, BinaryCrossEntropy, SoftmaxCrossEntropy]


def value(backend: Backend, loss: Loss, y: Any, t: Any, dtype: str = "float64") -> float:
    return float(loss.forward(backend.asarray(np.asarray(y), dtype), t))


def test_mean_squared_error_sums_over_outputs_and_averages_over_samples(backend: Backend) -> None:
    """C = (1/n) Σ ‖a - y‖²."""
    a, y = [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]], np.array([[0.0, 2.0], [1.0, 1.0], [0.5, 0.0]])
    assert value(backend, MeanSquaredError(), a, y) == pytest.approx((1 + 4 + 9 + 0.25) / 3, rel=1e-15)


def test_binary_cross_entropy_sums_over_outputs_and_averages_over_samples(backend: Backend) -> None:
    """C = -(1/n) Σ y ln a + (1-y) ln(1-a), a = sigmoid(z)."""
    z, y = np.array([[0.5, -1.0], [2.0, 0.0]]), np.array([[1.0, 0.25], [0.0, 0.5]])
    a = 1 / (1 + np.exp(-z))
    expected = -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum() / 2
    assert value(backend, BinaryCrossEntropy(), z, y) == pytest.approx(expected, rel=1e-14)


def test_softmax_cross_entropy_averages_over_samples(backend: Backend) -> None:
    """C = -(1/n) Σ ln softmax(z)_y."""
    z, labels = np.array([[0.5, -1.0, 2.0], [2.0, 0.0, 1.0]]), np.array([1, 0])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    expected = -(math.log(p[0, 1]) + math.log(p[1, 0])) / 2
    assert value(backend, SoftmaxCrossEntropy(), z, labels) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
def test_smoothed_labels_are_the_targets_of_a_softmax_cross_entropy(backend: Backend, smoothing: float) -> None:
    """C = -(1/n) Σ t ln softmax(z), t = (1 - s) onehot(y) + s/K."""
    rng = np.random.default_rng(0)
    z, labels = rng.normal(0, 3, (6, 4)), np.array([0, 3, 2, 2, 1, 0])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    t = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    loss = SoftmaxCrossEntropy(label_smoothing=smoothing)
    assert value(backend, loss, z, labels) == pytest.approx(-(t * np.log(p)).sum() / 6, rel=1e-14)
    np.testing.assert_allclose(backend.to_host(loss.backward()), (p - t) / 6, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_smoothed_cost_is_finite_and_right_far_out(backend: Backend, dtype: str) -> None:
    sure, loss = np.array([[1e30, -1e30]], dtype), SoftmaxCrossEntropy(label_smoothing=0.5)
    assert value(backend, loss, sure, np.array([0]), dtype) == pytest.approx(0.25 * 2e30, rel=1e-6)
    assert value(backend, loss, sure, np.array([1]), dtype) == pytest.approx(0.75 * 2e30, rel=1e-6)


def test_a_training_reports_and_remembers_the_smoothed_loss(backend: Backend, tmp_path: Path) -> None:
    """That of validation too, as a criterion of PyTorch would; samples of weights count by them."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(60, 5)), rng.integers(0, 3, 60), rng.uniform(0.5, 2, 60)
    model = Sequential([Dense(6), Tanh(), Dense(3)])
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "dtype": "float64", "device": backend, "progress": False}
    loss = SoftmaxCrossEntropy(label_smoothing=0.2)
    history = model.fit(x, y, sample_weight=w, validation_data=(x, y, w), loss=loss, **options)
    p, t = model.predict_proba(x), 0.8 * np.eye(3)[y] + 0.2 / 3
    expected = float(-(w[:, None] * t * np.log(p)).sum() / w.sum())
    assert history[-1].validation_loss == pytest.approx(expected, rel=1e-9)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", device=backend.device)
    assert repr(again.loss) == "SoftmaxCrossEntropy(label_smoothing=0.2)"
    assert again.evaluate(x, y, sample_weight=w).loss == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan"), True, "0.1"])
def test_a_smoothing_that_cannot_be_is_refused(smoothing: Any) -> None:
    with pytest.raises(OptionError, match=r"label_smoothing of SoftmaxCrossEntropy must (lie|be a number)") as caught:
        SoftmaxCrossEntropy(label_smoothing=smoothing)
    one_line(caught.value)


def test_a_smoothing_is_shown_where_there_is_one() -> None:
    assert repr(SoftmaxCrossEntropy()) == "SoftmaxCrossEntropy()"
    assert repr(SoftmaxCrossEntropy(label_smoothing=0.1)) == "SoftmaxCrossEntropy(label_smoothing=0.1)"


def test_what_a_constant_answer_costs_at_least_is_smoothed_too() -> None:
    """The best of all constant answers is the mean of the targets."""
    shares, s = np.array([0.5, 0.3, 0.2]), 0.3
    t = (1 - s) * shares + s / 3
    assert SoftmaxCrossEntropy(label_smoothing=s).of_constant(shares, shares) == pytest.approx(
        -(t * np.log(t)).sum(), rel=1e-14
    )


def test_an_undecided_network_costs_the_logarithm_of_the_number_of_classes(backend: Backend) -> None:
    z, labels = np.zeros((4, 10)), np.array([0, 3, 9, 5])
    assert value(backend, SoftmaxCrossEntropy(), z, labels) == pytest.approx(math.log(10), rel=1e-15)
    assert value(backend, BinaryCrossEntropy(), z, labels) == pytest.approx(10 * math.log(2), rel=1e-15)


@pytest.mark.parametrize("loss", [MeanSquaredError, BinaryCrossEntropy])
def test_labels_become_one_hot_where_a_cost_wants_targets(backend: Backend, loss: type[Loss]) -> None:
    y, labels = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 3, 2, 2, 1, 0])
    assert value(backend, loss(), y, labels) == value(backend, loss(), y, np.eye(4)[labels])


@pytest.mark.parametrize("loss", [MeanSquaredError, BinaryCrossEntropy])
def test_labels_of_one_output_are_its_targets(backend: Backend, loss: type[Loss]) -> None:
    y, labels = np.random.default_rng(0).normal(size=(6, 1)), np.array([0, 1, 1, 0, 1, 0])
    cost, other = loss(), loss()
    assert value(backend, cost, y, labels) == value(backend, other, y, labels[:, None].astype(float))
    np.testing.assert_array_equal(backend.to_host(cost.backward()), backend.to_host(other.backward()))
    with pytest.raises(DataError, match="labels must be 0 to 1, got 0 to 2"):
        value(backend, loss(), y, np.array([0, 1, 2, 0, 1, 0]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", [BinaryCrossEntropy, SoftmaxCrossEntropy])
@pytest.mark.parametrize("size", [88.0, 104.0, 710.0, 1000.0, 1e30])
def test_a_cost_of_logits_is_finite_and_right_far_out(
    backend: Backend, loss: type[Loss], dtype: str, size: float
) -> None:
    sure = np.array([[size, -size]], dtype)
    right, wrong = np.array([0]), np.array([1])
    assert value(backend, loss(), sure, right, dtype) == pytest.approx(0, abs=1e-37)
    assert value(backend, loss(), sure, wrong, dtype) == pytest.approx(2 * size, rel=1e-6)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy, SoftmaxCrossEntropy])
def test_gradients_far_out_are_the_differences_of_probabilities(backend: Backend, loss: type[Loss]) -> None:
    cost = loss()
    value(backend, cost, [[1000.0, -1000.0], [-1000.0, 1000.0]], np.array([0, 0]))
    np.testing.assert_array_equal(backend.to_host(cost.backward()), [[0.0, 0.0], [-0.5, 0.5]])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_costs_of_samples_average_to_the_cost(backend: Backend, loss: type[Loss]) -> None:
    cost, y, labels = loss(), np.random.default_rng(1).normal(size=(7, 3)), np.arange(7) % 3
    mean = value(backend, cost, y, labels)
    each = backend.to_host(cost.costs)
    assert each.shape == (7,)
    assert mean == pytest.approx(each.mean(), rel=1e-14)
    alone = [value(backend, loss(), y[j : j + 1], labels[j : j + 1]) for j in range(7)]
    np.testing.assert_allclose(each, alone, rtol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_cost_takes_batches_of_any_size_one_after_another(backend: Backend, loss: type[Loss]) -> None:
    cost, rng = loss(), np.random.default_rng(2)
    for n, outputs, dtype in (
        (3, 4, "float64"),
        (9, 4, "float64"),
        (2, 4, "float64"),
        (5, 2, "float64"),
        (4, 2, "float32"),
    ):
        y, labels = rng.normal(size=(n, outputs)), rng.integers(0, outputs, n)
        assert value(backend, cost, y, labels, dtype) == value(backend, loss(), y, labels, dtype)
        assert cost.backward().shape == (n, outputs)
        assert cost.backward().dtype == dtype


def test_which_activation_a_cost_contains() -> None:
    assert (SoftmaxCrossEntropy.link, BinaryCrossEntropy.link, MeanSquaredError.link) == (Softmax, Sigmoid, None)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("labels", "got"), [([0, 3], "0 to 3"), ([-1, 2], "-1 to 2")])
def test_a_label_that_is_no_output_is_refused(backend: Backend, loss: type[Loss], labels: list[int], got: str) -> None:
    with pytest.raises(DataError, match=f"labels must be 0 to 2, got {got}") as caught:
        value(backend, loss(), np.zeros((2, 3)), np.array(labels))
    one_line(caught.value)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("y", "t"),
    [
        (np.zeros((2, 3)), np.array([0, 1, 2])),
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.zeros((2, 3)), np.array([0.0, 1.0])),
        (np.zeros(3), np.array([0, 1, 2])),
        (np.zeros((0, 3)), np.zeros(0, int)),
    ],
)
def test_outputs_and_targets_that_do_not_belong_together_are_refused(
    backend: Backend, loss: type[Loss], y: NDArray[Any], t: NDArray[Any]
) -> None:
    with pytest.raises(ShapeError) as caught:
        value(backend, loss(), y, t)
    assert loss.__name__ in one_line(caught.value)


def test_softmax_cross_entropy_takes_no_targets_but_labels(backend: Backend) -> None:
    with pytest.raises(ShapeError, match="SoftmaxCrossEntropy expects integer labels"):
        value(backend, SoftmaxCrossEntropy(), np.zeros((2, 3)), np.zeros((2, 3)))


def _halves(
    z: Any, bias: Any, t: Any, weight: Any, gradient: Any, of_bias: Any, losses: Any, totals: Any, *_: Any
) -> None:
    """The kernel of a user: (1/2n) Σ ‖z − t‖², n the samples that it sees."""
    np.divide(z + bias[:, None] - t, z.shape[1], out=gradient)
    of_bias[...] = gradient.sum(axis=1)
    losses[...] = np.square(z - t).sum(axis=0) / 2
    totals[0] += weight * losses.sum(dtype=np.float64)


class _Halves(Loss):
    kernel = Raw("halves_of_a_share", host=_halves, is_listed=False)


class _InArrayCode(Loss):
    def function(self, xp: Any, y: Any, t: Any) -> Any:
        return xp.square(y - t)

    def derivative(self, xp: Any, y: Any, t: Any) -> Any:
        return 2 * (y - t)


SHARED = [*(loss() for loss in LOSSES), SoftmaxCrossEntropy(label_smoothing=0.1), _InArrayCode()]
SHARED += [Loss.from_equation("shared", "log(cosh(a - y))")]


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("loss", SHARED, ids=lambda loss: type(loss).__name__)
def test_shares_of_a_batch_have_the_gradients_of_the_whole(backend: Backend, loss: Loss, is_weighted: bool) -> None:
    """Of 7 samples 3, 3 and 1: the very numbers, and right answers and losses that add up to those of all."""
    _agrees_in_shares(backend, loss, is_weighted, exactly=True)


def test_shares_of_a_loss_whose_kernel_knows_nothing_of_them_are_scaled() -> None:
    _agrees_in_shares(select("cpu"), _Halves(), False, exactly=False)


def _agrees_in_shares(backend: Backend, loss: Loss, is_weighted: bool, exactly: bool) -> None:
    rng = np.random.default_rng(0)
    z, bias = rng.normal(0, 2, (4, 7)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    t = rng.integers(0, 4, 7).astype(np.int32) if loss.takes_labels else rng.random((4, 7)).astype(np.float32)
    w = rng.uniform(0.5, 2, 7).astype(np.float32)

    def run(part: slice, of: int) -> list[Any]:
        given = {"sample_weight": backend.asarray(w[part])} if is_weighted else {}
        totals, of_bias = backend.zeros((3,), np.float64), backend.zeros((4,), np.float32)
        of_share = (backend.asarray(array) for array in (z[:, part], t[..., part]))
        loss.evaluate(backend, *of_share, totals, 1.0, backend.asarray(bias), of_bias, **given, of=of)
        return [backend.to_host(array) for array in (loss.gradient, loss.costs, of_bias, totals)]

    gradient, costs, of_bias, totals = run(slice(7), 0)
    shares = [run(slice(first, end), 7) for first, end in ((0, 3), (3, 6), (6, 7))]
    parts = np.concatenate([share[0] for share in shares], axis=1)
    np.testing.assert_allclose(parts, gradient, rtol=0 if exactly else 1e-6)
    np.testing.assert_array_equal(np.concatenate([share[1] for share in shares]), costs)
    np.testing.assert_allclose(sum(share[2] for share in shares), of_bias, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sum(share[3] for share in shares), totals, rtol=1e-12)
