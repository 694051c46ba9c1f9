"""Compute on the CPU with NumPy."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend import blas, limits
from gpunn.backend.base import MAX_BYTES, Backend, Shape
from gpunn.kernels import numba_loops
from gpunn.kernels.cores import load_monitor
from gpunn.kernels.record import Array, Elementwise, Raw

_LINE = 64  # bytes of a cache line, and of the widest vector of a CPU


def _aligned(make: Callable[..., NDArray[np.uint8]], shape: Shape, dtype: DTypeLike) -> Array:
    """Make an array aligned to a cache line, so that no vector crosses two lines; NumPy aligns less."""
    if (nbytes := prod(shape) * np.dtype(dtype).itemsize) >= MAX_BYTES:
        raise MemoryError(f"Unable to allocate {nbytes / 2**60:.0f} EiB")
    memory = make(nbytes + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + nbytes].view(dtype).reshape(shape)


class NumpyBackend(Backend):
    """Run kernels on the host, and compute products with NumPy's BLAS."""

    device = "cpu"
    block_elements = 2**20  # 4 MiB of floats: fits the second-level caches of two cores

    def __init__(self) -> None:
        numba = f", Numba {numba_loops.version()}" if numba_loops.version() else ""
        load_monitor.free()  # a first reading, so that the first product knows how busy others are
        self.description = f"CPU, NumPy {np.__version__}, {blas.description()}{numba}"

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        return _aligned(np.empty, shape, dtype)

    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array:
        return _aligned(np.zeros, shape, dtype)

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        return np.ascontiguousarray(values, dtype)

    def to_host(self, array: Array) -> NDArray[Any]:
        return np.array(array)

    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        target[...] = values
        if scale != 1:  # afterwards: NumPy takes longer to convert and multiply at once
            target *= target.dtype.type(scale)

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        kernel.host(*arguments)

    # No wrapper: a step makes many short calls.
    gemm = staticmethod(blas.gemm)
    planned = staticmethod(blas.planned)

    def free_bytes(self) -> int:
        return limits.free_bytes()
