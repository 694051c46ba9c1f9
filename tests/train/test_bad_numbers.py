"""Numbers that are not finite: found within the step, blamed on the layer that was first, or their batch skipped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import calling, convolutional, images, outcome, stopped_after
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.backend.devices import select
from gpunn.errors import DivergenceError
from gpunn.nn.layers.base import Layer
from gpunn.saving.checkpointer import list_checkpoints
from gpunn.train.arguments import TrainOptions
from gpunn.train.monitor import FiniteCheck
from gpunn.train.record import Weights
from gpunn.train.trainer import Trainer

folder = pytest.fixture(autouse=True)(own_folder)
plain = pytest.fixture(without_pictures)


class Poison(Layer):
    """The identity, but that in some steps, counted from 1, a number becomes another, forward or in the gradient."""

    name_prefix = "poison"
    aliases_gradient = True

    def __init__(self, at: tuple[int, ...] = (), number: float = np.nan, back: bool = False) -> None:
        self.at, self.number, self.back = at, number, back

    def build(self, context: Any, input_shape: Any) -> Any:
        self._count, self._backend = context.count, context.backend
        return input_shape

    def _spoil(self, x: Any, is_turn: bool) -> Any:
        if is_turn and int(self._count[0]) + 1 in self.at:
            x.reshape(-1)[x.size // 2] = self.number
        return x

    def forward(self, x: Any, training: bool) -> Any:
        return self._spoil(x, training and not self.back)

    def backward(self, dy: Any) -> Any:
        return self._spoil(dy, self.back)


def trainer(*layers: Layer, data: gn.Data | None = None, **options: Any) -> Trainer:
    usual = {
        "batch_size": 16,
        "device": "cpu",
        "epochs": 4,
        "progress": False,
        "seed": 3,
        "optimizer": gn.SGD(0.1, 0.9),
    }
    return Trainer(gn.Sequential(layers), TrainOptions(**usual | options), data or images())


def diverged(training: Trainer) -> str:
    with pytest.raises(DivergenceError) as caught:
        training.run()
    assert all(np.isfinite(array).all() for array in training.model.arrays().values())
    return one_line(caught.value)


OPTIMIZERS: list[Callable[[], Any]] = [lambda: gn.SGD(0.1), lambda: gn.SGD(0.1, 0.9), lambda: gn.AdamW(0.01)]
IDS = ["folded", "momentum", "AdamW"]


# Found within the step


@pytest.mark.parametrize("make", OPTIMIZERS, ids=IDS)
@pytest.mark.parametrize("validation", [0.2, 0])
@pytest.mark.parametrize("step", [1, 2, 6, 9])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_cost_that_is_not_finite_ends_the_training_within_the_step(
    make: Any, validation: float, step: int, number: float
) -> None:
    layers = (gn.Dense(9), gn.Tanh(), Poison((step,), number), gn.Dense(3))
    training = trainer(*layers, data=images(validation=validation), optimizer=make())
    message = diverged(training)
    epoch = (step - 1) // training.step.steps_per_epoch + 1
    assert f"diverged in epoch {epoch}, step {step}: the loss is NaN or Inf" in message
    assert "first was the output of poison1, Poison(" in message


@pytest.mark.parametrize("make", OPTIMIZERS, ids=IDS)
@pytest.mark.parametrize("step", [1, 2, 6, 9])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_ends_the_training_within_the_step(make: Any, step: int, number: float) -> None:
    """Though the cost of the step is finite, and the next one may be too: tanh makes ±1 of ±infinity."""
    message = diverged(trainer(gn.Dense(9), Poison((step,), number, True), gn.Tanh(), gn.Dense(3), optimizer=make()))
    assert f"step {step}: the weights contain NaN or Inf" in message
    assert "first was the gradient by the input of poison1, Poison(" in message


def test_the_weights_of_the_last_good_record_are_kept() -> None:
    kept: dict[int, Any] = {}
    training = trainer(gn.Dense(9), gn.Tanh(), Poison((9,)), gn.Dense(3))

    def after_step() -> None:
        kept[training.done] = training.model.arrays()

    with pytest.raises(DivergenceError, match="the weights of step 8 are kept"), calling(training, after_step):
        training.run()
    np.testing.assert_equal(training.model.arrays(), kept[8])
    assert training.history[-1].step == 8


def test_inputs_that_are_not_finite_are_named() -> None:
    """Data are checked when they are made: memory, or a file that is mapped, may change afterwards."""
    data = gn.Data.from_arrays(np.ones((40, 4)), np.arange(40) % 2, validation=0)
    data.train.inputs[7, 1] = np.nan
    training = Trainer(gn.Sequential([gn.Dense(2)]), TrainOptions(batch_size=20, device="cpu", progress=False), data)
    assert "first was the batch" in diverged(training)


def test_an_update_that_overflows_is_named() -> None:
    training = trainer(gn.Dense(3), optimizer=gn.SGD(1e39, 0.5))
    assert "first was dense1.w after its update" in diverged(training)


def test_weights_that_were_bad_before_are_named() -> None:
    training = trainer(gn.Dense(9), gn.Tanh(), gn.Dense(3), optimizer=gn.SGD(0.1))
    training.model.parameters["dense2.b"].value[1] = np.inf
    training._rewind_point = Weights(0, training.model.arrays()), {}
    with pytest.raises(DivergenceError, match=r"first was dense2\.b, before the step"):
        training.run()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_numbers_are_finite_too(dtype: str) -> None:
    """Their sum may not be."""
    values = np.full(1000, np.finfo(dtype).max, dtype)
    check = FiniteCheck(select("cpu"), values, np.zeros(2))
    assert check.trouble() == ""
    for bad in (np.nan, np.inf, -np.inf):
        for at in (0, 499, 999):
            values[at] = bad
            assert check.trouble() != ""
            values[at] = 1.0


def test_a_training_that_only_grows_is_not_searched() -> None:
    message = diverged(trainer(gn.Dense(3), loss=gn.MeanSquaredError(), optimizer=gn.SGD(1.0)))
    assert "the loss has grown to" in message
    assert "first was" not in message


# Skipped


@pytest.mark.parametrize("make", OPTIMIZERS, ids=IDS)
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("steps", [(1,), (4,), (6,), (3, 4, 9)])
def test_a_step_that_is_skipped_leaves_no_trace_but_its_count(
    make: Any, backward: bool, steps: tuple[int, ...]
) -> None:
    layers = [gn.Dense(9), gn.BatchNorm(), Poison(steps, np.nan, backward), gn.Tanh(), gn.Dense(3)]
    training = trainer(*layers, optimizer=make(), skip_bad_batches=True)
    states = {0: training.state()}

    def after_step() -> None:
        states[training.done] = training.state()

    with calling(training, after_step):
        training.run()
    assert training.history.skipped == len(steps)
    for step in range(1, 25):
        before, after = states[step - 1], states[step]
        same = [np.array_equal(before.now.arrays[name], after.now.arrays[name]) for name in after.now.arrays]
        same += [np.array_equal(before.optimizer[name], after.optimizer[name]) for name in after.optimizer]
        assert all(same) if step in steps else not any(same), step
    assert np.isfinite([record.train_loss for record in training.history]).all()


def test_without_a_bad_batch_skipping_changes_nothing() -> None:
    runs = [trainer(*convolutional().layers, skip_bad_batches=skip) for skip in (False, True)]
    for training in runs:
        training.run()
    np.testing.assert_equal(runs[0].model.arrays(), runs[1].model.arrays())
    assert [r.train_loss for r in runs[0].history] == [r.train_loss for r in runs[1].history]
    assert runs[1].history.skipped == 0


def test_the_cost_is_the_mean_of_the_batches_that_were_not_skipped() -> None:
    """Of one batch more, that is, with the sums of the others."""
    training = trainer(gn.Dense(9), Poison((2,)), gn.Dense(3), skip_bad_batches=True, validate_every=3, epochs=1)
    costs = []

    def after_step() -> None:
        if training.done in (1, 2):
            costs.append(float(training.step.totals[0]))

    with calling(training, after_step):
        training.run()
    assert costs[0] == costs[1]
    first = training.history[0]
    assert first.train_accuracy * 32 == round(first.train_accuracy * 32)


def test_a_training_whose_batches_are_all_bad_ends() -> None:
    bad = tuple(range(4, 100))
    message = diverged(trainer(gn.Dense(9), Poison(bad), gn.Dense(3), skip_bad_batches=True))
    assert "every batch since step 3 had to be skipped" in message


def test_skipped_batches_are_counted_through_a_checkpoint() -> None:
    def make() -> Trainer:
        layers = (gn.Dense(9), gn.BatchNorm(), Poison((2, 8, 9)), gn.Tanh(), gn.Dense(3))
        return trainer(*layers, skip_bad_batches=True, validate_every=5)

    whole = make()
    whole.run()
    assert whole.history.skipped == 3
    for cut in (1, 2, 3, 8, 9, 10):
        again = make()
        again.restore(stopped_after(make(), cut))
        again.run()
        assert outcome(again) == outcome(whole)
        assert again.history.skipped == 3


# The program


def spoilt_data(path: Path) -> None:
    """Sums over the third feature of one sample overflow."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    x[137] = 3e38
    np.savez(path, x_train=x, y_train=np.arange(400) % 3, x_test=x[:50], y_test=np.arange(50) % 3)


TWO = """
name = "two"
[data]
validation = 0
[training]
epochs = 3
batch_size = 50
device = "cpu"
[[layers]]
type = "Dense"
units = 8
[[layers]]
type = "Tanh"
[[layers]]
type = "Dense"
units = "outputs"
[optimizer]
type = "Adam"
learning_rate = 0.01
"""


def test_a_run_with_a_bad_batch_ends_with_code_1_the_layer_and_its_checkpoints(folder: Path) -> None:
    spoilt_data(folder / "spoilt.npz")
    (folder / "two.toml").write_text(TWO.replace("Tanh", "ReLU"))
    done = gpunn("train", "spoilt.npz", "--recipe", "two.toml", "--out", "run", "--checkpoint-every", 1)
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert "the loss is NaN or Inf; first was the output of dense1, Dense(8)" in last
    assert "Traceback" not in done.err
    step = int(last.split("step ")[1].split(":")[0])
    at, newest = list_checkpoints(folder / "run" / "checkpoints")[0]
    assert at == step - 1
    for path in (folder / "run", newest):
        arrays = gn.load_model(path / "model.safetensors").arrays()
        assert all(np.isfinite(array).all() for array in arrays.values())
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert "dense1" in metrics["stopped"]
    assert metrics["finished"] is False


@pytest.mark.usefixtures("plain")
def test_a_run_that_ended_in_a_bad_batch_may_go_on_without_it(folder: Path) -> None:
    spoilt_data(folder / "spoilt.npz")
    (folder / "two.toml").write_text(TWO.replace("Tanh", "ReLU"))
    gpunn("train", "spoilt.npz", "--recipe", "two.toml", "--out", "run")
    assert gpunn("train", "--resume", "run").code == 1
    done = gpunn("train", "--resume", "run", "--skip-bad-batches")
    assert done.code == 0, done.err
    assert "skipped        3 batches that led to NaN or Inf" in done.out
    assert "1 batch led to NaN or Inf: skipped, 1 in all" in done.err
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert (metrics["skipped_batches"], metrics["finished"]) == (3, True)
