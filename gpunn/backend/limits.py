"""Check memory before it is taken: of the machine, its container, and a limit of yours (`docs/design/memory.md`)."""

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpunn.errors import MemoryShortageError, OptionError

_SMALL = 1 << 20  # bytes that are not worth a check, which takes some 50 µs
_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Memory belongs to the process, and so does its limit.
_limit: int | None = None
_reserved = 0


def set_memory_limit(limit: int | str | None) -> None:
    """Limit the memory that gpunn takes from now on: of the process on the host, and of CuPy's pool on a GPU.

    gpunn refuses to go beyond the limit with a `MemoryShortageError`, before it takes memory for data, networks and
    files. Memory that other code of the process takes counts, but is not refused.

    Args:
        limit: Number of bytes, or a text such as "2GB" or "512 MiB"; None for no limit.

    Raises:
        OptionError: Malformed size, or less than the process has taken already.
    """
    global _limit
    nbytes = None if limit is None else as_bytes(limit)
    if nbytes is not None and nbytes <= (taken := resident_bytes()):
        raise OptionError(f"a memory limit of {size(nbytes)} is less than the {size(taken)} that are taken already")
    _limit = nbytes


def memory_limit() -> int | None:
    """Return the memory limit in bytes, or None if there is none."""
    return _limit


def as_bytes(limit: int | str) -> int:
    """Convert a size such as "2GB", "512 MiB" or 1000000 to bytes, or raise `OptionError`."""
    parts = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?(?:([KMGT])(i?)B)?", str(limit).strip(), re.IGNORECASE | re.ASCII)
    nbytes = 0
    if parts is not None:
        nbytes = round(float(parts[1]) * (1024 if parts[3] else 1000) ** " KMGT".index((parts[2] or " ").upper()))
    if nbytes <= 0:
        raise OptionError(f"a memory limit is a size such as 2GB, 512MiB or a number of bytes, got {limit!r:.80}")
    return nbytes


def require(nbytes: int, what: str) -> None:
    """Raise `MemoryShortageError` if the host has fewer bytes free; `what` needs them, and begins the message."""
    if nbytes > _SMALL and nbytes > (free := free_bytes()):
        bound, more = ("", "") if _limit is None else (f" of the limit of {size(_limit)}", ", or raise the limit")
        left = f"{size(free)}{bound} are free"
        raise MemoryShortageError(f"{what} takes {size(nbytes)} of memory, {left}: use less data{more}")


def free_bytes() -> int:
    """Return the bytes of host memory that may still be taken, with those of swap."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kibibytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
        free = (kibibytes["MemAvailable"] + kibibytes.get("SwapFree", 0)) << 10
    except OSError:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = min(free, *_free_of_groups())
    return free if _limit is None else max(0, min(free, _limit - _reserved - resident_bytes()))


@contextmanager
def reserved(nbytes: int) -> Iterator[None]:
    """Keep so many bytes of the memory limit free within the block, for later."""
    global _reserved
    _reserved += nbytes
    try:
        yield
    finally:
        _reserved -= nbytes


def resident_bytes() -> int:
    """Return the resident bytes of this process, or their maximum so far if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def size(nbytes: float) -> str:
    """Format a number of bytes in the unit that reads best."""
    if nbytes < 1024:
        return f"{nbytes:.0f} B"
    if nbytes >= 2**60:
        return "more than 1,000,000 TiB"
    power = 3 if nbytes >= 2**30 else 2 if nbytes >= 2**20 else 1
    return f"{nbytes / 1024**power:.1f} {'KMG'[power - 1]}iB"


def _free_of_groups() -> Iterator[int]:
    """Yield the bytes that each control group of the process leaves (of a container, say); beyond, the kernel kills."""
    yield 2**63
    try:
        path = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    group = _GROUPS / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(_GROUPS):
            with suppress(OSError):  # the root has no limit, and groups outside of the namespace cannot be seen
                if (most := (folder / "memory.max").read_text().strip()) != "max":
                    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    # The kernel takes back pages of files without recent use before it kills anything.
                    taken = int((folder / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
                    yield max(0, int(most) - taken)
