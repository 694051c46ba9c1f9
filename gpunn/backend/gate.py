"""The one gate to a CUDA device: one thread at a time, and what CUDA raises becomes an error that says what to do."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gpunn.backend.cuda_errors import line, meaning
from gpunn.errors import DeviceError, GpunnError

_FORKED = (
    "this process was forked after CUDA had begun, and CUDA works in the parent only: start processes with "
    "multiprocessing.get_context('spawn'), or fork before anything is computed on a GPU"
)

# Whose errors carry a code. CuPy and nvmath are named, not imported.
_LIBRARIES = {
    "CUDARuntimeError": "CUDA",
    "CUDADriverError": "CUDA",
    "CUBLASError": "cuBLAS",
    "cuBLASError": "cuBLAS",
    "NVRTCError": "NVRTC",
}
lost: list[DeviceError] = []
"""Errors after which CUDA refuses all else in this process, the destructors of CuPy's objects too."""

_NO_MEMORY = {("CUDA", 2), ("cuBLAS", 3)}


class Gate:
    """Let one thread at a time work with a device; raise what CUDA does as `DeviceError`, or as one of memory.

    Args:
        out_of_memory: makes the error of the device's own kind from a text.
        is_lock: whether others wait outside; a wait for the device must not make them.
    """

    def __init__(self, out_of_memory: Callable[[str], MemoryError], is_lock: bool = True) -> None:
        self._out_of_memory, self._lock = out_of_memory, threading.RLock() if is_lock else None
        self._process = os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            raise DeviceError(_FORKED)
        if self._lock is not None:
            self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.release()
        if isinstance(error, Exception) and (translated := self.translated(error)) is not None:
            raise translated from error

    def translated(self, error: Exception) -> Exception | None:
        """What to raise in place of an error, or None for the error itself."""
        return translated(error, self._out_of_memory)


def translated(error: Exception, out_of_memory: Callable[[str], MemoryError] = MemoryError) -> Exception | None:
    """What to raise in place of an error of a library of CUDA; None where it is none of these.

    Args:
        error: any.
        out_of_memory: see `Gate`.
    """
    if isinstance(error, GpunnError | MemoryError):
        return None
    name, code = type(error).__name__, getattr(error, "status", None)
    said = " ".join(str(error).split())
    if name in _LIBRARIES and code is not None:
        library = _LIBRARIES[name]
        if (library, int(code)) in _NO_MEMORY:
            return out_of_memory(said)
        return device_error(library, int(code), said)
    if name == "CompileException":
        # CuPy raises it while it handles NVRTC's own error, which has the code.
        code = 7 if "builtins" in said else int(getattr(error.__context__, "status", 6))
        return device_error("NVRTC", code, said)
    if type(error).__module__.partition(".")[0] in ("cuda", "nvmath", "cupy_backends") or "failed to load" in said:
        mend = "run gpunn doctor, which names it"
        return DeviceError(f"a library of CUDA cannot be loaded ({said:.200}): {mend}", mend)
    return None


def _is_cupys(part: Any) -> bool:
    """Whether something of a destructor is CuPy's: the function, its name, or the kind of its error."""
    return (part if isinstance(part, str) else getattr(part, "__module__", None) or "").startswith("cupy")


def silence_destructors() -> None:
    """Let what destructors of CuPy raise pass: what they free goes with the process, and other calls fail as well.

    For the program alone: what reaches `sys.excepthook` there is no exception that ends it, but one that Cython shows
    before it tells of a destructor.
    """
    shows, tells = sys.excepthook, sys.unraisablehook
    if getattr(shows, "is_gpunns", False):
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _is_cupys(kind):
            shows(kind, error, trace)

    def tell(given: Any) -> None:
        if not _is_cupys(given.object) and not _is_cupys(given.exc_type):
            tells(given)

    show.is_gpunns = True  # type: ignore[attr-defined]
    sys.excepthook, sys.unraisablehook = show, tell


def device_error(library: str, code: int, said: str = "") -> DeviceError:
    """The error for a code of "CUDA", "cuBLAS" or "NVRTC"."""
    error = DeviceError(line(library, code, said[:160]), meaning(library, code).mend)
    if meaning(library, code).is_sticky:
        error.is_sticky = True
        lost.append(error)
    return error
