"""What must hold of every file, whatever is in it: loaded or refused in one line, soon, and in little memory.

A limit that only a look afterwards would enforce misses what was taken and given back, so the kernel enforces both:
`RLIMIT_DATA` lets no more memory be mapped, and a timer of the process's own time ends what goes on for too long.
"""

import ctypes
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from gpunn.errors import GpunnError
from gpunn.kernels import numba_loops

SECONDS = 2.0
"""Of the processor, not of the clock: a machine that is busy with other things makes nothing slower."""

MEMORY = 64 << 20
"""Bytes that may be taken beside twice those of the file."""

LONGEST_MESSAGE = 600

# In memory, where there is such a folder: a file is written for each execution.
_FOLDER = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


class Finding(BaseException):
    """A file that the package does not treat as it should. No `except Exception` on the way may hide it."""


@dataclass(frozen=True)
class Target:
    """Something in the package that reads a file.

    Attributes:
        name: of the target.
        read: is given the path of a file; what it returns is left alone.
        seeds: files as they should be, small ones, by name; the first bytes are those that `wraps` asks for.
        hostile: files that were made to do harm, by name; each makes its file only when it is called.
        wraps: how bytes become a file. Where there are several, the first byte says which, so that fuzzers need not
            guess a checksum to reach what is behind it.
        words: that mean something to the format.
    """

    name: str
    read: Callable[[Path], object]
    seeds: Callable[[], Mapping[str, bytes]]
    hostile: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    wraps: tuple[Callable[[bytes], bytes], ...] = (bytes,)
    words: tuple[bytes, ...] = ()

    def file(self, data: bytes) -> bytes:
        """The content of the file that some bytes stand for."""
        if len(self.wraps) == 1:
            return self.wraps[0](data)
        return self.wraps[data[0] % len(self.wraps)](data[1:]) if data else b""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the files that are read."""
    with tempfile.TemporaryDirectory(prefix="gpunn-fuzz-", dir=_FOLDER) as folder:
        yield Path(folder)


def warm_up(target: Target, folder: Path) -> None:
    """Read every seed without bounds: what is imported at first use is not held against a file."""
    numba_loops.load()  # which a network that is bound would be refused for
    for data in target.seeds().values():
        path = folder / "file"
        path.write_bytes(target.file(data))
        with suppress(GpunnError):
            target.read(path)


def check(target: Target, content: bytes, folder: Path) -> GpunnError | None:
    """Let a target read a file: the error by which it was refused, None where it was loaded.

    Anything else is a Finding, and so is what takes too long or too much memory, or is not said in one line.
    """
    path = folder / "file"
    path.write_bytes(content)
    refused: GpunnError | None = None
    try:
        with _bounded(2 * len(content) + MEMORY):
            target.read(path)
    except GpunnError as error:
        refused = error
    except Exception as error:
        raise Finding(f"{type(error).__name__} instead of an error of gpunn's: {error}") from error
    if refused is not None:
        _check_words(str(refused))
        cause: BaseException | None = refused
        while cause := cause.__context__:
            if isinstance(cause, MemoryError) and not isinstance(cause, GpunnError):
                raise Finding(f"memory was taken before it was asked for: {refused}")
    return refused


def _check_words(text: str) -> None:
    if not text or not text.isprintable() or len(text) > LONGEST_MESSAGE:
        raise Finding(f"an error that is not one line of at most {LONGEST_MESSAGE} characters: {text!r}")


# The C library must not serve large blocks from what it has kept of others that were given back.
_C = ctypes.CDLL(None)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
for _parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
    _C.mallopt(_parameter, 1 << 17)

_MEMORY_OF_PROCESS = os.open("/proc/self/statm", os.O_RDONLY)
_PAGE = resource.getpagesize()


def _mapped() -> int:
    """Bytes that the process has mapped to write into, as `RLIMIT_DATA` counts them."""
    return int(os.pread(_MEMORY_OF_PROCESS, 200, 0).split()[5]) * _PAGE


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise Finding(f"not done after {SECONDS} s")


@contextmanager
def _bounded(nbytes: int) -> Iterator[None]:
    """No more than some bytes and `SECONDS` within."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    before = signal.signal(signal.SIGPROF, _too_slow)
    resource.setrlimit(resource.RLIMIT_DATA, (_mapped() + nbytes, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _let_go(error: BaseException | None) -> None:
    """Of what the frames hold that an error went through: an image, say, which the next reader's bounds would count."""
    while error is not None:
        error.__traceback__, error = None, error.__context__


def each(path: Path, *readers: Callable[[Path], object]) -> None:
    """Let every reader have a file, and its own time; raises what the last said of it where all refused it."""
    refused = []
    for read in readers:
        signal.setitimer(signal.ITIMER_PROF, SECONDS if signal.getitimer(signal.ITIMER_PROF)[0] else 0)
        try:
            read(path)
        except GpunnError as error:
            _check_words(str(error))
            refused.append(error)
            _let_go(error)
    if len(refused) == len(readers):
        raise refused[-1]
