"""Arrays that can be trained on, or the reason why they cannot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.foreign import on_host
from gpunn.backend.limits import require
from gpunn.data.memmap import in_blocks
from gpunn.errors import DataError, DeviceError

# A label of millions is an identifier, not a class; an output layer that wide would only fail later.
MAX_CLASSES = 65_536
LARGEST = float(np.finfo(np.float32).max)
_LAST_CHARACTER = 0x10FFFF


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
        check_finite(array, "inputs")
    return np.ascontiguousarray(array)


def checked_targets(y: ArrayLike, classes: int | None) -> tuple[NDArray[Any], int]:
    """Labels as int32 with the number of classes, or float targets with 0.

    Args:
        y: integers from 0 of shape (n,) or (n, 1); rows of one 1 and else 0, (n, classes); or floats: (n, outputs), or
            (n,) for one output.
        classes: how many classes there are, 0 for float targets; None to tell by the values.

    Returns:
        (targets, classes), classes being 0 for float targets.

    Raises:
        DataError: neither, no targets, labels out of range, NaN or infinity; or whole numbers kept as floats (n,),
            which may be either.
    """
    array = as_array(y, "targets")
    if not array.size:
        raise DataError(f"targets hold no values, got shape {array.shape}: give one target for each input")
    is_float = array.dtype.kind == "f"
    if array.ndim == 2 and array.shape[1] == 1 and (classes or not is_float):
        array = array[:, 0]
    if classes != 0 and is_one_hot(array):
        if classes is not None and classes != array.shape[1]:
            raise DataError(
                f"expected labels of {classes} classes, got rows of {array.shape[1]}, {array.dtype}: give rows of "
                f"{classes}, or y.argmax(axis=1)"
            )
        return array.argmax(axis=1).astype(np.int32), array.shape[1]
    if classes == 0 or (is_float and not (classes and is_whole(array))):
        return _float_targets(array, classes), 0
    if array.ndim == 2 and classes is None and is_binary(array):
        return array.astype(np.float32), 0
    if array.ndim != 1:
        raise DataError(
            f"labels are whole numbers of shape (n,), got {array.dtype} of shape {array.shape}: use y.argmax(axis=1) "
            "for one-hot rows, or y.astype(float) for (n, outputs) float targets"
        )
    low, high = int(array.min()), int(array.max())
    top = MAX_CLASSES if classes is None else classes
    if low < 0 or high >= top:
        wrong = low if low < 0 else high
        counted = f"{classes} classes" if classes is not None else f"at most {MAX_CLASSES:,} classes"
        raise DataError(
            f"labels out of range: expected 0 to {top - 1} ({counted}), got {wrong} at index "
            f"{int(np.flatnonzero(array == wrong)[0])}; {_mend_labels(array, low, high, top)}"
        )
    return np.ascontiguousarray(array, dtype=np.int32), high + 1 if classes is None else classes


def _mend_labels(labels: NDArray[Any], low: int, high: int, top: int) -> str:
    """How labels out of range are brought into it."""
    if low == -1 and high == 1 and not np.any(labels == 0):
        return "(y > 0).astype(int) makes classes 0 and 1 of -1 and 1"
    if low == 1 and high == top:
        return "y - 1 counts from 0"
    return "y = np.unique(y, return_inverse=True)[1] counts from 0"


def is_one_hot(array: NDArray[Any]) -> bool:
    """Whether these are rows of exactly one 1 and else 0, of two classes or more."""
    if array.ndim != 2 or array.shape[1] < 2 or not len(array):
        return False
    return is_binary(array) and bool(np.all(np.count_nonzero(array, axis=1) == 1))


def is_binary(array: NDArray[Any]) -> bool:
    """Whether all values are 0 or 1."""
    return bool(np.all((array == 0) | (array == 1)))


def is_whole(array: NDArray[Any]) -> bool:
    """Whether floats (n,) are whole numbers."""
    if array.ndim != 1 or not np.isfinite(array).all() or np.abs(array).max() > MAX_CLASSES:
        return False
    return bool(np.all(np.mod(array, 1) == 0))


def _float_targets(array: NDArray[Any], classes: int | None) -> NDArray[Any]:
    whole = is_whole(array)
    if array.ndim > 2 or not array.ndim or (array.ndim == 1 and (classes or (whole and classes is None))):
        found = "whole numbers kept as floats" if whole else "values that are no whole numbers"
        raise DataError(
            f"targets are labels (whole numbers, shape (n,)) or floats (n, outputs), got {found}, "
            f"{array.dtype} of shape {array.shape}: use y.astype(int) for classes, y.reshape(len(y), -1) for "
            "regression"
        )
    if classes:
        raise DataError(
            f"expected labels of {classes} classes, got {array.dtype} of shape {array.shape}: "
            "use y.argmax(axis=1) for rows of probabilities, or leave class_names out for float targets"
        )
    array = _as_float(array.reshape(len(array), -1))
    check_finite(array, "targets")
    return np.ascontiguousarray(array)


def numbered(y: ArrayLike, names: Sequence[str] | None) -> tuple[ArrayLike, Sequence[str] | None]:
    """Labels that are texts as their places among the class names; anything else as it is.

    Args:
        y: labels.
        names: one for each class; None takes the texts themselves, in alphabetical order.

    Returns:
        (labels, names).

    Raises:
        DataError: a text that is none of the names, one among numbers, or numbers written as texts.
    """
    texts = _texts(y)
    if texts is None:
        return y, names
    if names is None:
        names = sorted(set(texts))
        if all(map(_is_number, names)):
            raise DataError(
                f"labels are numbers written as texts, such as {texts[0]!r}: use y.astype(int) for classes, "
                "y.astype(float) for regression"
            )
    places = {name: place for place, name in enumerate(names)}
    for index, text in enumerate(texts):
        if text not in places:
            known = ", ".join(map(repr, list(names)[:8])) or "numbers"
            raise DataError(f"label {text!r} at index {index} is no class: expected {known}; class_names names all")
    return np.array([places[text] for text in texts], np.int32), names


def _texts(y: ArrayLike) -> list[str] | None:
    """Labels as texts, where they are such."""
    try:
        array = np.asarray(y)
        if array.dtype.kind not in "USO" or not array.size or not (array.ndim == 1 or array.shape[1:] == (1,)):
            return None
        if array.dtype.kind == "U" and _code_points(array).max() > _LAST_CHARACTER:
            return None
        values = array.ravel().astype("U").tolist() if array.dtype.kind == "S" else array.ravel().tolist()
    except (ValueError, TypeError, RuntimeError):
        return None  # what is wrong with them is said where they are taken as numbers
    wrong = [index for index, value in enumerate(values) if not isinstance(value, str)]
    if len(wrong) == len(values):
        return None
    if wrong:
        raise DataError(f"labels are names or numbers, got {values[wrong[0]]!r} at index {wrong[0]} among names")
    return values


def _code_points(texts: NDArray[Any]) -> NDArray[np.uint32]:
    """The characters of texts as numbers; what a file holds need not be characters, and Python takes no others."""
    return np.ascontiguousarray(texts).view(np.dtype(np.uint32).newbyteorder(texts.dtype.byteorder))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_array(values: Any, what: str) -> NDArray[Any]:
    """The values as an array of numbers: of whatever NumPy makes an array of, tensors and data frames among them.

    Raises:
        DataError: they are none.
    """
    if type(values) is np.ndarray and values.dtype.kind in "biuf":
        return values
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{what} have masked values, which NumPy would show as numbers: fill or drop them first")
    if isinstance(values, list | tuple) and any(getattr(value, "mode", "") in ("P", "PA") for value in values):
        raise DataError(f"{what} are pictures whose pixels are places in a palette: take picture.convert('L') or 'RGB'")
    try:
        values = on_host(values)
        is_array = hasattr(values, "__array__") or not hasattr(values, "to_numpy")
        array = np.asarray(values if is_array else values.to_numpy())
        if array.dtype == object and array.ndim:
            array = np.asarray(array.tolist())
    except DeviceError:
        raise
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what} are no rectangular NumPy array ({reason}): make them np.array of one shape") from None
    if array.dtype.kind not in "biuf":
        got = str(array.dtype) if array.ndim else type(values).__name__
        raise DataError(f"{what} must be numbers, got {got}: make them an array of floats or whole numbers first")
    return array


def _as_float(array: NDArray[Any]) -> NDArray[Any]:
    """float32 and float64 stay, in this machine's byte order; the rest becomes the next that is enough."""
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    dtype = np.dtype(np.float64 if wide else np.float32)
    if array.dtype != dtype:
        require(array.size * dtype.itemsize, f"a copy as {dtype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


FEW = 2**16
"""Bytes that are looked at in one piece, since to cut them takes longer."""


def is_finite(array: NDArray[Any]) -> bool:
    """Whether all values are finite float32 numbers; there is at least one."""
    if array.dtype.itemsize <= 4:
        return bool(np.isfinite(array).all())  # takes a few values a third of the time
    # The extremes show NaN and infinity without a temporary as large as the data.
    with np.errstate(invalid="ignore"):
        return float(array.min()) >= -LARGEST and float(array.max()) <= LARGEST


def check_finite(array: NDArray[Any], what: str) -> None:
    """Look for values that are no finite float32 numbers.

    Raises:
        DataError: there are some; the message has the place of the first.
    """
    if array.nbytes <= FEW and is_finite(array):
        return
    count, first = 0, ""
    for start, rows in in_blocks(array):
        if is_finite(rows):
            continue
        bad = ~(np.abs(rows) <= LARGEST)
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
