"""Count the memory of a training without taking any, and say what would fit where there is less."""

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

_COPIES = 5  # of the weights on the host: the last, good and best record, a new one, and one that a checkpoint writes
_OF_OUTPUTS = 6  # arrays: targets, and targets and gradient of the loss, for the training and the validation
UNCOUNTED = 60 << 20  # bytes of the host beside the arrays: the BLAS's own, machine code of kernels, records


class Footprint(Backend):
    """A backend whose arrays have a shape and no memory: it counts the bytes they would take, and the largest would."""

    def __init__(self, like: Backend) -> None:
        self.device, self.description, self.block_elements = like.device, like.description, like.block_elements
        self.nbytes = self.largest = 0

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        self.nbytes += (nbytes := prod(shape) * np.dtype(dtype).itemsize)
        self.largest = max(self.largest, nbytes)
        if nbytes > sys.maxsize:
            raise MemoryError(f"{size(nbytes)} are more than any memory has")
        return as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))  # one element, seen as all of them

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
    """Count the bytes of a network, with an `optimizer` of its training; check `arrays` that it will be given."""
    network = Layout([layer.unbuilt() for layer in layers])
    counting, parameters = Footprint(like), None
    with suppress(MemoryError):  # an array beyond all memory: what is counted so far is enough
        context = network.lay_out(shape, batch_size, counting, dtype)
        if arrays is not None:
            check_arrays(arrays, context)
        parameters = Parameters(context.parameters, counting, dtype)
    if optimizer is None or parameters is None:
        return counting
    for _ in range(_OF_OUTPUTS):
        counting.empty((context.capacity, *network.output_shape), dtype)
    counting.empty((context.capacity,), np.float64)  # sums of a loss that the blocks of a device share
    before, values = counting.nbytes, int(parameters.values.size) * np.dtype(dtype).itemsize
    optimizer.unbuilt().build(parameters)
    remembered = counting.nbytes - before
    held = sum(int(array.size) * array.itemsize for array in context.statistics.values())
    # Two copies of what the optimizer remembers: the old one stays until the new one is made.
    copies = _COPIES * (values + held) + 2 * remembered if like.device == "cpu" else values
    taken_back = values + held + remembered if skips else 0  # to take the steps of bad batches back
    # The average, the weights while it stands in their place, and two copies of them on the host.
    of_average = values * ((4 if like.device == "cpu" else 2) + skips) if averages else 0
    counting.nbytes += copies + taken_back + of_average
    return counting


def require(
    needed: Callable[[int], int], batch_size: int, backend: Backend, others: int = 0, taken: int = 0, largest: int = 0
) -> None:
    """Raise MemoryShortageError where `needed` bytes, and `others` for data, exceed those free or `taken` already."""
    if backend.device != "cpu":  # on the host the system promises memory that it has not
        return
    error, free = MemoryError("nothing was taken"), backend.free_bytes() + taken
    try:
        wanted = needed(batch_size) + others
    except OverflowError:
        raise MemoryShortageError("out of memory: a network of these sizes needs more than can be counted") from None
    # The first kernel of large arrays loads Numba. Where there is no room for both, it is loaded before memory is
    # measured; elsewhere not before it is needed, since that takes a third of a second.
    if largest >= numba_loops.WORTHWHILE and wanted + numba_loops.bytes_to_load() > free:
        if free < (nbytes := numba_loops.bytes_to_load()):
            error, free = MemoryError(f"Numba takes {size(nbytes)} of it: export {numba_loops.OFF}=0 does without"), 0
        else:
            numba_loops.load()
            free = backend.free_bytes() + taken
    if wanted > free:
        raise shortage(error, needed, batch_size, backend, others, free)


def shortage(
    error: MemoryError, needed: Callable[[int], int], batch_size: int, backend: Backend, others: int, free: int
) -> MemoryShortageError:
    """Return the error that says what was needed and what would fit; see `require`, `free` bytes were free before."""
    if isinstance(error, MemoryShortageError):
        return error  # it says all this already
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
