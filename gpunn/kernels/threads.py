"""The second core: NumPy's own loops use one, so the longer host twins share their channels out among threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

WORTHWHILE = 2**19
"""Bytes of work below which handing half of it to another thread costs more than it brings."""

_local = threading.local()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(_process: int) -> ThreadPoolExecutor:
    # By process, since a forked child has its parent's pool but none of its threads.
    return ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="gpunn")


def parallel(function: Callable[[int], None], count: int, nbytes: int = WORTHWHILE) -> None:
    """Call function(0) … function(count − 1), shared out among the cores where that pays.

    The calls must not depend on one another: which thread makes which call is fixed, their order in time is not.

    Args:
        function: what to call.
        count: how often.
        nbytes: size of all the work, to see whether it pays.
    """
    workers = min(cores(), count)
    if workers < 2 or nbytes < WORTHWHILE or getattr(_local, "inside", False):
        for number in range(count):
            function(number)
        return

    def part(worker: int) -> None:
        _local.inside = True
        try:
            for number in range(worker * count // workers, (worker + 1) * count // workers):
                function(number)
        finally:
            _local.inside = False

    others = [_pool(os.getpid()).submit(part, worker) for worker in range(1, workers)]
    try:
        part(0)
    finally:
        for other in others:
            other.result()
