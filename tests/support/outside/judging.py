"""A metric, and a callback."""

from typing import Any

import numpy as np

import gpunn as gn


class Brier(gn.Metric):
    """Mean squared distance of the probabilities from the one of the true class: (1/n) Σ Σ_k (p_k − [k = y])²."""

    takes_probabilities = True

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        wanted = np.arange(y_pred.shape[1]) == y_true[:, None]
        return float(np.average(((y_pred - wanted) ** 2).sum(axis=1), weights=sample_weight))


class Watching(gn.Callback):
    """Keeps a metric of the validation samples at each record."""

    def __init__(self, metric: Any) -> None:
        self.metric, self.values = metric, list[float]()

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        report = training.model.report(training.data.validation, metrics=[self.metric])  # type: ignore[attr-defined]
        self.values += report.metrics.values()
