"""Matrix products that a step repeats on the same buffers."""

from __future__ import annotations

from typing import Any

from gpunn.backend.base import Backend
from gpunn.kernels.record import Array


class Product:
    """c := alpha a b + beta c, planned for the arrays of one call, and only called where the next has the same.

    In a small network most of a product's time would else go into checks and addresses.

    Args:
        backend: that multiplies.
        transposed: which factors are given transposed: "", "a" or "b".
    """

    def __init__(self, backend: Backend, transposed: str = "") -> None:
        self._backend, self._transposed = backend, transposed
        self.forget()

    def forget(self) -> None:
        """Let go of the arrays of the last call."""
        self._a: Any = None
        self._b: Any = None
        self._c: Any = None
        self._planned: Any = None

    def __call__(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        """See `Backend.gemm`."""
        if a is not self._a or b is not self._b or c is not self._c:
            self._a, self._b, self._c = a, b, c
            factors = a.T if self._transposed == "a" else a, b.T if self._transposed == "b" else b
            self._planned = self._backend.planned(*factors, c)
        self._planned(alpha, beta)

    def __getstate__(self) -> dict[str, Any]:
        # What is planned works on the very arrays that it was planned for, and those of a copy are others.
        return {**vars(self), "_a": None, "_b": None, "_c": None, "_planned": None}
