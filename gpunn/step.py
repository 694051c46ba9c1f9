"""The training step: the one place where gradient descent on a minibatch is written down, and its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.batches import Batches
from gpunn.errors import CaptureError
from gpunn.kernels.batches import NEXT_STEP
from gpunn.losses import Loss
from gpunn.optimizers import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpunn.finite import Skip
    from gpunn.model import Sequential


class Step:
    """One step of gradient descent on one minibatch, everything in memory made before.

    It takes nothing from the host but the number of its samples: the order of the epoch, its learning rates, the number
    of the step and the sums of cost and right answers live on the device. So on a CUDA device a step of a full batch is
    recorded once, after one that was run kernel by kernel, and then replayed.

    Args:
        model: built on the device.
        batches: the training set.
        loss: the cost.
        optimizer: built for the parameters of the model.
        batch_size: samples of a full batch.
        capture: whether to record the step where the device can.

    Attributes:
        rates: the learning rate of each step of the epoch.
        stages: what runs, in order; see `Sequential.stages_under`.
        totals: sum of the costs and number of right answers since `reset_totals`.
        trouble: why the step could not be recorded; empty where it was, or was not to be.
        skip: what takes a step back that leads to numbers that are not finite; None where it stays as it is.
    """

    skip: Skip | None = None

    def __init__(
        self,
        model: Sequential,
        batches: Batches,
        loss: Loss,
        optimizer: Optimizer,
        batch_size: int,
        capture: bool = True,
    ) -> None:
        self.model, self.batches, self.loss, self.optimizer = model, batches, loss, optimizer
        self.batch_size = batch_size
        self.backend = backend = model._built()
        self.stages, bias = model.stages_under(loss)
        self._bias = () if bias is None else (bias.value, bias.grad)
        self.steps_per_epoch = -(-batches.size // batch_size)
        self.rates = backend.zeros((self.steps_per_epoch,), model.dtype)
        self.totals = backend.zeros((2,), np.float64)
        self.trouble = ""
        self._is_to_capture = capture and backend.has_graphs
        self._replay: Callable[[], None] | None = None

    def start_epoch(self, order: Any, rates: Any, first: int = 0) -> None:
        """Begin an epoch: its order and its learning rates go to the device, its steps count from `first`."""
        self.batches.start(self.batch_size, order, first)
        self.backend.assign(self.rates, np.asarray(rates, self.model.dtype))
        self.backend.assign(self.model.clock[NEXT_STEP : NEXT_STEP + 1], first)

    def __call__(self, n: int) -> None:
        """Do the next step of the epoch, on n samples: a full batch, or what is left of the epoch."""
        if n != self.batch_size:
            self.compute(n)
        elif self._replay is not None:
            self._replay()
        else:
            self.compute(n)
            if self._is_to_capture:
                self._capture()
        self.batches.given(n)

    @property
    def is_recorded(self) -> bool:
        """Whether steps of a full batch are replayed as a graph."""
        return self._replay is not None

    def compute(self, n: int) -> None:
        """Kernel by kernel: gather n samples, forward (3), cost, backward (8) (12) (13), update (4) (20)–(22)."""
        if self.skip is not None:
            self.skip.begin()
        model, clock = self.model, self.model.clock
        rows, x = model.input.views(n)
        targets = self.batches.take(clock, n, rows)
        z = model.propagate(x, True, self.stages)
        self.loss.evaluate(self.backend, z, targets, self.totals, 1.0, *self._bias)
        self.optimizer.before_backward(self.rates, clock)
        model.backpropagate(self.loss.gradient, self.stages)
        self.optimizer.update(self.rates, clock)
        if self.skip is not None:
            self.skip.end(n)

    def _capture(self) -> None:
        self._is_to_capture = False
        try:
            self._replay = self.backend.capture(lambda: self.compute(self.batch_size))
        except CaptureError as error:
            self.trouble = str(error)

    def read_totals(self) -> tuple[float, float]:
        """Sum of the costs and number of right answers; waits for the device."""
        cost, right = self.backend.to_host(self.totals)
        return float(cost), float(right)

    def reset_totals(self) -> None:
        """Begin to sum anew."""
        self.backend.assign(self.totals, 0.0)
