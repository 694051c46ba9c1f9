"""Compute metrics as scikit-learn defines them, with zero_division=0: 0 / 0 is 0.

`weights` are those of the samples, (n,), or None if all count alike; sums are in float64.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.limits import require
from gpunn.errors import DataError, ShapeError

Weights = NDArray[Any] | None


def confusion_matrix(
    labels: ArrayLike, predicted: ArrayLike, classes: int, weights: ArrayLike | None = None
) -> NDArray[Any]:
    """Count the samples of class i predicted as class j: n_ij = #{k : labels_k = i, predicted_k = j}, classes (n,).

    With `weights` (n,), n_ij is the sum of the samples' weights, a float.
    """
    true, answers = np.asarray(labels), np.asarray(predicted)
    if true.ndim != 1 or true.shape != answers.shape:
        raise ShapeError(f"expected labels and predictions of one shape (n,), got {true.shape} and {answers.shape}")
    for name, values in (("labels", true), ("predictions", answers)):
        if values.size and values.dtype.kind not in "iu":
            raise DataError(f"expected whole numbers as {name}, got {values.dtype}: use argmax for the classes")
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise DataError(f"expected {name} from 0 to {classes - 1}, got {values.min()} to {values.max()}")
    own = None if weights is None else np.asarray(weights, np.float64)
    if own is not None and own.shape != true.shape:
        raise ShapeError(f"expected a weight for each of {len(true)} samples, got weights {own.shape}")
    require(8 * classes * classes, f"the confusion matrix of {classes:,} classes")
    places = true.astype(np.int64) * classes + answers.astype(np.int64)
    return np.bincount(places, own, classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class Average:
    """Precision, recall and F1 averaged over classes or outputs."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class Counts:
    """True positives TP, positives TP + FN and predicted positives TP + FP of each class or output, (classes,)."""

    right: NDArray[Any]
    support: NDArray[Any]
    predicted: NDArray[Any]

    @classmethod
    def of_classes(cls, labels: NDArray[Any], predicted: NDArray[Any], classes: int, weights: Weights) -> "Counts":
        """Count true and predicted classes (n,)."""
        is_right = labels == predicted
        of_right = None if weights is None else weights[is_right]
        true, answers = (np.bincount(values, weights, classes) for values in (labels, predicted))
        return cls(np.bincount(labels[is_right], of_right, classes), true, answers)

    @classmethod
    def of_outputs(cls, targets: NDArray[Any], outputs: NDArray[Any], weights: Weights) -> "Counts":
        """Count targets and outputs (n, outputs) of at least ½."""
        counts = np.zeros((3, targets.shape[1]))
        for column in range(targets.shape[1]):
            true, answers = targets[:, column] >= 0.5, outputs[:, column] >= 0.5
            for row, ones in enumerate((true & answers, true, answers)):
                counts[row, column] = np.count_nonzero(ones) if weights is None else weights[ones].sum()
        return cls(*(counts if weights is not None else counts.astype(np.int64)))

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP)."""
        return divided(self.right, self.predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / (TP + FN)."""
        return divided(self.right, self.support)

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall."""
        return divided(2 * self.right, self.support + self.predicted)

    def average(self, weights: NDArray[Any]) -> Average:
        """Return Σ w_k m_k / Σ w_k of precision, recall and F1; 0 where all w_k are 0."""
        total = float(weights.sum())
        means = (float((weights * m).sum()) / total if total else 0.0 for m in (self.precision, self.recall, self.f1))
        return Average(*means)

    def micro(self) -> Average:
        """Return precision, recall and F1 of the counts summed over all classes or outputs."""
        sums = Counts(*(np.atleast_1d(count.sum()) for count in (self.right, self.support, self.predicted)))
        return Average(*(float(m[0]) for m in (sums.precision, sums.recall, sums.f1)))


def divided(counts: NDArray[Any], by: NDArray[Any]) -> NDArray[np.float64]:
    """Divide counts, with 0 where the divisor is 0."""
    quotients: NDArray[np.float64] = np.divide(counts, by, out=np.zeros(len(counts)), where=by != 0)
    return quotients


def mean(values: NDArray[Any], weights: Weights = None) -> float:
    """Return Σ w x / Σ w of values (n,); NaN if Σ w is 0."""
    if weights is None:
        return float(values.mean(dtype=np.float64)) if len(values) else math.nan
    total = float(weights.sum())
    return float((weights * values).sum()) / total if total else math.nan


def roc_auc(positive: NDArray[Any], scores: NDArray[Any], weights: Weights = None) -> float:
    """Return the area under the ROC curve: the probability that a positive has a higher score than a negative.

    Σ_i Σ_j w_i w_j ([s_i > s_j] + ½ [s_i = s_j]) / Σ_i w_i Σ_j w_j over positives i and negatives j: the Mann–Whitney
    statistic, in one sort. It is NaN without positives, without negatives, or with a score of NaN.
    """
    if np.isnan(scores).any():
        return math.nan
    order = np.argsort(scores, kind="stable")
    ranked, is_one = scores[order], positive[order]
    first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))[: len(ranked)]  # first of each group of ties
    each = np.ones(len(ranked)) if weights is None else weights[order]
    ones, zeros = (np.add.reduceat(np.where(chosen, each, 0.0), first) for chosen in (is_one, ~is_one))
    both = float(ones.sum()) * float(zeros.sum())
    return float((ones * (np.cumsum(zeros) - zeros / 2)).sum()) / both if both else math.nan


def ranks(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int32]:
    """Return the rank of each true class, from 0, among scores (n, classes); of equal scores the later class first."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    later = np.arange(scores.shape[1]) > labels[:, None]
    before = np.count_nonzero((scores > own) | ((scores == own) & later), axis=1)
    return np.asarray(np.where(np.isnan(own[:, 0]), scores.shape[1], before), np.int32)


@dataclass(frozen=True)
class Errors:
    """Root mean squared error, mean absolute error, and R²."""

    rmse: float
    mae: float
    r2: float


def errors_of(targets: NDArray[Any], outputs: NDArray[Any], weights: Weights = None) -> tuple[list[Errors], Errors]:
    """Return the errors of each output, and of all outputs together, for targets and outputs (n, outputs).

    R² = 1 − Σ w (y − a)² / Σ w (y − ȳ)². If all y are equal it is 1 if all a equal them, else 0; it is NaN for a single
    sample. Together means one sum over samples and outputs, as in the loss; its R² is NaN if each output's y are equal.
    """
    each, sums = [], np.zeros(3)
    for column in range(targets.shape[1]):
        y, a = (values[:, column].astype(np.float64) for values in (targets, outputs))
        counted = y if weights is None else y[weights > 0]
        varies = counted.size and counted.max() > counted.min()
        center = mean(y, weights) if varies else counted[:1]  # the mean of equal values may be rounded
        square, absolute, variance = (mean(v, weights) for v in ((y - a) ** 2, np.abs(y - a), (y - center) ** 2))
        r2 = 1 - square / variance if variance else float(square == 0)
        each.append(Errors(math.sqrt(square), absolute, r2 if len(y) > 1 else math.nan))
        sums += square, absolute, variance
    square, absolute, variance = map(float, sums)
    total = 1 - square / variance if variance else math.nan
    count = targets.shape[1]
    return each, Errors(math.sqrt(square / count), absolute / count, total if len(targets) > 1 else math.nan)
