"""A training with callbacks gives the device what it gives without: replayed steps stay replayed."""

import io
from pathlib import Path
from typing import Any

import pytest
from support.checkpoint_helpers import images, outcome, trainer

import gpunn as gn
from gpunn.train.trainer import Trainer
from simulated_cuda.core import Core

COUNTED = ("cudaGraphLaunch", "kernels", "products", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaMalloc")


class Every(gn.Callback):
    """Has every hook, and looks at what the host knows."""

    def __init__(self, every_steps: int | None = None) -> None:
        self.every_steps, self.seen = every_steps, list[int]()

    def on_train_begin(self, training: gn.TrainingView) -> None:
        assert training.step == 0

    def on_steps(self, training: gn.TrainingView) -> None:
        self.seen.append(training.step)

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        assert training.step == record.step

    def on_epoch_end(self, training: gn.TrainingView) -> None:
        assert training.epoch % 1 == 0

    def on_train_end(self, training: gn.TrainingView) -> None:
        assert training.step == training.steps


def trained(cuda: Core, *callbacks: gn.Callback) -> tuple[Trainer, dict[str, int]]:
    """A training of 2 epochs of 44 steps with a record at the end of each, and what the device was given."""
    options: dict[str, Any] = {"device": "cuda", "batch_size": 2, "epochs": 2, "validate_every": 44}
    with cuda.memory(1 << 30):  # a pool of its own: what others free at any time need not be allocated
        made = trainer(images(), **options, callbacks=callbacks)
        made.backend.synchronize()  # in a random order some of it could be done later, and be counted
        cuda.reset()
        made.run()
        made.backend.synchronize()
        return made, cuda.counts(*COUNTED)


def test_a_callback_leaves_replays_launches_copies_and_waits_as_they_are(cuda: Core) -> None:
    trained(cuda)  # kernels are compiled
    alone, without = trained(cuda)
    watching = Every()
    watched, given = trained(cuda, watching)
    assert given == without
    assert without["cudaGraphLaunch"] == (5 + 2) + (5 + 1)  # 1 by itself, then 43 and 44 steps by 8, 4, 2 and 1
    assert outcome(watched) == outcome(alone)
    assert watching.seen[:7] == [1, 9, 17, 25, 33, 41, 44]


@pytest.mark.parametrize("every_steps", [None, 8])
def test_the_callbacks_of_gpunn_leave_launches_and_replays_as_they_are(
    cuda: Core, every_steps: int | None, tmp_path: Path
) -> None:
    """With checkpoints, which copy, progress, and steps of graphs of eight asked for: 1 + 7, then eight at a time."""
    alone, without = trained(cuda)
    stopping, progress = gn.EarlyStopping(9, monitor="train_loss"), gn.ProgressBar(io.StringIO())
    watching, checkpointer = Every(every_steps), gn.Checkpointer(tmp_path, every=30)
    watched, given = trained(cuda, watching, stopping, gn.OverfittingDetector(stop=True), progress, checkpointer)
    assert outcome(watched)[:2] == outcome(alone)[:2]
    assert given["products"] == without["products"]
    # Each of four checkpoints asks with one whether the numbers are finite.
    assert given["kernels"] == without["kernels"] + 4
    if every_steps is None:
        assert given["cudaGraphLaunch"] == without["cudaGraphLaunch"]
        assert watching.seen[:3] == [1, 9, 17]
    else:
        assert watching.seen == list(range(8, 89, 8))
        assert without["cudaGraphLaunch"] < given["cudaGraphLaunch"]


@pytest.mark.parametrize("every", [22, 88, 1000])
def test_only_the_replay_before_a_step_that_is_asked_for_is_shorter(cuda: Core, every: int) -> None:
    alone, without = trained(cuda)
    watching = Every(every)
    watched, given = trained(cuda, watching)
    assert watching.seen == list(range(every, 89, every))
    assert outcome(watched) == outcome(alone)
    for name in ("kernels", "products"):
        assert given[name] == without[name]
    # 1 + (2 · 8 + 4 + 1) and 2 · 8 + 4 + 2 steps in place of 1 + 5 · 8 + 2 + 1; and twice the latter for 5 · 8 + 4.
    assert given["cudaGraphLaunch"] == (4 * (2 + 2) if every == 22 else without["cudaGraphLaunch"])
