"""The checkpoints of a run: when one is written, which are kept, and which is the newest whole one."""

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

Say = Callable[[str], None]  # shows a line to a person
CHECKPOINTS = "checkpoints"  # folder of them in the folder of a run
MOST_SHARE = 0.02  # of the time of a training, for checkpoints by the clock

_NAME = re.compile(r"step-(0|[1-9][0-9]{0,9})")


@dataclass(frozen=True)
class CheckpointPart:
    """`[checkpoints]`: how often they are written, and how many are kept; no number of a training depends on it."""

    every: int | None = None  # steps
    minutes: float = 1.0  # more where writing takes long; 0 for none by the clock
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("keep", self.keep)):
            if value is not None:
                positive_whole(value, f"{name} of checkpoints")
        real(self.minutes, "minutes of checkpoints", ("be 0 or more", lambda minutes: 0 <= minutes < math.inf))


class Checkpointer(Callback):
    """Writes checkpoints of a training, from which it resumes to the same bits, whatever had cut it off.

    `fit(callbacks=[gn.Checkpointer("run", resume=True)])` begins where there is no checkpoint, and else goes on from
    the newest whole one; a training that has ended returns what it left. Network, data and arguments must be as they
    were, but for `epochs`, `device`, `data_on` and `skip_bad_batches`. Checkpoints are folders in folder/checkpoints;
    `load_model` reads their `model.safetensors` and `best.safetensors`. Those by the clock take at most 2 % of the
    time. One training at a time may use a folder.

    The states of other callbacks (`Callback.state_dict`) are part of a checkpoint. In the main thread a first SIGINT
    (Ctrl-C), SIGTERM or SIGHUP waits until the step is done and a checkpoint of it written; then it does what it does
    without: SIGINT raises KeyboardInterrupt, the others end the process, unless there are handlers of your own.

    Args:
        folder: Folder of the training, made where it is missing.
        every: Number of steps between checkpoints; None for none by steps.
        minutes: Minutes between checkpoints, more where writing takes long; 0 for none by the clock.
        keep: Number of newest checkpoints that are kept, beside the last one before the training began to diverge.
        resume: Whether to go on from a checkpoint. Without it a folder that holds some is refused.

    Raises:
        CheckpointError: From `fit`: there is no whole checkpoint among those there, or it is of another training.
        OutputError: From `fit`: a checkpoint cannot be written, or the folder holds some already.
        OptionError: Arguments that cannot be.
    """

    _turn = TURN
    _waits = False  # `save` does

    def __init__(
        self, folder: StrPath, *, every: int | None = None, minutes: float = 1.0, keep: int = 2, resume: bool = False
    ) -> None:
        self._plan = CheckpointPart(every, minutes, keep)
        if not isinstance(folder, str | os.PathLike) or "\0" in str(folder):
            raise OptionError(f"the folder of checkpoints is a path such as 'run', got {folder!r}")
        self.folder = Path(folder) / CHECKPOINTS
        self.resume = flag(resume, "resume")
        self.step: int | None = None  # of the newest checkpoint
        self.signals: Signals = ForwardingSignals()

    def begin(self, trainer: Trainer, origin: Origin) -> None:
        """Keep the checkpoints of a training, described by its origin, and write the first."""
        self._trainer, self.origin = trainer, origin
        trainer.folder = self.folder.parent
        # The checkpoint that a run resumes is not written again: while it was replaced there would be none.
        path = self.folder / f"step-{trainer.done}"
        self.step = world().of_first(lambda: trainer.done if path.is_dir() else None)
        self._asked, self._saved, self._took = trainer.done, time.monotonic(), 0.0
        # At once: what cannot be written is found before the training, and whenever it is killed there is one.
        self.save()

    def on_train_begin(self, training: TrainingView) -> None:
        trainer = cast(Trainer, training.trainer)
        checkpoint = world().of_first(lambda: self._found(trainer, training.say))
        if checkpoint and is_of_new_network(checkpoint.origin):
            trainer.begin_anew()  # in a notebook it is still that of the training which was cut off
        origin = origin_of(trainer)
        if checkpoint:
            compare(checkpoint, origin)
            restore_training(trainer, checkpoint, training.say)
        self.begin(trainer, origin)
        self.signals = trainer.exits.enter_context(ForwardingSignals())
        trainer.exits.enter_context(self.signals.held())

    def on_steps(self, training: TrainingView) -> None:
        # Asked for once: a signal after that waits for the next step.
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
        """Whether it is time for a checkpoint, as it is at the end; to be asked after a step."""
        trainer, plan, before = self._trainer, self._plan, self._asked
        self._asked = trainer.done
        if trainer.done == trainer.steps or trainer.history.stopped:
            return True
        # A device may have been given several steps at once.
        if plan.every is not None and self._asked // plan.every > before // plan.every:
            return True
        return plan.minutes > 0 and time.monotonic() - self._saved >= max(60 * plan.minutes, self._took / MOST_SHARE)

    def save(self) -> None:
        """Write a checkpoint of the training unless there are non-finite numbers, and remove those no longer kept."""
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
        # A run that diverges resumes from one whose network was still good.
        good = next((step for step, _ in there if step <= trainer.monitor.good.step), None)
        for step, path in there[self._plan.keep :]:
            if step != good:
                remove_folder(path)

    def _found(self, trainer: Trainer, say: Say) -> Checkpoint | None:
        """Make and lock the folder, and open the checkpoint in it that the training goes on from, if any."""
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
    """List step and path of every checkpoint in a folder, whole or not, the newest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def newest_checkpoint(folder: Path, say: Say, most: int | None = None) -> Checkpoint | None:
    """Open the newest whole checkpoint, of at most step `most`; None where there is none, damaged or not."""
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
    """Restore a training that has not begun from a checkpoint of it, and remove those after that one."""
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
