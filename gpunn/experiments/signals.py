"""SIGINT, SIGTERM and SIGHUP: the first waits until a step is done and saved, the second does not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what was begun is put in order as after Ctrl-C, only the exit code differs.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = int(number)


def terminate(number: int, _frame: FrameType | None) -> None:
    """A handler that makes an exception of a signal, as Python makes KeyboardInterrupt of SIGINT."""
    raise Terminated(number)


def install() -> None:
    """Let SIGTERM, and SIGHUP when the terminal is closed, be exceptions; what is ignored, as by nohup, stays so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, terminate)


class Signals:
    """Takes SIGINT, SIGTERM and SIGHUP while it is entered: at once, or, where they are held, when `deliver` is called.

    Handlers belong to the main thread. In any other nothing is installed, and nothing is ever pending.

    Attributes:
        pending: the signal that was held and not delivered yet, or None.
        is_urgent: whether a second signal came: nothing more is to be saved.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.is_urgent = False
        self._is_held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # What was told to ignore a signal, by nohup or a shell's &, goes on ignoring it.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, the first signal is only remembered; one that nobody asked for is delivered at the end."""
        self._is_held = True
        try:
            yield
            self.deliver()
        finally:
            self._is_held = False

    def deliver(self) -> None:
        """Raise what is pending: KeyboardInterrupt for SIGINT, else Terminated."""
        if self.pending is not None:
            raise _exception(self.pending)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._is_held and self.pending is None:
            self.pending = number
            _tell("\ngpunn: stopping after this step; once more to stop at once\n")
            return
        if self.pending is not None:
            self.is_urgent = True
            signal.signal(number, signal.SIG_DFL)  # a third need not wait for anything
        raise _exception(number)


def _exception(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def _tell(line: str) -> None:
    # Past the buffers of the stream: a handler may have cut into a write to them.
    with suppress(OSError, ValueError, AttributeError):
        os.write(sys.stderr.fileno(), line.encode())
