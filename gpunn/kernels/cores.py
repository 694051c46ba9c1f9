"""Processor cores: how many this process may use, and how many of them others leave to it just now.

What is computed never depends on this, only how many threads compute it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import NamedTuple

EVERY = 0.25
"""Seconds from one look at the machine to the next."""

SHARE = 0.75
"""Of a core that a thread must get. With less, the others wait for it longer than they save."""

_STATISTICS, _OWN_GROUP, _GROUPS = Path("/proc/stat"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class _Pool(NamedTuple):
    """Cores that processes share.

    Attributes:
        size: how many.
        used: core seconds that all of these processes together have taken so far.
    """

    size: float
    used: Callable[[], float]


def cores() -> int:
    """Processor cores that this process may use: of the machine, and by the limit of its container."""
    return max(1, int(min(len(_allowed()), *(group.size for group in _groups()), inf)))


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@cache
def _groups() -> list[_Pool]:
    """The control groups of this process that bound its time, such as a container's."""
    try:
        path = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group, found = _GROUPS / path.lstrip("/"), []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_GROUPS):
            break
        try:
            most, period = (folder / "cpu.max").read_text().split()
            if most != "max":
                found.append(_Pool(int(most) / int(period), partial(_used_by_group, folder / "cpu.stat")))
        except (OSError, ValueError):
            continue  # the root has no limit, and a group of before the namespace is not to be seen
    return found


def _used_by_group(path: Path) -> float:
    return int(dict(line.split() for line in path.read_text().splitlines())["usage_usec"]) / 1e6


def _used_of(allowed: set[int]) -> float:
    """Core seconds that all processes have taken of these cores; hypervisors take some too."""
    ticks = 0
    for name, *times in map(str.split, _STATISTICS.read_text().splitlines()):
        if name[:3] == "cpu" and name[3:].isdecimal() and int(name[3:]) in allowed:
            user, nice, system, _idle, _waiting, *interrupts = map(int, times[:8])
            ticks += user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK")


class _Reading(NamedTuple):
    """The clocks at one moment."""

    process: int
    now: float
    own: float
    pools: list[tuple[float, float]]


class Crowd:
    """What other processes take of the cores.

    Their share is what all have used less what this process has, so its own threads that wait do not count.
    """

    def __init__(self) -> None:
        self._next, self._free = -inf, 1
        self._last: _Reading | None = None
        self._was_idle = False

    def free(self) -> int:
        """Threads that would each get a core for themselves, or most of one: 1 to `cores()`.

        It is called before every large product, so between two looks it costs a tenth of a microsecond.
        """
        now = time.perf_counter()
        if now >= self._next:
            self._next = now + EVERY  # at once, so that no other thread looks as well
            self._look(now)
            # On a machine of hundreds of cores the kernel takes a millisecond to count.
            self._next = now + max(EVERY, 100 * (time.perf_counter() - now))
        return self._free

    def _look(self, now: float) -> None:
        allowed, pools = _allowed(), []
        for pool in (_Pool(len(allowed), partial(_used_of, allowed)), *_groups()):
            try:
                pools.append((pool.size, pool.used()))
            except (OSError, ValueError, KeyError):
                pools.append((pool.size, 0.0))  # not Linux, or /proc is hidden: as if nobody else were there
        last, self._last = self._last, _Reading(os.getpid(), now, time.process_time(), pools)
        free = float(cores())
        # Of a parent's reading a forked child knows nothing, and another set of cores has other sums.
        if last is not None and last.process == os.getpid() and len(last.pools) == len(pools):
            seconds, own = now - last.now, self._last.own - last.own
            # What others did while this process waited says nothing of now: the next look decides.
            self._was_idle = not self._was_idle and seconds > 2 * EVERY and own < seconds / 4
            if self._was_idle:
                return
            for (size, used), (before_size, before) in zip(pools, last.pools, strict=True):
                if size == before_size and seconds > 0:
                    free = min(free, size - max(0.0, used - before - own) / seconds)
        self._free = max(1, min(cores(), int(free / SHARE)))


crowd = Crowd()
"""The one of this process."""
