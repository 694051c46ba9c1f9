"""End processes that train together, all of them and each once, when one fails, leaves early or hangs.

The first rank reports an error that all have. A rank with an error of its own reports it, and ends the others, which
may wait for it.
"""

import atexit
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np

from gpunn.errors import in_one_line

_PATIENCE, _SHORT = 5.0, 1.0  # seconds after which an error, or a signal, is one rank's alone
_APART = 0.3  # seconds from rank to rank between giving up, so that only one reports it
_BYTES = 2048  # of a message from a rank to the others


class Shutdown:
    """End the ranks of a training together.

    Args:
        comm: Communicator of all ranks.
        seconds: Time that a rank waits for the others in one call.
    """

    def __init__(self, comm: Any, seconds: float) -> None:
        self._seconds, self._comm = seconds, comm.Dup()
        # Well before the ranks that wait for this one give up.
        self._patience = min(_PATIENCE, seconds / 2)
        self._name = f"rank {comm.Get_rank()} of {comm.Get_size()} on {socket.gethostname()}"
        self._rank, self._process = comm.Get_rank(), os.getpid()
        self._waits: tuple[float, str] | None = None  # start of a wait of the main thread for others, and its name
        self._known: str | None = None  # the error that all ranks know, or this rank's own
        self._message, self._is_over = "", False
        sys.excepthook, self._hook = self._raised, sys.excepthook
        threading.excepthook, self._hook_of_threads = self._raised_in_thread, threading.excepthook
        atexit.register(self.leave)
        threading.Thread(target=self._watch, name="gpunn ranks", daemon=True).start()

    @contextmanager
    def waits(self, what: str) -> Iterator[None]:
        """End all ranks if this rank waits too long for the others in the block, which `what` names."""
        self._waits = time.monotonic(), what
        try:
            yield
        finally:
            self._waits = None

    def fail(self, why: str, code: int = 1, *, is_asked: bool = False, show: Callable[[], object] | None = None) -> str:
        """Tell the other ranks of an error; return the message that this rank reports, "" if another reports it.

        If the others have no error, this rank writes the message, and all end.

        Args:
            why: The error in one line.
            code: Exit code of the job.
            is_asked: Whether a signal has asked for the end.
            show: Function that shows more of the error, before the message.
        """
        if why == self._known or self._is_fork():
            return self._message
        # Once all know of an error, wait without limit: the first rank may have files to write.
        soon = min(_SHORT, self._patience) if is_asked else self._patience
        seconds, self._known = soon if self._known is None else math.inf, why
        every = self._exchange(f"{why}\n", seconds)
        if every is None:
            if show:
                show()
            self.abort(why, code)
        others = [told.partition("\n")[0] for told in every]
        is_mine = bool(why) and why not in others[: self._rank]
        differ = any(other not in ("", why) for other in others)
        self._message = "" if not is_mine else f"{self._name}: {why}" if differ else why
        return self._message

    def leave(self, code: int = 0, why: str = "", *, is_asked: bool = False) -> str:
        """Wait until all ranks leave; return the message that this rank reports, see `fail`."""
        if self._is_over or self._is_fork():
            return self._message
        if (code and self._known is None) or why not in ("", self._known):
            self.fail(why or f"ended with {code}", code, is_asked=is_asked)
            self._message = self._message if why else ""
        while not all(
            text.endswith("\nleaves") for text in self._exchange(f"{self._known or ''}\nleaves", math.inf) or ()
        ):
            pass
        self._is_over = True
        return self._message

    def abort(self, why: str, code: int = 1) -> NoReturn:
        """Write the reason, and end the processes of all ranks at once."""
        with suppress(OSError, ValueError, AttributeError):
            line = in_one_line(" ".join(why.split()))
            os.write(2, f"gpunn: {self._name}: {line}; all ranks end\n".encode(errors="replace"))
        self._comm.Abort(code)
        os._exit(code)

    def _exchange(self, told: str, seconds: float) -> list[str] | None:
        """Exchange a text with all ranks; return None if some do not take part within so many seconds."""
        own = np.frombuffer(told.encode(errors="replace")[-_BYTES:].ljust(_BYTES, b"\0"), np.uint8)
        every = np.empty((self._comm.Get_size(), _BYTES), np.uint8)
        request, until, pause = self._comm.Iallgather(own, every), time.monotonic() + seconds, 0.001
        while not request.Test():
            if time.monotonic() > until:
                return None
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return [bytes(each).rstrip(b"\0").decode(errors="replace") for each in every]

    def _is_fork(self) -> bool:
        """Return whether this process is a fork of the rank, unknown to the others."""
        return os.getpid() != self._process

    def _raised(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        def show() -> object:
            return self._hook(kind, error, trace)

        is_asked = not issubclass(kind, Exception)
        if self._is_fork() or self.fail(f"{kind.__name__}: {error}", is_asked=is_asked, show=show):
            show()

    def _raised_in_thread(self, raised: threading.ExceptHookArgs) -> None:
        self._hook_of_threads(raised)
        if raised.exc_type is not SystemExit and not self._is_fork():
            self.abort(f"{raised.exc_type.__name__}: {raised.exc_value}")

    def _watch(self) -> None:
        # Ranks give up one after another, so that only one reports it.
        most = self._seconds + _APART * min(self._rank, 20)
        while not self._is_over:
            time.sleep(min(0.2, self._seconds / 4))
            if (waits := self._waits) is not None and time.monotonic() - waits[0] > most:
                self.abort(f"has waited {self._seconds:g} s for the other ranks, in {waits[1]}")
