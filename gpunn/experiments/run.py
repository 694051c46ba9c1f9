"""A training as a folder: the experiment, its checkpoints, its history, its figures, the network and the pictures.

`experiment.toml` comes first, so a disk that cannot be written is found before the training and not after it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpunn.backend.limits import reserved
from gpunn.errors import DivergenceError, OptionError, OutputError
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.folder import CHECKPOINTS, EXPERIMENT, check_room, locked, new_folder
from gpunn.experiments.results import Say, introduce, write_profile, write_results, write_stopped
from gpunn.experiments.resume import diverged_from, located, origin_of, restored
from gpunn.experiments.signals import Signals
from gpunn.files import write_atomically
from gpunn.saving.checkpointer import Checkpointer
from gpunn.train.trainer import Trainer

PICTURES = 128 << 20
"""Bytes of a memory limit that a training leaves for its pictures: 106 MiB were measured, 43 of them matplotlib's."""


def train(
    experiment: Experiment,
    out: str | os.PathLike[str] | None,
    say: Say,
    *,
    progress: bool = True,
    profiled: bool = False,
) -> Path:
    """Run an experiment and write its run folder.

    Args:
        experiment: what to run.
        out: the folder; None for the next free runs/<data>-<recipe>-<n>.
        say: is given each line that a person should read.
        progress: whether the training shows how far it is.
        profiled: whether to watch some more steps at the end, and to show where their time goes.

    Returns:
        The run folder.

    Raises:
        DivergenceError: the cost left the finite numbers; the folder has the last good weights.
        KeyboardInterrupt: a signal came; the folder has a checkpoint of the step that was done last.
        GpunnError: anything else that cannot be; where the training had not begun, there is no folder.
    """
    with Signals() as signals:
        data = experiment.load_data()
        with reserved(PICTURES):
            trainer = experiment.trainer(data, progress=progress)
        experiment = experiment.resolved(trainer)
        with new_folder(out, f"{data.name}-{experiment.name}", say) as folder:
            with _mended():
                check_room(folder, trainer, experiment.checkpoints.keep)
                introduce(trainer, folder, say)  # first, so that nothing is left where nothing can be said
                write_atomically(folder / EXPERIMENT, experiment.to_toml().encode())
            _run(folder, experiment, trainer, signals, say, profiled)
    return folder


def resume(run: str, say: Say, *, progress: bool = True, profiled: bool = False, **changes: Any) -> Path:
    """Go on with a run in its folder, from its newest whole checkpoint.

    Args:
        run: the run folder, or a checkpoint in one: what came after that is removed.
        say: see `train`.
        progress: see `train`.
        profiled: see `train`.
        changes: what is to be otherwise from now on, for `Experiment.with_options`: epochs, device, where the data
            are, and checkpoints; of a run that has diverged the learning rate too.

    Returns:
        The run folder.

    Raises:
        CheckpointError: there is nothing to go on from, or it is of another experiment or other data.
        GpunnError, KeyboardInterrupt: see `train`.
    """
    if changes.get("learning_rate") is not None and diverged_from(run) is None:
        raise OptionError(
            "--learning-rate cannot be given with --resume: it is that of the run, and may be changed only where "
            "that has diverged"
        )
    folder, named = located(run)
    with Signals() as signals, locked(folder, say):
        with reserved(PICTURES):
            experiment, trainer = restored(folder, named, changes, say, progress=progress)
        with _mended():
            check_room(folder, trainer, experiment.checkpoints.keep)
            write_atomically(folder / EXPERIMENT, experiment.to_toml().encode())
        introduce(trainer, folder, say)
        if trainer.done:
            say(f"resumed     from step {trainer.done}, epoch {trainer.done / trainer.step.steps_per_epoch:.4g}")
        _run(folder, experiment, trainer, signals, say, profiled)
    return folder


def _run(folder: Path, experiment: Experiment, trainer: Trainer, signals: Signals, say: Say, profiled: bool) -> None:
    """Train from where the trainer is to the end, and write the results."""
    checkpointer = Checkpointer(folder / CHECKPOINTS, trainer, origin_of(experiment, trainer), experiment.checkpoints)
    try:
        with _mended():
            with signals.held():
                _train(folder, experiment, trainer, checkpointer, signals, say)
            trainer.finish()
            write_results(folder, experiment, trainer, say)
            if profiled:
                write_profile(folder, experiment, trainer, say)
    except DivergenceError as error:
        say(
            f"checkpoint  gpunn train --resume {folder} --learning-rate {error.learning_rate:g} goes on from the last "
            "good one, at half the rate"
        )
        raise
    except BaseException:
        if checkpointer.step is not None:
            say(f"checkpoint  step {checkpointer.step}: gpunn train --resume {folder} goes on from there")
        raise


def _train(
    folder: Path, experiment: Experiment, trainer: Trainer, checkpointer: Checkpointer, signals: Signals, say: Say
) -> None:
    """Train with checkpoints; a training that is cut off leaves what there is of it."""

    def after_step() -> None:
        is_due = checkpointer.is_due()
        is_to_stop = signals.pending is not None  # asked for once: what comes in after that waits for the next step
        if is_due or is_to_stop:
            checkpointer.save()
        if is_to_stop:
            signals.deliver()

    try:
        # At once: what cannot be written is found before the training, and whenever it is killed there is one.
        checkpointer.save()
        trainer.train(after_step)
        checkpointer.save()
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
    """Errors of writing say what to do."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}: free some space there, or give another folder by --out") from None
