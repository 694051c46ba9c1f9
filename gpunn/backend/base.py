"""Arrays, kernels and the one matrix product of a device, behind one object.

A model is built on a backend and holds it; there is no current backend. Only `cuda.py` and `cublas.py` import CuPy,
and only when a CUDA device is asked for.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.staging import Staging
from gpunn.errors import CaptureError
from gpunn.kernels.record import Array, Elementwise, Raw


class Backend(ABC):
    """Arrays, running kernels, and the one matrix product, on one device.

    Attributes:
        device: "cpu" or "cuda:N".
        description: the device in words.
        reason: why this device was taken.
        precision: what products of float32 are computed in.
        has_graphs: whether work can be recorded and replayed (`capture`).
        block_elements: how large a block of scratch memory best is.
        memory_error: what is raised where the device's memory runs out.
    """

    device: str
    description: str
    reason: str = ""
    has_graphs: bool = False
    precision: str = "float32"
    block_elements: int
    memory_error: type[MemoryError] = MemoryError
    found_again: ClassVar[Callable[[str, str], Backend]]
    """How a pickle comes back to it; see `devices`."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array whose elements are not set."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of zeros."""

    @abstractmethod
    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        """The values as a C-contiguous array of this device; no copy where they are one already."""

    @abstractmethod
    def to_host(self, array: Array) -> NDArray[Any]:
        """A copy of the array in host memory, which waits until the device has computed it."""

    @abstractmethod
    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        """target := values · scale; the values are of this device or the host, the target of this device."""

    @abstractmethod
    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        """Run a kernel record on arrays of this device."""

    @abstractmethod
    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        """c := alpha a b + beta c, the one matrix product of the library.

        Args:
            alpha: factor of the product.
            a: (m, k), rows or columns contiguous: a transpose is a view.
            b: (k, n), likewise.
            beta: factor of what c held; with 0, c need not be set before.
            c: (m, n), rows contiguous.
        """

    def planned(self, a: Array, b: Array, c: Array) -> Callable[[float, float], None]:
        """`gemm` for arrays that stay where they are: (alpha, beta) → c := alpha a b + beta c."""
        return lambda alpha, beta: self.gemm(alpha, a, b, beta, c)

    def planned_all(self, a: Sequence[Array], b: Sequence[Array], c: Sequence[Array]) -> Callable[[float, float], None]:
        """Many such products, none of which depends on another: (alpha, beta) → c[i] := alpha a[i] b[i] + beta c[i]."""
        products = [self.planned(*arrays) for arrays in zip(a, b, c, strict=True)]

        def all_of_them(alpha: float, beta: float) -> None:
            for product in products:
                product(alpha, beta)

        return all_of_them

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything that was started on the device is done."""

    def mark(self) -> Any:
        """This point in the device's work, for `elapsed`."""
        return time.perf_counter()

    def elapsed(self, begin: Any, end: Any) -> float:
        """Seconds from one mark to another, by the device's own clock; waits until it has come to the second."""
        seconds: float = end - begin
        return seconds

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what some work does on the device, without doing it, as one graph.

        Everything that the work uses must have been made before: it runs kernels and products, and nothing else. Do
        it once without capturing, so that every kernel is compiled.

        Args:
            work: runs kernels and products of this backend.

        Returns:
            What does all of it again, at the cost of one launch; or raises `CaptureError` and has done nothing.

        Raises:
            CaptureError: the device cannot record it, with the reason.
        """
        raise CaptureError(f"{self.device} has no graphs")

    def compile_ahead(self, work: Callable[[], None], show: Callable[[int, int], None]) -> None:
        """Compile the kernels that some work will run, which is not done, where they are not in the cache of kernels.

        Of work that reads from the device on the way nothing is known before it is done: then nothing is compiled.

        Args:
            work: see `capture`; it may make memory of its own.
            show: is given the number of each kernel that is compiled, from 1, and how many these are, before it is.
        """

    def staging(self, *arrays: Array) -> Staging:
        """Memory of the host that arrays of this device are filled from while it computes."""
        return Staging(*arrays)

    @abstractmethod
    def free_bytes(self) -> int:
        """Memory that one array could still take on the device; gives back first what is kept there for later."""

    def limit_memory(self, nbytes: int | None) -> None:
        """Let the device's pool of memory grow no further; None for no bound. The host has no pool: see `limits`."""

    # There is one backend of a device: it is not copied with what it holds, and found again by name.

    def __copy__(self) -> Backend:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self, memo: Any) -> Backend:
        return self

    def __reduce__(self) -> Any:
        return type(self).found_again, (self.device, self.precision)


_MOST = 2**62
"""Bytes that no memory has. NumPy refuses more with errors of several kinds; CuPy counts modulo 2⁶⁴ and gives less."""


def refuse_the_impossible(shape: tuple[int, ...], dtype: DTypeLike, error: Callable[[int], MemoryError]) -> None:
    """Raise an error of memory for more bytes than any memory has."""
    if (nbytes := prod(shape) * np.dtype(dtype).itemsize) >= _MOST:
        raise error(nbytes)


class Buffer:
    """Memory for the largest batch, seen as (*shape, n) for any batch of n samples up to that.

    Samples are the last axis, so a short batch is a shorter stretch of the same memory, still contiguous.
    """

    def __init__(self, backend: Backend, shape: tuple[int, ...], capacity: int, dtype: DTypeLike) -> None:
        self.shape = shape
        self.nbytes = prod(shape) * capacity * np.dtype(dtype).itemsize
        self._flat = backend.empty((prod(shape) * capacity,), dtype)
        self._views: dict[int, Array] = {}

    def __getitem__(self, n: int) -> Array:
        """The view for a batch of n samples; the same object each time."""
        view = self._views.get(n)
        if view is None:
            view = self._flat[: prod(self.shape) * n].reshape(*self.shape, n)
            self._views[n] = view
        return view


Shape = tuple[int, ...]


def inside(shape: Shape) -> Shape:
    """The shape of a sample as it lies inside the network: (height, width, channels) turned channels first."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape
