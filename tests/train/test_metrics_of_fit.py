"""Metrics of `fit`: measured at each record, kept in history, CSV and checkpoints, watched and shown."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from support.harness import one_line
from support.outside.judging import Brier

import gpunn as gn
from gpunn.errors import DataError, OptionError
from gpunn.train.progress import Progress

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(240, 4)).astype(np.float32)
LABELS = np.argmax(X[:, :3] + 0.3 * GENERATOR.normal(size=(240, 3)), axis=1)
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, 240)


def f2(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
    return float(sk.fbeta_score(y_true, y_pred, beta=2, average="macro", sample_weight=sample_weight))


def share(y_true: Any, y_pred: Any) -> float:
    return float((y_true == y_pred).mean())


def data(y: Any = LABELS, **given: Any) -> gn.Data:
    return gn.Data.from_arrays(X, y, validation=0.25, **given)


def trained(of: gn.Data, metrics: Any, outputs: int = 3, **given: Any) -> tuple[gn.Sequential, gn.History]:
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(outputs)])
    return model, model.fit(
        of, metrics=metrics, **{"epochs": 3, "batch_size": 32, "device": "cpu", "progress": False, **given}
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_named_metrics_are_those_of_scikit_learn(weights: Any) -> None:
    of = data(sample_weight=weights)
    names = ["f1", "precision", "recall", "balanced_accuracy", "top2", "top_1", f2, Brier]
    model, history = trained(of, names)
    watched = of.validation
    assert watched is not None
    true, answers, w = watched.targets, model.predict(watched.inputs), watched.weights
    expected = [
        *(
            score(true, answers, average="macro", sample_weight=w, zero_division=0)
            for score in (sk.f1_score, sk.precision_score, sk.recall_score)
        ),
        sk.balanced_accuracy_score(true, answers, sample_weight=w),
        sk.top_k_accuracy_score(true, model.predict_proba(watched.inputs), k=2, sample_weight=w),
        sk.accuracy_score(true, answers, sample_weight=w),
        f2(true, answers, w),
    ]
    found = [history[name][-1] for name in ("f1", "precision", "recall", "balanced_accuracy", "top2", "top_1", "f2")]
    assert found == pytest.approx(expected)
    assert history[-1].metrics["Brier"] == model.report(watched, metrics=[Brier]).metrics["Brier"]
    assert model.report(watched, metrics=["f1"]).metrics["f1"] == history["f1"][-1]


def test_named_metrics_of_numbers_and_of_several_answers() -> None:
    of = data(X[:, :2] @ np.ones((2, 2), np.float32))
    model, history = trained(of, ["mae", sk.median_absolute_error], outputs=2)
    watched = of.validation
    assert watched is not None
    expected = sk.mean_absolute_error(watched.targets, model.predict(watched.inputs))
    assert history["mae"][-1] == pytest.approx(expected, rel=1e-5)
    of = data((X[:, :2] > 0).astype(np.float32))
    model, history = trained(of, ["exact", "auc", "f1"], outputs=2, loss="BinaryCrossEntropy")
    watched = of.validation
    assert watched is not None
    true, shares = watched.targets, model.predict_proba(watched.inputs)
    assert history["exact"][-1] == pytest.approx(sk.accuracy_score(true, shares >= 0.5))
    assert history["auc"][-1] == pytest.approx(sk.roc_auc_score(true, shares))
    assert history["f1"][-1] == pytest.approx(sk.f1_score(true, shares >= 0.5, average="macro"))


def test_metrics_change_nothing_of_the_training() -> None:
    plain, without = trained(data(), [])
    asked, history = trained(data(), ["f1"])
    assert len(history) == len(without) > 4
    assert all(np.array_equal(plain.arrays()[name], asked.arrays()[name]) for name in plain.arrays())
    assert history["train_loss"] == without["train_loss"]
    assert without[0].metrics == {}
    assert "f1" in repr(history[0])
    assert "f1" in str(history)


def test_a_history_of_metrics_is_read_back(tmp_path: Path) -> None:
    _, history = trained(data(), ["f1", share])
    history.write_csv(tmp_path / "history.csv")
    head = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert head.endswith("seconds,f1,share")
    again = gn.History.read_csv(tmp_path / "history.csv")
    assert again.records == history.records
    assert pickle.loads(pickle.dumps(history))["f1"] == history["f1"]
    with pytest.raises(KeyError, match="seconds, f1, share"):
        history["f2"]


@pytest.mark.parametrize(
    "head", ["seconds,f1,f1", "seconds,a-b", "seconds,", "f1,seconds", "seconds,f1,penalty", "seconds," + 61 * "a"]
)
def test_no_other_columns_are_read(tmp_path: Path, head: str) -> None:
    _, history = trained(data(), [], epochs=1)
    history.write_csv(tmp_path / "history.csv")
    text = (tmp_path / "history.csv").read_text()
    (tmp_path / "history.csv").write_text(text.replace("seconds", head, 1))
    with pytest.raises(DataError, match="header"):
        gn.History.read_csv(tmp_path / "history.csv")


def test_a_metric_stops_a_training_and_chooses_its_weights() -> None:
    values = iter([0.1, 0.5, 0.9, *[0.2] * 100])

    def rising(y_true: Any, y_pred: Any) -> float:
        return next(values)

    stopping = gn.EarlyStopping(1, monitor="rising", mode="max")
    model, history = trained(data(), [rising], epochs=20, callbacks=[stopping])
    assert history.stopped == "no better rising for 1 epochs"
    assert stopping.best is history[2]
    assert model.steps_trained == history[2].step
    assert gn.EarlyStopping(1, monitor="f1").mode == "max"
    assert gn.EarlyStopping(1, monitor="mae").mode == "min"
    with pytest.raises(
        OptionError, match=r"no metric of this training: take one of .*validation_accuracy, f1$"
    ) as caught:
        trained(data(), ["f1"], callbacks=[gn.EarlyStopping(1, monitor="recall")])
    one_line(caught.value)


def test_a_metric_may_be_nan_at_first() -> None:
    values = iter([np.nan, np.nan, *np.arange(100.0)])

    def late(y_true: Any, y_pred: Any) -> float:
        return float(next(values))

    stopping = gn.EarlyStopping(5, monitor="late", mode="max")
    _, history = trained(data(), [late], callbacks=[stopping])
    assert stopping.best is history[-1]


def test_a_resumed_training_has_the_metrics_of_one_that_went_on(tmp_path: Path) -> None:
    class Cut(gn.Callback):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            if record.epoch >= 2:
                raise ZeroDivisionError

    whole, history = trained(data(), ["f1", share], epochs=4)
    keeping: dict[str, Any] = {"folder": tmp_path, "resume": True}
    with pytest.raises(ZeroDivisionError):
        trained(data(), ["f1", share], epochs=4, callbacks=[gn.Checkpointer(**keeping, every=2), Cut()])
    again, resumed = trained(data(), ["f1", share], epochs=4, callbacks=[gn.Checkpointer(**keeping)])
    for name in ("f1", "share", "train_loss"):
        assert resumed[name] == history[name]
    assert all(np.array_equal(whole.arrays()[name], again.arrays()[name]) for name in whole.arrays())
    with pytest.raises(gn.GpunnError, match="metrics"):
        trained(data(), ["f1"], epochs=5, callbacks=[gn.Checkpointer(**keeping)])


def test_the_progress_line_has_metrics_where_there_is_room() -> None:
    stream = io.StringIO()
    trained(data(), ["f1"], callbacks=[gn.ProgressBar(stream)], progress=True)
    assert ", f1 0." in stream.getvalue()
    progress = Progress(1, 10, io.StringIO())
    progress.start_epoch(0)
    record = gn.Record(1, 1.0, 1.0, 0.5, validation_loss=1.0, validation_accuracy=0.5, learning_rate=0.1, seconds=1.0,
                       measured=(("f1", 0.25),))  # fmt: skip
    progress.look(record)
    texts = list(progress._texts({"loss": 1.0}))
    assert "f1 0.2500" in texts[1]
    assert "f1" not in texts[-1]


def test_metrics_are_drawn(tmp_path: Path) -> None:
    _, history = trained(data(), ["f1"])
    titles = [axes.get_title() for axes in history.plot(tmp_path / "curves.png").axes]
    assert titles[:3] == ["loss", "accuracy", "f1"]


@pytest.mark.parametrize(
    ("metrics", "word"),
    [
        (["accuracy"], "every record has validation_accuracy already"),
        ([lambda y_true, y_pred: 1.0], "write it as a function"),
        (["f1", "F1"], "the name 'f1' twice"),
        (["mae"], "the metric mae is not defined for classes: take one of f1,"),
        (["auc"], "needs at most two classes"),
        (["top4"], "needs at least 4 classes, and the network has 3"),
        (["fun"], "unknown metric 'fun': expected one of f1,"),
        ("f1", "metrics is a list"),
        (["mymodule:within"], "--allow-import mymodule"),
    ],
    ids=["column", "lambda", "twice", "task", "auc", "top", "unknown", "no list", "not allowed"],
)
def test_metrics_that_cannot_be_are_refused_before_the_training(metrics: Any, word: str) -> None:
    with pytest.raises(OptionError, match=word) as caught:
        trained(data(), metrics)
    one_line(caught.value)


def test_weights_and_validation_samples_are_looked_at_first() -> None:
    with pytest.raises(OptionError, match="share takes no sample_weight"):
        trained(data(sample_weight=WEIGHTS), [share])
    with pytest.raises(OptionError, match="measured on the validation samples, and there are none") as caught:
        trained(gn.Data.from_arrays(X, LABELS, validation=0), ["f1"])
    one_line(caught.value)


def test_a_metric_that_fails_leaves_the_weights_of_the_last_record() -> None:
    kept = list[Any]()

    def failing(y_true: Any, y_pred: Any) -> float:
        if len(kept) == 3:
            raise ZeroDivisionError
        return 1.0

    class Keeping(gn.Callback):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            kept.append(training.model.arrays())

    model = gn.Sequential([gn.Dense(3)])
    with pytest.raises(ZeroDivisionError):
        model.fit(data(), metrics=[failing], callbacks=[Keeping()], device="cpu", progress=False)
    assert all(np.array_equal(kept[-1][name], value) for name, value in model.arrays().items())
