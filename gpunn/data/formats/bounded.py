"""Reading files that may be damaged or hostile: no more memory is taken than there is real content."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gpunn.backend.limits import require
from gpunn.errors import DataError, GpunnError
from gpunn.files import open_regular

GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot do better than 1032:1 (zlib's technical notes), so a header that promises more is a lie.
MAX_RATIO = 1032
# An unpacked file is bounded by its own size; a packed one could hold a thousand times its size.
MAX_UNPACKED = 4 << 30
# As many as `bgzip` makes of the bound above, 64 KiB each. Empty ones could be millions in a small file.
_MAX_MEMBERS = MAX_UNPACKED >> 16
_CHUNK = 1 << 20
_PACKED_CHUNK = 1 << 15
_GZIP_WINDOW = 31  # zlib's word for the largest window in a wrapper of gzip's


class Readable(Protocol):
    """Anything that gives bytes."""

    def read(self, size: int, /) -> bytes: ...


@contextmanager
def opened(path: Path) -> Iterator[tuple[Readable, int | None]]:
    """A file as a stream of its unpacked bytes; its first bytes, not its name, tell whether it is gzipped.

    Args:
        path: the file.

    Yields:
        (stream, size of the file, or None where it is gzipped and the size is not known).

    Raises:
        DataError: no such file, no permission, a damaged gzip stream, or more content than memory.
    """
    try:
        with open_regular(path) as raw:
            is_packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if is_packed:
                yield Gunzip(raw), None
            else:
                yield raw, os.fstat(raw.fileno()).st_size
    except GpunnError:
        raise  # an OutputError is an OSError, but not one of reading
    except EOFError:
        raise DataError(f"{path}: the gzip stream is cut short: get the file again") from None
    except zlib.error as error:
        raise DataError(f"{path}: the gzip stream is damaged ({error}): get the file again") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: expected a data file, which cannot be read ({reason}): check the path") from None
    except MemoryError:
        raise DataError(f"{path}: its content does not fit into memory: use a smaller file") from None


class Gunzip:
    """The content of a gzip file, of all its members, as a stream.

    zlib itself reads the members' headers and compares their checksums. The standard library's GzipFile reads headers,
    and zeros after the end, byte by byte in Python, which a small hostile file turns into minutes.

    Args:
        packed: the file.
    """

    def __init__(self, packed: Readable) -> None:
        self._file = packed
        self._packed = b""
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._members = 1

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, fewer only at the end of a member; none at the end of the file.

        Raises:
            EOFError: the file ends within a member.
            zlib.error: what is there is damaged, or no gzip.
        """
        while not self._member.eof or self._is_more():
            data = self._member.decompress(self._packed, size)
            self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if data:
                return data
            if not self._packed and not self._member.eof:
                self._packed = self._file.read(_PACKED_CHUNK)
                if not self._packed:
                    raise EOFError
        return b""

    def _is_more(self) -> bool:
        """Begin with the next member, if there is one; zeros may stand before it."""
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._file.read(_PACKED_CHUNK)
            if not self._packed:
                return False
        self._packed = packed
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise zlib.error(f"it has more than {_MAX_MEMBERS:,} parts")
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        return True


def read_up_to(stream: Readable, size: int, what: str = "a file") -> bytearray:
    """The next `size` bytes, or what there is; memory grows with the content, not with the promise.

    Args:
        stream: to read.
        size: that is promised.
        what: it is read of.

    Raises:
        MemoryShortageError: there is less memory than is promised.
    """
    require(size, what)
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(_CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return data
