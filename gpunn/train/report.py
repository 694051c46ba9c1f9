"""Reports on classes: every metric of a network's answers, as numbers and as a table."""

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
from gpunn.display.html import html_table
from gpunn.errors import DataError, OptionError, in_one_line
from gpunn.nn.losses import MeanSquaredError
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.train.arguments import as_samples, check_samples
from gpunn.train.custom_metrics import MetricList, checked_metrics, evaluate_metrics
from gpunn.train.metrics import Average, Counts, Weights, confusion_matrix, divided, mean, roc_auc
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.predictions import Answers, all_outputs, answers_to
from gpunn.train.table import HEADS, MOST_IN_FILES, MOST_ROWS, amount, decimal, in_line, own, some, table, with_notes

MOST_IN_MATRIX = 200  # classes of the confusion matrix in `metrics.json`
_TOP = 5
_IMBALANCE = 3  # times as many samples in one class as in another: accuracy then says little about the smaller


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of one class, and its support: its samples, or the sum of their weights."""

    name: str
    precision: float
    recall: float
    f1: float
    support: float


@dataclass(frozen=True, eq=False, repr=False)
class ClassificationReport:
    """Metrics of classes, as scikit-learn defines them, with 0 for a quotient of nothing by nothing (zero_division=0).

    Attributes:
        class_names: Name of each class, one for each output of the network.
        precision, recall, f1: Of each class, (classes,).
        support: Number of samples of each class, (classes,), or the sum of their weights.
        accuracy: Share of right answers.
        balanced_accuracy: Mean recall of the classes that have samples.
        macro: Mean precision, recall and F1 of the classes that occur, in the labels or in the answers.
        weighted: Their means weighted by support.
        auc: Area under the ROC curve; NaN unless there are two classes, and samples of both.
        answers: Labels and answers, which the other metrics are made of.
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
        """Compute the metrics of answers."""
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
        """How often class i was taken for class j, (classes, classes), or the sum of the weights of these samples."""
        return confusion_matrix(self.answers.labels, self.answers.predicted, len(self.class_names), self.weights)

    def top_k_accuracy(self, k: int | None = None) -> float:
        """Return the share of samples whose true class is among the k likeliest; left out, k is `default_k`.

        Raises:
            OptionError: k is no whole number from 1 to the number of classes.
        """
        k = positive_whole(self.default_k if k is None else k, "k of the top-k accuracy")
        if k > len(self.class_names):
            raise OptionError(f"k of the top-k accuracy is at most the number of classes, {len(self.class_names)}")
        return mean(self.answers.ranks < k, self.weights)

    @property
    def default_k(self) -> int:
        """5, or one less than the classes where they are fewer."""
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
        """Number of samples of each class, (classes,), whatever they weigh."""
        return np.bincount(self.answers.labels, minlength=len(self.class_names))

    @cached_property
    def absent(self) -> NDArray[np.intp]:
        """Numbers of the classes that occur neither in the labels nor in the answers."""
        said = np.bincount(self.answers.predicted, minlength=len(self.class_names))
        return np.flatnonzero(self.counts + said == 0)

    @property
    def worst(self) -> ClassScores:
        """The class of the lowest F1 among those with samples."""
        there = np.flatnonzero(self.counts)
        return self._scores(int(there[np.argmin(self.f1[there])]))

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """Names of the classes that have samples and were never the answer."""
        said = np.bincount(self.answers.predicted, minlength=len(self.class_names))
        return tuple(self.class_names[k] for k in np.flatnonzero((self.counts > 0) & (said == 0)))

    def most_mistaken(self, most: int = 3) -> list[tuple[str, str, int]]:
        """Return the most frequent mistakes: true class, what it was taken for, and how often."""
        true, taken = self.answers.labels.astype(np.int64), self.answers.predicted
        classes, is_wrong = len(self.class_names), true != taken
        places, counts = np.unique(true[is_wrong] * classes + taken[is_wrong], return_counts=True)
        chosen, names = np.argsort(-counts, kind="stable")[:most], self.class_names
        return [(names[places[k] // classes], names[places[k] % classes], int(counts[k])) for k in chosen]

    @property
    def is_imbalanced(self) -> bool:
        """Whether some class has at least three times as many samples as another."""
        return are_imbalanced(self.counts)

    def shown_classes(self, most: int = MOST_ROWS) -> tuple[NDArray[np.intp], str]:
        """Return the numbers of the classes that a table shows, and what it leaves out, in words."""
        there = np.setdiff1d(np.arange(len(self.class_names)), self.absent)
        if len(there) <= most:
            return there, ""
        worst = there[np.argsort(self.f1[there], kind="stable")][:most]
        return np.sort(worst), f"the {most} classes of lowest F1 of {len(there):,}"

    @property
    def averages(self) -> Mapping[str, Average]:
        """The averages by name."""
        return {"macro average": self.macro, "weighted average": self.weighted}

    def figures(self) -> dict[str, float]:
        """Return the figures over all classes that apply, by their names for people."""
        told = {"accuracy": self.accuracy, "balanced accuracy": self.balanced_accuracy}
        if len(self.class_names) > _TOP:
            told[f"top-{self.default_k} accuracy"] = self.top_k_accuracy()
        return told | ({} if math.isnan(self.auc) else {"AUC": self.auc})

    def notes(self) -> list[str]:
        """Return what is to be known of the numbers, a line each."""
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

    def _groups(self) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Return the cells of each class, and of the averages."""
        chosen, _ = self.shown_classes()
        numbers = (self.precision, self.recall, self.f1)
        rows = [(self.class_names[k], *(decimal(v[k]) for v in numbers), amount(self.support[k])) for k in chosen]
        total = amount(self.support.sum())
        averages = [(name, *map(decimal, vars(each).values()), total) for name, each in self.averages.items()]
        return rows, averages

    def table(self, width: int = 80) -> str:
        """Write the metrics of each class, and their averages, in at most so many columns."""
        lines = [in_line(self.figures()), *self.notes()]
        return with_notes(table(("class", *HEADS), self._groups(), width), lines, width)

    def _repr_html_(self) -> str:
        notes = [in_line(self.figures()), *self.notes()]
        return html_table(("class", *HEADS), self._groups(), title=repr(self), notes=notes)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        told = f"accuracy={self.accuracy:.4f}, macro F1={self.macro.f1:.4f}"
        return f"ClassificationReport({len(self.class_names)} classes, {self.total:,} samples, {told})"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as what JSON takes; each class up to 1,000, and the confusion matrix up to 200."""
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
    """Make the report of a network's answers to samples; see `Sequential.report`."""
    own_metrics = checked_metrics(metrics)
    samples = model.arranged(as_samples(samples, y, model, sample_weight, class_weight))
    check_samples(model, samples)
    report, found = _bundled(model, samples), evaluate_metrics(model, samples, own_metrics)
    return replace(report, metrics=found) if found else report


def _bundled(model: Network, samples: Samples) -> Report:
    task = (model.loss or MeanSquaredError()).task(bool(samples.classes))
    weights = samples.weights
    if task is Task.CLASSES:
        return ClassificationReport.of(answers_to(model, samples), model.names_of_outputs, weights)
    kind = MultilabelReport if task is Task.BINARY else RegressionReport
    columns = samples.columns
    targets, names = (samples.targets, ()) if columns is None else (columns.answers(samples.targets), columns.targets)
    names = names if len(names) == targets.shape[1] else ()
    return kind.of(targets, all_outputs(model, samples), weights, names)


def are_imbalanced(counts: NDArray[np.integer]) -> bool:
    """Tell whether some class has at least three times as many samples as another that has any."""
    there = counts[counts > 0]
    return len(there) > 1 and int(there.max()) >= _IMBALANCE * int(there.min())
