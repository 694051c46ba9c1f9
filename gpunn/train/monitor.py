"""Judge the records of a training: does it diverge or learn nothing, and which weights are there to fall back to?"""

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

EXPLOSION = 100.0  # times the untrained network's loss, or 1 if that is more, from which a training has diverged
BAD_LOSS, BAD_WEIGHTS = "the loss is NaN or Inf", "the weights contain NaN or Inf"
GROWN = "the loss has grown to"
_NEAR = 0.95  # share of a constant answer's loss above which answers like those of chance show nothing learned


class FiniteCheck:
    """Tells whether loss and weights are finite, and so the gradients; of a device, from copies on their way."""

    def __init__(self, backend: Backend, values: Array, totals: Array) -> None:
        self._backend, self._values, self._totals, self._ranks = backend, values, totals, world()
        self._magnitude = blas.planned_magnitude(values) if backend.device == "cpu" else None
        self._flag = backend.zeros((1,), np.int32)
        self._copies = backend.mirror(totals, self._flag)

    def begin(self) -> None:
        """Look at the numbers of now, without waiting for a device."""
        if not self._magnitude:
            self._backend.run(mark_not_finite, self._values, self._flag)
            self._copies.fetch()
            self._backend.assign(self._flag, 0)

    def trouble(self) -> str:
        """Say which of them was not finite at the last `begin`, on any rank; "" where both were."""
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
    """Looks for a divergence in every record, and remembers the weights that were last, last good, and best."""

    def __init__(self, start: Weights) -> None:
        self.history = History()
        self.start = self.last = self.good = start
        self.best: Weights | None = None  # chosen by `EarlyStopping`
        self.untrained_loss: float | None = None  # mean of the first batch
        self._forgiven = 0.0  # highest loss of a record that was wrongly suspected

    def trouble(self, record: Record, weights: Weights, loss_of: Callable[[Arrays], float]) -> str:
        """Say why a record shows that the training diverged; "" where it does not."""
        if not math.isfinite(record.train_loss) or not math.isfinite(record.watched_loss):
            return BAD_LOSS
        if not all(np.isfinite(array).all() for array in weights.arrays.values()):
            return BAD_WEIGHTS
        # One outlier in a small validation set makes its loss as high as it likes, so the networks are compared.
        if record.watched_loss > EXPLOSION * max(1.0, self.untrained_loss or 0.0, self._forgiven):
            untrained = loss_of(self.start.arrays)  # first: the network keeps the weights that are measured last
            if not loss_of(weights.arrays) <= EXPLOSION * max(1.0, untrained):
                return f"{GROWN} {record.watched_loss:.3g}"
            self._forgiven = record.watched_loss
        return ""

    def add(self, record: Record, weights: Weights) -> None:
        """Take a record without trouble and the network at it."""
        self.history.append(record)
        # A validation loss judges the weights as they are; the training loss is from before the last update.
        self.good = self.last if math.isnan(record.validation_loss) else weights
        self.last = weights

    def restore(self, state: State) -> None:
        """Take up the records and weights of an earlier part of the training."""
        self.history = History(state.records)
        self.history.stopped, self.history.skipped = state.stopped, state.skipped
        self.last, self.good, self.best = state.last, state.good, state.best
        self.untrained_loss = state.untrained_loss


def no_better_than_chance(
    train: Samples, watched: Samples | None, loss: Loss, last: Record, learning_rate: float | None, outputs: int
) -> str:
    """Say why a record shows a network that does no better than a constant answer, and what to do; "" where it does.

    Classes: the accuracy is that of always answering the commonest one, within two standard errors, and the loss near
    that of always answering their shares. Float targets: the loss is that of answering their mean, R² ≤ 0, or above.
    """
    samples, part, reached, accuracy = watched, "validation", last.validation_loss, last.validation_accuracy
    if samples is None:
        samples, part, reached, accuracy = train, "training", last.train_loss, last.train_accuracy
    constant, weights = _constant_loss(samples, loss, outputs), samples.weights
    if samples.classes:
        chance = float(_shares(samples).max())
        # Samples of unequal weights are as uncertain as this many of equal ones.
        count = len(samples) if weights is None else samples.total_weight**2 / float(np.square(weights).sum())
        margin = 2 * math.sqrt(chance * (1 - chance) / count)
        is_chance = accuracy <= chance + margin and reached >= _NEAR * constant
        shown = f"accuracy {accuracy:.2%}, and always answering the commonest class gives {chance:.2%}"
    else:
        is_chance = reached >= constant > 0
        shown = f"loss {reached:.4g}, and always answering the mean of the targets gives {constant:.4g}"
    if not is_chance:
        return ""
    # Where the training samples are known by heart, the learning rate is not to blame.
    if part == "validation" and last.train_loss < 0.5 * _constant_loss(train, loss, outputs):
        causes = "targets that do not depend on the inputs or have outliers, or too few training samples"
    else:
        causes = "a learning rate that is too high"
        causes += "" if learning_rate is None else f" (try half of {learning_rate:g}: {learning_rate / 2:g})"
        causes += ", or inputs that are not scaled or do not belong to their targets"
    return f"no better than chance on the {part} samples: {shown}; the likeliest causes: {causes}"


def _constant_loss(samples: Samples, loss: Loss, outputs: int) -> float:
    """Return the lowest loss of a network with the same answer to every input; NaN for a loss of the user's own."""
    if samples.classes:  # labels count as one-hot; one output alone is that of class 1 of two
        shares = _shares(samples)[1 if outputs == 1 else 0 :]
        return loss.of_constant(shares, shares)
    targets = samples.targets.astype(np.float64, copy=False)
    means = np.average(targets, axis=0, weights=samples.weights)
    variance = np.average(np.square(targets - means), axis=0, weights=samples.weights)
    return loss.of_constant(means, variance + means**2)


def _shares(samples: Samples) -> NDArray[np.float64]:
    """Return the share of each class in samples, by weight."""
    return np.bincount(samples.targets, samples.weights, samples.classes) / samples.total_weight
