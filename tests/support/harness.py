"""One harness for every device: a test that takes `backend` runs on each, and compares with NumPy on the host.

A device is added in one place, DEVICES. gpunn is imported late: conftest.py takes the fixture from here, and must not
need the package to say what may be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gpunn.backend.base import Backend
    from gpunn.kernels import Elementwise, Raw

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = ["float32", "float64"]


@pytest.fixture(scope="session", params=DEVICES)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every device in turn."""
    from gpunn.backend.devices import select

    return select(request.param)


def moved(backend: Backend, arguments: Sequence[Any]) -> list[Any]:
    """Copies on the device; an array that is given twice is one array there too: so kernels are run in place."""
    copies: dict[int, Any] = {}
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            turned = argument.ndim == 2 and not argument.flags.c_contiguous
            copies[id(argument)] = backend.asarray(argument.T.copy()).T if turned else backend.asarray(argument.copy())
    return [copies.get(id(argument), argument) for argument in arguments]


def call(backend: Backend, kernel: Elementwise | Raw, *arguments: Any) -> list[Any]:
    """Run a kernel on copies of the arguments that live on the device: what they are after it, on the host."""
    given = moved(backend, arguments)
    backend.run(kernel, *given)
    return [backend.to_host(a) if isinstance(b, np.ndarray) else a for a, b in zip(given, arguments, strict=True)]


def assert_near(actual: Any, expected: Any, *, ulps: float = 8, scale: float | None = None, what: str = "") -> None:
    """Equal to within some units in the last place of `actual`'s dtype.

    Args:
        actual: what was computed.
        expected: in float64.
        ulps: units allowed.
        scale: the size that the units belong to, where terms cancel; left out, each expected value itself.
        what: named in the message.
    """
    actual = np.asarray(actual)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    info = np.finfo(actual.dtype)
    allowed = ulps * float(info.eps) * (np.abs(expected) if scale is None else np.full(expected.shape, scale))
    allowed = np.maximum(allowed, ulps * float(info.tiny))  # a GPU may flush what lies below to 0
    wrong = ~(np.abs(actual.astype(np.float64) - expected) <= allowed)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        pytest.fail(
            f"{what}: {int(wrong.sum())} of {wrong.size} differ, first at {at}: got {actual[at]!r}, expected "
            f"{expected[at]!r} to within {allowed[at]:.3g}"
        )


def central_differences(function: Callable[[], float], at: NDArray[np.float64], h: float = 1e-5) -> NDArray[np.float64]:
    """∂function/∂at, element by element; `at` is changed in place and put back."""
    gradient = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        kept = at[index]
        at[index] = kept + h
        above = function()
        at[index] = kept - h
        below = function()
        at[index] = kept
        gradient[index] = (above - below) / (2 * h)
    return gradient


def relative_error(actual: Any, expected: Any) -> float:
    """‖actual − expected‖ / (‖actual‖ + ‖expected‖), 0 where both vanish."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    size = np.sqrt(np.square(actual).sum()) + np.sqrt(np.square(expected).sum())
    return float(np.sqrt(np.square(actual - expected).sum()) / size) if size else 0.0


def one_line(error: Exception) -> str:
    """The message of an error, which must be one line that a terminal can hold."""
    text = str(error)
    assert text, "an error without words"
    assert "\n" not in text, text
    assert len(text) < 600, text
    return text
