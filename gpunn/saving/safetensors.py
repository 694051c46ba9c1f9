"""Write and read arrays as safetensors files; nothing in a file is executed.

    eight bytes     length of the header
    header          JSON: type, shape and byte offsets of each array, and texts under __metadata__
    values          little-endian, one array after another, without gaps

Source: https://github.com/huggingface/safetensors, "Format".
The safetensors library takes a kilobyte for each name of a hostile file, and crashes if a mapped file is truncated.
"""

import io
import json
import os
from math import prod
from typing import Any, NoReturn

import numpy as np

from gpunn.backend.limits import require
from gpunn.errors import DataError
from gpunn.nn.parameter import Arrays

Layout = dict[str, tuple[tuple[int, ...], str]]  # shape and dtype by name, in the order of the values

_METADATA = "__metadata__"
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"}
_TYPES |= {f"{kind}{bits}": f"{word}{bits}" for kind, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)}
_WORDS = {word: kind for kind, word in _TYPES.items()}
_BFLOAT16 = "bfloat16"  # the upper half of a float32, and read as float32: NumPy has no bfloat16
_TYPES["BF16"] = _BFLOAT16
_MOST_DIMENSIONS = 8


def to_bytes(arrays: Arrays, metadata: dict[str, str] | None = None) -> bytes:
    """Return the content of a file with these arrays."""
    # The widest types first, so that each array is aligned to its item size.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, Any] = {} if metadata is None else {_METADATA: metadata}
    place = 0
    for name, array in ordered:
        offsets = [place, place := place + array.nbytes]
        header[name] = {"dtype": _WORDS[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    values = (np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for _, array in ordered)
    return b"".join((len(text).to_bytes(8, "little"), text, *values))


def read_header(file: io.BufferedReader, most_bytes: int) -> tuple[dict[str, str], Layout]:
    """Read metadata and layout from a header of at most `most_bytes` (in memory thirty times that); check offsets."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise DataError(f"its header promises {length:,} bytes, the file has {size:,}")
    if length > most_bytes:
        raise DataError(f"its header promises {length:,} bytes, at most {most_bytes:,} are read")
    try:
        table = strict_json(file.read(length))
    except (ValueError, RecursionError) as error:
        raise DataError(f"its header is no JSON ({error})") from None
    if not isinstance(table, dict):
        raise DataError("its header is no table")
    metadata = table.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DataError(f"its {_METADATA} are no texts")
    place, layout = 0, {}
    for begin, end, name, shape, dtype in sorted(_entry(name, entry) for name, entry in table.items()):
        if begin != place:
            raise DataError(f"the place of {name!r:.80} begins at byte {begin}, expected {place}")
        layout[name], place = (shape, dtype), end
    if place != size - 8 - length:
        raise DataError(f"its arrays take {place:,} bytes, the file has {size - 8 - length:,} for them")
    return metadata, layout


def _entry(name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...], str]:
    """Validate the entry of an array; return begin, end, name, shape and dtype."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{name!r:.80} must have dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise DataError(f"{name!r:.80} has the type {kind!r:.80}, expected one of {', '.join(_TYPES)}")
    if not _are_sizes(shape, _MOST_DIMENSIONS) or not _are_sizes(offsets, 2) or len(offsets) < 2:
        raise DataError(f"{name!r:.80} has no shape of up to {_MOST_DIMENSIONS} sizes, or no begin and end")
    begin, end = offsets
    if (nbytes := prod(shape) * _stored(_TYPES[kind]).itemsize) != end - begin:
        raise DataError(f"{name!r:.80} takes {nbytes} bytes, its place has {end - begin}")
    return begin, end, name, tuple(shape), _TYPES[kind]


def _are_sizes(values: Any, most: int) -> bool:
    return isinstance(values, list) and len(values) <= most and all(type(n) is int and 0 <= n < 2**63 for n in values)


def strict_json(content: bytes) -> Any:
    """Parse JSON; raise ValueError for NaN or a duplicate name, RecursionError for deep nesting."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a name stands in it twice")
        return made

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    return json.loads(content.decode("utf-8"), object_pairs_hook=table, parse_constant=refuse)


def read_values(file: io.BufferedReader, layout: Layout, what: str) -> Arrays:
    """Read the arrays of a layout from a file positioned behind its header; `what` names the file in errors."""
    require(sum(prod(shape) * _stored(dtype).itemsize for shape, dtype in layout.values()), what)
    arrays = {}
    for name, (shape, dtype) in layout.items():
        array = np.empty(shape, _stored(dtype).newbyteorder("<"))
        if array.size and file.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise DataError(f"it ends within {name!r:.80}")
        if dtype == _BFLOAT16:
            arrays[name] = (array.astype(np.uint32) << 16).view(np.float32)
        else:
            arrays[name] = array.astype(dtype, copy=False)
    return arrays


def _stored(dtype: str) -> np.dtype[Any]:
    """Return the dtype of the stored values."""
    return np.dtype(np.uint16 if dtype == _BFLOAT16 else dtype)
