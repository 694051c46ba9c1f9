"""Going on: a training that was stopped after any step ends in the very bits of one that never was."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.checkpoint_helpers import ORIGIN, adam, calling, convolutional, images, momentum, outcome, stopped_after

import gpunn as gn
from gpunn.saving.checkpoint import open_checkpoint, write_checkpoint
from gpunn.saving.checkpointer import restore_training
from gpunn.train.evaluator import Evaluation, Evaluator
from gpunn.train.trainer import Trainer

STEPS = 24
CUTS = [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20, 22, 23, 24]


@pytest.fixture(
    scope="module", params=[momentum, adam], ids=["Dropout, BatchNorm, momentum", "Adam, augmentation, schedule"]
)
def make(request: pytest.FixtureRequest) -> Callable[..., Trainer]:
    return request.param


@pytest.fixture(scope="module")
def undisturbed(make: Callable[..., Trainer]) -> object:
    training = make()
    training.run()
    assert training.done == STEPS
    return outcome(training)


@pytest.mark.parametrize("cut", CUTS)
def test_a_training_that_goes_on_from_a_checkpoint_ends_in_the_same_bits(
    make: Callable[..., Trainer], undisturbed: object, cut: int, tmp_path: Path
) -> None:
    first = make()
    write_checkpoint(tmp_path / "step", stopped_after(first, cut), ORIGIN, first.model)
    second = make()
    second.restore(open_checkpoint(tmp_path / "step").state(second.state()))
    assert second.done == cut
    second.run()
    assert outcome(second) == undisturbed


# Stopped by hand


def _interrupting(training: Trainer, steps: int) -> Callable[[], None]:
    def stop() -> None:
        if training.done == steps:
            raise KeyboardInterrupt

    return stop


def test_before_a_prompt_a_training_that_is_interrupted_returns_its_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    training = momentum(validate_every=4)
    with calling(training, _interrupting(training, 10)):
        history = training.run()
    assert [record.step for record in history] == [4, 8]
    assert history.stopped == "interrupted"
    np.testing.assert_equal(training.model.arrays(), training.monitor.last.arrays)
    assert training.monitor.last.step == 8


def test_in_a_script_an_interruption_goes_on_upwards_with_the_weights_of_the_last_record() -> None:
    training = momentum(validate_every=4)
    with pytest.raises(KeyboardInterrupt), calling(training, _interrupting(training, 10)):
        training.run()
    np.testing.assert_equal(training.model.arrays(), training.monitor.last.arrays)


def test_fit_hands_the_history_of_an_interrupted_training_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    def interrupted(evaluator: Evaluator) -> Evaluation:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(original(evaluator))
        return seen[-1]

    original, seen = Evaluator.run, []
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "run", interrupted)
        model = convolutional()
        history = model.fit(images(), epochs=5, batch_size=16, device="cpu", progress=False)
    assert len(history) == 2
    assert model.evaluate(images().validation).loss == history[-1].validation_loss


# With another version


@pytest.mark.parametrize(
    ("make", "versions", "expected"),
    [
        (momentum, {}, ["Dropout's masks was 'numbered by batch', is 'numbered by sample'"]),
        (momentum, {"Dropout's masks": "numbered by sample"}, []),
        (lambda: momentum(model=gn.Sequential([gn.Flatten(), gn.Dense(3)])), {}, []),
    ],
    ids=["of before", "of now", "without Dropout"],
)
def test_a_training_with_dropout_says_that_its_masks_are_not_those_of_an_earlier_version(
    make: Callable[..., Trainer], versions: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    first, said = make(), list[str]()
    origin = replace(ORIGIN, versions=ORIGIN.versions | versions)
    write_checkpoint(tmp_path / "step", stopped_after(first, 5), origin, first.model)
    restore_training(make(), open_checkpoint(tmp_path / "step"), said.append)
    beginning = "not the same to the last bit: "
    lines = [line.removeprefix(beginning) for line in said if line.startswith(beginning)]
    assert [line for line in lines if "Dropout" in line] == expected
