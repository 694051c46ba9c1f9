"""The matrix products of a convolution by filters of one pixel without padding: the image itself is the matrix."""

from collections.abc import Callable

import numpy as np

from gpunn.backend.base import Backend, Shape
from gpunn.backend.extent import Extent
from gpunn.kernels.record import Array


class PointProducts:
    """Z = W A, where the columns of A are the pixels that are seen: all of them, or with a stride a copy of those."""

    def __init__(self, backend: Backend, extent: Extent, scratch: Callable[[Shape], Array]) -> None:
        self._gemm, self._extent, e = backend.gemm, extent, extent
        self._is_whole = e.stride == (1, 1)
        elements = e.channels * e.rows * e.columns * e.capacity
        # Two, since what was seen is asked for again after the input's gradient.
        self._seen, self._gradient = [scratch((0 if self._is_whole else elements,)) for _ in range(2)]

    def forward(self, w: Array, x: Array, z: Array) -> None:
        """Compute z (filters, rows, columns, n) from w as a matrix (filters, channels) and x (channels, …, n)."""
        self._gemm(1.0, w, self._see(x), 0.0, z.reshape(len(z), -1))

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        """Compute the gradient of w, a matrix like it; x `is_turned` if the last `forward` was of it."""
        seen = self._part(self._seen, x.shape[3]) if is_turned and not self._is_whole else self._see(x)
        self._gemm(1.0, delta.reshape(len(delta), -1), seen.reshape(len(x), -1).T, 0.0, gradient)

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        """Compute dx := ∂C/∂x, which is zero for pixels that no filter sees."""
        delta = delta.reshape(len(delta), -1)
        if self._is_whole:
            self._gemm(1.0, w.T, delta, 0.0, dx.reshape(len(dx), -1))
            return
        gradient = self._part(self._gradient, dx.shape[3])
        self._gemm(1.0, w.T, delta, 0.0, gradient.reshape(len(gradient), -1))
        dx.fill(0)
        np.copyto(self._of(dx), gradient)

    def _see(self, x: Array) -> Array:
        """Return the pixels that are seen, as the columns of a matrix."""
        if self._is_whole:
            return x.reshape(len(x), -1)
        seen = self._part(self._seen, x.shape[3])
        np.copyto(seen, self._of(x))
        return seen.reshape(len(seen), -1)

    def _of(self, image: Array) -> Array:
        e = self._extent
        return image[:, : e.rows * e.stride[0] : e.stride[0], : e.columns * e.stride[1] : e.stride[1]]

    def _part(self, memory: Array, n: int) -> Array:
        e = self._extent
        return memory[: e.channels * e.rows * e.columns * n].reshape(e.channels, e.rows, e.columns, n)
