"""Write checkpoints of a training, delete old ones, and resume from the newest whole one."""

import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gpunn.backend.ranks import world
from gpunn.config.scalars import flag, positive_whole, real
from gpunn.errors import CheckpointError, OptionError, OutputError
from gpunn.files import StrPath, locked, remove_folder, remove_leftovers
from gpunn.saving.checkpoint import Checkpoint, DamagedCheckpointError, Origin, open_checkpoint, write_checkpoint
from gpunn.saving.origin import compare, is_of_new_network, origin_of, repeat_algorithms, version_changes, versions
from gpunn.saving.signals import ForwardingSignals, Signals
from gpunn.train.callbacks import CHECKPOINTS as TURN
from gpunn.train.callbacks import Callback, TrainingView
from gpunn.train.record import State
from gpunn.train.trainer import Trainer

Say = Callable[[str], None]  # shows one line to the user
CHECKPOINTS = "checkpoints"  # folder within the run folder
MOST_SHARE = 0.02  # of the training time, for checkpoints by the clock

_NAME = re.compile(r"step-(0|[1-9][0-9]{0,9})")


@dataclass(frozen=True)
class CheckpointPart:
    """Settings under `[checkpoints]`: how often to write, how many to keep; they change no number of the training."""

    every: int | None = None  # steps
    minutes: float = 1.0  # longer where writing is slow; 0 for no checkpoints by the clock
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("keep", self.keep)):
            if value is not None:
                positive_whole(value, f"{name} of checkpoints")
        real(self.minutes, "minutes of checkpoints", ("be 0 or more", lambda minutes: 0 <= minutes < math.inf))


class Checkpointer(Callback):
    """Write checkpoints, from which an interrupted training resumes bit for bit.

    `fit(callbacks=[gn.Checkpointer("run", resume=True)])` resumes from the newest whole checkpoint, or starts a new
    training where there is none; a finished training returns its result at once. Network, data and arguments must be
    the same, except `epochs`, `device`, `data_on` and `skip_bad_batches`. Checkpoints are folders in
    folder/checkpoints; `load_model` reads their `model.safetensors` and `best.safetensors`. Checkpoints by the clock
    take at most 2 % of the time. A folder serves one training at a time.

    A checkpoint includes the states of other callbacks (`Callback.state_dict`). In the main thread the first SIGINT
    (Ctrl-C), SIGTERM or SIGHUP waits until the step is done and its checkpoint written. Then it has its usual effect:
    SIGINT raises KeyboardInterrupt, the others end the process, unless you have installed handlers.

    Args:
        folder: Folder of the training, created if missing.
        every: Number of steps between checkpoints; None for no checkpoints by steps.
        minutes: Minutes between checkpoints, longer where writing is slow; 0 for no checkpoints by the clock.
        keep: Number of newest checkpoints to keep, beside the last one before the training began to diverge.
        resume: Whether to resume from a checkpoint. If False, a folder with checkpoints is refused.

    Raises:
        CheckpointError: From `fit`: no checkpoint in the folder is whole, or it belongs to another training.
        OutputError: From `fit`: a checkpoint cannot be written, or the folder has some already.
        OptionError: An argument is invalid.
    """

    _turn = TURN
    _waits = False  # `save` waits itself

    def __init__(
        self, folder: StrPath, *, every: int | None = None, minutes: float = 1.0, keep: int = 2, resume: bool = False
    ) -> None:
        self._plan = CheckpointPart(every, minutes, keep)
        if not isinstance(folder, str | os.PathLike) or "\0" in str(folder):
            raise OptionError(f"the folder of checkpoints is a path such as 'run', got {folder!r}")
        self.folder = Path(folder) / CHECKPOINTS
        self.resume = flag(resume, "resume")
        self.step: int | None = None  # step of the newest checkpoint
        self.signals: Signals = ForwardingSignals()

    def begin(self, trainer: Trainer, origin: Origin) -> None:
        """Start with a training of the given origin, and write its first checkpoint."""
        self._trainer, self.origin = trainer, origin
        trainer.folder = self.folder.parent
        # Do not rewrite the checkpoint that the run resumes from: during the replacement there would be none.
        path = self.folder / f"step-{trainer.done}"
        self.step = world().of_first(lambda: trainer.done if path.is_dir() else None)
        self._asked, self._saved, self._took = trainer.done, time.monotonic(), 0.0
        # At once: a folder that cannot be written shows before the training, and a kill always finds a checkpoint.
        self.save()

    def on_train_begin(self, training: TrainingView) -> None:
        trainer = cast(Trainer, training.trainer)
        checkpoint = world().of_first(lambda: self._open_folder(trainer, training.say))
        if checkpoint and is_of_new_network(checkpoint.origin):
            trainer.reset_counts()  # in a notebook the network has already been trained until the interruption
        origin = origin_of(trainer)
        if checkpoint:
            compare(checkpoint, origin)
            restore_training(trainer, checkpoint, training.say)
        self.begin(trainer, origin)
        self.signals = trainer.exits.enter_context(ForwardingSignals())
        trainer.exits.enter_context(self.signals.held())

    def on_steps(self, training: TrainingView) -> None:
        # Read once: a later signal waits for the next step.
        is_due, sent = world().control(self.is_due(), self.signals.pending or 0)
        if sent:
            self.signals.pending = sent
            if world().size > 1:
                training.say(f"stopping after step {training.step}; once more to stop at once")
        if is_due or sent:
            self.save()
        if sent:
            self.signals.deliver()

    def is_due(self) -> bool:
        """Return whether a checkpoint is due after this step; one always is at the end."""
        trainer, plan, before = self._trainer, self._plan, self._asked
        self._asked = trainer.done
        if trainer.done == trainer.steps or trainer.history.stopped:
            return True
        # A device may have done several steps at once.
        if plan.every is not None and self._asked // plan.every > before // plan.every:
            return True
        return plan.minutes > 0 and time.monotonic() - self._saved >= max(60 * plan.minutes, self._took / MOST_SHARE)

    def save(self) -> None:
        """Write a checkpoint, and delete old ones; raise an error for non-finite weights."""
        trainer = self._trainer
        if self.step == trainer.done:
            return
        trainer.check_numbers()
        trainer.check_same_weights()
        began = time.monotonic()
        state, states = trainer.state(), trainer.callbacks.states()
        world().of_first(lambda: self._write(state, states))
        self.step = trainer.done
        self._saved = time.monotonic()
        self._took = self._saved - began

    def _write(self, state: State, states: dict[str, Any]) -> None:
        trainer = self._trainer
        self._make_folder()
        write_checkpoint(self.folder / f"step-{trainer.done}", state, self.origin, trainer.model, states)
        there = list_checkpoints(self.folder)
        # Keep one from before a divergence, to resume from.
        good = next((step for step, _ in there if step <= trainer.monitor.good.step), None)
        for step, path in there[self._plan.keep :]:
            if step != good:
                remove_folder(path)

    def _open_folder(self, trainer: Trainer, say: Say) -> Checkpoint | None:
        """Create and lock the folder; return the checkpoint to resume from, if any."""
        if self.folder.is_symlink():
            raise CheckpointError(f"{self.folder} is a link: what is removed and written there must be of the training")
        self._make_folder()
        mend = "give another folder"
        trainer.exits.enter_context(locked(self.folder.parent, say, who="training", mend=mend))
        if not list_checkpoints(self.folder):
            return None
        if not self.resume:
            mend = "resume=True goes on from them, and another folder begins anew"
            raise OutputError(f"{self.folder} holds checkpoints already: {mend}")
        remove_leftovers(self.folder)
        return newest_checkpoint(self.folder, say)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.folder}: {error.strerror or error}: give another folder") from None


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """List step and path of every checkpoint in a folder, newest first; they may be damaged."""
    found = [(_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def newest_checkpoint(folder: Path, say: Say, most: int | None = None) -> Checkpoint | None:
    """Open the newest whole checkpoint up to step `most`; None if there is none, CheckpointError if all are damaged."""
    there = [path for step, path in list_checkpoints(folder) if most is None or step <= most]
    for path in there:
        try:
            return open_checkpoint(path)
        except DamagedCheckpointError as error:
            say(f"passed over a damaged checkpoint: {error}")
    if there:
        raise CheckpointError(f"{folder} holds no checkpoint that is whole: begin the run again in another folder")
    return None


def restore_training(trainer: Trainer, checkpoint: Checkpoint, say: Say) -> None:
    """Restore a new trainer from a checkpoint, and delete later checkpoints."""
    trainer.move_to(checkpoint.step)
    like, epochs, ranks = trainer.state(), trainer.options.epochs, world()
    state = ranks.of_first(lambda: checkpoint.state(like))
    if state.now.step > trainer.steps:
        raise OptionError(f"{checkpoint.path} is past {epochs} epochs ({trainer.steps} steps): give more epochs")
    trainer.restore(state)
    trainer.resumed_from = checkpoint.step
    for name in trainer.callbacks.load_states(ranks.of_first(checkpoint.callbacks)):
        say(f"{checkpoint.path} holds the state of a callback {name}, which this training has not")
    if trainer.options.regularizer and (old := [record.step for record in state.records if math.isnan(record.penalty)]):
        say(f"an earlier version recorded the training loss with λR in it, up to step {old[-1]}; from here on apart")
    was = checkpoint.origin.versions
    for line in filter(None, (*version_changes(was, versions(trainer)), repeat_algorithms(trainer, was))):
        say(f"not the same to the last bit: {line}")
    ranks.of_first(lambda: _remove_later(checkpoint, say))


def _remove_later(checkpoint: Checkpoint, say: Say) -> None:
    for step, path in list_checkpoints(checkpoint.path.parent):
        if step > checkpoint.step:
            remove_folder(path)
            say(f"{path} is removed: the run goes on from step {checkpoint.step}")
