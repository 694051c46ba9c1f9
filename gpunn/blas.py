"""c := alpha a b + beta c on the CPU, through the BLAS that NumPy itself has loaded.

NumPy's `matmul` knows no alpha and beta: the update of (21) would be a product, a scaling and a subtraction, where BLAS
does it in one call and without an array for the gradient. A second BLAS beside NumPy's would bring a second pool of
threads, which makes both ten times slower. So we call the one that is there, OpenBLAS in NumPy's wheels, through its C
interface.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112
_Gemm = Callable[..., None]
Planned = Callable[[float, float], None]


class _Library(NamedTuple):
    sgemm: _Gemm
    dgemm: _Gemm
    name: str
    get_threads: Callable[[], int]
    set_threads: Callable[[int], None]
    integer: Any


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
            names = ("cblas_sgemm", "cblas_dgemm", "openblas_get_num_threads", "openblas_set_num_threads")
            functions: list[Any] = [getattr(library, f"{prefix}{name}{suffix}", None) for name in names]
            if all(functions):
                sgemm, dgemm, get_threads, set_threads = functions
                # Without argument types: what is passed is of C's types already, which takes a third of the time.
                sgemm.restype = dgemm.restype = None
                return _Library(
                    sgemm,
                    dgemm,
                    f"OpenBLAS {pool['version']}",
                    get_threads,
                    set_threads,
                    width,
                )
    return None


def description() -> str:
    """The BLAS in use and its threads, in words."""
    library = _library()
    if library is None:
        return "NumPy's matmul (its BLAS is not OpenBLAS)"
    count = threads()
    return f"{library.name}, {count} thread{'s' if count != 1 else ''}"


def threads() -> int:
    """Threads of the BLAS pool, 1 where it is not known."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


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
    library = _library()
    if library is None:
        return lambda alpha, beta: _gemm_by_matmul(alpha, a, b, beta, c)
    trans_a, lda = _order(a, size)
    trans_b, ldb = _order(b, size)
    function, real = (library.sgemm, ctypes.c_float) if size == 4 else (library.dgemm, ctypes.c_double)
    integer, enum = library.integer, ctypes.c_int
    first, second = real(), real()
    arguments = (
        enum(_ROW_MAJOR), enum(trans_a), enum(trans_b), integer(m), integer(n), integer(k),
        first, _address(a), integer(lda), _address(b), integer(ldb),
        second, _address(c), integer(max(across // size, n)),
    )  # fmt: skip

    def product(alpha: float, beta: float, _kept: Any = (a, b, c)) -> None:
        first.value, second.value = alpha, beta
        function(*arguments)

    return product


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
