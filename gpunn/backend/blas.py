"""Compute c := alpha a b + beta c on the CPU with the BLAS that NumPy has loaded.

`matmul` has no alpha and beta, and OpenBLAS's threads wait for each other by spinning. So a large product is cut into
parts, each for one thread, and OpenBLAS gets as many of them at once as cores are free. The parts depend only on the
product and `threads()`, so a busy machine changes no bit (`docs/design/matrix-product.md`, `threads.md`).
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from gpunn.backend.base import Layout, Planned, layout_of
from gpunn.kernels.cores import cores, load_monitor

_ROW_MAJOR, _PLAIN = 101, 111
# m n k up to which a batch uses OpenBLAS's kernels for small matrices, which crash for some shapes (0.3.31).
_LARGEST_OF_SMALL = 100**3
_LARGEST_OF_ONE = 2**19 - 1  # m n k up to which OpenBLAS computes a product on the calling thread
_LARGEST_SUM = 10**5  # most numbers that OpenBLAS adds up on one thread
_LEAST_OF_PART = 48  # rows or columns: with fewer, a thread takes longer to pack the other factor than it gains
_Memory = ctypes.c_char * 0
_computing: set[int] = set()  # Python threads inside a batch: OpenBLAS's threads work for one of them at a time
os.register_at_fork(after_in_child=_computing.clear)
Matrices = Sequence[NDArray[Any]]


class _Library(NamedTuple):
    """Integer type of an OpenBLAS, and its functions by the bytes of a number."""

    name: str
    integer: Any
    threads: Callable[[], int]
    gemm: dict[int, Callable[..., None]]
    asum: dict[int, Callable[..., float]]
    batch: dict[int, Callable[..., None]]  # empty where OpenBLAS is older than 0.3.29


@cache
def _library() -> _Library | None:
    """Return NumPy's own OpenBLAS, or None if NumPy uses another BLAS."""
    for pool in threadpool_info():
        if pool.get("internal_api") != "openblas":
            continue
        library = ctypes.CDLL(pool["filepath"])
        # The names say who built it and how wide its integers are: NumPy's wheels, then distributions.
        for suffix, prefix in product(("64_", ""), ("scipy_", "")):
            names = ("openblas_get_num_threads", *(f"cblas_{x}{name}" for name in ("gemm", "asum") for x in "sd"))
            functions: list[Any] = [getattr(library, f"{prefix}{name}{suffix}", None) for name in names]
            if all(functions):
                threads, sgemm, dgemm, sasum, dasum = functions
                # Without argument types a call takes a third of the time; its arguments are C types already.
                sgemm.restype = dgemm.restype = None
                sasum.restype, dasum.restype = ctypes.c_float, ctypes.c_double
                batch: list[Any] = [getattr(library, f"{prefix}cblas_{x}gemm_batch{suffix}", None) for x in "sd"]
                batches = dict(zip((4, 8), batch, strict=True)) if all(batch) else {}
                integer, name = ctypes.c_int64 if suffix else ctypes.c_int32, f"OpenBLAS {pool['version']}"
                return _Library(name, integer, threads, {4: sgemm, 8: dgemm}, {4: sasum, 8: dasum}, batches)
    return None


def description() -> str:
    """Describe the BLAS in use and its threads in words."""
    if (library := _library()) is None:
        return "NumPy's matmul (its BLAS is not OpenBLAS)"
    count, most = threads(), "up to " if shares_cores() else ""
    return f"{library.name}, {most}{count} threads" if count > 1 else f"{library.name}, 1 thread"


def threads() -> int:
    """Return the number of threads of a large product on an idle machine, 1 if unknown."""
    count = max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
    return min(count, cores()) if shares_cores() else count


def shares_cores() -> bool:
    """Return whether products use only the cores that others leave free, by OpenBLAS's batches (since 0.3.29)."""
    return (library := _library()) is not None and bool(library.batch)


def gemm(alpha: float, a: NDArray[Any], b: NDArray[Any], beta: float, c: NDArray[Any]) -> None:
    """Compute c := alpha a b + beta c, in float32 or float64; see `Backend.gemm`."""
    planned(a, b, c)(alpha, beta)


def planned(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> Planned:
    """Prepare `gemm` for arrays that keep their memory: checks and addresses take longer than the call."""
    library, layout = _library(), layout_of(a, b, c)
    if library is None:

        def multiply(alpha: float, beta: float) -> None:
            product = c.dtype.type(alpha) * np.matmul(a, b)
            c[...] = product + c.dtype.type(beta) * c if beta else product

        return multiply
    m, n, k = layout[2:5]
    parts = _parts(m, n, k, library) if library.batch and m * n * k > _LARGEST_OF_ONE else []
    if len(parts) < 2:
        is_alone = not library.batch or m * n * k <= _LARGEST_OF_SMALL
        return _whole(library, layout, a, b, c) if is_alone else _batch(library, [layout], [a], [b], [c])
    # A square product is cut between columns: samples of a first layer lie transposed, and BLAS then packs them once.
    if m > n:
        return planned_all([a[part] for part in parts], [b] * len(parts), [c[part] for part in parts])
    return planned_all([a] * len(parts), [b[:, part] for part in parts], [c[:, part] for part in parts])


def planned_all(a: Matrices, b: Matrices, c: Matrices) -> Planned:
    """Prepare products c[i] := alpha a[i] b[i] + beta c[i]; large ones are computed at once, a thread each."""
    library, layouts = _library(), [layout_of(*arrays) for arrays in zip(a, b, c, strict=True)]
    together = [i for i, layout in enumerate(layouts) if prod(layout[2:5]) > _LARGEST_OF_SMALL]
    if library is None or not library.batch or len(together) < 2:
        together, products = [], []
    else:
        some = ([each[i] for i in together] for each in (layouts, a, b, c))
        products = [_batch(library, *some)]  # type: ignore[arg-type]
    products += [planned(a[i], b[i], c[i]) for i in range(len(c)) if i not in together]

    def multiply(alpha: float, beta: float) -> None:
        for each in products:
            each(alpha, beta)

    return multiply


def _parts(m: int, n: int, k: int, library: _Library) -> list[slice]:
    """Cut the longer side of c into slices, each a product for one thread."""
    longer, rest = max(m, n), max(1, min(m, n) * k)
    count = longer // max(_LEAST_OF_PART, _LARGEST_OF_SMALL // rest + 1)
    if count > 1:
        count = min(count, library.threads(), cores())
    if count < 2 and longer * rest <= _LARGEST_OF_SMALL:
        # OpenBLAS would take two threads, which are slower here than one.
        count = min(longer, -(-longer * rest // _LARGEST_OF_ONE))
    return cut(longer, max(1, count))


def cut(length: int, count: int) -> list[slice]:
    """Cut a length into `count` slices that differ by one at most."""
    return [slice(*ends) for ends in pairwise(length * part // count for part in range(count + 1))]


def _whole(library: _Library, layout: Layout, a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> Planned:
    """Prepare an undivided product, for which OpenBLAS chooses the number of threads."""
    function, real = library.gemm[c.itemsize], ctypes.c_float if c.itemsize == 4 else ctypes.c_double
    integer, enum, first, second = library.integer, ctypes.c_int, real(), real()
    of_a, of_b, m, n, k, lda, ldb, ldc = layout
    # Written out: a loop would take as long as a small product.
    arguments = (
        enum(_ROW_MAJOR), enum(_PLAIN + of_a), enum(_PLAIN + of_b), integer(m), integer(n), integer(k),
        first, _address(a), integer(lda), _address(b), integer(ldb), second, _address(c), integer(ldc),
    )  # fmt: skip

    def multiply(alpha: float, beta: float, _kept: Any = (a, b, c)) -> None:
        first.value, second.value = alpha, beta
        function(*arguments)

    return multiply


def _batch(library: _Library, layouts: Sequence[Layout], a: Matrices, b: Matrices, c: Matrices) -> Planned:
    """Prepare products above 100³ multiplications, each on one thread, as many at once as cores are free."""
    function, count, most = library.batch[c[0].itemsize], len(layouts), library.threads()
    scalars = [((ctypes.c_float if c[0].itemsize == 4 else ctypes.c_double) * count)() for _ in range(2)]
    addresses = [[x.ctypes.data for x in arrays] for arrays in (a, b, c)]

    def arguments(part: slice) -> tuple[Any, ...]:
        size = len(layouts[part])
        integers, orders, pointers = library.integer * size, ctypes.c_int * size, ctypes.c_void_p * size
        of_a, of_b, *sizes = zip(*layouts[part], strict=True)
        m, n, k, lda, ldb, ldc = (integers(*each) for each in sizes)
        plain_a, plain_b = (orders(*(_PLAIN + each for each in of)) for of in (of_a, of_b))
        at_a, at_b, at_c = (pointers(*each[part]) for each in addresses)
        # Each product is a group of its own, so that their shapes may differ.
        return (
            ctypes.c_int(_ROW_MAJOR), plain_a, plain_b, m, n, k, scalars[0], at_a, lda, at_b, ldb,
            scalars[1], at_c, ldc, library.integer(size), integers(*[1] * size),
        )  # fmt: skip

    # Calls of BLAS by the number of threads: a call with at most so many products takes no more threads.
    rounds = {most: [arguments(slice(0, count))]}

    def multiply(alpha: float, beta: float, _kept: Any = (a, b, c)) -> None:
        scalars[0][:], scalars[1][:] = [alpha] * count, [beta] * count
        me = threading.get_ident()
        try:
            _computing.add(me)
            threads = min(most, load_monitor.free()) if len(_computing) == 1 else 1
            if threads not in rounds:
                rounds[threads] = [arguments(part) for part in cut(count, -(-count // threads))]
            for each in rounds[threads]:
                function(*each)
        finally:
            _computing.discard(me)

    return multiply


def planned_magnitude(x: NDArray[Any]) -> Callable[[], float]:
    """Prepare Σ|x| of a contiguous array that keeps its memory; it is non-finite if a number is, or if it overflows."""
    library = _library()
    if library is None or not x.flags.c_contiguous or x.dtype.char not in "fd":
        return lambda: float(np.abs(x).sum())
    function, flat, one = library.asum[x.itemsize], x.reshape(-1), library.integer(1)
    parts = [flat[part] for part in cut(x.size, -(-x.size // _LARGEST_SUM) or 1)]
    arguments = [(library.integer(part.size), _address(part), one) for part in parts]

    def magnitude(_kept: Any = x) -> float:
        return sum(function(*each) for each in arguments)

    return magnitude


def _address(x: NDArray[Any]) -> Any:
    """Return the address of an array for ctypes, in the fastest way."""
    flags = x.flags
    if flags.carray:
        return _Memory.from_buffer(x)  # type: ignore[arg-type]  # an array is a buffer
    if flags.fnc and flags.writeable:
        return _Memory.from_buffer(x.T)  # type: ignore[arg-type]
    return ctypes.c_void_p(x.ctypes.data)
