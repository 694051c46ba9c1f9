"""How well a network does: the figures of its task over samples, nothing learned."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.data import Data, Samples
from gpunn.data.loader import DataLoader, place, sizes_of
from gpunn.errors import OptionError
from gpunn.kernels.gather import NEXT_STEP
from gpunn.nn.losses import Loss, MeanSquaredError
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task, in_words
from gpunn.train.arguments import as_samples, check_samples


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How well a network does on some samples; figures that do not apply to its task are nan, and not shown.

    Attributes:
        loss: the cost C₀, without a regulariser; nan where the network knows no loss.
        accuracy: share of right answers, 0 to 1; nan for regression.
        right: how many are right; 0 for regression.
        total: how many answers there are: one a sample, or, where each output is a question by itself, one an output.
        rmse: root mean squared error √(Σ ‖a − y‖² / (samples · outputs)); nan but for regression.
        r2: R² = 1 − Σ ‖a − y‖² / Σ ‖y − ȳ‖² over all outputs, ȳ the mean target: 1 where all is right, 0 for answering
            ȳ; nan but for regression, and where all targets are equal.
    """

    loss: float
    accuracy: float
    right: int
    total: int
    rmse: float = math.nan
    r2: float = math.nan

    @property
    def figures(self) -> dict[str, float]:
        """The figures that apply, by name."""
        every = {"loss": self.loss, "accuracy": self.accuracy, "rmse": self.rmse, "r2": self.r2}
        return {name: value for name, value in every.items() if not math.isnan(value)}

    def __repr__(self) -> str:
        counts = {"total": self.total} if math.isnan(self.accuracy) else {"right": self.right, "total": self.total}
        fields = ", ".join(f"{name}={value!r}" for name, value in (self.figures | counts).items())
        return f"Evaluation({fields})"

    def __str__(self) -> str:
        if math.isnan(self.accuracy):
            return in_words(self.figures)
        loss = {name: value for name, value in self.figures.items() if name == "loss"}
        said = f"accuracy {self.accuracy:.2%} ({self.right:,} of {self.total:,} right)"
        return f"{said}, {in_words(loss)}" if loss else said


class Measure:
    """Makes the figures of a task from sums over samples, such as a device has added up.

    Args:
        loss: whose sums they are; None for sums of squares that are no loss of the network.
        samples: whose targets they are of.

    Attributes:
        task: of this loss on these targets.
    """

    def __init__(self, loss: Loss | None, samples: Samples) -> None:
        self._has_loss = loss is not None
        loss = MeanSquaredError() if loss is None else loss
        self.task = loss.task(bool(samples.classes))
        targets = samples.targets
        self._answers = targets.shape[1] if self.task is Task.BINARY else 1
        self._squares = self.task is Task.REGRESSION and loss.is_squared_error
        if self._squares:
            self._outputs = targets.shape[1]
            varies = targets.max(axis=0) > targets.min(axis=0)  # else rounding would be all of its variance
            self._variance = float(np.var(targets, axis=0, dtype=np.float64)[varies].sum())

    def __call__(self, cost: float, right: float, samples: int) -> Evaluation:
        """The figures of `samples` samples, whose costs and right answers add up to `cost` and `right`."""
        if not samples:
            return Evaluation(math.nan, math.nan, 0, 0)
        mean, total = cost / samples, samples * self._answers
        loss = mean if self._has_loss else math.nan
        if self.task is not Task.REGRESSION:
            return Evaluation(loss, right / total, round(right), total)
        if not self._squares:
            return Evaluation(loss, math.nan, 0, total)
        rmse = math.sqrt(mean / self._outputs) if mean >= 0 else math.nan
        r2 = 1 - mean / self._variance if self._variance else math.nan
        return Evaluation(loss, math.nan, 0, total, rmse, r2)


class Evaluator:
    """Runs samples through a network, and sums cost and right answers on the device."""

    def __init__(self, model: Network, batches: DataLoader) -> None:
        backend = model._built()
        self.model, self.batches, self.backend = model, batches, backend
        self._clock = backend.zeros((4,), np.int32)
        self._totals = backend.zeros((2,), np.float64)
        # A cost of its own: that of the training keeps the buffers that it was recorded with.
        self._loss = MeanSquaredError() if model.loss is None else copy(model.loss)
        self._measure = Measure(model.loss, batches.samples)

    def rehearse(self, size: int) -> None:
        """Compute a batch of each size that a pass by `size` has; see `Backend.compile_ahead`."""
        for n in sizes_of(self.batches.size, size):
            self.compute(n)

    def compute(self, n: int) -> None:
        """Add the cost and the right answers of the n samples that come next, kernel by kernel."""
        model = self.model
        stages, bias = model.stages_under(model.loss)
        rows, x = model.input.views(n)
        targets = self.batches.take(self._clock, n, rows)
        z = model.propagate(x, False, stages)
        self._loss.evaluate(self.backend, z, targets, self._totals, bias=None if bias is None else bias.value)

    def run(self, size: int | None = None) -> Evaluation:
        """One pass over all samples, `size` at once; left out, as many as the network was built for."""
        model, backend, batches = self.model, self.backend, self.batches
        size = size or model.capacity
        backend.assign(self._totals, 0.0)
        batches.start(size)
        model.compile_ahead(("evaluate", type(model.loss), batches.size % size), lambda: self.rehearse(size))
        for number, start in enumerate(range(0, batches.size, size)):
            n = min(size, batches.size - start)
            backend.assign(self._clock[NEXT_STEP : NEXT_STEP + 1], number)
            self.compute(n)
            batches.given(n)
        cost, right = (float(total) for total in backend.to_host(self._totals))
        return self._measure(cost, right, batches.size)


def evaluate(model: Network, samples: Any, y: ArrayLike | None = None) -> Evaluation:
    """Measure a network on samples; see `Sequential.evaluate`."""
    samples = model.arranged(as_samples(samples, y, model))
    check_samples(model, samples)
    return Evaluator(model, place(model._built(), samples, model.dtype)).run()


def recompute_statistics(model: Network, samples: Samples | Data) -> None:
    """Let every BatchNorm remember the statistics of these samples instead of its running averages.

    One pass: each layer is normalised by its batches, and their means and variances are put together.

    Args:
        model: Network, built.
        samples: the training set.

    Raises:
        OptionError: the network has no BatchNorm.
    """
    samples = model.arranged(samples.train if isinstance(samples, Data) else samples)
    check_samples(model, samples)
    layers = [layer for layer in model.layers if layer.normalizes_batch]
    if not layers:
        raise OptionError("the network has no BatchNorm, so no statistics to recompute")
    layers = [layer for layer in layers if layer.trainable]  # what is frozen keeps them
    if not layers:
        return
    for layer in layers:
        layer.start_gathering()
    # Not such that one sample is left over, which BatchNorm could not normalise.
    sizes = (size for size in range(model.capacity, 1, -1) if len(samples) % size != 1)
    is_done = False
    try:
        Evaluator(model, place(model._built(), samples, model.dtype)).run(next(sizes, model.capacity))
        is_done = True
    finally:
        for layer in layers:
            layer.stop_gathering(keep=is_done)
