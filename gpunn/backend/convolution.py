"""Compute the matrix products of a convolution, Z = W A, ∂C/∂W = Δ Aᵀ and ∂C/∂A = Wᵀ Δ, in two ways.

By patches: the textbook's im2col, few large products, best for a GPU. By rows of the image: many small products, best
for the caches of a CPU, with one copy of the image instead of size².
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

import numpy as np

from gpunn.backend import blas
from gpunn.backend.base import Backend, Scratch
from gpunn.backend.convolution_shape import ConvolutionShape, Products, seen_rows
from gpunn.backend.strided_convolution import StridedInputGradient
from gpunn.kernels.convolution import col2im, im2col
from gpunn.kernels.image_grid import Geometry
from gpunn.kernels.record import Array

_SHORT = 16  # terms of a sum: with fewer, BLAS is slow
_LEAST = 4  # fewest output rows of a block, to have work for all cores
_PARTS = 8  # output rows whose weight gradients are computed side by side; fixed, since it sets the order of a sum
_Work = list[Callable[[], object]]


class PatchProducts(Products):
    """Multiply by patches: those of a block of output rows are the columns of one matrix A (im2col)."""

    def __init__(self, backend: Backend, shape: ConvolutionShape, scratch: Scratch) -> None:
        self._backend, self._shape = backend, shape
        self._geometry: Geometry = (*shape.size, *shape.stride, *shape.padding)
        self._taps = shape.channels * shape.size[0] * shape.size[1]
        row = self._taps * shape.columns
        self._block = max(1, min(shape.rows, backend.block_elements // (row * shape.batch_size)))
        if backend.device != "cpu":  # equal blocks fill the device evenly; a CPU keeps the order of its sums
            self._block = -(-shape.rows // -(-shape.rows // self._block))
        self._columns = scratch((self._block * row * shape.capacity,))

    def forward(self, w: Array, x: Array, z: Array) -> None:
        z = z.reshape(len(z), -1)
        for columns, span, _, _ in self._blocks(x.shape[3], x):
            self._backend.gemm(1.0, w, columns, 0.0, z[:, span])

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        delta = delta.reshape(len(delta), -1)
        for columns, span, first, _ in self._blocks(x.shape[3], x):
            self._backend.gemm(1.0, delta[:, span], columns.T, 1.0 if first else 0.0, gradient)

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        delta = delta.reshape(len(delta), -1)
        for columns, span, first, last in self._blocks(dx.shape[3]):
            self._backend.gemm(1.0, w.T, delta[:, span], 0.0, columns)
            rows = first, last - first, self._shape.rows
            self._backend.run(col2im, columns, *rows, self._shape.columns, self._geometry, dx)

    def _blocks(self, n: int, x: Array | None = None) -> Iterator[tuple[Array, slice, int, int]]:
        """Yield for each block of output rows: its columns of A, filled from x, its slice of z, first row and end."""
        rows, width = self._shape.rows, self._shape.columns * n
        for first in range(0, rows, self._block):
            last = min(first + self._block, rows)
            columns = self._columns[: self._taps * (last - first) * width].reshape(self._taps, -1)
            if x is not None:
                self._backend.run(im2col, x, first, self._shape.columns, self._geometry, columns)
            yield columns, slice(first * width, last * width), first, last


class RowProducts(Products):
    """Multiply by rows of the image, laid out rows first: (height, channels, width, n).

    In this layout the image rows under output row i are contiguous. So are, for one column v of the filter, the pixels
    that it meets along the row: a matrix A_v(i) of (size_h · channels, columns · n). Only the image is copied, to turn
    it rows first. With W_v, the weights of that column as (filters, size_h · channels),

        z(i) = Σ_v W_v A_v(i),   ∂C/∂W_v = Σ_i Δ(i) A_v(i)ᵀ,   ∂C/∂a(y), moved by v, += W_vᵀ Δ(y − size_h + 1 … y).

    The products add to their results, and those of different rows are independent, so BLAS gets them together. If
    their sums are short (an image of one channel), or the filter has a stride across, the filter's columns are laid
    out as channels, and the product includes Σ_v.
    """

    def __init__(
        self, backend: Backend, shape: ConvolutionShape, scratch: Scratch, needs_input_gradient: bool = True
    ) -> None:
        self._backend, self._shape, e = backend, shape, shape
        is_laid_out = e.stride[1] > 1 or e.channels * e.size[0] < _SHORT
        # The filter's columns are slots, laid out like channels, or moves along the row.
        self._slots, self._moves = (e.size[1], 1) if is_laid_out else (1, e.size[1])
        self._width = e.columns + self._moves - 1
        self._places = [*_shifts(e, self._slots, self._width)]
        self._taps = e.size[0] * e.channels * self._slots
        row = e.channels * self._slots * self._width
        # With strides, turning the image costs more than caches save: all of it is kept for the backward pass.
        elements = backend.block_elements * (4 if e.stride[1] > 1 else 1)
        self._block = min(e.rows, max(_LEAST, elements // (row * e.batch_size)))
        self._rows = scratch((((self._block - 1) * e.stride[0] + e.size[0]) * row * e.capacity,))
        self._weights = scratch((self._moves, e.filters, self._taps))
        # (moves, filters, rows, channels, slots), seen in the order of w.
        by_parts = self._weights.reshape(self._moves, e.filters, e.size[0], e.channels, self._slots)
        self._like_w: Array = by_parts.transpose(1, 3, 2, 0, 4)
        parts = max(1, min(_PARTS, self._block, elements // self._weights.size))
        self._parts = scratch((parts, self._moves, self._taps, e.filters))
        self._strided: StridedInputGradient | None = None
        if needs_input_gradient and e.stride[1] > 1:
            self._strided = StridedInputGradient(e, scratch, backend.block_elements)
        elif needs_input_gradient:
            self._turned = scratch((e.rows * e.filters * e.columns * e.capacity,))
            # Input rows with the same remainder modulo the stride meet the same rows of the filter.
            self._backward_weights = [scratch((e.size[1], e.channels, count * e.filters)) for count in e.met]
        self._plans: dict[str, tuple[Array, Array, _Work]] = {}

    def forward(self, w: Array, x: Array, z: Array) -> None:
        np.copyto(self._like_w, w.reshape(self._like_w.shape))
        self._do("forward", self._plan_forward, x, z)

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        """Compute the gradient of w; `is_turned` if the last `forward` was of this x, whose turned copy may be kept."""
        plan = self._plan_weight_gradient if is_turned else partial(self._plan_weight_gradient, is_turned=False)
        self._do("weight gradient" if is_turned else "weight gradient alone", plan, x, delta)
        e = self._shape
        total = np.add.reduce(self._parts).reshape(self._moves, e.size[0], e.channels, self._slots, e.filters)
        np.copyto(gradient.reshape(self._like_w.shape), total.transpose(4, 2, 1, 0, 3))

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        e = self._shape
        w = w.reshape(e.filters, e.channels, *e.size)
        if self._strided is not None:
            self._strided.take_weights(w)
            self._do("input gradient", self._strided.plan, delta, dx)
            return
        for first, weights in enumerate(self._backward_weights):
            seen = w[:, :, first :: e.stride[0]][:, :, ::-1]  # the larger u, the earlier the output row
            np.copyto(weights.reshape(e.size[1], e.channels, -1, e.filters), seen.transpose(3, 1, 2, 0))
        dx.fill(0)
        self._do("input gradient", self._plan_input_gradient, delta, dx)

    def _do(self, what: str, plan: Callable[[Array, Array], _Work], a: Array, b: Array) -> None:
        """Run the plan for these arrays, which are the same in every step; make it on the first call."""
        if (kept := self._plans.get(what)) is None or kept[0] is not a or kept[1] is not b:
            kept = self._plans[what] = a, b, plan(a, b)
        for work in kept[2]:
            work()

    def _plan_forward(self, x: Array, z: Array) -> _Work:
        z, n = z.reshape(*z.shape[:2], -1), x.shape[3]
        is_padded = any(self._shape.padding) and self._moves > 1
        # The zeros around the image add nothing to a sum, and are left out where that is free.
        work: _Work = [partial(z.fill, 0)] if is_padded else []
        shifts = [*_shifts(self._shape, self._moves, self._shape.columns)]
        for first, count, turn, seen in self._blocks(x):
            work.append(turn)
            for (v, _, places), matrices in zip(shifts, seen, strict=True):
                columns = slice(places.start * n, places.stop * n) if is_padded else slice(None)
                taps = [self._inside(first + i) if is_padded else slice(None) for i in range(count)]
                weights = [self._weights[v][:, part] for part in taps]
                pixels = [matrix[part, columns] for matrix, part in zip(matrices, taps, strict=True)]
                products = blas.planned_all(weights, pixels, [z[:, first + i, columns] for i in range(count)])
                work.append(partial(products, 1.0, 1.0 if v or is_padded else 0.0))
        return work

    def _inside(self, row: int) -> slice:
        """Return the slice of an output row's inputs that lies in the image, not in the padding."""
        e, step = self._shape, self._shape.channels * self._slots
        top = row * e.stride[0] - e.padding[0]
        begin = min(max(0, -top), e.size[0])
        return slice(begin * step, max(begin, min(e.size[0], e.height - top)) * step)

    def _plan_weight_gradient(self, x: Array, delta: Array, is_turned: bool = True) -> _Work:
        delta = delta.reshape(*delta.shape[:2], -1)
        work: _Work = []
        for first, count, turn, seen in self._blocks(x):
            if self._block < self._shape.rows or not is_turned:  # else `forward` has turned all of it
                work.append(turn)
            for begin in range(0, count, len(self._parts)):
                some = [(i, v) for i in range(begin, min(begin + len(self._parts), count)) for v in range(self._moves)]
                # (A Δᵀ) rather than (Δ Aᵀ): with the longer side first OpenBLAS is up to twice as fast.
                deltas, targets = [delta[:, first + i].T for i, _ in some], [self._parts[i - begin, v] for i, v in some]
                products = blas.planned_all([seen[v][i] for i, v in some], deltas, targets)
                work.append(partial(products, 1.0, 1.0 if first + begin else 0.0))
        return work

    def _plan_input_gradient(self, delta: Array, dx: Array) -> _Work:
        e, n = self._shape, dx.shape[3]
        turned = self._turned[: delta.size].reshape(e.rows, e.filters, e.columns, n)
        work: _Work = [partial(np.copyto, turned, delta.swapaxes(0, 1))]
        turned = turned.reshape(e.rows * e.filters, -1)
        # Longest sums first, so that those computed side by side take the same time.
        rows = sorted(seen_rows(e), key=lambda row: row.begin - row.end)
        for v, pixels, places in _shifts(e, e.size[1], e.columns):
            met = turned[:, places.start * n : places.stop * n]
            weights = [self._backward_weights[row.remainder][v][:, row.of_weights(e.filters)] for row in rows]
            deltas = [met[row.begin * e.filters : row.end * e.filters] for row in rows]
            targets = [dx[:, row.y, pixels].reshape(e.channels, -1) for row in rows]
            work.append(partial(blas.planned_all(weights, deltas, targets), 1.0, 1.0))
        return work

    def _blocks(self, x: Array) -> Iterator[tuple[int, int, Callable[[], None], list[list[Array]]]]:
        """Yield for each block of output rows: the first, their number, the call that turns their input, A_v(i)."""
        e, n = self._shape, x.shape[3]
        step = e.stride[0] * e.channels * self._slots
        for first in range(0, e.rows, self._block):
            count = min(self._block, e.rows - first)
            shape = ((count - 1) * e.stride[0] + e.size[0], e.channels, self._slots, self._width, n)
            rows = self._rows[: prod(shape)].reshape(shape)
            moved = [rows.reshape(-1, self._width * n)[:, v * n : (v + e.columns) * n] for v in range(self._moves)]
            seen = [[flat[i * step : i * step + self._taps] for i in range(count)] for flat in moved]
            yield first, count, partial(self._turn, x, rows, first * e.stride[0] - e.padding[0]), seen

    def _turn(self, x: Array, rows: Array, top: int) -> None:
        """Lay out the image rows first, from its row `top` on, with zeros outside of it."""
        begin = max(0, -top)
        end = max(begin, min(len(rows), self._shape.height - top))
        rows[:begin] = 0
        rows[end:] = 0
        picture = x[:, top + begin : top + end].swapaxes(0, 1)
        rows = rows[begin:end]
        for slot, pixels, places in self._places:
            target = rows[:, :, slot]
            target[:, :, : places.start] = 0
            target[:, :, places.stop :] = 0
            target[:, :, places] = picture[:, :, pixels]


def _shifts(e: ConvolutionShape, count: int, columns: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield for each column v < `count` of the filter: v, the pixels of a row that it meets, and its output places."""
    (_, stride), left = e.stride, e.padding[1]
    for v in range(count):
        begin = max(0, -((v - left) // stride))
        end = max(begin, min(columns, (e.width - 1 - v + left) // stride + 1))
        at = begin * stride + v - left
        yield v, slice(max(at, 0), max(at + (end - begin - 1) * stride + 1, 0), stride), slice(begin, end)
