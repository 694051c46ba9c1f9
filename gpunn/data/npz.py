"""Arrays in a .npz file: x_train, y_train, x_test, y_test (the names of Keras), or x and y.

The members are read by their own npy headers, not by np.load, which makes the array that a header promises
before it knows whether the file holds as much. Objects (pickles) are refused.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.mapped import is_to_map, mapped
from gpunn.data.npy import read_header
from gpunn.data.reading import MAX_RATIO, MAX_UNPACKED, read_up_to
from gpunn.errors import DataError, GpunnError
from gpunn.storage import open_regular

ZIP_MAGIC = b"PK\x03\x04"
# What `zipfile` raises on damaged files: a size that is no C integer is an OverflowError, and so on.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, RuntimeError, OverflowError)
_MOST_READ = 1 << 20
_KEYS = "x_train, y_train, x_test, y_test (the last two may be left out), or x and y"


class NpzFile:
    """A .npz file whose names are known and whose arrays are read when they are asked for.

    Args:
        path: the file.
        memory_map: whether inputs stay in the file; None where they are large and not compressed.

    Raises:
        DataError: no such file, no .npz file, or without the arrays that a data set needs.
    """

    def __init__(self, path: str | PathLike[str], memory_map: bool | None = False) -> None:
        self.path, self.memory_map = Path(path).absolute(), memory_map
        names = self._names()
        if {"x_train", "y_train"} <= names:
            self.train_keys = ("x_train", "y_train")
            halves = {"x_test", "y_test"} & names
            if len(halves) == 1:
                raise DataError(f"{self.path}: has {halves.pop()} but not its other half: give x_test and y_test")
            self.has_test = bool(halves)
        elif {"x", "y"} <= names:
            self.train_keys = ("x", "y")
            self.has_test = False
        else:
            got = ", ".join(sorted(names)[:8]) or "nothing"
            raise DataError(
                f"{self.path}: expected the arrays {_KEYS}; got {got}: save it with np.savez(path, x=x, y=y)"
            )

    def train(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(inputs, targets) to learn from."""
        return self.read(self.train_keys[0], self.memory_map), self.read(self.train_keys[1])

    def test(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(inputs, targets) of the test set."""
        return self.read("x_test", self.memory_map), self.read("y_test")

    def read(self, key: str, memory_map: bool | None = False) -> NDArray[Any]:
        """One array.

        Args:
            key: its name.
            memory_map: whether it stays in the file; None where it is large and not compressed.

        Raises:
            DataError: a damaged member, objects, or a size that the file cannot hold.
        """
        with self._opened(f"array {key} is damaged", "get or save the file again") as archive:
            return self._read(archive, key, memory_map)

    def _read(self, archive: zipfile.ZipFile, key: str, memory_map: bool | None) -> NDArray[Any]:
        member = archive.getinfo(key + ".npy")
        self._check_member(member, key)
        with archive.open(member) as stream:
            try:
                header = read_header(stream)
            except DataError as error:
                raise DataError(f"{self.path}: array {key} {error}: save it again with np.savez") from None
            promised, held = header.nbytes, member.file_size - header.size
            if promised != held:
                raise DataError(
                    f"{self.path}: array {key} promises {promised:,} bytes {header.shape}, got {held:,}: get or "
                    "save the file again"
                )
            is_packed = member.compress_type != zipfile.ZIP_STORED
            if is_to_map(self.path, promised, memory_map, is_packed=is_packed):
                values = promised // header.dtype.itemsize
                return header.array(mapped(self.path, header.dtype, (values,), self._start(member) + header.size))
            data = read_up_to(stream, promised, f"array {key} of {self.path}")
        if len(data) != promised:
            raise DataError(f"{self.path}: array {key} is cut short: get or save the file again")
        return header.array(np.frombuffer(data, header.dtype))

    def _start(self, member: zipfile.ZipInfo) -> int:
        """Where in the file a stored member begins: after a header whose last two parts are of any length."""
        with self.path.open("rb") as file:
            file.seek(member.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
        return int(member.header_offset + 30 + name + extra)

    def _check_member(self, member: zipfile.ZipInfo, key: str) -> None:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise DataError(f"{self.path}: array {key} is packed in an unusual way: save it again with np.savez")
        stored = member.compress_type == zipfile.ZIP_STORED
        packed = min(member.compress_size, self.path.stat().st_size)
        if member.file_size > packed * (1 if stored else MAX_RATIO):
            raise DataError(
                f"{self.path}: array {key} promises {member.file_size:,} bytes, which {packed:,} packed "
                "bytes cannot hold: get or save the file again"
            )
        if not stored and member.file_size > MAX_UNPACKED:
            raise DataError(
                f"{self.path}: array {key} promises {member.file_size:,} bytes, more than the "
                f"{MAX_UNPACKED >> 30} GiB read from a packed array: save it with np.savez, not "
                "np.savez_compressed"
            )

    def _names(self) -> set[str]:
        with self._opened("expected a .npz file", "save it with np.savez(path, x=x, y=y)") as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
        names = {name.removesuffix(".npy") for name in members}
        if len(names) < len(members):
            raise DataError(f"{self.path}: holds two arrays of one name: save it again with np.savez")
        return names

    @contextmanager
    def _opened(self, what: str, mend: str) -> Iterator[zipfile.ZipFile]:
        """The archive; errors of reading say what is wrong and how to mend it."""
        try:
            with _Bounded(open_regular(self.path)) as file, zipfile.ZipFile(file) as archive:
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
    """A file of which no more than a mebibyte is read at once: so long may the list of a zip file's members be.

    `zipfile` reads the list as a whole, and takes twenty times its size in memory.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file.detach())

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_READ:
            raise zipfile.BadZipFile("it lists too many members")
        return super().read(size)
