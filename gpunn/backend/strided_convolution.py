"""Compute the input gradient of a convolution with a stride across, by rows of the image."""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from gpunn.backend import blas
from gpunn.backend.base import Scratch, Shape
from gpunn.backend.convolution_shape import ConvolutionShape, Seen, seen_rows
from gpunn.kernels.record import Array


class _Pixels(NamedTuple):
    """Pixels of a row that meet the same columns of the filter: they are whole strides apart."""

    taps: int  # number of filter columns that they meet
    begin: int  # first number q in the image
    end: int
    at: slice  # their places in the row

    @property
    def width(self) -> int:
        return self.end - self.begin


class StridedInputGradient:
    """Compute ∂C/∂a for pixels that are whole strides apart: one product for those of a row with one remainder.

    The pixels x = stride · q + r − padding of an input row y meet only the columns v = r + stride · t of the filter,
    at the places q − t. With Δ_r, in which slot t is Δ moved by t places, and W_r, the weights of those columns,

        ∂C/∂a(y, r) = W_rᵀ Δ_r(the output rows that see y),

    and these rows are contiguous. BLAS cannot write to every second pixel, so some rows are computed beside the image
    and then copied. That is faster than adding up the columns of the filter in the image, one after another.
    """

    def __init__(self, shape: ConvolutionShape, scratch: Scratch, elements: int) -> None:
        self._shape, e = shape, shape
        self._pixels = [*_pixels_of(e)]
        row = max(1, sum(p.taps * p.width for p in self._pixels) * e.filters * e.batch_size)
        self._blocks = [*_blocks(seen_rows(e), max(*e.met, elements // row))]
        rows = max((block[-1].end - block[0].begin for block in self._blocks), default=0)
        most = max(map(len, self._blocks), default=0)
        self._turned = [scratch((rows * p.taps * e.filters * p.width * e.capacity,)) for p in self._pixels]
        self._made = [scratch((most * e.channels * p.width * e.capacity,)) for p in self._pixels]
        self._weights = [[scratch((e.channels, rows, p.taps, e.filters)) for p in self._pixels] for rows in e.met]

    def take_weights(self, w: Array) -> None:
        """Lay out w, (filters, channels, height, width)."""
        down, across = self._shape.stride
        for first, by_pixels in enumerate(self._weights):
            for remainder, weights in enumerate(by_pixels):
                seen = w[:, :, first::down, remainder::across][:, :, ::-1]  # the larger u, the earlier the output row
                np.copyto(weights, seen.transpose(1, 2, 3, 0))

    def plan(self, delta: Array, dx: Array) -> list[Callable[[], object]]:
        """Return the calls that compute dx, (channels, height, width, n), from delta, (filters, rows, columns, n)."""
        e, n = self._shape, dx.shape[3]
        work: list[Callable[[], object]] = []
        if sum(map(len, self._blocks)) * sum(p.width for p in self._pixels) < e.height * e.width:
            work.append(partial(dx.fill, 0))  # pixels that no filter sees
        for block in self._blocks:
            begin, end = block[0].begin, block[-1].end
            rows = slice(block[0].y, block[-1].y + 1)
            products, copies = [], []
            for remainder, p in enumerate(self._pixels):
                turned = _part(self._turned[remainder], (end - begin, p.taps, e.filters, p.width, n))
                made = _part(self._made[remainder], (len(block), e.channels, p.width, n))
                work.append(partial(self._turn, delta[:, begin:end], p, turned))
                copies.append(partial(np.copyto, dx[:, rows, p.at], made.swapaxes(0, 1)))
                step = p.taps * e.filters
                moved = turned.reshape((end - begin) * step, -1)
                for seen, target in zip(block, made, strict=True):
                    weights = self._weights[seen.remainder][remainder].reshape(e.channels, -1)
                    deltas = moved[(seen.begin - begin) * step : (seen.end - begin) * step]
                    products.append((weights[:, seen.of_weights(step)], deltas, target.reshape(e.channels, -1)))
            # Longest sums first, so that those computed side by side take the same time.
            products.sort(key=lambda arrays: -arrays[1].size)
            work.append(partial(blas.planned_all(*zip(*products, strict=True)), 1.0, 0.0))
            work += copies
        return work

    def _turn(self, delta: Array, p: _Pixels, turned: Array) -> None:
        """Lay out rows of Δ rows first, with a slot for each tap: Δ moved by the tap, zero beyond its end."""
        delta = delta.swapaxes(0, 1)
        for t in range(p.taps):
            begin = max(p.begin, t)
            end = max(begin, min(p.end, self._shape.columns + t))
            slot = turned[:, t]
            slot[:, :, : begin - p.begin] = 0
            slot[:, :, end - p.begin :] = 0
            slot[:, :, begin - p.begin : end - p.begin] = delta[:, :, begin - t : end - t]


def _pixels_of(e: ConvolutionShape) -> Iterator[_Pixels]:
    """Yield the pixels of each remainder for which the filter has columns."""
    stride, left = e.stride[1], e.padding[1]
    for remainder in range(min(stride, e.size[1])):
        begin = -((remainder - left) // stride) if remainder < left else 0
        end = max(begin, -((remainder - left - e.width) // stride))
        at = slice(begin * stride + remainder - left, e.width, stride)
        yield _Pixels(len(range(remainder, e.size[1], stride)), begin, end, at)


def _blocks(rows: Iterator[Seen], most: int) -> Iterator[list[Seen]]:
    """Cut input rows into blocks of neighbours that at most so many output rows see."""
    block: list[Seen] = []
    for row in rows:
        if block and (row.y > block[-1].y + 1 or row.end - block[0].begin > most):
            yield block
            block = []
        block.append(row)
    if block:
        yield block


def _part(memory: Array, shape: Shape) -> Array:
    return memory[: prod(shape)].reshape(shape)
