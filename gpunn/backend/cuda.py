"""Compute on a CUDA device with CuPy: on one stream, with graphs for repeated work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend import compiling, wide
from gpunn.backend.base import MAX_BYTES, Backend, Mirror, Shape, Staging
from gpunn.backend.cublas import Cublas
from gpunn.backend.cuda_errors import Gate, translated
from gpunn.backend.cupy_import import import_cupy
from gpunn.backend.nccl import Communicator
from gpunn.backend.pinned import PinnedMirror, PinnedStaging
from gpunn.backend.ranks import world
from gpunn.errors import CaptureError, DeviceError
from gpunn.kernels.record import Array, Elementwise, Raw


@dataclass
class _Shared:
    """State that all backends of a CUDA device share, in any precision."""

    is_limited: bool = False  # gpunn has limited the memory pool
    recorded: list[tuple[Any, ...]] | None = None  # arguments in the current capture
    rehearsed: list[tuple[Elementwise | Raw, tuple[Any, ...]]] | None = None  # by `compile_ahead`, not run
    communicator: Communicator | None = None  # with the devices of the other ranks


_alone = threading.RLock()  # a handle made while another device captures spoils both


class CupyBackend(Backend):
    """Compute on a CUDA device with CuPy; threads may share it: work of one stays out of the captures of another."""

    has_graphs = True
    most_elements = 2**31 - 1  # kernels count with int
    block_elements = 2**24  # 64 MiB of floats: fills the device, and is little of its memory

    def __init__(self, index: int) -> None:
        self.cupy = self.xp = cupy = import_cupy()
        self.index = index
        self.memory_error = cupy.cuda.memory.OutOfMemoryError
        self.lock, self.gate = (Gate(self._out_of_memory, is_lock) for is_lock in (True, False))
        self.device = f"cuda:{index}"
        self.current = cupy.cuda.Device(index)
        with self.lock, self.current:
            properties = cupy.cuda.runtime.getDeviceProperties(index)
            # Not a non-blocking stream: your work with our arrays on CuPy's own stream must wait for ours.
            self.stream = cupy.cuda.Stream()
            # For copies from the host, ordered by events alone.
            self.copies = cupy.cuda.Stream(non_blocking=True)
            with self.stream, _alone:  # no other stream may have used the memory of cuBLAS's workspace before
                self.cublas = Cublas(self.stream.ptr)
        name, memory = properties["name"].decode(), f"{properties['totalGlobalMem'] / 2**30:.0f} GiB"
        capability = f"compute capability {properties['major']}.{properties['minor']}"
        self.description = f"{name}, {memory}, {capability}, CuPy {cupy.__version__}"
        self._compiled: dict[Any, Any] = {}  # by record, not by name: a notebook cell may define it again
        self._shared = _Shared()

    def _out_of_memory(self, text: str) -> MemoryError:
        error: MemoryError = self.memory_error(0, 0)
        error.args = (text,)
        return error

    def in_precision(self, precision: str) -> Self:
        """Return a backend of the same device and stream that multiplies in another precision."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), precision=precision)
        with self.lock, self.current, self.stream, _alone:
            other.cublas = Cublas(self.stream.ptr, precision)
        return other

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        return self._made(self.cupy.empty, shape, dtype)

    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array:
        return self._made(self.cupy.zeros, shape, dtype)

    def _made(self, make: Callable[..., Array], shape: Shape, dtype: DTypeLike) -> Array:
        with self.lock, self.current, self.stream:
            if (nbytes := prod(shape) * np.dtype(dtype).itemsize) >= MAX_BYTES:
                raise self.memory_error(nbytes, self.cupy.get_default_memory_pool().total_bytes())
            return make(shape, dtype)

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        with self.lock, self.current:
            values = self._ours(values)
            with self.stream:
                return self.cupy.ascontiguousarray(self._brought(values, dtype))

    def _brought(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        """Copy values to the device, without pinned memory if CuPy is refused it."""
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
        """Return values that our stream may read; it waits for their stream or device, the host does not."""
        if not isinstance(values, self.cupy.ndarray):
            return values
        with self.cupy.cuda.Device(values.device.id):
            theirs = self.cupy.cuda.get_current_stream()
            # The default stream and ours wait for each other anyway.
            if theirs.ptr not in (0, self.stream.ptr) or values.device.id != self.index:
                self.stream.wait_event(theirs.record())
        if values.device.id == self.index:
            return values
        with self.stream:
            return values.copy()

    def to_host(self, array: Array) -> NDArray[Any]:
        # Our stream must be current too: CuPy makes an array contiguous on the current one before it copies it.
        with self.lock, self.current, self.stream:
            if self._shared.rehearsed is not None:
                raise _RehearsedError  # the result to read has not been computed
            self._wait_for_ranks()
            return np.asarray(self.cupy.asnumpy(array, stream=self.stream))

    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        with self.lock, self.current:
            values = self._ours(values)
            with self.stream:
                if isinstance(values, int | float) and values == 0:
                    target.fill(0)
                    return
                target[...] = self._brought(values)
                if scale != 1:
                    target *= target.dtype.type(scale)

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        with self.lock, self.current, self.stream:
            kernel = wide.fitting(kernel, arguments)
            if self._shared.rehearsed is not None:
                self._shared.rehearsed.append((kernel, arguments))
                return
            if self._shared.recorded is not None:
                self._shared.recorded.append(arguments)
            if isinstance(kernel, Elementwise):
                self._elementwise(kernel)(*arguments)
                return
            self._raw(kernel, arguments)(*compiling.launch_arguments(kernel, arguments))

    @contextmanager
    def array_code(self) -> Iterator[None]:
        with self.lock, self.current, self.stream:
            if self._shared.rehearsed is not None:
                raise _ArrayCodeError  # array code would run, not only be planned
            yield

    def compile_ahead(self, work: Callable[[], None], show: Callable[[int, int], None]) -> None:
        with self.lock, self.current:
            plan = self._shared.rehearsed = []
            try:
                work()
            except _RehearsedError as end:
                if not isinstance(end, _ArrayCodeError):  # kernels before array code are compiled ahead
                    return
            finally:
                self._shared.rehearsed = None
        missing: dict[str, tuple[Elementwise | Raw, tuple[Any, ...]]] = {}
        for kernel, arguments in plan:
            compiling.thread.is_looking = True
            try:
                self._load(kernel, arguments)
            except compiling.MissingError as error:
                missing.setdefault(str(error), (kernel, arguments))
            finally:
                compiling.thread.is_looking = False
        for number, (kernel, arguments) in enumerate(missing.values(), 1):
            show(number, len(missing))
            self._load(kernel, arguments)

    def _load(self, kernel: Elementwise | Raw, arguments: tuple[Any, ...]) -> None:
        """Load a kernel onto the device for `run`, without running it."""
        with self.lock, self.current, self.stream:
            if isinstance(kernel, Raw):
                self._raw(kernel, arguments).compile()
            else:
                with suppress(_RehearsedError):
                    self._elementwise(kernel)(*arguments, stream=_RehearsedError())

    def _elementwise(self, kernel: Elementwise) -> Any:
        if (function := self._compiled.get(kernel)) is None:
            function = self._compiled[kernel] = self.cupy.ElementwiseKernel(**compiling.elementwise_arguments(kernel))
        return function

    def _raw(self, kernel: Raw, arguments: tuple[Any, ...]) -> Any:
        types, constants = compiling.variant(kernel, arguments)
        key = (kernel, *map(str, types.values()), *constants.items())
        if (function := self._compiled.get(key)) is None:
            source = compiling.cuda_source(kernel, types, constants)
            function = self._compiled[key] = self.cupy.RawKernel(source, kernel.name, options=kernel.options)
        return function

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        # A handle of cuBLAS works only while its device is the current one.
        with self.lock, self.current:
            if self._shared.rehearsed is not None:
                return
            if self._shared.recorded is not None:
                self._shared.recorded.append((a, b, c))
            self.cublas.gemm(alpha, a, b, beta, c)

    def algorithms(self) -> str:
        with self.lock:
            return self.cublas.algorithms()

    def repeat(self, algorithms: str) -> str:
        with self.lock, self.current:
            return self.cublas.repeat(algorithms)

    def synchronize(self) -> None:
        with self.lock:  # waiting for a stream that another thread captures would spoil the capture
            self._wait_for_ranks()
            self.stream.synchronize()

    def connect(self) -> None:
        super().connect()
        if world().size > 1 and self._shared.communicator is None:
            with self.lock, self.current:
                self._shared.communicator = Communicator(self.index)

    def all_reduce(self, array: Array) -> None:
        self._collect("all_reduce", array)

    def all_gather(self, array: Array, gathered: Array) -> None:
        if world().size == 1:
            self.assign(gathered[0], array)
        self._collect("all_gather", array, gathered)

    def _collect(self, name: str, *arrays: Array) -> None:
        """Enqueue a collective operation of NCCL on the stream, or capture it; all ranks do."""
        if world().size > 1 and self._shared.rehearsed is None:
            with self.lock, self.current:
                if self._shared.recorded is not None:
                    self._shared.recorded.append(arrays)
                getattr(self._shared.communicator, name)(*arrays, self.stream)

    def _wait_for_ranks(self) -> None:
        """Wait for all work if some of it waits for other ranks, which may never come."""
        if not self.stream.is_capturing():
            self.wait_with_ranks(self.stream)

    def wait_with_ranks(self, until: Any) -> None:
        """Wait for a stream or an event if work before it waits for other ranks, which may never come."""
        if self._shared.communicator is not None:
            self._shared.communicator.wait(until)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        try:
            replay, refused = self._recorded(work), None
        except CaptureError as error:
            replay, refused = None, error
        # Ranks with and without a graph would not wait for each other in the same way.
        if world().any(refused is not None) or replay is None:
            raise refused or CaptureError("another rank could not record its steps")
        return replay

    def _recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture work as a graph of this rank; see `capture`."""
        stream, others = self.stream, self.cupy.get_default_memory_pool()
        with self.lock, self.current, stream, _alone:
            limit, used = others.get_limit(), others.total_bytes()
            # A graph holds addresses only: its arrays must not return to the pool, which would give them to others.
            kept, pool = list[tuple[Any, ...]](), self.cupy.cuda.MemoryPool()  # the pool serves array code
            pool.set_limit(size=limit and max(1, limit - used))
            self._shared.recorded = kept
            try:
                stream.begin_capture()
                with self.cupy.cuda.using_allocator(pool.malloc):
                    work()
                graph = stream.end_capture()
            except BaseException as error:
                # After any error, also Ctrl-C: a stream left capturing would refuse all later work.
                with suppress(Exception):  # a broken capture ends with an error of its own
                    stream.end_capture()
                if not isinstance(error, Exception):
                    raise
                raise self._refusal(error, f"{type(error).__name__}: {error}") from error
            finally:
                self._shared.recorded = None

        def replay(_kept: tuple[Any, ...] = (kept, pool)) -> None:
            with self.lock, self.current:
                try:
                    graph.launch(stream)
                except Exception as error:
                    raise self._refusal(error) from error

        return replay

    def _refusal(self, error: Exception, said: str = "") -> Exception:
        """Return the error for a graph that CUDA refuses: a `CaptureError` if work can go on without one."""
        known = translated(error, self._out_of_memory) or error
        if getattr(known, "is_sticky", False):
            return known
        if self.stream.is_capturing():  # and so refuses all other work
            mend = "start the program again; where that comes back, update the driver"
            return DeviceError(f"CUDA does not end a recording that failed ({known}): {mend}", mend)
        return CaptureError(said or str(known))

    def staging(self, *arrays: Array) -> Staging:
        return PinnedStaging(self, *arrays)

    def mirror(self, *arrays: Array) -> Mirror:
        return PinnedMirror(self, *arrays)

    def free_bytes(self) -> int:
        with self.lock, self.current:
            # Memory that the pool still holds is in use, or in a block that is: no large array gets it.
            pool = self.cupy.get_default_memory_pool()
            pool.free_all_blocks()
            free, limit = int(self.cupy.cuda.runtime.memGetInfo()[0]), pool.get_limit()
            return max(0, min(free, limit - pool.total_bytes())) if limit else free

    def limit_memory(self, nbytes: int | None) -> None:
        if nbytes is None and not self._shared.is_limited:
            return  # others may have set a limit
        self._shared.is_limited = nbytes is not None
        with self.lock, self.current:
            self.cupy.get_default_memory_pool().set_limit(size=nbytes or 0)


class _RehearsedError(BaseException):  # no Exception: handlers of errors inside the work must not catch it
    """End of a rehearsal: work would read a result, which has not been computed, or launch a kernel."""

    @property
    def ptr(self) -> int:
        raise _RehearsedError  # stands for a stream: CuPy asks for its address once a kernel is loaded


class _ArrayCodeError(_RehearsedError):
    """End of a rehearsal at array code, which launches kernels of its own."""
