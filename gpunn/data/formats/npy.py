"""Read the .npy format of one array: magic and version, a header in text, values.

Source: R. Kern, "A simple file format for NumPy arrays", NumPy Enhancement Proposal 1.

`np.load` evaluates the header, which takes seconds for five kilobytes of parentheses and ends in a MemoryError on nine
of signs, and takes the memory that is promised before it knows what the file holds. So the header must look as NumPy
writes it, and its sizes must be those of the file; then there is nothing left to evaluate.
"""

import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.formats.bounded import Readable, opened, read_up_to
from gpunn.errors import DataError

_START = b"\x93NUMPY\1\0"
_MOST_HEADER = 10_000
# Three entries in any order; Python 2 wrote 28L for 28. Texts of a fixed length may be labels; where numbers are wanted
# they are refused like any other. A + behind another quantifier keeps spaces from being tried twice.
_HEADER = re.compile(
    r"""\s*\{\s*(?:(?:['"]descr['"]\s*:\s*['"](?P<dtype>[<>|=]?(?:b1|[iu][1248]|f[248]|U[1-9][0-9]{0,3}))['"]|
    ['"]fortran_order['"]\s*:\s*(?P<fortran>True|False)|
    ['"]shape['"]\s*:\s*\((?P<shape>\s*+(?:[0-9]{1,19}L?\s*+(?:,\s*+|(?=\)))){0,32}+)\))\s*+(?:,\s*+|(?=\}))){3}\}\s*""",
    re.VERBOSE | re.ASCII,
)


class Header(NamedTuple):
    """The type of an array's values, its shape, its order in memory, and the bytes that stand before the values."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    size: int

    @property
    def nbytes(self) -> int:
        """Number of bytes that the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy file.

    Raises:
        DataError: The file is missing, damaged, or holds other things than numbers.
        MemoryShortageError: Less memory is free than the array takes.
    """
    with opened(path) as (stream, size):
        return read_values(stream, read_header(stream, size or 0, str(path)), str(path))


def read_header(stream: Readable, size: int, what: str) -> Header:
    """Read all before the values of a file of some size; errors begin with `what`, which names it.

    Raises:
        DataError: It is damaged, holds other things than numbers, or more or fewer of them than it promises.
    """
    start = bytes(read_up_to(stream, 10))
    if len(start) < 10 or start[:6] != _START[:6]:
        raise DataError(f"{what} is no .npy array: it starts {start[:8].hex(' ') or '(empty)'}: save it with NumPy")
    if start[:8] != _START:
        raise DataError(f"{what} is of npy version {start[6]}.{start[7]}, not of 1.0: save it again with NumPy")
    length = int.from_bytes(start[8:], "little")
    text = read_up_to(stream, min(length, _MOST_HEADER)).decode("latin-1")
    if len(text) < length:
        raise DataError(f"{what} is damaged: its header promises to be {length:,} bytes long: get or save it again")
    found = _HEADER.fullmatch(text)
    if found is None or None in found.groups():
        raise DataError(f"{what} must hold numbers, got {text[:80]!r}: save it with NumPy, objects are never loaded")
    shape = tuple(map(int, re.findall("[0-9]+", found["shape"])))
    header = Header(np.dtype(found["dtype"]), shape, "F" if found["fortran"] == "True" else "C", 10 + length)
    if header.nbytes != (held := size - header.size):
        promised = f"{header.nbytes:,} bytes {str(shape)[:80]}"
        raise DataError(f"{what} promises {promised}, got {held:,}: get or save the file again")
    return header


def read_values(stream: Readable, header: Header, what: str) -> NDArray[Any]:
    """Read the values behind a header.

    Raises:
        DataError: There are fewer than it promises.
        MemoryShortageError: Less memory is free than they take.
    """
    data = read_up_to(stream, header.nbytes, what)
    if len(data) < header.nbytes:
        raise DataError(f"{what} is cut short: get or save the file again")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order=header.order)
