"""A training between two steps: its figures since the last record, and the state that resumes it."""

import math
import time
from collections.abc import Callable, Mapping
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

MOST_COPIED = 64 << 20  # bytes of a look that is judged later: of larger networks a step takes longer than a wait
_NOT_MEASURED = Evaluation(math.nan, math.nan, 0, 0)


class RecordingTraining(Training):
    """A training whose records are made, and whose state can be taken and restored.

    To look at a device's numbers is to copy them. A look that nothing waits for is judged later, when the next one is
    due, so that the device goes on meanwhile: `settle` judges it, as of its step, with the numbers of its step. Whoever
    goes by what a look finds calls that first, as a checkpoint does. So a divergence is found later, and no other.
    """

    _under_way: tuple[int, Callable[[], None]] | None = None  # step of the look that is not judged yet; judges it

    def __init__(self, model: Network, data: Data, options: TrainOptions, backend: Backend) -> None:
        self.metrics = checked_metrics(options.metrics)
        if self.metrics and data.validation is None:
            mend = "load the data with validation=0.1, say, or leave metrics out"
            raise OptionError(f"metrics are measured on the validation samples, and there are none: {mend}")
        super().__init__(model, data, options, backend)
        self.monitor = Monitor(self._back[0])
        self._seconds_before = 0.0
        self._began: float | None = None

    def prepare(self, backend: Backend) -> None:
        """Make everything on a device, or raise MemoryShortageError; OptionError where a metric cannot be measured."""
        super().prepare(backend)
        if self.metrics and self.data.validation is not None:
            check_measurable(self.model, self.data.validation, self.metrics)

    @property
    def history(self) -> History:
        """Records so far."""
        return self.monitor.history

    def figures(self) -> dict[str, float]:
        """Figures of the training samples since the last record, by name; of several ranks, of this one's samples.

        The others need not ask at the same time: who shows a training asks by the clock.
        """
        skipped = self.step.share_of(self._skipped()[1])
        if self._under_way and not self._own_samples:  # at the step of that look, when the sums have just begun anew
            self.settle()
            return self.history[-1].figures("train")
        return self._measure(self.backend.to_host(self.step.totals), max(0, self._own_samples - skipped)).figures

    def _evaluation(self) -> Evaluation:
        """Figures of the training samples since the last record, each as it was before its step."""
        return self._measure(self._totals(), self._samples - self._skipped()[1])

    def _totals(self) -> NDArray[np.float64]:
        """Sums over the training samples since the last record, of all ranks."""
        totals = self.backend.to_host(self.step.totals)
        self.ranks.all_reduce(totals)
        return totals

    def _skipped(self) -> tuple[int, int]:
        """Batches and samples that were skipped since the last record."""
        skip = self.step.skip
        batches, samples = (0, 0) if skip is None else map(int, self.backend.to_host(skip.counts))
        return batches, samples

    def _seconds(self) -> float:
        return self._seconds_before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def settle(self) -> None:
        """Judge the look that is under way, if any; waits for its numbers."""
        if self._under_way is not None:
            (step, judge), self._under_way, now = self._under_way, None, self.done
            self.done = step
            judge()
            self.done = now

    def _forget_look(self) -> None:
        """Let nothing be copied any more, when a training has ended in the midst."""
        if self._under_way is not None:
            self._under_way = None
            with suppress(Exception):  # of a device that is lost, which the training has ended with
                self.backend.synchronize()

    def _look(self) -> Callable[[], tuple[Record, Weights, Arrays]]:
        """Begin to copy the numbers of a record, and its sums anew; return what waits for them and makes the record."""
        model, p, samples, rate = self.model, self.model.parameters, self._samples, self._rate()
        self._copies.fetch()
        self._reset_totals()

        def seen() -> tuple[Record, Weights, Arrays]:
            totals, values, *others = self._copies.fetched()
            arrays = {each.name: values[each.place].reshape(each.shape) for each in p}
            arrays |= zip(model.statistics, others, strict=False)
            remembered = dict(zip(self.optimizer.state, map(p.packed, others[len(model.statistics) :]), strict=True))
            learned = values[: p.gradients.size]
            record = self._recorded(self._measure(totals, samples), _NOT_MEASURED, learned, rate, {})
            return record, Weights(self.done, arrays, self._trained_at(self.done)), remembered

        return seen

    def _measured(self, seen: Evaluation) -> Record:
        """Evaluate the validation samples, and make a record of the figures."""
        watched = self._validation.run() if self._validation else _NOT_MEASURED
        learned = self.backend.to_host(self.model.parameters.learned) if self.options.regularizer else None
        return self._recorded(seen, watched, learned, self._rate(), self._measured_metrics())

    def _recorded(
        self, seen: Evaluation, watched: Evaluation, learned: NDArray[Any] | None, rate: float, own: Mapping[str, float]
    ) -> Record:
        """Make a record of figures of the training and of the validation samples, with λR of the learned values."""
        p = self.model.parameters
        parts, epoch = (("train", seen), ("validation", watched)), self.done / self.step.steps_per_epoch
        figures = {f"{part}_{name}": getattr(figures, name) for part, figures in parts for name in FIGURES}
        if learned is not None and (regularizer := self.options.regularizer):
            weights = p.packed(learned)[: p.weights]
            figures["penalty"] = regularizer.cost(weights, self.samples.total_weight)
        seconds = self.ranks.broadcast(self._seconds())
        return Record(self.done, epoch, **figures, learning_rate=rate, seconds=seconds, measured=tuple(own.items()))

    def _measured_metrics(self) -> dict[str, float]:
        """Measure the metrics that were asked for on the validation samples, where these lie."""
        samples, evaluator = self.data.validation, self._validation
        if not self.metrics or samples is None or evaluator is None:
            return {}
        # All samples on the first rank, since a metric is no sum of shares; it is code from outside, called once.
        is_first = self.ranks.is_first
        return self.ranks.broadcast(
            evaluate_metrics(self.model, samples, self.metrics, evaluator.batches) if is_first else {}
        )

    def gradients(self) -> Arrays:
        """Gradients of the loss on a batch of training samples, the same each time; see `TrainingView.gradients`."""
        return gradients_of(
            self.model, self.loss, evenly_spaced(self.samples, min(self.batch_size, self.model.capacity))
        )

    def state(self) -> State:
        """Return everything that the rest of the training depends on; between two steps."""
        self.settle()
        monitor, skipped = self.monitor, self._skipped()
        return State(
            now=monitor.last if monitor.last.step == self.done else self._weights(),
            last=monitor.last,
            good=monitor.good,
            best=monitor.best,
            optimizer=self._remembered(),
            totals=self._totals(),
            samples=self._samples - skipped[1],
            records=tuple(self.history),
            stopped=self.history.stopped,
            skipped=self.history.skipped + skipped[0],
            untrained_loss=monitor.untrained_loss,
            seconds=self._seconds(),
        )

    def restore(self, state: State) -> None:
        """Go on from a state of the same training."""
        kept = {name: weights for name in ("now", "last", "good", "best") if (weights := getattr(state, name))}
        state = replace(state, **{n: replace(w, trained=self._trained_at(w.step)) for n, w in kept.items()})
        self._back = state.now, state.optimizer
        self.rewind()
        is_first = self.ranks.is_first  # the sums of all, of which the others then have none
        self.backend.assign(self.step.totals, state.totals if is_first else 0.0)
        self._samples, self._seconds_before = state.samples, state.seconds
        self._own_samples = state.samples if is_first else 0
        self._began = self._began and time.perf_counter()  # before which the seconds of the state have passed
        self.monitor.restore(state)
