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
    assert names["history"].stopped.startswith("95 % are right")
