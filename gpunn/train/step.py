"""Take a training step: gradient descent on a minibatch, as a CUDA graph if possible, undone if it gives NaN or Inf.

Of several ranks each computes its share of the batch, and their gradients are summed before the update.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backend.base import Backend
from gpunn.backend.ranks import world
from gpunn.data.loader import DataLoader
from gpunn.errors import CaptureError, DeviceError
from gpunn.kernels import rollback
from gpunn.kernels.gather import NEXT_STEP
from gpunn.kernels.record import Array
from gpunn.kernels.updates import end_step
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network
from gpunn.train.average import WeightAverage
from gpunn.train.capture_check import CaptureCheck
from gpunn.train.distributed import share_of, share_of_order
from gpunn.train.optimizers import Optimizer

STEPS_PER_GRAPH = 8  # most steps of a graph, which share the host's time for a replay; see `docs/design/step.md`


class Skip:
    """Undo a step that led to NaN or Inf in any array it changes; may be part of a graph."""

    def __init__(self, backend: Backend, arrays: list[Array]) -> None:
        self._backend = backend
        self._pairs = [(array, backend.empty(array.shape, array.dtype)) for array in arrays if array.size]
        self._flag = backend.zeros((1,), np.int32)
        self.counts = backend.zeros((2,), np.int32)  # batches and samples skipped since the last record

    def begin(self) -> None:
        """Copy everything that the step will change."""
        for array, held in self._pairs:
            self._backend.run(rollback.hold, array, held)

    def end(self, n: int) -> None:
        """Restore the copies, and count a skipped batch of n samples, if anything is NaN or Inf."""
        run = self._backend.run
        for array, _ in self._pairs:
            run(rollback.mark_not_finite, array, self._flag)
        if world().size > 1:  # one rank's loss may be Inf while the weights of all stay finite
            self._backend.all_reduce(self._flag)
        for array, held in self._pairs:
            run(rollback.take_back, self._flag, held, array)
        run(rollback.count_skipped, n, self._flag, self.counts[:1], self.counts[1:])


class Step:
    """Do one step of gradient descent on a minibatch; all its data lie on the device, so that a graph can replay it."""

    average: WeightAverage | None = None
    skip: Skip | None = None  # None: steps with NaN or Inf are not undone

    def __init__(
        self, model: Network, batches: DataLoader, loss: Loss, optimizer: Optimizer, batch_size: int, capture: bool
    ) -> None:
        self.model, self.batches, self.loss, self.optimizer = model, batches, loss, optimizer
        self.batch_size, self.steps_per_graph, self.ranks = batch_size, STEPS_PER_GRAPH, world()
        self._own_batch = self.share_of(batch_size)  # samples of this rank in a full batch
        self.backend = backend = model._built()
        self.stages, bias = model.stages_under(loss)
        self._bias = () if bias is None else (bias.value, bias.grad)
        self.steps_per_epoch = -(-batches.size // batch_size)
        self.rates = backend.zeros((self.steps_per_epoch,), model.dtype)  # learning rates of the epoch's steps
        sums = 2 if batches.samples.weights is None else 3
        self.totals = backend.zeros((sums,), np.float64)  # sum of losses, number of right answers; sum of weights
        self.trouble = ""  # why a graph could not be captured or replayed
        self._update_ends_step = getattr(type(optimizer).update, "ends_step", False)
        self._is_to_capture = capture and backend.has_graphs
        self._are_streamed = self.ranks.any(batches.is_streamed)
        self._graphs: dict[int, Callable[[], None]] = {}  # graphs by their number of steps
        self._sent = backend.mirror(self.rates, model.clock[NEXT_STEP : NEXT_STEP + 1])

    def start_epoch(self, order: Any, rates: Any, first: int = 0) -> None:
        """Copy the order and learning rates of an epoch to the device, and start at its step `first`."""
        if self.ranks.size > 1:
            order = share_of_order(order, self.batch_size, self.ranks)
        self.batches.start(self._own_batch, order, first)
        self._sent.send(rates, np.array([first]))

    def __call__(self, n: int, replay: bool = True) -> None:
        """Do the next steps of the epoch, on n samples, by graphs or, without `replay`, kernel by kernel."""
        while n > 0:
            done = self._replay(n) if replay and self._graphs else 0
            if not done:
                done = min(n, self.batch_size)
                self.compute(done)
                if done == self.batch_size and self._is_to_capture:
                    self._capture(1)
            self.given(done)
            n -= done

    def share_of(self, n: int) -> int:
        """Count this rank's share of the next n samples, which start a batch."""
        return n if self.ranks.size == 1 else share_of(n, self.batch_size, self.ranks)

    def given(self, n: int) -> None:
        """Record that work on n more samples has been enqueued."""
        self.batches.advance(self.share_of(n))

    @property
    def sums(self) -> list[Array]:
        """Arrays that sum and count from one record to the next."""
        return [self.totals] if self.skip is None else [self.totals, self.skip.counts]

    @property
    def is_recorded(self) -> bool:
        """Return whether steps of a full batch are replayed as a graph."""
        return bool(self._graphs)

    def compute(self, n: int) -> None:
        """Run a step's kernels: gather n samples, forward (3), loss, backward (8) (12) (13), update (4) (20)–(22)."""
        if self.skip is not None:
            self.skip.begin()
        clock = self.model.clock
        if self.ranks.size == 1:
            self._compute_gradients(n, {})
        else:
            self._compute_shared_gradients(n)
        self.optimizer.add_penalty()
        self.optimizer.update(self.rates, clock)
        self.optimizer.clear_gaps()
        if not self._update_ends_step:
            self.backend.run(end_step, clock[:NEXT_STEP], clock[NEXT_STEP:])
        if self.average is not None:
            self.average.update()
        if self.skip is not None:
            self.skip.end(n)

    def _compute_gradients(self, n: int, given: dict[str, Any]) -> None:
        """Compute the gradients of this rank's next n samples."""
        model, clock = self.model, self.model.clock
        rows, x = model.input.views(n)
        targets = self.batches.take(clock, n, rows, model.share.first)
        z = model.propagate(x, True, self.stages)
        if self.batches.taken_weights is not None:
            given["sample_weight"] = self.batches.taken_weights
        self.loss.evaluate(self.backend, z, targets, self.totals, 1.0, *self._bias, **given)
        self.optimizer.before_backward(self.rates, clock)
        model.backpropagate(self.loss.gradient, self.stages)

    def _compute_shared_gradients(self, n: int) -> None:
        """Compute the gradients of this rank's share of n samples, and sum them over all ranks."""
        model, share = self.model, self.model.share
        first, end = self.ranks.share(n)
        share.first, share.of = first, n
        try:
            if first < end:
                self._compute_gradients(end - first, {"of": n})
            else:  # the last batch has fewer samples than ranks
                clock = model.clock
                self.backend.assign(clock[:NEXT_STEP], clock[NEXT_STEP:])
                self.backend.assign(model.parameters.gradients, 0.0)
                self.optimizer.before_backward(self.rates, clock)
                model.idle(self.stages)
        finally:
            share.first = share.of = 0
        self.backend.all_reduce(model.parameters.gradients)

    def _replay(self, n: int) -> int:
        """Replay one graph of 8, 4, 2 or 1 steps, within n samples; return the number of samples it took."""
        available = self.batches.available // self._own_batch
        if self._are_streamed and self.ranks.size > 1:  # ranks stream chunks of different sizes
            available = int(self.ranks.all_gather(np.array(available)).min())
        full = min(n // self.batch_size, available)
        steps = self._steps_of_graph(full)
        if steps and steps not in self._graphs:
            self._capture(steps)
            steps = self._steps_of_graph(full)  # one step, if the capture was refused
        if steps:
            try:
                self._graphs[steps]()
            except CaptureError as error:
                if self.ranks.size > 1:
                    what = f"CUDA refused this rank a graph ({error}), and the others have begun theirs"
                    raise DeviceError(f"{what}: start again, and go on with gpunn train --resume RUN") from error
                self._graphs.clear()
                self.steps_per_graph, steps = 1, 0
                self.trouble = f"training kernel by kernel, not by graph: its replay was refused ({error})"
        return steps * self.batch_size

    def _steps_of_graph(self, most: int) -> int:
        """Halve `steps_per_graph` until it is at most `most`."""
        steps = self.steps_per_graph
        while steps > most:
            steps //= 2
        return steps

    def _capture(self, steps: int) -> None:
        """Capture steps as one graph; if that is refused, they will run one by one."""

        def work() -> None:
            for _ in range(steps):
                self.compute(self.batch_size)

        self._is_to_capture = False
        layers = [layer for layer, _ in self.model.every_layer]
        check = CaptureCheck([*layers, self.loss, self.optimizer, self.optimizer.penalty])
        try:
            with check.watched():
                graph = self.backend.capture(work)
            if found := check.found():
                raise CaptureError(found)
            self._graphs[steps] = graph
        except CaptureError as error:
            check.restore()
            how = "kernel by kernel, not by graph" if steps == 1 else f"with a graph a step, not one for {steps}"
            self.trouble = f"training {how}: {error}"
            self.steps_per_graph = 1
