"""The IDX format of the MNIST files: two zero bytes, type, number of dimensions, sizes, values (big-endian).

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", file formats.
"""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.data.formats.bounded import MAX_RATIO, MAX_UNPACKED, Readable, opened, read_up_to
from gpunn.data.memmap import is_to_map, mapped
from gpunn.errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IMAGES, LABELS = "images", "labels"
_EXPECTED = {IMAGES: (3, 4), LABELS: (1,)}
_MAX_DIMENSIONS = 8


def read_idx(path: str | PathLike[str]) -> NDArray[Any]:
    """Any IDX file, gzipped or not.

    Args:
        path: the file.

    Returns:
        The array in this machine's byte order.

    Raises:
        DataError: missing, truncated, damaged or oversized file, or none in this format.
    """
    return _read(Path(path), None)


def read_images(path: str | PathLike[str], memory_map: bool | None = False) -> NDArray[np.uint8]:
    """Images of bytes, (n, height, width, channels); a file of three dimensions has one channel.

    Args:
        path: the file.
        memory_map: whether they stay in the file; None where it is large and not gzipped.

    Raises:
        DataError: as `read_idx`, or the file holds something else, or is to be mapped and gzipped.
    """
    array = _read(Path(path), IMAGES, memory_map)
    return array if array.ndim == 4 else array[..., None]


def read_labels(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Labels of one byte, (n,).

    Raises:
        DataError: as `read_idx`, or the file holds something else.
    """
    return _read(Path(path), LABELS)


def idx_header(dtype: DTypeLike, shape: Sequence[int]) -> bytes:
    """The bytes that stand before the values.

    Args:
        dtype: uint8, int8, int16, int32, float32 or float64.
        shape: sizes below 2**32.

    Returns:
        4 + 4 * len(shape) bytes.
    """
    code = next(code for code, kind in DTYPES.items() if np.dtype(kind) == np.dtype(dtype).newbyteorder(">"))
    return bytes((0, 0, code, len(shape))) + b"".join(int(size).to_bytes(4, "big") for size in shape)


def _read(path: Path, kind: str | None, memory_map: bool | None = False) -> NDArray[Any]:
    with opened(path) as (stream, file_size):
        dtype, shape = _read_header(path, stream, kind)
        promised = math.prod(shape) * dtype.itemsize
        header_size = 4 + 4 * len(shape)
        shown = f"{_times(shape)} {dtype.newbyteorder('=')} values, {promised:,} bytes"
        if file_size is None:
            _check_gzip(path, promised, shown)
        elif file_size != header_size + promised:
            raise DataError(_wrong_size(path, shown, file_size - header_size, promised))
        if is_to_map(path, promised, memory_map, is_packed=file_size is None):
            return mapped(path, dtype, shape, header_size)
        data = read_up_to(stream, promised, str(path))
        if len(data) < promised:
            raise DataError(_wrong_size(path, shown, len(data), promised))
        if stream.read(1):
            raise DataError(f"{path}: its header promises {shown}, but more follow: get the file again")
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder())


def _read_header(path: Path, stream: Readable, kind: str | None) -> tuple[np.dtype[Any], tuple[int, ...]]:
    start = read_up_to(stream, 4)
    if len(start) < 4:
        raise DataError(f"{path}: expected an IDX file, got {len(start)} bytes in all: get the file again")
    zeros, code, dimensions = bytes(start[:2]), start[2], start[3]
    if zeros != b"\0\0" or code not in DTYPES or not 1 <= dimensions <= _MAX_DIMENSIONS:
        wanted = f" with {kind}" if kind else ""
        raise DataError(
            f"{path}: expected an IDX file{wanted} (it starts {_example(kind)}), got one that starts "
            f"{start.hex(' ')}: this is another format, or damaged"
        )
    if kind and (code != 0x08 or dimensions not in _EXPECTED[kind]):
        raise DataError(
            f"{path}: expected {kind} ({_example(kind)}), got {_found(code, dimensions)} ({start.hex(' ')}): "
            "the files may have been exchanged"
        )
    sizes = read_up_to(stream, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(
            f"{path}: ends inside its header, expected {4 + 4 * dimensions} bytes, got {4 + len(sizes)} bytes: "
            "get the file again"
        )
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if 0 in shape:
        raise DataError(f"{path}: its header promises {_times(shape)} values, which is none: get the file again")
    return np.dtype(DTYPES[code]), shape


def _check_gzip(path: Path, promised: int, shown: str) -> None:
    packed = path.stat().st_size
    if promised > MAX_RATIO * packed:
        raise DataError(
            f"{path}: its header promises {shown}, which {packed:,} bytes of gzip cannot hold: get the file again"
        )
    if promised > MAX_UNPACKED:
        raise DataError(
            f"{path}: its header promises {shown}, more than the {MAX_UNPACKED >> 30} GiB read from a "
            "gzipped file: unpack it with gunzip if it is really that large"
        )


def _wrong_size(path: Path, shown: str, got: int, promised: int) -> str:
    what = f"cut short by {promised - got:,} bytes" if got < promised else f"{got - promised:,} bytes too long"
    return f"{path}: its header promises {shown}, got {got:,} bytes, {what}: get the file again"


def _example(kind: str | None) -> str:
    return {IMAGES: "00 00 08 03", LABELS: "00 00 08 01"}.get(kind or "", "00 00")


def _found(code: int, dimensions: int) -> str:
    if code == 0x08 and dimensions in (1, 3, 4):
        return LABELS if dimensions == 1 else IMAGES
    return f"{np.dtype(DTYPES[code]).newbyteorder('=')} values in {dimensions} dimensions"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
