"""The matrix products of a convolution by rows of the image, on the CPU: one copy of the image, not size² of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Protocol

import numpy as np

from gpunn.backend.base import Backend, Shape
from gpunn.kernels.record import Array

_SHORT = 16
"""Sums over fewer products than this are too short for BLAS to be quick."""

_LEAST = 4
"""Output rows of a block at least, so that there is something to share out among the cores."""

_PARTS = 8
"""Output rows whose weight gradients are collected side by side. The same on every machine: it orders a sum."""

_Work = list[Callable[[], object]]


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


class Memory(Protocol):
    """Scratch memory of a layer for batches of up to `capacity` samples; see `BuildContext`."""

    backend: Backend
    capacity: int
    batch_size: int
    needs_input_gradient: bool

    def scratch(self, shape: Shape) -> Array: ...


class Weights(Protocol):
    """Weights (filters, channels, *size) and their gradient; see `Parameter`."""

    value: Array
    grad: Array


class RowProducts:
    """Products of rows of the image, which is laid rows first: (height, channels, width, n).

    There the rows that output row i is seen from lie in one piece, and so do, for one column v of the filter, the
    pixels that it meets at all places of the row: a matrix A_v(i) of (size_h · channels, columns · n), of which nothing
    is a copy but the turned image. With W_v, that column's weights, as (filters, size_h · channels),

        z(i) = Σ_v W_v A_v(i),   ∂C/∂W_v = Σ_i Δ(i) A_v(i)ᵀ,   ∂C/∂a(y), moved by v, += W_vᵀ Δ(y − size_h + 1 … y):

    products that add to what they find. Where the sums in them were short (an image of one channel), or the filter
    takes more than one step across, the filter's columns are laid out as channels, and Σ_v is in the product.

    Products of different rows do not depend on one another: BLAS gets them together and shares them out.

    Args:
        context: Source of memory, on the CPU.
        extent: Sizes of the convolution.
    """

    def __init__(self, context: Memory, extent: Extent) -> None:
        self._backend, self._extent, e = context.backend, extent, extent
        is_laid_out = e.stride[1] > 1 or e.channels * e.size[0] < _SHORT
        # The columns of the filter are slots, as channels are, or moves along the row.
        self._slots, self._moves = (e.size[1], 1) if is_laid_out else (1, e.size[1])
        self._width = e.columns + self._moves - 1
        self._taps = e.size[0] * e.channels * self._slots
        row = e.channels * self._slots * self._width
        elements = context.backend.block_elements
        self._block = min(e.rows, max(_LEAST, elements // (row * context.batch_size)))
        window = (self._block - 1) * e.stride[0] + e.size[0]
        self._rows = context.scratch((window * row * context.capacity,))
        self._weights = context.scratch((self._moves, e.filters, self._taps))
        parts = max(1, min(_PARTS, self._block, elements // self._weights.size))
        self._parts = context.scratch((parts, self._moves, self._taps, e.filters))
        if context.needs_input_gradient:
            self._turned = context.scratch((e.rows * e.filters * e.columns * context.capacity,))
            # Input rows whose numbers leave one remainder by the stride meet the same rows of the filter.
            self._backward_weights = [
                context.scratch((e.size[1], e.channels, len(range(first, e.size[0], e.stride[0])) * e.filters))
                for first in range(e.stride[0])
            ]
            self._moved = context.scratch((e.channels * e.columns * context.capacity if e.stride[1] > 1 else 0,))
        self._plans: dict[str, tuple[Array, Array, _Work]] = {}

    def forward(self, w: Weights, x: Array, z: Array) -> None:
        """Compute z := the products; x is (channels, height, width, n), z (filters, rows, columns, n)."""
        e = self._extent
        weights = self._weights.reshape(self._moves, e.filters, e.size[0], e.channels, self._slots)
        np.copyto(weights.transpose(1, 3, 2, 0, 4).reshape(w.value.shape), w.value)
        self._do("forward", self._plan_forward, x, z)

    def weight_gradient(self, x: Array, delta: Array, w: Weights) -> None:
        """Set the gradient of w; x is that of the last `forward`, which may still lie turned in memory."""
        e = self._extent
        self._do("weight gradient", self._plan_weight_gradient, x, delta)
        total = np.add.reduce(self._parts).reshape(self._moves, e.size[0], e.channels, self._slots, e.filters)
        np.copyto(w.grad, total.transpose(4, 2, 1, 0, 3).reshape(w.value.shape))

    def input_gradient(self, w: Weights, delta: Array, dx: Array) -> None:
        """Compute dx := ∂C/∂x."""
        e = self._extent
        for first, weights in enumerate(self._backward_weights):
            # The larger u, the earlier the output row.
            seen = w.value[:, :, first :: e.stride[0]][:, :, ::-1]
            np.copyto(weights.reshape(e.size[1], e.channels, -1, e.filters), seen.transpose(3, 1, 2, 0))
        dx.fill(0)
        self._do("input gradient", self._plan_input_gradient, delta, dx)

    def _do(self, what: str, plan: Callable[[Array, Array], _Work], a: Array, b: Array) -> None:
        """Do what is planned for these arrays, which are the same from step to step."""
        kept = self._plans.get(what)
        if kept is None or kept[0] is not a or kept[1] is not b:
            kept = self._plans[what] = a, b, plan(a, b)
        for work in kept[2]:
            work()

    def _plan_forward(self, x: Array, z: Array) -> _Work:
        z = z.reshape(*z.shape[:2], -1)
        work: _Work = []
        for first, count, turn, seen in self._blocks(x):
            work.append(turn)
            rows = [z[:, first + i] for i in range(count)]
            for v in range(self._moves):
                products = self._backend.planned_all(
                    [self._weights[v]] * count, [seen(i, v) for i in range(count)], rows
                )
                work.append(partial(products, 1.0, 1.0 if v else 0.0))
        return work

    def _plan_weight_gradient(self, x: Array, delta: Array) -> _Work:
        delta = delta.reshape(*delta.shape[:2], -1)
        work: _Work = []
        for first, count, turn, seen in self._blocks(x):
            if self._block < self._extent.rows:  # else all of it lies there since `forward`
                work.append(turn)
            for begin in range(0, count, len(self._parts)):
                some = [(i, v) for i in range(begin, min(begin + len(self._parts), count)) for v in range(self._moves)]
                # (A Δᵀ) rather than (Δ Aᵀ): with the longer side first OpenBLAS is up to twice as fast.
                products = self._backend.planned_all(
                    [seen(i, v) for i, v in some],
                    [delta[:, first + i].T for i, _ in some],
                    [self._parts[i - begin, v] for i, v in some],
                )
                work.append(partial(products, 1.0, 1.0 if first + begin else 0.0))
        return work

    def _plan_input_gradient(self, delta: Array, dx: Array) -> _Work:
        e, n = self._extent, dx.shape[3]
        turned = self._turned[: delta.size].reshape(e.rows, e.filters, e.columns, n)
        work: _Work = [partial(np.copyto, turned, delta.swapaxes(0, 1))]
        turned = turned.reshape(e.rows * e.filters, -1)
        moved = self._moved[: e.channels * e.columns * n].reshape(e.channels, -1)
        # Longest sums first: those that are done side by side take the same time.
        rows = sorted(self._seers(), key=lambda row: row[2] - row[3])
        for v, pixels, places in _shifts(e):
            met = turned[:, places.start * n : places.stop * n]
            weights, deltas, targets = [], [], []
            for y, remainder, begin, end, first in rows:
                weights.append(self._backward_weights[remainder][v][:, begin * e.filters : end * e.filters])
                deltas.append(met[first * e.filters : (first + end - begin) * e.filters])
                targets.append(dx[:, y, pixels])
            if e.stride[1] == 1:
                targets = [target.reshape(e.channels, -1) for target in targets]
                work.append(partial(self._backend.planned_all(weights, deltas, targets), 1.0, 1.0))
                continue
            # BLAS cannot write to every second pixel.
            between = moved[:, : met.shape[1]]
            for a, b, target in zip(weights, deltas, targets, strict=True):
                work.append(partial(self._backend.planned(a, b, between), 1.0, 0.0))
                work.append(partial(np.add, target, between.reshape(target.shape), target))
        return work

    def _seers(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield for each input row that is seen: number, remainder, its part of the weights, first output row."""
        e = self._extent
        for y in range(e.height):
            last, remainder = divmod(y + e.padding[0], e.stride[0])
            first = last + 1 - self._backward_weights[remainder].shape[2] // e.filters
            begin, end = max(0, first), min(e.rows, last + 1)
            if begin < end:
                yield y, remainder, begin - first, end - first, begin

    def _blocks(self, x: Array) -> Iterator[tuple[int, int, Callable[[], None], Callable[[int, int], Array]]]:
        """Yield for each block of output rows: the first, how many, what turns their input, and A_v(i) of the i-th."""
        e, n = self._extent, x.shape[3]
        for first in range(0, e.rows, self._block):
            count = min(self._block, e.rows - first)
            shape = ((count - 1) * e.stride[0] + e.size[0], e.channels, self._slots, self._width, n)
            rows = self._rows[: prod(shape)].reshape(shape)
            flat = rows.reshape(-1, self._width * n)
            step = e.stride[0] * e.channels * self._slots

            def seen(i: int, v: int, flat: Array = flat, step: int = step) -> Array:
                return flat[i * step : i * step + self._taps, v * n : (v + e.columns) * n]

            yield first, count, partial(self._turn, x, rows, first * e.stride[0] - e.padding[0]), seen

    def _turn(self, x: Array, rows: Array, top: int) -> None:
        """Lay the image rows first, from its row `top` on, zero outside of it."""
        e = self._extent
        begin, end = max(0, -top), max(0, min(len(rows), e.height - top))
        rows[:begin] = 0
        rows[max(begin, end) :] = 0
        if begin >= end:
            return
        picture = x[:, top + begin : top + end].swapaxes(0, 1)
        rows = rows[begin:end]
        if self._moves > 1:
            left = e.padding[1]
            pixels = slice(0, min(e.width, self._width - left))
            slots = [(0, pixels, slice(left, left + pixels.stop))]
        else:
            slots = list(_shifts(e))
        for slot, pixels, places in slots:
            target = rows[:, :, slot]
            target[:, :, : places.start] = 0
            target[:, :, places.stop :] = 0
            target[:, :, places] = picture[:, :, pixels]


def _shifts(e: Extent) -> Iterator[tuple[int, slice, slice]]:
    """Yield for each column v of the filter: the pixels of a row that it meets, and the places where it does."""
    (_, stride), left = e.stride, e.padding[1]
    for v in range(e.size[1]):
        begin = max(0, -((v - left) // stride))
        end = max(begin, min(e.columns, (e.width - 1 - v + left) // stride + 1))
        at = begin * stride + v - left
        yield v, slice(max(at, 0), max(at + (end - begin - 1) * stride + 1, 0), stride), slice(begin, end)
