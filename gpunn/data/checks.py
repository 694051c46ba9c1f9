"""Arrays that can be trained on, or the reason why they cannot."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.mapped import in_blocks
from gpunn.errors import DataError
from gpunn.limits import require

# A label of millions is an identifier, not a class; an output layer that wide would only fail later.
MAX_CLASSES = 65_536


def checked_inputs(x: ArrayLike) -> NDArray[Any]:
    """The inputs as a contiguous array of uint8, float32 or float64, images with their channels.

    Args:
        x: (n, features), (n, height, width) or (n, height, width, channels).

    Returns:
        The array itself where nothing had to change.

    Raises:
        DataError: not numbers, wrong number of dimensions, no samples, NaN or infinity.
    """
    array = as_array(x, "inputs")
    if array.ndim not in (2, 3, 4):
        mend = "x.reshape(-1, 1) makes one feature of it" if array.ndim == 1 else "x.reshape(len(x), -1) flattens it"
        raise DataError(
            "inputs are (n, features), (n, height, width) or (n, height, width, channels), "
            f"got shape {array.shape}" + (f": {mend}" if array.ndim else "")
        )
    if not array.size:
        raise DataError(f"inputs hold no values, got shape {array.shape}: give at least one sample with one feature")
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype != np.uint8:
        array = _as_float(array)
        _check_finite(array, "inputs")
    return np.ascontiguousarray(array)


def checked_targets(y: ArrayLike, classes: int | None) -> tuple[NDArray[Any], int]:
    """Labels as int32 with the number of classes, or float targets with 0.

    Args:
        y: integers from 0 of shape (n,), or floats of shape (n, outputs).
        classes: how many classes there are; None to count up to the largest label.

    Returns:
        (targets, classes), classes being 0 for float targets.

    Raises:
        DataError: neither, no targets, labels out of range, NaN or infinity.
    """
    array = as_array(y, "targets")
    if not array.size:
        raise DataError(f"targets hold no values, got shape {array.shape}: give one target for each input")
    if array.dtype.kind == "f":
        return _float_targets(array, classes), 0
    if array.ndim != 1:
        mend = "y.ravel()" if array.ndim == 2 and array.shape[1] == 1 else "y.argmax(axis=1) for one-hot rows"
        raise DataError(
            f"labels are whole numbers of shape (n,), got {array.dtype} of shape {array.shape}: use {mend}, "
            "or y.astype(float) for (n, outputs) float targets"
        )
    if classes is not None and classes < 1:
        raise DataError(
            f"expected float targets of shape (n, outputs), got {array.dtype} of shape {array.shape}: "
            "use y.astype(float).reshape(len(y), -1)"
        )
    low, high = int(array.min()), int(array.max())
    top = MAX_CLASSES if classes is None else classes
    if low < 0 or high >= top:
        wrong = low if low < 0 else high
        counted = f"{classes} classes" if classes is not None else f"at most {MAX_CLASSES:,} classes"
        raise DataError(
            f"labels out of range: expected 0 to {top - 1} ({counted}), got {wrong} at index "
            f"{int(np.flatnonzero(array == wrong)[0])}; y = np.unique(y, return_inverse=True)[1] counts from "
            "0"
        )
    return np.ascontiguousarray(array, dtype=np.int32), high + 1 if classes is None else classes


def _float_targets(array: NDArray[Any], classes: int | None) -> NDArray[Any]:
    if array.ndim != 2:
        whole = bool(np.all(np.mod(array, 1) == 0)) if np.isfinite(array).all() else False
        found = "whole numbers kept as floats" if whole else "values that are no whole numbers"
        raise DataError(
            f"targets are labels (whole numbers, shape (n,)) or floats (n, outputs), got {found}, "
            f"{array.dtype} of shape {array.shape}: use y.astype(int) for classes, y.reshape(len(y), -1) for "
            "regression"
        )
    if classes:
        raise DataError(
            f"expected labels of {classes} classes, got {array.dtype} of shape {array.shape}: "
            "use y.argmax(axis=1) for one-hot rows"
        )
    array = _as_float(array)
    _check_finite(array, "targets")
    return np.ascontiguousarray(array)


def as_array(values: ArrayLike, what: str) -> NDArray[Any]:
    """The values as an array of numbers.

    Raises:
        DataError: they are none.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{what} have masked values, which NumPy would show as numbers: fill or drop them first")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what} are no rectangular NumPy array ({reason}): make them np.array of one shape") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} must be numbers, got {array.dtype}: turn them into floats or whole numbers first")
    return array


def _as_float(array: NDArray[Any]) -> NDArray[Any]:
    """float32 and float64 stay, in this machine's byte order; the rest becomes the next that is enough."""
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    dtype = np.dtype(np.float64 if wide else np.float32)
    if array.dtype != dtype:
        require(array.size * dtype.itemsize, f"a copy as {dtype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def _check_finite(array: NDArray[Any], what: str) -> None:
    limit = float(np.finfo(np.float32).max)
    count, first = 0, ""
    for start, rows in in_blocks(array):
        # The extremes show NaN and infinity without a temporary as large as the data.
        with np.errstate(invalid="ignore"):
            low, high = float(rows.min()), float(rows.max())
        if -limit <= low and high <= limit:
            continue
        bad = ~(np.abs(rows) <= limit)
        count += int(np.count_nonzero(bad))
        if not first:
            place = np.unravel_index(int(np.argmax(bad)), rows.shape)
            value = float(rows[place])
            got = "NaN" if np.isnan(value) else f"{value:g}"
            position = tuple(int(i) for i in place[1:])
            first = f"{got} in sample {start + int(place[0])} at position {position}"
    if first:
        raise DataError(
            f"{what} must be finite float32 numbers, got {first} ({count:,} such values): fill or drop them first"
        )
