"""The terminal of the program: standard streams that take whatever is written, and SIGINT, SIGTERM and SIGHUP.

A training must not be lost for a line that nobody can read, and a first signal waits until a step is done and saved.
"""

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn, Self, TextIO

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


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: all is put in order as after Ctrl-C, only the exit code differs."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = int(number)


def _raise(number: int, _frame: FrameType | None = None) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _handle(numbers: tuple[int, ...], handler: Any) -> dict[int, Any]:
    """Install a handler, and return those before; a signal that nohup or a shell's & lets be ignored stays so."""
    return {each: signal.signal(each, handler) for each in numbers if signal.getsignal(each) is not signal.SIG_IGN}


def install_signals() -> None:
    """Let SIGTERM, and SIGHUP when the terminal is closed, raise exceptions."""
    _handle((signal.SIGTERM, signal.SIGHUP), _raise)


class Signals:
    """Takes SIGINT, SIGTERM and SIGHUP while it is entered: at once, or, within `held`, when `deliver` is called.

    Handlers belong to the main thread. In any other nothing is installed, and nothing is ever pending.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.is_urgent = False  # a second signal came: nothing more is to be saved
        self._is_held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = _handle((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Only remember the first signal; deliver it at the end if it is still pending."""
        self._is_held = True
        try:
            yield
            self.deliver()
        finally:
            self._is_held = False

    def deliver(self) -> None:
        """Raise what is pending: KeyboardInterrupt for SIGINT, else Terminated."""
        if self.pending is not None:
            _raise(self.pending)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._is_held and self.pending is None:
            self.pending = number
            # Past the buffers of the stream: a handler may have cut into a write to them.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), b"\ngpunn: stopping after this step; once more to stop at once\n")
            return
        if self.pending is not None:
            self.is_urgent = True
            signal.signal(number, signal.SIG_DFL)  # a third need not wait for anything
        _raise(number)
