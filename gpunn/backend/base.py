"""Arrays, kernels and the one matrix product of a device, behind one object.

A model is built on a backend and holds it; there is no current backend. Only `cuda.py`, with what it is made of,
imports CuPy, when asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.ranks import world
from gpunn.errors import CaptureError, DeviceError, OptionError
from gpunn.kernels.record import Array, Elementwise, Raw

Shape = tuple[int, ...]
Planned = Callable[[float, float], None]  # a product whose arrays are known: (alpha, beta) → c := alpha a b + beta c
# How BLAS is told of a product: is a transposed, is b, m, n, k, and the leading dimensions of a, b and c.
Layout = tuple[bool, bool, int, int, int, int, int, int]
MAX_BYTES = 2**62  # bytes that no memory has; NumPy refuses more in several ways, CuPy counts modulo 2⁶⁴ and gives less


class Staging:
    """Arrays of a device, filled from memory of the host: `claim`, write to `host`, `upload`, compute, `release`."""

    trouble: str = ""  # why uploads are slower than they could be

    def __init__(self, *arrays: Array) -> None:
        self.host: tuple[NDArray[Any], ...] = arrays  # to write to; the arrays themselves on the host

    def claim(self) -> None:
        """Wait until the last upload is over, so that the host may write."""

    def upload(self, n: int) -> None:
        """Copy the first n rows of each array; work that is enqueued after this call sees them."""

    def release(self) -> None:
        """Say that all work on the arrays is enqueued: the next upload begins when it is done."""


class Mirror:
    """Copies arrays of a device to and from the host, in turn with its work, for which the host does not wait."""

    def __init__(self, *arrays: Array) -> None:
        self._arrays = arrays

    def send(self, *values: Any) -> None:
        """Set the first rows of each array to values of the host, after all work that was enqueued before."""
        for array, value in zip(self._arrays, values, strict=True):
            array[: len(value)] = value

    def fetch(self) -> None:
        """Begin to copy the arrays to the host, as the work that was enqueued before leaves them."""
        self._fetched = [np.array(array) for array in self._arrays]

    def fetched(self) -> list[NDArray[Any]]:
        """Wait for the copies that `fetch` began, and return them; they are the caller's."""
        return self._fetched


class Backend(ABC):
    """Arrays, running kernels, and the one matrix product, on one device."""

    device: str  # "cpu" or "cuda:N"
    description: str  # the device in words
    reason: str = ""  # why this device was taken
    precision: str = "float32"  # that products of float32 are computed in
    has_graphs: bool = False  # whether work can be recorded and replayed (`capture`)
    block_elements: int  # best size of a block of scratch memory
    most_elements: int | None = None  # of an array for a batch, where kernels cannot count more
    memory_error: type[MemoryError] = MemoryError  # raised where the device's memory runs out
    xp: Any = np  # NumPy or CuPy: the functions of its arrays, for array code

    @abstractmethod
    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return an array whose elements are not set."""

    @abstractmethod
    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    @abstractmethod
    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        """Return the values as a C-contiguous array of this device; no copy where they are one already."""

    @abstractmethod
    def to_host(self, array: Array) -> NDArray[Any]:
        """Copy an array to host memory; waits until the device has computed it."""

    @abstractmethod
    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        """Set target := values · scale; the values are of this device or the host, the target of this device."""

    @abstractmethod
    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        """Run a kernel record on arrays of this device."""

    @abstractmethod
    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        """Compute c := alpha a b + beta c, the one matrix product of the library.

        Args:
            alpha: Factor of the product.
            a: (m, k), rows or columns contiguous: a transpose is a view.
            b: (k, n), rows or columns contiguous.
            beta: Factor of the values in c; with 0, c need not be set before.
            c: (m, n), rows contiguous.
        """

    def algorithms(self) -> str:
        """Return the algorithms that products were computed by, as a text for `repeat`; "" where none are chosen."""
        return ""

    def repeat(self, algorithms: str) -> str:
        """Compute products by recorded algorithms from now on; return why others are chosen instead, or ""."""
        return ""

    def planned(self, a: Array, b: Array, c: Array) -> Planned:
        """Prepare `gemm` for arrays that stay where they are."""
        return lambda alpha, beta: self.gemm(alpha, a, b, beta, c)

    def connect(self) -> None:
        """Connect this device with those of the other ranks; all of them call it, before they count their memory."""
        are_hosts = world().all_gather(np.array(self.device == "cpu"))
        if are_hosts.any() and not are_hosts.all():
            which = ", ".join(map(str, np.flatnonzero(are_hosts)))
            mend = "take --device cpu, or give every rank a GPU that gpunn doctor finds no fault with"
            raise DeviceError(
                f"ranks train on GPUs together, or all on CPUs, and here those on CPUs are {which}: {mend}"
            )

    def all_reduce(self, array: Array) -> None:
        """Set an array of this device to its sum over all ranks, with the same bits on each."""
        world().all_reduce(array)

    def all_gather(self, array: Array, gathered: Array) -> None:
        """Set gathered (ranks, *shape) to the arrays of all ranks."""
        gathered[...] = world().all_gather(array)

    def synchronize(self) -> None:
        """Wait until all work of the device is done."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record work on the device as one graph, without doing it; return a function that does it by one launch.

        `work` runs kernels and products of this backend alone, on arrays made before; it was done once, so that each
        kernel is compiled. A CaptureError says why it cannot be recorded.
        """
        raise CaptureError(f"{self.device} has no graphs")

    def array_code(self) -> AbstractContextManager[None]:
        """Within, functions of `xp` run on this device, in order with its kernels; a capture records them too."""
        return nullcontext()

    def compile_ahead(self, work: Callable[[], None], show: Callable[[int, int], None]) -> None:
        """Compile the kernels of some work that are not in the cache; none where it reads from the device on the way.

        `show` is called before each compilation with the kernel's number, from 1, and the number of all.
        """

    def staging(self, *arrays: Array) -> Staging:
        """Return memory of the host that arrays of this device are filled from while it computes."""
        return Staging(*arrays)

    def mirror(self, *arrays: Array) -> Mirror:
        """Return what copies contiguous arrays of this device to and from the host while it computes."""
        return Mirror(*arrays)

    @abstractmethod
    def free_bytes(self) -> int:
        """Return the memory that one array could still take; memory that is kept for later is given back first."""

    def limit_memory(self, nbytes: int | None) -> None:
        """Bound the device's pool of memory, None for no bound. The host has no pool: see `limits`."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # there is one backend of a device; see `devices` for pickles


class Buffer:
    """Memory for the largest batch, seen as (*shape, n) for any batch of n samples up to that, contiguous too."""

    def __init__(self, backend: Backend, shape: Shape, capacity: int, dtype: DTypeLike) -> None:
        if backend.most_elements is not None and prod(shape) * capacity > backend.most_elements:
            raise OptionError(_too_large(prod(shape), capacity, backend.device, backend.most_elements))
        self.shape = shape
        self.nbytes = prod(shape) * capacity * np.dtype(dtype).itemsize
        self._flat = backend.empty((prod(shape) * capacity,), dtype)
        self._views: dict[int, Array] = {}

    def __getitem__(self, n: int) -> Array:
        """Return the view for a batch of n samples; the same object each time."""
        if (view := self._views.get(n)) is None:
            view = self._views[n] = self._flat[: prod(self.shape) * n].reshape(*self.shape, n)
        return view


def _too_large(size: int, capacity: int, device: str, most: int) -> str:
    """Say that a batch has more numbers than a device's kernels can count, and how many samples it may have."""
    found = f"{capacity:,} samples of {size:,} numbers are {size * capacity:,}"
    mend = f"take batches of at most {most // size:,} samples, or smaller samples"
    return f"{device} computes with arrays of at most {most:,} numbers, and {found}: {mend}"


def channels_first(shape: Shape) -> Shape:
    """Return the shape of a sample inside the network: (height, width, channels) becomes channels first."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


class PlannedGemm:
    """c := alpha a b + beta c, planned for the arrays of the last call; "a" or "b" may be given transposed."""

    def __init__(self, backend: Backend, transposed: str = "") -> None:
        self._backend, self._transposed = backend, transposed
        self.forget()

    def forget(self) -> None:
        """Let go of the arrays of the last call."""
        self._last: tuple[Any, ...] = (None, None, None)
        self._planned: Any = None

    def __call__(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        last = self._last
        if a is not last[0] or b is not last[1] or c is not last[2]:
            self._last = a, b, c
            factors = a.T if self._transposed == "a" else a, b.T if self._transposed == "b" else b
            self._planned = self._backend.planned(*factors, c)
        self._planned(alpha, beta)

    def __getstate__(self) -> dict[str, Any]:
        # A plan works on the very arrays that it was made for, and those of a copy are others.
        return {**vars(self), "_last": (None, None, None), "_planned": None}


class Buildable:
    """A part that is given its memory later, by a `build` that calls `remember_settings`; and so are its own parts."""

    _settings: frozenset[str] | None = None
    build: Callable[..., Any]

    def remember_settings(self) -> None:
        """Take all attributes for settings: those set after the first call are memory."""
        if self._settings is None:
            for part in parts_of(self):
                part.remember_settings()
            self._settings = frozenset(vars(self))

    def settings(self) -> dict[str, Any]:
        """Return the attributes that say how it was made and set."""
        held, names = vars(self), self._settings
        return {name: _unbuilt(value) for name, value in held.items() if names is None or name in names}

    def unbuilt(self) -> Self:
        """Return another one, made and set alike."""
        other = object.__new__(type(self))
        vars(other).update(self.settings())
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.settings()


def parts_of(whole: Any) -> Iterator[Buildable]:
    """Give the buildable attributes of an object, and those in its lists and dictionaries."""
    for value in vars(whole).values():
        yield from _parts_in(value)


def _parts_in(value: Any) -> Iterator[Buildable]:
    if isinstance(value, Buildable):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _parts_in(each)


def _unbuilt(value: Any) -> Any:
    if isinstance(value, Buildable):
        return value.unbuilt()
    if type(value) in (list, tuple):
        return type(value)(map(_unbuilt, value))
    return {key: _unbuilt(each) for key, each in value.items()} if type(value) is dict else value


def layout_of(a: Array, b: Array, c: Array) -> Layout:
    """Return the layout of c := a b, or raise `ValueError` where it cannot be computed by one call of BLAS."""
    (m, k), (inner, n), size, (across, along) = a.shape, b.shape, c.itemsize, c.strides
    fits = inner == k and c.shape == (m, n) and a.dtype == b.dtype == c.dtype and c.dtype.char in "fd"
    # Not only for good messages: BLAS would write beside a c whose rows do not lie one after another.
    if not fits or (along != size and n > 1) or (across < n * size and m > 1):
        rule = f"shapes and dtypes must fit, and the rows of c be contiguous, got strides {c.strides}"
        given = f"{a.shape} {a.dtype} times {b.shape} {b.dtype} to {c.shape} {c.dtype}"
        raise ValueError(f"gemm cannot write {given}: {rule}")
    (is_a_transposed, lda), (is_b_transposed, ldb) = _order_of(a, size), _order_of(b, size)
    return is_a_transposed, is_b_transposed, m, n, k, lda, ldb, max(across // size, n)


def _order_of(x: Array, size: int) -> tuple[bool, int]:
    """Return whether a matrix lies transposed in memory, and its leading dimension."""
    (across, along), (rows, columns) = x.strides, x.shape
    if along == size and (across >= size * columns or rows == 1):
        return False, max(across // size, columns)
    if across == size and (along >= size * rows or columns == 1):
        return True, max(along // size, rows)
    # One column with any stride is a plain matrix with that leading dimension, one row a transposed one.
    if columns == 1 and across >= size:
        return False, across // size
    if rows == 1 and along >= size:
        return True, along // size
    raise ValueError(f"gemm takes matrices with contiguous rows or columns, got strides {x.strides} for {x.shape}")
