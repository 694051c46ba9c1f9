"""Two ways to make the matrix products of a convolution: by patches, on any device, and by rows, on the CPU.

Both compute the same sums. Patches are the textbook's im2col, few large products: what a GPU likes. Rows need a
`size`-th of its copies, with a product for each row of the output: what a cache likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from gpunn.kernels.convolution import Geometry, col2im, im2col
from gpunn.kernels.kernel import Array
from gpunn.layers.base import BuildContext
from gpunn.parameter import Parameter


@dataclass(frozen=True)
class Extent:
    """The sizes of a convolution: `filters` of `size`, over images of (channels, height, width), at (rows, columns)."""

    filters: int
    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    channels: int
    height: int
    width: int
    rows: int
    columns: int


class Products(Protocol):
    """Z = W A, ∂C/∂W = Δ Aᵀ and ∂C/∂A = Wᵀ Δ, where A holds what each filter sees at each place."""

    def forward(self, w: Parameter, x: Array, z: Array) -> None:
        """z := the products; x is (channels, height, width, n), z (filters, rows, columns, n)."""

    def weight_gradient(self, x: Array, delta: Array, w: Parameter) -> None:
        """Set the gradient of w; delta is like z."""

    def input_gradient(self, w: Parameter, delta: Array, dx: Array) -> None:
        """dx := ∂C/∂x."""


class PatchProducts:
    """All patches of a block of output rows as the columns of one matrix (im2col).

    Args:
        context: where memory comes from.
        extent: of the convolution.
    """

    def __init__(self, context: BuildContext, extent: Extent) -> None:
        self._backend, self._extent = context.backend, extent
        self._geometry: Geometry = (*extent.size, *extent.stride, *extent.padding)
        self._taps = extent.channels * extent.size[0] * extent.size[1]
        row = self._taps * extent.columns
        fitting = context.backend.block_elements // (row * context.batch_size)
        self._block = max(1, min(extent.rows, fitting))
        self._columns = context.scratch((self._block * row * context.capacity,))

    def forward(self, w: Parameter, x: Array, z: Array) -> None:
        z = z.reshape(len(z), -1)
        for columns, span, _, _ in self._blocks(x.shape[3]):
            self._fill(x, columns, span)
            self._backend.gemm(1.0, w.matrix, columns, 0.0, z[:, span])

    def weight_gradient(self, x: Array, delta: Array, w: Parameter) -> None:
        delta = delta.reshape(len(delta), -1)
        for columns, span, first, _ in self._blocks(x.shape[3]):
            self._fill(x, columns, span)
            self._backend.gemm(1.0, delta[:, span], columns.T, 1.0 if first else 0.0, w.gradient_matrix)

    def input_gradient(self, w: Parameter, delta: Array, dx: Array) -> None:
        delta = delta.reshape(len(delta), -1)
        for columns, span, first, last in self._blocks(dx.shape[3]):
            self._backend.gemm(1.0, w.matrix.T, delta[:, span], 0.0, columns)
            where = (first, last - first, self._extent.columns, self._geometry)
            self._backend.run(col2im, columns, *where, first > 0, dx)

    def _blocks(self, n: int) -> Iterator[tuple[Array, slice, int, int]]:
        """For each block of output rows: its columns of A, where it lies in z, its first row and its end."""
        rows, width = self._extent.rows, self._extent.columns * n
        for first in range(0, rows, self._block):
            last = min(first + self._block, rows)
            span = slice(first * width, last * width)
            yield self._columns[: self._taps * (last - first) * width].reshape(self._taps, -1), span, first, last

    def _fill(self, x: Array, columns: Array, span: slice) -> None:
        width = self._extent.columns
        self._backend.run(im2col, x, span.start // (width * x.shape[3]), width, self._geometry, columns)


class RowProducts:
    """Input rows, widened to what each place of a filter's row sees; a filter's height of them is a window of memory.

    Input row p becomes R[p], (channels · size_w, columns · n): entry (c, v) is row p of channel c, shifted by v. What
    the filters see from output row i is R[i·stride : i·stride + size_h], which lies in one piece, so
    z[:, i] = W R[i·stride …] with W as (filters, size_h · channels · size_w). In back-propagation the output rows that
    see input row p lie next to each other, in Δ with its rows first, so one product gives all of ∂C/∂R[p]. So only
    size_w of the size_h · size_w copies of im2col, and of the sums of col2im, are made.

    Args:
        context: where memory comes from; the CPU.
        extent: of the convolution.
    """

    def __init__(self, context: BuildContext, extent: Extent) -> None:
        self._backend, self._extent = context.backend, extent
        row = extent.channels * extent.size[1] * extent.columns
        fitting = context.backend.block_elements // (row * context.batch_size)
        self._block = max(1, min(extent.rows, fitting))
        window = (self._block - 1) * extent.stride[0] + extent.size[0]
        self._scratch = context.scratch((window * row * context.capacity,))
        self._taps = extent.size[0] * extent.channels * extent.size[1]
        self._gradient = context.scratch((self._taps, extent.filters))
        pixels = extent.filters * extent.rows * extent.columns if context.needs_input_gradient else 0
        self._turned = context.scratch((pixels * context.capacity,))

    def forward(self, w: Parameter, x: Array, z: Array) -> None:
        matrix = self._arranged(w.value)
        z = z.reshape(*z.shape[:2], -1)
        for row, window in self._windows(x):
            self._backend.gemm(1.0, matrix, window, 0.0, z[:, row])

    def weight_gradient(self, x: Array, delta: Array, w: Parameter) -> None:
        delta = delta.reshape(*delta.shape[:2], -1)
        for row, window in self._windows(x):
            # (A Δᵀ) rather than (Δ Aᵀ): with the longer side first OpenBLAS is up to twice as fast.
            self._backend.gemm(1.0, window, delta[:, row].T, 1.0 if row else 0.0, self._gradient)
        e = self._extent
        gradient: Array = w.grad
        gradient[...] = self._gradient.reshape(e.size[0], e.channels, e.size[1], e.filters).transpose(3, 1, 0, 2)

    def input_gradient(self, w: Parameter, delta: Array, dx: Array) -> None:
        e, n = self._extent, dx.shape[3]
        turned = self._turned[: delta.size].reshape(e.rows, e.filters, -1)
        np.copyto(turned, delta.reshape(e.filters, e.rows, -1).swapaxes(0, 1))
        turned = turned.reshape(e.rows * e.filters, -1)
        row = self._scratch[: e.channels * e.size[1] * turned.shape[1]].reshape(-1, turned.shape[1])
        matrices = [self._seen_from(w.value, remainder) for remainder in range(e.stride[0])]
        for y in range(e.height):
            last, remainder = divmod(y + e.padding[0], e.stride[0])
            matrix = matrices[remainder]
            first = last + 1 - matrix.shape[1] // e.filters
            begin, end = max(0, first), min(e.rows, last + 1)
            target = dx[:, y]
            target.fill(0)
            if begin >= end:
                continue  # no filter sees this row
            some = matrix[:, (begin - first) * e.filters : (end - first) * e.filters]
            self._backend.gemm(1.0, some, turned[begin * e.filters : end * e.filters], 0.0, row)
            shifted = row.reshape(e.channels, e.size[1], e.columns, n)
            for v, seen, columns in self._shifts():
                target[:, seen] += shifted[:, v, columns]

    def _seen_from(self, w: Array, remainder: int) -> Array:
        """W as (channels · size_w, places · filters), for input rows whose number leaves this remainder by the stride.

        Such a row is seen at the filter's rows u = remainder, remainder + stride, …, by output rows that lie next to
        each other; the larger u, the earlier the output row.
        """
        places = np.arange(remainder, self._extent.size[0], self._extent.stride[0])[::-1]
        return np.ascontiguousarray(w[:, :, places].transpose(1, 3, 2, 0)).reshape(w.shape[1] * w.shape[3], -1)

    def _blocks(self, n: int) -> Iterator[tuple[int, Array]]:
        """For each block of output rows: its first, and memory for R of all of it."""
        e = self._extent
        for first in range(0, e.rows, self._block):
            count = (min(first + self._block, e.rows) - first - 1) * e.stride[0] + e.size[0]
            shape = (count, e.channels, e.size[1], e.columns, n)
            yield first, self._scratch[: prod(shape)].reshape(shape)

    def _windows(self, x: Array) -> Iterator[tuple[int, Array]]:
        """For each output row: its number, and what the filters see from it."""
        e = self._extent
        for first, rows in self._blocks(x.shape[3]):
            done = 0
            for at in range(0, len(rows) - e.size[0] + 1, e.stride[0]):
                # Only now, so that the rows are still in the cache when they are multiplied.
                self._widen(x, rows, max(done, at), at + e.size[0], first * e.stride[0] - e.padding[0])
                done = at + e.size[0]
                yield first + at // e.stride[0], rows[at:done].reshape(self._taps, -1)

    def _widen(self, x: Array, rows: Array, begin: int, end: int, top: int) -> None:
        """Fill rows begin to end of R; its row p is row top + p of the image, zero outside."""
        e = self._extent
        inside = slice(min(max(begin, -top), end), max(min(end, e.height - top), begin))
        rows[begin : inside.start] = 0
        rows[max(inside.stop, inside.start) : end] = 0
        if inside.start >= inside.stop:
            return
        picture = x[:, top + inside.start : top + inside.stop].swapaxes(0, 1)
        for v, seen, columns in self._shifts():
            target = rows[inside, :, v]
            target[:, :, : columns.start] = 0
            target[:, :, columns.stop :] = 0
            target[:, :, columns] = picture[:, :, seen]

    def _shifts(self) -> Iterator[tuple[int, slice, slice]]:
        """For each place v in a filter's row: the image columns seen there, and the output columns that see them."""
        e = self._extent
        (_, stride), left = e.stride, e.padding[1]
        for v in range(e.size[1]):
            begin = max(0, -((v - left) // stride))
            end = max(begin, min(e.columns, (e.width - 1 - v + left) // stride + 1))
            at = begin * stride + v - left
            yield v, slice(max(at, 0), max(at + (end - begin - 1) * stride + 1, 0), stride), slice(begin, end)

    def _arranged(self, w: Array) -> Array:
        """W as (filters, size_h · channels · size_w): the order in which a window lies in memory."""
        return np.ascontiguousarray(w.transpose(0, 2, 1, 3)).reshape(len(w), -1)
