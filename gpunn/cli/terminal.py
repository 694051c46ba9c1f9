"""Prepare standard streams that never fail, and signals that end the program.

A training must not be lost for a line that cannot be shown.
"""

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
from functools import partial
from typing import Any, TextIO

from gpunn.backend.ranks import world
from gpunn.errors import GpunnError, in_one_line
from gpunn.saving.signals import handle, raise_for

REPLACED = "gpunn.replaced"  # name of the error handler of the standard streams in `codecs`

# Of the same width where possible, so that tables stay aligned.
_PLAIN = {
    "×": "x", "─": "-", "━": "-", "│": "|", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "≥": ">=", "≤": "<=",
    "±": "+-", "·": ".", "²": "^2", "³": "^3", "µ": "u", "μ": "mu", "η": "eta", "λ": "lambda", "β": "beta",
    "ε": "epsilon", "█": "#", "\N{NO-BREAK SPACE}": " ", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


# Not by click, which writes UTF-8 to an ASCII stream; flushed, to stay in order with lines of progress.
say = partial(print, flush=True)


def note(line: str) -> None:
    """Show a line on standard error, beside the output of a command."""
    print(line, file=sys.stderr, flush=True)


def fail(line: str, code: int) -> int:
    """Show why a command failed, once for all ranks, and return its exit code."""
    said = in_one_line(" ".join(line.split()))
    with contextlib.suppress(GpunnError):
        said = world().fail(said, code)
    if said:
        note(f"gpunn: {said}")
    return code


class _Stream(io.FileIO):
    """Write to a descriptor; report a full disk once, and ignore a missing reader."""

    _has_failed = False

    def write(self, data: Any, /) -> int:
        if not self._has_failed:
            try:
                return super().write(data)
            except OSError as error:
                self._has_failed = True
                if error.errno not in (errno.EPIPE, errno.EIO):  # a closed pipe, a terminal that hung up
                    raise
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Make standard output and error accept any text; leave replaced streams alone."""
    codecs.register_error(REPLACED, _replaced)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next opened file, perhaps a checkpoint, would get the output of libraries.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _relied_on(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _relied_on(sys.stderr, 2)


def hush() -> None:
    """Discard standard output: another process of the same job writes it."""
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
    """Replace characters that a stream cannot encode by plain ones, or by Python's escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c) or ascii(c)[1:-1] for c in error.object[error.start : error.end]), error.end


def install_signals() -> None:
    """Let SIGTERM, and SIGHUP on closing the terminal, raise exceptions."""
    handle((signal.SIGTERM, signal.SIGHUP), raise_for)
