"""What the records of a training have shown: whether it diverges or overfits, and which weights to fall back to."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpunn.train.history import History
from gpunn.train.record import Record
from gpunn.train.state import State, Weights

EXPLOSION = 100.0
"""How many times the cost of the untrained network on the same samples, or 1 if that is more, counts as diverged."""

COMPARED = 1024
"""Training samples on which a network is compared with the untrained one, where a record raises the suspicion."""


class Monitor:
    """Judges every record of a training and remembers the weights that were last, good and best.

    Args:
        start: the network before its first step.
        patience: epochs without a better watched cost after which the training ends; None for no end.

    Attributes:
        history: all records.
        last: the network at the last record.
        good: the network as it was when a record last found it good.
        best: the network at the record of the lowest watched cost, or None.
        untrained_cost: mean cost of the first batch, or None before it.
        start: the network before its first step.
        forgiven: highest cost of a record that was suspected, and wrongly so: of an outlier, say.
    """

    def __init__(self, start: Weights, patience: float | None = None) -> None:
        self.history = History()
        self.patience = patience
        self.start = self.last = self.good = start
        self.forgiven = 0.0
        self.best: Weights | None = None
        self.untrained_cost: float | None = None

    def trouble(self, record: Record, weights: Weights) -> str:
        """Why a record shows that the training diverged; "" where it does not."""
        if not math.isfinite(record.train_loss) or not math.isfinite(watched(record)):
            return "the cost is no longer a finite number"
        if not all(np.isfinite(array).all() for array in weights.arrays.values()):
            return "the weights are no longer finite numbers"
        return ""

    def is_suspect(self, record: Record) -> bool:
        """Whether a record's cost is so high that the network is to be compared with the untrained one.

        It need not have diverged: one outlier in a small validation set makes a cost as high as it likes.
        """
        return watched(record) > EXPLOSION * max(1.0, self.untrained_cost or 0.0, self.forgiven)

    def add(self, record: Record, weights: Weights) -> Iterator[str]:
        """Take a record without trouble and the network at it.

        Yields:
            What a person should be told.
        """
        since = self.history.append(record)
        if since is not None:
            yield (
                f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.1f}: the training cost "
                "still falls, the validation cost no longer does"
            )
        # A validation cost judges the weights as they are; the training cost is from before the last update.
        self.good = self.last if math.isnan(record.validation_loss) else weights
        self.last = weights
        best = self._record_of(self.best)
        if best is None or watched(record) < watched(best):
            self.best = weights
        elif self.patience is not None and record.epoch - best.epoch >= self.patience:
            self.history.stopped = f"no better validation cost for {self.patience:g} epochs"
            yield f"stopped: {self.history.stopped}"

    def _record_of(self, weights: Weights | None) -> Record | None:
        """The record at which weights were remembered."""
        if weights is None:
            return None
        return next(record for record in reversed(self.history.records) if record.step == weights.step)

    def restore(self, state: State) -> None:
        """Take up what the records of an earlier part of the training have shown."""
        self.history = History(state.records)
        self.history.stopped, self.history.skipped = state.stopped, state.skipped
        self.last, self.good, self.best = state.last, state.good, state.best
        self.untrained_cost = state.untrained_cost


def watched(record: Record) -> float:
    """The cost that a record is judged by: on the validation set, or on the training set where there is none."""
    return record.train_loss if math.isnan(record.validation_loss) else record.validation_loss
