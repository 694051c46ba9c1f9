"""Filling arrays of a device from the host while the device computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.gate import Gate
from gpunn.errors import DeviceError
from gpunn.kernels.record import Array


class Device(Protocol):
    """What is needed of a CUDA device; see `gpunn.backend.CupyBackend`."""

    cupy: Any
    index: int
    lock: Gate
    gate: Gate
    stream: Any
    copies: Any


class Staging:
    """Arrays of a device with memory of the host that they are filled from.

    They are used in turn, without end: `claim`, write to `host`, `upload`, compute with them, `release`. This one is
    for the host itself, where both are the same memory and nothing is to be copied or waited for.

    Args:
        arrays: of the device.

    Attributes:
        host: what the host writes to, an array for each.
        trouble: why uploads are slower than they could be; empty where they are not.
    """

    trouble: str = ""

    def __init__(self, *arrays: Array) -> None:
        self.host: tuple[NDArray[Any], ...] = arrays

    def claim(self) -> None:
        """Wait until the last upload is over, so that the host may write."""

    def upload(self, n: int) -> None:
        """Copy the first n rows of each array; what is computed after this call sees them.

        Args:
            n: rows.
        """

    def release(self) -> None:
        """Everything that reads the arrays has been given to the device: the next upload begins when it is done."""


class PinnedStaging(Staging):
    """Staging in pinned memory, from which the device fetches by itself, on a stream beside that of the computing.

    Two events keep the order: an upload waits for what last read the arrays, and what is computed next waits for the
    upload. Neither makes the host wait; only `claim` does.

    Args:
        backend: of the device.
        arrays: of the device.
    """

    def __init__(self, backend: Device, *arrays: Array) -> None:
        cupy = backend.cupy
        try:
            with backend.gate:
                host = [_pinned(cupy, array) for array in arrays]
        except (DeviceError, MemoryError) as error:
            if getattr(error, "is_sticky", False):
                raise
            # The same calls copy from any memory; only that the host waits for its own part of it.
            host = [np.empty(array.shape, array.dtype) for array in arrays]
            self.trouble = f"data are copied from pageable memory, which is slower: pinned memory was refused ({error})"
        super().__init__(*host)
        self._backend, self._stream, self._copies, self._arrays = backend, backend.stream, backend.copies, arrays
        with self._device():
            self._read, self._copied = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
            # The memory may have been another's before, whose work on it could still be going on.
            self._stream.synchronize()

    @contextmanager
    def _device(self) -> Iterator[None]:
        """Within it the device of the streams is the current one, as events and copies want it, and nobody captures."""
        with self._backend.lock, self._backend.cupy.cuda.Device(self._backend.index):
            yield

    def claim(self) -> None:
        with self._backend.gate:
            self._copied.synchronize()

    def upload(self, n: int) -> None:
        with self._device():
            self._copies.wait_event(self._read)
            for host, array in zip(self.host, self._arrays, strict=True):
                rows = host[:n]
                array.data.copy_from_host_async(rows.ctypes.data, rows.nbytes, self._copies)
            self._copied.record(self._copies)
            self._stream.wait_event(self._copied)

    def release(self) -> None:
        with self._device():
            self._read.record(self._stream)


def _pinned(cupy: Any, like: Array) -> NDArray[Any]:
    """Memory of the host that does not move, for as much as an array of the device holds."""
    memory = cupy.cuda.alloc_pinned_memory(like.nbytes)
    return np.frombuffer(memory, like.dtype, prod(like.shape)).reshape(like.shape)
