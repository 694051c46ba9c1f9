"""Define the interface of a device: its arrays, its kernels, and the one matrix product.

A network is built on a backend and holds it; there is no current backend. Only `cuda.py` and its helpers import CuPy,
when you ask for a CUDA device.
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
Scratch = Callable[[Shape], Array]  # allocates scratch memory of a shape
Planned = Callable[[float, float], None]  # a product of fixed arrays: (alpha, beta) → c := alpha a b + beta c
# Arguments of BLAS for a product: is a transposed, is b, m, n, k, and the leading dimensions of a, b and c.
Layout = tuple[bool, bool, int, int, int, int, int, int]
MAX_BYTES = 2**62  # no memory has as many; NumPy refuses more in several ways, CuPy counts modulo 2⁶⁴ and gives less


class Staging:
    """Fill arrays of a device from host memory: `claim`, write to `host`, `upload`, compute, `release`."""

    trouble: str = ""  # why uploads are slower than they could be

    def __init__(self, *arrays: Array) -> None:
        self.host: tuple[NDArray[Any], ...] = arrays  # the caller writes here; on the CPU these are the arrays

    def claim(self) -> None:
        """Wait for the last upload, so that the host may write."""

    def upload(self, n: int) -> None:
        """Copy the first n rows of each array; work enqueued after this call sees them."""

    def release(self) -> None:
        """Let the next upload begin when all work enqueued so far is done."""


class Mirror:
    """Copy arrays of a device to and from the host in order with its work, without making the host wait."""

    def __init__(self, *arrays: Array) -> None:
        self._arrays = arrays

    def send(self, *values: Any) -> None:
        """Set the first rows of each array to host values, after all work enqueued before."""
        for array, value in zip(self._arrays, values, strict=True):
            array[: len(value)] = value

    def fetch(self) -> None:
        """Start to copy the arrays to the host, after all work enqueued before."""
        self._fetched = [np.array(array) for array in self._arrays]

    def fetched(self) -> list[NDArray[Any]]:
        """Wait for the copies that `fetch` started, and return them; they belong to the caller."""
        return self._fetched


class Backend(ABC):
    """Hold arrays, run kernels, and compute the one matrix product on one device."""

    device: str  # "cpu" or "cuda:N"
    description: str  # the device in words
    reason: str = ""  # why this device was chosen
    precision: str = "float32"  # of products of float32
    has_graphs: bool = False  # whether work can be captured and replayed (`capture`)
    block_elements: int  # best number of elements in a block of scratch memory
    most_elements: int | None = None  # most elements in an array for a batch, if kernels cannot count more
    memory_error: type[MemoryError] = MemoryError  # raised when the device is out of memory
    xp: Any = np  # NumPy or CuPy, for array code

    @abstractmethod
    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return an uninitialized array."""

    @abstractmethod
    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    @abstractmethod
    def asarray(self, values: Any, dtype: DTypeLike | None = None) -> Array:
        """Return values as a C-contiguous array of this device, without a copy if they are one."""

    @abstractmethod
    def to_host(self, array: Array) -> NDArray[Any]:
        """Copy an array to the host, once the device has computed it."""

    @abstractmethod
    def assign(self, target: Array, values: Any, scale: float = 1.0) -> None:
        """Set target := values · scale; values lie on this device or the host, target lies on this device."""

    @abstractmethod
    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        """Run a kernel record on arrays of this device."""

    @abstractmethod
    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        """Compute c := alpha a b + beta c, the one matrix product of the library.

        Args:
            alpha: Factor of the product.
            a: (m, k) with contiguous rows or columns; a transpose is a view.
            b: (k, n) with contiguous rows or columns.
            beta: Factor of the old values of c; with 0, c may be uninitialized.
            c: (m, n) with contiguous rows.
        """

    def algorithms(self) -> str:
        """Return the algorithms chosen for products as text for `repeat`; "" if the device chooses none."""
        return ""

    def repeat(self, algorithms: str) -> str:
        """Use recorded algorithms for products from now on; return why others are chosen instead, or ""."""
        return ""

    def planned(self, a: Array, b: Array, c: Array) -> Planned:
        """Prepare `gemm` for arrays that keep their memory."""
        return lambda alpha, beta: self.gemm(alpha, a, b, beta, c)

    def connect(self) -> None:
        """Connect this device with those of the other ranks; all ranks call it, before they count their memory."""
        are_hosts = world().all_gather(np.array(self.device == "cpu"))
        if are_hosts.any() and not are_hosts.all():
            which = ", ".join(map(str, np.flatnonzero(are_hosts)))
            mend = "take --device cpu, or give every rank a GPU that gpunn doctor finds no fault with"
            rule = "ranks train on GPUs together, or all on CPUs"
            raise DeviceError(f"{rule}, and here those on CPUs are {which}: {mend}")

    def all_reduce(self, array: Array) -> None:
        """Set an array of this device to its sum over all ranks, with the same bits on each."""
        world().all_reduce(array)

    def all_gather(self, array: Array, gathered: Array) -> None:
        """Set gathered (ranks, *shape) to the arrays of all ranks."""
        gathered[...] = world().all_gather(array)

    def synchronize(self) -> None:
        """Wait until all work of the device is done."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture work as a graph without executing it; return a function that launches the graph.

        `work` may only run kernels and products of this backend, on arrays made before. Run it once first, so that
        its kernels are compiled. Raises a CaptureError with the reason if it cannot be captured.
        """
        raise CaptureError(f"{self.device} has no graphs")

    def array_code(self) -> AbstractContextManager[None]:
        """Run functions of `xp` in the block on this device, in order with its kernels; captures record them too."""
        return nullcontext()

    def compile_ahead(self, work: Callable[[], None], show: Callable[[int, int], None]) -> None:
        """Compile the kernels of some work that the cache lacks, or none if the work reads from the device.

        `show` is called before each compilation with the kernel's number, from 1, and their total.
        """

    def staging(self, *arrays: Array) -> Staging:
        """Return host memory from which arrays of this device are filled while it computes."""
        return Staging(*arrays)

    def mirror(self, *arrays: Array) -> Mirror:
        """Return a `Mirror`, which copies contiguous arrays to and from the host while the device computes."""
        return Mirror(*arrays)

    @abstractmethod
    def free_bytes(self) -> int:
        """Return the bytes that one new array could take, after freeing the cached memory of the device."""

    def limit_memory(self, nbytes: int | None) -> None:
        """Limit the device's memory pool; None lifts the limit. The host has no pool: see `limits`."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # a device has one backend; see `devices` for pickles


class Buffer:
    """Memory for the largest batch, with a contiguous view (*shape, n) for each batch of n samples."""

    def __init__(self, backend: Backend, shape: Shape, capacity: int, dtype: DTypeLike) -> None:
        size, most = prod(shape), backend.most_elements
        if most is not None and size * capacity > most:
            found = f"{capacity:,} samples of {size:,} numbers are {size * capacity:,}"
            mend = f"take batches of at most {most // size:,} samples, or smaller samples"
            raise OptionError(f"{backend.device} computes with arrays of at most {most:,} numbers, and {found}: {mend}")
        self.shape = shape
        self.nbytes = size * capacity * np.dtype(dtype).itemsize
        self._flat = backend.empty((size * capacity,), dtype)
        self._views: dict[int, Array] = {}

    def __getitem__(self, n: int) -> Array:
        """Return the view for a batch of n samples; always the same object."""
        if (view := self._views.get(n)) is None:
            view = self._views[n] = self._flat[: prod(self.shape) * n].reshape(*self.shape, n)
        return view


def channels_first(shape: Shape) -> Shape:
    """Return the shape of a sample in the network: (height, width, channels) becomes (channels, height, width)."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


class PlannedGemm:
    """c := alpha a b + beta c: reuse the plan of the last call for the same arrays; `transposed` is "a" or "b"."""

    def __init__(self, backend: Backend, transposed: str = "") -> None:
        self._backend, self._transposed = backend, transposed
        self.forget()

    def forget(self) -> None:
        """Forget the arrays of the last call and their plan."""
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
        # A plan holds addresses of its own arrays, and a copy has other arrays.
        return {**vars(self), "_last": (None, None, None), "_planned": None}


class Buildable:
    """Tell the settings of a part from its memory, which `build` allocates after a call of `remember_settings`."""

    _settings: frozenset[str] | None = None
    build: Callable[..., Any]

    def remember_settings(self) -> None:
        """Record the current attributes as settings, on the first call; later attributes are memory."""
        if self._settings is None:
            for part in parts_of(self):
                part.remember_settings()
            self._settings = frozenset(vars(self))

    def settings(self) -> dict[str, Any]:
        """Return the attributes that are settings, with unbuilt parts."""
        held, names = vars(self), self._settings
        return {name: _unbuilt(value) for name, value in held.items() if names is None or name in names}

    def unbuilt(self) -> Self:
        """Return an unbuilt copy with the same settings."""
        other = object.__new__(type(self))
        vars(other).update(self.settings())
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.settings()


def parts_of(whole: Any) -> Iterator[Buildable]:
    """Yield the `Buildable` attributes of an object, also those in its lists, tuples and dictionaries."""
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
    """Return the layout of c := a b, or raise `ValueError` if one call of BLAS cannot compute it."""
    (m, k), (inner, n), size, (across, along) = a.shape, b.shape, c.itemsize, c.strides
    fits = inner == k and c.shape == (m, n) and a.dtype == b.dtype == c.dtype and c.dtype.char in "fd"
    # Also for safety: BLAS would write outside of a c whose rows are not contiguous.
    if not fits or (along != size and n > 1) or (across < n * size and m > 1):
        rule = f"shapes and dtypes must fit, and the rows of c be contiguous, got strides {c.strides}"
        given = f"{a.shape} {a.dtype} times {b.shape} {b.dtype} to {c.shape} {c.dtype}"
        raise ValueError(f"gemm cannot write {given}: {rule}")
    (is_a_transposed, lda), (is_b_transposed, ldb) = _order_of(a, size), _order_of(b, size)
    return is_a_transposed, is_b_transposed, m, n, k, lda, ldb, max(across // size, n)


def _order_of(x: Array, size: int) -> tuple[bool, int]:
    """Return whether a matrix is transposed in memory, and its leading dimension."""
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
