"""Metrics from outside: functions of true and predicted targets, measured beside those of a report."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.config import Part, as_part
from gpunn.data import Samples
from gpunn.errors import OptionError
from gpunn.nn.losses import MeanSquaredError
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.train.predictions import outputs_of

__all__ = ["Metric"]


class Metric(Part, ABC, kind="metric", example="MyMetric()"):
    """A number that says how good answers are; give it to `report(metrics=[...])`, as a plain function also may be.

    Attributes:
        takes_probabilities: Whether `y_pred` are the outputs of `predict_proba` (n, outputs), and not its answers.
    """

    takes_probabilities: bool = False

    @abstractmethod
    def __call__(self, y_true: NDArray[Any], y_pred: NDArray[Any], sample_weight: NDArray[Any] | None = None) -> float:
        """Return the metric.

        Args:
            y_true: Labels (n,), or targets (n, outputs).
            y_pred: Answers as `predict` gives them, or the outputs.
            sample_weight: Weight of each sample (n,), or None where all count alike.
        """


Given: TypeAlias = "Sequence[Metric | Callable[..., float] | str | type[Metric]]"


def checked_metrics(metrics: Any) -> dict[str, Callable[..., float]]:
    """Return metrics by the names of their classes or functions; raise OptionError for all that is none."""
    if not isinstance(metrics, list | tuple):
        raise OptionError(f"metrics is a list of functions f(y_true, y_pred), got {metrics!r:.80}")
    made: dict[str, Callable[..., float]] = {}
    for given in metrics:
        is_part = isinstance(given, str | Metric) or (isinstance(given, type) and issubclass(given, Metric))
        metric = as_part("metric", given) if is_part else given
        if not callable(metric) or isinstance(metric, type):
            raise OptionError(f"a metric is a function f(y_true, y_pred) or a gn.Metric, got {given!r:.80}")
        name = type(metric).__name__ if isinstance(metric, Metric) else getattr(metric, "__name__", repr(metric))
        if name in made:
            raise OptionError(f"metrics has two of the name {name!r}: give one of them another name")
        made[name] = metric
    return made


def measured(model: Network, samples: Samples, metrics: Mapping[str, Callable[..., float]]) -> dict[str, float]:
    """Measure a network's answers to samples, which are checked, by metrics from outside.

    Raises:
        OptionError: A metric cannot weigh samples that have weights, or gives no number.
    """
    if not metrics:
        return {}
    require(16 * len(samples) * int(np.prod(model.output_shape)), f"the outputs of {len(samples):,} samples")
    outputs = np.concatenate([part for _, part in outputs_of(model, samples)])
    task = (model.loss or MeanSquaredError()).task(bool(samples.classes))
    answers = task.answers(outputs, model.classes)
    true = samples.targets if samples.columns is None else samples.columns.answers(samples.targets)
    true = samples.targets if task is Task.CLASSES else true
    found = {}
    for name, metric in metrics.items():
        weights = {}
        if samples.weights is not None:
            if not _takes_weights(metric):
                raise OptionError(f"the metric {name} takes no sample_weight, and the samples have weights")
            weights = {"sample_weight": samples.weights}
        value = metric(true, outputs if getattr(metric, "takes_probabilities", False) else answers, **weights)
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            raise OptionError(f"the metric {name} must give a number, got {value!r:.60}") from None
    return found


def _takes_weights(metric: Callable[..., float]) -> bool:
    try:
        parameters = inspect.signature(metric).parameters
    except (TypeError, ValueError):  # of a function in C
        return True
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
