"""Numbers that are not finite: found at little cost, and, where that is asked for, the step taken back."""

from __future__ import annotations

import math

import numpy as np

from gpunn.backend import blas
from gpunn.backend.base import Backend
from gpunn.kernels import rollback as kernels
from gpunn.kernels.record import Array


class FiniteCheck:
    """Whether cost and weights are finite numbers.

    A gradient that is not makes a weight that is not, whichever the optimizer: so the weights stand for it, also where
    no gradient is kept. On the host this may be asked after every step; a device is waited for.

    Args:
        backend: of the arrays.
        values: of all parameters.
        totals: the sums that the cost goes into.
    """

    def __init__(self, backend: Backend, values: Array, totals: Array) -> None:
        self._backend, self._values, self._totals = backend, values, totals
        self._is_host = backend.device == "cpu"
        if self._is_host:
            self._magnitude = blas.planned_magnitude(values)
        else:
            self._flag = backend.zeros((1,), np.int32)

    def cost(self) -> bool:
        """Whether the cost is finite."""
        return math.isfinite(float((self._totals if self._is_host else self._backend.to_host(self._totals))[0]))

    def weights(self) -> bool:
        """Whether all weights are finite."""
        if self._is_host:
            return math.isfinite(self._magnitude()) or bool(np.isfinite(self._values).all())
        backend = self._backend
        backend.run(kernels.mark_not_finite, self._values, self._flag)
        found = bool(backend.to_host(self._flag)[0])
        backend.assign(self._flag, 0)
        return not found


class Skip:
    """Takes a step back where it led to numbers that are not finite, as if its batch had not been there.

    Nothing of it is seen by the host, so it may be part of a recorded step.

    Args:
        backend: of the arrays.
        arrays: everything that a step changes and that the next one builds on.
    """

    def __init__(self, backend: Backend, arrays: list[Array]) -> None:
        self._backend = backend
        self._pairs = [(array, backend.empty(array.shape, array.dtype)) for array in arrays if array.size]
        self._flag = backend.zeros((1,), np.int32)
        self._counts = backend.zeros((2,), np.int32)

    def begin(self) -> None:
        """Hold what the step will change."""
        for array, held in self._pairs:
            self._backend.run(kernels.hold, array, held)

    def end(self, n: int) -> None:
        """Put it back, and count a batch of n samples, where any of it is no longer finite."""
        run = self._backend.run
        for array, _ in self._pairs:
            run(kernels.mark_not_finite, array, self._flag)
        for array, held in self._pairs:
            run(kernels.take_back, self._flag, held, array)
        run(kernels.count_skipped, n, self._flag, self._counts[:1], self._counts[1:])

    def read(self) -> tuple[int, int]:
        """Batches and samples that were skipped since `reset`; waits for the device."""
        batches, samples = self._backend.to_host(self._counts)
        return int(batches), int(samples)

    def reset(self) -> None:
        """Count anew."""
        self._backend.assign(self._counts, 0)
