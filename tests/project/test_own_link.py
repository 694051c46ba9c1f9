"""Losses from outside that contain an activation: what was trained from z answers by the activation of z."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.config import custom_classes
from gpunn.errors import OptionError

X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
BINARY = (X[:, :2] > 0.4).astype(np.float32)
ARGUMENTS: dict[str, Any] = {"epochs": 4, "device": "cpu", "progress": False}


class Logistic(gn.Activation):
    """f(z) = 1 / (1 + e⁻ᶻ), in array code."""

    gives_probability = True

    def function(self, xp: Any, z: Any) -> Any:
        return 1 / (1 + xp.exp(-z))

    def derivative(self, xp: Any, z: Any) -> Any:
        s = self.function(xp, z)
        return s * (1 - s)


class Crossed(gn.Loss):
    """ln(1 + eᶻ) − t z, binary cross-entropy from z."""

    link = Logistic
    of_targets = gn.BinaryCrossEntropy.of_targets

    def function(self, xp: Any, y: Any, t: Any) -> Any:
        return xp.logaddexp(0, y) - t * y

    def derivative(self, xp: Any, y: Any, t: Any) -> Any:
        return 1 / (1 + xp.exp(-y)) - t


@pytest.mark.parametrize("ends", [(), (Logistic(),)], ids=["in logits", "in the link"])
@pytest.mark.parametrize("y", [BINARY, BINARY[:, :1], BINARY[:, 0].astype(int)], ids=["several", "one", "labels"])
def test_answers_are_those_of_the_same_loss_of_gpunn(y: Any, ends: Any) -> None:
    outputs, found = y.shape[1] if y.ndim == 2 else 1, []
    for loss, last in ((Crossed(), ends), (gn.BinaryCrossEntropy(), (gn.Sigmoid(),) if ends else ())):
        model = gn.Sequential([gn.Dense(outputs), *last])
        history = model.fit(X, y, loss=loss, **ARGUMENTS)
        evaluated, report = model.evaluate(X, y), model.report(X, y)
        assert evaluated.accuracy == pytest.approx(report.to_dict()["accuracy"])
        found.append((model.predict_proba(X), model.predict(X), evaluated.loss, history["validation_accuracy"], report))
    own, known = found
    assert own[0] == pytest.approx(known[0], abs=1e-5)
    assert ((own[0] > 0) & (own[0] < 1)).all()
    assert np.array_equal(own[1], known[1])
    assert own[2] == pytest.approx(known[2], rel=1e-5)
    assert own[3] == pytest.approx(known[3])
    assert str(own[4]) == str(known[4])


def test_a_saved_network_answers_alike(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Dense(2)])
    model.fit(X, BINARY, loss=Crossed(), **ARGUMENTS)
    with custom_classes([Crossed, Logistic]):
        model.save(tmp_path / "model.safetensors")
    again = gn.load_model(tmp_path / "model.safetensors", custom=[Crossed, Logistic])
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_link_with_constants_is_computed_with_them() -> None:
    class Half(gn.LeakyReLU):
        def __init__(self) -> None:
            super().__init__(0.5)

    class Distant(gn.Loss):
        link = Half

        def function(self, xp: Any, y: Any, t: Any) -> Any:
            return (xp.where(y > 0, y, y / 2) - t) ** 2

        def derivative(self, xp: Any, y: Any, t: Any) -> Any:
            return 2 * (xp.where(y > 0, y, y / 2) - t) * xp.where(y > 0, 1, 0.5)

    model = gn.Sequential([gn.Dense(2)])
    model.fit(X, X[:, :2], loss=Distant(), **ARGUMENTS)
    found, loss = model.predict(X), model.loss
    assert ((found - X[:, :2]) ** 2).sum(axis=1).mean() == pytest.approx(model.evaluate(X, X[:, :2]).loss, rel=1e-5)
    assert isinstance(loss, Distant)


def test_a_link_that_needs_arguments_is_said_in_a_line() -> None:
    class Steep(Logistic):
        def __init__(self, slope: float) -> None:
            self.slope = slope

    class Wrong(Crossed):
        link = Steep

    with pytest.raises(OptionError, match="give slope a default") as caught:
        gn.Sequential([gn.Dense(2)]).fit(X, BINARY, loss=Wrong(), **ARGUMENTS)
    one_line(caught.value)
