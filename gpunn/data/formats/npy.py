"""Read NumPy's files: .npy with one array, and .npz with x_train, y_train, x_test, y_test (as in Keras) or x and y.

Source: R. Kern, "A simple file format for NumPy arrays", NumPy Enhancement Proposal 1.

`np.load` allocates all that a header promises, and takes seconds for one of 10,000 bytes. Here sizes must be right.
"""

import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import described, is_one_hot
from gpunn.data.formats.bounded import Header, Readable, check_packed, opened, read_array, read_up_to, reading
from gpunn.data.formats.npz_keys import (
    INPUTS,
    NAMES,
    TARGETS,
    TEST,
    TRAIN,
    VALIDATION,
    WEIGHTS,
    Meaning,
    by_meaning,
    one_of,
)
from gpunn.data.formats.parts import Pair, Parts
from gpunn.data.formats.unsupported import unsupported_zip
from gpunn.errors import DataError
from gpunn.files import open_regular

_START, _MOST_HEADER = b"\x93NUMPY\1\0", 1000
# Errors of `zipfile` on damaged files; a size that is no C integer is an OverflowError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, RuntimeError, OverflowError)


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy file."""
    with opened(path) as (stream, size):
        return read_array(path, stream, _read_header(stream, size or 0, str(path)))


def _read_header(stream: Readable, size: int, what: str) -> Header:
    """Read the header of an array of `size` bytes; errors begin with `what`."""
    header, start = None, bytes(read_up_to(stream, 10))
    if len(start) < 10 or start[:6] != _START[:6]:
        raise DataError(f"{what} is no .npy array: it starts {start[:8].hex(' ') or '(empty)'}: save it with NumPy")
    if start[:8] != _START:
        raise DataError(f"{what} is of npy version {start[6]}.{start[7]}, not of 1.0: save it again with NumPy")
    length = int.from_bytes(start[8:], "little")
    text = bytes(read_up_to(stream, min(length, _MOST_HEADER)))
    if len(text) < length:
        raise DataError(f"{what} is damaged: its header promises to be {length:,} bytes long: get or save it again")
    with warnings.catch_warnings(), suppress(Exception):  # of many kinds
        warnings.simplefilter("ignore")  # Python 2 wrote 28L for 28
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(start[8:] + text), _MOST_HEADER)
        header = Header(dtype, tuple(map(int, shape)), 10 + length, "F" if is_fortran else "C")
    if header is None or dtype.kind not in "biufUS" or min(shape, default=0) < 0:
        got = text[:80].decode("latin-1")
        if header is not None and dtype.kind == "O":
            mend = "save texts as np.array(y, str), numbers as np.array(x, float)"
            raise DataError(f"{what} must hold numbers or texts, objects are never loaded: {mend}")
        raise DataError(f"{what} must hold numbers, got {got!r}: save it with NumPy, objects are never loaded")
    header.check_size(size - header.size, what)
    return header


class NpzFile:
    """Read arrays of a .npz file on demand; with `memory_map` inputs stay in the file."""

    def __init__(self, path: str | PathLike[str], memory_map: bool | None = False) -> None:
        self.path, self.memory_map = Path(path).absolute(), memory_map
        with self._opened("expected a .npz file", "save it with np.savez(path, x=x, y=y)") as archive:
            names = archive.namelist()
            members = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
        if not members and (found := unsupported_zip(names)):
            raise DataError(f"{self.path}: expected a .npz file, got {found[0]}: {found[1]}")
        self.names, self._by_meaning = set(members), by_meaning(set(members))
        if len(self.names) < len(members):
            raise DataError(f"{self.path}: holds two arrays of one name: save it again with np.savez")

    def data(self) -> Parts:
        """Read the training pair; the validation and the test pair are read on demand."""
        if len(self.names) > 2 and all(re.fullmatch(r"arr_\d+", name) for name in self.names):
            mend = "save it with np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
            raise DataError(f"{self.path}: holds {len(self.names)} arrays without names, in an unknown order: {mend}")
        for part in (TRAIN, ""):
            x, y = self._key(INPUTS, part), self._key(TARGETS, part)
            if x and y:
                weights = self._key(WEIGHTS, TRAIN) or self._key(WEIGHTS)
                train = self._pair(x, y, weights)
                return Parts(train, self._part(VALIDATION), self._part(TEST), self._class_names(train[1]))
        names = "x_train, y_train, x_test, y_test (the last two may be left out), or x and y"
        raise self._missing(f"the arrays {names}", "x=x, y=y")

    def inputs(self) -> NDArray[Any]:
        """Read the inputs for a prediction: x, x_test, an array with a similar name, or the only one."""
        found = (key for part in ("", TEST) if (key := self._key(INPUTS, part)))
        if key := next(found, None) or (next(iter(self.names)) if len(self.names) == 1 else None):
            return self.read(key)
        raise self._missing("the array x", "x=x")

    def read(self, key: str, memory_map: bool | None = False) -> NDArray[Any]:
        """Read one array, or memory-map it."""
        what = f"{self.path}: array {key}"
        with self._opened(f"array {key} is damaged", "get or save the file again") as archive:
            member = archive.getinfo(f"{key}.npy")
            is_packed, size = member.compress_type != zipfile.ZIP_STORED, member.file_size
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
                raise DataError(f"{what} is packed in an unusual way: save it again with np.savez")
            if is_packed:
                check_packed(what, size, member.compress_size, "save it with np.savez, not np.savez_compressed")
            with archive.open(member) as stream:
                begin = archive.fp.tell() if archive.fp else 0
                header = _read_header(stream, size, what)
                header = header._replace(size=begin + header.size)
                return read_array(self.path, stream, header, memory_map, is_packed=is_packed)

    def _key(self, kind: str, part: str = "") -> str | None:
        try:
            return one_of(self._by_meaning.get(wanted := Meaning(kind, part), []), wanted)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None

    def _part(self, part: str) -> Callable[[], Pair] | None:
        x, y = self._key(INPUTS, part), self._key(TARGETS, part)
        if x and y:
            return partial(self._pair, x, y, self._key(WEIGHTS, part))
        if key := x or y:
            raise DataError(f"{self.path}: has {key} but not its other half: give x_{part} and y_{part}")
        return None

    def _pair(self, x: str, y: str, weights: str | None) -> Pair:
        return (self.read(x, self.memory_map), self.read(y), *((self.read(weights),) if weights else ()))

    def _class_names(self, y: NDArray[Any]) -> list[str] | None:
        """Read the class names; targets of several numbers have none."""
        key = self._key(NAMES)
        if key is None or (y.ndim == 2 and y.shape[1] > 1 and not is_one_hot(y)):
            return None
        names = self.read(key)
        if names.dtype.kind not in "US" or names.ndim != 1:
            raise DataError(f"{self.path}: array {key} must be texts (classes,), got {described(names)}")
        return names.tolist()  # type: ignore[no-any-return]

    def _missing(self, wanted: str, saved: str) -> DataError:
        got = ", ".join(sorted(self.names)[:8]) or "nothing"
        return DataError(f"{self.path}: expected {wanted}, got {got}: save it with np.savez(path, {saved})")

    @contextmanager
    def _opened(self, what: str, mend: str) -> Iterator[zipfile.ZipFile]:
        with (
            reading(self.path, what, mend, _DAMAGE),
            _Bounded(open_regular(self.path).detach()) as file,
            zipfile.ZipFile(file) as archive,
        ):
            yield archive


class _Bounded(io.BufferedReader):
    """Allow reads of at most a mebibyte, since `zipfile` takes twenty times the size of a list of members."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 1 << 20:
            raise zipfile.BadZipFile("it lists too many members")
        return super().read(size)
