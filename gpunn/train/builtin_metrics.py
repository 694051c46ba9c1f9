"""Compute the metrics of `Sequential.report` by their names, such as "f1"."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import OptionError
from gpunn.nn.tasks import Task, by_class
from gpunn.train.metrics import Average, Counts, Weights, divided, errors_of, mean, ranks, roc_auc


@dataclass(frozen=True, eq=False)
class MetricInputs:
    """True and predicted values of a task.

    Attributes:
        true: Labels (n,), or targets (n, outputs) in their units.
        outputs: Outputs of `predict_proba` (n, outputs).
        predicted: Values of `predict`, of the shape of `true`.
        classes: Number of classes the network predicts.
        weights: Weight of each sample (n,), or None.
    """

    task: Task
    true: NDArray[Any]
    outputs: NDArray[Any]
    predicted: NDArray[Any]
    classes: int
    weights: Weights


def _counts(inputs: MetricInputs) -> Counts:
    if inputs.task is Task.CLASSES:
        return Counts.of_classes(inputs.true, inputs.predicted, inputs.classes, inputs.weights)
    return Counts.of_outputs(inputs.true, inputs.outputs, inputs.weights)


def _macro(inputs: MetricInputs) -> Average:
    """Average over the true and predicted classes, or over all outputs."""
    counts = _counts(inputs)
    if inputs.task is not Task.CLASSES:
        return counts.average(np.ones(len(counts.right)))
    occurs = [np.bincount(values, minlength=inputs.classes) > 0 for values in (inputs.true, inputs.predicted)]
    return counts.average((occurs[0] | occurs[1]).astype(np.float64))


def _balanced(inputs: MetricInputs) -> float:
    counts = _counts(inputs)
    return mean(divided(counts.right, counts.support)[counts.support > 0])


def _auc(inputs: MetricInputs) -> float:
    if inputs.task is Task.CLASSES:
        return roc_auc(inputs.true == 1, inputs.outputs[:, -1], inputs.weights)
    columns = range(inputs.outputs.shape[1])
    return float(np.mean([roc_auc(inputs.true[:, k] >= 0.5, inputs.outputs[:, k], inputs.weights) for k in columns]))


def _exact(inputs: MetricInputs) -> float:
    return mean((inputs.predicted == (inputs.true >= 0.5)).all(axis=1), inputs.weights)


_CLASSES: tuple[Task, ...] = (Task.CLASSES,)
_EITHER = (Task.CLASSES, Task.BINARY)
_NAMED: Mapping[str, tuple[tuple[Task, ...], Callable[[MetricInputs], float]]] = {
    "f1": (_EITHER, lambda inputs: _macro(inputs).f1),
    "precision": (_EITHER, lambda inputs: _macro(inputs).precision),
    "recall": (_EITHER, lambda inputs: _macro(inputs).recall),
    "auc": (_EITHER, _auc),
    "balanced_accuracy": (_CLASSES, _balanced),
    "exact": ((Task.BINARY,), _exact),
    "mae": ((Task.REGRESSION,), lambda inputs: errors_of(inputs.true, inputs.outputs, inputs.weights)[1].mae),
}
_TOP = re.compile(r"top_?([1-9]\d{0,6})")
KNOWN = (*_NAMED, "top5")  # stands for every top-k


class BuiltinMetric:
    """Compute a metric of gpunn's reports by its name."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._k = int(found[1]) if (found := _TOP.fullmatch(name)) else 0

    def check(self, task: Task, classes: int) -> None:
        """Raise OptionError unless the metric is defined for a task."""
        if self._k:
            tasks, too_many = _CLASSES, self._k > classes
        else:
            tasks, too_many = _NAMED[self.__name__][0], self.__name__ == "auc" and task in _CLASSES and classes > 2
        if task not in tasks:
            there = ", ".join(name for name in KNOWN if task in (_CLASSES if name == "top5" else _NAMED[name][0]))
            raise OptionError(f"the metric {self.__name__} is not defined for {task.value}: take one of {there}")
        if too_many:
            limit = f"at least {self._k}" if self._k else "at most two"
            raise OptionError(f"the metric {self.__name__} needs {limit} classes, and the network has {classes:,}")

    def __call__(self, inputs: MetricInputs) -> float:
        if not self._k:
            return _NAMED[self.__name__][1](inputs)
        return mean(ranks(by_class(inputs.outputs, inputs.classes), inputs.true) < self._k, inputs.weights)


def builtin_metric(name: str) -> BuiltinMetric | None:
    """Return gpunn's metric of a name, in upper or lower case; None for an unknown name."""
    word = name.lower()
    return BuiltinMetric(word) if word in _NAMED or _TOP.fullmatch(word) else None
