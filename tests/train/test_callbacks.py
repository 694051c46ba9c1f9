"""Callbacks: what is called when, what they may look at, and how they end a training."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.checkpoint_helpers import adam, images, momentum, outcome, trainer
from support.harness import one_line
from support.paths import ROOT

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DivergenceError, OptionError

HOOKS = ("on_train_begin", "on_steps", "on_record", "on_epoch_end", "on_train_end")


def calling(function: Callable[..., object], *hooks: str, every_steps: int | None = None) -> gn.Callback:
    """A callback that calls a function with the name of its hook and the training."""

    def method(hook: str) -> Callable[..., None]:
        return lambda self, *given: function(hook, *given) and None

    made = {hook: method(hook) for hook in hooks or HOOKS}
    return cast(gn.Callback, type("Calling", (gn.Callback,), {**made, "every_steps": every_steps})())


class Looking(gn.Callback):
    """Looks at everything, by every way there is."""

    def __init__(self, folder: Path, every_steps: int | None = None) -> None:
        self.folder, self.every_steps, self.looks = folder, every_steps, 0

    def on_train_begin(self, training: gn.TrainingView) -> None:
        self._look(training)

    def on_steps(self, training: gn.TrainingView) -> None:
        self._look(training)

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        assert record is training.record is training.history[-1]
        assert (record.step, record.epoch) == (training.step, training.epoch)
        self._look(training)

    def on_epoch_end(self, training: gn.TrainingView) -> None:
        assert training.epoch % 1 == 0
        self._look(training)

    def on_train_end(self, training: gn.TrainingView) -> None:
        self._look(training)

    def _look(self, training: gn.TrainingView) -> None:
        self.looks += 1
        model, samples = training.model, training.data.train
        assert isinstance(model, gn.Sequential)
        model.evaluate(samples)
        model.predict(samples.inputs)
        model.summary()
        model.save(self.folder / "look.safetensors")
        copy.deepcopy(model)
        assert model.parameters.values.size
        assert training.trainer.state().now.step == training.step  # type: ignore[attr-defined]
        assert f"step {training.step} of 24" in repr(training)


@pytest.mark.parametrize("every_steps", [None, 5])
@pytest.mark.parametrize("make", [momentum, adam])
def test_a_callback_that_only_looks_leaves_the_bits_as_they_are(
    backend: Backend, make: Callable[..., Any], every_steps: int | None, tmp_path: Path
) -> None:
    alone, looking = make(device=backend), Looking(tmp_path, every_steps)
    alone.run()
    watched = make(device=backend, callbacks=[looking])
    watched.run()
    assert looking.looks > 8
    assert outcome(watched) == outcome(alone)


def test_hooks_are_called_in_an_order_that_is_promised() -> None:
    seen: list[tuple[str, int]] = []
    callback = calling(lambda hook, training, *given: seen.append((hook, training.step)), every_steps=4)
    training = momentum(epochs=2, validate_every=6, callbacks=[callback])
    training.run()
    assert seen == [
        ("on_train_begin", 0),
        ("on_steps", 4),
        ("on_record", 6),
        ("on_epoch_end", 6),
        ("on_steps", 8),
        ("on_record", 12),
        ("on_epoch_end", 12),
        ("on_steps", 12),
        ("on_train_end", 12),
    ]


class Named(gn.Callback):
    """Notes its name and each hook that is called."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    def on_train_begin(self, training: gn.TrainingView) -> None:
        self.seen.append(f"{self.name} begins at {training.step}")

    def on_steps(self, training: gn.TrainingView) -> None:
        self.seen.append(f"{self.name} step {training.step}")


def test_the_order_is_that_of_the_list_after_what_gpunn_judges_and_before_what_it_writes(tmp_path: Path) -> None:
    seen: list[str] = []

    class Noted(gn.Checkpointer):
        def on_train_begin(self, training: gn.TrainingView) -> None:
            super().on_train_begin(training)
            seen.append(f"checkpoint {self.step}")

        def save(self) -> None:
            super().save()
            seen.append(f"checkpoint {self.step}")

    class Stopping(gn.EarlyStopping):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            super().on_record(training, record)
            seen.append("judged")

    class Recorded(Named):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            seen.append(f"{self.name} record")

    listed = [Recorded("first", seen), Noted(tmp_path, every=1), Stopping(9), Recorded("second", seen)]
    momentum(epochs=1, validate_every=6, batch_size=88, callbacks=listed).run()
    assert seen == [
        "checkpoint 0", "checkpoint 0", "first begins at 0", "second begins at 0",
        "judged", "first record", "second record", "first step 1", "second step 1", "checkpoint 1",
    ]  # fmt: skip


def test_without_every_steps_a_cpu_calls_after_each_step() -> None:
    seen: list[int] = []
    momentum(epochs=2, callbacks=[calling(lambda hook, training: seen.append(training.step), "on_steps")]).run()
    assert seen == list(range(1, 13))


def test_what_a_callback_is_told_of_the_training() -> None:
    seen: dict[str, Any] = {}

    def look(hook: str, training: gn.TrainingView) -> None:
        assert training.record is None
        for name in ("step", "steps", "epoch", "epochs", "batch_size", "device"):
            seen[name] = getattr(training, name)

    data, model = images(), gn.Sequential([gn.Flatten(), gn.Dense(3)])
    model.fit(data, epochs=4, batch_size=16, device="cpu", progress=False, callbacks=[calling(look, "on_train_begin")])
    assert seen == {"step": 0, "steps": 24, "epoch": 0.0, "epochs": 4, "batch_size": 16, "device": "cpu"}


class Report(gn.Callback):
    """Notes what a logger wants."""

    def __init__(self, failing: int = 0) -> None:
        self.begun: list[Any] = []
        self.records: list[dict[str, Any]] = []
        self.failing = failing

    def on_train_begin(self, training: gn.TrainingView) -> None:
        self.begun.append((training.folder, training.resumed_from, training.learning_rate))

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        assert training.learning_rate == record.learning_rate
        self.records.append({"weights": training.weights(), "gradients": training.gradients()})
        if record.step == self.failing:
            raise RuntimeError("cut off")


def test_a_logger_sees_weights_gradients_rate_folder_and_resume(backend: Backend, tmp_path: Path) -> None:
    alone = adam(device=backend)
    alone.run()
    failing, report = Report(failing=10), Report()
    with pytest.raises(RuntimeError):
        adam(device=backend, callbacks=[failing, gn.Checkpointer(tmp_path, every=3)]).run()
    watched = adam(device=backend, callbacks=[report, gn.Checkpointer(tmp_path, resume=True)])
    watched.run()
    assert outcome(watched) == outcome(alone)
    (folder, step, rate), (again, resumed, _) = failing.begun + report.begun
    assert (folder, step, again) == (tmp_path, None, tmp_path)
    assert 3 <= resumed <= 9
    assert rate == pytest.approx(0.01 / 9)
    last = report.records[-1]
    assert list(last["weights"]) == list(last["gradients"]) == [p.name for p in watched.model.parameters]
    for name, weights in last["weights"].items():
        assert weights.shape == last["gradients"][name].shape
        np.testing.assert_array_equal(weights, watched.monitor.last.arrays[name])


def test_without_checkpoints_there_is_no_folder() -> None:
    report = Report()
    momentum(epochs=1, callbacks=[report]).run()
    assert report.begun[0][:2] == (None, None)


@pytest.mark.parametrize("weights", [None, "some"])
def test_gradients_are_those_of_the_loss_on_samples_spread_over_all(weights: str | None) -> None:
    """By differences of the loss, without what is drawn at random or folded into an update."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    weight = None if weights is None else np.arange(40) % 3 / 2.0
    samples = gn.Samples(x, x[:, :2] @ np.eye(2) + 1, weights=weight)
    seen: dict[str, Any] = {}

    class Once(gn.Callback):
        every_steps = 5

        def on_steps(self, training: gn.TrainingView) -> None:
            if seen:
                return
            model = copy.deepcopy(training.model)
            counting = np.arange(40) if weight is None else np.flatnonzero(weight)
            some = samples.subset(counting[np.linspace(0, len(counting) - 1, 8).astype(int)])
            value = model.parameters["dense2.w"].value
            seen["gradient"], losses = training.gradients()["dense2.w"][0, 1], []
            for change in (1e-5, -1e-5):
                value[0, 1] += change
                losses.append(model.evaluate(some).loss)  # type: ignore[attr-defined]
                value[0, 1] -= change
            seen["difference"] = (losses[0] - losses[1]) / 2e-5

    model = gn.Sequential([gn.Dense(4), gn.Tanh(), gn.Dense(2)])
    data = gn.Data("a", samples, None, ())
    options: dict[str, Any] = {"loss": gn.MeanSquaredError(), "dtype": "float64", "regularizer": gn.L2(0.1)}
    model.fit(data, batch_size=8, epochs=2, device="cpu", progress=False, callbacks=[Once()], **options)
    np.testing.assert_allclose(seen["gradient"], seen["difference"], rtol=1e-6)


# Ends


@pytest.mark.parametrize("hook", HOOKS[:4])
def test_stop_training_ends_it_well(hook: str) -> None:
    later: list[str] = []

    def stop(hook: str, training: gn.TrainingView, *given: object) -> None:
        raise gn.StopTraining("enough is learned")

    others = calling(lambda hook, *given: later.append(hook))
    training = momentum(callbacks=[calling(stop, hook), others])
    history = training.run()
    assert history.stopped == "enough is learned"
    assert training.done == {"on_train_begin": 0, "on_steps": 1, "on_record": 2, "on_epoch_end": 6}[hook]
    assert later[-1] == "on_train_end"
    assert hook in later  # the others are called once more
    assert training.model.steps_trained == training.done  # the weights stay as they are


def test_after_stop_training_patience_puts_the_best_weights_back() -> None:
    def stop(hook: str, training: gn.TrainingView) -> None:
        if training.step == 20:
            raise gn.StopTraining

    training = adam(callbacks=[calling(stop, "on_steps")], recompute_statistics=False)
    history = training.run()
    assert history.stopped == "Calling asked for it"
    assert training.monitor.best is not None
    for name, array in training.model.arrays().items():
        np.testing.assert_array_equal(array, training.monitor.best.arrays[name])


def test_stop_training_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(hook: str, training: gn.TrainingView) -> None:
        training.say("a line of one's own")
        raise gn.StopTraining("two epochs are enough")

    momentum(progress=True, callbacks=[calling(stop, "on_epoch_end")]).run()
    err = capsys.readouterr().err
    assert "a line of one's own\n" in err
    assert "stopped: two epochs are enough\n" in err


@pytest.mark.parametrize("hook", HOOKS[:4])
def test_any_other_exception_leaves_the_weights_of_the_last_record(hook: str) -> None:
    ended: list[str] = []

    def fail(hook: str, training: gn.TrainingView, *given: object) -> None:
        if hook in ("on_train_begin", "on_record") or training.step >= 4:
            raise ValueError("no such run")

    training = momentum(callbacks=[calling(ended.append, "on_train_end"), calling(fail, hook)])
    with pytest.raises(ValueError, match="no such run"):
        training.run()
    assert training.history.stopped == "ValueError: no such run"
    assert not ended
    last = training.monitor.last
    assert last.step == {"on_train_begin": 0, "on_steps": 3, "on_record": 2, "on_epoch_end": 6}[hook]
    for name, array in training.model.arrays().items():
        np.testing.assert_array_equal(array, last.arrays[name])
    assert training.model.steps_trained == last.step
    training.model.fit(images(), device="cpu", epochs=1, progress=False)  # it can be trained on


def test_memory_that_a_callback_runs_out_of_is_not_said_to_be_that_of_the_training() -> None:
    def fail(hook: str, training: gn.TrainingView) -> None:
        raise MemoryError("of one's own")

    with pytest.raises(MemoryError, match=r"^of one's own$"):
        momentum(callbacks=[calling(fail, "on_epoch_end")]).run()


def test_a_divergence_that_a_callback_finds_leaves_the_last_good_weights() -> None:
    def spoil(hook: str, training: Any) -> None:
        if training.step == 9:
            value = training.model.parameters["dense1.w"].value
            value[...] = np.inf
            training.trainer.check_numbers()

    # Without validation samples the last record does not yet show that its weights are good.
    training = momentum(data=images(validation=0), callbacks=[calling(spoil, "on_steps")])
    with pytest.raises(DivergenceError):
        training.run()
    assert training.kept == training.monitor.good.step < training.monitor.last.step
    assert training.history.stopped.startswith("the weights contain NaN or Inf")


def test_a_callback_trains_a_copy_of_the_network_and_not_the_network() -> None:
    def train(hook: str, training: Any) -> None:
        copy.deepcopy(training.model).fit(images(), device="cpu", epochs=1, progress=False)
        with pytest.raises(OptionError, match=r"copy\.deepcopy") as caught:
            training.model.fit(images(), device="cpu", epochs=1, progress=False)
        one_line(caught.value)

    alone, training = momentum(), momentum(callbacks=[calling(train, "on_epoch_end")])
    alone.run()
    training.run()
    assert outcome(training) == outcome(alone)


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        (gn.Callback(), r"must be a list of callbacks, \[Callback\(\)\], say"),
        (None, "must be a list of callbacks"),
        ([gn.Callback], r"make one of the class, Callback\(\)"),
        ([print], "subclass gn.Callback"),
        ([calling(print, every_steps=0)], "every_steps of Calling must be a whole number of at least 1, got 0"),
        ([calling(print, every_steps=2.5)], "every_steps of Calling"),  # type: ignore[arg-type]
    ],
)
def test_callbacks_that_cannot_be_are_refused_in_one_line(callbacks: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        trainer(callbacks=callbacks)
    one_line(caught.value)


# The page


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "callbacks.md").read_text("utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert "fit(" in code
    names: dict[str, Any] = {}
    exec(compile(code.replace("epochs=", 'progress=False, device="cpu", epochs='), "page", "exec"), names)
    assert names["history"].stopped.startswith("validation accuracy has reached")
