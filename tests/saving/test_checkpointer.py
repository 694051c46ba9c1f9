"""When checkpoints are written, and which stay."""

from pathlib import Path
from typing import Any

import pytest
from support.checkpoint_helpers import ORIGIN, calling, momentum

from gpunn.errors import OptionError
from gpunn.saving import checkpointer as module
from gpunn.saving.checkpointer import Checkpointer, CheckpointPart, list_checkpoints


class Clock:
    """A clock that is set by hand; writing a checkpoint takes so long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took: float = 0.0) -> None:
        self.now, original = 5000.0, module.write_checkpoint

        def write(*arguments: object) -> None:
            self.now += took
            original(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "write_checkpoint", write)


def checkpointer(path: Path, **plan: Any) -> Checkpointer:
    """A checkpointer of a training that has not begun; the first checkpoint is there."""
    made = Checkpointer(path, **plan)
    made.begin(momentum(), ORIGIN)
    return made


def test_a_checkpoint_is_due_a_minute_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, took=0.5)
    kept = checkpointer(tmp_path)
    for seconds, is_due in ((1, False), (58, False), (1, True)):
        clock.now += seconds
        assert kept.is_due() is is_due


@pytest.mark.parametrize(("took", "pause"), [(1.0, 60), (3.0, 150), (60.0, 3000)])
def test_checkpoints_by_the_clock_take_at_most_a_fiftieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, pause: float
) -> None:
    clock = Clock(monkeypatch, took)
    kept = checkpointer(tmp_path)
    clock.now += pause - 0.01
    assert not kept.is_due()
    clock.now += 0.02
    assert kept.is_due()


def test_a_checkpoint_is_due_every_so_many_steps_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, took=100.0)
    kept = checkpointer(tmp_path, every=3, minutes=0.0)
    due = []

    def after_step() -> None:
        if kept.is_due():
            kept.save()
            due.append(kept.step)

    with calling(kept._trainer, after_step):
        kept._trainer.train()
    assert due == [3, 6, 9, 12, 15, 18, 21, 24]


def test_a_device_that_is_given_several_steps_at_once_saves_after_those_that_pass_the_step(tmp_path: Path) -> None:
    kept = checkpointer(tmp_path, every=10, minutes=0.0)
    due = []
    for done in (1, 8, 9, 11, 19, 20, 23, 47, 48):
        kept._trainer.done = done
        if kept.is_due():
            due.append(done)
    assert due == [11, 20, 47]


def test_no_minutes_are_no_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    kept = checkpointer(tmp_path, minutes=0.0)
    clock.now += 1e9
    assert not kept.is_due()


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    kept = checkpointer(tmp_path, keep=keep)
    with calling(kept._trainer, kept.save):
        kept._trainer.train()
    assert [step for step, _ in list_checkpoints(kept.folder)] == list(range(24, 24 - keep, -1))
    assert {path.name for path in kept.folder.iterdir()} == {f"step-{step}" for step in range(24, 24 - keep, -1)}


def test_a_step_is_not_written_twice_not_even_by_the_run_that_goes_on_from_it(tmp_path: Path) -> None:
    kept = checkpointer(tmp_path)
    folder = tmp_path / "checkpoints" / "step-0"
    before = folder.stat().st_ino
    kept.save()
    checkpointer(tmp_path)
    assert folder.stat().st_ino == before


def test_only_what_is_named_like_a_checkpoint_is_taken_for_one(tmp_path: Path) -> None:
    for name in ("step-7", "step-10", "step-07", "step-", "step-x", ".step-3.0123abcd.tmp", "step-1.bak", "notes"):
        (tmp_path / name).mkdir()
    assert [path.name for _, path in list_checkpoints(tmp_path)] == ["step-10", "step-7"]
    assert list_checkpoints(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"every": 1.5}, {"keep": 0}, {"minutes": -1.0}, {"minutes": float("nan")}], ids=str
)
def test_a_plan_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="of checkpoints must be"):
        CheckpointPart(**options)  # type: ignore[arg-type]
