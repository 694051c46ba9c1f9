"""The line that says why the first step on a GPU takes its time: kernels are compiled, once for all that comes."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TextIO

from gpunn.backend import kernel_cache


class Compiling:
    """Shows how many of the kernels that are missing in the cache are compiled; nothing where none is missing.

    On a terminal this is one line that is kept up to date and goes when all are there, elsewhere one line in all.

    Args:
        shown: whether anything is shown.
        stream: where to; left out, standard error.
    """

    def __init__(self, shown: bool = True, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._stream = stream if shown and stream is not None else None  # a program without a console has no streams
        self._line = ""

    def __enter__(self) -> Compiling:
        return self

    def __call__(self, number: int, count: int) -> None:
        """Kernel `number` of `count`, from 1, is compiled now."""
        stream = self._stream
        if stream is None:
            return
        once = "" if kernel_cache.is_temporary() else "only once, "
        if stream.isatty():
            self._write(f"compiling kernels ({once}{number} of {count})")
        elif number == 1:
            stream.write(f"compiling kernels ({once}{count} of them)\n")
            stream.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        if self._stream is not None and line != self._line:
            try:
                columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            except (OSError, ValueError):  # no terminal with a size, such as a stream in memory
                columns = 80
            line = line[: columns - 1]
            self._stream.write(f"\r{line:{len(self._line)}}" if line else f"\r{'':{len(self._line)}}\r")
            self._stream.flush()
            self._line = line
