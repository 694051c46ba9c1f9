"""Define the tasks of networks: classes, yes or no, or numbers, and the metrics of each."""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIGURES = {"loss": "loss", "accuracy": "accuracy", "rmse": "RMSE", "r2": "R²"}  # names to show, for all tasks


class Task(Enum):
    """Task of a network, set by its loss and its targets (`Loss.task`)."""

    CLASSES = "classes"  # labels: one class for each sample; a single output is that of class 1 of two
    BINARY = "binary"  # float targets from 0 to 1 under binary cross-entropy: each output is 0 or 1 by itself
    REGRESSION = "regression"  # other float targets: numbers

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the task's metrics."""
        return ("loss", "rmse", "r2") if self is Task.REGRESSION else ("loss", "accuracy")

    def answers(self, outputs: NDArray[Any], classes: int = 2) -> NDArray[Any]:
        """Turn outputs (n, outputs) into answers: class numbers (n,), 0 or 1 (n, outputs), or the outputs.

        A single output is that of class 1 of two, or of the only class where `classes` is 1.
        """
        if self is Task.REGRESSION:
            return outputs
        if self is Task.CLASSES and (outputs.shape[1] > 1 or classes == 1):
            return np.asarray(np.argmax(outputs, axis=1))
        each = (outputs >= 0.5).astype(np.intp)
        return each[:, 0] if self is Task.CLASSES else each


def by_class(outputs: NDArray[Any], classes: int = 2) -> NDArray[Any]:
    """Return outputs with a column for each class: a single output of class 1 gains that of class 0."""
    return np.hstack([1 - outputs, outputs]) if outputs.shape[1] < min(classes, 2) else outputs


def in_words(figures: Mapping[str, float]) -> str:
    """Write metrics as one text, without those that are NaN: "loss 0.0903, accuracy 98.06%"."""
    told = {name: value for name, value in figures.items() if not math.isnan(value)}
    return ", ".join(f"{FIGURES.get(name, name)} {shown(name, value)}" for name, value in told.items())


def shown(name: str, value: float) -> str:
    """Write one metric, with about four digits."""
    if name == "accuracy":
        return f"{value:.2%}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"
