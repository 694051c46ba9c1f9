"""What a `Checkpointer` keeps of other callbacks, whom it keeps out of its folder, and what it does on a signal."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import experiment_toml, gpunn, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.errors import CheckpointError, OptionError, OutputError
from gpunn.files import LOCK
from gpunn.saving.checkpointer import list_checkpoints
from saving.test_resuming_fit import STEPS, Counter, CutOff, CutOffError, adam, fit, momentum

folder = pytest.fixture(own_folder)

# States


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("every", [1, 5])
def test_a_callback_gets_back_what_it_had_at_the_checkpoint(every: int, first: bool, tmp_path: Path) -> None:
    whole, counter = Counter(), Counter()
    fit(adam, whole)
    for cut in (1, 8, 17, STEPS + 1):
        counter = Counter()
        callbacks = [counter, gn.Checkpointer(tmp_path, every=every, resume=True)]
        try:
            fit(adam, *(callbacks if first else reversed(callbacks)), CutOff(cut))
        except CutOffError:
            assert cut <= STEPS
    assert counter.seen == whole.seen
    assert counter.best == whole.best


def test_two_of_a_class_are_told_apart_by_their_order(tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    first.seen.append(["the first"])
    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer(tmp_path, every=5), first, second, CutOff(12))
    first, second = Counter(), Counter()
    fit(momentum, gn.Checkpointer(tmp_path, resume=True), first, second)
    assert first.seen[0] == ["the first"]
    assert second.seen == first.seen[1:]


def test_a_state_that_nobody_takes_is_said_and_others_begin_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Later(Counter):
        pass

    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer(tmp_path, every=5), Counter(), CutOff(12))
    later = Later()
    fit(momentum, gn.Checkpointer(tmp_path, resume=True), later, progress=True)
    assert "holds the state of a callback Counter, which this training has not\n" in capsys.readouterr().err
    assert later.seen[0][1] == 11


def test_a_checkpoint_of_callbacks_without_a_state_is_as_it_was(tmp_path: Path) -> None:
    fit(momentum, gn.Checkpointer(tmp_path))
    checkpoint = tmp_path / "checkpoints" / "step-24"
    assert not (checkpoint / "callbacks.json").exists()
    assert "callbacks" not in (checkpoint / "manifest.json").read_text()


def holding(state: Any, load: bool = True) -> gn.Callback:
    methods: dict[str, Any] = {"state_dict": lambda self: state}
    if load:
        methods["load_state_dict"] = lambda self, state: None
    return type("Holding", (gn.Callback,), methods)()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([1], "must be a dict"),
        ({1: 2}, r"the key 1: str\(key\)"),
        ({"a": [np.zeros(2)]}, r"array.tolist\(\)"),
        ({"a": {"b": (1, 2)}}, r"tuple \(1, 2\): list\(...\)"),
        ({"a": np.float32(1)}, r"float\(...\)"),
        ({"a": object}, "leave it out"),
        ({"a": 10**5000}, "cannot be kept as JSON"),
    ],
    ids=["list", "key", "array", "tuple", "float32", "class", "huge"],
)
def test_a_state_that_would_not_come_back_is_refused_before_the_training(state: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        fit(momentum, gn.Checkpointer(tmp_path), holding(state))
    assert str(caught.value).startswith("state_dict() of Holding ")
    one_line(caught.value)
    assert not list_checkpoints(tmp_path / "checkpoints")


def test_a_state_in_a_circle_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["again"] = state
    with pytest.raises(OptionError, match="cannot be kept as JSON"):
        fit(momentum, gn.Checkpointer(tmp_path), holding(state))


def test_a_state_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.saving.checkpoint.MOST_OF_CALLBACKS", 1000)
    with pytest.raises(OptionError, match="the states of Holding are 1,") as caught:
        fit(momentum, gn.Checkpointer(tmp_path), holding({"a": "x" * 1000}))
    one_line(caught.value)


def test_one_of_the_two_methods_is_not_enough() -> None:
    with pytest.raises(OptionError, match="must have both state_dict and load_state_dict") as caught:
        fit(momentum, holding({}, load=False))
    one_line(caught.value)


def test_states_that_are_damaged_make_the_checkpoint_damaged(tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer(tmp_path, every=5), Counter(), CutOff(13))
    (tmp_path / "checkpoints" / "step-10" / "callbacks.json").write_text("{}")
    counter = Counter()
    fit(momentum, gn.Checkpointer(tmp_path, resume=True), counter)
    assert ["step", STEPS] in counter.seen  # from step 5 on


# Early stopping


def test_early_stopping_resumes_as_patience_does_and_no_other_rule(tmp_path: Path) -> None:
    stopping = {"patience": None, "epochs": 20}
    rule = {"monitor": "validation_accuracy", "min_delta": 0.001}
    whole = fit(adam, gn.EarlyStopping(0.5, **rule), **stopping)  # type: ignore[arg-type]
    assert whole[1] == "no better validation accuracy for 0.5 epochs"
    with pytest.raises(CutOffError):
        fit(adam, gn.EarlyStopping(0.5, **rule), gn.Checkpointer(tmp_path, every=4), CutOff(9), **stopping)  # type: ignore[arg-type]
    for other, said in (
        ([gn.EarlyStopping(0.5)], "fit.early_stopping was"),
        ([gn.EarlyStopping(1, **rule)], "fit.patience was 0.5, is 1.0"),  # type: ignore[arg-type]
        ([], "fit.patience was 0.5, is none"),
    ):
        with pytest.raises(CheckpointError, match=said) as caught:
            fit(adam, *other, gn.Checkpointer(tmp_path, resume=True), **stopping)
        one_line(caught.value)
    assert fit(adam, gn.EarlyStopping(0.5, **rule), gn.Checkpointer(tmp_path, resume=True), **stopping) == whole  # type: ignore[arg-type]


def test_patience_and_early_stopping_resume_each_other(tmp_path: Path) -> None:
    whole = fit(adam)
    with pytest.raises(CutOffError):
        fit(adam, gn.Checkpointer(tmp_path, every=4), CutOff(9))
    stopping = gn.EarlyStopping(2)
    assert fit(adam, stopping, gn.Checkpointer(tmp_path, resume=True), patience=None) == whole


# One training at a time


def test_a_second_training_in_a_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    (folder / "a.toml").write_text(experiment_toml([], {"type": "SGD"}, epochs=1, batch_size=100, device="cpu"))
    said = []

    def again() -> None:
        with pytest.raises(OutputError, match="another training is at work in run: wait for it, or give") as caught:
            fit(momentum, gn.Checkpointer("run", resume=True))
        one_line(caught.value)
        done = gpunn("train", "--recipe", "a.toml", "--out", "run")
        said.append((done.code, done.err))
        raise CutOffError

    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer("run", every=5), CutOff(12, again))
    assert said[0][0] == 1
    assert "another gpunn train is at work in run" in said[0][1]
    assert Path("run", LOCK).is_file()
    # An error has ended the first: nothing is locked.
    assert fit(momentum, gn.Checkpointer("run", resume=True)) == fit(momentum)


# Signals


def send(number: signal.Signals) -> Callable[[], None]:
    """Return a function that sends a signal to this process, once."""
    numbers = iter([number])

    def once() -> None:
        for each in numbers:
            os.kill(os.getpid(), each)

    return once


def test_an_interrupt_waits_for_the_step_and_its_checkpoint(tmp_path: Path) -> None:
    before, seen = signal.getsignal(signal.SIGINT), Counter()
    with pytest.raises(KeyboardInterrupt):
        fit(adam, gn.Checkpointer(tmp_path), CutOff(13, send(signal.SIGINT)), seen)
    assert seen.seen[-1] == ["step", 13]
    assert list_checkpoints(tmp_path / "checkpoints")[0][0] == 13
    assert signal.getsignal(signal.SIGINT) is before
    assert fit(adam, gn.Checkpointer(tmp_path, resume=True)) == fit(adam)


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it waits")

    with pytest.raises(KeyboardInterrupt):
        fit(adam, gn.Checkpointer(tmp_path), CutOff(13, twice))
    assert list_checkpoints(tmp_path / "checkpoints")[0][0] == 0


def test_an_interrupted_cell_of_a_notebook_has_its_history_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    checkpointer = gn.Checkpointer(tmp_path, resume=True)
    records, stopped, *_ = fit(adam, checkpointer, CutOff(13, send(signal.SIGINT)))
    assert (len(records), stopped) == (2, "interrupted")
    assert fit(adam, checkpointer) == fit(adam)


class AskedToEndError(Exception):
    pass


def test_a_handler_of_ones_own_is_called_once_the_checkpoint_is_there(tmp_path: Path) -> None:
    def end(number: int, frame: object) -> None:
        assert list_checkpoints(tmp_path / "checkpoints")[0][0] == 7
        raise AskedToEndError

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(AskedToEndError):
            fit(momentum, gn.Checkpointer(tmp_path), CutOff(7, send(signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)


TERMINATED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from saving.test_checkpointed_callbacks import *
fit(adam, gn.Checkpointer("run"), CutOff(9, send(signal.SIGTERM)))
"""


def test_a_process_that_is_terminated_ends_by_the_signal_with_a_checkpoint(folder: Path) -> None:
    tests = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", TERMINATED, tests], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stderr == "\ngpunn: stopping after this step; once more to stop at once\n"
    assert list_checkpoints(Path("run/checkpoints"))[0][0] == 9


def test_a_signal_at_the_very_end_is_not_lost(tmp_path: Path) -> None:
    checkpointer = gn.Checkpointer(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(momentum, checkpointer, CutOff(STEPS, send(signal.SIGINT)))
    assert checkpointer.step == STEPS


def test_a_training_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    before, found = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: found.append(fit(momentum, gn.Checkpointer(tmp_path))))
    thread.start()
    thread.join()
    assert found == [fit(momentum)]
    assert signal.getsignal(signal.SIGINT) is before
