"""The complete training state; restoring it resumes a run bit for bit.

Orders of epochs, dropout masks and augmented images are pure functions of the seed and the number of the step, so the
number is all that is kept of them.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gpunn.nn.parameter import Arrays
from gpunn.train.record import Record

Trained = tuple[int, int]
"""Epochs begun and steps done in all trainings of a network: the next one continues the count."""


@dataclass(frozen=True)
class Weights:
    """Parameters and statistics of a network after a step of the run, and its count of all trainings by then."""

    step: int
    arrays: Arrays
    trained: Trained = (0, 0)


@dataclass(frozen=True)
class State:
    """A training between two steps.

    Attributes:
        now: Network after the steps done.
        last: Network at the last record.
        good: Network when a record last found it good.
        best: Network at the record of the lowest watched loss; None before the first record.
        optimizer: State of the optimizer.
        totals: Sum of the losses and number of right answers since the last record.
        samples: Number of samples of the totals.
        records: History so far.
        stopped: Reason of an end before the last epoch, or "".
        skipped: Number of batches skipped because they led to NaN or Inf.
        untrained_loss: Mean loss of the first batch; None before it.
        seconds: Time that the training has taken so far.
    """

    now: Weights
    last: Weights
    good: Weights
    best: Weights | None
    optimizer: Arrays
    totals: NDArray[Any]
    samples: int
    records: tuple[Record, ...]
    stopped: str
    skipped: int
    untrained_loss: float | None
    seconds: float
