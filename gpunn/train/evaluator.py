"""Evaluate a network on samples by the metrics of its task."""

import math
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.ranks import Ranks
from gpunn.data import Data, Samples
from gpunn.data.class_weights import ClassWeight
from gpunn.data.loader import DataLoader, place, sizes_of
from gpunn.errors import OptionError
from gpunn.kernels.gather import NEXT_STEP
from gpunn.nn.layout import EVALUATION_BATCH
from gpunn.nn.losses import Loss, MeanSquaredError
from gpunn.nn.network import Network
from gpunn.nn.tasks import FIGURES, Task, in_words
from gpunn.train.arguments import as_samples, check_samples


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Metrics of a network on samples; those of other tasks are NaN, and not shown.

    Metrics of weighted samples are weighted means, Σ w c / Σ w.

    Attributes:
        loss: Loss C₀, without a regularizer; NaN for a network without a loss.
        accuracy: Share of right answers, 0 to 1; NaN for regression.
        right: Number of right answers; 0 for regression. For weighted samples accuracy times `total`, a float.
        total: Number of answers: one a sample, or one an output where each output is 0 or 1 by itself.
        rmse: Root mean squared error √(Σ ‖a − y‖² / (samples · outputs)), for regression only.
        r2: R² = 1 − Σ ‖a − y‖² / Σ ‖y − ȳ‖², ȳ the mean target, for regression only; NaN if all y are equal.
    """

    loss: float
    accuracy: float
    right: float
    total: int
    rmse: float = math.nan
    r2: float = math.nan

    @property
    def figures(self) -> dict[str, float]:
        """Metrics of the task, by name."""
        return {name: value for name in FIGURES if not math.isnan(value := getattr(self, name))}

    def __repr__(self) -> str:
        counts = {"total": self.total} if math.isnan(self.accuracy) else {"right": self.right, "total": self.total}
        fields = ", ".join(f"{name}={value!r}" for name, value in (self.figures | counts).items())
        return f"Evaluation({fields})"

    def __str__(self) -> str:
        if math.isnan(self.accuracy):
            return in_words(self.figures)
        loss = "" if math.isnan(self.loss) else ", " + in_words({"loss": self.loss})
        return f"accuracy {self.accuracy:.2%} ({self.counted}){loss}"

    @property
    def counted(self) -> str:
        """Number of right answers and of all, in words."""
        right = f"{self.right:,}" if isinstance(self.right, int) else f"by weight {self.right:,.1f}"
        return f"{right} of {self.total:,} right"


class Measure:
    """Compute the metrics of a task from sums over samples; without a loss, from sums of squares."""

    def __init__(self, loss: Loss | None, samples: Samples) -> None:
        self._has_loss = loss is not None
        loss = loss or MeanSquaredError()
        self.task = loss.task(bool(samples.classes))
        targets = samples.targets
        self._unit = 1.0 if samples.columns is None or samples.classes else samples.columns.unit
        self._outputs = 1 if self.task is Task.CLASSES else targets.shape[1]
        self._squares = self.task is Task.REGRESSION and loss.is_squared_error
        self.size = 2 if samples.weights is None else 3  # number of totals
        if self._squares:
            self._variance = _variance(targets, samples.weights)

    def __call__(self, totals: NDArray[Any], samples: int) -> Evaluation:
        """Return the metrics of `samples` samples from the sums of losses, of right answers, and of weights."""
        whole = samples if self.size == 2 else float(totals[2])
        if not samples or not whole:
            return Evaluation(math.nan, math.nan, 0, 0)
        mean, right = float(totals[0]) / whole, float(totals[1])
        shown = mean if self._has_loss else math.nan
        if self.task is not Task.REGRESSION:
            total, accuracy = samples * self._outputs, right / (whole * self._outputs)
            return Evaluation(shown, accuracy, round(right) if self.size == 2 else accuracy * total, total)
        rmse = self._unit * math.sqrt(mean / self._outputs) if self._squares and mean >= 0 else math.nan
        r2 = 1 - mean / self._variance if self._squares and self._variance else math.nan
        return Evaluation(shown, math.nan, 0, samples, rmse, r2)


def _variance(targets: NDArray[Any], weights: NDArray[Any] | None) -> float:
    """Return the weighted variance of targets, summed over outputs; equal targets are left out, since they round."""
    if weights is not None:
        targets, weights = targets[weights > 0].astype(np.float64), weights[weights > 0]
    varies = targets.max(axis=0) > targets.min(axis=0)
    if weights is None:
        return float(np.var(targets, axis=0, dtype=np.float64)[varies].sum())
    squares = np.square(targets - np.average(targets, axis=0, weights=weights))
    return float(np.average(squares, axis=0, weights=weights)[varies].sum())


class Evaluator:
    """Run samples through a network, and sum loss and right answers on the device; each rank takes its share."""

    def __init__(self, model: Network, batches: DataLoader, ranks: Ranks | None = None) -> None:
        self.model, self.batches, self.backend, self._ranks = model, batches, model._built(), ranks or Ranks()
        # A copy: the loss of the training keeps the buffers of its graphs.
        self._loss = copy(model.loss) or MeanSquaredError()
        self._measure = Measure(model.loss, batches.samples)
        self._clock = self.backend.zeros((4,), np.int32)
        self._totals = self.backend.zeros((self._measure.size,), np.float64)

    def warm_up(self, size: int) -> None:
        """Compute a batch of each size of a pass in batches of `size`; see `Backend.compile_ahead`."""
        for n in sizes_of(self.batches.count, size):
            self.compute(n)

    def compute(self, n: int) -> None:
        """Add loss and right answers of the next n samples, kernel by kernel."""
        stages, bias = self.model.stages_under(self.model.loss)
        rows, x = self.model.input.views(n)
        targets = self.batches.take(self._clock, n, rows)
        z = self.model.propagate(x, False, stages)
        given = {} if self.batches.taken_weights is None else {"sample_weight": self.batches.taken_weights}
        self._loss.evaluate(self.backend, z, targets, self._totals, bias=None if bias is None else bias.value, **given)

    def run(self, size: int | None = None) -> Evaluation:
        """Make one pass over all samples in batches of `size`, by default the network's capacity."""
        model, backend, batches = self.model, self.backend, self.batches
        size = size or model.capacity
        backend.assign(self._totals, 0.0)
        share = None if self._ranks.size == 1 else np.arange(*self._ranks.share(batches.size), dtype=np.int32)
        batches.start(size, share)
        model.compile_ahead(("evaluate", type(model.loss), batches.count % size), lambda: self.warm_up(size))
        for number, start in enumerate(range(0, batches.count, size)):
            n = min(size, batches.count - start)
            backend.assign(self._clock[NEXT_STEP : NEXT_STEP + 1], number)
            self.compute(n)
            batches.advance(n)
        totals = backend.to_host(self._totals)
        self._ranks.all_reduce(totals)
        return self._measure(totals, batches.size)


def evaluate(
    model: Network,
    samples: Any,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
) -> Evaluation:
    """Evaluate a network on samples; see `Sequential.evaluate`."""
    samples = as_samples(samples, y, model, sample_weight, class_weight)
    return Evaluator(model, place(model._built(), samples, model.dtype)).run()


def recompute_statistics(model: Network, samples: Samples | Data) -> None:
    """Replace BatchNorm's running averages by the statistics of samples; see `Sequential.recompute_statistics`."""
    samples = model.arranged(samples.train if isinstance(samples, Data) else samples)
    check_samples(model, samples)
    if not any(layer.normalizes_batch for layer, _ in model.every_layer):
        raise OptionError("the network has no BatchNorm, so no statistics to recompute")
    layers = [layer for layer, is_frozen in model.every_layer if layer.normalizes_batch and not is_frozen]
    if not layers:  # all are frozen
        return
    for layer in layers:
        layer.start_gathering()
    # BatchNorm cannot normalise a last batch of one sample. The size depends neither on the training's batch size nor
    # on the number of ranks, each of which goes through all samples.
    sizes = (size for size in range(EVALUATION_BATCH, 1, -1) if len(samples) % size != 1)
    keep = False
    try:
        Evaluator(model, place(model._built(), samples, model.dtype)).run(next(sizes, model.capacity))
        keep = True
    finally:
        for layer in layers:
            layer.stop_gathering(keep)
