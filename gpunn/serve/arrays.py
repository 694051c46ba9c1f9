"""Encode arrays and numbers as the JSON of the page."""

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encoded(array: NDArray[Any]) -> dict[str, Any]:
    """Encode an array as its shape, and its numbers as little-endian float32 in base64."""
    numbers = np.ascontiguousarray(array, "<f4")
    return {"shape": list(array.shape), "data": base64.b64encode(numbers.data).decode("ascii")}


def finite(value: float) -> float | None:
    """Return a finite number, None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None
