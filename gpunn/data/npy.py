"""The .npy format of one array: magic and version, a header in text, values.

Source: R. Kern, "A simple file format for NumPy arrays", NumPy Enhancement Proposal 1.

The header is written as a dictionary of Python. It is taken apart here and never evaluated: `ast.literal_eval`, which
NumPy uses, ends in errors of many kinds on what is none, and takes far more memory than the text.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.reading import Readable, read_up_to
from gpunn.errors import DataError

MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000
_MOST_DIMENSIONS = 32
# One entry and the comma behind it. Python 2 wrote 28L for 28.
_ENTRY = re.compile(
    r"""\s*['"](?:(?P<descr>descr)['"]\s*:\s*['"](?P<dtype>[^'"]{1,20})['"]|
    (?P<order>fortran_order)['"]\s*:\s*(?P<fortran>True|False)|
    (?P<size>shape)['"]\s*:\s*\((?P<shape>[-0-9L,\s]*)\))\s*(?:,\s*|$)""",
    re.VERBOSE | re.ASCII,
)
_NUMBER = re.compile(r"[0-9]{1,19}L?")


@dataclass(frozen=True)
class NpyHeader:
    """What stands before the values.

    Attributes:
        dtype: of the values, which are numbers, or texts of a fixed length.
        shape: of the array.
        is_fortran: whether the first index runs fastest.
        size: bytes from the magic to the first value.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values that are promised."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values that lie one after another, as the array."""
        return values.reshape(self.shape[::-1]).T if self.is_fortran else values.reshape(self.shape)


def read_header(stream: Readable) -> NpyHeader:
    """Magic, version and header; the stream then stands before the first value.

    Raises:
        DataError: it is damaged, or promises other things than numbers; the message begins with what is wrong.
    """
    start = bytes(read_up_to(stream, 10))
    if len(start) < 10 or not start.startswith(MAGIC):
        raise DataError(f"is no .npy array: it starts {start[:8].hex(' ') or '(empty)'}")
    if start[6:8] != b"\x01\0":
        raise DataError(f"is of npy version {start[6]}.{start[7]}, not of 1.0")
    length = int.from_bytes(start[8:], "little")
    if length > _MOST_HEADER:
        raise DataError(f"is damaged: its header promises to be {length:,} bytes long")
    text = read_up_to(stream, length)
    if len(text) < length:
        raise DataError("is damaged: it ends inside its header")
    return _parsed(text.decode("latin-1"), 10 + length)


def _parsed(text: str, size: int) -> NpyHeader:
    """A header from its text: three entries in any order."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise DataError(f"is damaged: its header is {text[:40]!r}")
    inside, place = text[1:-1].rstrip(), 0
    entries: dict[str, str] = {}
    while place < len(inside):
        entry = _ENTRY.match(inside, place)
        if entry is None:
            raise DataError(f"must hold numbers, got the header {text[:80]!r}: objects and records are never loaded")
        entries |= {name: value for name, value in entry.groupdict().items() if value is not None}
        place = entry.end()
    if not {"descr", "order", "size"} <= entries.keys():
        raise DataError(f"is damaged: its header lacks dtype, order or shape: {text[:80]!r}")
    return NpyHeader(_dtype(entries["dtype"]), _shape(entries["shape"]), entries["fortran"] == "True", size)


def _dtype(text: str) -> np.dtype[Any]:
    # Texts of a fixed length may be labels; where numbers are wanted they are refused like any other.
    if re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|U[1-9][0-9]{0,3})", text) is None:
        raise DataError(f"must hold numbers, got {text!r}: objects are never loaded")
    return np.dtype(text)


def _shape(text: str) -> tuple[int, ...]:
    sizes = [part.strip() for part in text.split(",")]
    if len(sizes) > 1 and not sizes[-1]:
        sizes.pop()  # (3,) as well as (3, 4); () is one empty part
    if sizes == [""]:
        return ()
    if len(sizes) > _MOST_DIMENSIONS or not all(_NUMBER.fullmatch(part) for part in sizes):
        raise DataError(f"is damaged: its shape is ({text[:80].strip()})")
    return tuple(int(part.rstrip("L")) for part in sizes)
