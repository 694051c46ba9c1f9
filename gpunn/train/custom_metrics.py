"""Evaluate metrics of your own, functions of true and predicted targets, and gpunn's by their names."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.config import Part, as_part, from_config, outside
from gpunn.data import Samples
from gpunn.data.loader import DataLoader
from gpunn.errors import OptionError
from gpunn.nn.losses import MeanSquaredError
from gpunn.nn.network import Network
from gpunn.nn.tasks import FIGURES, Task
from gpunn.train.builtin_metrics import KNOWN, BuiltinMetric, MetricInputs, builtin_metric
from gpunn.train.predictions import outputs_of
from gpunn.train.record import COLUMNS, MOST_METRICS, is_metric_name

__all__ = ["Metric"]


class Metric(Part, ABC, kind="metric", example="MyMetric()"):
    """Base of your own metrics for `fit` and `report`: `metrics=[...]` takes them, and plain functions too.

    Attributes:
        takes_probabilities: Whether `y_pred` comes from `predict_proba` (n, outputs), not from `predict`.
    """

    takes_probabilities: bool = False

    @abstractmethod
    def __call__(self, y_true: NDArray[Any], y_pred: NDArray[Any], sample_weight: NDArray[Any] | None = None) -> float:
        """Return the metric.

        Args:
            y_true: Labels (n,), or targets (n, outputs).
            y_pred: Values of `predict`, or of `predict_proba`.
            sample_weight: Weight of each sample (n,), or None if all count alike.
        """


MetricList: TypeAlias = "Sequence[Metric | Callable[..., float] | str | type[Metric] | dict[str, Any]]"


def checked_metrics(metrics: Any) -> dict[str, Callable[..., float]]:
    """Return metrics by the names of their classes or functions; raise OptionError for anything else."""
    if not isinstance(metrics, list | tuple):
        raise OptionError(f"metrics is a list of functions f(y_true, y_pred), or of names, got {metrics!r:.80}")
    made: dict[str, Callable[..., float]] = {}
    for given in metrics:
        metric = _resolved(given)
        if not callable(metric) or isinstance(metric, type):
            raise OptionError(f"a metric is a function f(y_true, y_pred) or a gn.Metric, got {given!r:.80}")
        name = type(metric).__name__ if isinstance(metric, Metric) else getattr(metric, "__name__", repr(metric))
        if name in made:
            raise OptionError(f"metrics has the name {name!r} twice: give one of them another name")
        made[name] = metric
    return made


def checked_columns(metrics: Any) -> tuple[Callable[..., float], ...]:
    """Return the metrics of `fit`; raise OptionError for a name that cannot be a column of the history."""
    as_texts = [given.lower() for given in metrics if isinstance(given, str)] if isinstance(metrics, list) else []
    made = {} if set(as_texts) & set(FIGURES) else checked_metrics(metrics)
    for name in (*as_texts, *made):
        if name in FIGURES or name in COLUMNS:
            column = name if name in COLUMNS else f"validation_{name}"
            raise OptionError(f"a metric cannot be called {name!r}: every record has {column} already, leave it out")
        if name in made and not is_metric_name(name):
            mend = "write it as a function, def share(y_true, y_pred), or give it such a __name__"
            raise OptionError(
                f"a metric of fit has a column, so its name is a word such as share, got {name!r:.60}: {mend}"
            )
    if len(made) > MOST_METRICS:
        raise OptionError(f"fit takes at most {MOST_METRICS} metrics, got {len(made):,}")
    return tuple(made.values())


def _resolved(given: Any) -> Any:
    """Return the metric of a class, a name or a table; anything else unchanged."""
    if isinstance(given, str):
        if (known := builtin_metric(given)) is not None:
            return known
        if ":" in given:
            return outside.function(given) or from_config("metric", given)
        try:
            return as_part("metric", given)
        except OptionError as error:
            if not str(error).startswith("unknown"):
                raise
            yours = "or a function, or a subclass of gn.Metric that is registered"
            raise OptionError(f"unknown metric {given!r:.60}: expected one of {', '.join(KNOWN)}, {yours}") from None
    is_part = isinstance(given, Metric | dict) or (isinstance(given, type) and issubclass(given, Metric))
    return as_part("metric", given) if is_part else given


def check_measurable(model: Network, samples: Samples, metrics: Mapping[str, Callable[..., float]]) -> None:
    """Check that metrics can be evaluated on samples.

    Raises:
        OptionError: A metric is not defined for the task, or takes no weights and the samples have some.
        MemoryShortageError: The outputs need more memory than is free.
    """
    for name, metric in metrics.items():
        if isinstance(metric, BuiltinMetric):
            metric.check(task_of(model, samples), len(model.names_of_outputs))
        elif samples.weights is not None and not _takes_weights(metric):
            raise OptionError(f"the metric {name} takes no sample_weight, and the samples have weights")
    require(16 * len(samples) * int(np.prod(model.output_shape)), f"the outputs of {len(samples):,} samples")


def task_of(model: Network, samples: Samples) -> Task:
    """Return the task of a network on samples; without a loss it is that of squared errors."""
    return (model.loss or MeanSquaredError()).task(bool(samples.classes))


def evaluate_metrics(
    model: Network,
    samples: Samples,
    metrics: Mapping[str, Callable[..., float]],
    batches: DataLoader | None = None,
) -> dict[str, float]:
    """Evaluate metrics on checked samples, in one pass; `batches` is a loader that already has them on the device.

    Raises:
        OptionError: A metric is not defined for the task, takes no weights and the samples have some, or returns
            something else than a number.
    """
    if not metrics:
        return {}
    check_measurable(model, samples, metrics)
    outputs = np.concatenate([part for _, part in outputs_of(model, samples, batches)])
    task = task_of(model, samples)
    predicted = task.answers(outputs, model.classes)
    true = samples.targets if samples.columns is None else samples.columns.answers(samples.targets)
    true = samples.targets if task is Task.CLASSES else true
    found = {}
    for name, metric in metrics.items():
        if isinstance(metric, BuiltinMetric):
            found[name] = metric(
                MetricInputs(task, true, outputs, predicted, len(model.names_of_outputs), samples.weights)
            )
            continue
        weights = {} if samples.weights is None else {"sample_weight": samples.weights}
        value = metric(true, outputs if getattr(metric, "takes_probabilities", False) else predicted, **weights)
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            raise OptionError(f"the metric {name} must give a number, got {value!r:.60}") from None
    return found


def _takes_weights(metric: Callable[..., float]) -> bool:
    try:
        parameters = inspect.signature(metric).parameters
    except (TypeError, ValueError):  # functions in C have no signature
        return True
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
