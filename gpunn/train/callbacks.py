"""Call code of your own between the steps of a training."""

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

JUDGES, YOURS, CHECKPOINTS, DISPLAYS = range(4)  # turns, called in this order


class StopTraining(Exception):  # noqa: N818  # no error: it ends a training well
    """End the training well, as `patience` does: raise it in a callback.

    The weights stay as they are; with `patience`, the best ones are put back. `history.stopped` holds the reason.

    Args:
        reason: Why the training ends, in a few words. Default: the name of the callback.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class RunningTrainer(Protocol):
    """Attributes of a `Trainer` that `TrainingView` shows and the callbacks of gpunn use."""

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
    """View of a training for its callbacks, between two steps.

    Predict with the network, evaluate it, save it: as long as you change nothing of the network, the numbers of the
    training stay the same to the last bit.

    Attributes:
        model: Network with its current weights; with averaged ones at a record, and at the end of an epoch or of all.
        data: Data set of the training.
        history: Records so far.
        record: Last record, or None before the first.
        step: Number of steps done.
        steps: Number of steps of the whole training.
        steps_per_epoch: Number of steps of an epoch.
        epoch: step / (steps per epoch), as in a record: 1.0 at the end of the first epoch.
        epochs: Number of epochs of the whole training.
        batch_size: Number of samples in a full batch.
        device: Device of the training, "cpu" or "cuda:N".
        learning_rate: Learning rate of the last step; before the first step, of the first.
        folder: Folder of the training's `Checkpointer`, or None without one.
        resumed_from: Step of the checkpoint that the training resumed from, or None.
        trainer: The trainer itself; not public, its names may change.
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
        """Copy the weights and biases to the host, by name, "dense1.w"; waits for the device."""
        return self.model.parameters.to_host()

    def gradients(self) -> Arrays:
        """Compute ∂C₀/∂w at the current weights, by name, on the host; always on the same training samples.

        The samples are one batch, evenly spaced over the training set, without augmentation. The network computes as in
        training: BatchNorm normalises by this batch, and Dropout drops. Regularizers are left out. The call takes the
        memory of a second network and the time of a step.
        """
        return self.trainer.gradients()

    def say(self, text: str) -> None:
        """Write a line above the progress bar; without one, as with `fit(progress=False)`, write nothing."""
        self.trainer.say(text)

    def __repr__(self) -> str:
        return f"TrainingView(step {self.step} of {self.steps}, {self.history!r})"


class Callback:
    """Base of your own callbacks: override what you need, and give them to `fit(callbacks=[...])`.

    Hooks are called between two steps, for each callback in the order of the list. A hook may raise `StopTraining`. Any
    other exception ends the training with the weights of the last record, and `fit` raises it again. No hook is called
    for every step, since CUDA replays up to eight steps as one graph.

    Attributes:
        every_steps: Number of steps from one `on_steps` to the next; CUDA still replays the steps between. None: call
            it at every pause of the training, after each step on a CPU, after up to eight steps on CUDA.
        first_rank_only: Whether only the first rank calls this callback, because it shows or writes something. On
            several ranks each calls the others, and all ranks stop when one of them raises `StopTraining`.
    """

    every_steps: int | None = None
    first_rank_only: bool = False
    _turn = YOURS
    _waits = True  # whether hooks wait until all records are judged, and so for the device; not inherited

    def on_train_begin(self, training: TrainingView) -> None:
        """Run once, before the first step."""

    def on_steps(self, training: TrainingView) -> None:
        """Run after some steps, see `every_steps`; the other hooks of a step come first."""

    def on_record(self, training: TrainingView, record: Record) -> None:
        """Run on each record, by default four times an epoch; see `fit(validate_every=...)`."""

    def on_epoch_end(self, training: TrainingView) -> None:
        """Run after the last step of each epoch, and after its record."""

    def on_train_end(self, training: TrainingView) -> None:
        """Run before `fit` returns, with the network as `fit` leaves it; not called after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return the callback's state for a checkpoint: lists, numbers and texts, by name.

        Each checkpoint of a `Checkpointer` has it. Without a `Checkpointer`, or with an empty state, a resumed training
        begins with a fresh callback.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of `state_dict`; called before `on_train_begin` when a training resumes."""


class Display(Callback):
    """Show the messages of a training; see `ProgressBar`."""

    first_rank_only = True
    _turn = DISPLAYS

    @property
    def is_shown(self) -> bool:
        """Return whether anybody sees the display."""
        return True

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """End the display, so that others may write below it; also called after an error."""


class LambdaCallback(Callback):
    """Call a function at every pause of a training."""

    def __init__(self, function: Callable[[TrainingView], object]) -> None:
        self._function = function

    def on_steps(self, training: TrainingView) -> None:
        self._function(training)


def checked_callbacks(callbacks: object) -> tuple[Callback, ...]:
    """Return callbacks as a tuple; raise OptionError for anything else among them."""
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
