"""Detect a training that diverges or learns nothing, and keep weights to fall back to."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpunn.backend import blas
from gpunn.backend.base import Backend
from gpunn.backend.ranks import world
from gpunn.data import Samples
from gpunn.kernels.record import Array
from gpunn.kernels.rollback import mark_not_finite
from gpunn.nn.losses import Loss
from gpunn.nn.parameter import Arrays
from gpunn.train.distributed import first_text
from gpunn.train.history import History
from gpunn.train.record import Record, State, Weights

EXPLOSION = 100.0  # ratio to the larger of 1 and the untrained network's loss from which a training has diverged
BAD_LOSS, BAD_WEIGHTS = "the loss is NaN or Inf", "the weights contain NaN or Inf"
GROWN = "the loss has grown to"
_NEAR = 0.95  # share of a constant prediction's loss above which an accuracy of chance means that nothing is learned


class FiniteCheck:
    """Check loss and weights, and so the gradients, for NaN and Inf; on a device without waiting for it."""

    def __init__(self, backend: Backend, values: Array, totals: Array) -> None:
        self._backend, self._values, self._totals, self._ranks = backend, values, totals, world()
        self._magnitude = blas.planned_magnitude(values) if backend.device == "cpu" else None
        self._flag = backend.zeros((1,), np.int32)
        self._copies = backend.mirror(totals, self._flag)

    def begin(self) -> None:
        """Start a check of the current values."""
        if not self._magnitude:
            self._backend.run(mark_not_finite, self._values, self._flag)
            self._copies.fetch()
            self._backend.assign(self._flag, 0)

    def trouble(self) -> str:
        """Return the fault that the check of `begin` finds on any rank, or ""."""
        return first_text(self._ranks, self._trouble())

    def _trouble(self) -> str:
        totals, flag = (self._totals, None) if self._magnitude else self._copies.fetched()
        if not math.isfinite(totals[0]):
            return BAD_LOSS
        if self._magnitude:
            is_finite = math.isfinite(self._magnitude()) or bool(np.isfinite(self._values).all())
        else:
            is_finite = flag is None or not flag[0]
        return "" if is_finite else BAD_WEIGHTS


class Monitor:
    """Check every record for divergence, and keep the last, the last good and the best weights."""

    def __init__(self, start: Weights) -> None:
        self.history = History()
        self.start = self.last = self.good = start
        self.best: Weights | None = None  # chosen by `EarlyStopping`
        self.untrained_loss: float | None = None  # mean loss of the first batch
        self._forgiven = 0.0  # highest loss of a record after a false alarm

    def trouble(self, record: Record, weights: Weights, loss_of: Callable[[Arrays], float]) -> str:
        """Return the reason why a record shows divergence, or ""."""
        if not math.isfinite(record.train_loss) or not math.isfinite(record.watched_loss):
            return BAD_LOSS
        if not all(np.isfinite(array).all() for array in weights.arrays.values()):
            return BAD_WEIGHTS
        # One outlier in a small validation set may raise its loss without limit, so the networks are compared.
        if record.watched_loss > EXPLOSION * max(1.0, self.untrained_loss or 0.0, self._forgiven):
            untrained = loss_of(self.start.arrays)
            if not loss_of(weights.arrays) <= EXPLOSION * max(1.0, untrained):
                return f"{GROWN} {record.watched_loss:.3g}"
            self._forgiven = record.watched_loss
        return ""

    def add(self, record: Record, weights: Weights) -> None:
        """Add a record without divergence, and the weights at its step."""
        self.history.append(record)
        # A validation loss vouches for the current weights; a training loss is from before the last update.
        self.good = self.last if math.isnan(record.validation_loss) else weights
        self.last = weights

    def restore(self, state: State) -> None:
        """Restore the records and weights of a checkpoint."""
        self.history = History(state.records)
        self.history.stopped, self.history.skipped = state.stopped, state.skipped
        self.last, self.good, self.best = state.last, state.good, state.best
        self.untrained_loss = state.untrained_loss


def no_better_than_chance(
    train: Samples, watched: Samples | None, loss: Loss, last: Record, learning_rate: float | None, outputs: int
) -> str:
    """Say that a network predicts no better than a constant, and what to try; "" if it does better.

    Classes: the accuracy is within two standard errors of the commonest class's share, and the loss is near that of
    predicting the class shares. Float targets: the loss is at least that of predicting their mean, so R² ≤ 0.
    """
    samples, part, reached, accuracy = watched, "validation", last.validation_loss, last.validation_accuracy
    if samples is None:
        samples, part, reached, accuracy = train, "training", last.train_loss, last.train_accuracy
    constant, weights = _constant_loss(samples, loss, outputs), samples.weights
    if samples.classes:
        chance = float(_shares(samples).max())
        # Effective sample size: samples of unequal weights are as uncertain as this many of equal ones.
        count = len(samples) if weights is None else samples.total_weight**2 / float(np.square(weights).sum())
        margin = 2 * math.sqrt(chance * (1 - chance) / count)
        is_chance = accuracy <= chance + margin and reached >= _NEAR * constant
        shown = f"accuracy {accuracy:.2%}, and always answering the commonest class gives {chance:.2%}"
    else:
        is_chance = reached >= constant > 0
        shown = f"loss {reached:.4g}, and always answering the mean of the targets gives {constant:.4g}"
    if not is_chance:
        return ""
    # A network that has memorised the training samples does not suffer from its learning rate.
    if part == "validation" and last.train_loss < 0.5 * _constant_loss(train, loss, outputs):
        causes = "targets that do not depend on the inputs or have outliers, or too few training samples"
    else:
        causes = "a learning rate that is too high"
        causes += "" if learning_rate is None else f" (try half of {learning_rate:g}: {learning_rate / 2:g})"
        causes += ", or inputs that are not scaled or do not belong to their targets"
    return f"no better than chance on the {part} samples: {shown}; the likeliest causes: {causes}"


def _constant_loss(samples: Samples, loss: Loss, outputs: int) -> float:
    """Return the lowest loss of a constant prediction; NaN for a loss of the user's own."""
    if samples.classes:  # labels count as one-hot; a single output is that of class 1 of two
        shares = _shares(samples)[1 if outputs == 1 else 0 :]
        return loss.of_constant(shares, shares)
    targets = samples.targets.astype(np.float64, copy=False)
    means = np.average(targets, axis=0, weights=samples.weights)
    variance = np.average(np.square(targets - means), axis=0, weights=samples.weights)
    return loss.of_constant(means, variance + means**2)


def _shares(samples: Samples) -> NDArray[np.float64]:
    """Return the weighted share of each class."""
    return np.bincount(samples.targets, samples.weights, samples.classes) / samples.total_weight
