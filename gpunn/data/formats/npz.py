"""Read arrays in a .npz file: x_train, y_train, x_test, y_test (the names of Keras), or x and y."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpunn.data.formats.bounded import MAX_RATIO, MAX_UNPACKED
from gpunn.data.formats.npy import read_header, read_values
from gpunn.data.memmap import is_to_map, mapped
from gpunn.errors import DataError, GpunnError
from gpunn.files import open_regular

# What `zipfile` raises on damaged files: a size that is no C integer is an OverflowError, and so on.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, RuntimeError, OverflowError)
_MOST_READ = 1 << 20
_KEYS = "x_train, y_train, x_test, y_test (the last two may be left out), or x and y"

Pair = tuple[NDArray[Any], NDArray[Any]]


class NpzFile:
    """A .npz file whose names are known and whose arrays are read when they are asked for.

    Args:
        path: The file.
        memory_map: Whether inputs stay in the file; None where they are large and not compressed.

    Raises:
        DataError: There is no such file, or it is no .npz file.
    """

    def __init__(self, path: str | PathLike[str], memory_map: bool | None = False) -> None:
        self.path, self.memory_map = Path(path).absolute(), memory_map
        with self._opened("expected a .npz file", "save it with np.savez(path, x=x, y=y)") as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        self.names = set(members)
        if len(self.names) < len(members):
            raise DataError(f"{self.path}: holds two arrays of one name: save it again with np.savez")

    def data(self) -> tuple[Pair, Callable[[], Pair] | None]:
        """Read (inputs, targets) to learn from, and give a function that reads those of the test set, or None.

        Raises:
            DataError: The arrays that a data set needs are missing or damaged.
        """
        if {"x_train", "y_train"} <= self.names:
            halves = {"x_test", "y_test"} & self.names
            if len(halves) == 1:
                raise DataError(f"{self.path}: has {halves.pop()} but not its other half: give x_test and y_test")
            return self._pair("x_train", "y_train"), (lambda: self._pair("x_test", "y_test")) if halves else None
        if {"x", "y"} <= self.names:
            return self._pair("x", "y"), None
        raise self._missing(f"the arrays {_KEYS}", "x=x, y=y")

    def inputs(self) -> NDArray[Any]:
        """Read the array to ask a network about: x, x_test, or the only one there is.

        Raises:
            DataError: There is none of them, or it is damaged.
        """
        for key in ("x", "x_test", *(self.names if len(self.names) == 1 else ())):
            if key in self.names:
                return self.read(key)
        raise self._missing("the array x", "x=x")

    def read(self, key: str, memory_map: bool | None = False) -> NDArray[Any]:
        """Read one array, or map it where it stays in the file.

        Raises:
            DataError: The array is damaged, holds objects, or is packed and to be mapped.
            MemoryShortageError: Less memory is free than it takes.
        """
        what = f"{self.path}: array {key}"
        with self._opened(f"array {key} is damaged", "get or save the file again") as archive:
            member = archive.getinfo(f"{key}.npy")
            is_packed, size = member.compress_type != zipfile.ZIP_STORED, member.file_size
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
                raise DataError(f"{what} is packed in an unusual way: save it again with np.savez")
            if is_packed and size > (most := min(MAX_UNPACKED, MAX_RATIO * member.compress_size)):
                raise DataError(
                    f"{what} promises {size:,} bytes, more than the {most:,} that can be unpacked: save it with "
                    "np.savez, not np.savez_compressed"
                )
            with archive.open(member) as stream:
                place = archive.fp.tell() if archive.fp else 0  # where the member begins
                header = read_header(stream, size, what)
                if is_to_map(self.path, header.nbytes, memory_map, is_packed=is_packed):
                    return mapped(self.path, header.dtype, header.shape, place + header.size, header.order)
                return read_values(stream, header, what)

    def _pair(self, x: str, y: str) -> Pair:
        return self.read(x, self.memory_map), self.read(y)

    def _missing(self, wanted: str, saved: str) -> DataError:
        got = ", ".join(sorted(self.names)[:8]) or "nothing"
        return DataError(f"{self.path}: expected {wanted}, got {got}: save it with np.savez(path, {saved})")

    @contextmanager
    def _opened(self, what: str, mend: str) -> Iterator[zipfile.ZipFile]:
        """Open the archive; errors of reading say what is wrong and how to mend it."""
        try:
            with _Bounded(open_regular(self.path).detach()) as file, zipfile.ZipFile(file) as archive:
                yield archive
        except GpunnError:
            raise
        except _DAMAGE as error:
            raise DataError(f"{self.path}: {what} ({error}): {mend}") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}): check the path") from None
        except MemoryError:
            raise DataError(f"{self.path}: does not fit into memory: use a smaller one") from None


class _Bounded(io.BufferedReader):
    """A file of which at most a mebibyte is read at once, since `zipfile` takes twenty times its list of members."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_READ:
            raise zipfile.BadZipFile("it lists too many members")
        return super().read(size)
