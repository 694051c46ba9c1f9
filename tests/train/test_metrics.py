"""Every metric is that of scikit-learn: over random cases with ties, absent classes, weights and single samples."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk
from support.harness import one_line

from gpunn.errors import DataError, GpunnError, MemoryShortageError, ShapeError
from gpunn.train.metrics import confusion_matrix, roc_auc
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.predictions import Answers
from gpunn.train.report import ClassificationReport

NEAR: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12, "equal_nan": True}
SEEDS = range(30)


@pytest.fixture(autouse=True)
def quiet_sklearn() -> Iterator[None]:
    """It warns of what is not defined, and then gives the 0 or nan that is asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        yield


def near(value: Any, wanted: Any) -> None:
    np.testing.assert_allclose(value, wanted, **NEAR)


def weights_of(rng: np.random.Generator, n: int, seed: int) -> NDArray[Any] | None:
    """No weights, any, or whole ones with some of 0."""
    return (None, rng.uniform(0.1, 3, n), rng.integers(0, 3, n) + np.eye(1, n, 0)[0])[seed % 3]


def class_case(seed: int, classes: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, int]:
    """Labels, outputs in steps that make ties, weights, and a number of classes that need not all occur."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.choice([1, 2, 5, 40, 200])), classes or int(rng.integers(2, 12))
    some = rng.permutation(classes)[: rng.integers(1, classes + 1)]
    labels = rng.choice(some, n).astype(np.int32)
    outputs = rng.integers(0, 5, (n, classes)) / 4
    outputs[np.arange(n), labels] += rng.integers(0, 3, n) / 4
    return labels, outputs.astype(np.float32), weights_of(rng, n, seed), classes


def report_of(labels: NDArray[Any], outputs: NDArray[Any], weights: Any, classes: int) -> ClassificationReport:
    return ClassificationReport.of(Answers.of(outputs, labels), [f"class {k}" for k in range(classes)], weights)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_classes_are_those_of_scikit_learn(seed: int) -> None:
    labels, outputs, weights, classes = class_case(seed)
    report, predicted = report_of(labels, outputs, weights, classes), outputs.argmax(axis=1)
    given: dict[str, Any] = {"zero_division": 0, "sample_weight": weights}
    each = sk.precision_recall_fscore_support(labels, predicted, labels=range(classes), **given)
    for own, wanted in zip((report.precision, report.recall, report.f1, report.support), each, strict=True):
        near(own, wanted)
    for name in ("macro", "weighted"):
        wanted = sk.precision_recall_fscore_support(labels, predicted, average=name, **given)[:3]
        near(list(vars(getattr(report, name)).values()), wanted)
    near(report.accuracy, sk.accuracy_score(labels, predicted, sample_weight=weights))
    near(report.balanced_accuracy, sk.balanced_accuracy_score(labels, predicted, sample_weight=weights))
    matrix = sk.confusion_matrix(labels, predicted, labels=range(classes), sample_weight=weights)
    near(report.confusion_matrix, matrix)
    assert report.confusion_matrix.dtype.kind == ("i" if weights is None else "f")


@pytest.mark.parametrize("seed", SEEDS)
def test_top_k_accuracy_is_that_of_scikit_learn_for_ties_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, outputs, weights, classes = class_case(seed, int(rng.integers(3, 12)))
    report = report_of(labels, outputs, weights, classes)
    for k in range(1, classes):
        wanted = sk.top_k_accuracy_score(labels, outputs, k=k, labels=range(classes), sample_weight=weights)
        near(report.top_k_accuracy(k), wanted)
    assert report.top_k_accuracy(classes) == 1
    assert report.top_k_accuracy() == report.top_k_accuracy(min(5, classes - 1))
    for k in (0, -1, 1.5, classes + 1, "2"):
        with pytest.raises(GpunnError, match="k of the top-k accuracy") as caught:
            report.top_k_accuracy(k)
        one_line(caught.value)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_auc_of_two_classes_is_that_of_scikit_learn(seed: int, outputs: int) -> None:
    labels, both, weights, _ = class_case(seed, classes=2)
    shares = both / np.maximum(both.sum(axis=1, keepdims=True), 1)
    given = shares if outputs == 2 else shares[:, 1:]
    near(report_of(labels, given, weights, 2).auc, sk.roc_auc_score(labels, given[:, -1], sample_weight=weights))


def test_the_auc_of_ties_is_a_half_and_of_one_class_unknown() -> None:
    labels = np.array([0, 1, 0, 1])
    assert roc_auc(labels == 1, np.full(4, 0.3)) == 0.5
    assert roc_auc(labels == 1, np.array([0.1, 0.9, 0.2, 0.8])) == 1
    assert roc_auc(labels == 1, np.array([0.9, 0.1, 0.8, 0.2])) == 0
    assert math.isnan(roc_auc(labels == 5, np.arange(4.0)))
    assert math.isnan(roc_auc(labels == 1, np.arange(4.0), np.array([1.0, 0, 1, 0])))
    assert math.isnan(roc_auc(labels == 1, np.array([0.1, math.nan, 0.2, 0.8])))


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_several_outputs_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, columns = int(rng.choice([1, 2, 6, 100])), int(rng.integers(2, 6))
    targets = (rng.random((n, columns)) < rng.random(columns)).astype(np.float32)
    outputs = (rng.integers(0, 9, (n, columns)) / 8).astype(np.float32)
    weights = weights_of(rng, n, seed)
    report = MultilabelReport.of(targets, outputs, weights)
    true, answers = targets.astype(int), (outputs >= 0.5).astype(int)
    given: dict[str, Any] = {"zero_division": 0, "sample_weight": weights}
    each = sk.precision_recall_fscore_support(true, answers, average=None, **given)
    for own, wanted in zip((report.precision, report.recall, report.f1, report.support), each, strict=True):
        near(own, wanted)
    for name in ("micro", "macro", "weighted"):
        wanted = sk.precision_recall_fscore_support(true, answers, average=name, **given)[:3]
        near(list(vars(getattr(report, name)).values()), wanted)
    near(report.exact, sk.accuracy_score(true, answers, sample_weight=weights))
    near(report.accuracy, np.average((true == answers).mean(axis=1), weights=weights))
    areas = [sk.roc_auc_score(true[:, k], outputs[:, k], sample_weight=weights) for k in range(columns)]
    near(report.auc, areas)


@pytest.mark.parametrize("seed", SEEDS)
def test_errors_of_numbers_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, columns = int(rng.choice([1, 2, 6, 100])), int(rng.integers(1, 5))
    targets, weights = rng.normal(3, 2, (n, columns)), weights_of(rng, n, seed)
    targets[:, 0] = 0.5 if seed % 4 == 0 else targets[:, 0]  # no variance
    outputs = targets + rng.normal(0, 0.5, (n, columns)) * (seed % 5 > 0)  # and no error
    report = RegressionReport.of(targets, outputs, weights)
    given: dict[str, Any] = {"sample_weight": weights, "multioutput": "raw_values"}
    for name, score in (("rmse", sk.root_mean_squared_error), ("mae", sk.mean_absolute_error), ("r2", sk.r2_score)):
        one = math.nan if name == "r2" and n == 1 else None
        near([getattr(each, name) for each in report.outputs], score(targets, outputs, **given) if one is None else one)
        mean = score(targets, outputs, sample_weight=weights) if one is None else one
        near(getattr(report, name), mean)
    square = sk.mean_squared_error(targets, outputs, sample_weight=weights)
    near(report.together.rmse, math.sqrt(square))
    if n > 1 and np.ptp(targets, axis=0).all() and np.average(np.ptp(targets, axis=0)) and weights is None:
        near(report.together.r2, sk.r2_score(targets, outputs, multioutput="variance_weighted"))


def test_targets_that_are_equal_but_for_the_rounding_of_their_mean_have_no_variance() -> None:
    targets = np.full((300, 1), 0.1)
    assert RegressionReport.of(targets, targets + 1).r2 == 0
    assert RegressionReport.of(targets, targets).r2 == 1
    assert math.isnan(RegressionReport.of(targets, targets).together.r2)
    weights = np.append(np.full(299, 0.7), 0)
    targets[-1] = 5  # which counts for nothing
    assert RegressionReport.of(targets, targets + 1, weights).r2 == 0


def test_a_weight_of_two_is_the_sample_twice() -> None:
    labels, outputs, _, classes = class_case(12)
    weights = np.random.default_rng(0).integers(1, 4, len(labels))
    weighted = report_of(labels, outputs, weights.astype(float), classes)
    repeated = report_of(np.repeat(labels, weights), np.repeat(outputs, weights, axis=0), None, classes)
    for name in ("precision", "recall", "f1", "support", "accuracy", "balanced_accuracy", "auc", "confusion_matrix"):
        near(getattr(weighted, name), getattr(repeated, name))
    for name in ("macro", "weighted"):
        near(list(vars(getattr(weighted, name)).values()), list(vars(getattr(repeated, name)).values()))


@pytest.mark.parametrize(
    ("labels", "predicted", "weights", "error", "words"),
    [
        ([0, 1], [0], None, ShapeError, "one shape"),
        ([0, 1], [0, 1], [1.0], ShapeError, "a weight for each of 2 samples"),
        ([0.5, 1], [0, 1], None, DataError, "whole numbers as labels"),
        ([0, 3], [0, 1], None, DataError, "labels from 0 to 1"),
        ([0, 1], [0, -1], None, DataError, "predictions from 0 to 1"),
    ],
)
def test_a_confusion_matrix_of_what_is_none_is_refused(
    labels: Any, predicted: Any, weights: Any, error: type[GpunnError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        confusion_matrix(labels, predicted, 2, weights)
    one_line(caught.value)


def test_a_confusion_matrix_that_does_not_fit_is_refused_before_it_is_made() -> None:
    with pytest.raises(MemoryShortageError, match="confusion matrix of 4,000,000 classes"):
        confusion_matrix([0], [1], 4_000_000)
