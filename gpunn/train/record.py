"""Describe a training between two steps: the metrics of a record, and the state that resumes it bit for bit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from numpy.typing import NDArray

from gpunn.nn.parameter import Arrays
from gpunn.nn.tasks import FIGURES


@dataclass(frozen=True, repr=False)
class Record:
    """Metrics of a network in training. Those of other tasks are NaN: not shown, and no column of the CSV.

    Args:
        step: Number of steps since the start of the run.
        epoch: step / (steps per epoch), so 1.0 is the end of the first epoch.
        train_loss: Mean training loss since the previous record: C₀ of equation (17), without λR.
        train_accuracy: Share of right answers on the training samples since the previous record; NaN for regression.
        train_rmse: Root mean squared error on the training samples since the previous record, for regression.
        train_r2: R² on these samples, with the variance of all training targets, for regression.
        validation_loss: Loss on the whole validation set; NaN without one.
        validation_accuracy: Share of right answers on the validation set; NaN without one, and for regression.
        validation_rmse: Root mean squared error on the validation set, for regression.
        validation_r2: R² on the validation set, for regression.
        penalty: λR of equation (17) at this step; NaN without a regularizer.
        learning_rate: η at this step.
        seconds: Seconds since the start of the run.
        measured: Name and value of each metric of `fit(metrics=[...])` on the validation set; see `metrics`.
    """

    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    train_rmse: float = field(default=math.nan, kw_only=True)
    train_r2: float = field(default=math.nan, kw_only=True)
    validation_loss: float
    validation_accuracy: float
    validation_rmse: float = field(default=math.nan, kw_only=True)
    validation_r2: float = field(default=math.nan, kw_only=True)
    penalty: float = field(default=math.nan, kw_only=True)
    learning_rate: float
    seconds: float
    measured: tuple[tuple[str, float], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        # The same NaN everywhere, so that records with equal numbers are equal.
        for name, value in vars(self).items():
            if value != value:
                object.__setattr__(self, name, math.nan)
        if self.measured:
            made = tuple((name, math.nan if value != value else value) for name, value in self.measured)
            object.__setattr__(self, "measured", made)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of `fit(metrics=[...])` on the validation set, by name."""
        return dict(self.measured)

    def number(self, column: str) -> float:
        """Return the number in a column of the history; NaN for a column that the record lacks."""
        value: float = getattr(self, column) if column in COLUMNS else self.metrics.get(column, math.nan)
        return value

    @property
    def watched_loss(self) -> float:
        """Validation loss, or the training loss without a validation set."""
        return self.train_loss if math.isnan(self.validation_loss) else self.validation_loss

    def figures(self, part: str) -> dict[str, float]:
        """Return the task's metrics of "train" or "validation", by name."""
        return {name: value for name in FIGURES if not math.isnan(value := getattr(self, f"{part}_{name}"))}

    def __repr__(self) -> str:
        numbers = (f"{name}={value!r}" for name in COLUMNS if (value := getattr(self, name)) == value)
        own = (f"{name}={value!r}" for name, value in self.measured)
        return f"Record({', '.join([*numbers, *own])})"


COLUMNS = tuple(each.name for each in fields(Record) if each.name != "measured")
MOST_METRICS, _MOST_LETTERS = 32, 60


def is_metric_name(name: object) -> bool:
    """Return whether a metric of this name may be a column of a history: an identifier without another meaning."""
    is_word = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= _MOST_LETTERS
    return is_word and name not in COLUMNS and name not in FIGURES


def record_of(columns: Sequence[str], numbers: Sequence[float], step: int) -> Record:
    """Make a record from a step and the numbers in the other columns of a history."""
    given = dict(zip(columns, numbers, strict=True))
    own = tuple((name, given.pop(name)) for name in columns if name not in COLUMNS)
    return Record(step, **{**dict.fromkeys(COLUMNS[1:], math.nan), **given}, measured=own)


Trained = tuple[int, int]  # epochs begun and steps done in all trainings of a network


@dataclass(frozen=True)
class Weights:
    """Parameters and statistics of a network after a step of the run, and its epochs and steps of all trainings."""

    step: int
    arrays: Arrays
    trained: Trained = (0, 0)


@dataclass(frozen=True)
class State:
    """Complete state of a training between two steps; orders, masks and augmentation follow from seed and step."""

    now: Weights
    last: Weights
    good: Weights
    best: Weights | None
    optimizer: Arrays
    totals: NDArray[Any]  # sum of losses and number of right answers since the last record
    samples: int  # number of samples in the totals
    records: tuple[Record, ...]
    stopped: str
    skipped: int
    untrained_loss: float | None
    seconds: float
