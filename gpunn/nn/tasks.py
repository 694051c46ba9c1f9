"""The task of a network: its kind of answers, and the figures that say how good they are."""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIGURES = {"loss": "loss", "accuracy": "accuracy", "rmse": "RMSE", "r2": "R²"}  # of every task, as people call them


class Task(Enum):
    """The kind of question that a network answers; its loss and its targets decide on it (`Loss.task`)."""

    CLASSES = "classes"  # labels: one class for each sample; one output alone is that of class 1 of two
    BINARY = "binary"  # float targets from 0 to 1 under binary cross-entropy: 0 or 1 for each output by itself
    REGRESSION = "regression"  # other float targets: numbers

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that apply."""
        return ("loss", "rmse", "r2") if self is Task.REGRESSION else ("loss", "accuracy")

    def answers(self, outputs: NDArray[Any], classes: int = 2) -> NDArray[Any]:
        """Answers that outputs (n, outputs) give: class numbers (n,), 0 or 1 (n, outputs), or the outputs.

        One output alone is that of class 1 of two, or of the only class where `classes` is 1.
        """
        if self is Task.REGRESSION:
            return outputs
        if self is Task.CLASSES and (outputs.shape[1] > 1 or classes == 1):
            return np.asarray(np.argmax(outputs, axis=1))
        each = (outputs >= 0.5).astype(np.intp)
        return each[:, 0] if self is Task.CLASSES else each


def by_class(outputs: NDArray[Any], classes: int = 2) -> NDArray[Any]:
    """Outputs with a column for each class: the output of class 1 alone is given that of class 0."""
    return np.hstack([1 - outputs, outputs]) if outputs.shape[1] < min(classes, 2) else outputs


def in_words(figures: Mapping[str, float]) -> str:
    """Write figures by name as one text, those that are nan left out: "loss 0.0903, accuracy 98.06%"."""
    told = {name: value for name, value in figures.items() if not math.isnan(value)}
    return ", ".join(f"{FIGURES.get(name, name)} {shown(name, value)}" for name, value in told.items())


def shown(name: str, value: float) -> str:
    """One figure, with four digits or so."""
    if name == "accuracy":
        return f"{value:.2%}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"
