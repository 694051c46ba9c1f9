"""Answers and figures follow the task: classes, 0 or 1 for each output, or numbers."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import gpunn, own_folder
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, GpunnError, ModelFileError, ShapeError
from gpunn.nn.tasks import Task

X = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(5, 3))
NUMBERS = (X[:, :, None] * W).sum(axis=1)  # (n, 3)
YES = (NUMBERS > 0).astype(np.float64)
LABELS = YES[:, 0].astype(int)
NAMES = ["cat", "dog"]


def fitted(
    backend: Backend, y: Any, *layers: Any, names: Any = None, **options: Any
) -> tuple[gn.Sequential, gn.History]:
    """A network that was trained on X and y with little but its loss given."""
    model = gn.Sequential(layers)
    data = gn.Data.from_arrays(X, y, validation=60, class_names=names)
    usual = {"epochs": 12, "batch_size": 32, "device": backend, "progress": False, "optimizer": gn.SGD(0.3)}
    return model, model.fit(data, **usual | options)


def no_nan(*things: Any) -> None:
    for thing in things:
        for text in (str(thing), repr(thing)):
            assert "nan" not in text, text


@pytest.mark.parametrize("layers", [[gn.Dense(1), gn.Sigmoid()], [gn.Dense(1)]], ids=["sigmoid", "logits"])
def test_one_output_on_float_targets_answers_0_or_1(backend: Backend, layers: list[Any]) -> None:
    y = YES[:, :1]
    model, history = fitted(backend, y, *layers, loss=gn.BinaryCrossEntropy())
    assert model.task is Task.BINARY
    answers = model.predict(X)
    assert answers.shape == y.shape
    assert answers.dtype.kind == "i"
    assert set(np.unique(answers)) == {0, 1}
    np.testing.assert_array_equal(answers, model.predict_proba(X) >= 0.5)
    result = model.evaluate(gn.Samples(X, y))
    assert result.accuracy == pytest.approx((answers == y).mean())
    assert result.accuracy > 0.95
    assert (result.right, result.total) == ((answers == y).sum(), 300)
    assert 0 < history[0].train_accuracy < 1
    assert history[-1].validation_accuracy > 0.9
    no_nan(result, history, *history)


def test_independent_outputs_are_each_right_or_wrong(backend: Backend) -> None:
    model, history = fitted(backend, YES, gn.Dense(3), gn.Sigmoid(), loss=gn.BinaryCrossEntropy())
    answers = model.predict(X)
    assert answers.shape == (300, 3)
    result = model.evaluate(gn.Samples(X, YES))
    assert result.accuracy == pytest.approx((answers == YES).mean())
    assert (result.right, result.total) == ((answers == YES).sum(), 900)
    assert 0 < history[0].train_accuracy < history[-1].train_accuracy <= 1
    no_nan(result, history, *history)
    assert "R²" not in str(history)


def test_soft_targets_count_as_the_nearer_of_0_and_1(backend: Backend) -> None:
    model, _ = fitted(backend, 0.1 + 0.8 * YES, gn.Dense(3), loss=gn.BinaryCrossEntropy())
    result = model.evaluate(gn.Samples(X, 0.1 + 0.8 * YES))
    assert result.accuracy == pytest.approx((model.predict(X) == YES).mean())


def test_the_training_accuracy_of_outputs_is_that_before_each_step(backend: Backend) -> None:
    """One batch of all: the first record is of the network as it was drawn."""
    data = gn.Data.from_arrays(X, YES, validation=0)
    options: dict[str, Any] = {"device": backend, "progress": False, "batch_size": 300, "epochs": 1, "seed": 4}
    model = gn.Sequential([gn.Dense(3)])
    history = model.fit(data, loss=gn.BinaryCrossEntropy(), **options)
    fresh = gn.Sequential([gn.Dense(3)]).build((5,), 300, backend, seed=4)
    z = backend.to_host(fresh.forward(X))
    assert history[0].train_accuracy == pytest.approx(((z >= 0) == (YES >= 0.5)).mean())


def test_a_regression_answers_its_outputs_and_is_measured_by_rmse_and_r2(backend: Backend) -> None:
    y = NUMBERS + np.random.default_rng(2).normal(scale=0.3, size=(300, 3))
    model, history = fitted(backend, y, gn.Dense(3), optimizer=gn.SGD(0.01), dtype="float64")
    assert model.task is Task.REGRESSION
    answers = model.predict(X)
    np.testing.assert_array_equal(answers, model.predict_proba(X))
    result = model.evaluate(gn.Samples(X, y))
    squares = np.square(answers - y)
    assert result.loss == pytest.approx(squares.sum() / 300, rel=1e-9)
    assert result.rmse == pytest.approx(np.sqrt(squares.mean()), rel=1e-9)
    assert result.r2 == pytest.approx(1 - squares.sum() / np.square(y - y.mean(axis=0)).sum(), rel=1e-9)
    assert result.total == 300
    no_nan(result, history, *history)
    assert "right" not in repr(result) + str(result)
    assert "accuracy" not in str(history) + repr(result)
    last = history[-1]
    assert last.validation_rmse == pytest.approx(np.sqrt(last.validation_loss / 3), rel=1e-12)
    assert last.train_rmse == pytest.approx(np.sqrt(last.train_loss / 3), rel=1e-12)
    assert 0.9 < last.validation_r2 < 1
    assert 0.9 < last.train_r2 < 1


def test_r2_is_0_for_the_mean_and_left_out_where_all_targets_are_equal(backend: Backend) -> None:
    y = NUMBERS[:, :2]
    model = gn.Sequential([gn.Dense(2)]).build((5,), 32, backend, "float64")
    model.loss = gn.MeanSquaredError()
    backend.assign(model.parameters["dense1.w"].value, 0.0)
    backend.assign(model.parameters["dense1.b"].value, y.mean(axis=0))
    assert model.evaluate(gn.Samples(X, y)).r2 == pytest.approx(0, abs=1e-6)
    constant = model.evaluate(gn.Samples(X, np.full((300, 2), 0.1)))
    assert "r2" not in repr(constant)
    assert "R²" not in str(constant)
    assert constant.rmse > 0


@pytest.mark.parametrize("loss", [None, gn.BinaryCrossEntropy, gn.MeanSquaredError])
def test_one_output_tells_two_classes_apart(backend: Backend, loss: Any) -> None:
    """Left out, the loss is BinaryCrossEntropy."""
    options = {} if loss is None else {"loss": loss()}
    model, history = fitted(backend, LABELS, gn.Dense(1), gn.Sigmoid(), names=NAMES, epochs=30, **options)
    assert isinstance(model.loss, loss or gn.BinaryCrossEntropy)
    answers = model.predict(X)
    assert answers.shape == (300,)
    result = model.evaluate(gn.Samples(X, LABELS))
    assert result.accuracy == pytest.approx((answers == LABELS).mean())
    assert result.accuracy > 0.9
    assert (result.right, result.total) == ((answers == LABELS).sum(), 300)
    assert model.predict_names(X).tolist() == [NAMES[k] for k in answers]
    assert model.predict_proba(X).shape == (300, 1)
    no_nan(result, history, *history)
    if loss is not gn.MeanSquaredError:  # to which floats may be any numbers
        assert model.evaluate(gn.Samples(X, LABELS[:, None].astype(float))).accuracy == result.accuracy


def test_labels_of_one_output_cost_what_their_floats_cost(backend: Backend) -> None:
    runs = [
        fitted(backend, y, gn.Dense(1), loss=gn.BinaryCrossEntropy(), dtype="float64", seed=5, epochs=2, **more)
        for y, more in ((LABELS, {}), (LABELS[:, None].astype(float), {}))
    ]
    losses = [[model.evaluate(gn.Samples(X, LABELS)).loss] for model, _ in runs]
    first = gn.Sequential([gn.Dense(1)]).build((5,), 300, backend, "float64", 5)
    loss = gn.BinaryCrossEntropy()
    z = first.forward(X)
    assert float(loss.forward(z, LABELS)) == float(loss.forward(z, LABELS[:, None].astype(float)))
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("loss", [gn.SoftmaxCrossEntropy, gn.BinaryCrossEntropy, gn.MeanSquaredError])
def test_labels_are_answered_by_class_numbers_under_every_loss(backend: Backend, loss: Any) -> None:
    labels = NUMBERS.argmax(axis=1)
    model, history = fitted(backend, labels, gn.Dense(3), gn.Sigmoid(), loss=loss(), names=["a", "b", "c"])
    assert model.task is Task.CLASSES
    answers = model.predict(X)
    np.testing.assert_array_equal(answers, model.predict_proba(X).argmax(axis=1))
    assert model.predict_names(X[:9]).tolist() == ["abc"[k] for k in answers[:9]]
    result = model.evaluate(gn.Samples(X, labels))
    assert result.right == (answers == labels).sum()
    no_nan(result, history, *history)


def test_names_are_there_for_classes_alone(backend: Backend) -> None:
    model, _ = fitted(backend, NUMBERS, gn.Dense(3), optimizer=gn.SGD(0.01), epochs=1)
    with pytest.raises(GpunnError, match="not trained on labels: use predict") as caught:
        model.predict_names(X)
    one_line(caught.value)
    model, _ = fitted(backend, LABELS, gn.Dense(2), epochs=1)
    assert set(model.predict_names(X)) <= {"0", "1"}


def test_a_class_that_the_training_did_not_have_is_named_by_its_number(backend: Backend) -> None:
    model, _ = fitted(backend, LABELS, gn.Dense(4), names=NAMES, epochs=1)
    backend.assign(model.parameters["dense1.b"].value, np.array([0, 0, 0, 99], np.float32))
    assert set(model.predict_names(X)) == {"3"}


@pytest.mark.parametrize(
    ("y", "layers", "loss"),
    [
        (YES, [gn.Dense(3), gn.Sigmoid()], gn.BinaryCrossEntropy),
        (YES[:, :1], [gn.Dense(1)], gn.BinaryCrossEntropy),
        (NUMBERS, [gn.Dense(3)], gn.MeanSquaredError),
        (LABELS, [gn.Dense(1)], gn.BinaryCrossEntropy),
        (LABELS, [gn.Dense(2)], gn.MeanSquaredError),
    ],
)
@pytest.mark.parametrize("version", ["this", "before"])
def test_a_model_file_keeps_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, y: Any, layers: list[Any], loss: Any, version: str
) -> None:
    """Those of the version before do not say it; it follows from the loss and the names of the classes."""
    model, _ = fitted("cpu", y, *layers, loss=loss(), optimizer=gn.SGD(0.01), epochs=1)  # type: ignore[arg-type]
    task = model.task
    if version == "before":
        model.task = None
    model.save(tmp_path / "m.safetensors")
    loaded = gn.load_model(tmp_path / "m.safetensors", "cpu")
    assert loaded.task is task
    model.task = task
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_a_task_that_is_none_is_refused(tmp_path: Path) -> None:
    from saving.test_model_file import rewritten

    path = rewritten(tmp_path / "m.safetensors", lambda description, _: description.update(task="ranking"))
    with pytest.raises(ModelFileError, match="task must be classes, binary, regression, got 'ranking'"):
        gn.load_model(path, "cpu")


def test_a_network_goes_from_one_task_to_another(backend: Backend) -> None:
    model, _ = fitted(backend, NUMBERS.argmax(axis=1), gn.Dense(3), epochs=1)
    model.fit((X, NUMBERS), epochs=1, device=backend, progress=False, optimizer=gn.SGD(0.01))
    assert model.task is Task.REGRESSION
    assert model.predict(X).shape == (300, 3)


# What cannot be


def test_targets_of_another_kind_than_those_of_the_training_are_refused(backend: Backend) -> None:
    labels = NUMBERS.argmax(axis=1)
    regression, _ = fitted(backend, NUMBERS, gn.Dense(3), optimizer=gn.SGD(0.01), epochs=1)
    classes, _ = fitted(backend, labels, gn.Dense(3), loss=gn.MeanSquaredError(), epochs=1)
    many, _ = fitted(backend, YES, gn.Dense(3), loss=gn.BinaryCrossEntropy(), epochs=1)
    for model, y, words in (
        (regression, labels, "trained on float targets"),
        (many, labels, "trained on float targets"),
        (classes, NUMBERS, "trained on labels"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            model.evaluate(gn.Samples(X, y))
        one_line(caught.value)


@pytest.mark.parametrize("y", [2 * YES - 1, 255 * YES, YES - 0.001], ids=["-1 to 1", "0 to 255", "just below"])
def test_targets_of_binary_cross_entropy_lie_between_0_and_1(backend: Backend, y: Any) -> None:
    with pytest.raises(DataError, match="BinaryCrossEntropy needs targets from 0 to 1, got") as caught:
        fitted(backend, y, gn.Dense(3), loss=gn.BinaryCrossEntropy())
    one_line(caught.value)


def test_one_output_for_softmax_or_for_three_classes_says_what_mends_it(backend: Backend) -> None:
    with pytest.raises(ShapeError, match=r"end it with Dense\(2\), or take BinaryCrossEntropy"):
        fitted(backend, LABELS, gn.Dense(1), loss=gn.SoftmaxCrossEntropy())
    words = r"3 classes, the network 1 outputs: end it with Dense\(3\), or give floats \(n, 1\) to learn numbers"
    with pytest.raises(ShapeError, match=words):
        fitted(backend, NUMBERS.argmax(axis=1), gn.Dense(1), loss=gn.BinaryCrossEntropy())


# The program


EXPERIMENT = """
name = "tiny"
[data]
source = "mine.npz"
[training]
epochs = 8
batch_size = 32
device = "cpu"
[[layers]]
type = "Dense"
units = {units}
[loss]
type = "{loss}"
[optimizer]
type = "SGD"
learning_rate = {rate}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_folder(tmp_path, monkeypatch)


def run(folder: Path, y: Any, units: Any, loss: str, rate: float = 0.3) -> tuple[str, dict[str, Any], list[str]]:
    """What a training of X and y said, its metrics, and the columns of its history."""
    np.savez(folder / "mine.npz", x_train=X[:240], y_train=y[:240], x_test=X[240:], y_test=y[240:])
    np.save(folder / "x.npy", X[:4])
    (folder / "mine.toml").write_text(EXPERIMENT.format(units=units, loss=loss, rate=rate))
    done = gpunn("train", "--recipe", "mine.toml", "--out", "run")
    assert done.code == 0, done.err
    metrics = json.loads((folder / "run" / "metrics.json").read_text("utf-8"))
    with (folder / "run" / "history.csv").open() as file:
        columns = next(csv.reader(file))
    assert "nan" not in done.out + done.err + (folder / "run" / "history.csv").read_text()
    return done.out + done.err, metrics, columns


def test_a_run_of_a_regression_speaks_of_rmse_and_r2(folder: Path) -> None:
    said, metrics, columns = run(folder, NUMBERS[:, :2], '"outputs"', "MeanSquaredError", 0.02)
    assert metrics["task"] == "regression"
    assert metrics["test_r2"] > 0.9
    assert metrics["test_rmse"] == pytest.approx(np.sqrt(metrics["test_loss"] / 2))
    assert not [key for key in (*metrics, *metrics["best"]) if "accuracy" in key]
    assert "train_r2" in columns
    assert "validation_rmse" in columns
    assert not [name for name in columns if "accuracy" in name]
    assert "accuracy" not in said
    assert f"R² {metrics['test_r2']:.4f}, 60 samples" in said
    assert not (folder / "run" / "confusion.png").exists()
    assert not (folder / "run" / "mistakes.png").exists()
    said = gpunn("evaluate", "run").out
    assert said.startswith(f"mine, test set (60): loss {metrics['test_loss']:.4f}, RMSE ")
    assert "right" not in said
    model = gn.load_model(folder / "run" / "model.safetensors")
    answer = json.loads(gpunn("predict", "run", "x.npy", "--format", "json").out)[0]
    assert sorted(answer) == ["file", "outputs", "sample"]
    assert answer["outputs"] == pytest.approx(model.predict(X[:1])[0].tolist())
    table = list(csv.reader(gpunn("predict", "run", "x.npy", "--format", "csv").out.splitlines()))
    assert table[0] == ["file", "sample", "output_1", "output_2"]
    np.testing.assert_allclose([[float(v) for v in row[2:]] for row in table[1:]], model.predict(X[:4]), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_of_independent_outputs_answers_0_or_1_for_each(folder: Path, count: int) -> None:
    said, metrics, columns = run(folder, YES[:, :count], '"outputs"', "BinaryCrossEntropy")
    assert metrics["task"] == "binary"
    assert metrics["test_accuracy"] > 0.9
    assert f": {round(metrics['test_accuracy'] * 60 * count)} of {60 * count} right" in said
    assert [name for name in columns if "accuracy" in name] == ["train_accuracy", "validation_accuracy"]
    assert not (folder / "run" / "confusion.png").exists()
    wanted = gn.load_model(folder / "run" / "model.safetensors").predict(X[:4])
    answers = json.loads(gpunn("predict", "run", "x.npy", "--format", "json").out)
    assert [answer["answers"] for answer in answers] == wanted.tolist()
    assert "label" not in answers[0]
    lines = gpunn("predict", "run", "x.npy").out.splitlines()
    assert lines[0].split("(")[0].split()[1:] == [str(value) for value in wanted[0]]
    table = list(csv.DictReader(gpunn("predict", "run", "x.npy", "--format", "csv").out.splitlines()))
    first = "answer" if count == 1 else "answer_1"
    assert [int(row[first]) for row in table] == wanted[:, 0].tolist()


def test_a_run_of_one_output_on_labels_has_names_and_every_picture(folder: Path) -> None:
    said, metrics, _ = run(folder, LABELS, 1, "BinaryCrossEntropy")
    assert metrics["task"] == "classes"
    assert metrics["test_accuracy"] > 0.9
    assert "test accuracy" in said
    for name in ("confusion.png", "mistakes.png"):
        assert (folder / "run" / name).exists()
    model = gn.load_model(folder / "run" / "model.safetensors")
    answers = json.loads(gpunn("predict", "run", "x.npy", "--format", "json").out)
    assert [answer["label"] for answer in answers] == model.predict_names(X[:4]).tolist()
    assert all(answer["probability"] >= 0.5 for answer in answers)
    p = model.predict_proba(X[:4])[:, 0]
    assert [answer["probability"] for answer in answers] == pytest.approx(np.maximum(p, 1 - p).tolist())
