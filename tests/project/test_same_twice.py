"""The same answer twice: run after run, process after process, and whatever else is trained at the same time."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiments.test_resume import EXPERIMENT
from support.checkpoint_helpers import adam, momentum, outcome
from support.cli_helpers import gpunn, own_folder, results_of, start, without_pictures
from support.threads import together

import gpunn as gn
from gpunn.backend import blas
from gpunn.kernels import cores as threads
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

folder = pytest.fixture(autouse=True)(own_folder)


def test_ten_runs_are_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of them in processes of their own, where Python orders its sets otherwise; those draw pictures too."""
    (folder / "small.toml").write_text(EXPERIMENT)
    arguments = ("train", "--recipe", "small.toml", "--out")
    processes = [start(*arguments, f"run{n}", cwd=folder, PYTHONHASHSEED=str(n)) for n in range(3)]
    without_pictures(monkeypatch)
    for n in range(3, 10):
        assert gpunn(*arguments, f"run{n}").code == 0
    for process in processes:
        with process:
            _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    first = results_of(folder / "run0")
    assert all(results_of(folder / f"run{n}") == first for n in range(1, 10))
    assert len({(folder / f"run{n}" / "confusion.png").read_bytes() for n in range(3)}) == 1


def plain() -> Trainer:
    """Updates folded into the products, and products that are large enough for all threads of BLAS."""
    model = gn.Sequential([gn.Dense(200), gn.ReLU(), gn.Dense(10)])
    options: dict[str, Any] = {"batch_size": 100, "epochs": 5, "device": "cpu", "progress": False}
    return Trainer(model, TrainOptions(optimizer=gn.SGD(0.1), **options), gn.load_data("digits"))


@pytest.mark.parametrize("blas_threads", [1, 2])
def test_trainings_in_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch, blas_threads: int) -> None:
    from threadpoolctl import threadpool_limits

    monkeypatch.setattr(threads, "WORTHWHILE", 1)  # so that they share the pool of threads too
    makes: list[Callable[[], Trainer]] = [momentum, adam, plain, momentum]
    with threadpool_limits(blas_threads):
        alone = [make() for make in makes]
        for training in alone:
            training.run()
        trainings = [make() for make in makes]
        together([training.run for training in trainings])
    for one, other in zip(alone, trainings, strict=True):
        assert outcome(one) == outcome(other)


def convolution() -> Trainer:
    """Rows of an image, whose products BLAS gets together."""
    layers = [gn.Conv2D(32, 3, padding="same"), gn.ReLU(), gn.MaxPool2D(2), gn.Flatten(), gn.Dense(10)]
    options: dict[str, Any] = {"batch_size": 500, "epochs": 2, "device": "cpu", "progress": False}
    return Trainer(gn.Sequential(layers), TrainOptions(optimizer=gn.Adam(), **options), gn.load_data("digits"))


@pytest.mark.parametrize("make", [plain, convolution])
def test_a_machine_that_others_use_changes_no_bit(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Trainer]) -> None:
    found = []
    for counts in ((2,), (1,), (1, 2, 2, 1, 2)):
        free = itertools.cycle(counts)
        monkeypatch.setattr(blas.load_monitor, "free", lambda free=free: next(free))
        training = make()
        training.run()
        found.append(outcome(training))
    assert found[0] == found[1] == found[2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_trains_as_its_parent_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the parent's pool has no threads in the child."""
    monkeypatch.setattr(threads, "WORTHWHILE", 1)
    training = adam()
    training.run()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            again = adam()
            again.run()
            status = 0 if outcome(again) == outcome(training) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_reads_the_clock_on_the_wall() -> None:
    """It may jump, at the end of summer or when a machine finds its time server: durations come from another."""
    package = Path(gn.__file__).parent
    for path in package.rglob("*.py"):
        words = path.read_text("utf-8")
        if path.name in (
            "image_cache.py",
            "image_folder.py",
            "folder.py",
        ):  # there times tell files apart, and measure nothing
            words = words.replace("st_mtime_ns", "").replace("st_mtime", "")
        if path.name == "events.py":  # there it dates what is written, as TensorBoard shows it
            words = words.replace("time.time(", "")
        for word in ("time.time(", "datetime", "time_ns(", "localtime", "getmtime", "st_mtime"):
            assert word not in words, f"{path.name} uses {word}"


def test_a_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    alone = momentum()
    alone.run()
    jumps = iter([1e9, 0.0, 3e9, -5.0] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    again = momentum()
    again.run()
    assert outcome(alone) == outcome(again)
    assert all(record.seconds >= 0 for record in again.history)
