"""Check token ids, the whole numbers that an `Embedding` looks up."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.config.scalars import positive_whole
from gpunn.data.memmap import Inputs, Rows, in_blocks, is_mapped
from gpunn.errors import DataError, OptionError

MOST_TOKENS = 2**31 - 1  # the largest int32, in which they are kept
_EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}  # above it a float does not hold every whole number


def checked_count(tokens: Any, what: str = "tokens") -> int:
    """Check a number of tokens, 0 for None; raise OptionError for any other value."""
    count = 0 if tokens is None else positive_whole(tokens, what, least=0)
    if count > MOST_TOKENS:
        raise OptionError(f"{what} must be at most {MOST_TOKENS:,}, got {count:,}")
    return count


def as_tokens(values: Inputs, tokens: int, what: str = "inputs") -> Inputs:
    """Check token ids, and return them as bytes or int32 (n, length); a memory map stays in its file.

    Args:
        values: Whole numbers from 0 to `tokens` − 1, (n, length), of any type; images of one channel are
            flattened.
        tokens: Number of different tokens.
        what: Name of the values in messages.

    Raises:
        DataError: A number that is not whole or out of range, with its sample and position; a float too large to
            be exact.
    """
    if values.ndim == 4 and values.shape[3] > 1:
        wanted = f"{what} of an Embedding are tokens (n, length)"
        raise DataError(f"{wanted}, got images of {values.shape[3]} channels, {tuple(values.shape)}: take one of them")
    if values.ndim != 2:
        values = values.reshape(len(values), -1)
    for start, rows in in_blocks(values):
        _check(rows, tokens, start, what)
    if values.dtype in (np.dtype(np.uint8), np.dtype(np.int32)) and (isinstance(values, Rows) or is_mapped(values)):
        return values
    kept = np.dtype(np.uint8 if values.dtype in (np.dtype(np.uint8), np.dtype(bool)) else np.int32)
    if values.dtype != kept:
        require(values.size * kept.itemsize, f"a copy as {kept}")
    return np.ascontiguousarray(values, kept)


def _check(rows: NDArray[Any], tokens: int, start: int, what: str) -> None:
    """Raise a DataError with the place of the first number that is no token."""
    if rows.dtype.kind == "b" or not rows.size:
        return
    is_float, exact = rows.dtype.kind == "f", _EXACT.get(rows.dtype.name, 2**53)
    low, high = rows.min(), rows.max()  # both NaN where there is one
    bad: NDArray[np.bool_] | None = None
    mend = "number them from 0, as np.unique(x, return_inverse=True)[1].reshape(x.shape) does"
    if is_float and not (rows == np.rint(rows)).all():  # first, since scaled numbers may be out of range too
        bad = rows != np.rint(rows)
        mend = "tokens are not scaled or standardised: give the whole numbers themselves"
    elif not (low >= 0 and high < tokens):
        bad = ~((rows >= 0) & (rows < tokens))
        if tokens <= high < MOST_TOKENS and low >= 0:
            mend = f"Embedding({int(high) + 1}, ...) has room for all, or {mend}"
    elif is_float and high >= exact:
        bad = rows >= exact
        mend = f"{rows.dtype} rounds whole numbers from {exact:,} on: give integers, Samples(x, y, tokens={tokens})"
    if bad is None:
        return
    sample, position = map(int, np.unravel_index(int(np.argmax(bad)), rows.shape))
    value = rows[sample, position].item()
    got = f"{value:.17g}".replace("nan", "NaN") if is_float else f"{value}"
    expected = f"{what} of an Embedding are whole numbers from 0 to {tokens - 1}"
    raise DataError(f"{expected}, got {got} in sample {start + sample} at position {position}: {mend}")
