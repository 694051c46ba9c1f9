"""Read some files of a tar archive by name, without unpacking anything to a path."""

import tarfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from gpunn.data.formats.bounded import Readable, opened, read_up_to, reading
from gpunn.errors import DataError

MAGIC = slice(257, 262), b"ustar"  # place and text in the first block of an archive
_MOST_BYTES, _MOST_MEMBERS, _CHUNK = 1 << 28, 64, 1 << 20
_DAMAGED = "the archive is damaged", "get it again", (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError)


class _Forward:
    """Let `tarfile` read a stream, seek forward, and ask for at most a mebibyte, since headers may claim any size."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._place = stream, 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        while self._place < place and self.read(min(_CHUNK, place - self._place)):
            pass
        return self._place

    def read(self, size: int, /) -> bytes:
        if not 0 <= size <= _CHUNK or self._place > _MOST_BYTES:
            raise tarfile.TarError("it holds far more than the files of a data set")
        data = b""
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self._place += len(data)
        return data


def first_of(path: Path, wanted: Collection[str]) -> str | None:
    """Return the first wanted file name in a tar archive, "" if it has none; None if it is no tar archive."""
    with opened(path) as (raw, _):
        start = bytes(read_up_to(raw, 512))
    if not start[MAGIC[0]].startswith(MAGIC[1]):
        return None
    with (
        opened(path) as (raw, _),
        reading(path, *_DAMAGED),
        tarfile.TarFile(fileobj=cast(Any, _Forward(raw)), mode="r") as archive,
    ):
        for _ in range(_MOST_MEMBERS):
            if (member := archive.next()) is None:
                break
            if (name := PurePosixPath(member.name).name) in wanted:
                return name
    return ""


def read_members(path: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Read files of an archive, gzipped or not, by name, in any of its folders; each must have its size."""
    with opened(path) as (stream, _):
        return members_of(stream, sizes, path)


def members_of(packed: Readable, sizes: Mapping[str, int], path: Path) -> dict[str, bytes]:
    """Read files by name from an open archive; errors name its path."""
    stream, found, mend = _Forward(packed), dict[str, bytes](), "get it again"
    with (
        reading(path, *_DAMAGED),
        tarfile.TarFile(fileobj=cast(Any, stream), mode="r") as archive,
    ):
        for _ in range(_MOST_MEMBERS):
            if len(found) == len(sizes) or (member := archive.next()) is None:
                break
            name = PurePosixPath(member.name).name
            if name not in sizes or name in found or member.type not in tarfile.REGULAR_TYPES or member.issparse():
                continue
            if member.size != sizes[name]:
                got = f"expected {sizes[name]:,} bytes, got {member.size:,}"
                raise DataError(f"{path}: {name} has a wrong size, {got}: {mend}")
            found[name] = bytes(read_up_to(stream, member.size, str(path)))
            if len(found[name]) < member.size:
                raise EOFError(f"{name} is cut short")
        while stream.read(_CHUNK):  # to the end, where gzip has the checksum of the whole
            pass
    if missing := [name for name in sizes if name not in found]:
        raise DataError(f"{path}: expected an archive with {', '.join(sizes)}; {', '.join(missing)} missing: {mend}")
    return found
