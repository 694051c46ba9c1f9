"""Metrics from outside, beside those of a report: what they are given, and what is refused."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, median_absolute_error
from support.harness import one_line
from support.outside.judging import Brier, Watching

import gpunn as gn
from gpunn.errors import OptionError

X = np.random.default_rng(0).normal(size=(60, 4))
LABELS = np.argmax(X[:, :3], axis=1)
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, 60)


@pytest.fixture(scope="module")
def classes() -> gn.Sequential:
    model = gn.Sequential([gn.Dense(3)])
    model.fit(X, LABELS, epochs=3, device="cpu", progress=False)
    return model


def test_a_metric_is_given_the_answers_and_stands_in_the_report(classes: gn.Sequential) -> None:
    report = classes.report(X, LABELS, metrics=[accuracy_score, Brier])
    shares = classes.predict_proba(X)
    assert report.metrics["accuracy_score"] == pytest.approx(report.to_dict()["accuracy"])
    expected = ((shares - np.eye(3)[LABELS]) ** 2).sum(axis=1).mean()
    assert report.metrics["Brier"] == pytest.approx(expected)
    assert f"Brier {report.metrics['Brier']:.6g}" in str(report)
    assert report.to_dict()["metrics"] == report.metrics
    assert "metrics" not in classes.report(X, LABELS).to_dict()


def test_a_metric_weighs_samples_where_they_have_weights(classes: gn.Sequential) -> None:
    found = classes.report(X, LABELS, sample_weight=WEIGHTS, metrics=[accuracy_score]).metrics["accuracy_score"]
    assert found == pytest.approx(accuracy_score(LABELS, classes.predict(X), sample_weight=WEIGHTS))
    with pytest.raises(OptionError, match="share takes no sample_weight") as caught:
        classes.report(X, LABELS, sample_weight=WEIGHTS, metrics=[share])
    one_line(caught.value)


def share(y_true: Any, y_pred: Any) -> float:
    return float((y_true == y_pred).mean())


def test_targets_are_those_of_the_task() -> None:
    numbers = gn.Sequential([gn.Dense(2)])
    numbers.fit(X, X[:, :2], epochs=2, device="cpu", progress=False)
    found = numbers.report(X, X[:, :2], metrics=[median_absolute_error]).metrics["median_absolute_error"]
    assert found == pytest.approx(median_absolute_error(X[:, :2], numbers.predict(X)), rel=1e-5)
    several = gn.Sequential([gn.Dense(2)])
    several.fit(X, (X[:, :2] > 0).astype(float), loss=gn.BinaryCrossEntropy(), epochs=2, device="cpu", progress=False)
    report = several.report(X, (X[:, :2] > 0).astype(float), metrics=[accuracy_score])
    assert report.metrics["accuracy_score"] == pytest.approx(report.to_dict()["exact"])
    two = gn.Sequential([gn.Dense(1)])
    two.fit(X, (X[:, 0] > 0).astype(int), epochs=2, device="cpu", progress=False)

    class Score(gn.Metric):
        takes_probabilities = True

        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
            assert y_pred.shape == (60, 1)
            return float(brier_score_loss(y_true, y_pred[:, 0]))

    found = two.report(X, (X[:, 0] > 0).astype(int), metrics=[Score()]).metrics["Score"]
    assert found == pytest.approx(brier_score_loss((X[:, 0] > 0).astype(int), two.predict_proba(X)[:, 0]))


def test_a_callback_keeps_a_metric_of_each_record() -> None:
    watching, model = Watching(Brier()), gn.Sequential([gn.Dense(3)])
    history = model.fit(X, LABELS, epochs=3, device="cpu", progress=False, callbacks=[watching])
    assert len(watching.values) == len(history)
    assert watching.values[-1] < watching.values[0]


@pytest.mark.parametrize(
    ("metrics", "word"),
    [
        (accuracy_score, "list of functions"),
        ([3], "a metric is a function"),
        ([gn.ReLU], "a metric is a function"),
        (["brier"], "unknown metric"),
        ([share, share], "the name 'share' twice"),
        ([lambda y_true, y_pred: "good"], "must give a number"),
        ([lambda y_true, y_pred: np.ones(2)], "must give a number"),
    ],
    ids=["no list", "number", "layer", "name", "twice", "text", "array"],
)
def test_what_is_no_metric_is_said_in_a_line(classes: gn.Sequential, metrics: Any, word: str) -> None:
    with pytest.raises(OptionError, match=word) as caught:
        classes.report(X, LABELS, metrics=metrics)
    one_line(caught.value)


def test_the_probabilities_are_those_that_scikit_learn_takes(classes: gn.Sequential) -> None:
    class Surprise(gn.Metric):
        takes_probabilities = True

        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
            return float(log_loss(y_true, y_pred, sample_weight=sample_weight))

    report, figures = classes.report(X, LABELS, metrics=[Surprise()]), classes.evaluate(X, LABELS)
    assert report.metrics["Surprise"] == pytest.approx(figures.loss, rel=1e-5)
