"""The convolutional layer: one small filter slid over the whole image, as matrix products over its patches."""

from __future__ import annotations

from gpunn.errors import OptionError, ShapeError
from gpunn.initializers import Initializer
from gpunn.kernels.convolution import Geometry, add_parts, col2im, im2col, set_zero
from gpunn.kernels.kernel import Array
from gpunn.layers.activation import weights_for
from gpunn.layers.base import BuildContext, Layer, Shape, pair, positive_whole
from gpunn.layers.bias import Bias


class Conv2D(Layer):
    """z[f] = Σ_{c,u,v} w[f, c, u, v] a[c, i·stride + u − pad, j·stride + v − pad] + b[f].

    With the patches that the filter sees as the columns of a matrix A, it is a fully-connected layer at each place:
    Z = W A (2), ∂C/∂W = Δ Aᵀ (13), ∂C/∂A = Wᵀ Δ (8). A is made block by block of output rows and never whole; in
    back-propagation it is made again, which is cheaper than to remember it. Two stages: the products here, and `Bias`.

    Args:
        filters: number of filters, the channels that come out.
        size: height and width of a filter, or one number for both.
        stride: steps between its places, down and across, or one number.
        padding: "valid" for none, "same" for an output of ⌈size/stride⌉, or how many zeros on each side.
        bias: the constant that biases begin with; False for no bias.
        weights: distribution of the initial weights, as for `Dense`.

    Shapes: (height, width, channels) → (rows, columns, filters), rows = ⌊(height − size + 2 padding)/stride⌋ + 1; w is
    (filters, channels, size, size), b is (filters,).
    """

    family = "conv"

    def __init__(
        self,
        filters: int,
        size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = "valid",
        bias: float | bool = 0.0,
        weights: Initializer | str = "auto",
    ) -> None:
        self.filters = positive_whole(filters, "filters of Conv2D")
        self.size = pair(size, "size of Conv2D")
        self.stride = pair(stride, "stride of Conv2D")
        if isinstance(padding, str):
            if padding not in ("valid", "same"):
                raise OptionError(f"padding of Conv2D must be 'valid', 'same' or a number, got {padding!r}")
            self.padding: tuple[int, int] | str = padding
        else:
            self.padding = pair(padding, "padding of Conv2D", least=0)
        self.bias = bias
        self.weights = weights

    def stages(self) -> list[Layer]:
        return [self] if self.bias is False else [self, Bias(float(self.bias))]

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ShapeError(f"{self.name}: Conv2D expects (height, width, channels), got {input_shape}")
        rows, columns = (self._extent(axis, input_shape)[1] for axis in (0, 1))
        return (rows, columns, self.filters)

    def _extent(self, axis: int, input_shape: Shape) -> tuple[int, int]:
        """Padding before the image and number of places of the filter, along height (0) or width (1)."""
        length, size, stride = input_shape[axis], self.size[axis], self.stride[axis]
        if self.padding == "same":
            places = -(-length // stride)
            return max(0, (places - 1) * stride + size - length) // 2, places
        pad = 0 if isinstance(self.padding, str) else self.padding[axis]
        if length + 2 * pad < size:
            raise ShapeError(
                f"{self.name}: a filter of {self.size[0]}×{self.size[1]} does not fit an image of {input_shape} with "
                f"{pad} zeros on each side: take a smaller filter or padding='same'"
            )
        return pad, (length + 2 * pad - size) // stride + 1

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        channels = input_shape[2]
        self._backend = backend = context.backend
        top, left = self._extent(0, input_shape)[0], self._extent(1, input_shape)[0]
        self._geometry: Geometry = (*self.size, *self.stride, top, left)
        self._rows, self._columns = shape[:2]
        self._taps = channels * self.size[0] * self.size[1]
        places = self.size[0] * self.size[1]
        self.w = context.parameter(
            "w",
            (self.filters, channels, *self.size),
            weights_for(self.weights, context.activation),
            fan_in=channels * places,
            fan_out=self.filters * places,
            decays=True,
        )
        self._z = context.buffer(shape)
        self._dx = context.buffer(input_shape) if context.needs_input_gradient else None
        row = self._taps * self._columns
        self._block = max(1, min(self._rows, backend.block_elements // (row * context.batch_size)))
        self._workers = backend.workers
        self._scratch = [context.scratch((self._block * row * context.capacity,)) for _ in range(self._workers)]
        self._parts = context.scratch((self._workers, self.filters, self._taps))
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._a = x
        n = x.shape[3]
        z = self._z[n]
        flat = z.reshape(self.filters, -1)
        w = self.w.matrix

        def block(worker: int, first: int, last: int) -> None:
            patches = self._patches(x, worker, first, last)
            self._backend.gemm(1.0, w, patches, 0.0, flat[:, self._span(first, last, n)])

        self._backend.share(block, self._rows, self._block, self._work(n))
        return z

    def backward(self, dy: Array) -> Array | None:
        n = dy.shape[3]
        x = self._a
        delta = dy.reshape(self.filters, -1)
        seen = [False] * self._workers

        def gradient(worker: int, first: int, last: int) -> None:
            patches = self._patches(x, worker, first, last)
            self._backend.gemm(
                1.0, delta[:, self._span(first, last, n)], patches.T, float(seen[worker]), self._parts[worker]
            )
            seen[worker] = True

        self._backend.share(gradient, self._rows, self._block, self._work(n))
        dx = None if self._dx is None else self._input_gradient(delta, self._dx[n])
        self._backend.run(add_parts, self._parts[: sum(seen)], self.w.gradient_matrix)
        return dx

    def _input_gradient(self, delta: Array, dx: Array) -> Array:
        """∂C/∂A = Wᵀ Δ, its columns added back to where they were seen; workers take channels of their own."""
        backend, n = self._backend, dx.shape[3]
        channels = dx.shape[0]
        places = self._taps // channels
        backend.run(set_zero, dx)

        def of_channels(worker: int, begin: int, end: int) -> None:
            w = self.w.matrix[:, begin * places : end * places].T
            for first in range(0, self._rows, self._block):
                last = min(first + self._block, self._rows)
                span = self._span(first, last, n)
                size = (end - begin) * places * (span.stop - span.start)
                columns = self._scratch[worker][:size].reshape((end - begin) * places, -1)
                backend.gemm(1.0, w, delta[:, span], 0.0, columns)
                backend.run(col2im, columns, first, last - first, self._columns, self._geometry, dx[begin:end])

        backend.share(of_channels, channels, -(-channels // self._workers), self._work(n))
        return dx

    def _work(self, n: int) -> int:
        """Bytes of all columns of A."""
        return int(self._taps * self._rows * self._columns * n * self._parts.itemsize)

    def _patches(self, x: Array, worker: int, first: int, last: int) -> Array:
        """The columns of A for output rows first to last."""
        span = self._span(first, last, x.shape[3])
        columns = self._scratch[worker][: self._taps * (span.stop - span.start)].reshape(self._taps, -1)
        self._backend.run(im2col, x, first, self._columns, self._geometry, columns)
        return columns

    def _span(self, first: int, last: int, n: int) -> slice:
        return slice(first * self._columns * n, last * self._columns * n)
