"""What the rest of a training depends on: given it back, a run that was cut off goes on as if nothing had been.

Orders of epochs, dropout masks and augmented images are pure functions of the seed and the number of the step, so the
number of the step is all that is kept of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gpunn.nn.parameter import Arrays
from gpunn.train.record import Record

Trained = tuple[int, int]
"""Epochs begun and steps done in all trainings of a network: what the next one counts on from."""


@dataclass(frozen=True)
class Weights:
    """What a network had learned and remembered after a step.

    Attributes:
        step: steps done in the run, 0 for the start.
        arrays: parameters and statistics, as `Sequential.arrays` gives them.
        trained: epochs and steps that the network had been trained for by then, in earlier trainings too.
    """

    step: int
    arrays: Arrays
    trained: Trained = (0, 0)


@dataclass(frozen=True)
class State:
    """A training between two steps.

    Attributes:
        now: the network, and how many steps are done.
        last: the network at the last record.
        good: the network as it was when a record last found it good.
        best: the network at the record of the lowest watched cost; None before the first record.
        optimizer: what the optimizer remembers.
        totals: sum of the costs and number of right answers since the last record.
        samples: that the totals are of.
        records: the history so far.
        stopped: why the training ended before its last epoch, or "".
        skipped: batches that were skipped, since they led to NaN or Inf.
        untrained_loss: mean loss of the first batch; None before it.
        seconds: that the training has taken so far.
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
