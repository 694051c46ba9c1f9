"""Take SIGINT, SIGTERM and SIGHUP so that a first one waits until a step is done and saved."""

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
    """SIGTERM or SIGHUP: all is put in order as after Ctrl-C, only the exit code differs."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = int(number)


def raise_for(number: int, _frame: FrameType | None = None) -> NoReturn:
    """Raise the exception of a signal; a handler."""
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def handle(numbers: tuple[int, ...], handler: Any) -> dict[int, Any]:
    """Install a handler, and return those before; a signal that nohup or a shell's & lets be ignored stays so."""
    left = signal.SIG_IGN, None  # None: a handler that Python has not installed, and could not put back
    return {each: signal.signal(each, handler) for each in numbers if signal.getsignal(each) not in left}


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
            self._before = handle((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._take)
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
            self._pass_on(self.pending)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._is_held and self.pending is None:
            self.pending = number
            if world().size > 1:  # which agree on a step first, and then say so once
                return
            # Past the buffers of the stream: a handler may have cut into a write to them.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), b"\ngpunn: stopping after this step; once more to stop at once\n")
            return
        if self.pending is not None:
            self.is_urgent = True
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self.is_urgent:
            signal.signal(number, signal.SIG_DFL)  # a third need not wait for anything
        raise_for(number)


class ForwardingSignals(Signals):
    """Signals of a training in a process of somebody else: what waited is then done by the handlers that were there.

    SIGINT is usually a KeyboardInterrupt, and SIGTERM the end of the process.
    """

    def _pass_on(self, number: int) -> None:
        self.__exit__()
        self._before, self._is_held, self.pending = {}, False, None
        signal.raise_signal(number)
