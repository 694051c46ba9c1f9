"""Callbacks: code of your own that a training calls between its steps, and never within those it replays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gpunn.backend.base import Backend
from gpunn.config.scalars import positive_whole
from gpunn.data import Data
from gpunn.errors import OptionError
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.train.history import History
from gpunn.train.monitor import Monitor
from gpunn.train.record import Record

JUDGES, YOURS, CHECKPOINTS, DISPLAYS = range(4)  # turns: callbacks of a lower one are called first


class StopTraining(Exception):  # noqa: N818  # no error: it ends a training well
    """Raised by a callback, it ends the training well, as `patience` does.

    The weights stay as they are, or are the best ones where `patience` was given; `history.stopped` holds the reason.

    Args:
        reason: Why the training ends, in a few words. Default: the name of the callback.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class RunningTrainer(Protocol):
    """The part of a `Trainer` that `TrainingView` shows, and that the callbacks of gpunn use."""

    model: Network
    data: Data
    backend: Backend
    batch_size: int
    done: int
    monitor: Monitor
    restores_best: bool
    folder: Path | None
    resumed_from: int | None

    @property
    def history(self) -> History: ...
    @property
    def learning_rate(self) -> float: ...
    def gradients(self) -> Arrays: ...
    @property
    def steps(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def figures(self) -> dict[str, float]: ...
    def settle(self) -> None: ...
    def stop(self, why: str) -> None: ...
    def say(self, text: str) -> None: ...


class TrainingView:
    """A training as its callbacks see it, between two steps.

    Look at whatever you like: predict with the network, evaluate it, save it. The numbers of the training stay the same
    to the last bit as long as you change nothing of the network.

    Attributes:
        model: The network, with the weights of now; with averaged ones at records, and when an epoch or all has ended.
        data: Data set that it is trained on.
        history: Records so far.
        record: The last record, or None before the first.
        step: Number of steps done.
        steps: Number of steps of the whole training.
        steps_per_epoch: Number of steps of an epoch.
        epoch: step / (steps per epoch), as in a record: 1.0 at the end of the first.
        epochs: Number of epochs of the whole training.
        batch_size: Samples in a full batch.
        device: Device it runs on, "cpu" or "cuda:N".
        learning_rate: Learning rate of the last step; before the first, that of the first.
        folder: Folder that the training writes to, of its `Checkpointer`; None where there is none.
        resumed_from: Step of the checkpoint that the training goes on from; None where it has begun anew.
        trainer: What does the training; not public, its names may change.
    """

    def __init__(self, trainer: RunningTrainer) -> None:
        self.trainer = trainer

    @property
    def model(self) -> Network:
        return self.trainer.model

    @property
    def data(self) -> Data:
        return self.trainer.data

    @property
    def history(self) -> History:
        return self.trainer.history

    @property
    def record(self) -> Record | None:
        return self.history[-1] if self.history else None

    @property
    def step(self) -> int:
        return self.trainer.done

    @property
    def steps(self) -> int:
        return self.trainer.steps

    @property
    def steps_per_epoch(self) -> int:
        return self.trainer.steps_per_epoch

    @property
    def epoch(self) -> float:
        return self.step / self.trainer.steps_per_epoch

    @property
    def epochs(self) -> int:
        return self.steps // self.trainer.steps_per_epoch

    @property
    def batch_size(self) -> int:
        return self.trainer.batch_size

    @property
    def device(self) -> str:
        return self.trainer.backend.device

    @property
    def learning_rate(self) -> float:
        return self.trainer.learning_rate

    @property
    def folder(self) -> Path | None:
        return self.trainer.folder

    @property
    def resumed_from(self) -> int | None:
        return self.trainer.resumed_from

    def weights(self) -> Arrays:
        """Copy the weights and biases to the host, by name, "dense1.w"; a device is waited for."""
        return self.model.parameters.to_host()

    def gradients(self) -> Arrays:
        """Compute ∂C₀/∂w of the weights of now on some training samples, the same each time, by name, on the host.

        The samples are as many as a batch has, spread over all of them, as they are: without augmentation. The network
        computes as in training, so BatchNorm takes the statistics of these and Dropout drops; regularizers are left
        out. It takes the memory and the time of a copy of the network and a step.
        """
        return self.trainer.gradients()

    def say(self, text: str) -> None:
        """Write a line above the progress; nothing where no `ProgressBar` shows it, as with `fit(progress=False)`."""
        self.trainer.say(text)

    def __repr__(self) -> str:
        return f"TrainingView(step {self.step} of {self.steps}, {self.history!r})"


class Callback:
    """Base of your own callbacks: override what you need, and give them to `fit(callbacks=[...])`.

    A hook is called between two steps, for each callback in the order of the list. It may raise `StopTraining`; any
    other exception ends the training with the weights of the last record and is raised by `fit`. There is no hook for
    every step: CUDA replays up to eight of them as one graph, and a callback leaves it so.

    Attributes:
        every_steps: `on_steps` is called after each multiple of so many steps; steps between are replayed as before.
            None: whenever the training pauses by itself, on a CPU after each step, on CUDA after up to eight.
        first_rank_only: Of a training on several ranks each calls its callbacks, and all stop where one of them raises
            `StopTraining`. True: only the first rank calls this one, which shows or writes something.
    """

    every_steps: int | None = None
    first_rank_only: bool = False
    _turn = YOURS
    _waits = True  # whether a device is waited for before it is called, so that all records are judged; not inherited

    def on_train_begin(self, training: TrainingView) -> None:
        """Called once, before the first step."""

    def on_steps(self, training: TrainingView) -> None:
        """Called after steps, see `every_steps`; the last of the hooks that are called after a step."""

    def on_record(self, training: TrainingView, record: Record) -> None:
        """Called with each record, by default four times an epoch; see `fit(validate_every=...)`."""

    def on_epoch_end(self, training: TrainingView) -> None:
        """Called after the last step of each epoch, and after its record."""

    def on_train_end(self, training: TrainingView) -> None:
        """Called before `fit` returns, with the network as `fit` leaves it; not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this callback: lists, numbers, texts and the like, by name.

        It is asked for whenever a `Checkpointer` writes. Without one, or where it is empty, a training that resumes
        begins with the callback as it was made.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` has returned; called before `on_train_begin` of a training that resumes."""


class Display(Callback):
    """Shows the lines that a training says; see `ProgressBar`."""

    first_rank_only = True
    _turn = DISPLAYS

    @property
    def is_shown(self) -> bool:
        """Whether anybody sees them."""
        return True

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Leave what is shown as it stands, for lines of others; also after an error."""


class LambdaCallback(Callback):
    """Calls a function wherever the training pauses by itself."""

    def __init__(self, function: Callable[[TrainingView], object]) -> None:
        self._function = function

    def on_steps(self, training: TrainingView) -> None:
        self._function(training)


def checked_callbacks(callbacks: object) -> tuple[Callback, ...]:
    """Return callbacks as a tuple; raise OptionError unless each is one."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, list | tuple):
        raise OptionError(f"callbacks must be a list of callbacks, [{_shown(callbacks)}], say, got {callbacks!r}")
    for each in callbacks:
        if not isinstance(each, Callback):
            mend = f"make one of the class, {each.__name__}()" if isinstance(each, type) else "subclass gn.Callback"
            raise OptionError(f"callbacks must be objects of gn.Callback, got {each!r}: {mend}")
        if each.every_steps is not None:
            positive_whole(each.every_steps, f"every_steps of {type(each).__name__}")
        kind = type(each)
        if (kind.state_dict is Callback.state_dict) != (kind.load_state_dict is Callback.load_state_dict):
            raise OptionError(f"{kind.__name__} must have both state_dict and load_state_dict, or neither, got one")
    return tuple(callbacks)


def _shown(given: object) -> str:
    return type(given).__name__ + "()" if isinstance(given, Callback) else 'gn.Checkpointer("run")'
