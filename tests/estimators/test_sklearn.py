"""`gpunn.sklearn`: scikit-learn's own checks, its tools, and the claims of docs/sklearn.md."""

import copy
import io
import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.harness import one_line
from support.paths import ROOT

import gpunn as gn
from gpunn.errors import GpunnError
from gpunn.experiments.experiment import read_experiment
from gpunn.sklearn import Classifier, Regressor

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
QUICK: dict[str, Any] = {"device": "cpu", "random_state": 0}


def test_every_check_of_scikit_learn_passes_and_none_is_skipped() -> None:
    code = """
from sklearn.utils.estimator_checks import check_estimator
from gpunn.sklearn import Classifier, Regressor
for made in (Classifier(device="cpu"), Regressor(device="cpu")):
    found = check_estimator(made, on_skip=None, on_fail=None)
    wrong = [[each[key] for key in ("check_name", "status", "exception")] for each in found]
    wrong = [each for each in wrong if each[1] != "passed"]
    assert len(found) >= 60 and not wrong, wrong
"""  # SciPy reads the variable when it is imported
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_five_folds_of_the_digits() -> None:
    x, y = load_digits(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)  # unshuffled, others have written the digits of a fold
    scores = cross_val_score(Classifier(epochs=30, **QUICK), x / 16, y, cv=folds)
    assert scores.mean() >= 0.96, scores
    (told,) = re.findall(r"digits, shuffled, gives ([\d.]+) %", (ROOT / "docs" / "sklearn.md").read_text("utf-8"))
    assert abs(100 * scores.mean() - float(told)) < 1.0, "the page has another figure"


def test_a_convolutional_network_takes_images_flat_in_rows_and_as_they_are() -> None:
    x, y = load_digits(return_X_y=True)
    x, layers = (x[:400] / 16).astype(np.float32), [gn.Conv2D(8), gn.ReLU(), gn.Flatten()]
    flat = Classifier(layers, input_shape=(8, 8), epochs=5, **QUICK).fit(x, y[:400])
    images = Classifier(layers, epochs=5, **QUICK).fit(x.reshape(-1, 8, 8), y[:400])
    assert flat.model_.input_shape == images.model_.input_shape == (8, 8, 1)
    assert flat.score(x, y[:400]) > 0.9
    np.testing.assert_array_equal(flat.predict_proba(x), images.predict_proba(x.reshape(-1, 8, 8, 1)))


@pytest.mark.parametrize("made", [Classifier, Regressor])
def test_tokens_are_looked_up_as_they_are(made: Any) -> None:
    x = np.random.default_rng(0).integers(0, 50, (200, 4))
    y = (x[:, 0] > 24).astype(int)
    fitted = made([gn.Embedding(50, 4), gn.Flatten()], **QUICK).fit(x, y)
    assert fitted.score(x, y) > 0.6
    with pytest.raises(GpunnError, match="50"):
        fitted.predict(x + 1)


def test_it_is_the_training_of_fit() -> None:
    x = X.astype(np.float32)
    layers = [gn.Dense(7), gn.Tanh(), gn.Dense(3)]
    ours = Classifier(layers, optimizer=gn.SGD(0.1), epochs=3, device="cpu", random_state=4).fit(x, NAMES)
    model = gn.Sequential([gn.Dense(7), gn.Tanh(), gn.Dense(3)])
    data = gn.Data.from_arrays(x, NAMES, validation=0, seed=4)
    history = model.fit(data, optimizer=gn.SGD(0.1), epochs=3, device="cpu", seed=4, progress=False)
    np.testing.assert_array_equal(ours.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(ours.predict(x), model.predict_names(x))
    assert ours.history_["train_loss"] == history["train_loss"]
    assert ours.n_iter_ == 3


@pytest.mark.parametrize(
    ("layers", "kinds"),
    [
        (None, "Dense ReLU Dense"),
        ((), "Dense"),
        (5, "Dense ReLU Dense"),
        ((6, 5), "Dense ReLU Dense ReLU Dense"),
        (np.array([6, 5]), "Dense ReLU Dense ReLU Dense"),
        ([gn.Dense(5), "tanh"], "Dense Tanh Dense"),
        ([gn.Dense(5)], "Dense Dense"),
        ([gn.Dense(5), gn.Tanh(), gn.Dense(3)], "Dense Tanh Dense"),
        ([gn.Dense(3), gn.Softmax()], "Dense Softmax"),
        ([gn.Dense(3), gn.ReLU()], "Dense ReLU Dense"),
        ([gn.BatchNorm], "BatchNorm Dense"),
        ([gn.Chain([gn.Dense(3), gn.ReLU()])], "Chain Dense"),
        ([gn.Chain([gn.Dense(4), gn.ReLU(), gn.Dense(3)])], "Chain"),
        (lambda outputs: [gn.Dense(4), gn.ReLU(), gn.Dense(outputs)], "Dense ReLU Dense"),
    ],
    ids=lambda value: "a function" if callable(value) else str(value),
)
def test_layers_are_given_in_every_way(layers: Any, kinds: str) -> None:
    fitted = Classifier(layers, epochs=1, **QUICK).fit(X, Y)
    assert " ".join(type(layer).__name__ for layer in fitted.model_.layers) == kinds
    assert fitted.predict_proba(X).shape == (150, 3)


def test_one_output_tells_two_classes_apart() -> None:
    two = Y != 2
    fitted = Classifier([gn.Dense(1)], learning_rate=0.1, **QUICK).fit(X[two], NAMES[two])
    shares = fitted.predict_proba(X[two])
    assert len(fitted.model_.layers) == 1
    assert shares.shape == (100, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert fitted.score(X[two], NAMES[two]) == 1


@pytest.mark.parametrize(
    ("layers", "kinds"),
    [([gn.Dense(1), gn.Softplus()], "Dense Softplus"), ([gn.Dense(8), gn.ReLU()], "Dense ReLU Dense")],
    ids=str,
)
def test_a_regressor_keeps_the_end_that_it_was_given(layers: Any, kinds: str) -> None:
    y = np.log1p(np.exp(2 * X[:, 0])) + 0.01
    fitted = Regressor(layers, epochs=80, learning_rate=0.05, **QUICK).fit(X, y)
    assert " ".join(type(layer).__name__ for layer in fitted.model_.layers) == kinds
    assert fitted.predict(X).min() > 0 or kinds.endswith("Dense")
    assert fitted.score(X, y) > 0.9


def test_large_targets_are_learned_as_well_as_small_ones() -> None:
    x, y = load_diabetes(return_X_y=True)
    x = x / x.std(axis=0)
    small, large = (Regressor(epochs=20, **QUICK).fit(x, y * scale) for scale in (0.01, 1e4))
    assert small.score(x, y * 0.01) > 0.5
    np.testing.assert_allclose(small.predict(x) * 1e6, large.predict(x), rtol=1e-6)
    both = Regressor(epochs=20, **QUICK).fit(x, np.stack([y, 3 - y], axis=1))
    assert both.predict(x).shape == (442, 2)
    assert both.score(x, np.stack([y, 3 - y], axis=1)) > 0.5
    assert both.predict(x).dtype == np.float64


def test_an_experiment_says_what_is_not_given(tmp_path: Path) -> None:
    (path := tmp_path / "own.toml").write_text(
        'layers = [{ type = "Dense", units = 9 }, { type = "Tanh" }, { type = "Dense", units = "outputs" }]\n'
        'optimizer = { type = "SGD", learning_rate = 0.125 }\nregularizer = { type = "L2", strength = 1.0 }\n'
        "[training]\nepochs = 2\nbatch_size = 16\n"
    )
    made = [read_experiment(str(path)), str(path), path]
    fitted = [Classifier(experiment=each, **QUICK).fit(X, Y) for each in made]
    first = fitted[0]
    assert first.model_.layers[0].units == 9
    assert first.n_iter_ == 2
    assert first.history_[-1].learning_rate == 0.125
    for other in fitted[1:]:
        np.testing.assert_array_equal(first.predict_proba(X), other.predict_proba(X))
    other = Classifier((4,), experiment=path, learning_rate=0.25, epochs=1, **QUICK).fit(X, Y)
    assert (other.model_.layers[0].units, other.n_iter_, other.history_[-1].learning_rate) == (4, 1, 0.25)
    assert Classifier(experiment="mlp", epochs=1, **QUICK).fit(X, Y).model_.layers[0].units == 256
    assert Regressor(experiment=path, **QUICK).fit(X, X[:, 0]).model_.layers[-1].units == 1


@pytest.mark.parametrize("optimizer", ["sgd", gn.SGD, gn.SGD(7.0), "Adam", gn.Adam, None], ids=str)
def test_a_learning_rate_is_that_of_any_optimizer(optimizer: Any) -> None:
    fitted = Classifier(optimizer=optimizer, learning_rate=0.125, epochs=1, **QUICK).fit(X, Y)
    assert fitted.history_[-1].learning_rate == 0.125


def test_a_search_goes_over_layers_optimizers_and_epochs() -> None:
    grid = {
        "classifier__layers": [(), (8,), [gn.Dense(8), gn.Tanh()]],
        "classifier__optimizer": [gn.SGD(1e-6), gn.Adam(0.05)],
        "classifier__epochs": [1, 15],
    }
    pipeline = make_pipeline(StandardScaler(), Classifier(**QUICK))
    steps = [("scaler", pipeline[0]), ("classifier", pipeline[1])]
    search = GridSearchCV(type(pipeline)(steps), grid, cv=3, error_score="raise").fit(X, NAMES)
    assert search.best_score_ > 0.9
    assert search.best_params_["classifier__epochs"] == 15
    assert repr(search.best_params_["classifier__optimizer"]) == "Adam(learning_rate=0.05)" or isinstance(
        search.best_params_["classifier__optimizer"], gn.Adam
    )


def test_a_clone_and_a_second_fit_begin_anew() -> None:
    layers = [gn.Dense(6), gn.BatchNorm(), gn.ReLU()]
    first = Classifier(layers, optimizer=gn.Adam(0.01), epochs=2, **QUICK)
    answers = first.fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(first.fit(X, Y).predict_proba(X), answers)
    other = clone(first)
    with pytest.raises(NotFittedError):
        other.predict(X)
    np.testing.assert_array_equal(other.fit(X, Y).predict_proba(X), answers)
    assert first.get_params()["layers"] is layers
    assert not any(layer.is_placed for layer in layers)


@pytest.mark.parametrize("made", [Classifier(epochs=2, **QUICK), Regressor(epochs=2, **QUICK)], ids=["c", "r"])
def test_copies_answer_to_the_same_bits_and_go_on_alike(made: Any) -> None:
    fitted = clone(made).fit(X, Y)
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    copies = [pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), joblib.load(file)]
    ask = "predict_proba" if hasattr(fitted, "predict_proba") else "predict"
    for other in copies:
        np.testing.assert_array_equal(getattr(other, ask)(X), getattr(fitted, ask)(X))
    fitted.partial_fit(X, Y)
    for other in copies:
        other.partial_fit(X, Y)
        np.testing.assert_array_equal(getattr(other, ask)(X), getattr(fitted, ask)(X))


def test_threads_of_joblib_find_the_same() -> None:
    made = Classifier((5,), epochs=2, **QUICK)
    with joblib.parallel_backend("threading"):
        together = cross_val_score(made, X, NAMES, cv=2, n_jobs=2)
    np.testing.assert_array_equal(together, cross_val_score(made, X, NAMES, cv=2))


def test_partial_fits_are_one_fit_in_parts(caplog: pytest.LogCaptureFixture) -> None:
    parts, whole = Classifier((5,), **QUICK), Classifier((5,), epochs=3, **QUICK)
    for _ in range(3):
        parts.partial_fit(X, NAMES, classes=np.unique(NAMES))
    np.testing.assert_array_equal(parts.predict_proba(X), whole.fit(X, NAMES).predict_proba(X))
    assert parts.n_iter_ == 3
    caplog.clear()
    parts.partial_fit(X[:20], NAMES[:20])  # of one class alone
    assert not caplog.messages
    numbers = Regressor((5,), **QUICK)
    for _ in range(3):
        numbers.partial_fit(X, X[:, 0])
    np.testing.assert_array_equal(numbers.predict(X), Regressor((5,), epochs=3, **QUICK).fit(X, X[:, 0]).predict(X))


def test_a_weight_of_two_is_two_samples_and_one_of_zero_is_none() -> None:
    x, y = np.concatenate([X, X[:30], X[60:90]]), np.concatenate([NAMES, NAMES[:30], NAMES[60:90]])
    weights = np.ones(150)
    weights[:30] = weights[60:90] = 2
    whole = {"batch_size": 10_000, "dtype": "float64", **QUICK}
    repeated, weighted = Classifier(**whole).fit(x, y), Classifier(**whole).fit(X, NAMES, weights)
    np.testing.assert_allclose(repeated.predict_proba(X), weighted.predict_proba(X), rtol=1e-9)
    weights[100:] = 0
    fitted = Classifier(epochs=1, **QUICK).fit(X, NAMES, weights)
    assert fitted.classes_.tolist() == ["setosa", "versicolor"]


def test_weights_of_classes_are_by_label() -> None:
    wrong = X + np.random.default_rng(0).normal(size=X.shape) * 3
    for label in ("setosa", "virginica"):
        fitted = Classifier(class_weight={label: 1000.0}, **QUICK).fit(wrong, NAMES)
        assert np.mean(fitted.predict(wrong) == label) > 0.8
    listed = Classifier(class_weight=[1000.0, 1.0, 1.0], **QUICK).fit(wrong, NAMES).predict(wrong)
    named = Classifier(class_weight={"setosa": 1000.0}, **QUICK).fit(wrong, NAMES).predict(wrong)
    np.testing.assert_array_equal(listed, named)
    # A fold may lack a class that has a weight.
    two = Y != 2
    Classifier(class_weight={"setosa": 2.0, "versicolor": 3.0, "virginica": 4.0}, epochs=1, **QUICK).fit(
        X[two], NAMES[two]
    )
    Classifier(class_weight="balanced", epochs=1, **QUICK).fit(X, NAMES)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_give_their_names(frame: Any) -> None:
    table = frame(dict(zip("abcd", X.T, strict=True)))
    fitted = Classifier(epochs=2, **QUICK).fit(table, NAMES.tolist())
    assert fitted.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(
        fitted.predict_proba(table), Classifier(epochs=2, **QUICK).fit(X, NAMES).predict_proba(X)
    )
    with pytest.raises(ValueError, match="order"):
        fitted.predict(table[["b", "a", "c", "d"]])


@pytest.mark.parametrize(
    "labels",
    [
        np.array([True, False, True]),
        np.array([-1, 7, 3]),
        np.array([0.0, 2.0, 4.0]),
        np.array(["", "\n", "a"]),
        np.array(["x" * 300, "y", "z"], object),
    ],
    ids=["bool", "numbers", "floats", "odd texts", "long"],
)
def test_labels_of_every_kind_come_back(labels: Any) -> None:
    y = labels[Y]
    fitted = Classifier(epochs=40, **QUICK).fit(X, y)
    answers = fitted.predict(X)
    assert answers.dtype == y.dtype
    assert np.mean(answers == y) > 0.9
    assert np.mean(answers == y) == fitted.score(X, y)
    fitted.partial_fit(X, y)


def test_the_precision_is_that_of_the_inputs() -> None:
    for given, dtype in ((X, "float64"), (X.astype(np.float32), "float32"), (np.round(X).astype(np.int64), "float64")):
        assert Classifier(epochs=1, **QUICK).fit(given, Y).model_.dtype == dtype
    assert Classifier(epochs=1, dtype="float32", **QUICK).fit(X, Y).model_.dtype == "float32"


def test_large_inputs_are_scaled_alike_in_every_call(caplog: pytest.LogCaptureFixture) -> None:
    fitted = Classifier(**QUICK).fit(X * 500, Y)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert fitted.score(X * 500, Y) > 0.9
    np.testing.assert_allclose(fitted.predict_proba(X[:1] * 500), fitted.predict_proba(X * 500)[:1], rtol=1e-6)
    fitted.predict(X * 1e6)  # far out: an answer, as every estimator gives one
    assert log_loss(Y, fitted.predict_proba(X * 500)) < 0.5


def test_a_fit_that_fails_leaves_no_older_network() -> None:
    fitted = Classifier(epochs=1, **QUICK).fit(X, Y)
    with pytest.raises(GpunnError):
        fitted.set_params(optimizer="nothing").fit(X, Y)
    with pytest.raises(NotFittedError):
        fitted.predict(X)


def test_batches_never_leave_one_sample_to_batchnorm() -> None:
    layers = [gn.Dense(4), gn.BatchNorm()]
    Classifier(layers, batch_size=32, epochs=1, **QUICK).fit(X[20:149], Y[20:149])  # 129 samples


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"layers": "relu"}, "list of layers"),
        ({"layers": [gn.Dense(3), 5]}, "layer"),
        ({"layers": (5.5,)}, "layer"),
        ({"layers": (0,)}, "units"),
        ({"optimizer": "sgdd"}, "SGD"),
        ({"experiment": 3}, "recipe"),
        ({"experiment": "nothing"}, "recipe"),
        ({"input_shape": (3, 3)}, "9 numbers"),
        ({"input_shape": "a"}, "input shape"),
        ({"class_weight": {"setsa": 2.0}}, "did you mean 'setosa'"),
        ({"class_weight": "balance"}, "balanced"),
        ({"patience": 3}, "validation"),
        ({"validation": 1.5}, "validation"),
        ({"device": "tpu"}, "device"),
        ({"dtype": "float16"}, "float64"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"loss": "mean"}, "loss"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_one_line(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(GpunnError, match=match) as caught:
        Classifier(**{**QUICK, **parameters}).fit(X, NAMES)
    one_line(caught.value)


def test_later_calls_of_partial_fit_are_checked() -> None:
    with pytest.raises(GpunnError, match="needs classes"):
        Classifier(**QUICK).partial_fit(X, NAMES)
    fitted = Classifier(**QUICK).partial_fit(X, NAMES, classes=np.unique(NAMES))
    with pytest.raises(GpunnError, match="'tulip'"):
        fitted.partial_fit(X[:1], ["tulip"])
    with pytest.raises(GpunnError, match="since the first call"):
        fitted.partial_fit(X, NAMES, classes=["a", "b"])
    with pytest.raises(GpunnError, match="balanced"):
        Classifier(class_weight="balanced", **QUICK).partial_fit(X, NAMES, classes=np.unique(NAMES))
    with pytest.raises(GpunnError, match="2 targets"):
        Regressor(**QUICK).partial_fit(X, X[:, :2]).partial_fit(X, X[:, 0])


def test_the_package_is_imported_without_scikit_learn_and_says_what_to_install() -> None:
    code = """
import sys, gpunn
assert "sklearn" not in sys.modules
sys.modules["sklearn"] = None
try:
    gpunn.sklearn
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'gpunn[sklearn]'" in said
