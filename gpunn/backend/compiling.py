"""Write the CUDA C++ of kernels, keep CuPy's kernel cache usable, and show the progress of compilation."""

import atexit
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpunn.errors import DeviceError
from gpunn.kernels.record import Elementwise, Raw

log = logging.getLogger(__name__)
VARIABLE = "CUPY_CACHE_DIR"
_instead: list[Path] = []
thread = threading.local()  # while `is_looking`, `MissingError` is raised instead of compiling
CUDA_NAMES = {
    "float16": "__half", "float32": "float", "float64": "double", "uint8": "unsigned char",
    "int32": "int", "int64": "long long", "uint32": "unsigned",
}  # fmt: skip


def variant(kernel: Raw, arguments: Sequence[Any]) -> tuple[dict[str, np.dtype[Any]], Mapping[str, int]]:
    """Return the type names and constants with which a raw kernel is compiled for a call."""
    return {name: arguments[at].dtype for name, at in kernel.types.items()}, kernel.constants(*arguments)


def launch_arguments(kernel: Raw, arguments: Sequence[Any]) -> tuple[tuple[int, ...], tuple[int], tuple[Any, ...]]:
    """Return the grid, block and arguments for the launch of a raw kernel."""
    launch = kernel.launch(*arguments)
    blocks = launch.blocks if isinstance(launch.blocks, tuple) else (launch.blocks,)
    dtype = arguments[kernel.types["T"]].dtype if "T" in kernel.types else None
    return blocks, (launch.threads,), tuple(typed(value, dtype) for value in launch.arguments)


def cuda_source(kernel: Raw, types: Mapping[str, np.dtype[Any]], constants: Mapping[str, int] | None = None) -> str:
    """Return the CUDA C++ of a raw kernel with its type names and constants defined."""
    names = "".join(f"typedef {CUDA_NAMES[str(dtype)]} {name};\n" for name, dtype in types.items())
    numbers = "".join(f"constexpr int {name} = {value};\n" for name, value in (constants or {}).items())
    return names + numbers + kernel.preamble + cuda_body(kernel)


def elementwise_arguments(kernel: Elementwise) -> dict[str, str]:
    """Return the arguments of `cupy.ElementwiseKernel` for an element-wise kernel."""
    parameters = {"in_params": kernel.inputs, "out_params": kernel.outputs, "operation": cuda_body(kernel)}
    return {**parameters, "name": kernel.name, "preamble": kernel.preamble, "loop_prep": kernel.prepare}


def cuda_body(kernel: Elementwise | Raw) -> str:
    """Return the CUDA C++ of a kernel, or raise `DeviceError` if it has none."""
    body = kernel.operation if isinstance(kernel, Elementwise) else kernel.source
    if not body:
        raise DeviceError(f"the kernel {kernel.name} is for the CPU only, it has no CUDA source: take device='cpu'")
    return body


def typed(value: Any, dtype: np.dtype[Any] | None) -> Any:
    """Return a Python number in the type that a CUDA function declares; leave NumPy's numbers unchanged."""
    kind = type(value)  # not by isinstance: np.float64 is a float too, and a kernel that says double means it
    if kind is int:
        return np.int32(value)
    if kind is float:
        return (dtype or np.dtype(np.float32)).type(value)
    return np.bool_(value) if kind is bool else value


def kernel_cache() -> Path:
    """Return the folder of CuPy's compiled kernels: CUPY_CACHE_DIR, or a folder in the user's home."""
    try:
        return Path(os.environ.get(VARIABLE) or Path("~/.cupy/kernel_cache").expanduser())
    except RuntimeError:  # the user has no home: no folder
        return Path(os.devnull, "kernel_cache")


class MissingError(Exception):
    """Name of a kernel that the cache lacks."""


def prepare_cache() -> None:
    """Set CUPY_CACHE_DIR to a usable folder: with an unusable one, CuPy cannot be imported."""
    folder = kernel_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        folder = _temporary(folder, error)
    os.environ[VARIABLE] = str(folder)


def tolerate(compiler: Any) -> None:
    """Let CuPy's compiler go on when a kernel cannot be read or written: on a full disk, in another user's folder."""
    keep: Any = getattr(compiler, "_set_kernel_cache_backend", None)
    used: Any = getattr(compiler, "_kernel_cache_backend", None)
    if keep is None or not hasattr(used, "_cache_dir") or hasattr(used, "is_tolerant"):
        return  # no cache on disk, or an unknown version of CuPy
    kind: Any = type(used)

    class Tolerant(kind):  # type: ignore[misc]  # CuPy must not be imported here
        _cache_dir: str
        is_tolerant = True
        has_moved = False

        def load(self, name: str) -> Any:
            found = None
            try:
                found = super().load(name)
            except OSError as error:
                self.move(error)
            if found is None and getattr(thread, "is_looking", False):
                raise MissingError(name)
            return found

        def save(self, name: str, cubin: bytes, source: str) -> None:
            try:
                super().save(name, cubin, source)
            except OSError as error:
                self.move(error)
                with suppress(OSError):  # then the kernel is compiled again next time
                    super().save(name, cubin, source)

        def move(self, error: OSError) -> None:
            if not self.has_moved:
                self.has_moved = True
                with suppress(OSError):
                    self._cache_dir = str(_temporary(Path(self._cache_dir), error))

    keep(Tolerant(used._cache_dir))


def _temporary(folder: Path, error: OSError) -> Path:
    """Make a folder to replace an unusable one, until the process ends."""
    instead = tempfile.TemporaryDirectory(prefix="gpunn-kernels-", ignore_cleanup_errors=True)
    atexit.register(instead.cleanup)
    _instead.append(Path(instead.name))
    why = error.strerror or error
    said = f"the kernel cache {folder} cannot be used ({why}), so kernels are compiled anew each time"
    log.warning("%s: export %s=FOLDER with one that can be written", said, VARIABLE)
    return _instead[-1]


class CompileProgress(AbstractContextManager["CompileProgress"]):
    """Show how many kernels are being compiled: a live line on a terminal, written once elsewhere."""

    def __init__(self, shown: bool = True, stream: TextIO | None = None) -> None:
        self._stream = (stream or sys.stderr) if shown else None  # also None in a program without a console
        self._line = ""

    def __call__(self, number: int, count: int) -> None:
        """Show that kernel `number` of `count`, from 1, is being compiled."""
        once = "" if _instead else "only once, "
        if self._stream is not None and self._stream.isatty():
            self._write(f"compiling kernels ({once}{number} of {count})")
        elif self._stream is not None and number == 1:
            self._stream.write(f"compiling kernels ({once}{count} of them)\n")
            self._stream.flush()

    def __exit__(self, *_: object) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        if self._stream is not None and line != self._line:
            line = line[: columns_of(self._stream) - 1]
            self._stream.write(f"\r{line:{len(self._line)}}" if line else f"\r{'':{len(self._line)}}\r")
            self._stream.flush()
            self._line = line


def columns_of(stream: TextIO) -> int:
    """Return the current width of a terminal, or 80 for another stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
