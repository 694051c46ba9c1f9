"""Record the metrics of a training between two steps, and save and restore its state."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Backend
from gpunn.data import Data
from gpunn.errors import OptionError
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.nn.tasks import FIGURES
from gpunn.train.arguments import TrainOptions
from gpunn.train.custom_metrics import check_measurable, checked_metrics, evaluate_metrics
from gpunn.train.evaluator import Evaluation
from gpunn.train.gradients import evenly_spaced, gradients_of
from gpunn.train.history import History
from gpunn.train.monitor import Monitor
from gpunn.train.record import Record, State, Weights
from gpunn.train.training import Training

MOST_COPIED = 64 << 20  # bytes that a pending record copies at most: a step of a larger network outlasts the wait
_NOT_MEASURED = Evaluation(math.nan, math.nan, 0, 0)


class RecordingTraining(Training):
    """Train with records, and save and restore the state.

    A record needs a copy of the device's numbers. If nothing waits for the record, it stays pending while the device
    goes on, until the next one is due. `settle` then judges it, as of its own step and with the numbers of that step.
    Code that depends on the records, such as a checkpoint, calls `settle` first. A divergence is found later, but it is
    the same one.
    """

    _pending: tuple[int, Callable[[], None]] | None = None  # step of a record that is not judged yet; judges it

    def __init__(self, model: Network, data: Data, options: TrainOptions, backend: Backend) -> None:
        self.metrics = checked_metrics(options.metrics)
        if self.metrics and data.validation is None:
            mend = "load the data with validation=0.1, say, or leave metrics out"
            raise OptionError(f"metrics are measured on the validation samples, and there are none: {mend}")
        super().__init__(model, data, options, backend)
        self.monitor = Monitor(self._rewind_point[0])
        self._seconds_before = 0.0
        self._began: float | None = None

    def prepare(self, backend: Backend) -> None:
        """Allocate everything on a device; raise MemoryShortageError, or OptionError for a metric of another task."""
        super().prepare(backend)
        if self.metrics and self.data.validation is not None:
            check_measurable(self.model, self.data.validation, self.metrics)

    @property
    def history(self) -> History:
        """Records so far."""
        return self.monitor.history

    def figures(self) -> dict[str, float]:
        """Return the metrics of the training samples since the last record, by name, on this rank's samples alone.

        Ranks need not call it together, since a display calls it by the clock.
        """
        skipped = self.step.share_of(self._skipped()[1])
        if self._pending and not self._own_samples:  # at the step of a pending record, the sums are empty
            self.settle()
            return self.history[-1].figures("train")
        return self._measure(self.backend.to_host(self.step.totals), max(0, self._own_samples - skipped)).figures

    def _evaluation(self) -> Evaluation:
        """Evaluate the training samples since the last record, each with the weights before its step."""
        return self._measure(self._totals(), self._samples - self._skipped()[1])

    def _totals(self) -> NDArray[np.float64]:
        """Return the sums over the training samples since the last record, of all ranks."""
        totals = self.backend.to_host(self.step.totals)
        self.ranks.all_reduce(totals)
        return totals

    def _skipped(self) -> tuple[int, int]:
        """Count the batches and samples skipped since the last record."""
        skip = self.step.skip
        batches, samples = (0, 0) if skip is None else map(int, self.backend.to_host(skip.counts))
        return batches, samples

    def _seconds(self) -> float:
        return self._seconds_before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def settle(self) -> None:
        """Wait for a pending record, and judge it."""
        if self._pending is not None:
            (step, judge), self._pending, now = self._pending, None, self.done
            self.done = step
            judge()
            self.done = now

    def _drop_pending(self) -> None:
        """Drop a pending record, and let its copies end, when a training has failed."""
        if self._pending is not None:
            self._pending = None
            with suppress(Exception):  # the error of a lost device, which has ended the training already
                self.backend.synchronize()

    def _begin_record(self) -> Callable[[], tuple[Record, Weights, Arrays]]:
        """Start to copy the numbers of a record, and reset the sums; return a function that waits and makes it."""
        model, p, samples, rate = self.model, self.model.parameters, self._samples, self._rate()
        self._copies.fetch()
        self._reset_totals()

        def finished() -> tuple[Record, Weights, Arrays]:
            totals, values, *others = self._copies.fetched()
            arrays = {each.name: values[each.place].reshape(each.shape) for each in p}
            arrays |= zip(model.statistics, others, strict=False)
            state = map(p.packed, others[len(model.statistics) :])
            optimizer_state = dict(zip(self.optimizer.state, state, strict=True))
            learned = values[: p.gradients.size]
            record = self._recorded(self._measure(totals, samples), _NOT_MEASURED, learned, rate, {})
            return record, Weights(self.done, arrays, self._trained_at(self.done)), optimizer_state

        return finished

    def _measured(self, train: Evaluation) -> Record:
        """Evaluate the validation set, and make a record."""
        validation = self._validation.run() if self._validation else _NOT_MEASURED
        learned = self.backend.to_host(self.model.parameters.learned) if self.options.regularizer else None
        return self._recorded(train, validation, learned, self._rate(), self._own_metrics())

    def _recorded(
        self,
        train: Evaluation,
        validation: Evaluation,
        learned: NDArray[Any] | None,
        rate: float,
        own: dict[str, float],
    ) -> Record:
        """Make a record of training and validation metrics, with λR of the trainable values."""
        p = self.model.parameters
        parts, epoch = (("train", train), ("validation", validation)), self.done / self.steps_per_epoch
        figures = {f"{part}_{name}": getattr(figures, name) for part, figures in parts for name in FIGURES}
        if learned is not None and (regularizer := self.options.regularizer):
            weights = p.packed(learned)[: p.weights]
            figures["penalty"] = regularizer.cost(weights, self.samples.total_weight)
        seconds = self.ranks.broadcast(self._seconds())
        return Record(self.done, epoch, **figures, learning_rate=rate, seconds=seconds, measured=tuple(own.items()))

    def _own_metrics(self) -> dict[str, float]:
        """Evaluate the metrics of `fit(metrics=...)` on the validation set."""
        samples, evaluator = self.data.validation, self._validation
        if not self.metrics or samples is None or evaluator is None:
            return {}
        # All samples on the first rank, since a metric is no sum over ranks, and the user's code is called once.
        is_first = self.ranks.is_first
        return self.ranks.broadcast(
            evaluate_metrics(self.model, samples, self.metrics, evaluator.batches) if is_first else {}
        )

    def gradients(self) -> Arrays:
        """Compute the gradients on a fixed batch of training samples; see `TrainingView.gradients`."""
        return gradients_of(
            self.model, self.loss, evenly_spaced(self.samples, min(self.batch_size, self.model.capacity))
        )

    def state(self) -> State:
        """Return the complete state of the training, between two steps."""
        self.settle()
        monitor, skipped = self.monitor, self._skipped()
        return State(
            now=monitor.last if monitor.last.step == self.done else self._weights(),
            last=monitor.last,
            good=monitor.good,
            best=monitor.best,
            optimizer=self._optimizer_state(),
            totals=self._totals(),
            samples=self._samples - skipped[1],
            records=tuple(self.history),
            stopped=self.history.stopped,
            skipped=self.history.skipped + skipped[0],
            untrained_loss=monitor.untrained_loss,
            seconds=self._seconds(),
        )

    def restore(self, state: State) -> None:
        """Resume from a state of the same training."""
        kept = {name: weights for name in ("now", "last", "good", "best") if (weights := getattr(state, name))}
        state = replace(state, **{n: replace(w, trained=self._trained_at(w.step)) for n, w in kept.items()})
        self._rewind_point = state.now, state.optimizer
        self.rewind()
        is_first = self.ranks.is_first  # the first rank takes the sums of all ranks
        self.backend.assign(self.step.totals, state.totals if is_first else 0.0)
        self._samples, self._seconds_before = state.samples, state.seconds
        self._own_samples = state.samples if is_first else 0
        self._began = self._began and time.perf_counter()  # earlier time is in the state's seconds
        self.monitor.restore(state)
