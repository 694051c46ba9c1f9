"""Read files that may be damaged or hostile, with no more memory than they have real content."""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.errors import DataError, GpunnError, MemoryShortageError
from gpunn.files import open_regular

GZIP_MAGIC = b"\x1f\x8b"
MAX_RATIO = 1032  # most that deflate can pack into one byte (zlib's technical notes)
MAX_UNPACKED = 4 << 30
MAPPED_FROM = 1 << 30  # bytes from which an array in an unpacked file is memory-mapped by default
_MAX_MEMBERS = MAX_UNPACKED >> 16  # `bgzip` makes members of 64 KiB; a hostile file could have millions of empty ones
_CHUNK, _PACKED_CHUNK = 1 << 20, 1 << 15
_GZIP_WINDOW = 31  # zlib's code for the largest window with a gzip header


class Readable(Protocol):
    """Stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


@contextmanager
def reading(
    path: Path,
    what: str = "the gzip stream is damaged",
    mend: str = "get the file again",
    damage: tuple[type[Exception], ...] = (zlib.error, EOFError),
) -> Iterator[None]:
    """Turn errors of reading a file into a DataError that says what is wrong and how to mend it."""
    try:
        yield
    except GpunnError:
        raise  # an OutputError is an OSError, but not one of reading
    except MemoryError:
        raise MemoryShortageError(f"{path}: its content does not fit into memory: use a smaller file") from None
    except damage as error:
        reason = "it ends too early" if isinstance(error, (IndexError, struct.error)) else error
        raise DataError(f"{path}: {what} ({str(reason) or type(error).__name__}): {mend}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None


@contextmanager
def opened(path: Path) -> Iterator[tuple[Readable, int | None]]:
    """Open a file as a stream of unpacked bytes, with its size, or None if it is gzipped."""
    with reading(path), open_regular(path) as raw:
        is_packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        yield (Gunzip(raw), None) if is_packed else (raw, os.fstat(raw.fileno()).st_size)


class Gunzip:
    """Unpack all members of a gzip file as a stream; on a hostile file GzipFile takes minutes."""

    def __init__(self, packed: Readable) -> None:
        self._file, self._packed = packed, b""
        self._member, self._members = zlib.decompressobj(_GZIP_WINDOW), 1

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes, perhaps fewer; none only at the end of the file."""
        while not self._member.eof or self._is_more():
            data = self._member.decompress(self._packed, size)
            self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if data:
                return data
            if not self._packed and not self._member.eof:
                self._packed = self._file.read(_PACKED_CHUNK)
                if not self._packed:
                    raise EOFError("it is cut short")
        return b""

    def _is_more(self) -> bool:
        """Begin with the next member, if there is one; zeros may stand before it."""
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._file.read(_PACKED_CHUNK)
            if not self._packed:
                return False
        self._packed, self._members = packed, self._members + 1
        if self._members > _MAX_MEMBERS:
            raise zlib.error(f"it has more than {_MAX_MEMBERS:,} parts")
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        return True


def read_up_to(stream: Readable, size: int, what: str = "a file") -> bytearray:
    """Read up to `size` bytes; memory grows with the content, not with the promise."""
    require(size, what)
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(_CHUNK, size - len(data)))):
        data += chunk
    return data


class Header(NamedTuple):
    """Type and shape of an array, number of bytes in its file before its values, and their order."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    order: Literal["C", "F"] = "C"

    @property
    def nbytes(self) -> int:
        """Number of bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        shape = " x ".join(f"{size:,}" for size in self.shape)
        return f"{shape} {self.dtype.newbyteorder('=')} values, {self.nbytes:,} bytes"

    def check_size(self, got: int, what: str) -> None:
        """Raise a DataError unless `got` is the number of bytes of the values."""
        if wrong := got - self.nbytes:
            how = f"cut short by {-wrong:,} bytes" if wrong < 0 else f"{wrong:,} bytes too long"
            raise DataError(f"{what}: its header promises {self}, got {got:,} bytes, {how}: get or save the file again")


def check_packed(what: str, promised: int, packed: int, mend: str) -> None:
    """Raise a DataError if the packed bytes cannot hold the promised ones, or these are too many."""
    if promised > (most := min(MAX_UNPACKED, MAX_RATIO * packed)):
        raise DataError(f"{what} promises {promised:,} bytes, more than the {most:,} that can be unpacked: {mend}")


def read_array(
    path: Path, stream: Readable, header: Header, memory_map: bool | None = False, *, is_packed: bool = False
) -> NDArray[Any]:
    """Read the values after a header, or memory-map them."""
    if memory_map and is_packed:
        raise DataError(f"{path}: what is compressed cannot be memory-mapped: unpack it, or leave memory_map out")
    if memory_map or (memory_map is None and not is_packed and header.nbytes >= MAPPED_FROM):
        # Without NumPy's subclass memmap, whose slices are slower.
        return np.asarray(np.memmap(path, header.dtype, "r", header.size, header.shape, header.order))
    data = read_up_to(stream, header.nbytes, str(path))
    header.check_size(len(data), str(path))
    return np.frombuffer(data, header.dtype).reshape(header.shape, order=header.order)
