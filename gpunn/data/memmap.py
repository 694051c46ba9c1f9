"""Keep arrays in their file: rows are read in use, so data sets may be larger than memory."""

import mmap
from collections.abc import Iterator
from math import prod
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

_BLOCK = 16 << 20


class Rows:
    """Rows of an array that stays in its file, by their numbers; indexing reads them."""

    in_file = True

    def __init__(self, array: NDArray[Any], numbers: NDArray[np.integer]) -> None:
        self.array, self.numbers = array, numbers
        self.shape = (len(numbers), *array.shape[1:])
        self.ndim, self.dtype, self.size = array.ndim, array.dtype, prod(self.shape)
        self.nbytes = self.size * array.itemsize

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows: NDArray[Any] = self.array[self.numbers[key]]
        return rows

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def reshape(self, *shape: int) -> Self:
        """Reshape each sample without reading it; `shape` is (rows, *sample)."""
        return type(self)(self.array.reshape(len(self.array), *shape[1:]), self.numbers)

    def only(self, key: NDArray[Any] | slice) -> Self:
        """Select some of these rows without reading them."""
        return type(self)(self.array, self.numbers[key])


Inputs: TypeAlias = NDArray[Any] | Rows
"""Inputs of samples: an array, in memory or in its file, or rows of one in a file or on a device."""


def is_mapped(values: Any) -> bool:
    """Return whether an array, or the base of a view, is a memory map."""
    while isinstance(values, np.ndarray):
        values = values.base
    return isinstance(values, mmap.mmap) or (isinstance(values, Rows) and values.in_file)


def in_blocks(values: Inputs, most: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the rows in blocks of at most `most` bytes, or one row, each with the number of its first row."""
    values = values if values.ndim else values.reshape(1)  # a single number
    rows = max(1, (most or _BLOCK) * len(values) // max(1, values.nbytes))
    for start in range(0, len(values), rows):
        yield start, values[start : start + rows]
