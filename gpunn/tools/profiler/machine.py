"""What a machine can do at its best, measured here and now: products, and copies of any size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpunn.backend.base import Backend
from gpunn.kernels.cores import cores
from gpunn.kernels.parallel import WORTHWHILE, in_pieces

LARGE_COPY = 2**28
"""Bytes of the copy that stands for memory itself: more than most caches hold."""
_MANY = 2**24
_ROUNDS, _IN_A_ROW = 5, 20


class Rates:
    """The rates that the parts of a step are compared with.

    Args:
        backend: what is measured.
        dtype: of the products.
        size: rows and columns of their matrices; left out, what is large on the device.
        large_copy: bytes that the copy in memory reads and writes.

    Attributes:
        size, large_copy: likewise.
        flops: FLOPs a second of a product of two large matrices.
        copy: bytes a second, read and written, of a copy in memory.
    """

    def __init__(
        self, backend: Backend, dtype: DTypeLike, size: int | None = None, large_copy: int = LARGE_COPY
    ) -> None:
        self._backend = backend
        self._copies: dict[int, float] = {}
        self.size, self.large_copy = size or (2048 if backend.device == "cpu" else 4096), large_copy
        a, b, c = (backend.zeros((self.size, self.size), dtype) for _ in range(3))
        for factor in (a, b):
            backend.assign(factor, 0.5)
        self._product = partial(backend.gemm, 1.0, a, b, 0.0, c)
        self._product_seconds = 0.0
        self._product_seconds = self._best_seconds(self._product)
        self.flops = 2 * self.size**3 / self._product_seconds
        self.copy = large_copy / self.copy_seconds(large_copy)

    def copy_seconds(self, nbytes: int) -> float:
        """What a copy takes that reads and writes so many bytes together; small ones stay in the caches."""
        if nbytes not in self._copies:
            times = _IN_A_ROW if nbytes < _MANY else 1
            works = _copies(self._backend, max(1, nbytes // 2))
            self._copies[nbytes] = min(self._best_seconds(work, times) for work in works)
        return self._copies[nbytes]

    def least_seconds(self, flops: int, nbytes: int) -> float:
        """What some work takes at these rates: its products or its copies, whichever takes longer."""
        return max(flops / self.flops, self.copy_seconds(nbytes) if nbytes else 0.0)

    def head_start(self, seconds: float) -> None:
        """Give a CUDA device other work for so long, so that the host is done launching before what is measured begins.

        Without it the device would wait for launches, and the times of short kernels would be those of the host.
        """
        if self._backend.device != "cpu" and self._product_seconds:
            for _ in range(ceil(seconds / self._product_seconds)):
                self._product()

    def _best_seconds(self, work: Callable[[], Any], times: int = 1) -> float:
        """The shortest time of some work on the device; the first time, which warms up, does not count."""
        backend = self._backend
        work()
        backend.synchronize()
        begun = time.perf_counter()
        work()
        host_seconds = time.perf_counter() - begun
        found = []
        for _ in range(_ROUNDS):
            self.head_start(2 * times * host_seconds)
            begin = backend.mark()
            for _ in range(times):
                work()
            found.append(backend.elapsed(begin, backend.mark()) / times)
        return min(found)


def _copies(backend: Backend, nbytes: int) -> Iterator[Callable[[], None]]:
    """Ways to copy so many bytes from one place to another: at once, and on the host also by all cores together."""
    parts = cores() if backend.device == "cpu" else 1
    source, target = (backend.zeros((parts, -(-nbytes // parts)), np.uint8) for _ in range(2))
    for array in (source, target):
        backend.assign(array, 1)  # zeros that nobody has written may all be one page of memory
    yield partial(backend.assign, target, source)
    if parts > 1 and 2 * nbytes >= WORTHWHILE:
        yield lambda: in_pieces(lambda part: np.copyto(target[part], source[part]), parts, 2 * nbytes)
