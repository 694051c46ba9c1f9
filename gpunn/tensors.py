"""Arrays as safetensors files: numbers with names, types and shapes, and nothing that could be executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError
from gpunn.state import Arrays

Layout = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each array that a file must hold."""

_TYPES = {"F32": "float32", "F64": "float64"}
# What name, type and place of one array take in a header, and what the description of a network takes, with room to
# spare: reading a header takes several times its size.
_HEADER_BYTES, _DESCRIPTION_BYTES = 1 << 10, 1 << 20


def layout_of(arrays: Mapping[str, NDArray[np.generic]]) -> Layout:
    """What a file of these arrays looks like."""
    return {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def to_bytes(arrays: Arrays, metadata: dict[str, str] | None = None) -> bytes:
    """The content of a file that holds these arrays."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=metadata)


def read_arrays(path: Path, layout: Layout) -> Arrays:
    """The arrays of a file that must hold these and no others: sizes are compared before memory is taken.

    Raises:
        DataError: the file is missing, damaged, or holds other arrays; the message begins with what is wrong.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > _DESCRIPTION_BYTES + _HEADER_BYTES * len(layout):
            raise DataError(f"its header promises {header:,} bytes, far more than {len(layout)} arrays need")
        with safe_open(path, framework="numpy") as file:
            found: Layout = {}
            for name in file.keys():  # noqa: SIM118 - not a dict
                part = file.get_slice(name)
                found[name] = (tuple(part.get_shape()), _TYPES.get(part.get_dtype(), part.get_dtype()))
            if difference := different(found, layout):
                raise DataError(difference)
            return {name: file.get_tensor(name) for name in layout}
    except DataError:
        raise
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(text if len(text) <= 300 else f"{text[:300]}…") from None


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
