"""c := alpha a b + beta c on the CPU, through the BLAS that NumPy itself has loaded.

NumPy's `matmul` knows no alpha and beta: the update of (21) would be a product, a scaling and a subtraction, where BLAS
does it in one call and without an array for the gradient. A second BLAS beside NumPy's would bring a second pool of
threads, which makes both ten times slower. So we call the one that is there, OpenBLAS in NumPy's wheels, through its C
interface.

The threads of OpenBLAS wait for one another by spinning. So a product is never left to them as a whole: it is cut into
parts, each computed by one thread from beginning to end, and handed over as a batch of as many parts as there are
threads to use. The parts depend on the product and on `threads()`, and the numbers on nothing but the parts; how many
threads compute them depends on how busy the machine is, and changes no bit.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.kernels.cores import cores, crowd

_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112

_LARGEST_OF_SMALL = 100**3
"""m n k up to which OpenBLAS's batches take its kernels for small matrices, which crash for some shapes (0.3.31)."""

_LARGEST_OF_ONE = 2**19 - 1
"""m n k up to which OpenBLAS leaves a product to the thread that asks for it, however many it has."""

_LARGEST_SUM = 10**5
"""Numbers that it adds up likewise."""

_LEAST_OF_PART = 48
"""Rows or columns of a part at least: what a thread lays out of the other factor must be worth it."""

_Gemm = Callable[..., None]
Planned = Callable[[float, float], None]


class _Library(NamedTuple):
    sgemm: _Gemm
    dgemm: _Gemm
    name: str
    integer: Any
    sasum: Callable[..., float]
    dasum: Callable[..., float]
    sgemm_batch: _Gemm | None
    dgemm_batch: _Gemm | None
    threads: Callable[[], int]

    @property
    def has_batches(self) -> bool:
        return self.sgemm_batch is not None and self.dgemm_batch is not None


@cache
def _library() -> _Library | None:
    """NumPy's own OpenBLAS, or None where NumPy came with another BLAS."""
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        if pool.get("internal_api") != "openblas":
            continue
        library = ctypes.CDLL(pool["filepath"])
        # The names say who built it and how wide its integers are: NumPy's wheels, then distributions.
        for prefix, suffix, width in (
            ("scipy_", "64_", ctypes.c_int64),
            ("", "64_", ctypes.c_int64),
            ("scipy_", "", ctypes.c_int32),
            ("", "", ctypes.c_int32),
        ):
            names = ("cblas_sgemm", "cblas_dgemm", "cblas_sasum", "cblas_dasum", "openblas_get_num_threads")
            functions: list[Any] = [getattr(library, f"{prefix}{name}{suffix}", None) for name in names]
            if all(functions):
                sgemm, dgemm, sasum, dasum, count = functions
                # Without argument types: what is passed is of C's types already, which takes a third of the time.
                sgemm.restype = dgemm.restype = None
                sasum.restype, dasum.restype = ctypes.c_float, ctypes.c_double
                # Younger than the rest: OpenBLAS has it since 0.3.29.
                sbatch, dbatch = (getattr(library, f"{prefix}cblas_{x}gemm_batch{suffix}", None) for x in "sd")
                name = f"OpenBLAS {pool['version']}"
                return _Library(sgemm, dgemm, name, width, sasum, dasum, sbatch, dbatch, count)
    return None


def description() -> str:
    """The BLAS in use and its threads, in words."""
    library = _library()
    if library is None:
        return "NumPy's matmul (its BLAS is not OpenBLAS)"
    count = threads()
    if count == 1:
        return f"{library.name}, 1 thread"
    return f"{library.name}, {'up to ' if shares_cores() else ''}{count} threads"


def threads() -> int:
    """Threads that a large product takes where nobody else needs the cores, 1 where it is not known."""
    from threadpoolctl import threadpool_info

    count = max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
    return min(count, cores()) if shares_cores() else count


def shares_cores() -> bool:
    """Whether products take no more threads than others leave cores: where OpenBLAS has batches, since 0.3.29."""
    library = _library()
    return library is not None and library.has_batches


def gemm(alpha: float, a: NDArray[Any], b: NDArray[Any], beta: float, c: NDArray[Any]) -> None:
    """c := alpha a b + beta c, in float32 or float64.

    Args:
        alpha: factor of the product.
        a: (m, k), rows or columns contiguous.
        b: (k, n), likewise.
        beta: factor of what c held; with 0, c need not be set before.
        c: (m, n), rows contiguous.
    """
    planned(a, b, c)(alpha, beta)


def planned(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> Planned:
    """`gemm` for arrays that stay where they are: (alpha, beta) → c := alpha a b + beta c.

    To check three arrays and to find their addresses takes some ten times as long as to call BLAS.
    """
    library = _library()
    call = _checked(a, b, c)
    if library is None:
        return lambda alpha, beta: _gemm_by_matmul(alpha, a, b, beta, c)
    size = call.m * call.n * call.k
    if size <= _LARGEST_OF_ONE or not library.has_batches:
        return _product(library, call, a, b, c)
    parts = _parts(call, library)
    if len(parts) == 1:
        return _batch(library, [call], [a], [b], [c]) if size > _LARGEST_OF_SMALL else _product(library, call, a, b, c)
    # A square one between columns: the samples of a first layer lie transposed, and are so laid out once only.
    if call.m > call.n:
        return planned_all([a[part] for part in parts], [b] * len(parts), [c[part] for part in parts])
    return planned_all([a] * len(parts), [b[:, part] for part in parts], [c[:, part] for part in parts])


def _product(library: _Library, call: _Call, a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> Planned:
    """A product as a whole, by as many threads as OpenBLAS thinks right."""
    function, real = (library.sgemm, ctypes.c_float) if c.itemsize == 4 else (library.dgemm, ctypes.c_double)
    integer, enum = library.integer, ctypes.c_int
    first, second = real(), real()
    arguments = (
        enum(_ROW_MAJOR), enum(call.trans_a), enum(call.trans_b), integer(call.m), integer(call.n), integer(call.k),
        first, _address(a), integer(call.lda), _address(b), integer(call.ldb), second, _address(c), integer(call.ldc),
    )  # fmt: skip

    def product(alpha: float, beta: float, _kept: Any = (a, b, c)) -> None:
        first.value, second.value = alpha, beta
        function(*arguments)

    return product


def _parts(call: _Call, library: _Library) -> list[slice]:
    """The stretches of the longer side of c that are computed as products of their own, each by one thread."""
    longer, rest = max(call.m, call.n), max(1, min(call.m, call.n) * call.k)
    count = longer // max(_LEAST_OF_PART, _LARGEST_OF_SMALL // rest + 1)
    if count > 1:
        count = min(count, library.threads(), cores())
    if count < 2 and longer * rest <= _LARGEST_OF_SMALL:
        # Two threads would be slower than one, and are what OpenBLAS would take.
        count = min(longer, -(-longer * rest // _LARGEST_OF_ONE))
    return _cut(longer, max(1, count))


def _cut(length: int, count: int) -> list[slice]:
    return [slice(*ends) for ends in pairwise(length * part // count for part in range(count + 1))]


def planned_magnitude(x: NDArray[Any]) -> Callable[[], float]:
    """Σ|x| of a contiguous array that stays where it is: not finite where any number is not, or where it overflows.

    In a third of the time of NumPy's own reductions.
    """
    library = _library()
    if library is None or not x.flags.c_contiguous or x.dtype.char not in "fd":
        return lambda: float(np.abs(x).sum())
    function = library.sasum if x.itemsize == 4 else library.dasum
    flat, one = x.reshape(-1), library.integer(1)
    parts = [flat[part] for part in _cut(x.size, -(-x.size // _LARGEST_SUM) or 1)]
    arguments = [(library.integer(part.size), _address(part), one) for part in parts]

    def magnitude(_kept: Any = x) -> float:
        return sum(function(*each) for each in arguments)

    return magnitude


def planned_all(a: Sequence[NDArray[Any]], b: Sequence[NDArray[Any]], c: Sequence[NDArray[Any]]) -> Planned:
    """Many products that do not depend on one another: (alpha, beta) → c[i] := alpha a[i] b[i] + beta c[i].

    BLAS gets them together. Each is done by one thread, so none waits for another in the middle of a product.

    Args:
        a: (m, k) each, as for `gemm`.
        b: (k, n) each.
        c: (m, n) each; no two overlap.
    """
    calls = [_checked(*arrays) for arrays in zip(a, b, c, strict=True)]
    together = [i for i, call in enumerate(calls) if call.m * call.n * call.k > _LARGEST_OF_SMALL]
    library = _library()
    if library is None or not library.has_batches or len(together) < 2:
        return _one_after_another([planned(*arrays) for arrays in zip(a, b, c, strict=True)])
    some = [[x[i] for i in together] for x in (a, b, c)]
    others = [planned(a[i], b[i], c[i]) for i in range(len(c)) if i not in together]
    return _one_after_another([_batch(library, [calls[i] for i in together], *some), *others])


_computing: set[int] = set()
"""Python threads that are inside a batch. It is for those who are alone there that OpenBLAS's threads work."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_computing.clear)


def _batch(
    library: _Library,
    calls: Sequence[_Call],
    a: Sequence[NDArray[Any]],
    b: Sequence[NDArray[Any]],
    c: Sequence[NDArray[Any]],
) -> Planned:
    """Products above 100³ multiplications, each by one thread, as many at a time as there are threads to use."""
    function, real = (
        (library.sgemm_batch, ctypes.c_float) if c[0].itemsize == 4 else (library.dgemm_batch, ctypes.c_double)
    )
    assert function is not None
    count, most = len(calls), library.threads()
    first, second = (real * count)(), (real * count)()

    def arguments(part: slice) -> tuple[Any, ...]:
        some = calls[part]
        integers, enums, pointers = library.integer * len(some), ctypes.c_int * len(some), ctypes.c_void_p * len(some)
        addresses = [pointers(*(x.ctypes.data for x in arrays[part])) for arrays in (a, b, c)]
        # Each product is a group of its own, so that they may be of different shapes.
        return (
            ctypes.c_int(_ROW_MAJOR), enums(*(x.trans_a for x in some)), enums(*(x.trans_b for x in some)),
            integers(*(x.m for x in some)), integers(*(x.n for x in some)), integers(*(x.k for x in some)),
            first, addresses[0], integers(*(x.lda for x in some)), addresses[1], integers(*(x.ldb for x in some)),
            second, addresses[2], integers(*(x.ldc for x in some)), library.integer(len(some)),
            integers(*[1] * len(some)),
        )  # fmt: skip

    # The calls of BLAS, by the number of threads: each has no more products than that, so it takes no more threads.
    rounds = {most: [arguments(slice(0, count))]}

    def products(alpha: float, beta: float, _kept: Any = (a, b, c)) -> None:
        first[:], second[:] = [alpha] * count, [beta] * count
        me = threading.get_ident()
        try:
            _computing.add(me)
            threads = min(most, crowd.free()) if len(_computing) == 1 else 1
            if threads not in rounds:
                rounds[threads] = [arguments(part) for part in _cut(count, -(-count // threads))]
            for each in rounds[threads]:
                function(*each)
        finally:
            _computing.discard(me)

    return products


def _one_after_another(products: Sequence[Planned]) -> Planned:
    def all_of_them(alpha: float, beta: float) -> None:
        for product in products:
            product(alpha, beta)

    return all_of_them


class _Call(NamedTuple):
    """What BLAS is told of a product besides addresses."""

    trans_a: int
    trans_b: int
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int


def _checked(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> _Call:
    """How a product is to be called.

    Raises:
        ValueError: it cannot be.
    """
    (m, k), (inner, n) = a.shape, b.shape
    size = c.itemsize
    across, along = c.strides
    # Not only for good messages: BLAS would write beside a c whose rows do not lie one after another.
    if (
        inner != k
        or c.shape != (m, n)
        or not a.dtype == b.dtype == c.dtype
        or c.dtype.char not in "fd"
        or (along != size and n > 1)
        or (across < n * size and m > 1)
    ):
        raise ValueError(f"gemm cannot write {a.shape} {a.dtype} times {b.shape} {b.dtype} to {c.shape} {c.dtype}")
    trans_a, lda = _order(a, size)
    trans_b, ldb = _order(b, size)
    return _Call(trans_a, trans_b, m, n, k, lda, ldb, max(across // size, n))


_Memory = ctypes.c_char * 0


def _address(x: NDArray[Any]) -> Any:
    """Where an array lies, as ctypes takes it; by the shortest way there is."""
    flags = x.flags
    if flags.carray:
        return _Memory.from_buffer(x)  # type: ignore[arg-type]  # an array is a buffer
    if flags.fnc and flags.writeable:
        return _Memory.from_buffer(x.T)  # type: ignore[arg-type]
    return ctypes.c_void_p(x.ctypes.data)


def _order(x: NDArray[Any], size: int) -> tuple[int, int]:
    """Whether a matrix lies transposed in memory, and its leading dimension (at least its row's length for BLAS)."""
    rows, columns = x.strides
    if columns == size and (rows >= size * x.shape[1] or x.shape[0] == 1):
        return _PLAIN, max(rows // size, x.shape[1])
    if rows == size and (columns >= size * x.shape[0] or x.shape[1] == 1):
        return _TRANSPOSED, max(columns // size, x.shape[0])
    # One column with any stride is a plain matrix with that leading dimension.
    if x.shape[1] == 1 and rows >= size:
        return _PLAIN, rows // size
    if x.shape[0] == 1 and columns >= size:
        return _TRANSPOSED, columns // size
    raise ValueError(f"gemm takes matrices with contiguous rows or columns, got strides {x.strides} for {x.shape}")


def _gemm_by_matmul(alpha: float, a: NDArray[Any], b: NDArray[Any], beta: float, c: NDArray[Any]) -> None:
    product = np.matmul(a, b)
    if alpha != 1:
        product *= c.dtype.type(alpha)
    if beta == 0:
        c[...] = product
    else:
        c *= c.dtype.type(beta)
        c += product
