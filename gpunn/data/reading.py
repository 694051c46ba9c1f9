"""Reading files that may be damaged or hostile: no more memory is taken than there is real content."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from gpunn.errors import DataError, GpunnError

GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot do better than 1032:1 (zlib's technical notes), so a header that promises more is a lie.
MAX_RATIO = 1032
# An unpacked file is bounded by its own size; a packed one could hold a thousand times its size.
MAX_UNPACKED = 4 << 30
_CHUNK = 1 << 20


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
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"{path}: expected a data file, but {found}: check the path")
    try:
        with path.open("rb") as raw:
            if raw.read(2) == GZIP_MAGIC:
                raw.seek(0)
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream, None
            else:
                raw.seek(0)
                yield raw, _size(raw)
    except GpunnError:
        raise  # an OutputError is an OSError, but not one of reading
    except EOFError:
        raise DataError(f"{path}: the gzip stream is cut short: get the file again") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip stream is damaged ({error}): get the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check its permissions") from None
    except MemoryError:
        raise DataError(f"{path}: its content does not fit into memory: use a smaller file") from None


def read_up_to(stream: Readable, size: int) -> bytearray:
    """The next `size` bytes, or what there is; memory grows with the content, not with the promise."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(_CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def _size(raw: BinaryIO) -> int:
    return os.fstat(raw.fileno()).st_size
