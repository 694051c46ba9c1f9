"""Choose a device: try those of the machine, and say why one was chosen; each has one backend for each precision."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from gpunn.backend import limits
from gpunn.backend.base import Backend
from gpunn.backend.cpu import NumpyBackend
from gpunn.backend.cuda import CupyBackend
from gpunn.backend.cuda_errors import Gate, description, meaning, message
from gpunn.backend.cupy_import import import_cupy, open_device
from gpunn.backend.driver import cuda_advice, read_driver, reinstall_command
from gpunn.backend.ranks import world
from gpunn.errors import DeviceError, GpunnError, OptionError, in_one_line
from gpunn.kernels.record import Array
from gpunn.kernels.rollback import mark_not_finite

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
_making = threading.RLock()


def _backend(device: str, precision: str = "float32") -> Backend:
    """Return the one backend of a device and precision; two would have two streams, with no order between them."""
    with _making:  # threads that ask at once get the same one
        return _made(device, precision)


@cache  # by both arguments: a call that leaves one out would have another key
def _made(device: str, precision: str, /) -> Backend:
    if device == "cpu":
        return NumpyBackend()
    if precision != "float32" and isinstance(plain := _made(device, "float32"), CupyBackend):
        return plain.in_precision(precision)  # on the same stream, so that each sees the other's work done
    return CupyBackend(int(device.partition(":")[2]))


def backend_of(array: Array) -> Backend:
    """Return the backend whose memory an array lies in."""
    return _backend("cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}")


def _found_again(device: str, precision: str) -> Backend:
    """Return the backend for a pickled name, or the CPU's if that device cannot be used here."""
    return _backend("cpu") if device == "cpu" or cuda_trouble(int(device[5:])) else _backend(device, precision)


# A pickle of a backend is the name of its device.
Backend.__reduce__ = lambda self: (_found_again, (self.device, self.precision))  # type: ignore[attr-defined, method-assign]


def select(device: str = "auto", precision: str = "float32") -> Backend:
    """Return the backend for a device by name; its `reason` says why it was chosen.

    Args:
        device: "auto" (CUDA if it can be used, else the CPU), "cpu", "cuda" or "cuda:N". Without a number, each of
            several ranks on a machine takes its own CUDA device.
        precision: Precision of products of float32: "float32", or on a CUDA device "tf32", "bfloat16" or "float16",
            which round the factors and use the tensor cores; weights, sums, losses and statistics stay float32.

    Raises:
        OptionError: Unknown device or precision, or a precision that the device lacks.
        DeviceError: The CUDA device that was asked for cannot be used.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
    reason, name = "asked for", device if isinstance(device, str) else ""
    if name == "cpu":
        backend = _backend("cpu")
    elif name == "auto":
        backend, reason = _best(precision)
    elif name == "cuda" or (name.startswith("cuda:") and name[5:].isdecimal()):
        index = int(name[5:]) if name[5:] else _of_rank()
        if not (trouble := cuda_trouble(index)):
            try:
                backend = _backend(f"cuda:{index}", precision)
            except MemoryError as error:
                trouble = message("CUDA", 2, str(error))
        if trouble:
            raise DeviceError(f"device {device!r} cannot be used: {trouble}; or take --device cpu")
    else:
        raise OptionError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:N")
    if backend.precision != precision:
        raise OptionError(f"precision {precision!r} needs a CUDA device, and this is {backend.device}: take float32")
    backend.reason = reason
    backend.limit_memory(limits.memory_limit())
    return backend


def _best(precision: str) -> tuple[Backend, str]:
    """Return the backend of the first usable CUDA device, else of the CPU, and the reason."""
    first = _of_rank()
    troubles = {first: cuda_trouble(first)}
    if troubles[first] and world().size == 1:
        troubles |= {index: cuda_trouble(index) for index in range(1, len(read_driver().gpus))}
    for index, trouble in troubles.items():
        if not trouble:
            try:
                backend = _backend(f"cuda:{index}", precision)
            except (DeviceError, MemoryError) as error:
                troubles[index] = str(error)
            else:
                others = f", as cuda:{first} cannot be used: {troubles[first]}" if index != first else ""
                return backend, f"a CUDA device is there{others}"
    return _backend("cpu"), f"no CUDA: {troubles[first]}"


def _of_rank() -> int:
    """Return the index of this rank's CUDA device among those that it sees, which may be only one."""
    ranks = world()
    return ranks.local_rank % max(1, len(read_driver().gpus)) if ranks.size > 1 else 0


def cuda_trouble(index: int = 0) -> str:
    """Try a CUDA device; return why it cannot be used and the mend in one line, or ""."""
    if advice := cuda_advice(index):
        return advice
    for _, attempt in trials(index):
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 - after any error, this device cannot be used
            return ": ".join(trouble_in(error))
    return ""


def trials(index: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the checks of a device: a name, and a function that returns the result in words, or raises."""
    yield "CuPy import", lambda: f"CuPy {import_cupy().__version__}"
    yield f"cuda:{index}", lambda: open_device(index)
    yield "cuBLAS handle", lambda: _backend(f"cuda:{index}").device
    yield "kernel", lambda: _tried(_backend(f"cuda:{index}"), "kernel")
    yield "product", lambda: _tried(_backend(f"cuda:{index}"), "product")


def _tried(backend: Backend, what: str) -> str:
    if what == "kernel":  # every training uses it, so nothing is compiled for this check alone
        result, expected = backend.zeros((1,), np.int32), 1
        backend.run(mark_not_finite, backend.asarray(np.array([1, np.nan], np.float32)), result)
    else:
        a, b = (backend.asarray(np.array(rows, np.float32)) for rows in ([[1, 2], [3, 4]], [[5, 6], [7, 8]]))
        result, expected = backend.zeros((2, 2), np.float32), 134
        backend.gemm(1.0, a, b, 0.0, result)
    if (got := float(backend.to_host(result).sum())) != expected:
        mend = "run gpunn doctor; the GPU or its driver is faulty"
        raise DeviceError(f"a {what} gave {got:g} and not {expected}: {mend}")
    return f"right, {backend.cublas.by}" if what == "product" and isinstance(backend, CupyBackend) else "right"


def trouble_in(error: Exception) -> tuple[str, str]:
    """Return the trouble that a failed check shows, and its mend."""
    if isinstance(error, MemoryError):
        return description("CUDA", 2, str(error)), meaning("CUDA", 2).mend
    if not isinstance(error, GpunnError):  # from a damaged CuPy or driver
        said = in_one_line(" ".join(str(error).split()))
        return f"{type(error).__name__}: {said:.200}", f"install CuPy again ({reinstall_command()}), or the driver"
    whole, mend = str(error), getattr(error, "mend", "")
    if not mend or not whole.endswith(f": {mend}"):
        mend = whole.rpartition(": ")[2]
    return (whole.removesuffix(f": {mend}"), mend) if mend != whole else (whole, "run gpunn doctor")


def on_host(values: Any) -> Any:
    """Copy an array or tensor of any library on a CUDA device into a NumPy array; return all else unchanged."""
    if (array := as_cupy(values)) is None:
        return _detached(values)
    cupy = import_cupy()
    with Gate(is_lock=False):
        return cupy.asnumpy(array)


def as_cupy(values: Any) -> Array | None:
    """Return a CuPy array of the same memory for an array of any library on a CUDA device; None for all else."""
    values = _detached(values)
    is_cupys = type(values).__module__.partition(".")[0] == "cupy"
    has_interface = hasattr(values, "__cuda_array_interface__")
    if not has_interface and dlpack_device(values) not in (2, 13):  # CUDA memory, and CUDA managed memory
        return None
    if is_cupys and has_interface:
        return values
    cupy = import_cupy()
    with Gate(is_lock=False):
        if has_interface:
            pointer = values.__cuda_array_interface__["data"][0]
            device = cupy.cuda.runtime.pointerGetAttributes(pointer).device if pointer else 0
        else:
            device = values.__dlpack_device__()[1]
        # Else CuPy copies it to the current device, without waiting for the work that computes it.
        with cupy.cuda.Device(device):
            return cupy.asarray(values) if has_interface else cupy.from_dlpack(values)


def _detached(values: Any) -> Any:
    """Return a tensor detached from its graph: PyTorch shares no memory of a tensor that requires a gradient."""
    return values.detach() if hasattr(values, "detach") else values


def dlpack_device(values: Any) -> int:
    """Return DLPack's device type of an array, 0 if it has none."""
    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack_device__"):
        return 0
    try:
        return int(values.__dlpack_device__()[0])
    except (ValueError, TypeError, RuntimeError, BufferError, IndexError):  # a tensor without memory, say
        return 0
