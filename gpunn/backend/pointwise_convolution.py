"""Compute a convolution by filters of one pixel without padding: the image itself is the matrix."""

import numpy as np

from gpunn.backend import blas
from gpunn.backend.base import Backend, Planned, Scratch
from gpunn.backend.convolution_shape import ConvolutionShape, Products
from gpunn.kernels.record import Array

_PARTS, _LEAST = 8, 2**20  # most parts of the weight gradient, fewest multiplications of a part


class PointProducts(Products):
    """Z = W A: the columns of A are the pixels that filters see, all of them, or with a stride a copy of some."""

    def __init__(self, backend: Backend, shape: ConvolutionShape, scratch: Scratch) -> None:
        self._gemm, self._shape, e = backend.gemm, shape, shape
        self._is_whole = e.stride == (1, 1)
        elements = e.channels * e.rows * e.columns * e.capacity
        # Two: the pixels seen are needed again after the input gradient.
        self._seen, self._gradient = [scratch((0 if self._is_whole else elements,)) for _ in range(2)]
        most = e.rows * e.columns * e.batch_size * e.channels * e.filters // _LEAST
        self._parts = scratch((max(1, min(_PARTS, most)), e.channels, e.filters))
        self._planned: tuple[Array, Array, Planned] | None = None

    def forward(self, w: Array, x: Array, z: Array) -> None:
        """Compute z (filters, rows, columns, n) from w as a matrix (filters, channels) and x (channels, …, n)."""
        self._gemm(1.0, w, self._see(x), 0.0, z.reshape(len(z), -1))

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        """Compute the gradient of w, in the shape of w; `is_turned` if the last `forward` was of this x."""
        seen = self._part(self._seen, x.shape[3]) if is_turned and not self._is_whole else self._see(x)
        if self._planned is None or self._planned[0] is not x or self._planned[1] is not delta:
            self._planned = x, delta, self._plan(seen.reshape(len(x), -1), delta.reshape(len(delta), -1))
        self._planned[2](1.0, 0.0)
        np.copyto(gradient, np.add.reduce(self._parts).T)

    def _plan(self, seen: Array, delta: Array) -> Planned:
        """Cut the long sum into parts, each a product of its own, for several threads."""
        parts = blas.cut(seen.shape[1], len(self._parts))
        return blas.planned_all([seen[:, p] for p in parts], [delta[:, p].T for p in parts], [*self._parts])

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        """Compute dx := ∂C/∂x; it is zero for pixels that no filter sees."""
        delta = delta.reshape(len(delta), -1)
        if self._is_whole:
            self._gemm(1.0, w.T, delta, 0.0, dx.reshape(len(dx), -1))
            return
        gradient = self._part(self._gradient, dx.shape[3])
        self._gemm(1.0, w.T, delta, 0.0, gradient.reshape(len(gradient), -1))
        dx.fill(0)
        np.copyto(self._of(dx), gradient)

    def _see(self, x: Array) -> Array:
        """Return the pixels that filters see as the columns of a matrix."""
        if self._is_whole:
            return x.reshape(len(x), -1)
        seen = self._part(self._seen, x.shape[3])
        np.copyto(seen, self._of(x))
        return seen.reshape(len(seen), -1)

    def _of(self, image: Array) -> Array:
        e = self._shape
        return image[:, : e.rows * e.stride[0] : e.stride[0], : e.columns * e.stride[1] : e.stride[1]]

    def _part(self, memory: Array, n: int) -> Array:
        e = self._shape
        return memory[: e.channels * e.rows * e.columns * n].reshape(e.channels, e.rows, e.columns, n)
