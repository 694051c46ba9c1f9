"""The compiler's side of a CUDA device: CUDA C++ of a kernel, the cache that CuPy keeps it in, and a line about it."""

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
thread = threading.local()  # where `is_looking`, nothing is compiled: `MissingError` is raised instead
CUDA_NAMES = {
    "float16": "__half", "float32": "float", "float64": "double", "uint8": "unsigned char",
    "int32": "int", "int64": "long long", "uint32": "unsigned",
}  # fmt: skip


def variant(kernel: Raw, arguments: Sequence[Any]) -> tuple[dict[str, np.dtype[Any]], Mapping[str, int]]:
    """Return the type names and the constants that a raw kernel is compiled with for a call."""
    return {name: arguments[at].dtype for name, at in kernel.types.items()}, kernel.constants(*arguments)


def launched(kernel: Raw, arguments: Sequence[Any]) -> tuple[tuple[int, ...], tuple[int], tuple[Any, ...]]:
    """Return grid, block and values of the launch of a raw kernel."""
    launch = kernel.launch(*arguments)
    blocks = launch.blocks if isinstance(launch.blocks, tuple) else (launch.blocks,)
    dtype = arguments[kernel.types["T"]].dtype if "T" in kernel.types else None
    return blocks, (launch.threads,), tuple(typed(value, dtype) for value in launch.arguments)


def cuda_source(kernel: Raw, types: Mapping[str, np.dtype[Any]], constants: Mapping[str, int] | None = None) -> str:
    """Return the CUDA C++ of a raw kernel with its type names and constants set."""
    names = "".join(f"typedef {CUDA_NAMES[str(dtype)]} {name};\n" for name, dtype in types.items())
    numbers = "".join(f"constexpr int {name} = {value};\n" for name, value in (constants or {}).items())
    return names + numbers + kernel.preamble + cuda_body(kernel)


def described(kernel: Elementwise) -> dict[str, str]:
    """Return an element-wise kernel as the arguments of `cupy.ElementwiseKernel`."""
    parameters = {"in_params": kernel.inputs, "out_params": kernel.outputs, "operation": cuda_body(kernel)}
    return {**parameters, "name": kernel.name, "preamble": kernel.preamble, "loop_prep": kernel.prepare}


def cuda_body(kernel: Elementwise | Raw) -> str:
    """Return the CUDA C++ of a kernel, or raise `DeviceError` where it has none."""
    body = kernel.operation if isinstance(kernel, Elementwise) else kernel.source
    if not body:
        raise DeviceError(f"the kernel {kernel.name} is for the CPU only, it has no CUDA source: take device='cpu'")
    return body


def typed(value: Any, dtype: np.dtype[Any] | None) -> Any:
    """Return a Python number in the type that a CUDA function declares; one of NumPy's as it is."""
    kind = type(value)  # not by isinstance: np.float64 is a float too, and a kernel that says double means it
    if kind is int:
        return np.int32(value)
    if kind is float:
        return (dtype or np.dtype(np.float32)).type(value)
    return np.bool_(value) if kind is bool else value


def kernel_cache() -> Path:
    """Return where CuPy keeps compiled kernels: CUPY_CACHE_DIR, or its folder in the user's home."""
    try:
        return Path(os.environ.get(VARIABLE) or Path("~/.cupy/kernel_cache").expanduser())
    except RuntimeError:  # of a user without a home: nowhere
        return Path(os.devnull, "kernel_cache")


class MissingError(Exception):
    """A kernel that is not in the cache, by its name there."""


def prepare_cache() -> None:
    """Let CUPY_CACHE_DIR name a folder that can be used: CuPy cannot be imported where it does not."""
    folder = kernel_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        folder = _temporary(folder, error)
    os.environ[VARIABLE] = str(folder)


def tolerate(compiler: Any) -> None:
    """Let CuPy's compiler go on where a kernel cannot be read or kept: in a full folder, or another user's."""
    keep: Any = getattr(compiler, "_set_kernel_cache_backend", None)
    used: Any = getattr(compiler, "_kernel_cache_backend", None)
    if keep is None or not hasattr(used, "_cache_dir") or hasattr(used, "is_tolerant"):
        return  # not the cache that is on a disk, or that of another CuPy
    kind: Any = type(used)

    class Tolerant(kind):  # type: ignore[misc]  # CuPy's classes are not to be imported here
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
    """Make a new folder in place of one that cannot be used; it goes with the process."""
    instead = tempfile.TemporaryDirectory(prefix="gpunn-kernels-", ignore_cleanup_errors=True)
    atexit.register(instead.cleanup)
    _instead.append(Path(instead.name))
    said = (
        f"the kernel cache {folder} cannot be used ({error.strerror or error}), so kernels are compiled anew each time"
    )
    log.warning("%s: export %s=FOLDER with one that can be written", said, VARIABLE)
    return _instead[-1]


class CompileProgress(AbstractContextManager["CompileProgress"]):
    """The line that counts the kernels being compiled: on a terminal kept up to date, elsewhere written once."""

    def __init__(self, shown: bool = True, stream: TextIO | None = None) -> None:
        self._stream = (stream or sys.stderr) if shown else None  # None too: a program without a console has no streams
        self._line = ""

    def __call__(self, number: int, count: int) -> None:
        """Say that kernel `number` of `count`, from 1, is compiled now."""
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
    """Return the width of a terminal, which may change; 80 for a stream without one."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
