"""The folder that CuPy keeps compiled kernels in; where it cannot be used, a temporary one."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VARIABLE = "CUPY_CACHE_DIR"
_instead: list[Path] = []
_thread = threading.local()


def kernel_cache() -> Path:
    """Where CuPy keeps compiled kernels: CUPY_CACHE_DIR, or its folder in the user's home."""
    return Path(os.environ.get(VARIABLE) or Path("~/.cupy/kernel_cache").expanduser())


class MissingError(Exception):
    """A kernel that is not in the cache, by its name there."""


@contextmanager
def looking() -> Iterator[None]:
    """Within, this thread compiles nothing: `MissingError` is raised for a kernel that is not in the cache."""
    _thread.is_looking = True
    try:
        yield
    finally:
        _thread.is_looking = False


def is_temporary() -> bool:
    """Whether kernels go with this process."""
    return bool(_instead)


def prepare() -> None:
    """Let CUPY_CACHE_DIR name a folder that can be used: CuPy cannot be imported where it does not."""
    folder = kernel_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except (OSError, RuntimeError) as error:  # RuntimeError: "~" of a user without a home
        folder = _temporary(folder, error)
    os.environ[VARIABLE] = str(folder)


def tolerate(compiler: Any) -> None:
    """Let CuPy go on where a kernel cannot be read or kept: with a folder that is full, or has files of another user.

    Args:
        compiler: CuPy's module of this name.
    """
    keep = getattr(compiler, "_set_kernel_cache_backend", None)
    used = getattr(compiler, "_kernel_cache_backend", None)
    if keep is None or used is None or not hasattr(used, "_cache_dir") or hasattr(used, "is_tolerant"):
        return  # not the cache that is on a disk, or that of another CuPy
    kind: Any = type(used)

    class Tolerant(kind):  # type: ignore[misc]  # CuPy's classes are not to be imported here
        """The cache of CuPy, which moves to a temporary folder where its own fails."""

        _cache_dir: str
        is_tolerant = True
        has_moved = False

        def load(self, name: str) -> Any:
            found = None
            try:
                found = super().load(name)
            except OSError as error:
                self.move(error)
            if found is None and getattr(_thread, "is_looking", False):
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


def _temporary(folder: Path, error: Exception) -> Path:
    """A new folder in place of one that cannot be used; it goes with the process."""
    instead = Path(tempfile.mkdtemp(prefix="gpunn-kernels-"))
    _instead.append(instead)
    atexit.register(shutil.rmtree, instead, ignore_errors=True)
    reason = getattr(error, "strerror", None) or error
    log.warning(
        "the kernel cache %s cannot be used (%s), so kernels are compiled anew each time: export %s=FOLDER with one "
        "that can be written",
        folder,
        reason,
        VARIABLE,
    )
    return instead
