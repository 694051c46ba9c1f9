"""The backend of a CUDA device: CuPy, on one stream, in graphs where work repeats."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend import kernel_cache, limits
from gpunn.backend.base import Backend, refuse_the_impossible
from gpunn.backend.gate import Gate
from gpunn.backend.staging import PinnedStaging, Staging
from gpunn.errors import CaptureError, DeviceError
from gpunn.kernels.record import Array, Elementwise, Raw


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
        from gpunn.backend.cublas import Cublas  # which imports nvmath

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
        from gpunn.backend.cublas import Cublas

        other = copy(self)
        other.precision = precision
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            other.cublas = Cublas(self.stream.ptr, precision)
        return other

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            self.refuse_the_impossible(shape, dtype)
            return self.cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            self.refuse_the_impossible(shape, dtype)
            return self.cupy.zeros(shape, dtype)

    def refuse_the_impossible(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        taken = self.cupy.get_default_memory_pool().total_bytes
        refuse_the_impossible(shape, dtype, lambda nbytes: self.memory_error(nbytes, taken()))

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
        from gpunn.backend.driver import reinstall_command

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
