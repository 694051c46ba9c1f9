"""Schedule the learning rate over a training, for all steps of an epoch at once."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.config import Part, register
from gpunn.config.scalars import NOT_NEGATIVE, POSITIVE, positive_whole, real
from gpunn.errors import OptionError

__all__ = ["Constant", "Cosine", "OneCycle", "Schedule", "StepDecay", "Warmup"]
_MOST_CHANGES = 20


class Schedule(Part, ABC, kind="schedule", example="Cosine(0.1)"):
    """Learning rate as a function of the training's progress."""

    @abstractmethod
    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        """Return the learning rates.

        Args:
            epochs: Epochs done before each step, with fractions, (steps,).
            total: Number of epochs of the whole training.
        """

    def for_epochs_of(self, steps: int) -> Self:
        """Return the schedule for epochs of `steps` steps; only schedules that count in steps change."""
        return self

    @property
    def given(self) -> float | None:
        """Main rate of the schedule, which `--learning-rate` sets: `rate` or `peak`, or None."""
        return getattr(self, "rate", getattr(self, "peak", None))


@register
class Constant(Schedule):
    """η = `rate` at every step."""

    def __init__(self, rate: float) -> None:
        self.rate = real(rate, "learning rate", POSITIVE)

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        return np.full(epochs.shape, self.rate)


@register
class StepDecay(Schedule):
    """η · factor^⌊epoch/every⌋.

    Args:
        rate: η at the start.
        factor: Factor of each decay.
        every: Number of epochs between decays.
    """

    def __init__(self, rate: float, factor: float = 0.1, every: float = 10) -> None:
        self.rate = real(rate, "learning rate", POSITIVE)
        self.factor = real(factor, "factor of StepDecay", POSITIVE)
        self.every = real(every, "every of StepDecay", POSITIVE)

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        return self.rate * self.factor ** np.floor(epochs / self.every)


@register
class Cosine(Schedule):
    """final + (η − final) (1 + cos πt)/2, t from 0 to 1 over the whole training (I. Loshchilov, F. Hutter, 2017).

    Args:
        rate: η at the start.
        final: Rate at the end.
    """

    def __init__(self, rate: float, final: float = 0.0) -> None:
        self.rate = real(rate, "learning rate", POSITIVE)
        self.final = real(final, "final of Cosine", NOT_NEGATIVE)

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        return _cosine(self.rate, self.final, epochs / total)


@register
class OneCycle(Schedule):
    """peak/start → peak → peak/end, both ways by a cosine (L. N. Smith, N. Topin, 2018).

    Args:
        peak: Highest rate.
        rise: Share of the training in which the rate rises.
        start: Divisor of the peak for the first rate.
        end: Divisor of the peak for the last rate.
    """

    def __init__(self, peak: float, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> None:
        self.peak = real(peak, "peak of OneCycle", POSITIVE)
        self.rise = real(rise, "rise of OneCycle", ("lie between 0 and 1", lambda share: 0 < share < 1))
        self.start, self.end = real(start, "start of OneCycle", POSITIVE), real(end, "end of OneCycle", POSITIVE)

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        t = epochs / total
        up = _cosine(self.peak / self.start, self.peak, t / self.rise)
        down = _cosine(self.peak, self.peak / self.end, (t - self.rise) / (1 - self.rise))
        return np.where(t < self.rise, up, down)


@register
class Warmup(Schedule):
    """η k/n at step k of the first n steps, counted from 1: a linear rise to the start of a schedule for the rest.

    Args:
        rate: η after the rise, or a schedule, whose epochs are counted from the end of the rise.
        epochs: Length of the rise in epochs, with fractions; give this or `steps`.
        steps: Length of the rise in steps.

    Raises:
        OptionError: Neither or both lengths, or a schedule with a warm-up of its own.
    """

    def __init__(self, rate: float | Schedule, *, epochs: float | None = None, steps: int | None = None) -> None:
        number = rate if isinstance(rate, Schedule) else real(rate, "rate of Warmup", POSITIVE)
        self.rate, self._of = number, number if isinstance(number, Schedule) else Constant(number)
        if isinstance(rate, Warmup | Changed):
            raise OptionError(f"Warmup takes a rate or a schedule without a warm-up such as Cosine(0.1), got {rate!r}")
        if (epochs is None) == (steps is None):
            raise OptionError(f"Warmup takes either epochs or steps, such as epochs=1, got {epochs!r} and {steps!r}")
        self.epochs = None if epochs is None else real(epochs, "epochs of Warmup", POSITIVE)
        self.steps = None if steps is None else positive_whole(steps, "steps of Warmup")
        self._steps_per_epoch = 0

    @property
    def given(self) -> float | None:
        return self._of.given

    def for_epochs_of(self, steps: int) -> Self:
        other = copy(self)
        other._steps_per_epoch, other._of = steps, self._of.for_epochs_of(steps)
        return other

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        of_step = 1 / self._steps_per_epoch if self._steps_per_epoch else 0.0
        length = self.epochs
        if self.steps is not None:
            if not of_step:
                raise OptionError("the number of steps in an epoch is not known: call for_epochs_of(steps) first")
            length = self.steps * of_step
        assert length is not None
        # The rest of the training may be empty, and schedules divide by its length.
        after = self._of.rates(np.maximum(epochs - length, 0.0), max(total - length, of_step, 1e-9))
        return after * np.clip((epochs + of_step) / length, 0.0, 1.0)


@register
class Changed(Schedule):
    """η of one schedule up to an epoch, and of another one from there, for a run resumed with a new learning rate.

    Args:
        before: η before the change, or a schedule.
        at: Epoch of the change, with fractions.
        after: η after the change, or a schedule, whose epochs are counted from the start of the training too.
    """

    def __init__(self, before: float | Schedule, at: float, after: float | Schedule) -> None:
        self.before, self.at, self.after = before, real(at, "at of Changed", NOT_NEGATIVE), after
        self._before, self._after = (s if isinstance(s, Schedule) else Constant(s) for s in (before, after))
        self._depth: int = 1 + max(getattr(s, "_depth", 0) for s in (before, after))
        if self._depth > _MOST_CHANGES:
            raise OptionError(f"the learning rate of a run can be changed at most {_MOST_CHANGES} times")

    @property
    def given(self) -> float | None:
        return self._after.given

    def for_epochs_of(self, steps: int) -> Self:
        other = copy(self)
        other._before, other._after = self._before.for_epochs_of(steps), self._after.for_epochs_of(steps)
        return other

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        return np.where(epochs < self.at, self._before.rates(epochs, total), self._after.rates(epochs, total))


def _cosine(begin: float, end: float, t: NDArray[Any]) -> NDArray[Any]:
    rates: NDArray[Any] = end + (begin - end) * (1 + np.cos(np.pi * np.clip(t, 0, 1))) / 2
    return rates
