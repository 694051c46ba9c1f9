"""Processor cores: how many this process may use, how many others leave to it, and kernels that share them.

Nothing computed depends on this, only how many threads compute it.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial, wraps
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from gpunn.kernels.record import Host

EVERY = 0.25  # seconds from one look at the machine to the next
SHARE = 0.75  # share of a core that a thread must get. With less, the others wait for it longer than they save
WORTHWHILE = 2**24  # bytes of work below which handing half of it to another thread costs more than it brings
# Bytes of work that one thread, or each of several, does at once: longer calls wait less for each other.
PIECE, PIECE_OF_THREAD = 2**19, 2**21
# Variables by which a user sets the threads of BLAS.
_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS")
_STATISTICS, _OWN_GROUP, _GROUPS = Path("/proc/stat"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Number of cores that processes share, and a function that returns the core seconds taken by all of them so far.
_Pool: TypeAlias = tuple[float, Callable[[], float]]

_share = [inf]  # the number of cores that others of its training leave to this process


def cores() -> int:
    """Count the processor cores that this process may use: of the machine, by its container's limit, of its share."""
    return max(1, int(min(len(allowed()), limit(), _share[0])))


def limit() -> float:
    """Return how many cores the container of this process may use at a time; infinity without a limit."""
    return min((size for size, _ in _groups()), default=inf)


def share_cores(share: float) -> None:
    """Let this process take so many threads of the machine, which it shares; BLAS as many as a variable says, if any.

    Threads of BLAS wait for one another by spinning: two processes with one for each core stand in each other's way.
    """
    set_by_user = [int(os.environ[name]) for name in _VARIABLES if os.environ.get(name, "").isdecimal()]
    _share[0] = max(1, int(share), *set_by_user)
    if not set_by_user:
        threadpool_limits(int(_share[0]))


def allowed() -> set[int]:
    """Return the numbers of the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@cache
def _groups() -> list[_Pool]:
    """Find the control groups of this process that bound its time, such as a container's."""
    try:
        path = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = _GROUPS / path.lstrip("/")
    found: list[_Pool] = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_GROUPS):
            break
        try:
            most, period = (folder / "cpu.max").read_text().split()
            if most != "max":
                found.append((int(most) / int(period), partial(_used_by_group, folder / "cpu.stat")))
        except (OSError, ValueError):
            continue  # the root has no limit, and a group of before the namespace is not to be seen
    return found


def _used_by_group(path: Path) -> float:
    return int(dict(line.split() for line in path.read_text().splitlines())["usage_usec"]) / 1e6


def _used_of(allowed: set[int]) -> float:
    """Sum the core seconds that all processes have taken of these cores; hypervisors take some too."""
    ticks = 0
    for name, *times in map(str.split, _STATISTICS.read_text().splitlines()):
        if name[:3] == "cpu" and name[3:].isdecimal() and int(name[3:]) in allowed:
            user, nice, system, _idle, _waiting, *interrupts = map(int, times[:8])
            ticks += user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK")


class LoadMonitor:
    """The load of other processes: all use of the cores but that of this process, whose threads may only wait."""

    def __init__(self) -> None:
        self._next, self._free = -inf, 1
        # Of a parent's reading a forked child knows nothing, and another set of cores has other sums.
        self._last: tuple[tuple[int, list[float]], float, float, list[float]] | None = None
        self._was_idle = False

    def free(self) -> int:
        """Return how many threads would each get a core for themselves, or most of one: 1 to `cores()`."""
        now = time.perf_counter()  # before every large product: between two looks nothing else is done
        if now >= self._next:
            self._next = now + EVERY  # at once, so that no other thread looks as well
            self._look(now)
            # On a machine of hundreds of cores the kernel takes a millisecond to count.
            self._next = now + max(EVERY, 100 * (time.perf_counter() - now))
        return self._free

    def _look(self, now: float) -> None:
        there = allowed()
        pools: list[_Pool] = [(len(there), partial(_used_of, there)), *_groups()]
        whose, used = (os.getpid(), [size for size, _ in pools]), [_or_none(use) for _, use in pools]
        last, self._last = self._last, (whose, now, time.process_time(), used)
        free = float(cores())
        if last is not None and last[0] == whose:
            _, then, own_then, used_then = last
            seconds, own = now - then, self._last[2] - own_then
            # What others did while this process waited says nothing of now: the next look decides.
            self._was_idle = not self._was_idle and seconds > 2 * EVERY and own < seconds / 4
            if self._was_idle:
                return
            for (size, _), after, before in zip(pools, used, used_then, strict=True):
                free = min(free, size - max(0.0, after - before - own) / seconds)
        self._free = max(1, min(cores(), int(free / SHARE)))


def _or_none(used: Callable[[], float]) -> float:
    """Return the core seconds, or 0 where they cannot be read, off Linux or with /proc hidden: nobody else is there."""
    try:
        return used()
    except (OSError, ValueError, KeyError):
        return 0.0


load_monitor = LoadMonitor()  # the one of this process


@cache
def _threads(_process: int) -> ThreadPoolExecutor:
    # By process, since a forked child has its parent's pool but none of its threads.
    return ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="gpunn")


def in_pieces(function: Callable[[slice], None], count: int, nbytes: int, *, cut: bool = True) -> None:
    """Call function(slice) for pieces of `count` channels, which fit a cache if `cut`, on all cores for many bytes."""
    workers = min(cores(), count) if nbytes >= WORTHWHILE else 1
    piece = PIECE_OF_THREAD if workers > 1 else PIECE
    each = max(1, piece * count // max(1, nbytes)) if cut else count

    def part(worker: int) -> None:
        end = (worker + 1) * count // workers
        for first in range(worker * count // workers, end, each):
            function(slice(first, min(first + each, end)))

    others = [_threads(os.getpid()).submit(part, worker) for worker in range(1, workers)]
    try:
        part(0)
    finally:
        for other in others:
            other.result()


def by_channels(host: Host) -> Host:
    """Make a host body go through its channels `in_pieces`: the first axis of every array that it is given."""
    cut = not hasattr(host, "__wrapped__")  # by `in_loops`: compiled loops go over everything once

    @wraps(host)
    def in_turn(*arguments: Any) -> None:
        arrays = [each for each in arguments if isinstance(each, np.ndarray)]
        nbytes = max(array.nbytes for array in arrays)
        if nbytes < min(PIECE, WORTHWHILE):
            host(*arguments)
            return

        def piece(channels: slice) -> None:
            host(*(each[channels] if isinstance(each, np.ndarray) else each for each in arguments))

        in_pieces(piece, len(arrays[0]), nbytes, cut=cut)

    return in_turn
