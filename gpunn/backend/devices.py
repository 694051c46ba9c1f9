"""Choose a device: try what is there, and say why it was taken. There is one backend of each device and precision."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from gpunn.backend import limits, trial
from gpunn.backend.base import Backend
from gpunn.backend.cpu import NumpyBackend
from gpunn.backend.cuda import CupyBackend, import_cupy, open_device
from gpunn.backend.cuda_errors import line
from gpunn.errors import DeviceError, OptionError
from gpunn.kernels.record import Array

_making = threading.RLock()


def _backend(device: str, precision: str = "float32") -> Backend:
    """The one backend of a device and precision: two would be two streams, without an order between their work."""
    with _making:  # threads that ask at once are given the same one
        return _made(device, precision)


@cache  # by both arguments, always: a call that leaves one out would be another key
def _made(device: str, precision: str, /) -> Backend:
    if device == "cpu":
        return NumpyBackend()
    if precision != "float32" and isinstance(plain := _made(device, "float32"), CupyBackend):
        return plain.in_precision(precision)  # on the same stream: what one computes the other sees done
    return CupyBackend(int(device.partition(":")[2]))


def backend_of(array: Array) -> Backend:
    """The backend whose memory an array lies in."""
    return _backend("cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}")


def _found_again(device: str, precision: str) -> Backend:
    """The backend of a device by name, or the CPU's where that device cannot be used."""
    return _backend("cpu") if device == "cpu" or cuda_trouble(int(device[5:])) else _backend(device, precision)


Backend.found_again = staticmethod(_found_again)

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


def select(device: str = "auto", precision: str = "float32") -> Backend:
    """The backend for a device by name.

    Args:
        device: "auto" (CUDA where it can be used, else the CPU), "cpu", "cuda" or "cuda:N".
        precision: what products of float32 are computed in: "float32", or on a CUDA device "tf32", "bfloat16" or
            "float16", which round the factors and use the tensor cores; weights, sums, costs and statistics stay
            float32.

    Returns:
        The backend; its `reason` says why it was taken.

    Raises:
        OptionError: no such device or precision, or one that the device does not have.
        DeviceError: a CUDA device was asked for and cannot be used.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
    if not isinstance(device, str):
        raise OptionError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    if device == "cpu":
        backend, reason = _backend("cpu"), "asked for"
    elif device == "auto":
        backend, reason = _best(precision)
    elif device == "cuda" or (device.startswith("cuda:") and device[5:].isdecimal()):
        index = int(device[5:] or 0)
        if trouble := cuda_trouble(index):
            raise DeviceError(f"device {device!r} cannot be used: {trouble}; or take --device cpu")
        try:
            backend, reason = _backend(f"cuda:{index}", precision), "asked for"
        except MemoryError as error:
            trouble = line("CUDA", 2, str(error))
            raise DeviceError(f"device {device!r} cannot be used: {trouble}; or take --device cpu") from None
    else:
        raise OptionError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    if backend.precision != precision:
        raise OptionError(f"precision {precision!r} needs a CUDA device, and this is {backend.device}: take float32")
    backend.reason = reason
    backend.limit_memory(limits.memory_limit())
    return backend


def _best(precision: str) -> tuple[Backend, str]:
    """The first CUDA device that can be used, else the CPU, and why."""
    from gpunn.backend.driver import read_driver

    troubles = {0: cuda_trouble(0)}
    if troubles[0]:
        troubles |= {index: cuda_trouble(index) for index in range(1, len(read_driver().gpus))}
    for index, trouble in troubles.items():
        if not trouble:
            try:
                backend = _backend(f"cuda:{index}", precision)
            except (DeviceError, MemoryError) as error:
                troubles[index] = str(error)
            else:
                others = f", as cuda:0 cannot be used: {troubles[0]}" if index else ""
                return backend, f"a CUDA device is there{others}"
    return _backend("cpu"), f"no CUDA: {troubles[0]}"


def trials(index: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """What a device is tried by, step by step: a name, and what says in words how it went.

    Raises:
        DeviceError, MemoryError: by a step that fails; those after it have no meaning then.
    """
    yield "CuPy import", lambda: f"CuPy {import_cupy().__version__}"
    yield f"cuda:{index}", lambda: open_device(index)
    yield "cuBLAS handle", lambda: _backend(f"cuda:{index}").device
    yield "kernel", lambda: trial.kernel(_backend(f"cuda:{index}"))
    yield "product", lambda: trial.product(_backend(f"cuda:{index}"))


def cuda_trouble(index: int = 0) -> str:
    """Why CUDA device `index` cannot be used and what mends that, in one line; empty when it can.

    It is tried: CuPy is imported, a context made, a kernel compiled and run, a product computed.
    """
    from gpunn.backend.driver import cuda_advice

    if advice := cuda_advice(index):
        return advice
    for _, attempt in trials(index):
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 - whatever it is, this device cannot be used
            what, mend = trial.trouble_in(error)
            return f"{what}: {mend}"
    return ""
