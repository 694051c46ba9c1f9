"""Stop a training early, keep its best weights, and report overfitting."""

import math
from typing import Any

from gpunn.config.scalars import NOT_NEGATIVE, flag, real
from gpunn.errors import OptionError
from gpunn.train.callbacks import JUDGES, Callback, StopTraining, TrainingView
from gpunn.train.record import Record

_RISING = ("accuracy", "r2", "f1", "auc", "precision", "recall", "exact")  # ends of names of metrics to maximise
_FALLING = ("loss", "rmse", "mae", "penalty")  # to minimise
_PARTS = ("train", "validation")  # samples whose metrics a record has


class EarlyStopping(Callback):
    """Stop a training when it no longer improves, and restore the weights of its best record.

    `fit(patience=3)` is short for `fit(callbacks=[gn.EarlyStopping(3)])`. A training has at most one. Its state follows
    from the records, so a training that a `Checkpointer` resumes stops at the same step as an uninterrupted one.

    Args:
        patience: Number of epochs without a better record after which the training stops. An epoch usually has four
            records.
        monitor: Metric to watch: one of a `Record`, such as "validation_accuracy" or "train_loss", or one of `fit`,
            such as "f1".
        mode: "min" if lower is better, "max" if higher is better. Default: by the name of the metric.
        min_delta: Least improvement over the best record that counts.
        restore_best: Whether to restore the weights of the best record at the end, even after the last epoch.

    Attributes:
        best: Best record so far, or None.

    Raises:
        OptionError: A bad argument; from `fit`: records without this metric.
    """

    _turn = JUDGES

    def __init__(
        self,
        patience: float,
        *,
        monitor: str = "validation_loss",
        mode: str | None = None,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        self.patience = real(patience, "patience")
        if not self.patience > 0:
            raise OptionError(f"patience must be above 0 epochs, got {patience!r}")
        if not isinstance(monitor, str) or not monitor:
            raise OptionError(f"monitor must name a metric of records, such as 'validation_loss', got {monitor!r}")
        if mode is None:
            mode = "max" if monitor.endswith(_RISING) else "min" if monitor.endswith(_FALLING) else None
        if not isinstance(mode, str) or mode not in ("min", "max"):
            raise OptionError(f"mode must say whether {monitor} is better low, 'min', or high, 'max', got {mode!r}")
        self.monitor, self.mode = monitor, mode
        self.min_delta = real(min_delta, "min_delta", NOT_NEGATIVE)
        self.restore_best = flag(restore_best, "restore_best")
        self.best: Record | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments other than `patience` that differ from the defaults, by name."""
        given = {"monitor": self.monitor, "mode": self.mode, "min_delta": self.min_delta}
        usual = {"monitor": "validation_loss", "mode": "min", "min_delta": 0.0}
        restoring = {} if self.restore_best else {"restore_best": False}
        return {name: value for name, value in given.items() if value != usual[name]} | restoring

    @property
    def needs_validation(self) -> bool:
        """Return whether the metric is one of the validation set."""
        return self.monitor.startswith("validation")

    @property
    def was_best(self) -> str:
        """Merit of the best record, in words."""
        return f"{self._words} was {'lowest' if self.mode == 'min' else 'highest'}"

    @property
    def _words(self) -> str:
        return self.monitor.replace("_", " ")

    def on_train_begin(self, training: TrainingView) -> None:
        self.best = None
        for record in training.history:  # records before a checkpoint
            if self._is_better(record):
                self.best = record
        training.trainer.restores_best = self.restore_best

    def on_record(self, training: TrainingView, record: Record) -> None:
        if self._is_better(record):
            self.best = record
            training.trainer.monitor.best = training.trainer.monitor.last
        elif self.best is not None and record.epoch - self.best.epoch >= self.patience:
            raise StopTraining(f"no better {self._words} for {self.patience:g} epochs")

    def _is_better(self, record: Record) -> bool:
        now, best = self._measure(record), None if self.best is None else self._measure(self.best)
        if not math.isfinite(now[1]):
            return False
        return best is None or now[0] < best[0] or (now[0] == best[0] and now[1] < best[1] - self.min_delta)

    def _measure(self, record: Record) -> tuple[bool, float]:
        """Return a key to minimise: the metric, or the training loss after all records with a validation loss."""
        figures = {f"{part}_{name}": value for part in _PARTS for name, value in record.figures(part).items()}
        figures |= record.metrics
        value = figures.get(self.monitor, record.penalty if self.monitor == "penalty" else math.nan)
        if self.monitor == "validation_loss" and not math.isfinite(value):
            return True, record.train_loss
        if self.best is None and math.isnan(value) and self.monitor not in figures:
            what = f"{self.monitor!r}, the monitor of EarlyStopping, is no metric of this training"
            raise OptionError(f"{what}: take one of {', '.join(figures)}")
        return False, -value if self.mode == "max" else value

    def __repr__(self) -> str:
        more = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"EarlyStopping({self.patience:g}{more})"


class BestWeights(EarlyStopping):
    """Keep the weights of the lowest validation loss for checkpoints, and never stop the training."""

    _waits = False

    def __init__(self) -> None:
        super().__init__(math.inf, restore_best=False)

    @property
    def needs_validation(self) -> bool:
        return False  # the training loss replaces a missing validation loss


class OverfittingDetector(Callback):
    """Report once since when a training overfits: `history.overfitting_since` (docs/design/overfitting.md).

    Every training has one, with `stop=False`.

    Args:
        stop: Whether overfitting also ends the training. The weights stay as they are; together with `EarlyStopping`,
            those of the lowest validation loss are restored.

    Raises:
        OptionError: `stop` is neither True nor False.
    """

    _turn = JUDGES
    _waits = False

    def __init__(self, stop: bool = False) -> None:
        self.stop = self._waits = flag(stop, "stop")
        self._is_reported = False

    def on_train_begin(self, training: TrainingView) -> None:
        self._is_reported = training.history.overfitting_since is not None

    def on_record(self, training: TrainingView, record: Record) -> None:
        since = training.history.overfitting_since
        if since is None or self._is_reported:
            return
        self._is_reported = True
        when = f"since step {since.step}, epoch {since.epoch:.1f}"
        falls = "the training loss still falls, the validation loss no longer does"
        training.say(f"overfitting (high variance) {when}: {falls}")
        if self.stop:
            raise StopTraining(f"overfitting {when}")
