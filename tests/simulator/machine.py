"""The simulated device: memory that is poisoned when it is given and when it is given back, captures, and counts."""

import bisect
import ctypes
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulator.launching import Scheduling, extent
from simulator.memory import poison
from simulator.streams import Streams

_ALIGNMENT = 512  # of CuPy's pool
_QUARANTINE = 64 * 2**20  # bytes of memory given back whose addresses nobody gets


class CUDARuntimeError(RuntimeError):
    """What the CUDA runtime reports."""


class OutOfMemoryError(MemoryError):
    """The device has no such stretch of memory left."""


@dataclass
class Counts:
    """What was asked of the device.

    Attributes:
        launches: kernels, copies and products that ran, each that a graph replays too.
        kernels: the same by name.
        graphs: graphs launched, each one call of the host.
        bytes_read, bytes_written: by kernels and copies on the device.
    """

    launches: int = 0
    kernels: Counter[str] = field(default_factory=Counter)
    graphs: int = 0
    allocations: int = 0
    allocated_bytes: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0
    copies_to_device: int = 0
    copies_to_host: int = 0
    synchronizations: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class Block:
    """A stretch of device memory; it is given back with its last array."""

    def __init__(self, machine: "Machine", nbytes: int, dtype: np.dtype) -> None:
        padded = np.empty(nbytes + _ALIGNMENT + dtype.itemsize, np.uint8)
        start = -padded.ctypes.data % _ALIGNMENT
        self.bytes = padded[start : start + nbytes]
        self.address = self.bytes.ctypes.data
        self.nbytes = nbytes
        self.machine = machine
        poison(self.bytes.view(dtype))
        weakref.finalize(self, machine.give_back, self.address, self.bytes, dtype)


@dataclass
class Node:
    """One thing the device does: now, or each time that the graph which holds it is launched.

    It holds the memory that it works on as a captured graph does: by address, not keeping it from being given back.
    """

    name: str
    run: Callable[[], tuple[int, int]]
    blocks: tuple[weakref.ref[Block], ...]


class Capture:
    """What a stream has recorded since `begin_capture`."""

    def __init__(self, stream: object) -> None:
        self.stream = stream
        self.nodes: list[Node] = []
        self.problem = ""


class Machine:
    """A simulated CUDA device.

    Args:
        memory: bytes that it has.

    Attributes:
        limit: bytes that CuPy's pool may take of it; 0 for all.
        scheduling: the order of threads, and whether races are looked for.
        counts: what was asked of it since `reset_counts`.
    """

    def __init__(self, memory: int = 2**31) -> None:
        self.memory = memory
        self.limit = 0
        self.used = 0
        self.scheduling = Scheduling()
        self.counts = Counts()
        self.capture: Capture | None = None
        self.allocator: Callable[[int], object] | None = None  # asked before memory is given
        self.queues = Streams()
        self.streams: list[Any] = []  # those entered by `with`, the innermost last
        self.blocking: dict[int, Any] = {}  # by address; what the default stream waits for
        self._pinned: dict[int, np.ndarray] = {}
        self._addresses: list[int] = []
        self._blocks: dict[int, weakref.ref[Block]] = {}
        self._given_back: deque[np.ndarray] = deque()
        self._quarantined = 0
        self._refusing = ""

    def reset_counts(self) -> None:
        """Begin to count anew."""
        self.counts = Counts()

    # Memory

    def allocate(self, nbytes: int, dtype: np.dtype) -> Block:
        """Memory that holds poison."""
        self.refuse(f"an allocation of {nbytes} bytes")
        if self.allocator is not None:
            self.allocator(nbytes)
        if self.used + nbytes > min(self.memory, self.limit or self.memory):
            raise OutOfMemoryError(
                f"Out of memory allocating {nbytes:,} bytes (allocated so far: {self.used:,} bytes)."
            )
        self.used += nbytes
        self.counts.allocations += 1
        self.counts.allocated_bytes += nbytes
        block = Block(self, nbytes, dtype)
        if nbytes:
            bisect.insort(self._addresses, block.address)
            self._blocks[block.address] = weakref.ref(block)
        return block

    def give_back(self, address: int, memory: np.ndarray, dtype: np.dtype) -> None:
        """Poison memory that nobody holds any more, and keep its address from being used again for a while."""
        poison(memory.view(dtype))
        self.used -= memory.nbytes
        if memory.nbytes:
            self._addresses.remove(address)
            del self._blocks[address]
        self._given_back.append(memory)
        self._quarantined += memory.nbytes
        while self._quarantined > _QUARANTINE:
            self._quarantined -= self._given_back.popleft().nbytes

    def block_at(self, begin: int, end: int, what: str) -> Block:
        """The block that holds the bytes from `begin` to `end`.

        Raises:
            CUDARuntimeError: no block that is in use holds all of them.
        """
        place = bisect.bisect_right(self._addresses, begin) - 1
        block = self._blocks[self._addresses[place]]() if place >= 0 else None
        if block is None or end > block.address + block.nbytes:
            raise CUDARuntimeError(f"cudaErrorIllegalAddress: {what} lies outside of the memory in use")
        return block

    # Doing and recording

    def refuse(self, what: str) -> None:
        """Raise where this must not be: while a stream is captured, or in a step."""
        if self.capture is not None:
            self.capture.problem = what
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing: {what}"
            )
        if self._refusing:
            raise AssertionError(f"{what} in {self._refusing}")

    @contextmanager
    def refusing(self, where: str = "a step") -> Iterator[None]:
        """Within it, allocations, copies from or to the host and synchronisations are errors."""
        self._refusing, before = where, self._refusing
        try:
            yield
        finally:
            self._refusing = before

    def synchronize(self, what: str, stream: Any = None) -> None:
        """The host waits for what a stream was given; left out, for all but those that do not block the default one."""
        self.refuse(what)
        self.counts.synchronizations += 1
        self.finish(stream)

    def finish(self, stream: Any = None) -> None:
        """Have a stream do what it was given, or all that block the default stream."""
        for one in list(self.blocking.values()) if stream is None or stream.ptr == 0 else [stream]:
            self.queues.finish(one)

    def current_stream(self) -> Any | None:
        """The stream entered last, None for the default stream."""
        return self.streams[-1] if self.streams else None

    def submit(
        self, name: str, run: Callable[[], tuple[int, int]], memory: Sequence[np.ndarray], stream: object
    ) -> None:
        """Have the device do something on a stream: now, or in the graph that is being captured.

        Args:
            name: of the kernel.
            run: does it, and returns the bytes read and written.
            memory: the arrays that it works on.
            stream: on which.
        """
        blocks = []
        for array in memory:
            begin, end = extent(array)
            if end > begin:
                blocks.append(weakref.ref(self.block_at(begin, end, f"an argument of {name}")))
        node = Node(name, run, tuple(blocks))
        if self.capture is None:
            self.launch(node, stream)
        elif self.capture.stream is stream:
            self.capture.nodes.append(node)
        else:
            self.capture.problem = f"{name} on another stream"
            raise CUDARuntimeError(f"cudaErrorStreamCaptureImplicit: {name} on a stream that is not the one captured")

    def launch(self, node: Node, stream: Any) -> None:
        """Have a stream do it. What it works on is kept until then, as CuPy's pool keeps it for work of one stream."""
        blocks = [block() for block in node.blocks]
        if any(block is None for block in blocks):
            raise CUDARuntimeError(f"a graph replays {node.name} on memory that was given back")

        def do(_kept: Sequence[Block | None] = blocks) -> None:
            read, written = node.run()
            self.counts.launches += 1
            self.counts.kernels[node.name] += 1
            self.counts.bytes_read += read
            self.counts.bytes_written += written

        if stream is None or stream.ptr == 0:
            self.finish()
            do()
        else:
            self.queues.give(stream, do)

    # Copies from pinned memory

    def pin(self, nbytes: int) -> Any:
        """Memory of the host that the device can read by itself; it holds poison, and poison again when it is freed."""
        memory = np.full(max(1, nbytes), 0xA5, np.uint8)  # never given back: a copy may come too late
        self._pinned[memory.ctypes.data] = memory
        pinned = (ctypes.c_ubyte * len(memory)).from_buffer(memory)
        weakref.finalize(pinned, memory.fill, 0xA5)
        return pinned

    def upload(self, block: Block, offset: int, source: int, nbytes: int, stream: Any) -> None:
        """Copy from pinned memory some time: what lies there when the copy is made, not when it is asked for.

        Raises:
            CUDARuntimeError: the memory is not pinned, so that the copy would make the host wait.
        """
        self.refuse(f"a copy of {nbytes} bytes from the host")
        for start, memory in self._pinned.items():
            if start <= source and source + nbytes <= start + len(memory):
                given = memory[source - start :][:nbytes]
                break
        else:
            raise CUDARuntimeError(f"an asynchronous copy of {nbytes} bytes from memory that is not pinned")
        target = block.bytes[offset : offset + nbytes]

        def run() -> tuple[int, int]:
            target[...] = given
            self.counts.copies_to_device += 1
            self.counts.bytes_to_device += nbytes
            return 0, nbytes

        self.launch(Node("upload", run, (weakref.ref(block),)), stream)

    # Captures

    def begin_capture(self, stream: object) -> None:
        """From now on what is given to this stream is recorded, not done."""
        if self.capture is not None or getattr(stream, "ptr", 0) == 0:
            raise CUDARuntimeError("cudaErrorIllegalState: a capture runs already, or the stream is the default one")
        self.capture = Capture(stream)

    def end_capture(self, stream: object) -> list[Node]:
        """What was recorded.

        Raises:
            CUDARuntimeError: something was asked for that cannot be captured.
        """
        capture, self.capture = self.capture, None
        if capture is None or capture.stream is not stream:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnmatched: this stream is not being captured")
        if capture.problem:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: there was {capture.problem} in the capture")
        return capture.nodes
