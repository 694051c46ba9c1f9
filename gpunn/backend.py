"""Where arrays live and kernels run: NumPy on the CPU, CuPy on a CUDA device, behind one object.

A model is built on a backend and holds it; there is no current backend. Only this file and `cublas.py` import CuPy,
and only when a CUDA device is asked for.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn import blas, kernel_cache, limits, trial
from gpunn.cuda_errors import line
from gpunn.errors import CaptureError, DeviceError, OptionError
from gpunn.gate import Gate
from gpunn.kernels import loops
from gpunn.kernels.cores import crowd
from gpunn.kernels.kernel import Array, Elementwise, Raw
from gpunn.staging import PinnedStaging, Staging

_LINE = 64
"""Bytes of a cache line, and of the widest vector of a CPU."""


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
        return _found_again, (self.device, self.precision)


_MOST = 2**62
"""Bytes that no memory has. NumPy refuses more with errors of several kinds; CuPy counts modulo 2⁶⁴ and gives less."""


def _refuse_the_impossible(shape: tuple[int, ...], dtype: DTypeLike, error: Callable[[int], MemoryError]) -> None:
    if (nbytes := prod(shape) * np.dtype(dtype).itemsize) >= _MOST:
        raise error(nbytes)


def _aligned(make: Callable[..., NDArray[np.uint8]], shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array that begins where a cache line does, so that no vector lies across two; NumPy's begin anywhere."""
    _refuse_the_impossible(shape, dtype, lambda n: MemoryError(f"Unable to allocate {n / 2**60:.0f} EiB"))
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory = make(nbytes + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + nbytes].view(dtype).reshape(shape)


class NumpyBackend(Backend):
    """The CPU: kernels are their NumPy twins, and the product is the BLAS that NumPy brought."""

    device = "cpu"
    block_elements = 2**20  # 4 MiB of floats: what the second-level caches of two cores hold

    def __init__(self) -> None:
        numba = f", Numba {loops.version()}" if loops.version() else ""
        crowd.free()  # a first look, so that it is known how busy others are when the first product comes
        self.description = f"CPU, NumPy {np.__version__}, {blas.description()}{numba}"
        # A step makes short calls: no wrapper between.
        self.gemm, self.planned, self.planned_all = blas.gemm, blas.planned, blas.planned_all  # type: ignore[method-assign]

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return _aligned(np.empty, shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return _aligned(np.zeros, shape, dtype)

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        return np.ascontiguousarray(values, dtype)

    def to_host(self, array: Array) -> NDArray[Any]:
        return np.array(array)

    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        target[...] = values
        if scale != 1:  # afterwards: to convert and multiply in one takes NumPy longer
            target *= target.dtype.type(scale)

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        kernel.host(*arguments)

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        blas.gemm(alpha, a, b, beta, c)

    def synchronize(self) -> None:
        pass

    def free_bytes(self) -> int:
        return limits.free_bytes()


@dataclass
class _Shared:
    """What the backends of a CUDA device have in common, whatever their precision.

    Attributes:
        is_limited: whether the memory pool has a bound of our making.
        recorded: arguments of the capture that is under way.
        rehearsed: kernels and arguments of work that is looked at, and not done; see `compile_ahead`.
    """

    is_limited: bool = False
    recorded: list[tuple[Any, ...]] | None = None
    rehearsed: list[tuple[Elementwise | Raw, tuple[Any, ...]]] | None = None


class CupyBackend(Backend):
    """A CUDA device through CuPy.

    Threads may share it: what one gives to the stream does not get into the capture of another.
    """

    has_graphs = True

    block_elements = 2**24  # 64 MiB of floats: enough to fill the device, little beside its memory

    def __init__(self, index: int) -> None:
        cupy = import_cupy()

        from gpunn.cublas import Cublas

        self.cupy = cupy
        self.index = index
        self.memory_error = cupy.cuda.memory.OutOfMemoryError
        self.lock, self.gate = (Gate(self._out_of_memory, is_lock) for is_lock in (True, False))
        self.device = f"cuda:{index}"
        with self.lock, cupy.cuda.Device(index):
            properties = cupy.cuda.runtime.getDeviceProperties(index)
            # Not a non-blocking stream: what a user does with our arrays on CuPy's own stream must see our work done.
            self.stream = cupy.cuda.Stream()
            # For copies from the host, which are ordered by events and by nothing else.
            self.copies = cupy.cuda.Stream(non_blocking=True)
            with self.stream:  # whose work alone may have used the memory of cuBLAS's workspace before
                self.cublas = Cublas(self.stream.ptr)
        name = properties["name"].decode()
        self.description = (
            f"{name}, {properties['totalGlobalMem'] / 2**30:.0f} GiB, compute capability "
            f"{properties['major']}.{properties['minor']}, CuPy {cupy.__version__}"
        )
        self._compiled: dict[Any, Any] = {}  # by the record, not its name: a cell may define it again
        self._shared = _Shared()

    def _out_of_memory(self, text: str) -> MemoryError:
        error: MemoryError = self.memory_error(0, 0)
        error.args = (text,)
        return error

    def in_precision(self, precision: str) -> CupyBackend:
        """The same device and stream, with products computed in another precision."""
        from gpunn.cublas import Cublas

        other = copy(self)
        other.precision = precision
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            other.cublas = Cublas(self.stream.ptr, precision)
        return other

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            self._refuse_the_impossible(shape, dtype)
            return self.cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            self._refuse_the_impossible(shape, dtype)
            return self.cupy.zeros(shape, dtype)

    def _refuse_the_impossible(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        taken = self.cupy.get_default_memory_pool().total_bytes
        _refuse_the_impossible(shape, dtype, lambda nbytes: self.memory_error(nbytes, taken()))

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        with self.lock, self.cupy.cuda.Device(self.index):
            values = self._ours(values)
            with self.stream:
                return self.cupy.ascontiguousarray(self._brought(values, dtype))

    def _brought(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        """Values as an array of the device. CuPy takes pinned memory for that; where it is refused, without."""
        try:
            return self.cupy.asarray(values, dtype)
        except self.cupy.cuda.runtime.CUDARuntimeError:
            if isinstance(values, self.cupy.ndarray):
                raise
            host = np.ascontiguousarray(values, dtype)
            array = self.cupy.empty(host.shape, host.dtype)
            array.data.copy_from_host(host.ctypes.data, host.nbytes)
            return array

    def _ours(self, values: Any) -> Any:
        """Values that our stream may read; those of another stream or device are waited for, but not by the host."""
        if not isinstance(values, self.cupy.ndarray):
            return values
        with self.cupy.cuda.Device(values.device.id):
            theirs = self.cupy.cuda.get_current_stream()
            # The default stream and ours wait for each other anyhow.
            if theirs.ptr not in (0, self.stream.ptr) or values.device.id != self.index:
                self.stream.wait_event(theirs.record())
        if values.device.id == self.index:
            return values
        with self.stream:
            return values.copy()

    def to_host(self, array: Array) -> NDArray[Any]:
        # The stream is the current one too: an array that is not contiguous is made so there before it is copied.
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            if self._shared.rehearsed is not None:
                raise _NotRehearsedError  # what would be read has not been computed
            return np.asarray(self.cupy.asnumpy(array, stream=self.stream))

    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        with self.lock, self.cupy.cuda.Device(self.index):
            values = self._ours(values)
            with self.stream:
                target[...] = self._brought(values)
                if scale != 1:
                    target *= target.dtype.type(scale)

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            if self._shared.rehearsed is not None:
                self._shared.rehearsed.append((kernel, arguments))
                return
            if self._shared.recorded is not None:
                self._shared.recorded.append(arguments)
            if isinstance(kernel, Elementwise):
                self._elementwise(kernel)(*arguments)
                return
            types = {name: arguments[at].dtype for name, at in kernel.types.items()}
            function, launch = self._raw(kernel, types), kernel.launch(*arguments)
            blocks = launch.blocks if isinstance(launch.blocks, tuple) else (launch.blocks,)
            function(blocks, (launch.threads,), tuple(_typed(value, types.get("T")) for value in launch.arguments))

    def compile_ahead(self, work: Callable[[], None], show: Callable[[int, int], None]) -> None:
        with self.lock, self.cupy.cuda.Device(self.index):
            plan = self._shared.rehearsed = []
            try:
                work()
            except _NotRehearsedError:
                return
            finally:
                self._shared.rehearsed = None
        missing: dict[str, tuple[Elementwise | Raw, tuple[Any, ...]]] = {}
        with kernel_cache.looking():
            for kernel, arguments in plan:
                try:
                    self._load(kernel, arguments)
                except kernel_cache.MissingError as error:
                    missing.setdefault(str(error), (kernel, arguments))
        for number, (kernel, arguments) in enumerate(missing.values(), 1):
            show(number, len(missing))
            self._load(kernel, arguments)

    def _load(self, kernel: Elementwise | Raw, arguments: tuple[Any, ...]) -> None:
        """Have a kernel on the device as `run` will want it, without running it."""
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            if isinstance(kernel, Raw):
                self._raw(kernel, {name: arguments[at].dtype for name, at in kernel.types.items()}).compile()
            else:
                with suppress(_NotLaunchedError):
                    self._elementwise(kernel)(*arguments, stream=_NoStream())

    def _elementwise(self, kernel: Elementwise) -> Any:
        function = self._compiled.get(kernel)
        if function is None:
            function = self._compiled[kernel] = self.cupy.ElementwiseKernel(
                kernel.inputs, kernel.outputs, _cuda_body(kernel), kernel.name, preamble=kernel.preamble
            )
        return function

    def _raw(self, kernel: Raw, types: dict[str, np.dtype[Any]]) -> Any:
        key = (kernel, *map(str, types.values()))
        function = self._compiled.get(key)
        if function is None:
            function = self._compiled[key] = self.cupy.RawKernel(
                cuda_source(kernel, types), kernel.name, options=kernel.options
            )
        return function

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        # A handle of cuBLAS may be used only while the device that it was made on is the current one.
        with self.lock, self.cupy.cuda.Device(self.index):
            if self._shared.rehearsed is not None:
                return
            if self._shared.recorded is not None:
                self._shared.recorded.append((a, b, c))
            self.cublas.gemm(alpha, a, b, beta, c)

    def synchronize(self) -> None:
        with self.lock:  # to wait for a stream that another thread captures would spoil its capture
            self.stream.synchronize()

    def mark(self) -> Any:
        with self.lock, self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event()
            event.record(self.stream)
        return event

    def elapsed(self, begin: Any, end: Any) -> float:
        with self.gate:
            end.synchronize()
            return float(self.cupy.cuda.get_elapsed_time(begin, end)) / 1000

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        stream = self.stream
        with self.lock, self.cupy.cuda.Device(self.index), stream:
            # A graph knows addresses only: what it works on must not be given back to the pool, and so to others.
            kept = self._shared.recorded = []
            try:
                stream.begin_capture()
                work()
                graph = stream.end_capture()
            except BaseException as error:
                # Whatever it was, Ctrl-C too: a stream that is left capturing would refuse all that comes after.
                with suppress(Exception):  # a broken capture ends with an error of its own
                    stream.end_capture()
                if isinstance(error, Exception):
                    translated = self.gate.translated(error) or error
                    if getattr(translated, "is_sticky", False):
                        raise translated from error
                    if stream.is_capturing():  # and so can be used for nothing else
                        mend = "start the program again; where that comes back, update the driver"
                        raise DeviceError(
                            f"CUDA does not end a recording that failed ({translated}): {mend}", mend
                        ) from error
                    raise CaptureError(f"{type(error).__name__}: {error}") from error
                raise
            finally:
                self._shared.recorded = None

        def replay(_kept: list[tuple[Any, ...]] = kept) -> None:
            with self.lock, self.cupy.cuda.Device(self.index):
                try:
                    graph.launch(stream)
                except Exception as error:
                    translated = self.gate.translated(error) or error
                    if getattr(translated, "is_sticky", False):
                        raise translated from error
                    raise CaptureError(str(translated)) from error

        return replay

    def staging(self, *arrays: Array) -> Staging:
        return PinnedStaging(self, *arrays)

    def free_bytes(self) -> int:
        with self.lock, self.cupy.cuda.Device(self.index):
            pool = self.cupy.get_default_memory_pool()
            # What the pool still holds then is in use, or a piece of a block that is: no large array gets that.
            pool.free_all_blocks()
            free = int(self.cupy.cuda.runtime.memGetInfo()[0])
            return max(0, min(free, pool.get_limit() - pool.total_bytes())) if pool.get_limit() else free

    def limit_memory(self, nbytes: int | None) -> None:
        if nbytes is None and not self._shared.is_limited:
            return  # it may have a bound that is not of our making
        self._shared.is_limited = nbytes is not None
        with self.lock, self.cupy.cuda.Device(self.index):
            self.cupy.get_default_memory_pool().set_limit(size=nbytes or 0)


class _NotRehearsedError(BaseException):  # no Exception: who handles errors inside the work must not handle this
    """Work that looks at what it computes cannot be looked at without being done."""


class _NotLaunchedError(Exception):
    """A kernel got as far as to be launched."""


class _NoStream:
    """A stream that CuPy asks for its address when a kernel is compiled and loaded, and is to be launched."""

    @property
    def ptr(self) -> int:
        raise _NotLaunchedError


_CUDA_NAMES = {
    "float16": "__half",
    "float32": "float",
    "float64": "double",
    "uint8": "unsigned char",
    "int32": "int",
    "int64": "long long",
    "uint32": "unsigned",
}


def cuda_source(kernel: Raw, types: dict[str, np.dtype[Any]]) -> str:
    """The CUDA C++ of a raw kernel with its type names set."""
    names = "".join(f"typedef {_CUDA_NAMES[str(dtype)]} {name};\n" for name, dtype in types.items())
    return names + kernel.preamble + _cuda_body(kernel)


def _cuda_body(kernel: Elementwise | Raw) -> str:
    """The CUDA C++ of a kernel.

    Raises:
        DeviceError: it has none.
    """
    body = kernel.operation if isinstance(kernel, Elementwise) else kernel.source
    if not body:
        raise DeviceError(f"the kernel {kernel.name} is for the CPU only, it has no CUDA source: take device='cpu'")
    return body


def _typed(value: Any, dtype: np.dtype[Any] | None) -> Any:
    """A Python scalar as what the CUDA function declares: `int`, or the network's type; one of NumPy's as it is."""
    if isinstance(value, np.generic):  # first: np.float64 is a float too, and a kernel that says double means it
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int32(value)
    if isinstance(value, float):
        return (dtype or np.dtype(np.float32)).type(value)
    return value


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


_making = threading.RLock()


def _backend(device: str, precision: str = "float32") -> Backend:
    """The one backend of a device and precision: two would be two streams, without an order between their work."""
    with _making:  # threads that ask at once are given the same one
        return _made(device, precision)


@cache  # by both arguments, always: a call that leaves one out would be another key
def _made(device: str, precision: str, /) -> Backend:
    if device == "cpu":
        return NumpyBackend()
    if precision != "float32" and isinstance(plain := _made(device, "float32"), CupyBackend):
        return plain.in_precision(precision)  # on the same stream: what one computes the other sees done
    return CupyBackend(int(device.partition(":")[2]))


def backend_of(array: Array) -> Backend:
    """The backend whose memory an array lies in."""
    return _backend("cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}")


def _found_again(device: str, precision: str) -> Backend:
    """The backend of a device by name, or the CPU's where that device cannot be used."""
    return _backend("cpu") if device == "cpu" or cuda_trouble(int(device[5:])) else _backend(device, precision)


PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


def select(device: str = "auto", precision: str = "float32") -> Backend:
    """The backend for a device by name.

    Args:
        device: "auto" (CUDA where it can be used, else the CPU), "cpu", "cuda" or "cuda:N".
        precision: what products of float32 are computed in: "float32", or on a CUDA device "tf32", "bfloat16" or
            "float16", which round the factors and use the tensor cores; weights, sums, costs and statistics stay
            float32.

    Returns:
        The backend; its `reason` says why it was taken.

    Raises:
        OptionError: no such device or precision, or one that the device does not have.
        DeviceError: a CUDA device was asked for and cannot be used.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
    if not isinstance(device, str):
        raise OptionError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    if device == "cpu":
        backend, reason = _backend("cpu"), "asked for"
    elif device == "auto":
        backend, reason = _best(precision)
    elif device == "cuda" or (device.startswith("cuda:") and device[5:].isdecimal()):
        index = int(device[5:] or 0)
        if trouble := cuda_trouble(index):
            raise DeviceError(f"device {device!r} cannot be used: {trouble}; or take --device cpu")
        try:
            backend, reason = _backend(f"cuda:{index}", precision), "asked for"
        except MemoryError as error:
            trouble = line("CUDA", 2, str(error))
            raise DeviceError(f"device {device!r} cannot be used: {trouble}; or take --device cpu") from None
    else:
        raise OptionError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    if backend.precision != precision:
        raise OptionError(f"precision {precision!r} needs a CUDA device, and this is {backend.device}: take float32")
    backend.reason = reason
    backend.limit_memory(limits.memory_limit())
    return backend


def _best(precision: str) -> tuple[Backend, str]:
    """The first CUDA device that can be used, else the CPU, and why."""
    from gpunn.doctor import read_driver

    troubles = {0: cuda_trouble(0)}
    if troubles[0]:
        troubles |= {index: cuda_trouble(index) for index in range(1, len(read_driver().gpus))}
    for index, trouble in troubles.items():
        if not trouble:
            try:
                backend = _backend(f"cuda:{index}", precision)
            except (DeviceError, MemoryError) as error:
                troubles[index] = str(error)
            else:
                others = f", as cuda:0 cannot be used: {troubles[0]}" if index else ""
                return backend, f"a CUDA device is there{others}"
    return _backend("cpu"), f"no CUDA: {troubles[0]}"


def trials(index: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """What a device is tried by, step by step: a name, and what says in words how it went.

    Raises:
        DeviceError, MemoryError: by a step that fails; those after it have no meaning then.
    """
    yield "CuPy import", lambda: f"CuPy {import_cupy().__version__}"
    yield f"cuda:{index}", lambda: open_device(index)
    yield "cuBLAS handle", lambda: _backend(f"cuda:{index}").device
    yield "kernel", lambda: trial.kernel(_backend(f"cuda:{index}"))
    yield "product", lambda: trial.product(_backend(f"cuda:{index}"))


def cuda_trouble(index: int = 0) -> str:
    """Why CUDA device `index` cannot be used and what mends that, in one line; empty when it can.

    It is tried: CuPy is imported, a context made, a kernel compiled and run, a product computed.
    """
    from gpunn.doctor import cuda_advice

    if advice := cuda_advice(index):
        return advice
    for _, attempt in trials(index):
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 - whatever it is, this device cannot be used
            what, mend = trial.trouble_in(error)
            return f"{what}: {mend}"
    return ""


def import_cupy() -> Any:
    """CuPy, with all of it that is used here, and nvmath's bindings of cuBLAS.

    Raises:
        DeviceError: they cannot be imported, whatever the reason.
    """
    try:
        if "cupy" not in sys.modules:
            kernel_cache.prepare()
        # Said each time; where it matters, for data that are streamed, the training says it once.
        warnings.filterwarnings("ignore", "Using synchronous transfer as pinned memory")
        import cupy
        from nvmath.bindings import cublas  # noqa: F401

        _ = cupy.ndarray, cupy.cuda.Device, cupy.RawKernel  # of a package that is half there some are not
        kernel_cache.tolerate(getattr(cupy.cuda, "compiler", None))
    except Exception as error:
        from gpunn.doctor import reinstall_command

        # CuPy wraps what the loader says in advice of its own.
        first = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        said = " ".join(str(first).split())[:200]
        mend = reinstall_command()
        if "GLIBCXX" in said or "CXXABI" in said:
            mend = (
                "another, older libstdc++ is found first: take its folder out of LD_LIBRARY_PATH, or in conda "
                "install libstdcxx-ng"
            )
        elif "GLIBC_" in said:
            mend = "this system is older than CuPy's wheels are made for: use a newer one, or the CPU"
        raise DeviceError(f"CuPy cannot be imported ({type(error).__name__}: {said}): {mend}", mend) from error
    return cupy


def open_device(index: int) -> str:
    """Make a context on a CUDA device, and say what memory it has left.

    Raises:
        DeviceError: there is no such device, or it cannot be used.
    """
    cupy = import_cupy()
    with Gate(MemoryError):
        devices = int(cupy.cuda.runtime.getDeviceCount())
        if index >= devices:
            raise DeviceError(f"there is no device {index}, only {devices}: the first is cuda:0")
        with cupy.cuda.Device(index):
            free, whole = cupy.cuda.runtime.memGetInfo()
    return f"{limits.size(free)} of {limits.size(whole)} free"
