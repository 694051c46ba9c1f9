"""How the longer host twins go through their channels: piece by piece, or, where that pays, one piece a core.

NumPy's own loops use one core. A second Python thread helps only where each call is long: after every one it waits for
the interpreter's lock, and to be woken takes longer than to pool a small image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from gpunn.kernels import loops
from gpunn.kernels.cores import cores

WORTHWHILE = 2**24
"""Bytes of work below which handing half of it to another thread costs more than it brings: measured, it doubled."""

PIECE = 2**19
"""Bytes of work that are done at once, of which there are two or three in a second-level cache."""

PIECE_OF_THREAD = 2**21
"""Likewise where several threads work: the longer the calls, the less they wait for each other."""

_local = threading.local()


@cache
def _pool(_process: int) -> ThreadPoolExecutor:
    # By process, since a forked child has its parent's pool but none of its threads.
    return ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="gpunn")


def in_pieces(function: Callable[[slice], None], count: int, nbytes: int) -> None:
    """Call function(slice) for stretches that together are 0 … count − 1.

    They are short, so that what one pass over a piece leaves is still in the cache for the next; compiled loops, which
    go over everything once, are not cut. Where there is much to do all cores take part.

    Args:
        function: what to do with some of the channels; it must not depend on any other.
        count: of channels.
        nbytes: size of all the work.
    """
    workers = min(cores(), count)
    is_alone = workers < 2 or nbytes < WORTHWHILE or getattr(_local, "inside", False)
    piece = PIECE if is_alone else PIECE_OF_THREAD
    each = count if loops.version() else max(1, piece * count // max(1, nbytes))
    if is_alone:
        _go_through(function, 0, count, each)
        return

    def part(worker: int) -> None:
        _local.inside = True
        try:
            _go_through(function, worker * count // workers, (worker + 1) * count // workers, each)
        finally:
            _local.inside = False

    others = [_pool(os.getpid()).submit(part, worker) for worker in range(1, workers)]
    try:
        part(0)
    finally:
        for other in others:
            other.result()


def _go_through(function: Callable[[slice], None], start: int, end: int, each: int) -> None:
    for first in range(start, end, each):
        function(slice(first, min(first + each, end)))
