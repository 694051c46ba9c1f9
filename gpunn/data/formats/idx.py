"""Read the IDX format of the MNIST files: two zero bytes, type, number of dimensions, sizes, values (big-endian).

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", file formats.
"""

import struct
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.data.formats.bounded import Header, Readable, check_packed, opened, read_array, read_up_to
from gpunn.errors import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_EXPECTED = {"images": ((3, 4), "00 00 08 03"), "labels": ((1,), "00 00 08 01"), "": ((), "00 00")}
_MAX_DIMENSIONS = 8


def read_idx(path: str | PathLike[str]) -> NDArray[Any]:
    """Read any IDX file, gzipped or not, in this machine's byte order; raise DataError for any other file."""
    return _read(Path(path), "")


def read_images(path: str | PathLike[str], memory_map: bool | None = False) -> NDArray[np.uint8]:
    """Read images of bytes, (n, height, width, channels); with `memory_map` they stay in the file."""
    array = _read(Path(path), "images", memory_map)
    return array if array.ndim == 4 else array[..., None]


def read_labels(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Read labels of one byte, (n,)."""
    return _read(Path(path), "labels")


def check_counts(x: Path, images: NDArray[Any], y: Path, labels: NDArray[Any]) -> None:
    """Raise a DataError unless there is a label for each image."""
    if len(images) != len(labels):
        got = f"{len(images):,} images, {y.name} {len(labels):,} labels"
        raise DataError(f"{x} holds {got}: get two files that belong together")


def idx_header(dtype: DTypeLike, shape: Sequence[int]) -> bytes:
    """Return the header of an array, 4 + 4 * len(shape) bytes."""
    code = next(code for code, kind in _DTYPES.items() if np.dtype(kind) == np.dtype(dtype).newbyteorder(">"))
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)


def _read(path: Path, kind: str, memory_map: bool | None = False) -> NDArray[Any]:
    with opened(path) as (stream, file_size):
        header = _read_header(path, stream, kind)
        if file_size is None:
            mend = "get the file again, or unpack it with gunzip if it is really that large"
            check_packed(f"{path}: its header", header.nbytes, path.stat().st_size, mend)
        else:
            header.check_size(file_size - header.size, str(path))
        array = read_array(path, stream, header, memory_map, is_packed=file_size is None)
        if file_size is None and stream.read(1):
            raise DataError(f"{path}: its header promises {header}, but more follow: get the file again")
    is_kept = array.dtype.isnative or not array.flags.writeable
    return array if is_kept else array.byteswap(inplace=True).view(array.dtype.newbyteorder())


def _read_header(path: Path, stream: Readable, kind: str) -> Header:
    start = read_up_to(stream, 4)
    if len(start) < 4:
        raise DataError(f"{path}: expected an IDX file, got {len(start)} bytes in all: get the file again")
    (ranks, example), code, dimensions = _EXPECTED[kind], start[2], start[3]
    if start[:2] != b"\0\0" or code not in _DTYPES or not 1 <= dimensions <= _MAX_DIMENSIONS:
        wanted = f" with {kind}" if kind else ""
        got = f"got one that starts {start.hex(' ')}: this is another format, or damaged"
        raise DataError(f"{path}: expected an IDX file{wanted} (it starts {example}), {got}")
    dtype = np.dtype(_DTYPES[code])
    if kind and (code != 0x08 or dimensions not in ranks):
        known = {1: "labels", 3: "images", 4: "images"} if code == 0x08 else {}
        found = known.get(dimensions, f"{dtype.newbyteorder('=')} values in {dimensions} dimensions")
        got = f"got {found} ({start.hex(' ')}): the files may have been exchanged"
        raise DataError(f"{path}: expected {kind} ({example}), {got}")
    size, sizes = 4 + 4 * dimensions, read_up_to(stream, 4 * dimensions)
    if 4 + len(sizes) < size:
        got = f"got {4 + len(sizes)} bytes: get the file again"
        raise DataError(f"{path}: ends inside its header, expected {size} bytes, {got}")
    header = Header(dtype, struct.unpack(f">{dimensions}I", sizes), size)
    if not header.nbytes:
        raise DataError(f"{path}: its header promises {header}, which is none: get the file again")
    return header
