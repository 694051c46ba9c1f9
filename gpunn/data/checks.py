"""Check arrays for training: inputs, labels, float targets, weights, and the range of pixels."""

import logging
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.devices import as_cupy, dlpack_device, on_host
from gpunn.backend.limits import require
from gpunn.data.device_inputs import DeviceInputs
from gpunn.data.memmap import Inputs, in_blocks, is_mapped
from gpunn.errors import DataError, DeviceError, GpunnError

log = logging.getLogger(__name__)

MAX_CLASSES = 65_536  # a label of millions is an identifier, and an output layer that wide would only fail later
LARGEST = float(np.finfo(np.float32).max)
REACH = 20  # larger inputs make a network's first sums so large that it does not learn
_REACHED = (
    0,
    1,
    2,
    3,
    13,
)  # kinds of DLPack devices that are read: unknown, host, CUDA's memory, pinned and managed
FEW = 2**16  # bytes that are checked in one piece, since cutting them takes longer


def described(array: NDArray[Any]) -> str:
    """Describe type and shape of an array."""
    return f"{array.dtype} of shape {array.shape}"


def as_array(values: Any, what: str) -> NDArray[Any]:
    """Convert values to an array of numbers: lists, tensors, data frames and all that NumPy takes."""
    if type(values) is np.ndarray and values.dtype.kind in "biuf":
        return values
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{what} have masked values, which NumPy would show as numbers: fill or drop them first")
    if isinstance(values, list | tuple) and any(getattr(value, "mode", "") in ("P", "PA") for value in values):
        raise DataError(f"{what} are pictures whose pixels are places in a palette: take picture.convert('L') or 'RGB'")
    _refuse_bfloat16(values, what)
    if (kind := dlpack_device(values)) not in _REACHED:
        mend = "copy them to the host first, x.cpu() in PyTorch"
        raise DataError(f"{what} lie on a device that is neither the host nor CUDA's (kind {kind} of DLPack): {mend}")
    try:
        values = on_host(values)
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            values = np.from_dlpack(values)
        is_array = hasattr(values, "__array__") or not hasattr(values, "to_numpy")
        array = np.asarray(values if is_array else values.to_numpy())
        if array.dtype == object and array.ndim:
            array = np.asarray(array.tolist())
    except DeviceError:
        raise
    except (ValueError, TypeError, RuntimeError, OverflowError, BufferError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what} are no rectangular NumPy array ({reason}): make them np.array of one shape") from None
    if array.dtype.kind not in "biuf":
        got = str(array.dtype) if array.ndim else type(values).__name__
        raise DataError(f"{what} must be numbers, got {got}: make them an array of floats or whole numbers first")
    return array


def as_inputs(values: Any) -> Inputs:
    """Convert inputs to an array of numbers; those of a CUDA device stay there."""
    if isinstance(values, DeviceInputs):
        return values
    _refuse_bfloat16(values, "inputs")
    try:
        array = as_cupy(values)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        if isinstance(error, GpunnError):
            raise
        raise DataError(f"inputs on a device cannot be read ({error}): copy them to the host first") from None
    if array is None:
        return as_array(values, "inputs")
    if array.dtype.kind not in "biuf":
        mend = "make them an array of floats or whole numbers first"
        raise DataError(f"inputs must be numbers, got {array.dtype}: {mend}")
    return DeviceInputs(array)


def _refuse_bfloat16(values: Any, what: str) -> None:
    if str(getattr(values, "dtype", "")).endswith("bfloat16"):
        mend = "make them float32 first, x.float() in PyTorch"
        raise DataError(f"{what} are bfloat16, which NumPy does not have: {mend}")


def checked_inputs(x: ArrayLike | Inputs) -> Inputs:
    """Check inputs; return a contiguous array of uint8, float32 or float64, images with their channels."""
    array = as_inputs(x)
    if array.ndim not in (2, 3, 4):
        mend = "x.reshape(-1, 1) makes one feature of it" if array.ndim == 1 else "x.reshape(len(x), -1) flattens it"
        shapes = "(n, features), (n, height, width) or (n, height, width, channels)"
        raise DataError(f"inputs are {shapes}, got shape {array.shape}" + (f": {mend}" if array.ndim else ""))
    if not array.size:
        raise DataError(f"inputs hold no values, got shape {array.shape}: give at least one sample with one feature")
    array = array.reshape(*array.shape, 1) if array.ndim == 3 else array
    if isinstance(array, DeviceInputs):
        return _checked_on_device(array)
    values = cast(NDArray[Any], array)
    return np.ascontiguousarray(values if values.dtype == np.uint8 else _floats(values, "inputs"))


def _checked_on_device(inputs: DeviceInputs) -> DeviceInputs:
    """Check inputs on a device like `checked_inputs`; only their extremes come to the host."""
    if inputs.is_checked:
        return inputs
    inputs = inputs if inputs.dtype in (np.uint8, np.float32, np.float64) else inputs.astype(np.float32)
    if inputs.dtype != np.uint8 and not _is_finite(inputs.extremes()):
        check_finite(inputs[:], "inputs")  # which says where
    return DeviceInputs(inputs.array, is_checked=True)


def checked_targets(y: ArrayLike, classes: int | None) -> tuple[NDArray[Any], int]:
    """Check targets; return int32 labels with the number of classes, or floats with 0 (by the values for None)."""
    array = as_array(y, "targets")
    if not array.size:
        raise DataError(f"targets hold no values, got shape {array.shape}: give one target for each input")
    is_float = array.dtype.kind == "f"
    if array.ndim == 2 and array.shape[1] == 1 and (classes or not is_float):
        array = array[:, 0]
    if classes != 0 and is_one_hot(array):
        if classes is not None and classes != array.shape[1]:
            got = f"rows of {array.shape[1]}, {array.dtype}: give rows of {classes}, or y.argmax(axis=1)"
            raise DataError(f"expected labels of {classes} classes, got {got}")
        return array.argmax(axis=1).astype(np.int32), array.shape[1]
    whole = is_float and is_whole(array)
    if classes == 0 or (is_float and not (classes and whole)):
        return _float_targets(array, classes, whole), 0
    if array.ndim == 2 and classes is None and is_binary(array):
        return array.astype(np.float32), 0
    if array.ndim != 1:
        mend = "use y.argmax(axis=1) for one-hot rows, or y.astype(float) for (n, outputs) float targets"
        raise DataError(f"labels are whole numbers of shape (n,), got {described(array)}: {mend}")
    low, high, top = int(array.min()), int(array.max()), MAX_CLASSES if classes is None else classes
    if low < 0 or high >= top:
        wrong, counted = low if low < 0 else high, f"at most {MAX_CLASSES:,}" if classes is None else classes
        mend = "y = np.unique(y, return_inverse=True)[1] counts from 0"
        if low == -1 and high == 1 and not np.any(array == 0):
            mend = "(y > 0).astype(int) makes classes 0 and 1 of -1 and 1"
        elif low == 1 and high == top:
            mend = "y - 1 counts from 0"
        got = f"{wrong} at index {int(np.flatnonzero(array == wrong)[0])}"
        raise DataError(f"labels out of range: expected 0 to {top - 1} ({counted} classes), got {got}; {mend}")
    return np.ascontiguousarray(array, dtype=np.int32), high + 1 if classes is None else classes


def _float_targets(array: NDArray[Any], classes: int | None, whole: bool) -> NDArray[Any]:
    got = described(array)
    if array.ndim > 2 or not array.ndim or (array.ndim == 1 and (classes or (whole and classes is None))):
        found = "whole numbers kept as floats" if whole else "values that are no whole numbers"
        mend = "use y.astype(int) for classes, y.reshape(len(y), -1) for regression"
        expected = "labels (whole numbers, shape (n,)) or floats (n, outputs)"
        raise DataError(f"targets are {expected}, got {found}, {got}: {mend}")
    if classes:
        mend = "use y.argmax(axis=1) for rows of probabilities, or leave class_names out for float targets"
        raise DataError(f"expected labels of {classes} classes, got {got}: {mend}")
    return np.ascontiguousarray(_floats(array.reshape(len(array), -1), "targets"))


def checked_weights(weights: ArrayLike, count: int) -> NDArray[np.float64]:
    """Check the weights of `count` samples: finite, at least 0, and not all 0; return float64 (n,)."""
    array = as_array(weights, "sample weights")
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,):
        raise DataError(f"sample weights are ({count:,},), one for each sample, got {described(array)}")
    array = np.ascontiguousarray(array, np.float64)
    check_finite(array, "sample weights")
    if (low := float(array.min())) < 0:
        at = int(array.argmin())
        raise DataError(f"sample weights are at least 0, got {low:g} for sample {at}: 0 leaves a sample out of account")
    if not array.any():
        raise DataError(
            f"the weights of all {count:,} samples are 0, and nothing counts: give some a weight above zero"
        )
    return array


def is_one_hot(array: NDArray[Any]) -> bool:
    """Return whether these are one-hot rows of two classes or more."""
    is_matrix = array.ndim == 2 and array.shape[1] > 1 and len(array) > 0
    return is_matrix and is_binary(array) and bool((np.count_nonzero(array, axis=1) == 1).all())


def is_binary(array: NDArray[Any]) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(np.all((array == 0) | (array == 1)))


def is_whole(array: NDArray[Any]) -> bool:
    """Return whether floats (n,) are whole numbers."""
    return array.ndim == 1 and bool(((np.abs(array) <= MAX_CLASSES) & (array == np.round(array))).all())


def _floats(array: NDArray[Any], what: str) -> NDArray[Any]:
    """Convert numbers to finite float32, or float64 if they are that wide, in this machine's byte order."""
    dtype = np.dtype(np.float64 if array.dtype.kind == "f" and array.dtype.itemsize >= 8 else np.float32)
    if array.dtype != dtype:
        require(array.size * dtype.itemsize, f"a copy as {dtype}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    check_finite(array, what)
    return array


def check_finite(array: NDArray[Any], what: str) -> None:
    """Raise a DataError with the place of the first value that is not a finite float32 number."""
    if array.nbytes <= FEW and _is_finite(array):
        return
    count, first = 0, ""
    for start, rows in in_blocks(array):
        if not _is_finite(rows):
            bad = ~(np.abs(rows) <= LARGEST)
            count += int(np.count_nonzero(bad))
            sample, *position = map(int, np.unravel_index(int(np.argmax(bad)), rows.shape))
            value = f"{rows[sample, *position]:g}".replace("nan", "NaN")
            where = f" at position {tuple(position)}" if position else ""
            first = first or f"{value} in sample {start + sample}{where}"
    if first:
        mend = "fill or drop them first"
        raise DataError(f"{what} must be finite float32 numbers, got {first} ({count:,} such values): {mend}")


def _is_finite(array: NDArray[Any]) -> bool:
    if array.dtype.itemsize <= 4:
        return bool(np.isfinite(array).all())  # for a few values three times as fast
    # The extremes show NaN and Inf without a temporary as large as the data.
    with np.errstate(invalid="ignore"):
        return float(array.min()) >= -LARGEST and float(array.max()) <= LARGEST


def white_level(most: float) -> int:
    """Return the white of pixels, 2^bits − 1, at the usual bit depth that values up to `most` need."""
    return next((2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32) if most <= 2**bits - 1), 2**64 - 1)


def scaled_as_pixels(array: Inputs) -> tuple[Inputs, float]:
    """Choose a scale by the values; return the inputs, pixels up to 255 as bytes, with that factor."""
    is_bytes = array.dtype == np.uint8
    if array.dtype.kind not in "iu" or not array.size or not array.ndim or (is_bytes and is_mapped(array)):
        return array, 1 / 255 if is_bytes else 1.0
    if isinstance(array, DeviceInputs):
        low, high = map(int, array.extremes())
    else:
        extremes = [(int(rows.min()), int(rows.max())) for _, rows in in_blocks(array)]
        low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if is_bytes and high == 1:
        log.warning("inputs are bytes from 0 to 1: they are not divided by 255 (scale=1/255 does)")
    if is_bytes:
        return array, 1.0 if high == 1 else 1 / 255
    most, is_image = white_level(high), array.ndim > 2 or array.dtype == np.uint16
    if low < 0 or not REACH < high <= (65_535 if is_image else 255):
        return array, 1.0
    kept = f"{', as bytes are' if most == 255 else ''} (scale=1 keeps them)"
    log.warning("inputs are whole numbers from %d to %d: divided by %d%s", low, high, most, kept)
    if most != 255:
        return array, 1 / most
    return array.astype(np.uint8) if isinstance(array, DeviceInputs) else np.asarray(array, np.uint8), 1 / most
