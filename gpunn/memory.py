"""How much memory a training needs, counted without taking any, and what to do where there is less."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from gpunn import limits
from gpunn.backend import Backend
from gpunn.errors import MemoryShortageError
from gpunn.kernels import loops
from gpunn.kernels.kernel import Array, Elementwise, Raw
from gpunn.limits import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpunn.layers import Layer
    from gpunn.model import Sequential
    from gpunn.optimizers import Optimizer

_COPIES = 5
"""Of the weights on the host: those of the last, good and best record, a new one, and what a checkpoint writes."""

_OF_OUTPUTS = 6
"""Arrays of a batch's outputs: targets, and targets and gradient of the cost, for the training and the validation."""

UNCOUNTED = 32 << 20
"""Bytes of the host that a training takes beside its arrays: the BLAS's own, machine code of kernels, records. They
were at most 6 MiB in a process that had loaded nothing but Numba before, 29 where Numba compiled its loops anew."""

Method = TypeVar("Method", bound=Callable[..., Any])


class _Counting(Backend):
    """A stand-in for a backend whose arrays have a shape and no memory; it counts the bytes that they would take.

    Attributes:
        nbytes: of all arrays together.
        largest: of the largest of them.
    """

    def __init__(self, like: Backend) -> None:
        self.device, self.description, self.block_elements = like.device, like.description, like.block_elements
        self.nbytes = self.largest = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        self.nbytes += (nbytes := prod(shape) * np.dtype(dtype).itemsize)
        self.largest = max(self.largest, nbytes)
        if nbytes > sys.maxsize:
            raise MemoryError(f"{size(nbytes)} are more than any memory has")
        # One element, seen as all of them.
        return as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return self.empty(shape, dtype)

    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        return values

    def to_host(self, array: Array) -> Array:
        return array

    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        pass

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        pass

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def free_bytes(self) -> int:
        return 0


def bytes_of_network(
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    like: Backend,
    dtype: str,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    optimizer: Optimizer | None = None,
    skips: bool = False,
) -> int:
    """What a network takes on a device, built for batches of a size: values, gradients and all buffers.

    With an optimizer, what a training takes: also what the optimizer remembers, the targets of a batch and what the
    cost makes of them, what is held to take steps back, and copies of the weights: on the host those of the last, good
    and best record, on a device one that passes through.

    Raises:
        ShapeError: the arrays are not those of the network.
    """
    return _count(layers, shape, batch_size, like, dtype, arrays, optimizer, skips)[0]


def _count(
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    like: Backend,
    dtype: str,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    optimizer: Optimizer | None = None,
    skips: bool = False,
) -> tuple[int, int]:
    """`bytes_of_network`, and the bytes of its largest array."""
    from gpunn.model import Sequential, check_arrays
    from gpunn.parameter import Parameters

    counting = _Counting(like)
    # Copies: the layers themselves keep what they were built with.
    network, parameters = Sequential(layer.unbuilt() for layer in layers), None
    with suppress(MemoryError):  # an array beyond all memory: what is counted so far is enough
        context = network.lay_out(shape, batch_size, counting, dtype)
        if arrays is not None:
            check_arrays(arrays, context)
        parameters = Parameters(context.parameters, counting, dtype)
    if optimizer is None or parameters is None:
        return counting.nbytes, counting.largest
    for _ in range(_OF_OUTPUTS):
        counting.empty((network.capacity, *network.output_shape), dtype)
    before, values = counting.nbytes, int(parameters.values.size) * np.dtype(dtype).itemsize
    optimizer.unbuilt().build(parameters)
    remembered = counting.nbytes - before
    held = sum(int(array.size) * array.itemsize for array in network.statistics.values())
    # Two copies of what the optimizer remembers: the old one stays until the new one is made.
    copies = _COPIES * (values + held) + 2 * remembered if like.device == "cpu" else values
    taken_back = values + held + remembered if skips else 0
    return counting.nbytes + copies + taken_back, counting.largest


def require_for_network(
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    backend: Backend,
    dtype: str,
    arrays: Mapping[str, NDArray[Any]] | None,
) -> None:
    """Refuse to build a network on the host that there is not enough memory for: the host would promise it.

    Raises:
        ShapeError: the arrays are not those of the network.
        MemoryShortageError: as `shortage` words it.
    """
    if backend.device == "cpu":
        free = backend.free_bytes()
        try:
            needed = bytes_of_network(layers, shape, batch_size, backend, dtype, arrays)
        except OverflowError:
            raise MemoryShortageError(
                "out of memory: a network of these sizes needs more than can be counted"
            ) from None
        if needed > free:
            error = MemoryError("nothing was taken")
            raise shortage(error, layers, shape, batch_size, backend, dtype, 0, free)


def require_for_training(
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    backend: Backend,
    dtype: str,
    others: int,
    optimizer: Optimizer,
    skips: bool,
    taken: int,
) -> None:
    """Refuse to begin a training on the host that there is not enough memory for.

    Args:
        layers: of the network.
        shape: of a sample.
        batch_size: samples of a full batch.
        backend: of the device.
        dtype: of the network.
        others: bytes of the data, where they are copied.
        optimizer: of the training.
        skips: whether steps may be taken back.
        taken: bytes that the network has taken already.

    Raises:
        MemoryShortageError: as `shortage` words it.
    """
    if backend.device != "cpu":
        return
    needed, largest = _count(layers, shape, batch_size, backend, dtype, None, optimizer, skips)
    error, free = MemoryError("nothing was taken"), backend.free_bytes() + taken
    if largest >= loops.WORTHWHILE:  # the first kernel would load Numba, and what it takes is not free
        if free < (nbytes := loops.bytes_to_load()):
            error = MemoryError(f"Numba takes {size(nbytes)} of it: export {loops.OFF}=0 does without")
            free = 0
        else:
            loops.load()
            free = backend.free_bytes() + taken
    if needed + others + UNCOUNTED > free:
        raise shortage(error, layers, shape, batch_size, backend, dtype, others, free, optimizer, skips)


def explained(method: Method) -> Method:
    """A method of a network that says what is needed and what would fit, where memory runs out in it."""

    @wraps(method)
    def explaining(network: Sequential, *arguments: Any, **options: Any) -> Any:
        try:
            return method(network, *arguments, **options)
        except MemoryError as error:
            n, backend = network, network.backend
            assert backend is not None
            free = backend.free_bytes()
            raise shortage(error, n.layers, n.input_shape, n.capacity, backend, n.dtype, 0, free) from None

    return cast(Method, explaining)


def shortage(
    error: MemoryError,
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    backend: Backend,
    dtype: str,
    others: int,
    free: int,
    optimizer: Optimizer | None = None,
    skips: bool = False,
) -> MemoryShortageError:
    """An error that says what a training would have needed, and what would fit.

    Args:
        error: that of the allocation.
        layers: of the network.
        shape: of a sample.
        batch_size: that was asked for.
        backend: of the network.
        dtype: of the network.
        others: bytes of the data, where they were to lie on the device.
        free: bytes that were free before.
        optimizer: of the training; None where there is none.
        skips: whether steps may be taken back.
    """
    if isinstance(error, MemoryShortageError):
        return error  # it says all this already
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, backend.memory_error):
        return MemoryShortageError(
            f"out of memory on the host, where {size(limits.free_bytes())} are free: use less data ({reason})"
        )

    def needed(count: int) -> int:
        beside = others + (UNCOUNTED if optimizer is not None and backend.device == "cpu" else 0)
        return bytes_of_network(layers, shape, count, backend, dtype, None, optimizer, skips) + beside

    fitting = batch_size // 2
    while fitting and needed(fitting) > 0.9 * free:
        fitting //= 2
    less = 'data_on="auto", which streams the data, a smaller network' if others else "a smaller network"
    advice = f"a batch size of {fitting} would fit" if fitting else f"take {less} or less data"
    return MemoryShortageError(
        f"out of memory on {backend.device}: batches of {batch_size} need about {size(needed(batch_size))}, "
        f"{size(free)} were free: {advice} ({reason})"
    )
