"""A training as a folder: the experiment, its checkpoints, its history, its figures, the network and the pictures.

`experiment.toml` comes first, so a disk that cannot be written is found before the training and not after it.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpunn.backend.limits import reserved
from gpunn.errors import DivergenceError, OutputError
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.folder import CHECKPOINTS, EXPERIMENT, check_room, locked, new_folder
from gpunn.experiments.results import introduce, write_results, write_stopped
from gpunn.experiments.resume import located, restored
from gpunn.experiments.signals import Signals
from gpunn.files import write_atomically
from gpunn.saving.checkpointer import Checkpointer, Say
from gpunn.train.trainer import Trainer

Report = Callable[[Path, Experiment, Trainer, Say], None]
"""Tells more of a training, after its results, which it must not change."""

PICTURES = 128 << 20
"""Bytes of a memory limit that a training leaves for its pictures."""


def train(
    experiment: Experiment,
    out: str | os.PathLike[str] | None,
    say: Say,
    *,
    progress: bool = True,
    report: Report | None = None,
) -> Path:
    """Run an experiment, write its run folder, by default the next free runs/<data>-<recipe>-<n>, and return that.

    After a DivergenceError the folder has the last good weights, after a KeyboardInterrupt (of any signal) a checkpoint
    of the last step. After an error before the training there is no folder.
    """
    with Signals() as signals:
        data = experiment.load_data()
        with reserved(PICTURES):
            trainer = experiment.trainer(data, progress=progress)
        experiment = experiment.resolved(trainer)
        with new_folder(out, f"{data.name}-{experiment.name}", say) as folder:
            _run(folder, experiment, trainer, signals, say, report)
    return folder


def resume(run: str, say: Say, *, progress: bool = True, report: Report | None = None, **changes: Any) -> Path:
    """Resume a run in its folder from its newest whole checkpoint, or from the checkpoint that `run` names.

    `changes` are for `Experiment.with_options`: epochs, device, place of the data, and checkpoints; of a run that has
    diverged the learning rate too.
    """
    folder, named = located(run)
    with Signals() as signals, locked(folder, say):
        with reserved(PICTURES):
            experiment, trainer = restored(folder, named, changes, say, progress=progress)
        _run(folder, experiment, trainer, signals, say, report)
    return folder


def _run(
    folder: Path, experiment: Experiment, trainer: Trainer, signals: Signals, say: Say, report: Report | None
) -> None:
    """Train to the end from where the trainer is, and write the results."""
    with _mended():
        check_room(folder, trainer, experiment.checkpoints.keep)
        introduce(trainer, folder, say)  # first, so that nothing is left where nothing can be said
        write_atomically(folder / EXPERIMENT, experiment.to_toml().encode())
    checkpointer = Checkpointer(folder / CHECKPOINTS, trainer, experiment.origin(trainer), experiment.checkpoints)
    try:
        with _mended():
            with signals.held(), _kept(folder, experiment, trainer, signals, say):
                # At once: what cannot be written is found before the training, and whenever it is killed there is one.
                checkpointer.save()
                trainer.train(lambda: _after_step(checkpointer, signals))
                checkpointer.save()
            trainer.finish()
            write_results(folder, experiment, trainer, say)
            if report:
                report(folder, experiment, trainer, say)
    except BaseException as error:
        again = f"gpunn train --resume {folder}"
        if isinstance(error, DivergenceError):
            rate = f"--learning-rate {error.learning_rate:g}"
            say(f"checkpoint  {again} {rate} goes on from the last good one, at half the rate")
        elif checkpointer.step is not None:
            say(f"checkpoint  step {checkpointer.step}: {again} goes on from there")
        raise


def _after_step(checkpointer: Checkpointer, signals: Signals) -> None:
    is_due = checkpointer.is_due()
    is_to_stop = signals.pending is not None  # asked for once: a signal after that waits for the next step
    if is_due or is_to_stop:
        checkpointer.save()
    if is_to_stop:
        signals.deliver()


@contextlib.contextmanager
def _kept(folder: Path, experiment: Experiment, trainer: Trainer, signals: Signals, say: Say) -> Iterator[None]:
    """Write what there is of a training that is cut off."""
    try:
        yield
    except OutputError:
        raise  # there is no room for more
    except BaseException as error:
        if signals.is_urgent:
            raise
        if isinstance(error, DivergenceError):
            stopped = str(error)
        elif isinstance(error, KeyboardInterrupt):
            stopped, trainer.kept = "interrupted", trainer.done
        else:
            stopped = f"{type(error).__name__}: {error}"
            trainer.put_back(trainer.monitor.last)
        write_stopped(folder, experiment, trainer, stopped)
        kept = f"step {trainer.kept}" if trainer.kept else "the start"
        say(f"stopped: the weights of {kept}, history.csv and curves.png are in {folder}")
        raise


@contextlib.contextmanager
def _mended() -> Iterator[None]:
    """Let errors of writing say what to do."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}: free some space there, or give another folder by --out") from None
