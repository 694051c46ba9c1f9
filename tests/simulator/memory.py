"""What memory holds that was never written, or was given back: a pattern that a kernel which reads it is caught by."""

import numpy as np

_PATTERNS = {
    np.dtype(np.float32): np.array(0x7FA5A5A5, np.uint32),  # signalling NaNs: one that arithmetic made is quiet
    np.dtype(np.float64): np.array(0x7FF5A5A5A5A5A5A5, np.uint64),
}


def poison(array: np.ndarray) -> None:
    """Fill a contiguous array with what stands for `never written`: a NaN of its own, or 0xA5 in every byte."""
    pattern = _PATTERNS.get(array.dtype)
    if pattern is None:
        array.reshape(-1).view(np.uint8).fill(0xA5)
    else:
        array.reshape(-1).view(pattern.dtype).fill(pattern)


def is_poisoned(array: np.ndarray) -> bool:
    """Whether any element of a float array was never written."""
    pattern = _PATTERNS.get(array.dtype)
    return pattern is not None and bool((np.ascontiguousarray(array).view(pattern.dtype) == pattern).any())


def unset(shape: tuple[int, ...], dtype: np.dtype | type | str) -> np.ndarray:
    """An array whose elements were never written."""
    array = np.empty(shape, dtype)
    poison(array)
    return array
