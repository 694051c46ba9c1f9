"""Check scalar arguments, and raise errors that name the expected values."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.errors import OptionError

Range = tuple[str, Callable[[float], bool]]  # words for an error message, and a test of a number
FINITE: Range = "be finite", math.isfinite
POSITIVE: Range = "be above 0 and finite", lambda number: 0 < number < math.inf
NOT_NEGATIVE: Range = "be at least 0 and finite", lambda number: 0 <= number < math.inf
SHARE: Range = "lie from 0 to below 1", lambda number: 0 <= number < 1


def real(value: Any, what: str, allowed: Range | None = None) -> float:
    """Return a real number as a float; refuse other types, booleans, and numbers outside the allowed range."""
    number = value.item() if isinstance(value, np.ndarray) and not value.ndim else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise OptionError(f"{what} must be a number, got {value!r}")
    try:
        number = float(number)
    except OverflowError:
        raise OptionError(f"{what} must be a finite number, got one beyond all floats") from None
    if allowed and not allowed[1](number):
        raise OptionError(f"{what} must {allowed[0]}, got {value!r}")
    return number


def flag(value: Any, what: str) -> bool:
    """Return True, False, 0 or 1 as a bool; refuse all else, since "no" and "False" are true in Python."""
    if not isinstance(value, bool | np.bool_ | numbers.Integral) or value not in (0, 1):
        raise OptionError(f"{what} must be True or False, got {value!r}")
    return bool(value)


def positive_whole(value: Any, what: str, least: int = 1) -> int:
    """Return a whole number from `least` to 2⁴⁸ as an int."""
    number = value.item() if isinstance(value, np.ndarray | np.generic) and not value.ndim else value
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1 or number < least:
        raise OptionError(f"{what} must be a whole number of at least {least}, got {value!r}")
    if number > 2**48:  # NumPy cannot count much further
        raise OptionError(f"{what} must be at most {2**48:,}, got {value!r}")
    return int(number)


def checked_seed(value: Any) -> int:
    """Return a seed from 0 to 2³² − 1, a word of Philox's key, as an int."""
    if positive_whole(value, "seed", least=0) >= 2**32:
        raise OptionError(f"seed must be a whole number from 0 to {2**32 - 1}, got {value!r}")
    return int(value)


def pair(value: Any, what: str, least: int = 1) -> tuple[int, int]:
    """Return two whole numbers, vertical and horizontal, from one or two."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise OptionError(f"{what} must be one number or two, got {value!r}")
    return positive_whole(values[0], what, least), positive_whole(values[1], what, least)
