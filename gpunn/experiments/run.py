"""Train an experiment in a run folder, and resume a run from its newest whole checkpoint."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from gpunn.backend.limits import reserved
from gpunn.backend.ranks import world
from gpunn.config.outside import allowing
from gpunn.errors import CheckpointError, DivergenceError, OptionError, OutputError
from gpunn.experiments.experiment import Experiment, parse_experiment, read_experiment
from gpunn.experiments.failure import code_of, line_of
from gpunn.experiments.fine_tuning import prepare
from gpunn.experiments.folder import EXPERIMENT, METRICS, check_room, holds_run, locked, new_folder
from gpunn.experiments.live_history import LiveHistory
from gpunn.experiments.report import REPORT
from gpunn.experiments.results import introduce, write_results, write_stopped
from gpunn.files import StrPath, read_regular, remove_leftovers, write_atomically
from gpunn.reports.events import own_files
from gpunn.reports.tensorboard import TensorBoard
from gpunn.saving.checkpoint import Checkpoint, open_checkpoint
from gpunn.saving.checkpointer import CHECKPOINTS, Checkpointer, Say, newest_checkpoint, restore_training
from gpunn.saving.origin import CHANGEABLE, differences, fingerprint, is_of_fit, summarize
from gpunn.saving.signals import Signals
from gpunn.train.callbacks import TrainingView
from gpunn.train.curves import CURVES
from gpunn.train.trainer import Trainer

Held = TypeVar("Held")
Report = Callable[[Path, Experiment, Trainer, Say], None]  # shows more after the results
PICTURES = 128 << 20  # bytes that a memory limit reserves for pictures

# Settings that may change on resuming. Data are compared by their fingerprint.
_CHANGEABLE = {"version", "description", "checkpoints", "data.source", "data.shape", "data.sha256", "start.network"}
_CHANGEABLE |= {f"training.{name}" for name in CHANGEABLE}
_MOST_METRICS = 16 << 20


def train(
    experiment: Experiment,
    out: StrPath | None,
    say: Say,
    *,
    progress: bool = True,
    report: Report | None = None,
    tensorboard: bool = False,
) -> Path:
    """Run an experiment; write and return its run folder, by default the next free runs/<data>-<recipe>-<n>.

    After a DivergenceError the folder has the last good weights; after a KeyboardInterrupt (by any signal) it has a
    checkpoint of the last step. An error before the training leaves no folder.
    """
    _check_alone(report)
    board = TensorBoard() if tensorboard else None  # first, so that a missing package shows at once
    with Signals() as signals:
        given = experiment
        experiment, data = world().after_first(lambda: prepare(given))
        with reserved(PICTURES):
            trainer = experiment.trainer(data, progress=progress)
        experiment = experiment.resolved(trainer)
        stem = f"{data.name}-{experiment.name}"
        with _on_first_rank(lambda: new_folder(out, stem, say)) as folder:
            _run(folder, experiment, trainer, signals, say, report, board)
    return folder


def resume(
    run: str,
    say: Say,
    *,
    progress: bool = True,
    report: Report | None = None,
    tensorboard: bool = False,
    **changes: Any,
) -> Path:
    """Resume a run in its folder from its newest whole checkpoint, or from the checkpoint that `run` names.

    `changes` go to `Experiment.with_options`: epochs, device, path of the data and checkpoints, and after a divergence
    the learning rate. A run with events for TensorBoard always continues them.
    """
    _check_alone(report)
    folder, named, has_events = world().of_first(lambda: _locate(run))
    board = TensorBoard() if tensorboard else _board_of(folder, say) if has_events else None
    with Signals() as signals, _on_first_rank(lambda: locked(folder, say)):
        with reserved(PICTURES):
            experiment, trainer = _restore(folder, named, changes, say, progress=progress)
        _run(folder, experiment, trainer, signals, say, report, board)
    return folder


def _check_alone(report: Report | None) -> None:
    if report and world().size > 1:
        raise OptionError(f"--profile is of one process, got {world().size}: leave it out, or start without mpiexec")


@contextlib.contextmanager
def _on_first_rank(enter: Callable[[], AbstractContextManager[Held]]) -> Iterator[Held]:
    """Enter a context on rank 0 only, and give its value to all ranks."""
    with contextlib.ExitStack() as held:
        yield world().of_first(lambda: held.enter_context(enter()))


def _locate(run: str) -> tuple[Path, Path | None, bool]:
    """Return the folder of a run, the checkpoint that `run` names, if any, and whether it has TensorBoard events."""
    folder, named = Path(run), None
    if not folder.is_dir():
        raise CheckpointError(f"there is no run folder {folder}: give one that gpunn train has made")
    if folder.absolute().parent.name == CHECKPOINTS:
        folder, named = folder.parent.parent, folder
    if not holds_run(folder):  # before writing or removing files: the folder is not a run's
        raise CheckpointError(f"{folder} holds no run to go on with: neither checkpoints nor {EXPERIMENT}")
    if seeds := sorted(path for path in folder.glob("seed-*") if holds_run(path)):  # whose experiment it has
        mend = f"resume one of them, such as {seeds[0]}, or repeat the command with --seeds"
        raise CheckpointError(f"{folder} holds a run for each seed: {mend}")
    return folder, named, bool(own_files(folder))


def _board_of(folder: Path, say: Say) -> TensorBoard | None:
    """Return a TensorBoard that continues the events of a run; None if its package is missing."""
    try:
        return TensorBoard()
    except OptionError as error:
        say(f"the events of {folder} stay as they are: {error}")
        return None


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    """Add a remedy to errors of writing."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}: free some space there, or give another folder by --out") from None


class _RunCheckpointer(Checkpointer):
    """Write the checkpoints of a run, with its experiment as origin."""

    def __init__(self, folder: Path, experiment: Experiment, signals: Signals) -> None:
        plan = experiment.checkpoints
        super().__init__(folder, every=plan.every, minutes=plan.minutes, keep=plan.keep)
        self.experiment, self.signals = experiment, signals

    def on_train_begin(self, training: TrainingView) -> None:
        trainer = cast(Trainer, training.trainer)
        self.begin(trainer, self.experiment.origin(trainer))

    def on_steps(self, training: TrainingView) -> None:
        trainer = cast(Trainer, training.trainer)
        if trainer.backend.device != self.experiment.training.device:  # the first step moved to the CPU
            self.experiment = self.experiment.resolved(trainer)
            world().of_first(lambda: _write_experiment(self.folder.parent, self.experiment))
            self.origin = self.experiment.origin(trainer)
        super().on_steps(training)


def _write_experiment(folder: Path, experiment: Experiment) -> None:
    write_atomically(folder / EXPERIMENT, experiment.to_toml().encode())


@_output_errors()
def _run(
    folder: Path,
    experiment: Experiment,
    trainer: Trainer,
    signals: Signals,
    say: Say,
    report: Report | None,
    board: TensorBoard | None,
) -> None:
    """Train from the trainer's current step to the end, and write the results."""
    ranks = world()
    ranks.of_first(lambda: check_room(folder, trainer, experiment.checkpoints.keep))
    # First, so that no file is left if standard output fails.
    ranks.of_first(lambda: introduce(experiment, trainer, folder, say))
    ranks.of_first(lambda: _write_experiment(folder, experiment))
    checkpointer = _RunCheckpointer(folder, experiment, signals)
    trainer.callbacks.add(checkpointer)
    trainer.callbacks.add(LiveHistory(folder))
    if board:
        board.texts["experiment"] = experiment.to_toml()
        trainer.callbacks.add(board)

    try:
        with signals.held():
            try:
                trainer.train()
                signals.pending = ranks.control(False, signals.pending or 0)[1] or None
            except BaseException as error:
                if signals.is_urgent:
                    ranks.stop(code_of(error))
                ranks.fail(line_of(error), code_of(error), is_asked=isinstance(error, KeyboardInterrupt))
                # After an OutputError there is no room for these files either.
                if ranks.is_first and not signals.is_urgent and not isinstance(error, OutputError):
                    write_stopped(folder, checkpointer.experiment, trainer, error, say)
                raise
        trainer.finish()
        if not ranks.is_first:
            return
        pictures = write_results(folder, checkpointer.experiment, trainer, say)
        if board:
            board.end_with(TrainingView(trainer), [path for path in pictures if path.name != CURVES])
            say(f"TensorBoard    tensorboard --logdir {folder.parent}")
        if report:
            report(folder, checkpointer.experiment, trainer, say)
    except BaseException as error:
        again = f"gpunn train --resume {folder}{allowing()}"
        if isinstance(error, DivergenceError):
            rate = f"--learning-rate {error.learning_rate:g}"
            say(f"checkpoint  {again} {rate} goes on from the last good one, at half the rate")
        elif checkpointer.step is not None:
            say(f"checkpoint  step {checkpointer.step}: {again} goes on from there")
        raise


def _restore(
    folder: Path, named: Path | None, changes: Mapping[str, Any], say: Say, *, progress: bool
) -> tuple[Experiment, Trainer]:
    """Restore a run in a locked folder from a checkpoint, by default the newest whole one."""
    ranks = world()
    checkpoint, asked = ranks.of_first(lambda: _choose_checkpoint(folder, named, changes, say))
    if ranks.local_size > 1 and changes.get("device") is None and asked.training.device.startswith("cuda:"):
        asked = asked.with_options(device="cuda")  # each rank has its own; the file names that of rank 0
    if checkpoint is None:
        # A run is a function of its experiment: starting again gives the same.
        trainer = asked.trainer(ranks.after_first(asked.load_data), progress=progress)
        say(f"{folder} has no checkpoint yet: it begins again")
        return asked.resolved(trainer), trainer
    # Compare the data here, where the error can show the difference, not in `load_data`.
    data = ranks.after_first(replace(asked, data=replace(asked.data, sha256="")).load_data)
    if difference := summarize(differences(checkpoint.origin.data, fingerprint(data))):
        raise CheckpointError(f"{asked.data.source} does not hold the data of {checkpoint.path}: {difference}")
    # Take the weights from the checkpoint: the pretrained network may be gone.
    trainer = asked.trainer(data, progress=progress, begins=False)
    restore_training(trainer, checkpoint, say)
    ranks.of_first(lambda: _remove_results(folder))
    return asked.resolved(trainer), trainer


def _remove_results(folder: Path) -> None:
    for name in (METRICS, REPORT):  # METRICS marks a finished run, and REPORT describes the run before
        (folder / name).unlink(missing_ok=True)


def _choose_checkpoint(
    folder: Path, named: Path | None, changes: Mapping[str, Any], say: Say
) -> tuple[Checkpoint | None, Experiment]:
    """Choose the checkpoint, and apply the changes; refuse an experiment that differs from the checkpoint's."""
    checkpoints, written, metrics = folder / CHECKPOINTS, folder / EXPERIMENT, None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        metrics = json.loads(read_regular(folder / METRICS, _MOST_METRICS, follow_links=False))
    metrics = metrics if isinstance(metrics, dict) else {}
    rate, last_good = changes.get("learning_rate"), None
    if rate is not None:
        if not str(metrics.get("stopped")).startswith("training diverged"):
            raise OptionError(
                "--learning-rate cannot be given with --resume: it is that of the run, and may be changed only where "
                "that has diverged"
            )
        kept = metrics.get("kept_step", metrics.get("steps"))
        last_good = kept if type(kept) is int else 0
    if checkpoints.is_symlink():
        raise CheckpointError(f"{checkpoints} is a link: what is removed and written there must be of the run")
    for place in (folder, checkpoints):
        if place.is_dir():
            remove_leftovers(place)
    checkpoint, made = newest_checkpoint(checkpoints, say, last_good) if named is None else open_checkpoint(named), None
    if checkpoint is not None:
        if is_of_fit(checkpoint.origin):
            mend = f"gn.Checkpointer({str(folder)!r}, resume=True) goes on with it"
            raise CheckpointError(f"{checkpoint.path} is of a training by fit in Python: there {mend}")
        try:
            made = parse_experiment(checkpoint.origin.experiment, f"the experiment of {checkpoint.path}")
        except OptionError as error:
            raise CheckpointError(str(error)) from None
    asked = read_experiment(str(written)) if written.is_file() else made
    if asked is None:
        raise CheckpointError(f"{folder} holds no checkpoint and no {EXPERIMENT}: there is nothing to go on with")
    epoch = None if rate is None else _epoch(checkpoint, made) if checkpoint and made else 0.0
    asked = asked.with_options(**changes, at_epoch=epoch)
    if metrics.get("finished") is True:
        if metrics.get("stopped"):
            raise CheckpointError(f"{folder} is finished, it stopped early: there is nothing to go on with")
        if made and asked.training.epochs <= made.training.epochs:
            raise CheckpointError(f"{folder} is finished: give more epochs than {made.training.epochs} by --epochs")
    if checkpoint is None or made is None:
        return None, asked
    before = asdict(_with_later_rate(made, asked, checkpoint))
    if difference := summarize(differences(before, asdict(asked), _CHANGEABLE)):
        raise CheckpointError(f"{checkpoint.path} is of another experiment than {written}: {difference}")
    return checkpoint, asked


def _epoch(checkpoint: Checkpoint, made: Experiment) -> float:
    """Return the epoch of a checkpoint, with the same rounding as the argument of schedules."""
    steps = -(-checkpoint.origin.data["train"]["samples"] // made.training.batch_size)
    epoch, number = divmod(checkpoint.step, steps)
    return float(epoch + number / steps)


def _with_later_rate(made: Experiment, asked: Experiment, checkpoint: Checkpoint) -> Experiment:
    """Return a checkpoint's experiment, with the new learning rate if it applies only after the checkpoint."""
    rate, now = made.optimizer.get("learning_rate"), asked.optimizer.get("learning_rate")
    while isinstance(now, dict) and now.get("type") == "Changed" and now != rate:
        if now["before"] == rate and _epoch(checkpoint, made) <= now["at"]:
            return replace(made, optimizer={**made.optimizer, "learning_rate": asked.optimizer["learning_rate"]})
        now = now["before"]
    return made
