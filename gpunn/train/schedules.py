"""Learning rates as functions of how far training has come.

A schedule is evaluated for all steps of an epoch at once; the table goes to the device, where a step looks up its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config import base_of_kind, register, written
from gpunn.errors import OptionError
from gpunn.scalars import real

__all__ = ["Constant", "Cosine", "OneCycle", "Schedule", "StepDecay"]


@base_of_kind("schedule", "Cosine(0.1)")
class Schedule(ABC):
    """A learning rate that changes as training goes on."""

    @abstractmethod
    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        """Learning rates.

        Args:
            epochs: epochs done before each step, with fractions.
            total: epochs that the whole training has.
        """

    @property
    def given(self) -> float | None:
        """The rate that the schedule is measured by, which `--learning-rate` sets; None where there is none."""
        return getattr(self, "rate", None)

    def __repr__(self) -> str:
        return written(self)


def _rate(value: float, what: str) -> float:
    number = real(value, what)
    if not 0 < number < float("inf"):
        raise OptionError(f"{what} must be above 0 and finite, got {value!r}")
    return number


@register
class Constant(Schedule):
    """η, always.

    Args:
        rate: η.
    """

    def __init__(self, rate: float) -> None:
        self.rate = _rate(rate, "learning rate")

    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        return np.full(epochs.shape, self.rate)


@register
class StepDecay(Schedule):
    """η · factor^⌊epoch/every⌋.

    Args:
        rate: η at the start.
        factor: what the rate is multiplied by.
        every: after how many epochs.
    """

    def __init__(self, rate: float, factor: float = 0.1, every: float = 10) -> None:
        self.rate = _rate(rate, "learning rate")
        self.factor = _rate(factor, "factor of StepDecay")
        self.every = _rate(every, "every of StepDecay")

    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        return self.rate * self.factor ** np.floor(epochs / self.every)


@register
class Cosine(Schedule):
    """final + (η − final) (1 + cos πt)/2, t from 0 to 1 over the whole training (I. Loshchilov, F. Hutter, 2017).

    Args:
        rate: η at the start.
        final: rate at the end.
    """

    def __init__(self, rate: float, final: float = 0.0) -> None:
        self.rate = _rate(rate, "learning rate")
        self.final = real(final, "final of Cosine")
        if not 0 <= self.final < float("inf"):
            raise OptionError(f"final of Cosine must be at least 0 and finite, got {final!r}")

    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        return _cosine(self.rate, self.final, epochs / total)


@register
class OneCycle(Schedule):
    """Up to `peak` and down again, both by a cosine (L. N. Smith, N. Topin, 2018).

    Args:
        peak: highest rate.
        rise: share of the training in which it is climbed to.
        start: the rate begins with peak/start.
        end: and ends with peak/end.
    """

    def __init__(self, peak: float, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> None:
        self.peak = _rate(peak, "peak of OneCycle")
        self.rise = real(rise, "rise of OneCycle")
        if not 0 < self.rise < 1:
            raise OptionError(f"rise of OneCycle must lie between 0 and 1, got {rise!r}")
        self.start = _rate(start, "start of OneCycle")
        self.end = _rate(end, "end of OneCycle")

    @property
    def given(self) -> float:
        return self.peak

    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        t = epochs / total
        up = _cosine(self.peak / self.start, self.peak, t / self.rise)
        down = _cosine(self.peak, self.peak / self.end, (t - self.rise) / (1 - self.rise))
        return np.where(t < self.rise, up, down)


@register
class Changed(Schedule):
    """η of one schedule, and from some epoch on of another: of a run that went on with another learning rate.

    Args:
        before: η up to there, or a schedule of it.
        at: the epoch, with fractions.
        after: η from there on, or a schedule of it; its epochs are counted from the start too.
    """

    def __init__(self, before: float | Schedule, at: float, after: float | Schedule) -> None:
        if not 0 <= at < float("inf"):
            raise OptionError(f"at of Changed must be at least 0 and finite, got {at!r}")
        self.before, self.at, self.after = before, float(at), after
        self._before, self._after = (s if isinstance(s, Schedule) else Constant(s) for s in (before, after))
        self._depth: int = 1 + max(getattr(s, "_depth", 0) for s in (before, after))
        if self._depth > _MOST_CHANGES:
            raise OptionError(f"the learning rate of a run can be changed {_MOST_CHANGES} times at the most")

    @property
    def given(self) -> float | None:
        return self._after.given

    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        return np.where(epochs < self.at, self._before.rates(epochs, total), self._after.rates(epochs, total))


_MOST_CHANGES = 20


def _cosine(begin: float, end: float, t: NDArray[Any]) -> NDArray[Any]:
    rates: NDArray[Any] = end + (begin - end) * (1 + np.cos(np.pi * np.clip(t, 0, 1))) / 2
    return rates
