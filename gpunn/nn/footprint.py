"""Count the memory of a training without allocating it, and name the batch size that would fit."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend, Buildable, Shape
from gpunn.backend.limits import free_bytes, size
from gpunn.errors import MemoryShortageError
from gpunn.kernels import numba_loops
from gpunn.kernels.record import Array, Elementwise, Raw
from gpunn.nn.layers import Layer
from gpunn.nn.layout import Layout, check_arrays
from gpunn.nn.parameter import Parameters

_WEIGHT_COPIES = 5  # on the host: last, good, best and new record, and the checkpoint being written
_OUTPUT_ARRAYS = 6  # targets, and the loss's targets and gradient, for training and validation each
UNCOUNTED = 60 << 20  # bytes on the host besides arrays: BLAS buffers, machine code of kernels, records


class Footprint(Backend):
    """Stand in for a backend, with arrays that have a shape but no memory, and count their bytes and the largest."""

    def __init__(self, like: Backend) -> None:
        self.device, self.description, self.block_elements = like.device, like.description, like.block_elements
        self.nbytes = self.largest = 0

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        self.nbytes += (nbytes := prod(shape) * np.dtype(dtype).itemsize)
        self.largest = max(self.largest, nbytes)
        if nbytes > sys.maxsize:
            raise MemoryError(f"{size(nbytes)} are more than any memory has")
        return as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))  # every index reads the same element

    zeros = empty

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        return values

    def to_host(self, array: Array) -> Array:
        return array

    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None: ...
    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None: ...
    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None: ...
    def synchronize(self) -> None: ...

    def free_bytes(self) -> int:
        return 0


def count_network(
    layers: Sequence[Layer],
    shape: Shape,
    batch_size: int,
    like: Backend,
    dtype: str,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    optimizer: Buildable | None = None,
    skips: bool = False,
    averages: bool = False,
) -> Footprint:
    """Count the bytes of a network, and of its training if there is an `optimizer`; check `arrays` to load later."""
    network = Layout([layer.unbuilt() for layer in layers])
    counting, parameters = Footprint(like), None
    with suppress(MemoryError):  # an array beyond any memory: the count so far is too large already
        context = network.lay_out(shape, batch_size, counting, dtype)
        if arrays is not None:
            check_arrays(arrays, context)
        parameters = Parameters(context.parameters, counting, dtype)
    if optimizer is None or parameters is None:
        return counting
    for _ in range(_OUTPUT_ARRAYS):
        counting.empty((context.capacity, *network.output_shape), dtype)
    counting.empty((context.capacity,), np.float64)  # partial sums of the loss from GPU blocks
    before, values = counting.nbytes, int(parameters.values.size) * np.dtype(dtype).itemsize
    optimizer.unbuilt().build(parameters)
    remembered = counting.nbytes - before
    held = sum(int(array.size) * array.itemsize for array in context.statistics.values())
    # Two copies of the optimizer's state: the old one stays until the new one is complete.
    copies = _WEIGHT_COPIES * (values + held) + 2 * remembered if like.device == "cpu" else values
    undo = values + held + remembered if skips else 0  # to undo the steps of bad batches
    # The average, the weights that it replaces in an evaluation, and two copies of these on the host.
    average = values * ((4 if like.device == "cpu" else 2) + skips) if averages else 0
    counting.nbytes += copies + undo + average
    return counting


def require_memory(
    needed: Callable[[int], int], batch_size: int, backend: Backend, others: int = 0, taken: int = 0, largest: int = 0
) -> None:
    """Raise MemoryShortageError where the host lacks memory for a network and its data.

    `needed` gives the bytes of the network for a batch size, `others` are those of the data, `taken` those to be freed
    first, and `largest` those of the largest array.
    """
    if backend.device != "cpu":  # only the host's system grants memory that it does not have
        return
    error, free = MemoryError("nothing was taken"), backend.free_bytes() + taken
    try:
        wanted = needed(batch_size) + others
    except OverflowError:
        raise MemoryShortageError("out of memory: a network of these sizes needs more than can be counted") from None
    # The first kernel on large arrays loads Numba. Where memory is tight it is loaded before the measurement; elsewhere
    # only when it is needed, since that takes a third of a second.
    if largest >= numba_loops.WORTHWHILE and wanted + numba_loops.bytes_to_load() > free:
        if free < (nbytes := numba_loops.bytes_to_load()):
            error, free = MemoryError(f"Numba takes {size(nbytes)} of it: export {numba_loops.OFF}=0 does without"), 0
        else:
            numba_loops.load()
            free = backend.free_bytes() + taken
    if wanted > free:
        raise shortage_error(error, needed, batch_size, backend, others, free)


def shortage_error(
    error: MemoryError, needed: Callable[[int], int], batch_size: int, backend: Backend, others: int, free: int
) -> MemoryShortageError:
    """Return the error with the bytes needed, the bytes `free` before, and a batch size that fits."""
    if isinstance(error, MemoryShortageError):
        return error  # already complete
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, backend.memory_error):
        host = f"on the host, where {size(free_bytes())} are free"
        return MemoryShortageError(f"out of memory {host}: use less data ({reason})")
    fitting = batch_size // 2
    while fitting and needed(fitting) + others > 0.9 * free:
        fitting //= 2
    less = 'data_on="auto", which streams the data, a smaller network' if others else "a smaller network"
    advice = f"a batch size of {fitting} would fit" if fitting else f"take {less} or less data"
    short = f"batches of {batch_size} need about {size(needed(batch_size) + others)}, {size(free)} were free"
    return MemoryShortageError(f"out of memory on {backend.device}: {short}: {advice} ({reason})")
