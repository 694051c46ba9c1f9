"""The matrix products of a convolution, by patches: the textbook's im2col, few large products, what a GPU likes.

`gpunn.backend.conv_rows` makes the same products by rows, which is what the caches of a CPU like.
"""

from collections.abc import Iterator

from gpunn.backend.conv_rows import Extent
from gpunn.kernels.convolution import Geometry, col2im, im2col
from gpunn.kernels.record import Array
from gpunn.nn.layers.base import BuildContext
from gpunn.nn.parameter import Parameter


class PatchProducts:
    """Z = W A, ∂C/∂W = Δ Aᵀ and ∂C/∂A = Wᵀ Δ, all patches of a block of output rows being the columns of A (im2col).

    Args:
        context: Source of memory.
        extent: Sizes of the convolution.
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
        """Compute z := the products; x is (channels, height, width, n), z (filters, rows, columns, n)."""
        z = z.reshape(len(z), -1)
        for columns, span, _, _ in self._blocks(x.shape[3]):
            self._fill(x, columns, span)
            self._backend.gemm(1.0, w.matrix, columns, 0.0, z[:, span])

    def weight_gradient(self, x: Array, delta: Array, w: Parameter) -> None:
        """Set the gradient of w; delta is like z."""
        delta = delta.reshape(len(delta), -1)
        for columns, span, first, _ in self._blocks(x.shape[3]):
            self._fill(x, columns, span)
            self._backend.gemm(1.0, delta[:, span], columns.T, 1.0 if first else 0.0, w.gradient_matrix)

    def input_gradient(self, w: Parameter, delta: Array, dx: Array) -> None:
        """Compute dx := ∂C/∂x."""
        delta = delta.reshape(len(delta), -1)
        for columns, span, first, last in self._blocks(dx.shape[3]):
            self._backend.gemm(1.0, w.matrix.T, delta[:, span], 0.0, columns)
            where = (first, last - first, self._extent.columns, self._geometry)
            self._backend.run(col2im, columns, *where, first > 0, dx)

    def _blocks(self, n: int) -> Iterator[tuple[Array, slice, int, int]]:
        """Yield for each block of output rows: its columns of A, its place in z, its first row and its end."""
        rows, width = self._extent.rows, self._extent.columns * n
        for first in range(0, rows, self._block):
            last = min(first + self._block, rows)
            span = slice(first * width, last * width)
            yield self._columns[: self._taps * (last - first) * width].reshape(self._taps, -1), span, first, last

    def _fill(self, x: Array, columns: Array, span: slice) -> None:
        width = self._extent.columns
        self._backend.run(im2col, x, span.start // (width * x.shape[3]), width, self._geometry, columns)
