"""How much memory a training needs, counted without taking any, and what to do where there is less."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from gpunn.backend import Backend
from gpunn.errors import MemoryShortageError
from gpunn.kernels.kernel import Array, Elementwise, Raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpunn.layers import Layer


class _Counting(Backend):
    """A stand-in for a backend whose arrays have a shape and no memory; it counts the bytes that they would take."""

    def __init__(self, like: Backend) -> None:
        self.device, self.description, self.block_elements = like.device, like.description, like.block_elements
        self.nbytes = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        self.nbytes += prod(shape) * np.dtype(dtype).itemsize
        # One element, seen as all of them.
        return as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return self.empty(shape, dtype)

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        return values

    def to_host(self, array: Array) -> Array:
        return array

    def assign(self, target: Array, values: Any) -> None:
        pass

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        pass

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def free_bytes(self) -> int:
        return 0


def bytes_of_network(layers: Sequence[Layer], shape: Sequence[int], batch_size: int, like: Backend, dtype: str) -> int:
    """What a network takes on a device, built for batches of a size: values, gradients and all buffers."""
    from gpunn.config import from_config, to_config
    from gpunn.model import Sequential
    from gpunn.parameter import Parameters

    counting = _Counting(like)
    # New layers: those of the network keep what they were built with.
    model = Sequential(from_config("layer", to_config(layer)) for layer in layers)
    Parameters(model.lay_out(shape, batch_size, counting, dtype).parameters, counting, dtype)
    return counting.nbytes


def shortage(
    error: MemoryError,
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    backend: Backend,
    dtype: str,
    others: int,
    free: int,
) -> MemoryShortageError:
    """An error that says what a training would have needed, and what would fit.

    Args:
        error: that of the allocation.
        layers: of the network.
        shape: of a sample.
        batch_size: that was asked for.
        backend: where memory ran out.
        dtype: of the network.
        others: bytes of the data, where they were to lie on the device.
        free: bytes that were free before.
    """

    def needed(count: int) -> int:
        return bytes_of_network(layers, shape, count, backend, dtype) + others

    fitting = batch_size // 2
    while fitting and needed(fitting) > 0.9 * free:
        fitting //= 2
    less = 'data_on="auto", which streams the data, a smaller network' if others else "a smaller network"
    advice = f"a batch size of {fitting} would fit" if fitting else f"take {less} or less data"
    return MemoryShortageError(
        f"out of memory on {backend.device}: batches of {batch_size} need about {size(needed(batch_size))}, "
        f"{size(free)} were free: {advice} ({' '.join(str(error).split()) or type(error).__name__})"
    )


def size(nbytes: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"
