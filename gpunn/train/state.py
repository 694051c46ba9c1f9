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
    """A training between two steps; `last`, `good` and `best` are those of its `Monitor`, counts of its `History`."""

    now: Weights
    last: Weights
    good: Weights
    best: Weights | None
    optimizer: Arrays
    totals: NDArray[Any]  # sum of losses and number of right answers since the last record
    samples: int  # of the totals
    records: tuple[Record, ...]
    stopped: str
    skipped: int
    untrained_loss: float | None
    seconds: float
