"""Tell when a model overfits, by a rule on smoothed losses; the evidence is in `docs/design/overfitting.md`."""

import math
from dataclasses import dataclass
from itertools import pairwise

from gpunn.train.record import Record

WINDOW, SHARE, FEWEST = 5.0, 1 / 6, 5
"""Least length of a window in epochs, as a share of the training so far, and in records."""
PRODUCT, REGULARIZED_PRODUCT = 0.015, 0.03
"""Least relative rise of the validation loss times fall of the training loss, without and with a regularizer."""
RISE, SIGMAS = 0.025, 4.0
"""Least rise of the validation loss, relative and in standard errors."""


@dataclass(frozen=True)
class _Window:
    """Means over one window of records, and its place."""

    first: int
    stop: int
    validation: float
    training: float
    variance: float  # of the mean validation loss


class OverfittingDetector:
    """Says since when the training loss still falls while the validation loss rises (high variance).

    V(e) and T(e) are the mean validation and training loss of the window that ends at epoch e, λR in neither; it is
    max(`WINDOW`, `SHARE` · e) epochs long. b is the window of the lowest V so far. With the relative rise of the one
    and fall of the other since then,

        r = V(e) / V(b) − 1        f = 1 − T(e) / T(b),

    the model overfits when

        r · f ≥ `PRODUCT`   and   r ≥ `RISE`   and   V(e) − V(b) ≥ `SIGMAS` · √(s²(e) + s²(b)),

    and it does so *since* the record of the lowest validation loss in b. s² = Σ(vᵢ₊₁ − vᵢ)² / 2m(m − 1) estimates the
    variance of a window's mean from the steps between its m neighbouring records, so that it grows with noise and not
    with a trend: a small or noisy validation set has to rise further, and one spike says nothing.
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._best: _Window | None = None
        self._said = False

    def observe(self, record: Record) -> Record | None:
        """Take the next record; return, once, the record since which the model overfits."""
        if self._said or not (math.isfinite(record.validation_loss) and math.isfinite(record.train_loss)):
            return None
        self._records.append(record)
        now, best = self._last_window(), self._best
        if now is None:
            return None
        if best is None or now.validation < best.validation:
            self._best = now
            return None
        # As products, not quotients: a loss may be 0.
        rise, fall = now.validation - best.validation, best.training - now.training
        product = PRODUCT if math.isnan(record.penalty) else REGULARIZED_PRODUCT
        self._said = (
            fall > 0
            and rise >= RISE * best.validation
            and rise * fall >= product * best.validation * best.training
            and rise >= SIGMAS * math.sqrt(now.variance + best.variance)
        )
        return min(self._records[best.first : best.stop], key=lambda each: each.validation_loss) if self._said else None

    def _last_window(self) -> _Window | None:
        """The window that ends with the last record; None while it is not yet full."""
        records, stop = self._records, len(self._records)
        epoch = records[-1].epoch
        # Epochs are quotients of steps: a record exactly one window ago must not fall in by rounding.
        slack = 1e-9 * (1 + epoch)
        if stop < FEWEST or epoch < WINDOW - slack:
            return None
        begin, first = epoch - max(WINDOW, SHARE * epoch) + slack, stop - FEWEST
        while first > 0 and records[first - 1].epoch > begin:
            first -= 1
        inside, count = records[first:stop], stop - first
        steps = (after.validation_loss - before.validation_loss for before, after in pairwise(inside))
        return _Window(
            first,
            stop,
            validation=sum(record.validation_loss for record in inside) / count,
            training=sum(record.train_loss for record in inside) / count,
            variance=sum(step * step for step in steps) / (2 * count * (count - 1)),
        )
