"""Adapt PyArrow, which reads tables: import it on use, turn its errors into one line, its arrays into cells."""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.formats.table import MISSING, Cells
from gpunn.errors import DataError, GpunnError, MemoryShortageError, in_one_line

_MOST_SECONDS = 0.5  # that a thread of PyArrow may take to release a file


def arrow(module: str = "pyarrow") -> Any:
    """Import PyArrow or a module of it; raise DataError that says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise DataError("a table is read by PyArrow, which is not installed: pip install 'gpunn[tables]'") from None


@contextmanager
def arrow_errors(path: Path, mend: str, explain: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Turn errors of PyArrow into one line; `explain` gets its message, and may raise a better error."""
    message, is_short = "", False
    try:
        yield
    except GpunnError:
        raise
    except MemoryError:
        is_short = True
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, OverflowError, arrow().ArrowException) as e:
        message = str(e) or type(e).__name__
    if is_short:  # raised here, outside the handler: only a size that the file promised did not fit
        raise MemoryShortageError(f"{path}: its content does not fit into memory: use a smaller file")
    if message:
        explain(message)
        raise DataError(f"{path}: cannot be read as a table ({in_one_line(message)[:160].rstrip('. ')}): {mend}")


class _Lent:
    """Proxy of a file, by which the end of a loan to PyArrow is seen."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def lending() -> Iterator[Callable[[Any], Any]]:
    """Yield a function that lends a file to PyArrow, and wait at the end until PyArrow has released it.

    A thread of PyArrow may release it last, after the last rows. If Python is shutting down by then, that thread aborts
    the process.
    """
    loans = []

    def lend(file: Any) -> Any:
        loan = _Lent(file)
        loans.append(weakref.ref(loan))
        return loan

    try:
        yield lend
    finally:
        # An error raised during the read holds the file too, so the wait has an end.
        until = time.monotonic() + _MOST_SECONDS
        while any(loan() for loan in loans) and time.monotonic() < until:
            time.sleep(0.0005)


class Numbers:
    """Turn texts of PyArrow into numbers."""

    def __init__(self, decimal: str = ".") -> None:
        self._decimal, self._pa, self._compute = decimal, arrow(), arrow("pyarrow.compute")
        self._missing = self._pa.array(sorted(MISSING))

    def __call__(self, texts: Any) -> NDArray[np.float64] | None:
        """Return texts as numbers, NaN for missing ones; None if some are no numbers."""
        pa, compute = self._pa, self._compute
        for is_plain in (True, False):
            if not is_plain:
                texts = compute.utf8_trim_whitespace(texts)
                texts = compute.if_else(compute.is_in(texts, self._missing), pa.scalar(None, texts.type), texts)
                if self._decimal != ".":
                    texts = compute.replace_substring(texts, self._decimal, ".")
            elif self._decimal != ".":
                continue
            try:
                return as_floats(texts.cast(pa.float64()))
            except pa.ArrowInvalid:
                pass
        return None


def as_floats(array: Any) -> NDArray[Any]:
    """Return numbers of PyArrow as a NumPy array, NaN for null."""
    return np.asarray(array.to_numpy(zero_copy_only=False))


def add_texts(cells: Cells, array: Any, *, is_kept: bool = True) -> None:
    """Add texts of PyArrow, null for missing ones, to the cells of a column, or only count them."""
    encoded = array if arrow().types.is_dictionary(array.type) else array.dictionary_encode()
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    texts = ["" if text is None else text for text in encoded.dictionary.to_pylist()]
    (cells.add_texts if is_kept else cells.count_texts)(places, texts)
