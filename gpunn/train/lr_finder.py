"""Find a learning rate by training a copy of a network at rising rates (L. N. Smith, 2017)."""

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.config.scalars import POSITIVE, positive_whole, real
from gpunn.data import Data
from gpunn.errors import DataError, DivergenceError, OptionError
from gpunn.nn.network import Network
from gpunn.train.arguments import TrainOptions, as_data, fitting_batch_size
from gpunn.train.callbacks import LambdaCallback
from gpunn.train.schedules import Schedule
from gpunn.train.trainer import Trainer

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 200  # defaults
BETA = 0.9  # decay of the running mean of losses
SHARE = 0.97  # share of the loss's fall that is done at the suggested rate
EXPLODED = 4.0  # ratio of the running mean of losses to its minimum from which, above its start, it has exploded
_SIGNIFICANT = 1.2  # least fall of the smoothed loss, in median differences of neighbouring batches
_LEAST_SAMPLES, _LEAST_STEPS, _MOST_STEPS = 2, 20, 100_000

Show = Callable[[int, float, float], None]  # called with steps done, learning rate, running mean of the losses


class Rising(Schedule):
    """low^(1 − t) high^t, t = k / (n − 1) at step k of n = `steps`, counted from 0; `high` after them."""

    def __init__(self, low: float, high: float, steps: int) -> None:
        self.low, self.high = real(low, "lowest rate", POSITIVE), real(high, "highest rate", POSITIVE)
        if self.low >= self.high:
            raise OptionError(f"the lowest rate must be below the highest, got {low!r} and {high!r}")
        self.steps = positive_whole(steps, "steps", _LEAST_STEPS)
        if self.steps > _MOST_STEPS:
            raise OptionError(f"steps must be at most {_MOST_STEPS:,}, got {steps!r}")
        self._steps_per_epoch = 1

    def for_epochs_of(self, steps: int) -> Self:
        other = copy(self)
        other._steps_per_epoch = steps
        return other

    def rates(self, epochs: NDArray[Any], total: float) -> NDArray[Any]:
        share = np.minimum(epochs * self._steps_per_epoch / (self.steps - 1), 1.0)
        rates: NDArray[Any] = self.low ** (1 - share) * self.high**share
        return rates


@dataclass(frozen=True)
class Losses:
    """Batch losses of a training at rising learning rates, each before the update at its rate.

    Attributes:
        rates: Learning rate of each step.
        losses: Mean loss of each step's batch.
        sizes: Number of samples of each step's batch.
        end: Reason of an early end, a loss that "exploded" or is "not finite"; "" after the highest rate.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    sizes: NDArray[np.float64]
    end: str


class RunningMean:
    """m/c, the running mean of losses L without initial bias: m := β m + (1 − β) n L, c := β c + (1 − β) n.

    n is the size of the batch: the last one of an epoch may be short, and its loss then counts less.
    """

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, loss: float, size: float) -> float:
        """Add a loss, and return the mean."""
        self._sum = BETA * self._sum + (1 - BETA) * size * loss
        self._weight = BETA * self._weight + (1 - BETA) * size
        return self._sum / self._weight


def smoothed(losses: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the running mean, forwards and then backwards, so that it does not lag behind the losses."""
    means = losses
    for direction in (slice(None), slice(None, None, -1)):
        mean = RunningMean()
        means = np.array([mean.add(*pair) for pair in zip(means[direction], sizes[direction], strict=True)])[direction]
    return means


def suggest_rate(seen: Losses) -> tuple[NDArray[np.float64], float | None, str]:
    """Return the smoothed losses, the first rate at which they have done `SHARE` of their fall, and why there is none.

    Before smoothing, losses are clipped at the maximum of the first steps, whose rates change nothing; an exploded loss
    would hide the fall before it.
    """
    first = seen.losses[: max(1, len(seen.losses) // 10)]
    start, spread = first.mean(), np.median(np.abs(np.diff(seen.losses))) if len(seen.losses) > 1 else 0.0
    means = smoothed(np.minimum(seen.losses, first.max()), seen.sizes)
    fall = start - means.min()
    if not fall > max(_SIGNIFICANT * spread, 1e-6 * abs(start)):
        fell = f"the loss of {start:.4g} fell at no rate by more than batches differ"
        return means, None, f"{fell}: the network is trained already, or learns nothing from these samples"
    return means, float(f"{seen.rates[np.argmax(means <= start - SHARE * fall)]:.2g}"), ""


def try_rates(
    model: Network,
    options: TrainOptions,
    data: Any,
    y: ArrayLike | None,
    rise: Rising,
    show: Show | None = None,
    sample_weight: ArrayLike | None = None,
) -> Losses:
    """Train a copy of a network on the training samples at rising rates, until the loss explodes.

    Raises:
        DataError: Too few samples.
        DivergenceError: The loss is NaN or Inf before the first update.
    """
    if isinstance(data, Data):  # the other sets play no part
        data = Data(data.name, data.train, None, data.class_names)
    given = as_data(data, y, None, options.seed, options.loss, model.layers, sample_weight)
    samples = given.train
    if len(samples) < _LEAST_SAMPLES:
        raise DataError(f"a learning rate search needs at least {_LEAST_SAMPLES} training samples, got {len(samples)}")
    given = Data(given.name, samples, None, given.class_names)
    per_epoch = -(-len(samples) // fitting_batch_size(options.batch_size, len(samples), model.layers))
    optimizer = options.optimizer.unbuilt()
    optimizer.learning_rate = rise
    off = dict.fromkeys(("recompute_statistics", "skip_bad_batches", "progress"), False)
    changed: dict[str, Any] = {"optimizer": optimizer, "epochs": -(-rise.steps // per_epoch), "validate_every": 1}
    # The rate is meant for the epochs in which all layers learn, and averaged weights would lag behind it.
    changed |= off | {"patience": None, "freeze": 0, "average": None, "metrics": ()}
    trainer = Trainer(deepcopy(model), replace(options, **changed), given)
    size, end, mean = trainer.batch_size, "", RunningMean()
    sizes = np.minimum(size, len(samples) - size * (np.arange(rise.steps) % per_epoch)).astype(np.float64)
    means: list[float] = []

    def on_steps(_: object) -> None:
        nonlocal end
        record = trainer.history[-1] if trainer.history else None
        if record and record.step == trainer.done:  # a batch of samples of weight 0 has no loss
            means.append(mean.add(record.train_loss, sizes[record.step - 1]))
            if show:
                show(record.step, record.learning_rate, means[-1])
            if means[-1] > max(EXPLODED * min(means), means[0]):
                end = "exploded"
        if end or trainer.done == rise.steps:
            trainer.history.stopped = end or "done"

    trainer.callbacks.add(LambdaCallback(on_steps))
    try:
        trainer.train()
    except DivergenceError:
        if not trainer.history:
            why = f"{trainer.history.stopped}, at the first step, before anything was learned"
            mend = "check the inputs, the initial weights and the loss"
            raise DivergenceError(f"no learning rate can be found: {why}: {mend}") from None
        end = "not finite"
    losses = np.array([record.train_loss for record in trainer.history])
    at = [record.step - 1 for record in trainer.history]
    return Losses(np.array([record.learning_rate for record in trainer.history]), losses, sizes[at], end)
