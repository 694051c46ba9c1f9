"""Runs that are stopped, and gone on with by the program: signals, full disks, other data, a second run."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import (
    assert_one_line,
    experiment_toml,
    gpunn,
    own_folder,
    results_of,
    small_disk,
    start,
    without_pictures,
)
from support.data_helpers import small_set, write_set

import gpunn as gn
from gpunn.experiments import experiment
from gpunn.experiments import folder as run_folder
from gpunn.experiments import results as gpunn_results
from gpunn.saving import checkpointer as checkpointer
from gpunn.saving.checkpoint import open_checkpoint
from gpunn.saving.checkpointer import list_checkpoints
from gpunn.train.evaluator import Evaluator

folder = pytest.fixture(autouse=True)(own_folder)

# 11 steps an epoch, with everything that is remembered or drawn from step to step.
EXPERIMENT = experiment_toml(
    [{"type": "Dense", "units": 12}, {"type": "BatchNorm"}, {"type": "ReLU"}, {"type": "Dropout", "p": 0.2}],
    {"type": "SGD", "momentum": 0.9, "learning_rate": {"type": "OneCycle", "peak": 0.2}},
    epochs=3, batch_size=128, device="cpu",
)  # fmt: skip
STEPS = 33


@pytest.fixture(scope="module", autouse=True)
def _plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    path = tmp_path_factory.mktemp("undisturbed")
    (path / "small.toml").write_text(EXPERIMENT)
    done = gpunn("train", "--recipe", path / "small.toml", "--out", path / "run")
    assert done.code == 0, done.err
    return path / "run"


@pytest.fixture(autouse=True)
def _small(folder: Path) -> None:
    (folder / "small.toml").write_text(EXPERIMENT)


def train(*arguments: object) -> Any:
    return gpunn("train", "--recipe", "small.toml", "--out", "run", *arguments)


def resume(*arguments: object, run: object = "run") -> Any:
    return gpunn("train", "--resume", run, *arguments)


def at_step(monkeypatch: pytest.MonkeyPatch, steps: int, do: Callable[[], object]) -> None:
    """Let something happen between two steps, once."""
    original, happened = checkpointer.Checkpointer.is_due, []

    def is_due(self: checkpointer.Checkpointer) -> bool:
        if self._trainer.done == steps and not happened:
            happened.append(True)
            do()
        return original(self)

    monkeypatch.setattr(checkpointer.Checkpointer, "is_due", is_due)


def kill(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def steps_of(path: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(path / "checkpoints")]


# The same run


def test_two_runs_of_one_seed_are_the_same_bytes(undisturbed: Path, folder: Path) -> None:
    assert train().code == 0
    assert results_of(folder / "run") == results_of(undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("steps", [1, 11, 17, STEPS])
def test_a_signal_in_training_saves_and_says_how_to_go_on_to_the_same_bytes(
    undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, steps: int
) -> None:
    at_step(monkeypatch, steps, lambda: kill(number))
    done = train()
    assert done.code == code
    assert f"checkpoint  step {steps}: gpunn train --resume run goes on from there" in done.out
    assert "Traceback" not in done.err
    assert steps_of(folder / "run")[0] == steps
    if steps < STEPS:
        metrics = json.loads((folder / "run" / "metrics.json").read_text())
        assert (metrics["stopped"], metrics["finished"]) == ("interrupted", False)
        assert gn.load_model("run/model.safetensors").predict(np.ones((1, 64))).shape == (1,)
    done = resume()
    assert done.code == 0, done.err
    assert f"resumed     from step {steps}, epoch" in done.out
    assert results_of(folder / "run") == results_of(undisturbed)


def _once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, after: int = 0) -> None:
    """Let a signal come in while a function is at work."""
    original, calls = getattr(owner, name), []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(True)
        if len(calls) == after + 1:
            kill(number)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("owner", "name", "after", "saved"),
    [
        (Evaluator, "run", 3, 11),
        (checkpointer, "write_checkpoint", 0, 1),
        (checkpointer, "write_checkpoint", 1, 11),
        (checkpointer, "write_checkpoint", 4, STEPS),
        (gpunn_results, "draw_network", 0, STEPS),
        (gpunn_results, "write_atomically", 0, STEPS),
    ],
    ids=["validation", "first checkpoint", "checkpoint", "last checkpoint", "pictures", "metrics"],
)
def test_a_signal_while_something_else_is_done_loses_nothing_either(
    undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: int, saved: int
) -> None:
    with monkeypatch.context() as patch:
        _once(patch, owner, name, signal.SIGTERM, after)
        done = train("--checkpoint-every", 10)
    assert done.code == 143
    assert f"checkpoint  step {saved}: gpunn train --resume run" in done.out
    assert "Traceback" not in done.err
    assert resume().code == 0
    assert results_of(folder / "run") == results_of(undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_data_are_loaded_stops_at_once_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    with monkeypatch.context() as patch:
        _once(patch, experiment, "load_data", number)
        done = train()
    assert (done.code, done.out) == (code, "")
    assert not (folder / "run").exists()


def test_a_signal_while_a_run_is_loaded_leaves_it_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, kill)
        train()
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        _once(patch, experiment, "load_data", signal.SIGINT)
        assert resume().code == 130
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before


def test_a_second_signal_stops_at_once_and_loses_only_what_the_last_checkpoint_lacks(
    undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        kill()
        kill()

    with monkeypatch.context() as patch:
        at_step(patch, 15, twice)
        done = train("--checkpoint-every", 10)
    assert done.code == 130
    assert "checkpoint  step 10: gpunn train --resume run" in done.out
    assert steps_of(folder / "run") == [10, 0]
    assert not (folder / "run" / "metrics.json").exists()
    assert resume().code == 0
    assert results_of(folder / "run") == results_of(undisturbed)


def test_a_run_may_be_stopped_again_and_again(undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, steps in enumerate([0, 3, 4, 12, 22, 23, 31]):
        with monkeypatch.context() as patch:
            at_step(patch, steps + 1, kill)
            assert (resume() if number else train()).code == 130
    assert resume().code == 0
    assert results_of(folder / "run") == results_of(undisturbed)


# Which checkpoint


def test_the_newest_checkpoints_are_kept_and_each_has_the_best_network(folder: Path) -> None:
    train("--checkpoint-every", 4, "--checkpoint-keep", 3)
    assert steps_of(folder / "run") == [33, 32, 28]
    history = gn.History.read_csv("run/history.csv")
    for step, path in list_checkpoints(folder / "run" / "checkpoints"):
        best = min((r for r in history if r.step <= step), key=lambda record: record.validation_loss)
        result = gn.load_model(path / "best.safetensors").evaluate(gn.load_data("digits").validation)
        assert result.loss == pytest.approx(best.validation_loss, rel=1e-6)


def test_a_damaged_checkpoint_is_passed_over_and_said_to_be(undisturbed: Path, folder: Path) -> None:
    train("--checkpoint-every", 10)
    state = folder / "run" / "checkpoints" / "step-33" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    (folder / "run" / "metrics.json").unlink()
    done = resume()
    assert done.code == 0, done.err
    assert f"passed over a damaged checkpoint: {Path('run/checkpoints/step-33/state.safetensors')} has" in done.out
    assert "resumed     from step 30" in done.out
    assert results_of(folder / "run") == results_of(undisturbed)


def test_without_a_whole_checkpoint_nothing_is_gone_on_with(folder: Path) -> None:
    train()
    for _, path in list_checkpoints(folder / "run" / "checkpoints"):
        (path / "manifest.json").write_text("{}")
    assert_one_line(resume(), 1, "holds no checkpoint that is whole")


def test_any_checkpoint_may_be_gone_on_from(undisturbed: Path, folder: Path) -> None:
    train("--checkpoint-every", 10)
    done = resume(run="run/checkpoints/step-30")
    assert_one_line(done, 1, "run is finished")
    (folder / "run" / "metrics.json").unlink()
    done = resume(run="run/checkpoints/step-30/")
    assert done.code == 0, done.err
    assert "step-33 is removed: the run goes on from step 30" in done.out
    assert results_of(folder / "run") == results_of(undisturbed)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(undisturbed: Path, folder: Path) -> None:
    train()
    for path in (folder / "run").iterdir():
        if path.name != "experiment.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = resume()
    assert done.code == 0, done.err
    assert "run has no checkpoint yet: it begins again" in done.out
    assert results_of(folder / "run") == results_of(undisturbed)


def test_what_a_killed_process_left_half_written_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, kill)
        train()
    half = folder / "run" / "checkpoints" / ".step-9.0123abcd.tmp"
    shutil.copytree(folder / "run" / "checkpoints" / "step-5", half)
    (folder / "run" / ".metrics.json.0123abcd.tmp").write_text("{")
    assert resume().code == 0
    assert not list((folder / "run").rglob("*.tmp"))


def test_a_folder_of_checkpoints_that_is_a_link_is_not_touched(folder: Path) -> None:
    train()
    checkpoints = folder / "run" / "checkpoints"
    checkpoints.rename(folder / "elsewhere")
    checkpoints.symlink_to(folder / "elsewhere", target_is_directory=True)
    before = sorted((folder / "elsewhere").rglob("*"))
    assert_one_line(resume("--epochs", 9), 1, "run/checkpoints is a link")
    assert sorted((folder / "elsewhere").rglob("*")) == before


def test_the_best_network_of_a_run_that_was_killed_can_be_used(folder: Path) -> None:
    train("--checkpoint-every", 10)
    (folder / "run" / "model.safetensors").unlink()
    best = Path("run/checkpoints/step-33/best.safetensors")
    assert_one_line(gpunn("evaluate", "run"), 1, "gpunn train --resume run", f"or take {best}")
    assert "accuracy" in gpunn("evaluate", best, "digits").out


# More epochs


def test_a_finished_run_is_not_run_again(folder: Path) -> None:
    train()
    before = results_of(folder / "run")
    assert_one_line(resume(), 1, "run is finished: give more epochs than 3 by --epochs")
    assert_one_line(resume("--epochs", 3), 1, "run is finished")
    assert results_of(folder / "run") == before


def test_a_finished_run_goes_on_for_more_epochs(folder: Path) -> None:
    train()
    done = resume("--epochs", 4)
    assert done.code == 0, done.err
    history = gn.History.read_csv("run/history.csv")
    assert history[-1].epoch == 4
    assert json.loads((folder / "run" / "metrics.json").read_text())["epochs"] == 4
    assert "epochs = 4" in (folder / "run" / "experiment.toml").read_text()


def test_fewer_epochs_than_are_done_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 20, kill)
        train()
    assert_one_line(resume("--epochs", 1), 2, "step-20 is past 1 epochs (11 steps): give more epochs")


# What does not fit


@pytest.fixture
def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of small images, stopped after 3 steps."""
    write_set(folder / "data", small_set(train=400))
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill)
        assert gpunn("train", "./data", "--recipe", "small.toml", "--out", "run").code == 130
    return folder / "run"


def assert_refused(stopped: Path, done: Any, *words: str) -> None:
    assert_one_line(done, 1, *words)
    assert open_checkpoint(stopped / "checkpoints" / "step-3").step == 3


def test_other_data_are_refused_with_the_difference(stopped: Path, folder: Path) -> None:
    write_set(folder / "data", small_set(train=380))
    assert_refused(stopped, resume(), "does not hold the data of", "train.samples was 360, is 342", "train.sha256 was")
    write_set(folder / "data", small_set(train=400, seed=1))
    assert_refused(stopped, resume(), "does not hold the data of", "train.sha256 was")


def test_data_that_vanished_are_one_line_and_may_come_back_elsewhere(stopped: Path, folder: Path) -> None:
    (folder / "data").rename(folder / "moved")
    assert_refused(stopped, resume(), f"{folder / 'data'}")
    done = resume("./moved")
    assert done.code == 0, done.err
    assert str(folder / "moved") in (stopped / "experiment.toml").read_text()


def test_a_test_set_that_vanished_while_training_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(folder / "data", small_set(train=400))
    images = folder / "data" / "t10k-images-idx3-ubyte"
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: images.rename(folder / "away"))
        done = gpunn("train", "./data", "--recipe", "small.toml", "--out", "run")
    assert done.code == 1
    assert "t10k-images-idx3-ubyte" in done.err.splitlines()[-1]
    (folder / "away").rename(images)
    done = resume()
    assert done.code == 0, done.err
    assert json.loads(Path("run/metrics.json").read_text())["test_accuracy"] is not None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("units = 12", "units = 13", "layers[1].units was 12, is 13"),
        ("momentum = 0.9", "momentum = 0.8", "optimizer.momentum was 0.9, is 0.8"),
        ("peak = 0.2", "peak = 0.3", "optimizer.learning_rate.peak was 0.2, is 0.3"),
        ('{ type = "ReLU" }', '{ type = "Tanh" }', "layers[3].type was 'ReLU', is 'Tanh'"),
        ('    { type = "ReLU" },\n', "", "layers was 5 of Dense, BatchNorm, ReLU, Dropout, Dense, is 4 of"),
        ("batch_size = 128", "batch_size = 64", "training.batch_size was 128, is 64"),
        ("seed = 0", "seed = 1", "training.seed was 0, is 1"),
    ],
)
def test_another_experiment_is_refused_with_the_difference(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, words: str
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill)
        train()
    written = folder / "run" / "experiment.toml"
    assert old in written.read_text()
    written.write_text(written.read_text().replace(old, new, 1))
    assert_refused(folder / "run", resume(), "is of another experiment than run/experiment.toml", words)


@pytest.mark.parametrize("option", [("--recipe", "small.toml"), ("--out", "x"), ("--seed", 1), ("--batch-size", 2)])
def test_what_would_make_another_run_cannot_be_given_with_resume(option: tuple[object, ...]) -> None:
    assert_one_line(resume(*option), 2, f"{option[0]} cannot be given with --resume")


@pytest.mark.parametrize("name", ["nowhere", "small.toml", "."])
def test_what_is_no_run_cannot_be_gone_on_with(name: str) -> None:
    assert_one_line(resume(run=name), 1, "no run")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--checkpoint-every", 0), "every of checkpoints"),
        (("--checkpoint-keep", 0), "keep of checkpoints"),
        (("--checkpoint-minutes", -1), "minutes of checkpoints"),
        (("--checkpoint-minutes", "nan"), "minutes of checkpoints"),
    ],
)
def test_plans_of_checkpoints_that_cannot_be_are_refused(folder: Path, options: tuple[object, ...], word: str) -> None:
    assert_one_line(train(*options), 2, word)
    assert not (folder / "run").exists()


# A second run


def test_a_second_run_into_a_folder_is_refused_while_the_first_is_at_work(
    undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[Any] = []

    def second() -> None:
        seconds.extend([resume(), train()])

    with monkeypatch.context() as patch:
        at_step(patch, 5, second)
        assert train().code == 0
    for done in seconds:
        assert_one_line(done, 1, "another gpunn train is at work in run")
    assert results_of(folder / "run") == results_of(undisturbed)


def test_the_lock_of_a_process_that_was_killed_is_free(folder: Path) -> None:
    process = start("train", "--recipe", "small.toml", "--epochs", 100000, "--out", "run", cwd=folder)
    with process:
        process.stderr.readline()  # type: ignore[union-attr]
        assert_one_line(resume(), 1, "another gpunn train is at work in run")
        process.kill()
        process.communicate(timeout=60)
    assert resume("--epochs", 1).code in (0, 2)


# The disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "512k") as path:
        yield path


def test_a_disk_that_fills_up_is_one_line_and_leaves_the_checkpoint_before(
    undisturbed: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpunn.experiments.folder._ROOM", 0)

    def fill() -> None:
        with (disk / "filling").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1024)):
                    pass
            except OSError:
                return

    with monkeypatch.context() as patch:
        at_step(patch, 25, fill)
        done = gpunn("train", "--recipe", "small.toml", "--checkpoint-every", 10, "--out", disk / "run")
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert "step-30: No space left on device: free some space there" in last
    assert f"checkpoint  step 20: gpunn train --resume {disk / 'run'}" in done.out
    assert steps_of(disk / "run") == [20, 10]
    (disk / "filling").unlink()
    done = resume(run=disk / "run")
    assert done.code == 0, done.err
    assert results_of(disk / "run") == results_of(undisturbed)


def test_a_disk_that_turns_read_only_is_one_line_and_leaves_the_checkpoint_before(
    undisturbed: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpunn.experiments.folder._ROOM", 0)

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)

    with monkeypatch.context() as patch:
        # A file that is open for writing keeps a disk from turning read-only; the lock is not needed here.
        patch.setattr(run_folder, "locked", lambda *_: nullcontext())
        at_step(patch, 25, lambda: remount("ro"))
        done = gpunn("train", "--recipe", "small.toml", "--checkpoint-every", 10, "--out", disk / "run")
    assert done.code == 1
    assert "step-30: Read-only file system" in done.err.splitlines()[-1]
    assert steps_of(disk / "run") == [20, 10]
    assert_one_line(resume(run=disk / "run"), 1, "Read-only file system")
    remount("rw")
    done = resume(run=disk / "run")
    assert done.code == 0, done.err
    assert results_of(disk / "run") == results_of(undisturbed)
