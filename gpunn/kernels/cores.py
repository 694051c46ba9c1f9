"""Count the processor cores that this process may use and that others leave free, and run kernels on all of them.

Results never depend on the number of threads.
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

EVERY, SOON = 0.25, 0.1  # seconds between two measurements of the load, and to the next one after a wait
SHARE = 0.75  # share of a core that a thread must get; with less, the other threads wait for it longer than they save
WORTHWHILE = 2**24  # bytes of work below which a second thread costs more than it saves
# Bytes of work per call for one thread, and for each of several, where longer calls wait less for each other.
PIECE, PIECE_OF_THREAD = 2**19, 2**21
# Variables by which a user sets the threads of BLAS.
_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS")
_STATISTICS, _OWN_GROUP, _GROUPS = Path("/proc/stat"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Number of cores that processes share, and a function that returns the core seconds that they have used so far.
_Pool: TypeAlias = tuple[float, Callable[[], float]]

_share = [inf]  # cores for this process, of those that the ranks of its training share


def cores() -> int:
    """Count the cores that this process may use, within its CPU affinity, its container's limit and its share."""
    return max(1, int(min(len(allowed()), limit(), _share[0])))


def limit() -> float:
    """Return the number of cores that the container of this process may use at a time; infinity without a limit."""
    return min((size for size, _ in _groups()), default=inf)


def share_cores(share: float) -> None:
    """Limit this process to its share of the machine's cores; a user's variable for the threads of BLAS comes first.

    Threads of BLAS spin while they wait: two processes with a thread per core slow each other down.
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
    """Find the control groups that limit the CPU time of this process, such as its container's."""
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
            continue  # the root has no limit, and groups outside the namespace are hidden
    return found


def _used_by_group(path: Path) -> float:
    return int(dict(line.split() for line in path.read_text().splitlines())["usage_usec"]) / 1e6


def _used_of(allowed: set[int]) -> float:
    """Sum the seconds that all processes, and hypervisors, have used on these cores."""
    ticks = 0
    for name, *times in map(str.split, _STATISTICS.read_text().splitlines()):
        if name[:3] == "cpu" and name[3:].isdecimal() and int(name[3:]) in allowed:
            user, nice, system, _idle, _waiting, *interrupts = map(int, times[:8])
            ticks += user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK")


class LoadMonitor:
    """Measure the load of other processes: all use of the cores, less that of this process."""

    def __init__(self) -> None:
        self._next, self._free = -inf, 1
        # With process and cores: a forked child must not use its parent's reading, and other cores have other sums.
        self._last: tuple[tuple[int, list[float]], float, float, list[float]] | None = None
        self._was_idle = False

    def free(self) -> int:
        """Return the number of threads, from 1 to `cores()`, that would each get a core or most of one."""
        now = time.perf_counter()  # called before every large product, so usually nothing else happens
        if now >= self._next:
            self._next = now + EVERY  # at once, so that no other thread measures as well
            self._measure(now)
            # On a machine of hundreds of cores the kernel takes a millisecond to count.
            every = SOON if self._was_idle else EVERY
            self._next = now + max(every, 100 * (time.perf_counter() - now))
        return self._free

    def _measure(self, now: float) -> None:
        own_cores = allowed()
        pools: list[_Pool] = [(len(own_cores), partial(_used_of, own_cores)), *_groups()]
        whose, used = (os.getpid(), [size for size, _ in pools]), [_or_none(use) for _, use in pools]
        last, self._last = self._last, (whose, now, time.process_time(), used)
        free = float(cores())
        if last is not None and last[0] == whose:
            _, then, own_then, used_then = last
            seconds, own = now - then, self._last[2] - own_then
            # The load while this process waited says nothing about the load now: take all cores, and measure soon.
            self._was_idle = not self._was_idle and seconds > 2 * EVERY and own < seconds / 4
            if self._was_idle:
                self._free = cores()
                return
            for (size, _), after, before in zip(pools, used, used_then, strict=True):
                free = min(free, size - max(0.0, after - before - own) / seconds)
        self._free = max(1, min(cores(), int(free / SHARE)))


def _or_none(used: Callable[[], float]) -> float:
    """Return the core seconds, or 0 if they cannot be read (off Linux, or with /proc hidden), as on an idle machine."""
    try:
        return used()
    except (OSError, ValueError, KeyError):
        return 0.0


load_monitor = LoadMonitor()  # one per process


@cache
def _threads(_process: int) -> ThreadPoolExecutor:
    # One pool per process, since a forked child inherits its parent's pool but not its threads.
    return ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="gpunn")


def in_pieces(function: Callable[[slice], None], count: int, nbytes: int, *, cut: bool = True) -> None:
    """Call function(slice) for pieces of `count` channels, cache-sized if `cut`, on all cores for large arrays."""
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
    """Decorate a host body to work `in_pieces` along the first axis of its arrays, the channels."""
    body_for: Callable[..., Host] | None = getattr(host, "body_for", None)  # set by `in_loops`

    @wraps(host)
    def in_turn(*arguments: Any) -> None:
        arrays = [each for each in arguments if isinstance(each, np.ndarray)]
        nbytes = max(array.nbytes for array in arrays)
        if nbytes < min(PIECE, WORTHWHILE):
            host(*arguments)
            return

        # Chosen by the whole arrays: their pieces are smaller on more cores, which must not change the bits.
        body = body_for(*arguments) if body_for else host

        def piece(channels: slice) -> None:
            body(*(each[channels] if isinstance(each, np.ndarray) else each for each in arguments))

        in_pieces(piece, len(arrays[0]), nbytes, cut=not body_for)  # compiled loops pass over their arrays only once

    return in_turn
