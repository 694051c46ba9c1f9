"""How well a network does: cost and right answers over samples, nothing learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpunn.batches import Batches
from gpunn.kernels.batches import NEXT_STEP
from gpunn.losses import MeanSquaredError

if TYPE_CHECKING:
    from gpunn.model import Sequential


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on some samples.

    Attributes:
        loss: the cost C₀, without a regulariser; nan where the network knows no loss.
        accuracy: share of right answers, 0 to 1; nan for float targets.
        right: how many are right.
        total: how many samples there are.
    """

    loss: float
    accuracy: float
    right: int
    total: int


class Evaluator:
    """Runs samples through a network, and sums cost and right answers on the device."""

    def __init__(self, model: Sequential, batches: Batches) -> None:
        backend = model._built()
        self.model, self.batches, self.backend = model, batches, backend
        self._clock = backend.zeros((4,), np.int32)
        self._totals = backend.zeros((2,), np.float64)
        # A cost of its own: that of the training keeps the buffers that it was recorded with.
        self._loss = MeanSquaredError() if model.loss is None else type(model.loss)()

    def run(self, size: int | None = None) -> Evaluation:
        """One pass over all samples, `size` at once; left out, as many as the network was built for."""
        model, backend, batches = self.model, self.backend, self.batches
        size = size or model.capacity
        stages, bias = model.stages_under(model.loss)
        backend.assign(self._totals, 0.0)
        batches.start(size)
        for number, start in enumerate(range(0, batches.size, size)):
            n = min(size, batches.size - start)
            backend.assign(self._clock[NEXT_STEP : NEXT_STEP + 1], number)
            rows, x = model.input.views(n)
            targets = batches.take(self._clock, n, rows)
            z = model.propagate(x, False, stages)
            self._loss.evaluate(backend, z, targets, self._totals, bias=None if bias is None else bias.value)
            batches.given(n)
        cost, right = (float(total) for total in backend.to_host(self._totals))
        return Evaluation(
            loss=cost / batches.size if model.loss is not None else float("nan"),
            accuracy=right / batches.size if batches.has_labels else float("nan"),
            right=round(right),
            total=batches.size,
        )
