"""A package from outside with one part of each kind: it trains, is saved, loaded, killed, resumed, profiled, drawn."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from support import outside
from support.cli_helpers import WITHOUT_PICTURES, Done, gpunn, own_folder, results_of, start, without_pictures
from support.harness import one_line
from support.outside import Huber, Lion, Narrow, Scale, SmoothL1, Staircase, Standardize, Swish
from support.outside.layers import Near
from support.paths import ROOT

import gpunn as gn
from gpunn.config import custom_classes
from gpunn.data.formats.registry import READERS
from gpunn.errors import ShapeError
from gpunn.saving.checkpointer import list_checkpoints

folder = pytest.fixture(own_folder)
OWN = [Huber, Lion, Narrow, Near, Scale, SmoothL1, Staircase, Standardize, Swish]
ALLOW = ("--allow-import", "outsider")


def layers() -> list[gn.Layer]:
    return [gn.Dense(12, weights=Near(0.1)), Swish(1.5), Standardize(), Scale(), gn.Dense(3)]


def data(labels: bool = False) -> gn.Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, 3))).astype(np.float32)
    return gn.Data.from_arrays(x, y.argmax(axis=1) if labels else y)


def fitted(labels: bool = False, **options: Any) -> tuple[gn.Sequential, gn.History]:
    model = gn.Sequential(layers())
    given = {"loss": Narrow() if labels else Huber(), "optimizer": Lion(Staircase(0.02)), "regularizer": SmoothL1(0.5)}
    given |= {"epochs": 6, "batch_size": 16, "device": "cpu", "progress": False}
    return model, model.fit(data(labels), **given | options)


@pytest.mark.parametrize("labels", [False, True])
def test_parts_in_array_code_learn_and_stand_in_the_summary(labels: bool) -> None:
    model, history = fitted(labels)
    assert history[-1].validation_loss < 0.5 * history[0].validation_loss
    assert history[-1].penalty > 0
    if labels:
        assert history[-1].validation_accuracy > 0.8
        assert model.evaluate(data(True).train).accuracy > 0.9
    for words in ("Swish(beta=1.5)", "Standardize()", "Scale()", "Dense(units=12, weights=Near(0.1))"):
        assert words in model.summary()


def test_standardize_is_layer_norm() -> None:
    """The same layer, as kernels of gpunn."""
    both = []
    for kind in (Standardize, gn.LayerNorm):
        model = gn.Sequential([gn.Dense(12), kind(), gn.Dense(3)]).build((6,), 16, "cpu", "float64")
        values = {name.replace("standardize", "layernorm"): value for name, value in model.arrays().items()}
        model.parameters.load({p.name: np.cos(np.arange(p.size)).reshape(p.shape) for p in model.parameters})
        x = data().train.inputs[:16].astype(np.float64)
        loss = gn.MeanSquaredError()
        loss.forward(model.forward(x, training=True), data().train.targets[:16])
        model.backward(loss.backward())
        both.append({name: p.grad for name, p in zip(values, model.parameters, strict=True)})
    for name, gradient in both[0].items():
        np.testing.assert_allclose(gradient, both[1][name], rtol=1e-9, atol=1e-12)


def test_weights_of_samples_and_a_second_fit_go_on_as_with_bundled_parts() -> None:
    x, y = data().train.inputs, data().train.targets
    twice, once = (gn.Sequential([gn.Dense(3)]) for _ in range(2))
    given: dict[str, Any] = {"loss": Huber(), "epochs": 1, "device": "cpu", "progress": False}
    # One sample of weight 2 is as if it were there twice.
    weights = np.ones(len(x))
    weights[0] = 2
    both = np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]])
    twice.fit(gn.Data.from_arrays(*both, validation=0), batch_size=500, **given)
    once.fit(gn.Data.from_arrays(x, y, validation=0, sample_weight=weights), batch_size=500, **given)
    for name, value in once.arrays().items():
        np.testing.assert_allclose(value, twice.arrays()[name], rtol=1e-4, atol=1e-6)
    optimizer = Lion(0.01)
    parts, whole = (gn.Sequential(layers()) for _ in range(2))
    for _ in range(2):
        parts.fit(data(), optimizer=optimizer, batch_size=16, **given)
    whole.fit(data(), optimizer=Lion(0.01), batch_size=16, **given | {"epochs": 2})
    np.testing.assert_equal(parts.arrays(), whole.arrays())


@pytest.mark.parametrize("optimizer", [gn.SGD(0.05), gn.SGD(0.05, momentum=0.9), gn.Adam(0.01)], ids=repr)
def test_a_penalty_in_array_code_goes_with_every_optimizer(optimizer: gn.Optimizer) -> None:
    """L2 once more, in array code: also where SGD folds its update into the product."""

    class Squares(gn.Regularizer):
        def cost(self, weights: Any, n: float) -> float:
            return self.strength / (2 * n) * float((weights**2).sum())

        def gradient(self, xp: Any, weights: Any, n: float) -> Any:
            return self.strength / n * weights

    models = []
    for regularizer in (Squares(20.0), gn.L2(20.0), None):
        model = gn.Sequential([gn.Dense(5), gn.Tanh(), gn.Dense(3)])
        model.fit(data(), optimizer=optimizer, regularizer=regularizer, epochs=2, device="cpu", progress=False)
        models.append(model.arrays())
    for name, value in models[0].items():
        np.testing.assert_allclose(value, models[1][name], rtol=1e-3, atol=1e-5)
    assert not np.allclose(models[0]["dense1.w"], models[2]["dense1.w"], rtol=1e-2)


@pytest.mark.parametrize(
    ("forward", "backward", "word"),
    [
        (lambda x: x * np.ones(x.shape), lambda dy: dy, "forward must return .* got .* of float64: give arrays"),
        (lambda x: x, lambda dy: dy * np.float64(1) * np.ones(1), "backward must return .*float64"),
        (lambda x: x.T, lambda dy: dy, r"forward must return an array \(\.\.\., 16\)"),
        (lambda x: x.sum(axis=0), lambda dy: dy, "forward must return"),
        (lambda x: None, lambda dy: dy, "forward must return .* got NoneType"),
        (lambda x: x.tolist(), lambda dy: dy, "forward must return .* got list"),
    ],
    ids=["float64", "gradient", "turned", "summed", "None", "list"],
)
def test_what_no_pass_may_return_is_said_by_the_name_of_the_layer(forward: Any, backward: Any, word: str) -> None:
    class Odd(gn.Layer):
        def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            return input_shape

        def forward(self, x: Any, training: bool) -> Any:
            return forward(x)

        def backward(self, dy: Any) -> Any:
            return backward(dy)

    model = gn.Sequential([gn.Dense(12), Odd(), gn.Dense(3)])
    with pytest.raises(ShapeError, match=f"odd1: {word}") as caught:
        model.fit(data(), batch_size=16, epochs=1, device="cpu", progress=False)
    one_line(caught.value)


LOADING = """
import sys
import numpy as np
import gpunn as gn
import outsider
from outsider.layers import Near
model = gn.load_model("own.safetensors", "cpu", custom=[*(getattr(outsider, name) for name in outsider.__all__), Near])
np.save("answers.npy", model.predict(np.load("x.npy")))
assert type(model.loss) is outsider.Huber and type(model.layers[2]) is outsider.Standardize
assert "outsider" in model.layers[2].__module__
"""


@pytest.fixture
def outsider(folder: Path) -> Iterator[Path]:
    """The package, copied beside the data of a user."""
    shutil.copytree(Path(outside.__file__).parent, folder / "outsider", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "outsider" / "__init__.py"
    init.write_text(f"{init.read_text()}\nfrom . import points\n")
    before = dict(READERS)
    yield folder
    READERS.clear()
    READERS.update(before)
    for name in [name for name in sys.modules if name.partition(".")[0] == "outsider"]:
        del sys.modules[name]


def test_a_network_is_saved_and_loaded_in_a_fresh_process(outsider: Path) -> None:
    model, _ = fitted()
    with custom_classes(OWN):
        model.save("own.safetensors")
    text = (outsider / "own.safetensors").read_bytes()
    assert b"support.outside.layers:Standardize" in text
    x = data().train.inputs
    np.save("x.npy", x)
    (outsider / "loading.py").write_text(LOADING)
    done = subprocess.run(
        [sys.executable, "loading.py"], cwd=outsider, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("answers.npy"), model.predict(x))


def experiment(module: str = "outsider", source: str = "some.points", **training: Any) -> str:
    tables = {
        "name": "own",
        "data": {"source": source},
        "training": {"epochs": 8, "batch_size": 16, "device": "cpu"} | training,
        "layers": [
            *([{"type": "Flatten"}] if source == "digits" else []),
            {"type": "Dense", "units": 12, "weights": {"type": f"{module}.layers:Near", "center": 0.1}},
            {"type": f"{module}:Swish", "beta": 1.5},
            {"type": f"{module}:Standardize"},
            {"type": f"{module}:Scale"},
            {"type": "Dense", "units": "outputs"},
        ],
        "loss": {"type": f"{module}:Narrow"},
        "optimizer": {"type": f"{module}:Lion", "learning_rate": {"type": f"{module}:Staircase", "rate": 0.02}},
        "regularizer": {"type": f"{module}:SmoothL1", "strength": 0.5},
        "checkpoints": {"every": 20, "keep": 9},
    }
    return tomli_w.dumps(tables)


@pytest.fixture
def run(outsider: Path) -> Path:
    """What a user has who trains on a file of their own format: it, and an experiment of parts of their own."""
    train = data(labels=True).train
    rows = zip(train.targets, train.inputs, strict=True)
    (outsider / "some.points").write_text("\n".join(f"{label}: {' '.join(map(str, row))}" for label, row in rows))
    (outsider / "own.toml").write_text(experiment())
    return outsider


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of the program in processes of their own, the first of which is killed."""
    without_pictures(monkeypatch)
    command = ("train", "--recipe", "own.toml", "--out", "killed", "--epochs", 12, *ALLOW)
    with start(*command, cwd=run, program=WITHOUT_PICTURES) as process:
        until = time.monotonic() + 60
        while not list_checkpoints(run / "killed" / "checkpoints") and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert not (run / "killed" / "metrics.json").exists()
    whole = gpunn("train", "--recipe", "own.toml", "--out", "whole", "--epochs", 12, *ALLOW)
    assert whole.code == 0, whole.err
    with start("train", "--resume", "killed", *ALLOW, cwd=run, program=WITHOUT_PICTURES) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert results_of(run / "killed") == results_of(run / "whole")


def test_a_run_is_evaluated_predicted_from_drawn_and_searched_for_a_rate(run: Path) -> None:
    def ok(*words: object) -> Done:
        done = gpunn(*words, *ALLOW)
        assert done.code == 0, done.err
        return done

    ok("train", "--recipe", "own.toml", "--out", "run")
    for name in ("curves.png", "confusion.png"):
        assert (run / "run" / name).stat().st_size > 1000
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    assert metrics["validation_accuracy"] > 0.9
    with (run / "run" / "history.csv").open() as file:
        assert float(list(csv.DictReader(file))[-1]["penalty"]) > 0
    assert "all samples (270)" in ok("evaluate", "run", "some.points").out
    assert len(ok("predict", "run", "some.points").out.splitlines()) == 270
    assert "learning rate" in ok("lr-find", "--recipe", "own.toml", "--out", "rates.png").out
    assert (run / "rates.png").is_file()
