"""Handle SIGINT, SIGTERM and SIGHUP: the first one waits until a step is done and saved."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn, Self

from gpunn.backend.ranks import world


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP; the cleanup is that of Ctrl-C, only the exit code differs."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = int(number)


def raise_for(number: int, _frame: FrameType | None = None) -> NoReturn:
    """Raise the exception of a signal; for use as a handler."""
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def handle(numbers: tuple[int, ...], handler: Any) -> dict[int, Any]:
    """Install a handler, and return the previous ones; signals ignored under nohup or a shell's & stay ignored."""
    left = signal.SIG_IGN, None  # None: a handler from outside Python, which could not be restored
    return {each: signal.signal(each, handler) for each in numbers if signal.getsignal(each) not in left}


class Signals:
    """Catch SIGINT, SIGTERM and SIGHUP within its context; raise them at once, or in `held` at `deliver`.

    Only the main thread can install handlers. In any other thread, no signal is ever pending.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.is_urgent = False  # a second signal came: save nothing more
        self._is_held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = handle((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold back the first signal; deliver it at the end if it is still pending."""
        self._is_held = True
        try:
            yield
            self.deliver()
        finally:
            self._is_held = False

    def deliver(self) -> None:
        """Raise the pending signal, if any: KeyboardInterrupt for SIGINT, else Terminated."""
        if self.pending is not None:
            self._pass_on(self.pending)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._is_held and self.pending is None:
            self.pending = number
            if world().size > 1:  # the ranks agree on a step first, then one message is shown
                return
            # Bypass the stream's buffer: the handler may have interrupted a write to it.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), b"\ngpunn: stopping after this step; once more to stop at once\n")
            return
        if self.pending is not None:
            self.is_urgent = True
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self.is_urgent:
            signal.signal(number, signal.SIG_DFL)  # a third signal ends the process at once
        raise_for(number)


class ForwardingSignals(Signals):
    """Forward the held signal to the handlers that were installed before, for `fit` within your program.

    By default SIGINT raises KeyboardInterrupt, and SIGTERM ends the process.
    """

    def _pass_on(self, number: int) -> None:
        self.__exit__()
        self._before, self._is_held, self.pending = {}, False, None
        signal.raise_signal(number)
