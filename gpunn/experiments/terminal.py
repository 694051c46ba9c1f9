"""The terminal of the program: standard streams that take whatever is written, and signals that end it.

A training must not be lost for a line that nobody can read.
"""

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
from typing import Any, TextIO

from gpunn import outside
from gpunn.errors import GpunnError, OptionError, in_one_line
from gpunn.saving.signals import Terminated, handle, raise_for

REPLACED = "gpunn.replaced"  # name of the error handler of the standard streams in `codecs`

# As wide, where that can be, so that tables stay tables.
_PLAIN = {
    "×": "x", "─": "-", "━": "-", "│": "|", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "≥": ">=", "≤": "<=",
    "±": "+-", "·": ".", "²": "^2", "³": "^3", "µ": "u", "μ": "mu", "η": "eta", "λ": "lambda", "β": "beta",
    "ε": "epsilon", "█": "#", "\N{NO-BREAK SPACE}": " ", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


class _Stream(io.FileIO):
    """A descriptor whose writes fail once at most, so that a full disk is said, and never for want of a reader."""

    _has_failed = False

    def write(self, data: Any, /) -> int:
        if not self._has_failed:
            try:
                return super().write(data)
            except OSError as error:
                self._has_failed = True
                if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe that nobody reads, a terminal that hung up
                    raise
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Make standard output and error take whatever is written; leave streams alone that were put in their place."""
    codecs.register_error(REPLACED, _replaced)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened, a checkpoint perhaps, would get what libraries print.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _relied_on(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _relied_on(sys.stderr, 2)


def hush() -> None:
    """Write no answers: another process of the same job does."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as the process


def _relied_on(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is not None:
        if type(stream) is not io.TextIOWrapper:
            return stream
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(descriptor, "wb", closefd=False)),
        encoding="utf-8" if stream is None else stream.encoding,
        errors=REPLACED,
        line_buffering=descriptor == 2 or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream has not by plain ones, or as in a literal of Python."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c) or ascii(c)[1:-1] for c in error.object[error.start : error.end]), error.end


def install_signals() -> None:
    """Let SIGTERM, and SIGHUP when the terminal is closed, raise exceptions."""
    handle((signal.SIGTERM, signal.SIGHUP), raise_for)


def code_of(error: BaseException) -> int:
    """Return the exit code of the program after an error: 1, 2 for a wrong option, or 128 + a signal."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 2 if isinstance(error, OptionError) else 1


def line_of(error: BaseException) -> str:
    """Return what the program says of an error, and what mends it, in one line."""
    return in_one_line(" ".join(_said_of(error).split()))


def _said_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return f"ended with {code_of(error)}"
    if isinstance(error, GpunnError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory{f' ({error})' if str(error) else ''}: take a smaller batch, network or data set"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}: check the path, its permissions and the space on its disk"
    if where := outside.place_of(error):
        return f"{where}: {type(error).__name__}: {error}; GPUNN_DEBUG=1 shows the way there"
    return f"a defect of gpunn: {type(error).__name__}: {error}; please report it with what GPUNN_DEBUG=1 shows"
