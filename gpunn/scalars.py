"""Numbers as arguments: taken as what they are, or refused with what was expected."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from gpunn.errors import OptionError


def real(value: Any, what: str) -> float:
    """The value as a float; what range it lies in is for the caller to say.

    Args:
        value: a number of Python or NumPy, or an array of no dimensions.
        what: it is, in words that begin a sentence.

    Raises:
        OptionError: it is no real number; a text, a class and a boolean are none.
    """
    number = value.item() if isinstance(value, np.ndarray) and not value.ndim else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise OptionError(f"{what} must be a number, got {value!r}")
    try:
        return float(number)
    except OverflowError:
        raise OptionError(f"{what} must be a finite number, got one beyond all floats") from None


def flag(value: Any, what: str) -> bool:
    """The value as a bool.

    Raises:
        OptionError: it is neither True nor False, nor 0 or 1 in their place; "no" and "False" are true in Python.
    """
    if not isinstance(value, bool | np.bool_ | numbers.Integral) or value not in (0, 1):
        raise OptionError(f"{what} must be True or False, got {value!r}")
    return bool(value)
