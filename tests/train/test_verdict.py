"""Verdicts on trainings: what has diverged, what has learned nothing, and what is advised then."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import gpunn, own_folder, without_pictures

import gpunn as gn
from gpunn.errors import DivergenceError
from gpunn.saving.checkpointer import list_checkpoints
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

folder = pytest.fixture(autouse=True)(own_folder)
plain = pytest.fixture(autouse=True)(without_pictures)
KW: Any = {"progress": False, "device": "cpu"}


def regression(outlier: float = 0.0, where: str = "validation", samples: int = 400) -> gn.Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 3)).astype(np.float32)
    y = (x @ np.array([[1.0], [-2.0], [0.5]])).astype(np.float32)
    data = gn.Data.from_arrays(x, y, validation=0.1)
    {"validation": data.validation, "train": data.train}[where].targets[7] += outlier  # type: ignore[union-attr]
    return data


# What has diverged


@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6])
def test_an_outlier_among_the_validation_targets_is_no_divergence(outlier: float) -> None:
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(1)])
    history = model.fit(regression(outlier), loss=gn.MeanSquaredError(), optimizer=gn.SGD(0.02), epochs=5, **KW)
    assert history[-1].epoch == 5
    assert history[-1].train_loss < history[0].train_loss / 2


def test_an_outlier_among_the_validation_inputs_is_no_divergence() -> None:
    data = regression()
    data.validation.inputs[3] = 1e4  # type: ignore[union-attr, index]
    data.validation.targets[3] = -1e6  # type: ignore[union-attr]
    model = gn.Sequential([gn.Dense(1)])
    history = model.fit(data, loss=gn.MeanSquaredError(), optimizer=gn.SGD(0.02), epochs=5, **KW)
    assert history[-1].train_loss < history[0].train_loss / 2


@pytest.mark.parametrize("every", [1, None])
def test_an_outlier_among_the_training_targets_is_no_divergence_by_itself(every: int | None) -> None:
    x = np.random.default_rng(0).normal(size=(400, 3))
    y = x[:, :1].copy()
    y[333] = 300.0
    model = gn.Sequential([gn.Dense(1)])
    options = {"loss": gn.MeanSquaredError(), "optimizer": gn.SGD(1e-4), "batch_size": 10, "validate_every": every}
    history = model.fit(gn.Data.from_arrays(x, y, validation=0), epochs=3, **options, **KW)
    assert history[-1].epoch == 3


def test_looking_into_a_suspicion_changes_no_bit() -> None:
    def trained(outlier: float) -> dict[str, Any]:
        layers = [gn.Dense(8), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.2), gn.Dense(1)]
        model = gn.Sequential(layers)
        data = regression(outlier)
        model.fit(data, loss=gn.MeanSquaredError(), optimizer=gn.SGD(0.02, 0.9), epochs=3, batch_size=32, **KW)
        return model.arrays()

    np.testing.assert_equal(trained(1e5), trained(0.0))


@pytest.mark.parametrize("outlier", [0.0, 1e4])
@pytest.mark.parametrize("rate", [0.9, 10.0, 1e4])
def test_what_really_diverges_is_found_out_with_an_outlier_too(rate: float, outlier: float) -> None:
    model = gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(8), gn.Dense(1)])
    with pytest.raises(DivergenceError, match=f"Try a learning rate below {rate:g}, such as {rate / 2:g}"):
        model.fit(regression(outlier), loss=gn.MeanSquaredError(), optimizer=gn.SGD(rate, 0.9), epochs=20, **KW)


# What is advised


@pytest.mark.parametrize(
    "schedule", [gn.OneCycle(1e6), gn.Cosine(1e6), gn.StepDecay(1e6, every=0.1), gn.Constant(1e6), 1e6]
)
def test_the_advice_is_half_of_what_was_set_and_no_momentary_rate(schedule: Any) -> None:
    model = gn.Sequential([gn.Dense(8), gn.Dense(1)])
    with pytest.raises(DivergenceError, match=r"below 1e\+06, such as 500000") as caught:
        model.fit(regression(), loss=gn.MeanSquaredError(), optimizer=gn.SGD(schedule), epochs=20, **KW)
    assert caught.value.learning_rate == 5e5


# What has learned nothing


def verdict(data: gn.Data, *layers: Any, rate: float = 0.1, epochs: int = 3, **options: Any) -> str:
    trainer = Trainer(gn.Sequential(layers), TrainOptions(optimizer=gn.SGD(rate), epochs=epochs, **options, **KW), data)
    trainer.train()
    return trainer.verdict()


def test_a_run_that_ends_at_chance_says_so_with_two_causes() -> None:
    dead = gn.Dense(32, bias=-1000.0)  # as a rate that is too high leaves a layer
    said = verdict(gn.load_data("digits"), dead, gn.ReLU(), gn.Dense(10))
    assert "no better than chance on the validation samples: accuracy" in said
    assert "the commonest class gives 1" in said
    assert "a learning rate" in said
    assert "inputs" in said


def test_a_run_that_learns_says_nothing() -> None:
    assert verdict(gn.load_data("digits"), gn.Dense(10)) == ""
    assert verdict(regression(), gn.Dense(1), loss=gn.MeanSquaredError()) == ""


def test_labels_that_mean_nothing_are_no_fault_of_the_learning_rate() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 50)), rng.integers(0, 2, 200)
    said = verdict(
        gn.Data.from_arrays(x, y, validation=0.5), gn.Dense(64), gn.ReLU(), gn.Dense(2), epochs=60, batch_size=50
    )
    assert "targets that do not depend on the inputs" in said


@pytest.mark.parametrize("loss", [gn.BinaryCrossEntropy, gn.MeanSquaredError])
def test_one_output_for_two_classes_is_compared_with_one_constant(loss: Any) -> None:
    x = np.random.default_rng(0).normal(size=(200, 5))
    data = gn.Data.from_arrays(x, (x[:, 0] > 0).astype(int), validation=0.5)
    dead = gn.Dense(8, bias=-1000.0)
    assert "no better than chance" in verdict(
        data, dead, gn.ReLU(), gn.Dense(1), gn.Sigmoid(), loss=loss(), batch_size=20
    )
    assert verdict(data, gn.Dense(1), gn.Sigmoid(), loss=loss(), rate=0.3, epochs=20, batch_size=20) == ""


def test_a_regression_that_is_no_better_than_the_mean_says_so() -> None:
    said = verdict(regression(), gn.Dense(1), loss=gn.MeanSquaredError(), rate=1e-9)
    assert "always answering the mean of the targets gives" in said


def test_a_rare_class_that_is_told_apart_by_its_probability_is_something() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.05).astype(int)
    x = rng.normal(size=(2000, 1)) + 1.5 * y[:, None]
    assert verdict(gn.Data.from_arrays(x, y), gn.Dense(2), epochs=20) == ""


def test_the_program_says_at_exit_0_that_nothing_was_learned() -> None:
    done = gpunn("train", "--recipe", "tiny.toml", "--learning-rate", 1e-9, "--out", "run")
    assert done.code == 0
    assert done.out.count("no better than chance") == 1
    assert "no better than chance" not in gpunn("train", "--epochs", 3, "--device", "cpu", "--out", "good").out


# Going on at another rate


def diverge(*options: object) -> None:
    done = gpunn("train", "--recipe", "tiny.toml", "--epochs", 30, "--learning-rate", 1e30, "--out", "run", *options)
    assert done.code == 1
    assert "gpunn train --resume run --learning-rate 5e+29 goes on from the last good one" in done.out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert any(step <= metrics["kept_step"] for step, _ in list_checkpoints(Path("run/checkpoints")))


def test_a_run_that_diverged_goes_on_at_another_rate_and_its_experiment_says_so() -> None:
    diverge("--checkpoint-every", 1, "--checkpoint-keep", 1)
    done = gpunn("train", "--resume", "run", "--learning-rate", 0.1)
    assert done.code == 0, done.err
    written = Path("run/experiment.toml").read_text()
    assert 'type = "Changed"' in written
    assert "before = 1e+30" in written
    assert "after = 0.1" in written
    assert json.loads(Path("run/metrics.json").read_text())["test_accuracy"] > 0.5
    # It is a function of its experiment all the same, and a run like any other.
    assert gpunn("train", "--recipe", "run/experiment.toml", "--out", "again").code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    assert gpunn("train", "--resume", "run", "--epochs", 31).code == 0
    assert gpunn("train", "--resume", "run", "--epochs", 32, "--learning-rate", 0.2).code == 2


def test_what_was_killed_after_the_rate_was_changed_goes_on_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    diverge()
    with monkeypatch.context() as patch:
        patch.setattr("gpunn.experiments.run._RunCheckpointer", lambda *_: 1 / 0)
        assert gpunn("train", "--resume", "run", "--learning-rate", 0.1).code == 1
    assert gpunn("train", "--resume", "run").code == 0
    assert "after = 0.1" in Path("run/experiment.toml").read_text()


def test_only_a_run_that_diverged_may_change_its_rate() -> None:
    gpunn("train", "--recipe", "tiny.toml", "--out", "run")
    done = gpunn("train", "--resume", "run", "--epochs", 3, "--learning-rate", 0.2)
    assert done.code == 2
    assert "--learning-rate cannot be given with --resume" in done.err
