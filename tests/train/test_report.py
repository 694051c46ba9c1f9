"""`Sequential.report`: the metrics of what `predict` and `predict_proba` give, in one pass, and their table."""

import tracemalloc
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from support.harness import one_line
from support.paths import ROOT

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, GpunnError, ShapeError
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.predictions import Answers
from gpunn.train.report import ClassificationReport, Report
from gpunn.train.table import width_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5)).astype(np.float32)
NUMBERS = (X[:, :, None] * RNG.normal(size=(5, 3))).sum(axis=1)
YES = (NUMBERS > 0.5).astype(np.float64)
CLASSES = NUMBERS.argmax(axis=1)
NAMES = ["ant", "bee", "cat"]
NEAR: dict[str, Any] = {"rel": 1e-12, "abs": 1e-12}


@pytest.fixture(autouse=True)
def quiet_sklearn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        yield


def fitted(backend: Backend | str, y: Any, *layers: Any, names: Any = None, **options: Any) -> gn.Sequential:
    model = gn.Sequential(layers)
    data = gn.Data.from_arrays(X, y, validation=0, class_names=names)
    model.fit(data, **{"epochs": 4, "device": backend, "progress": False, "optimizer": gn.SGD(0.1), **options})
    return model


def three(backend: Backend | str = "cpu") -> gn.Sequential:
    return fitted(backend, CLASSES, gn.Dense(3), names=NAMES)


def test_a_report_on_classes_is_of_what_the_network_predicts(backend: Backend) -> None:
    model = three(backend)
    report, predicted = model.report(X, CLASSES), model.predict(X)
    assert isinstance(report, ClassificationReport)
    assert report.class_names == tuple(NAMES)
    wanted = sk.classification_report(CLASSES, predicted, target_names=NAMES, output_dict=True, zero_division=0)
    for name in NAMES:
        own = report[name]
        assert (own.precision, own.recall, own.f1, own.support) == pytest.approx(tuple(wanted[name].values()), **NEAR)
    assert report.macro.f1 == pytest.approx(wanted["macro avg"]["f1-score"], **NEAR)
    assert report.accuracy == pytest.approx(model.evaluate(X, CLASSES).accuracy, **NEAR)
    assert report.confusion_matrix.tolist() == sk.confusion_matrix(CLASSES, predicted).tolist()
    assert report.top_k_accuracy(2) == pytest.approx(sk.top_k_accuracy_score(CLASSES, model.predict_proba(X), k=2))
    assert np.isnan(report.auc)
    assert report.total == 300


@pytest.mark.parametrize("layers", [(gn.Dense(1),), (gn.Dense(1), gn.Sigmoid()), (gn.Dense(2),)])
def test_two_classes_have_an_auc_with_one_output_or_two(backend: Backend, layers: Any) -> None:
    labels = YES[:, 0].astype(int)
    model = fitted(backend, labels, *layers, names=["no", "yes"])
    report = model.report(X, labels)
    assert isinstance(report, ClassificationReport)
    assert report.auc == pytest.approx(sk.roc_auc_score(labels, model.predict_proba(X)[:, -1]), **NEAR)
    assert report["yes"].f1 == pytest.approx(sk.f1_score(labels, model.predict(X)), **NEAR)
    assert f"AUC {report.auc:.4f}" in str(report)


def test_a_report_on_several_outputs_has_each(backend: Backend) -> None:
    model = fitted(backend, YES, gn.Dense(3), loss=gn.BinaryCrossEntropy())
    report, answers = model.report(X, YES), model.predict(X)
    assert isinstance(report, MultilabelReport)
    assert report.f1 == pytest.approx(sk.f1_score(YES, answers, average=None), **NEAR)
    assert report.auc.mean() == pytest.approx(sk.roc_auc_score(YES, model.predict_proba(X)), **NEAR)
    assert report.accuracy == pytest.approx(model.evaluate(X, YES).accuracy, **NEAR)
    assert report.exact == pytest.approx(sk.accuracy_score(YES, answers), **NEAR)


def test_a_report_on_numbers_has_their_errors(backend: Backend) -> None:
    model = fitted(backend, NUMBERS, gn.Dense(3), optimizer=gn.SGD(0.01), dtype="float64")
    report, answers, result = model.report(X, NUMBERS), model.predict(X), model.evaluate(X, NUMBERS)
    assert isinstance(report, RegressionReport)
    assert report.r2 == pytest.approx(sk.r2_score(NUMBERS, answers), **NEAR)
    assert report.mae == pytest.approx(sk.mean_absolute_error(NUMBERS, answers), **NEAR)
    assert (report.together.rmse, report.together.r2) == pytest.approx((result.rmse, result.r2), rel=1e-9)
    one = fitted(backend, NUMBERS[:, :1], gn.Dense(1), optimizer=gn.SGD(0.01), dtype="float64")
    report, result = one.report(X, NUMBERS[:, :1]), one.evaluate(X, NUMBERS[:, :1])
    assert isinstance(report, RegressionReport)
    assert (report.rmse, report.r2) == pytest.approx((result.rmse, result.r2), rel=1e-9)


def test_a_report_counts_samples_as_they_weigh() -> None:
    model, weights = three(), RNG.uniform(0, 2, len(X))
    report = model.report(gn.Samples(X, CLASSES, weights=weights))
    assert isinstance(report, ClassificationReport)
    given: dict[str, Any] = {"average": "macro", "sample_weight": weights}
    assert report.macro.f1 == pytest.approx(sk.f1_score(CLASSES, model.predict(X), **given), **NEAR)
    assert model.report(X, CLASSES, sample_weight=weights).to_dict() == report.to_dict()
    result = model.evaluate(X, CLASSES, sample_weight=weights)
    assert report.accuracy == pytest.approx(result.accuracy, rel=1e-6)  # which adds weights of float32
    balanced = model.report(X, CLASSES, class_weight="balanced")
    assert isinstance(balanced, ClassificationReport)
    assert balanced.accuracy == pytest.approx(sk.balanced_accuracy_score(CLASSES, model.predict(X)), **NEAR)
    numbers = fitted("cpu", NUMBERS, gn.Dense(3), optimizer=gn.SGD(0.01))
    errors = numbers.report(gn.Samples(X, NUMBERS, weights=weights))
    assert isinstance(errors, RegressionReport)
    wanted = sk.r2_score(NUMBERS, numbers.predict(X).astype(float), sample_weight=weights)
    assert errors.r2 == pytest.approx(wanted, **NEAR)


def test_a_report_on_a_file_is_that_on_memory_and_takes_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 samples to 2,000 classes: all outputs would take 160 MB."""
    x, y = RNG.normal(size=(20_000, 8)).astype(np.float32), RNG.integers(0, 2000, 20_000)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr("gpunn.data.loader.PIECE", 1 << 16)  # a part of the rows
    model = gn.Sequential([gn.Dense(2000)]).build((8,), 64, "cpu")
    mapped = gn.Samples(np.load(tmp_path / "x.npy", mmap_mode="r"), y)
    tracemalloc.start()
    report = model.report(mapped)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 32 << 20
    again = model.report(gn.Samples(x, y))
    assert isinstance(report, ClassificationReport)
    assert isinstance(again, ClassificationReport)
    for name in ("labels", "predicted", "of_true", "of_predicted", "ranks"):
        np.testing.assert_array_equal(getattr(report.answers, name), getattr(again.answers, name))
    assert report.to_dict()["confusion_matrix"] is None
    assert report.to_dict()["classes"] is None


def test_a_report_is_on_the_test_set_of_data_and_needs_samples_that_fit() -> None:
    data = gn.Data.from_arrays(X, CLASSES, test=(X[:50], CLASSES[:50]), class_names=NAMES)
    model = gn.Sequential([gn.Dense(3)])
    with pytest.raises(GpunnError, match="not built"):
        model.report(data)
    model.fit(data, progress=False, epochs=1, device="cpu")
    assert model.report(data).total == 50
    for given, error in (((X[:, :2], CLASSES), ShapeError), ((X, NUMBERS), DataError), ((X, None), DataError)):
        with pytest.raises(error) as caught:
            model.report(*given)
        one_line(caught.value)


def test_a_network_that_no_loss_has_trained_is_reported_on_too() -> None:
    model = gn.Sequential([gn.Dense(3)]).build((5,), 32, "cpu")
    report = model.report(X, CLASSES)
    assert isinstance(report, ClassificationReport)
    assert report.class_names == ("0", "1", "2")
    assert report.accuracy == np.mean(model.predict_proba(X).argmax(axis=1) == CLASSES)


def test_the_only_class_is_the_answer() -> None:
    model = fitted("cpu", np.zeros(300, int), gn.Dense(1), loss=gn.SoftmaxCrossEntropy(), names=["it"])
    report = model.report(X, np.zeros(300, int))
    assert isinstance(report, ClassificationReport)
    assert (report.class_names, report.accuracy, report.macro.f1) == (("it",), 1, 1)
    assert report.top_k_accuracy() == 1
    assert set(model.predict_names(X)) == {"it"}
    assert str(report)


def test_the_outputs_of_a_table_have_the_names_of_its_columns(tmp_path: Path) -> None:
    y = 500 + 100 * NUMBERS[:, :2]
    rows = [",".join(f"{value:.9g}" for value in row) for row in np.hstack([X, y])]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,e,price,weight_kg", *rows]) + "\n")
    data = gn.load_data(tmp_path / "t.csv", target=["price", "weight_kg"])
    model = gn.Sequential([gn.Dense(2)])
    model.fit(data, epochs=2, device="cpu", progress=False)
    assert data.validation is not None
    report, answers = model.report(data.validation), model.predict(data.validation.inputs)
    assert isinstance(report, RegressionReport)
    assert report.names == ("price", "weight_kg")
    assert [each["name"] for each in report.to_dict()["outputs"]] == ["price", "weight_kg"]
    assert "weight_kg" in str(report)
    assert data.validation.columns is not None
    true = data.validation.columns.answers(data.validation.targets)
    assert report.rmse == pytest.approx(sk.root_mean_squared_error(true.astype(float), answers.astype(float)), **NEAR)


# The table


def classes_of(labels: list[int], predicted: list[int], names: list[str]) -> ClassificationReport:
    outputs = np.eye(len(names), dtype=np.float32)[predicted]
    return ClassificationReport.of(Answers.of(outputs, np.array(labels, np.int32)), names)


def test_the_table_says_what_is_absent_and_what_was_never_predicted() -> None:
    report = classes_of([0, 0, 0, 1, 1], [0, 0, 3, 0, 0], ["a", "b", "c", "d"])
    assert report.worst.name == "b"
    assert report.never_predicted == ("b",)
    assert [report.class_names[k] for k in report.absent] == ["c"]
    text = str(report)
    assert "in no sample and no answer, so in no average: c" in text
    assert "never predicted: b" in text
    assert "c  " not in [line[:3] for line in text.splitlines()]
    assert repr(report) == "ClassificationReport(4 classes, 5 samples, accuracy=0.4000, macro F1=0.1905)"
    with pytest.raises(DataError, match="no class 'e': expected one of a, b, c, d"):
        report["e"]


def reports() -> dict[str, Report]:
    names = ["x" * 300, "数字" * 50, "e\u0301" * 60, "| *bold* `code`", "", "two\nlines\t\x1b[31m"]
    names += map(str, range(69))
    labels = np.arange(len(names)).repeat(3)
    numbers = RNG.normal(size=(20, 80)) * 1e7
    many = (numbers > 0).astype(np.float32)
    return {
        "classes": classes_of(labels.tolist(), RNG.permutation(labels).tolist(), names),
        "few classes": classes_of([0, 1, 2, 3], [0, 1, 2, 3], names[:5]),
        "outputs": MultilabelReport.of(many, RNG.random((20, 80))),
        "one output": MultilabelReport.of(many[:, :1], many[:, :1]),
        "numbers": RegressionReport.of(numbers, numbers + 1e5),
        "one number": RegressionReport.of(numbers[:1, :1], numbers[:1, :1]),
    }


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("kind", reports())
def test_a_table_keeps_within_its_width(kind: str, width: int) -> None:
    report = reports()[kind]
    lines = report.table(width).splitlines()
    assert max(map(width_of, lines)) <= width
    assert len(lines) < 70
    assert all(map(str.isprintable, lines))
    assert "nan" not in "\n".join(lines)
    assert ("lowest" in "\n".join(lines)) == (kind in ("classes", "outputs", "numbers"))
    assert str(report) == report.table(80)
    assert len(repr(report)) < 120


def test_width_counts_columns_of_a_terminal() -> None:
    assert [width_of(text) for text in ("", "abc", "数字", "e\u0301", "½²")] == [0, 3, 4, 1, 2]
    assert unicodedata.east_asian_width("数") == "W"


def test_the_page_on_metrics_shows_what_comes_out() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    _, python, _, table, *_ = text.split("```")
    assert str(classes_of([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], ["cat", "dog"])) == table.strip()
    labels = YES[:, 0].astype(int)
    data = gn.Data.from_arrays(X, labels, test=(X[:50], labels[:50]), class_names=["cat", "dog"])
    model = gn.Sequential([gn.Dense(2)])
    model.fit(data, epochs=1, device="cpu", progress=False)
    exec(python.removeprefix("python"), {"model": model, "data": data})
