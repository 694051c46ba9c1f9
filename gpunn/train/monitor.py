"""Judge the records of a training: does it diverge or overfit, and which weights are there to fall back to?"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from gpunn.nn.parameter import Arrays
from gpunn.train.finite import BAD_LOSS, BAD_WEIGHTS
from gpunn.train.history import History
from gpunn.train.record import Record
from gpunn.train.state import State, Weights

EXPLOSION = 100.0
"""Times the loss of the untrained network on the same samples, or 1 if that is more, that count as diverged."""

GROWN = "the loss has grown to"


class Monitor:
    """Judges every record of a training and remembers the weights that were last, good and best.

    Attributes:
        last: Network at the last record.
        good: Network when a record last found it good.
        best: Network at the record of the lowest watched loss, or None.
        untrained_loss: Mean loss of the first batch, or None before it.
    """

    def __init__(self, start: Weights, patience: float | None = None) -> None:
        self.history, self.patience = History(), patience
        self.start = self.last = self.good = start
        self.best: Weights | None = None
        self.untrained_loss: float | None = None
        self._forgiven = 0.0  # highest loss of a record that was wrongly suspected

    def trouble(self, record: Record, weights: Weights, loss_of: Callable[[Arrays], float]) -> str:
        """Say why a record shows that the training diverged; "" where it does not.

        A high loss alone need not: one outlier in a small validation set makes it as high as it likes, so the network
        is then compared with the untrained one by `loss_of`, which loads arrays and measures them.
        """
        if not math.isfinite(record.train_loss) or not math.isfinite(record.watched_loss):
            return BAD_LOSS
        if not all(np.isfinite(array).all() for array in weights.arrays.values()):
            return BAD_WEIGHTS
        if record.watched_loss > EXPLOSION * max(1.0, self.untrained_loss or 0.0, self._forgiven):
            untrained = loss_of(self.start.arrays)
            if not loss_of(weights.arrays) <= EXPLOSION * max(1.0, untrained):
                return f"{GROWN} {record.watched_loss:.3g}"
            self._forgiven = record.watched_loss
        return ""

    def add(self, record: Record, weights: Weights) -> Iterator[str]:
        """Take a record without trouble and the network at it; yield messages for the user."""
        since = self.history.append(record)
        if since is not None:
            yield (
                f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.1f}: the training loss "
                "still falls, the validation loss no longer does"
            )
        # A validation loss judges the weights as they are; the training loss is from before the last update.
        self.good = self.last if math.isnan(record.validation_loss) else weights
        self.last = weights
        best = self.history.best
        if best is record:
            self.best = weights
        elif self.patience is not None and best is not None and record.epoch - best.epoch >= self.patience:
            self.history.stopped = f"no better validation loss for {self.patience:g} epochs"
            yield f"stopped: {self.history.stopped}"

    def restore(self, state: State) -> None:
        """Take up the records and weights of an earlier part of the training."""
        self.history = History(state.records)
        self.history.stopped, self.history.skipped = state.stopped, state.skipped
        self.last, self.good, self.best = state.last, state.good, state.best
        self.untrained_loss = state.untrained_loss
