"""Arrays as safetensors files: numbers with names, types and shapes, and nothing that could be executed.

    eight bytes     length of the header
    header          JSON: of each array its type, shape and place; and texts under __metadata__
    values          little-endian, one array after another, without gaps

Source: https://github.com/huggingface/safetensors, "Format".

Written and read here, since what the library of that name does with a hostile file is not bounded: it takes a kilobyte
for each name, and it maps the file, so that one which is cut short meanwhile kills the process.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError
from gpunn.limits import require
from gpunn.state import Arrays
from gpunn.storage import open_regular

Layout = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each array of a file."""

METADATA = "__metadata__"
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"}
_TYPES |= {f"{kind}{bits}": f"{word}{bits}" for kind, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)}
_WORDS = {word: kind for kind, word in _TYPES.items()}
_ALIGNMENT = 8
_MOST_DIMENSIONS = 8
# What name, type and place of one array take in a header, and what the description of a network takes, with room to
# spare: reading a header takes up to thirty times its size.
_HEADER_BYTES, DESCRIPTION_BYTES = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Header:
    """What a file says of itself, and what is true of its size.

    Attributes:
        metadata: texts by name.
        layout: of the arrays, in the order of their values.
        start: where the values begin.
    """

    metadata: dict[str, str]
    layout: Layout
    start: int


def layout_of(arrays: Mapping[str, NDArray[np.generic]]) -> Layout:
    """What a file of these arrays looks like."""
    return {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def to_bytes(arrays: Arrays, metadata: dict[str, str] | None = None) -> bytes:
    """The content of a file that holds these arrays."""
    # The widest first, so that each begins at a multiple of its own width.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {} if metadata is None else {METADATA: metadata}
    place = 0
    for name in names:
        array = arrays[name]
        offsets = [place, place := place + array.nbytes]
        header[name] = {"dtype": _WORDS[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT)
    values = (np.ascontiguousarray(arrays[name], _little(str(arrays[name].dtype))).tobytes() for name in names)
    return b"".join((len(text).to_bytes(8, "little"), text, *values))


def read_arrays(path: Path, layout: Layout) -> Arrays:
    """The arrays of a file that must hold these and no others: sizes are compared before memory is taken.

    Raises:
        DataError: the file is missing, damaged, or holds other arrays; the message begins with what is wrong.
        MemoryShortageError: there is less memory than the arrays need.
    """
    try:
        with open_regular(path, follow_links=False) as file:
            header = read_header(file, DESCRIPTION_BYTES + _HEADER_BYTES * len(layout))
            if difference := different(header.layout, layout):
                raise DataError(difference)
            return read_values(file, header, str(path))
    except OSError as error:
        raise DataError(error.strerror or str(error)) from None


def read_header(file: io.BufferedReader, most_bytes: int) -> Header:
    """What stands before the values; the file then stands at the first of them, and holds all that is promised.

    Args:
        file: to read from its begin.
        most_bytes: length of a header that is taken for one.

    Raises:
        DataError: the file is damaged, or none in this format; the message begins with what is wrong.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise DataError(f"its header promises {length:,} bytes, the file has {size:,}")
    if length > most_bytes:
        raise DataError(f"its header promises {length:,} bytes, at most {most_bytes:,} are read")
    try:
        table = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_table, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its header is no JSON ({error})") from None
    if not isinstance(table, dict):
        raise DataError("its header is no table")
    metadata = table.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DataError(f"its {METADATA} are no texts")
    entries = sorted((_entry(name, entry) for name, entry in table.items()), key=lambda entry: entry[:2])
    place, layout = 0, {}
    for begin, end, name, shape, dtype in entries:
        if begin != place:
            raise DataError(f"the place of {name!r:.80} begins at byte {begin}, expected {place}")
        layout[name] = shape, dtype
        place = end
    if place != size - 8 - length:
        raise DataError(f"its arrays take {place:,} bytes, the file has {size - 8 - length:,} for them")
    return Header(metadata, layout, 8 + length)


def read_values(file: io.BufferedReader, header: Header, what: str) -> Arrays:
    """The arrays that a header promises, from a file that stands behind it.

    Args:
        file: as `read_header` left it.
        header: that was read.
        what: the file is called where there is too little memory.

    Raises:
        DataError: the file has become shorter.
        MemoryShortageError: there is less memory than the arrays need.
    """
    require(sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in header.layout.values()), what)
    arrays = {}
    for name, (shape, dtype) in header.layout.items():
        array = np.empty(shape, _little(dtype))
        if array.size and file.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise DataError(f"it ends within {name!r:.80}")
        arrays[name] = array.astype(dtype, copy=False)
    return arrays


def different(found: Layout, wanted: Layout) -> str:
    """The first differences between the arrays that are there and those that are wanted, in words; "" if none."""
    words = []
    for name in sorted(wanted.keys() - found.keys())[:3]:
        words.append(f"{name} {_described(wanted[name])} is missing")
    for name in sorted(found.keys() - wanted.keys())[:3]:
        words.append(f"{name[:80]!r} {_described(found[name])} is not expected")
    changed = [name for name in wanted if name in found and found[name] != wanted[name]]
    for name in changed[:3]:
        words.append(f"{name} is {_described(found[name])}, expected {_described(wanted[name])}")
    return "; ".join(words[:5])


def _described(entry: tuple[tuple[int, ...], str]) -> str:
    shape, dtype = entry
    return f"{dtype} ({', '.join(map(str, shape))})"


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _entry(name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...], str]:
    """Begin, end, name, shape and dtype of an array, its size as long as its place."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{name!r:.80} must have dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise DataError(f"{name!r:.80} has the type {kind!r:.80}, expected one of {', '.join(_TYPES)}")
    if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS or not _are_sizes(offsets) or len(offsets) != 2:
        raise DataError(f"{name!r:.80} has no shape of up to {_MOST_DIMENSIONS} sizes, or no begin and end")
    dtype = _TYPES[kind]
    if (nbytes := prod(shape) * np.dtype(dtype).itemsize) != offsets[1] - offsets[0]:
        raise DataError(f"{name!r:.80} takes {nbytes} bytes, its place has {offsets[1] - offsets[0]}")
    return offsets[0], offsets[1], name, tuple(shape), dtype


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
