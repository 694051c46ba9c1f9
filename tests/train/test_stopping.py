"""Early stopping, the detector of overfitting and the progress as callbacks, beside the arguments of `fit`."""

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import adam, images, momentum, outcome, trainer
from support.harness import one_line

import gpunn as gn
from gpunn.errors import OptionError
from gpunn.train.stopping import BestWeights

LOSSES = [1.0, 0.8, 0.9, 0.79, 0.85, 0.7, 0.95]


class Seen:
    """A training that a callback is shown, of records made by hand."""

    def __init__(self) -> None:
        self.history, self.monitor, self.trainer = gn.History(), self, self
        self.last: object = None
        self.best: object = None
        self.restores_best = False


def record(number: int, **figures: float) -> gn.Record:
    usual = {"train_loss": 0.5, "train_accuracy": 0.5, "validation_loss": 0.5, "validation_accuracy": 0.5}
    return gn.Record(number, number / 2, **usual | figures, learning_rate=0.1, seconds=1.0)


def stopped_at(stopping: gn.EarlyStopping, name: str, values: list[float]) -> tuple[int, int]:
    """The records at which a training of these figures is stopped, and which is its best; 0 for never."""
    seen: Any = Seen()
    stopping.on_train_begin(seen)
    for number, value in enumerate(values, start=1):
        seen.last = number
        try:
            stopping.on_record(seen, record(number, **{name: value}))
        except gn.StopTraining:
            return number, seen.best
    return 0, seen.best


@pytest.mark.parametrize(
    ("patience", "options", "values", "expected"),
    [
        (1.0, {}, LOSSES, (0, 6)),  # two records an epoch: 0.9 and 0.85 are each one record after a better one
        (0.5, {}, LOSSES, (3, 2)),
        (1.0, {"min_delta": 0.02}, LOSSES, (4, 2)),  # 0.79 is not better by so much
        (1.0, {"min_delta": 0.005}, LOSSES, (0, 6)),
        (1.0, {"mode": "max"}, LOSSES, (3, 1)),
        (1.0, {"monitor": "validation_accuracy"}, [0.5, 0.7, 0.6, 0.6], (4, 2)),
        (1.0, {"monitor": "validation_accuracy", "mode": "min"}, [0.5, 0.7, 0.6, 0.6], (3, 1)),
        (1.0, {"monitor": "train_loss"}, [1.0, 1.0, 1.0], (3, 1)),
        (1.0, {}, [1.0, math.inf, 0.5], (0, 3)),
    ],
)
def test_a_training_stops_once_its_figure_is_no_better_for_so_long(
    patience: float, options: dict[str, Any], values: list[float], expected: tuple[int, int]
) -> None:
    name = options.get("monitor", "validation_loss")
    assert stopped_at(gn.EarlyStopping(patience, **options), name, values) == expected


@pytest.mark.parametrize("done", range(5))
def test_a_training_that_goes_on_stops_where_it_would_have_stopped(done: int) -> None:
    losses = [1.0, 0.5, 0.8, 0.9, 0.7, 0.6]
    seen: Any = Seen()
    seen.history = gn.History(record(n, validation_loss=loss) for n, loss in enumerate(losses[:done], start=1))
    stopping = gn.EarlyStopping(2.0)
    stopping.on_train_begin(seen)
    for number in range(done + 1, 6):
        stopping.on_record(seen, record(number, validation_loss=losses[number - 1]))
    with pytest.raises(gn.StopTraining):
        stopping.on_record(seen, record(6, validation_loss=losses[5]))
    assert stopping.best is not None
    assert stopping.best.step == 2


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_without_patience_the_best_weights_are_those_of_the_best_record(validation: float) -> None:
    training = momentum(data=images(validation=validation))
    history = training.run()
    assert isinstance(training.stopping, BestWeights)
    assert history.best is not None
    assert training.stopping.best is history.best
    assert training.monitor.best is not None
    assert training.monitor.best.step == history.best.step


@pytest.mark.parametrize("patience", [0.5, 1.0, 10.0])
def test_patience_is_short_for_early_stopping(patience: float) -> None:
    short, long = adam(patience=patience), adam(patience=None, callbacks=[gn.EarlyStopping(patience)])
    short.run()
    long.run()
    assert outcome(short) == outcome(long)
    assert long.restores_best


def test_another_figure_decides_on_stop_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    stopping = gn.EarlyStopping(0.5, monitor="validation_accuracy")
    training = momentum(progress=True, epochs=20, callbacks=[stopping])
    history = training.run()
    best = max(history, key=lambda each: each.validation_accuracy)  # the first of them
    assert stopping.best is best
    assert history.stopped == "no better validation accuracy for 0.5 epochs"
    assert training.kept == best.step
    err = capsys.readouterr().err
    assert f"the weights of step {best.step} are put back: validation accuracy was highest there\n" in err
    assert err.count("stopped: ") == 1


def test_the_weights_may_stay() -> None:
    training = momentum(epochs=20, callbacks=[gn.EarlyStopping(0.5, restore_best=False)])
    history = training.run()
    assert history.stopped
    assert training.model.steps_trained == history[-1].step != training.stopping.best.step  # type: ignore[union-attr]


def test_one_that_is_used_again_begins_anew() -> None:
    stopping = gn.EarlyStopping(1)
    first, second = (momentum(callbacks=[stopping]) for _ in range(2))
    first.run()
    second.run()
    assert outcome(first) == outcome(second)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patience": 0}, "patience must be above 0 epochs, got 0"),
        ({"patience": "3"}, "patience must be a number"),
        ({"monitor": "f2"}, "mode must say whether f2 is better low, 'min', or high, 'max'"),
        ({"monitor": ""}, "monitor must name a metric"),
        ({"mode": "auto"}, "mode must say"),
        ({"min_delta": -1}, "min_delta must be at least 0"),
        ({"restore_best": "no"}, "restore_best must be True or False"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        gn.EarlyStopping(**{"patience": 3, **arguments})
    one_line(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patience": 2.0, "callbacks": [gn.EarlyStopping(3)]}, "by one rule, got patience and EarlyStopping"),
        ({"callbacks": [gn.EarlyStopping(3), gn.EarlyStopping(4)]}, "by one rule, got 2 of EarlyStopping"),
        ({"data": images(validation=0), "callbacks": [gn.EarlyStopping(3)]}, "needs a validation set to watch"),
    ],
)
def test_a_training_has_one_rule_that_it_can_follow(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        trainer(**options)
    one_line(caught.value)


def test_a_figure_that_the_training_has_not_is_named_with_those_it_has() -> None:
    with pytest.raises(OptionError, match="'train_r2', the monitor of EarlyStopping, is no metric") as caught:
        momentum(callbacks=[gn.EarlyStopping(3, monitor="train_r2")]).run()
    assert str(caught.value).endswith("train_loss, train_accuracy, validation_loss, validation_accuracy")
    one_line(caught.value)


# Overfitting


def overfitting(**options: Any) -> gn.History:
    rng = np.random.default_rng(0)
    data = gn.Data.from_arrays(rng.normal(size=(80, 10)), rng.integers(0, 2, 80), validation=0.3)
    model = gn.Sequential([gn.Dense(64), gn.ReLU(), gn.Dense(2)])
    return model.fit(data, **{"epochs": 12, "batch_size": 10, "device": "cpu", **options})


def test_overfitting_stops_a_training_that_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    whole = overfitting()
    said = "overfitting (high variance) since step 2, epoch 0.3"
    assert capsys.readouterr().err.count(said) == 1
    history = overfitting(callbacks=[gn.OverfittingDetector(stop=True)])
    assert capsys.readouterr().err.count(said) == 1
    assert history.stopped == "overfitting since step 2, epoch 0.3"
    assert history.overfitting_since is history[0]
    assert [each.train_loss for each in history] == [each.train_loss for each in whole[: len(history)]]
    assert len(history) < len(whole)


def test_a_detector_that_is_told_neither_yes_nor_no() -> None:
    with pytest.raises(OptionError, match="stop must be True or False") as caught:
        gn.OverfittingDetector(stop="never")  # type: ignore[arg-type]
    one_line(caught.value)


# Progress


def test_progress_may_be_a_callback_with_a_stream_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    momentum(progress=True).run()
    usual, stream = capsys.readouterr().err, io.StringIO()
    for progress in (True, False):  # it is shown once, and as it was given
        momentum(progress=progress, callbacks=[gn.ProgressBar(stream)]).run()
    assert capsys.readouterr() == ("", "")
    lines = [line.rpartition(", ")[0].rpartition(", ")[0] for line in stream.getvalue().splitlines()]
    assert lines == 2 * [line.rpartition(", ")[0].rpartition(", ")[0] for line in usual.splitlines()]


@pytest.mark.parametrize("stream", ["stderr", io.StringIO, 3])
def test_what_is_no_stream_is_refused(stream: Any) -> None:
    with pytest.raises(OptionError, match="stream must be an open text stream") as caught:
        gn.ProgressBar(stream)
    one_line(caught.value)


@pytest.mark.parametrize(
    "callback", [gn.EarlyStopping(2), gn.OverfittingDetector(), gn.ProgressBar()], ids=lambda each: type(each).__name__
)
def test_callbacks_are_copied_and_pickled_also_after_a_training(callback: gn.Callback) -> None:
    alone = momentum(epochs=2)
    alone.run()
    for used in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        first = momentum(epochs=2, callbacks=[used])
        first.run()
        again = momentum(epochs=2, callbacks=[copy.deepcopy(used)])
        again.run()
        assert pickle.dumps(used)
        assert [each.train_loss for each in again.history] == [each.train_loss for each in alone.history]
