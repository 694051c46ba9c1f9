"""`fit` with a `Checkpointer`: what was cut off goes on to the same bits, in Python as by the program."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import convolutional, images
from support.cli_helpers import experiment_toml, gpunn, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.errors import CheckpointError, OptionError, OutputError
from gpunn.saving.checkpointer import list_checkpoints

folder = pytest.fixture(own_folder)
STEPS = 24


class CutOffError(Exception):
    pass


class CutOff(gn.Callback):
    """Ends a training after so many steps, by an exception or otherwise."""

    def __init__(self, step: int, how: Callable[[], object] | None = None) -> None:
        self.step, self.how = step, how

    def on_steps(self, training: gn.TrainingView) -> None:
        if training.step >= self.step:
            if self.how is None:
                raise CutOffError
            self.how()


class Counter(gn.Callback):
    """Notes all that it sees, and knows it after a resume."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.best = float("inf")

    def on_steps(self, training: gn.TrainingView) -> None:
        self.seen.append(["step", training.step])

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        self.best = min(self.best, record.validation_loss)
        self.seen.append(["record", record.step, self.best])

    def on_epoch_end(self, training: gn.TrainingView) -> None:
        self.seen.append(["epoch", training.epoch])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.best = state["seen"], state["best"]


def momentum() -> dict[str, Any]:
    return {"optimizer": gn.SGD(0.05, momentum=0.9, nesterov=True), "regularizer": gn.L2(0.5)}


def adam() -> dict[str, Any]:
    augmentation = gn.Augmentation(shift=1.0, rotation=10.0)
    more = {"augmentation": augmentation, "patience": 2.0, "recompute_statistics": True, "validate_every": 5}
    return {"optimizer": gn.AdamW(gn.Warmup(gn.Cosine(0.01), steps=9)), **more}


def weighted() -> dict[str, Any]:
    return {"optimizer": "adam", "class_weight": {1: 2.0}, "skip_bad_batches": True}


def fit(make: Callable[[], dict[str, Any]], *callbacks: gn.Callback, **changes: Any) -> Any:
    """All that a training leaves, but for the time that it took."""
    model = changes.pop("model", None) or convolutional()
    data = changes.pop("data", None) or images()
    usual = {"epochs": 4, "batch_size": 16, "device": "cpu", "seed": 3, "progress": False}
    history = model.fit(data, **usual | make() | changes, callbacks=callbacks)
    records = [repr(record).rpartition("seconds=")[0] for record in history]
    arrays = {name: array.tobytes() for name, array in model.arrays().items()}
    memory = model.optimizer_memory  # none where the best weights were put back
    remembered = memory and {name: array.tobytes() for name, array in flat(memory.arrays)}
    return records, history.stopped, arrays, remembered, model.epochs_trained, model.steps_trained


def flat(arrays: Any) -> Any:
    for name, value in arrays.items():
        for inner, array in value.items():
            yield f"{name}/{inner}", array


@pytest.mark.parametrize("make", [momentum, adam, weighted])
@pytest.mark.parametrize("every", [1, 5])
def test_fit_that_was_cut_off_again_and_again_goes_on_to_the_same_bits(
    make: Callable[[], dict[str, Any]], every: int, tmp_path: Path
) -> None:
    whole = fit(make)
    for cut in (1, 8, 9, 17, 23):
        with pytest.raises(CutOffError):
            fit(make, gn.Checkpointer(tmp_path, every=every, minutes=0, resume=True), CutOff(cut))
    # Of step 23 it would be written last.
    assert list_checkpoints(tmp_path / "checkpoints")[0][0] == 22 // every * every
    assert fit(make, gn.Checkpointer(tmp_path, every=every, resume=True)) == whole
    # What has ended stays as it is.
    assert fit(make, gn.Checkpointer(tmp_path, resume=True)) == whole


def test_a_checkpointer_changes_no_bit(tmp_path: Path) -> None:
    assert fit(momentum, gn.Checkpointer(tmp_path, every=1)) == fit(momentum)


@pytest.mark.parametrize("make", [momentum, adam, weighted])
def test_a_cell_of_a_notebook_that_was_interrupted_goes_on_when_it_is_run_again(
    backend: Any, make: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the network that has the weights of the last record, and counts on from there."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    def interrupt() -> None:
        raise KeyboardInterrupt

    model, options = convolutional(), make()
    checkpointer = gn.Checkpointer(tmp_path, every=4, resume=True)
    for cut in (5, 14, 100):
        found = fit(lambda: options, checkpointer, CutOff(cut, interrupt), model=model, device=backend)
    assert found == fit(make, device=backend)


def test_what_a_device_is_does_not_matter_to_going_on(backend: Any, tmp_path: Path) -> None:
    whole = fit(adam, device=backend)
    with pytest.raises(CutOffError):
        fit(adam, gn.Checkpointer(tmp_path, every=3), CutOff(13), device=backend)
    assert fit(adam, gn.Checkpointer(tmp_path, resume=True), device=backend) == whole


SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from saving.test_resuming_fit import *
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
fit(adam, gn.Checkpointer("run", every=4, resume=True), CutOff(int(sys.argv[2]), kill))
"""


def test_a_process_that_was_killed_goes_on_to_the_same_bits(folder: Path) -> None:
    tests = str(Path(__file__).parents[1])
    for cut in (10, 19):
        done = subprocess.run([sys.executable, "-c", SCRIPT, tests, str(cut)], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert list_checkpoints(Path("run/checkpoints"))[0][0] == 16
    assert fit(adam, gn.Checkpointer("run", resume=True)) == fit(adam)


def test_the_others_see_the_training_that_was_restored(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class See(gn.Callback):
        def on_train_begin(self, training: gn.TrainingView) -> None:
            seen.append((training.step, len(training.history)))

    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer(tmp_path, every=5), CutOff(13))
    fit(momentum, See(), gn.Checkpointer(tmp_path, resume=True))
    assert seen == [(10, 6)]


def test_more_epochs_go_on_where_the_training_ended(tmp_path: Path) -> None:
    fit(momentum, gn.Checkpointer(tmp_path), epochs=2)
    assert fit(momentum, gn.Checkpointer(tmp_path, resume=True)) == fit(momentum)
    with pytest.raises(OptionError, match="give more epochs"):
        fit(momentum, gn.Checkpointer(tmp_path, resume=True), epochs=1)


def test_the_networks_of_a_checkpoint_are_model_files(tmp_path: Path) -> None:
    model = convolutional()
    fit(momentum, gn.Checkpointer(tmp_path), model=model)
    made = gn.load_model(tmp_path / "checkpoints" / "step-24" / "model.safetensors", device="cpu")
    np.testing.assert_equal(made.predict(images().train.inputs), model.predict(images().train.inputs))


# Refused


def test_checkpoints_that_are_there_are_neither_mixed_nor_overwritten(tmp_path: Path) -> None:
    fit(momentum, gn.Checkpointer(tmp_path))
    with pytest.raises(OutputError, match="holds checkpoints already: resume=True goes on") as caught:
        fit(momentum, gn.Checkpointer(tmp_path))
    one_line(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": gn.SGD(0.1, momentum=0.9, nesterov=True)}, "fit.optimizer.learning_rate was 0.05, is 0.1"),
        ({"seed": 4}, "fit.seed was 3, is 4"),
        ({"data": images(100)}, "data.train.samples was"),
        ({"class_weight": "balanced"}, "fit.class_weight was none, is 'balanced'"),
        ({"model": gn.Sequential([gn.Flatten(), gn.Dense(3)])}, "fit.layers was 6 of"),
    ],
)
def test_another_training_is_refused_with_the_difference(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer(tmp_path), CutOff(3))
    with pytest.raises(CheckpointError, match="is of another training: ") as caught:
        fit(momentum, gn.Checkpointer(tmp_path, resume=True), **changes)
    assert said in str(caught.value)
    one_line(caught.value)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        fit(momentum, gn.Checkpointer(tmp_path, every=5), CutOff(13))
    state = tmp_path / "checkpoints" / "step-10" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    assert fit(momentum, gn.Checkpointer(tmp_path, every=5, resume=True)) == fit(momentum)


def test_where_nothing_can_be_written_the_training_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make .*give another folder") as caught:
        fit(momentum, gn.Checkpointer(tmp_path / "file" / "run"))
    one_line(caught.value)


@pytest.mark.parametrize("given", [None, 3, "a\0b"])
def test_what_is_no_folder_is_refused(given: Any) -> None:
    with pytest.raises(OptionError, match="the folder of checkpoints is a path"):
        gn.Checkpointer(given)


def test_fit_and_the_program_send_each_other_their_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    fit(momentum, gn.Checkpointer("fit"))
    done = gpunn("train", "--resume", "fit")
    assert done.code == 1
    assert "is of a training by fit in Python: there gn.Checkpointer('fit', resume=True) goes on" in done.err
    (folder / "a.toml").write_text(experiment_toml([], {"type": "SGD"}, epochs=1, batch_size=100, device="cpu"))
    assert gpunn("train", "--recipe", "a.toml", "--out", "run").code == 0
    with pytest.raises(CheckpointError, match="gpunn train --resume run goes on with it"):
        fit(momentum, gn.Checkpointer("run", resume=True))


def test_a_manifest_holds_a_training_as_json(tmp_path: Path) -> None:
    fit(weighted, gn.Checkpointer(tmp_path), epochs=1)
    manifest = json.loads((tmp_path / "checkpoints" / "step-6" / "manifest.json").read_text())
    made = json.loads(manifest["experiment"])
    assert (made["class_weight"], made["batch_size"], made["seed"]) == ({"1": 2.0}, 16, 3)
    assert made["layers"][0]["type"] == "Conv2D"
