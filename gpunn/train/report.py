"""Report every metric of a network's predictions, for classes here, as numbers and as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.config.scalars import positive_whole
from gpunn.data import Samples
from gpunn.data.class_weights import ClassWeight
from gpunn.errors import DataError, OptionError, in_one_line
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.train.arguments import as_samples
from gpunn.train.custom_metrics import MetricList, checked_metrics, evaluate_metrics, task_of
from gpunn.train.metrics import Average, Counts, Weights, confusion_matrix, divided, mean, roc_auc
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.predictions import Answers, all_outputs, answers_to
from gpunn.train.table import HEADS, MOST_IN_FILES, MOST_ROWS, Layout, TableReport, amount, decimal, in_line, own, some

MOST_IN_MATRIX = 200  # classes of the confusion matrix in `metrics.json`
_TOP = 5
_IMBALANCE = 3  # ratio of class sizes from which accuracy says little about the smaller class


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of one class, and its support: number of samples, or sum of their weights."""

    name: str
    precision: float
    recall: float
    f1: float
    support: float


@dataclass(frozen=True, eq=False, repr=False)
class ClassificationReport(TableReport):
    """Metrics of classes, as scikit-learn defines them, with zero_division=0: 0 / 0 is 0.

    Attributes:
        class_names: Name of each class, one for each output of the network.
        precision, recall, f1: Metrics of each class, (classes,).
        support: Number of samples of each class, (classes,), or sum of their weights.
        accuracy: Share of right answers.
        balanced_accuracy: Mean recall of the classes with samples.
        macro: Mean precision, recall and F1 over the true and predicted classes.
        weighted: Mean precision, recall and F1 weighted by support.
        auc: Area under the ROC curve; NaN unless there are two classes, and samples of both.
        answers: True and predicted classes, from which all metrics are computed.
        metrics: Metrics of your own, by name.
    """

    class_names: tuple[str, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[Any]
    accuracy: float
    balanced_accuracy: float
    macro: Average
    weighted: Average
    auc: float
    answers: Answers
    weights: Weights = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Answers, class_names: Sequence[str], weights: Weights = None) -> "ClassificationReport":
        """Compute the metrics from true and predicted classes."""
        labels, predicted, classes = answers.labels, answers.predicted, len(class_names)
        counts = Counts.of_classes(labels, predicted, classes, weights)
        occurs = (np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)) > 0
        recalls = divided(counts.right, counts.support)[counts.support > 0]
        scores = answers.scores
        return cls(
            tuple(class_names),
            *(counts.precision, counts.recall, counts.f1, counts.support),
            accuracy=mean(labels == predicted, weights),
            balanced_accuracy=mean(recalls),
            macro=counts.average(occurs.astype(np.float64)),
            weighted=counts.average(counts.support),
            auc=roc_auc(labels == 1, scores, weights) if len(scores) else math.nan,
            answers=answers,
            weights=weights,
        )

    @property
    def total(self) -> int:
        """Number of samples."""
        return len(self.answers.labels)

    @cached_property
    def confusion_matrix(self) -> NDArray[Any]:
        """Number of samples of class i predicted as class j, (classes, classes), or sum of their weights."""
        return confusion_matrix(self.answers.labels, self.answers.predicted, len(self.class_names), self.weights)

    def top_k_accuracy(self, k: int | None = None) -> float:
        """Return the share of samples with the true class among the k likeliest; k is `default_k` by default.

        Raises:
            OptionError: k is no whole number from 1 to the number of classes.
        """
        k = positive_whole(self.default_k if k is None else k, "k of the top-k accuracy")
        if k > len(self.class_names):
            raise OptionError(f"k of the top-k accuracy is at most the number of classes, {len(self.class_names)}")
        return mean(self.answers.ranks < k, self.weights)

    @property
    def default_k(self) -> int:
        """5, or the number of classes less one if that is smaller."""
        return max(1, min(_TOP, len(self.class_names) - 1))

    def __getitem__(self, name: str) -> ClassScores:
        if name not in self.class_names:
            raise DataError(f"there is no class {name!r}: expected one of {some(self.class_names)}")
        return self._scores(self.class_names.index(name))

    def _scores(self, k: int) -> ClassScores:
        precision, recall, f1 = (float(values[k]) for values in (self.precision, self.recall, self.f1))
        return ClassScores(self.class_names[k], precision, recall, f1, self.support[k].item())

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of samples of each class, (classes,), without their weights."""
        return np.bincount(self.answers.labels, minlength=len(self.class_names))

    @cached_property
    def _predicted_counts(self) -> NDArray[np.int64]:
        return np.bincount(self.answers.predicted, minlength=len(self.class_names))

    @cached_property
    def absent(self) -> NDArray[np.intp]:
        """Numbers of the classes that are neither true nor predicted of any sample."""
        return np.flatnonzero(self.counts + self._predicted_counts == 0)

    @property
    def worst(self) -> ClassScores:
        """Scores of the class with the lowest F1 among those with samples."""
        there = np.flatnonzero(self.counts)
        return self._scores(int(there[np.argmin(self.f1[there])]))

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """Names of the classes with samples that were never predicted."""
        return tuple(self.class_names[k] for k in np.flatnonzero((self.counts > 0) & (self._predicted_counts == 0)))

    def most_mistaken(self, most: int = 3) -> list[tuple[str, str, int]]:
        """Return the most frequent mistakes: true class, predicted class, and count."""
        true, taken = self.answers.labels.astype(np.int64), self.answers.predicted
        classes, is_wrong = len(self.class_names), true != taken
        places, counts = np.unique(true[is_wrong] * classes + taken[is_wrong], return_counts=True)
        chosen, names = np.argsort(-counts, kind="stable")[:most], self.class_names
        return [(names[places[k] // classes], names[places[k] % classes], int(counts[k])) for k in chosen]

    @property
    def is_imbalanced(self) -> bool:
        """Return whether a class has at least three times as many samples as another."""
        return are_imbalanced(self.counts)

    def shown_classes(self, most: int = MOST_ROWS) -> tuple[NDArray[np.intp], str]:
        """Return the numbers of the classes in a table, and a note in words if others are left out."""
        there = np.setdiff1d(np.arange(len(self.class_names)), self.absent)
        if len(there) <= most:
            return there, ""
        worst = there[np.argsort(self.f1[there], kind="stable")][:most]
        return np.sort(worst), f"the {most} classes of lowest F1 of {len(there):,}"

    @property
    def averages(self) -> Mapping[str, Average]:
        """Macro and weighted average, by name."""
        return {"macro average": self.macro, "weighted average": self.weighted}

    def figures(self) -> dict[str, float]:
        """Return the metrics over all classes, by their usual names."""
        told = {"accuracy": self.accuracy, "balanced accuracy": self.balanced_accuracy}
        if len(self.class_names) > _TOP:
            told[f"top-{self.default_k} accuracy"] = self.top_k_accuracy()
        return told | ({} if math.isnan(self.auc) else {"AUC": self.auc})

    def notes(self) -> list[str]:
        """Return remarks on the metrics, a line each."""
        _, left_out = self.shown_classes()
        lines = [f"the table shows {left_out}"] if left_out else []
        if absent := [self.class_names[k] for k in self.absent]:
            lines.append(f"in no sample and no answer, so in no average: {some(absent)}")
        if mistaken := self.most_mistaken():
            each = (f"{some([true])} taken for {some([taken])} ({count:,})" for true, taken, count in mistaken)
            lines.append(f"most often mistaken: {', '.join(each)}")
        if names := self.never_predicted:
            lines.append(f"never predicted: {some(names)}")
        return [*lines, *own(self.metrics)]

    def _layout(self) -> Layout:
        chosen, _ = self.shown_classes()
        numbers = (self.precision, self.recall, self.f1)
        rows = [(self.class_names[k], *(decimal(v[k]) for v in numbers), amount(self.support[k])) for k in chosen]
        total = amount(self.support.sum())
        averages = [(name, *map(decimal, vars(each).values()), total) for name, each in self.averages.items()]
        return ("class", *HEADS), [rows, averages], [in_line(self.figures()), *self.notes()]

    def __repr__(self) -> str:
        told = f"accuracy={self.accuracy:.4f}, macro F1={self.macro.f1:.4f}"
        return f"ClassificationReport({len(self.class_names)} classes, {self.total:,} samples, {told})"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain values for JSON; scores up to 1,000 classes, confusion matrix up to 200."""
        count = len(self.class_names)
        classes = [asdict(self._scores(k)) for k in range(count)] if count <= MOST_IN_FILES else None
        named = {"auc": self.auc} if count == 2 else {}
        named |= {f"top_{self.default_k}_accuracy": self.top_k_accuracy()} if count > _TOP else {}
        return {
            "samples": self.total,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            **named,
            "macro": asdict(self.macro),
            "weighted": asdict(self.weighted),
            "classes": classes and [{**each, "name": in_one_line(each["name"])} for each in classes],
            "confusion_matrix": self.confusion_matrix.tolist() if count <= MOST_IN_MATRIX else None,
            **({"metrics": dict(self.metrics)} if self.metrics else {}),
        }


Report: TypeAlias = ClassificationReport | MultilabelReport | RegressionReport


def report_on(
    model: Network,
    samples: Any,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
    metrics: MetricList = (),
) -> Report:
    """Report the metrics of a network on samples; see `Sequential.report`."""
    own_metrics = checked_metrics(metrics)
    samples = as_samples(samples, y, model, sample_weight, class_weight)
    report, found = _plain_report(model, samples), evaluate_metrics(model, samples, own_metrics)
    return replace(report, metrics=found) if found else report


def _plain_report(model: Network, samples: Samples) -> Report:
    task, weights = task_of(model, samples), samples.weights
    if task is Task.CLASSES:
        return ClassificationReport.of(answers_to(model, samples), model.names_of_outputs, weights)
    kind = MultilabelReport if task is Task.BINARY else RegressionReport
    columns = samples.columns
    targets, names = (samples.targets, ()) if columns is None else (columns.answers(samples.targets), columns.targets)
    names = names if len(names) == targets.shape[1] else ()
    return kind.of(targets, all_outputs(model, samples), weights, names)


def are_imbalanced(counts: NDArray[np.integer]) -> bool:
    """Return whether a class has at least three times as many samples as another with any."""
    there = counts[counts > 0]
    return len(there) > 1 and int(there.max()) >= _IMBALANCE * int(there.min())
