"""Find NaN and Inf at little cost, and, where that is asked for, take the step back."""

import math

import numpy as np

from gpunn.backend import blas
from gpunn.backend.base import Backend
from gpunn.kernels import rollback as kernels
from gpunn.kernels.record import Array

BAD_LOSS, BAD_WEIGHTS = "the loss is NaN or Inf", "the weights contain NaN or Inf"


class FiniteCheck:
    """Tells whether loss and weights are finite; a device is waited for.

    A non-finite gradient makes a weight non-finite under every optimizer, so checking the weights suffices.
    """

    def __init__(self, backend: Backend, values: Array, totals: Array) -> None:
        self._backend, self._values, self._totals = backend, values, totals
        self._is_host = backend.device == "cpu"
        if self._is_host:
            self._magnitude = blas.planned_magnitude(values)
        else:
            self._flag = backend.zeros((1,), np.int32)

    def trouble(self) -> str:
        """Say which of them is not finite; "" where both are."""
        if not math.isfinite(float((self._totals if self._is_host else self._backend.to_host(self._totals))[0])):
            return BAD_LOSS
        return "" if self.weights() else BAD_WEIGHTS

    def weights(self) -> bool:
        """Tell whether all weights are finite."""
        if self._is_host:
            return math.isfinite(self._magnitude()) or bool(np.isfinite(self._values).all())
        self._backend.run(kernels.mark_not_finite, self._values, self._flag)
        found = bool(self._backend.to_host(self._flag)[0])
        self._backend.assign(self._flag, 0)
        return not found


class Skip:
    """Takes a step, of all arrays that it changes, back where it led to NaN or Inf; may be part of a graph."""

    def __init__(self, backend: Backend, arrays: list[Array]) -> None:
        self._backend = backend
        self._pairs = [(array, backend.empty(array.shape, array.dtype)) for array in arrays if array.size]
        self._flag = backend.zeros((1,), np.int32)
        self._counts = backend.zeros((2,), np.int32)

    def begin(self) -> None:
        """Hold everything that the step will change."""
        for array, held in self._pairs:
            self._backend.run(kernels.hold, array, held)

    def end(self, n: int) -> None:
        """Put it back, and count a batch of n samples, where any of it is NaN or Inf."""
        run = self._backend.run
        for array, _ in self._pairs:
            run(kernels.mark_not_finite, array, self._flag)
        for array, held in self._pairs:
            run(kernels.take_back, self._flag, held, array)
        run(kernels.count_skipped, n, self._flag, self._counts[:1], self._counts[1:])

    def read(self) -> tuple[int, int]:
        """Return the batches and samples skipped since `reset`; waits for the device."""
        batches, samples = self._backend.to_host(self._counts)
        return int(batches), int(samples)

    def reset(self) -> None:
        """Count anew."""
        self._backend.assign(self._counts, 0)
