"""Copy between the host and a CUDA device through pinned memory, while both go on."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Mirror, Staging
from gpunn.errors import DeviceError
from gpunn.kernels.record import Array


class PinnedStaging(Staging):
    """Stage data in pinned memory, and upload on a second stream; only `claim` makes the host wait."""

    def __init__(self, backend: Any, *arrays: Array) -> None:
        host, why = _host_memory(backend, arrays)
        super().__init__(*host)
        if why is not None:
            self.trouble = f"data are copied from pageable memory, which is slower: pinned memory was refused ({why})"
        self._backend, self._stream, self._copies, self._arrays = backend, backend.stream, backend.copies, arrays
        with backend.lock, backend.current:
            # An upload waits for the last work that read the arrays, the next work for the upload.
            self._read, self._copied = (backend.cupy.cuda.Event(disable_timing=True) for _ in range(2))
            # Earlier work may still be using the memory that the new arrays got.
            self._stream.synchronize()

    def claim(self) -> None:
        with self._backend.gate:
            self._copied.synchronize()

    def upload(self, n: int) -> None:
        with self._backend.lock, self._backend.current:
            self._copies.wait_event(self._read)
            for host, array in zip(self.host, self._arrays, strict=True):
                array.data.copy_from_host_async(host.ctypes.data, host[:n].nbytes, self._copies)
            self._copied.record(self._copies)
            self._stream.wait_event(self._copied)

    def release(self) -> None:
        with self._backend.lock, self._backend.current:
            self._read.record(self._stream)


class PinnedMirror(Mirror):
    """Copy on the device's stream through pinned memory; the host waits only for the copy before."""

    def __init__(self, backend: Any, *arrays: Array) -> None:
        super().__init__(*arrays)
        self._backend, self._stream, self._host = backend, backend.stream, list[NDArray[Any]]()

    def send(self, *values: Any) -> None:
        self._make_room()
        self._wait()
        with self._backend.lock, self._backend.current:
            for host, array, value in zip(self._host, self._arrays, values, strict=True):
                part = host[: len(value)]
                part[...] = value
                array.data.copy_from_host_async(part.ctypes.data, part.nbytes, self._stream)
            self._copied.record(self._stream)

    def fetch(self) -> None:
        self._make_room()
        self._wait()
        with self._backend.lock, self._backend.current:
            for host, array in zip(self._host, self._arrays, strict=True):
                array.data.copy_to_host_async(host.ctypes.data, host.nbytes, self._stream)
            self._copied.record(self._stream)

    def fetched(self) -> list[NDArray[Any]]:
        self._wait()
        return [host.copy() for host in self._host]

    def _wait(self) -> None:
        with self._backend.gate:
            self._backend.wait_with_ranks(self._copied)
            self._copied.synchronize()

    def _make_room(self) -> None:
        """Allocate host memory for the first copy."""
        if self._host:
            return
        backend = self._backend
        self._host, _ = _host_memory(backend, self._arrays)
        with backend.lock, backend.current:
            self._copied = backend.cupy.cuda.Event(disable_timing=True)
            self._stream.synchronize()  # earlier copies may still be using this memory


def _host_memory(backend: Any, arrays: Sequence[Array]) -> tuple[list[NDArray[Any]], str | None]:
    """Return pinned memory for each array, or pageable memory and why CUDA refused it.

    The same calls copy from and to pageable memory, but the host waits for its part of a copy.
    """
    try:
        with backend.gate:
            return [_pinned(backend.cupy, array) for array in arrays], None
    except (DeviceError, MemoryError) as error:
        if getattr(error, "is_sticky", False):
            raise
        return [np.empty(array.shape, array.dtype) for array in arrays], str(error)


def _pinned(cupy: Any, like: Array) -> NDArray[Any]:
    """Return pinned host memory with the shape and dtype of an array of the device."""
    memory = cupy.cuda.alloc_pinned_memory(max(1, like.nbytes))
    return np.frombuffer(memory, like.dtype, prod(like.shape)).reshape(like.shape)
