"""Host twins written as loops, which Numba compiles where it is installed (the extra `numba`).

NumPy goes over its arrays once for each operation, and what one pass wrote the next must fetch again; a loop does all
of a formula while the numbers are in registers. The numbers agree with the passes' to rounding, since only sums are
added up in another order, and are the same from run to run.
"""

from __future__ import annotations

import importlib.metadata
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

OFF = "GPUNN_NUMBA"
"""Environment variable that, set to 0, leaves Numba unused."""

WORTHWHILE = 2**19
"""Bytes of the largest array from which on loops are used: less does not pay for the half second of loading Numba."""

LOADED = 120 << 20
"""Bytes that Numba and its compiler take: 110 MiB were measured, half of it at the first function."""

LONG = 10_000
"""Steps from which on a training uses loops for all its arrays: they save a tenth of a millisecond a step."""

_Body: TypeAlias = Callable[..., None]

twins: list[tuple[_Body, _Body]] = []
"""Passes and loops that do the same, for the tests."""

_compiling = threading.Lock()
_of_thread = threading.local()


@contextmanager
def for_training(steps: int, nbytes: int) -> Iterator[None]:
    """Within, what this thread computes is part of a training: all in loops, where it is long or loads Numba anyway.

    Args:
        steps: of the whole training, so that one which is resumed does the same as one which never stopped.
        nbytes: of the largest array that a batch is in on its way through the network.
    """
    before = getattr(_of_thread, "takes_all", False)  # of a training that another one is part of
    _of_thread.takes_all = steps >= LONG or nbytes >= WORTHWHILE
    try:
        yield
    finally:
        _of_thread.takes_all = before


@cache
def version() -> str:
    """The version of the Numba in use, empty where there is none."""
    if os.environ.get(OFF) == "0":
        return ""
    try:
        return importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def load() -> None:
    """Load Numba with its compiler, where it is installed: a hundred megabytes, which then count as taken."""
    if version():
        compiled(_nothing)(np.zeros(1, np.float32))


def bytes_to_load() -> int:
    """What `load` is about to take of the host's memory, roughly; 0 where it is loaded or not installed."""
    return LOADED if version() and not load.cache_info().currsize else 0


def _nothing(x: NDArray[Any]) -> None:
    x[0] = 0


@cache
def compiled(loops: _Body) -> _Body:
    """The machine code of loops, which is kept for the next process where that can be written.

    Sums may be added up in any order, by several lanes at once; nothing else is relaxed.

    Raises:
        ImportError: Numba is installed and cannot be used, beside a NumPy that is newer than it knows, say.
    """
    try:
        import numba
    except ImportError as error:
        raise ImportError(
            f"Numba {version()} cannot be used ({error}): pip install --upgrade numba, or export {OFF}=0"
        ) from None

    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc"}, "error_model": "numpy"}
    with _compiling:
        try:
            body: _Body = numba.njit(cache=True, **options)(loops)
        except RuntimeError:  # neither beside the module nor in the user's cache
            body = numba.njit(**options)(loops)
    return body


def in_loops(loops: _Body, sized_by: slice = slice(None)) -> Callable[[_Body], _Body]:
    """For a function of NumPy's passes: do `loops` instead where Numba is installed and that pays.

    Args:
        loops: what Numba compiles.
        sized_by: the arguments whose size tells how much there is to do; a data set that is picked from does not.
    """

    def beside(passes: _Body) -> _Body:
        twins.append((passes, loops))
        if not version():
            return passes

        @wraps(passes)
        def either(*arguments: Any) -> None:
            body = passes
            if getattr(_of_thread, "takes_all", False):
                body = compiled(loops)
            else:
                for each in arguments[sized_by]:
                    if isinstance(each, np.ndarray) and each.nbytes >= WORTHWHILE:
                        body = compiled(loops)
                        break
            body(*arguments)

        return either

    return beside
