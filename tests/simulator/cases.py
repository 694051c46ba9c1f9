"""What every kernel is called with in the simulator: arguments from a dtype, a generator and a batch size.

`tests/kernel_cases.py` has calls for most kernels, with what must come out; here a kernel's twin says that, so a new
kernel needs its arguments only: a function under its name. Arrays that are written and not read are `unset`, so a
kernel that leaves an element out, or reads one, is caught.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import kernel_cases
import kernel_cases_images  # noqa: F401 - adds its cases
import numpy as np

from gpunn.kernels import Raw, registry

_NEVER_WRITTEN = {4: np.array(0x7FA5A5A5, np.uint32), 8: np.array(0x7FF5A5A5A5A5A5A5, np.uint64)}
"""Signalling NaNs: one that arithmetic made is quiet."""


def unset(shape: tuple[int, ...], dtype: np.dtype | type | str) -> np.ndarray:
    """An array whose elements were never written: of floats a NaN of its own, else 0xA5 in every byte (checks.cpp)."""
    array = np.empty(shape, dtype)
    if array.dtype.kind == "f":
        pattern = _NEVER_WRITTEN[array.itemsize]
        array.view(pattern.dtype).fill(pattern)
    else:
        array.view(np.uint8).fill(0xA5)
    return array


SIZES = (1, 33, 128, 257)
"""Batches: of one, about a warp, a block, and what is no multiple of either."""


class Call(NamedTuple):
    """One call of a kernel.

    Attributes:
        arguments: of the call; an array that stands twice is one array.
        scale: the size that rounding is measured by where terms cancel; None for each value itself.
    """

    arguments: tuple[Any, ...]
    scale: float | None = None


_ARGUMENTS: dict[str, Callable[[str, np.random.Generator, int], Iterable[Call]]] = {}


def arguments(name: str) -> Callable[[Any], Any]:
    """Let a function give the calls of a kernel."""

    def register(function: Any) -> Any:
        _ARGUMENTS[name] = function
        return function

    return register


def dtypes(name: str) -> tuple[str, ...]:
    """The dtypes of the network that make a difference to a kernel."""
    kernel = registry[name]
    return ("float32",) if isinstance(kernel, Raw) and "T" not in kernel.types else ("float32", "float64")


def calls(name: str, dtype: str, sizes: Iterable[int] = SIZES) -> list[Call]:
    """Every call of a kernel in a dtype.

    Raises:
        AssertionError: there is none.
    """
    found = []
    for n in sizes:
        if name in kernel_cases.CASES:
            # Cases may share a call, and look at different results of it, each with a scale of its own.
            shared: dict[int, Call] = {}
            for case in kernel_cases.CASES[name](dtype, np.random.default_rng(n), n):
                key = id(case.arguments)
                scales = [s for s in (case.scale, shared[key].scale if key in shared else None) if s is not None]
                shared[key] = Call(case.arguments, max(scales, default=None))
            found += shared.values()
        if name in _ARGUMENTS:
            found += _ARGUMENTS[name](dtype, np.random.default_rng(n), n)
    assert found, f"the kernel {name} has no call: give it one in tests/simulator/cases.py or tests/kernel_cases.py"
    return found


def _normal(rng: np.random.Generator, *shape: int, dtype: str) -> np.ndarray:
    return rng.normal(size=shape).astype(dtype)


# Convolution: images (channels, height, width, batch), geometry (size, stride, padding before), each down and across.

_GEOMETRIES = [
    # height, width, geometry, rows and columns that come out
    (5, 6, (3, 3, 1, 1, 0, 0), 3, 4),
    (5, 6, (3, 2, 1, 1, 1, 1), 5, 7),
    (7, 5, (3, 3, 2, 2, 1, 1), 4, 3),
    (4, 4, (1, 1, 1, 1, 0, 0), 4, 4),
    (6, 6, (2, 2, 3, 3, 0, 0), 2, 2),
]


def _some(n: int) -> int:
    """A smaller batch: an image has many numbers."""
    return min(n, 35)


@arguments("im2col")
def _im2col(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    for height, width, geometry, rows, across in _GEOMETRIES:
        x = _normal(rng, 2, height, width, n, dtype=dtype)
        taps = 2 * geometry[0] * geometry[1]
        # The whole image at once, and its last rows only.
        yield Call((x, 0, across, geometry, unset((taps, rows * across * n), dtype)))
        yield Call((x, 1, across, geometry, unset((taps, (rows - 1) * across * n), dtype)))


@arguments("col2im")
def _col2im(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    for height, width, geometry, rows, across in _GEOMETRIES:
        taps = 2 * geometry[0] * geometry[1]
        for first, adds in ((0, False), (1, True)):
            columns = _normal(rng, taps, (rows - first) * across * n, dtype=dtype)
            dx = _normal(rng, 2, height, width, n, dtype=dtype)
            yield Call((columns, first, rows - first, across, geometry, adds, dx), 10.0)


# Pooling: windows (size, stride), each down and across.

_WINDOWS = [
    (6, 6, (2, 2, 2, 2), 3, 3),
    (7, 5, (2, 2, 2, 2), 3, 2),  # a row and a column are left over
    (7, 7, (3, 3, 2, 2), 3, 3),  # windows overlap
    (5, 6, (2, 3, 3, 1), 2, 4),  # some inputs lie in no window
    (4, 5, (4, 5, 1, 1), 1, 1),
]


@arguments("max_pool")
def _max_pool(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    for height, width, window, rows, across in _WINDOWS:
        # So few values that there are ties.
        x = rng.integers(-2, 3, (2, height, width, n)).astype(dtype)
        yield Call((x, window, unset((2, rows, across, n), dtype), unset((2, rows, across, n), np.uint8)))


@arguments("max_pool_gradient")
def _max_pool_gradient(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    for height, width, window, rows, across in _WINDOWS:
        dy = _normal(rng, 2, rows, across, n, dtype=dtype)
        choice = rng.integers(0, window[0] * window[1], dy.shape).astype(np.uint8)
        yield Call((dy, choice, window, unset((2, height, width, n), dtype)), 10.0)


@arguments("average_pool")
def _average_pool(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    for height, width, window, rows, across in _WINDOWS:
        x = _normal(rng, 2, height, width, n, dtype=dtype)
        yield Call((x, window, unset((2, rows, across, n), dtype)), 10.0)


@arguments("average_pool_gradient")
def _average_pool_gradient(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    for height, width, window, rows, across in _WINDOWS:
        dy = _normal(rng, 2, rows, across, n, dtype=dtype)
        yield Call((dy, window, unset((2, height, width, n), dtype)), 10.0)


# Batch normalisation


@arguments("normalize")
def _normalize(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    for shape in ((3, n + 1), (2, 2, 3, _some(n))):
        x = 3 + _normal(rng, *shape, dtype=dtype)
        gamma, beta, running_mean, running_variance = (_normal(rng, shape[0], dtype=dtype) for _ in range(4))
        mean, variance = (unset((shape[0],), dtype) for _ in range(2))
        written = (mean, variance, running_mean, running_variance, unset(shape, dtype))
        yield Call((x, gamma, beta, 1e-5, 0.1, *written), 100.0)


@arguments("normalize_gradient")
def _normalize_gradient(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    for shape in ((3, n + 1), (2, 2, 3, _some(n))):
        dy, x = _normal(rng, *shape, dtype=dtype), _normal(rng, *shape, dtype=dtype)
        gamma, mean = _normal(rng, shape[0], dtype=dtype), _normal(rng, shape[0], dtype=dtype)
        variance = rng.uniform(0.5, 2, shape[0]).astype(dtype)
        sums = (unset((shape[0],), dtype), unset((shape[0],), dtype))
        for share in (shape[0] / x.size, 0.0):
            seen = (x, gamma, mean, variance, 1e-5, share)
            yield Call((dy, *seen, *(total.copy() for total in sums), unset(shape, dtype)), 100.0)
            # In place of dy
            yield Call((copy := dy.copy(), *seen, *(total.copy() for total in sums), copy), 100.0)


@arguments("normalize_as_remembered")
def _normalize_as_remembered(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    gamma, beta, mean = (_normal(rng, 3, 1, dtype=dtype) for _ in range(3))
    variance = rng.uniform(0.5, 2, (3, 1)).astype(dtype)
    yield Call((_normal(rng, 3, n, dtype=dtype), gamma, beta, mean, variance, 1e-5, unset((3, n), dtype)), 10.0)


# Drawing


@arguments("dropout")
def _dropout(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    count = np.array([5], np.int32)
    for probability in (0.0, 0.3, 0.5):
        x = _normal(rng, 3, n, dtype=dtype)
        drawn = (7, 2, count, int(probability * 2**16), 1 / (1 - probability))
        yield Call((x, *drawn, unset((3, n), dtype)))
        yield Call((x, *drawn, x))


@arguments("gather_augmented")
def _gather_augmented(dtype: str, rng: np.random.Generator, n: int) -> Iterable[Call]:
    n = _some(n)
    shape, size = (2, 6, 5), 2 * n + 3
    order, clock = rng.permutation(size).astype(np.int32), np.array([0, 8, 1, 9], np.int32)
    images = rng.integers(0, 256, (size, 60)).astype(np.uint8)
    floats = _normal(rng, size, 60, dtype="float32").astype(dtype)
    labels = rng.integers(0, 10, size).astype(np.int32)
    for limits in ((0.0, 0.0, 0.0, 0.0), (2.0, 0.2, 0.15, 0.1)):
        for data, scale in ((images, 1 / 255), (floats, 1.0)):
            for rows in (unset((n, 60), dtype), unset((60, n), dtype).T):  # batch first, and samples last turned round
                drawn = (data, labels, order, clock.copy(), n, scale, 3, limits, shape)
                yield Call((*drawn, rows, unset((n,), np.int32)))
