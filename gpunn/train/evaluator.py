"""Measure a network: the figures of its task over samples, nothing learned."""

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
    """Figures of a network on some samples; those that do not apply to its task are NaN, and not shown.

    Of weighted samples they are averages by weight, Σ w c / Σ w.

    Attributes:
        loss: Loss C₀, without a regularizer; NaN where the network knows no loss.
        accuracy: Share of right answers, 0 to 1; NaN for regression.
        right: Number of right answers; 0 for regression. Of weighted samples the share of `total`, a float.
        total: Number of answers: one a sample, or, where each output is a question by itself, one an output.
        rmse: Root mean squared error √(Σ ‖a − y‖² / (samples · outputs)); NaN but for regression.
        r2: R² = 1 − Σ ‖a − y‖² / Σ ‖y − ȳ‖², ȳ the mean target; NaN but for regression, and where all y are equal.
    """

    loss: float
    accuracy: float
    right: float
    total: int
    rmse: float = math.nan
    r2: float = math.nan

    @property
    def figures(self) -> dict[str, float]:
        """The figures that apply, by name."""
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
        """The right answers of all, in words."""
        right = f"{self.right:,}" if isinstance(self.right, int) else f"by weight {self.right:,.1f}"
        return f"{right} of {self.total:,} right"


class Measure:
    """Makes the figures of a task from sums over samples; without a loss these are sums of squares."""

    def __init__(self, loss: Loss | None, samples: Samples) -> None:
        self._has_loss = loss is not None
        loss = loss or MeanSquaredError()
        self.task = loss.task(bool(samples.classes))
        targets = samples.targets
        self._unit = 1.0 if samples.columns is None or samples.classes else samples.columns.unit
        self._outputs = 1 if self.task is Task.CLASSES else targets.shape[1]
        self._squares = self.task is Task.REGRESSION and loss.is_squared_error
        self.size = 2 if samples.weights is None else 3  # of the totals
        if self._squares:
            self._variance = _variance(targets, samples.weights)

    def __call__(self, totals: NDArray[Any], samples: int) -> Evaluation:
        """Return the figures of `samples` samples from the sums of their losses and right answers, and of weights."""
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
    """Return the variance of targets, by weight, summed over outputs; of equal ones rounding would be all of it."""
    if weights is not None:
        targets, weights = targets[weights > 0].astype(np.float64), weights[weights > 0]
    varies = targets.max(axis=0) > targets.min(axis=0)
    if weights is None:
        return float(np.var(targets, axis=0, dtype=np.float64)[varies].sum())
    squares = np.square(targets - np.average(targets, axis=0, weights=weights))
    return float(np.average(squares, axis=0, weights=weights)[varies].sum())


class Evaluator:
    """Runs samples through a network, and sums loss and right answers on the device; each of several ranks a share."""

    def __init__(self, model: Network, batches: DataLoader, ranks: Ranks | None = None) -> None:
        self.model, self.batches, self.backend, self._ranks = model, batches, model._built(), ranks or Ranks()
        # A loss of its own: that of the training keeps the buffers that it was recorded with.
        self._loss = copy(model.loss) or MeanSquaredError()
        self._measure = Measure(model.loss, batches.samples)
        self._clock = self.backend.zeros((4,), np.int32)
        self._totals = self.backend.zeros((self._measure.size,), np.float64)

    def rehearse(self, size: int) -> None:
        """Compute a batch of each size that a pass by `size` has; see `Backend.compile_ahead`."""
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
        """Make one pass over all samples in batches of `size`; left out, of the network's capacity."""
        model, backend, batches = self.model, self.backend, self.batches
        size = size or model.capacity
        backend.assign(self._totals, 0.0)
        batches.start(size, self._order())
        model.compile_ahead(("evaluate", type(model.loss), batches.count % size), lambda: self.rehearse(size))
        for number, start in enumerate(range(0, batches.count, size)):
            n = min(size, batches.count - start)
            backend.assign(self._clock[NEXT_STEP : NEXT_STEP + 1], number)
            self.compute(n)
            batches.advance(n)
        totals = backend.to_host(self._totals)
        self._ranks.all_reduce(totals)
        return self._measure(totals, batches.size)

    def _order(self) -> NDArray[np.int32] | None:
        """Return the samples of this rank's share; None where it has all."""
        return None if self._ranks.size == 1 else np.arange(*self._ranks.share(self.batches.size), dtype=np.int32)


def evaluate(
    model: Network,
    samples: Any,
    y: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
) -> Evaluation:
    """Measure a network on samples; see `Sequential.evaluate`."""
    samples = model.arranged(as_samples(samples, y, model, sample_weight, class_weight))
    check_samples(model, samples)
    return Evaluator(model, place(model._built(), samples, model.dtype)).run()


def recompute_statistics(model: Network, samples: Samples | Data) -> None:
    """Replace the running averages of BatchNorm; see `Sequential.recompute_statistics`."""
    samples = model.arranged(samples.train if isinstance(samples, Data) else samples)
    check_samples(model, samples)
    if not any(layer.normalizes_batch for layer, _ in model.every_layer):
        raise OptionError("the network has no BatchNorm, so no statistics to recompute")
    layers = [layer for layer, is_frozen in model.every_layer if layer.normalizes_batch and not is_frozen]
    if not layers:  # all are frozen, and keep theirs
        return
    for layer in layers:
        layer.start_gathering()
    # Not such that one sample is left over, which BatchNorm could not normalise; the same for any batch size of the
    # training and any number of ranks, each of which goes through all samples.
    sizes = (size for size in range(EVALUATION_BATCH, 1, -1) if len(samples) % size != 1)
    keep = False
    try:
        Evaluator(model, place(model._built(), samples, model.dtype)).run(next(sizes, model.capacity))
        keep = True
    finally:
        for layer in layers:
            layer.stop_gathering(keep)
