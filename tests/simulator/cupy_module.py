"""The stand-ins as modules: `cupy`, and `nvmath` with its bindings of cuBLAS, on a simulated machine."""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np

from simulator import arrays, kernels
from simulator.cublas import Cublas, CudaDataType
from simulator.cublaslt import CublasLt
from simulator.machine import CUDARuntimeError, Machine, Node, OutOfMemoryError


class Graph:
    """What was captured, to be launched as one."""

    def __init__(self, machine: Machine, nodes: list[Node]) -> None:
        self._machine = machine
        self.nodes = nodes

    def launch(self, stream: Any = None) -> None:
        """Replay it."""
        if self._machine.capture is not None:
            self._machine.refuse("the launch of a graph")
        self._machine.counts.graphs += 1
        stream = stream or self._machine.current_stream()
        for node in self.nodes:
            self._machine.launch(node, stream)

    def upload(self, stream: Any = None) -> None:
        """Nothing is to be done."""


def _stream_class(machine: Machine) -> type:
    class Stream:
        """A queue of work; see `simulator.streams`."""

        null: Any = None
        _count = 0

        def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
            Stream._count += not null
            self.ptr = 0 if null else 0x10000 + Stream._count * 64
            self.device_id = -1 if null else 0
            if not null and not non_blocking:
                machine.blocking[self.ptr] = self

        def __enter__(self) -> Any:
            machine.streams.append(self)
            return self

        def __exit__(self, *_: object) -> None:
            machine.streams.pop()

        def synchronize(self) -> None:
            machine.synchronize("a synchronisation", self)

        def begin_capture(self, mode: Any = None) -> None:
            machine.begin_capture(self)

        def end_capture(self) -> Graph:
            return Graph(machine, machine.end_capture(self))

        def is_capturing(self) -> bool:
            return machine.capture is not None and machine.capture.stream is self

        def record(self, event: Any = None) -> Any:
            event = event or Event()
            event.record(self)
            return event

        def wait_event(self, event: Any) -> None:
            """What this stream is given from now on comes after what the event was recorded for last, if it was."""
            machine.refuse("a wait for an event of another stream")
            if event.ticket is not None:
                machine.queues.give(self, lambda: None, after=event.ticket)

    class Event:
        def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
            self.ticket: Any = None

        @property
        def done(self) -> bool:
            return self.ticket is None or self.ticket.is_reached

        def record(self, stream: Any = None) -> None:
            machine.refuse("the record of an event")
            self.ticket = machine.queues.record(stream or Stream.null)

        def synchronize(self) -> None:
            machine.refuse("a wait for an event")
            machine.counts.synchronizations += 1
            if self.ticket is not None:
                machine.queues.finish(self.ticket.stream, self.ticket)

    Stream.null = Stream(null=True)
    Stream.event_class = Event
    return Stream


class _Device:
    def __init__(self, number: int = 0) -> None:
        if int(number) != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = 0

    def __enter__(self) -> "_Device":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Pool:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def free_bytes(self) -> int:
        return 0

    def used_bytes(self) -> int:
        return self._machine.used

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self._machine.limit = size or 0

    def get_limit(self) -> int:
        return self._machine.limit

    def total_bytes(self) -> int:
        return self._machine.used

    def free_all_blocks(self) -> None:
        """Nothing is kept."""


def make_modules(machine: Machine) -> dict[str, types.ModuleType]:
    """The modules by name, ready for `sys.modules`."""

    def module(name: str, **contents: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        made.__dict__.update(contents)
        return made

    class ndarray(arrays.DeviceArray):  # noqa: N801 - CuPy's name
        pass

    class RawKernel(kernels.RawKernel):
        pass

    class ElementwiseKernel(kernels.ElementwiseKernel):
        pass

    for kind in (ndarray, RawKernel, ElementwiseKernel):
        kind.machine = machine

    def zeros(shape: Any, dtype: Any = float) -> ndarray:
        array = ndarray(shape, dtype)
        if array.size:
            array.fill(0)
        return array

    @contextmanager
    def using_allocator(allocator: Callable[[int], object]) -> Iterator[None]:
        machine.allocator, before = allocator, machine.allocator
        try:
            yield
        finally:
            machine.allocator = before

    stream = _stream_class(machine)
    runtime = module(
        "cupy.cuda.runtime",
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        getDeviceProperties=lambda index: {
            "name": b"simulated device", "totalGlobalMem": machine.memory, "major": 9, "minor": 0, "warpSize": 32,
        },
        memGetInfo=lambda: (machine.memory - machine.used, machine.memory),
        deviceSynchronize=lambda: machine.synchronize("a synchronisation of the device"),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        streamCaptureModeGlobal=0,
        streamCaptureModeThreadLocal=1,
        streamCaptureModeRelaxed=2,
    )  # fmt: skip
    memory = module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError, MemoryPointer=arrays.MemoryPointer)
    cuda = module(
        "cupy.cuda",
        Device=_Device,
        Stream=stream,
        Event=stream.event_class,
        get_elapsed_time=lambda begin, end: 1000 * (end.ticket.time - begin.ticket.time),
        Graph=Graph,
        alloc_pinned_memory=machine.pin,
        using_allocator=using_allocator,
        MemoryPointer=arrays.MemoryPointer,
        runtime=runtime,
        memory=memory,
        is_available=lambda: True,
        get_current_stream=lambda: machine.current_stream() or stream.null,
    )
    cupy = module(
        "cupy",
        __version__="14.2.0",
        ndarray=ndarray,
        RawKernel=RawKernel,
        ElementwiseKernel=ElementwiseKernel,
        empty=lambda shape, dtype=float: ndarray(shape, dtype),
        zeros=zeros,
        asarray=lambda values, dtype=None: arrays.asarray(ndarray, values, dtype),
        ascontiguousarray=arrays.ascontiguousarray,
        asnumpy=lambda array, stream=None, order="C", out=None: array.get(stream, order, out),
        get_default_memory_pool=lambda: _Pool(machine),
        cuda=cuda,
        **{
            name: getattr(np, name)
            for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "uint32", "bool_")
        },
    )
    library = Cublas(machine)
    cublas, cublaslt = library.module(module), CublasLt(machine, library).module(module)
    bindings = module("nvmath.bindings", cublas=cublas, cublasLt=cublaslt)
    nvmath = module("nvmath", CudaDataType=CudaDataType, bindings=bindings)
    made = (cupy, cuda, runtime, memory, nvmath, bindings, cublas, cublaslt)
    return {one.__name__: one for one in made}
