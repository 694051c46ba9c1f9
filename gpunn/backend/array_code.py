"""Run array code on a device: custom parts that compute with NumPy or CuPy arrays instead of a kernel."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from gpunn.backend.base import Backend
from gpunn.backend.devices import backend_of
from gpunn.config import outside
from gpunn.errors import ShapeError
from gpunn.kernels.record import Raw


def _no_host(*_: Any) -> None:
    raise TypeError("array code has no kernel")


NO_KERNEL = Raw("array_code", host=_no_host, is_listed=False)  # stands for the kernel of array code


def is_array_code(part: type, hook: str, *instead: str) -> bool:
    """Return whether a class defines or inherits `hook` from a nearer base than any method of `instead`."""
    for base in part.__mro__:
        if hook in vars(base):
            return True
        if not vars(base).keys().isdisjoint(instead):
            return False
    return False


def run_on_device(part: type, *methods: str) -> None:
    """Wrap methods of a custom class to run on the device of their first argument, in order with its kernels."""
    for name in methods:
        method = vars(part).get(name)
        if callable(method) and not outside.is_ours(method) and not hasattr(method, "__wrapped__"):
            setattr(part, name, _on_device(method))


def _on_device(method: Callable[..., Any]) -> Callable[..., Any]:
    is_pass = method.__name__ in ("forward", "backward")

    @wraps(method)
    def running(part: Any, first: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(first, np.ndarray):
            result = method(part, first, *rest, **options)
        else:
            backend = getattr(first, "backend", None)  # `build` gets a context, which has one
            with (backend if isinstance(backend, Backend) else backend_of(first)).array_code():
                result = method(part, first, *rest, **options)
        if is_pass:
            _check(part, method.__name__, first, result)
        return result

    return running


def _check(part: Any, name: str, given: Any, result: Any) -> None:
    """Raise ShapeError unless a pass through a layer returns an array of the same samples and dtype."""
    if result is None and name == "backward":
        return
    shape: tuple[int, ...] = getattr(result, "shape", ())
    dtype = getattr(result, "dtype", None)
    if len(shape) > 1 and shape[-1] == given.shape[-1] and (dtype == given.dtype or given.dtype.kind != "f"):
        return
    wanted = f"an array (..., {given.shape[-1]}) of {given.dtype}, samples last"
    got = f"{type(result).__name__}" if dtype is None else f"{tuple(shape)} of {dtype}"
    mend = "" if dtype is None or dtype == given.dtype else ": give arrays that you make dtype=x.dtype"
    raise ShapeError(f"{part.name or type(part).__name__}: {name} must return {wanted}, got {got}{mend}")
