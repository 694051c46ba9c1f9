"""`gn.check_gradients`: right gradients pass, wrong ones are named with their place and both numbers."""

from typing import Any

import numpy as np
import pytest
from support.harness import one_line
from support.outside import Huber, Narrow, Scale, Standardize, Swish

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, OptionError, ShapeError

LAYERS: list[tuple[gn.Layer, Any]] = [
    (gn.Dense(3), 4),
    (gn.Dense(3, bias=False), 4),
    (gn.Conv2D(2, 3, padding=1), (4, 5, 2)),
    (gn.MaxPool2D(2), (4, 4, 2)),
    (gn.AveragePool2D(2), (4, 4, 1)),
    (gn.BatchNorm(), 4),
    (gn.BatchNorm(), (3, 3, 2)),
    (gn.LayerNorm(), 5),
    (gn.Dropout(0.3), 6),
    (gn.Flatten(), (2, 3, 2)),
    *((kind(), 5) for kind in (gn.ReLU, gn.LeakyReLU, gn.Sigmoid, gn.Tanh, gn.Softplus, gn.Softmax)),
    (Standardize(), 5),
    (Scale(), (3, 2, 2)),
    (Swish(2.0), (2, 2, 3)),
]
LOSSES = [Huber(0.5), Narrow(), gn.SoftmaxCrossEntropy(label_smoothing=0.1), gn.BinaryCrossEntropy()]
LOSSES += [gn.MeanSquaredError()]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: repr(value).replace(" ", ""))
def test_the_gradients_of_a_layer_are_right(backend: Backend, layer: gn.Layer, shape: Any) -> None:
    check = gn.check_gradients(layer, shape, device=backend)
    assert check.worst.error < 1e-7
    assert {each.overwritten for each in check.compared} == {False, True}
    assert np.prod(check["input"].place) < 3 * np.prod(shape)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_gradient_of_a_loss_is_right_with_weights_and_without(backend: Backend, loss: gn.Loss) -> None:
    names = [each.name for each in gn.check_gradients(loss, 4, device=backend).compared]
    assert names == ["outputs", "outputs of weighted samples"]
    assert gn.check_gradients(gn.Dense(4), 3, loss=loss, device=backend)["dense1.w"].error < 1e-6


def test_a_network_is_checked_with_the_weights_that_it_has() -> None:
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.ReLU(), gn.Dense(2)])
    model.fit(np.eye(6)[:, :3], np.arange(6) % 2, epochs=1, device="cpu", progress=False)
    before = model.arrays()
    first, again = (gn.check_gradients(model, 3, loss=gn.SoftmaxCrossEntropy()) for _ in range(2))
    assert first == again
    np.testing.assert_equal(model.arrays(), before)
    fresh = gn.check_gradients(gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.ReLU(), gn.Dense(2)]), 3)
    assert fresh["dense1.w"].gradient != first["dense1.w"].gradient


class Wrong(Standardize):
    def backward(self, dy: Any) -> Any:
        dx = super().backward(dy)
        self._beta.grad[...] *= 2
        return dx


class Elsewhere(gn.Layer):
    """One element of its gradient is wrong."""

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        return x * x

    def backward(self, dy: Any) -> Any:
        return dy  # which is no array of the right numbers


class Keeping(Elsewhere):
    """Its backward reads its output, and it does not say so."""

    def forward(self, x: Any, training: bool) -> Any:
        self._y = np.exp(x)
        return self._y

    def backward(self, dy: Any) -> Any:
        return dy * self._y


class Saying(Keeping):
    output_is_free = False


class Halving(gn.MeanSquaredError):
    def derivative(self, xp: Any, y: Any, t: Any) -> Any:
        return y - t

    def function(self, xp: Any, y: Any, t: Any) -> Any:
        return (y - t) ** 2


def test_a_wrong_gradient_is_named_with_its_place_and_both_numbers() -> None:
    with pytest.raises(gn.GradientError, match=r"Wrong.*standardize1\.beta") as caught:
        gn.check_gradients(Wrong(), 4)
    one_line(caught.value)
    worst = caught.value.check.worst
    assert worst.name == "standardize1.beta"
    assert worst.gradient == pytest.approx(2 * worst.difference)
    for word in (f"{worst.gradient:.9g}", f"{worst.difference:.9g}", f"standardize1.beta[{worst.place[0]}]"):
        assert word in str(caught.value)
    assert caught.value.check["input"].error < 1e-7


def test_the_place_of_a_wrong_gradient_by_the_input_is_that_of_the_sample() -> None:
    x = np.full((3, 4), 0.5)
    x[2, 1] = 4.0
    with pytest.raises(gn.GradientError) as caught:
        gn.check_gradients(Elsewhere(), 4, inputs=x)
    assert caught.value.check.worst.place == (2, 1)
    with pytest.raises(gn.GradientError, match=r"Halving.*derivative"):
        gn.check_gradients(Halving(), 2)


def test_a_layer_whose_output_is_overwritten_is_told_what_to_set() -> None:
    with pytest.raises(gn.GradientError, match="output_is_free = False"):
        gn.check_gradients(Keeping(), 4)
    gn.check_gradients(Saying(), 4)


def test_at_a_kink_every_slope_between_both_sides_is_right() -> None:
    assert gn.check_gradients(gn.ReLU(), 3, inputs=np.zeros((2, 3)))["input"].kinks == 6

    class Beyond(gn.ReLU):
        def backward(self, dy: Any) -> Any:
            return dy * 1.5

    with pytest.raises(gn.GradientError):
        gn.check_gradients(Beyond(), 3, inputs=np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"part": gn.Dense}, "layer, a loss or a network"),
        ({"part": 3}, "layer, a loss or a network"),
        ({"part": gn.Dense(2), "shape": (2, 2)}, "input shape"),
        ({"part": gn.Dense(2), "inputs": np.zeros((2, 5))}, "inputs must be"),
        ({"part": gn.Dense(2), "inputs": [["a"]]}, "inputs must be numbers"),
        ({"part": gn.Dense(2), "loss": "mse"}, "loss behind"),
        ({"part": gn.MeanSquaredError(), "loss": gn.MeanSquaredError()}, "loss behind"),
        ({"part": gn.Dense(20), "shape": 1000}, "elements to check"),
        ({"part": gn.Dense(2), "step": 0}, "step"),
        ({"part": gn.Dense(2), "tolerance": -1}, "tolerance"),
        ({"part": gn.Dense(2), "batch_size": 0}, "batch_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_checked_is_said_in_a_line(given: dict[str, Any], word: str) -> None:
    with pytest.raises((DataError, OptionError, ShapeError), match=word) as caught:
        gn.check_gradients(given.pop("part"), given.pop("shape", 4), **given)
    one_line(caught.value)


def test_a_kink_beside_the_place_that_is_too_weak_to_be_seen_is_no_error() -> None:
    """Slopes that differ by less than a kink is known by, and by more than is allowed."""

    class Weak(gn.Activation):
        def function(self, xp: Any, z: Any) -> Any:
            return z + xp.abs(z - 0.5) * 2e-4

        def derivative(self, xp: Any, z: Any) -> Any:
            return 1 + xp.sign(z - 0.5) * 2e-4

    beside = [[0.5 + 3e-6, 1.0, 2.0]]
    assert gn.check_gradients(Weak(), 3, inputs=beside).worst.error < 1e-8

    class Wrong(Weak):
        def derivative(self, xp: Any, z: Any) -> Any:
            return 1 + xp.sign(z - 0.5) * 3e-4

    with pytest.raises(gn.GradientError):
        gn.check_gradients(Wrong(), 3, inputs=beside)
