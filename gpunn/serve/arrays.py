"""Write arrays and numbers as the JSON that the page reads."""

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encoded(array: NDArray[Any]) -> dict[str, Any]:
    """Write an array as its shape, and its numbers as float32, little-endian, in base64."""
    numbers = np.ascontiguousarray(array, "<f4")
    return {"shape": list(array.shape), "data": base64.b64encode(numbers.data).decode("ascii")}


def finite(value: float) -> float | None:
    """Return a number as JSON has it: None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None
