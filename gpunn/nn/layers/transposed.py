"""Enlarge images by the transposed convolution: the input gradient of a convolution as a layer."""

from typing import Any

from numpy.typing import NDArray

from gpunn.backend.base import Shape
from gpunn.backend.convolution_shape import ConvolutionShape
from gpunn.backend.grouped_convolution import products_of
from gpunn.config import register
from gpunn.config.scalars import pair, positive_whole
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer
from gpunn.nn.layers import windows
from gpunn.nn.layers.base import BuildContext
from gpunn.nn.layers.convolution import Convolution


@register
class ConvTranspose2D(Convolution):
    """z[f, i·stride + u − pad, j·stride + v − pad] = Σ w[c, f, u, v] a[c, i, j] + b[f], summed over c, i, j, u, v.

    Each input pixel adds its value times the filter to `size` pixels of the output; the next one does so `stride`
    further on. The layer is the input gradient (8) of the `Conv2D` with these arguments from the output's shape to the
    input's; its own input gradient is that convolution. It runs as two stages, the products and the `Bias`. Choose
    `size` as a multiple of `stride`: every output pixel is then covered equally often, without checkerboard artefacts.

    Args:
        filters: Number of output channels.
        size: Height and width of a filter, or one number for both.
        stride: Vertical and horizontal step between filter positions in the output, or one number for both.
        padding: "valid" for none; the number of rows and columns cropped on each side, one or two numbers; or "same"
            for height · stride rows and width · stride columns, as in Keras, with an odd one cropped at the bottom and
            right.
        output_padding: Rows and columns added at the bottom and right, fewer than the stride; not with "same". A
            strided convolution maps several input sizes to one output size; this chooses which of them to restore.
        bias: Initial value of the biases; False for no bias.
        weights: Distribution of the initial weights, as for `Dense`; fan_in is size²/stride² · channels.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: Not an image, or padding that leaves nothing of it.

    Shapes: (height, width, channels) → (rows, columns, filters), rows = (height − 1) stride − 2 padding + size +
    output_padding; w is (channels, filters, size, size), as in PyTorch, b is (filters,).
    """

    def __init__(
        self,
        filters: int,
        size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = "valid",
        output_padding: int | tuple[int, int] = 0,
        bias: float | bool = 0.0,
        weights: Initializer | str = "auto",
    ) -> None:
        kind = "ConvTranspose2D"
        self.filters = positive_whole(filters, f"filters of {kind}")
        self.size, self.stride = pair(size, f"size of {kind}"), pair(stride, f"stride of {kind}")
        self.padding = windows.checked_padding(padding, kind)
        self.output_padding = pair(output_padding, f"output_padding of {kind}", least=0)
        if self.padding == "same" and any(self.output_padding):
            raise OptionError(f"output_padding of {kind} must be 0 with padding='same', got {output_padding!r}")
        if any(more >= step for more, step in zip(self.output_padding, self.stride, strict=True)):
            raise OptionError(f"output_padding of {kind} must be below stride {self.stride}, got {output_padding!r}")
        super().__init__(weights, bias)

    def output_shape(self, input_shape: Shape) -> Shape:
        windows.check_image(self, input_shape)
        lengths = []
        for axis in (0, 1):
            length, size, stride = input_shape[axis], self.size[axis], self.stride[axis]
            if self.padding == "same":
                lengths.append(length * stride)
            else:
                cut = sum(self.pads(input_shape)[axis])
                lengths.append((length - 1) * stride - cut + size + self.output_padding[axis])
        if min(lengths) < 1:
            given = (
                f"padding {self.padding} leaves nothing of {input_shape} and filters of {self.size[0]}×{self.size[1]}"
            )
            raise ShapeError(f"{self.name}: {given}: take less padding or a larger filter")
        return lengths[0], lengths[1], self.filters

    def pads(self, input_shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows cropped above and below, and the columns left and right: the zeros of that `Conv2D`."""
        same = input_shape[0] * self.stride[0], input_shape[1] * self.stride[1]  # the output where it is "same"
        return windows.image_padding(self.padding, same, self.size, self.stride)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        rows, columns, _ = shape = self.output_shape(input_shape)
        height, width, channels = input_shape
        (top, _), (left, _) = self.pads(input_shape)
        sizes, batch = (self.filters, rows, columns, height, width), (context.capacity, context.batch_size)
        # Of the convolution from the output to the input: its input gradient is this layer's forward pass.
        geometry = ConvolutionShape(channels, self.size, self.stride, (top, left), *sizes, *batch)
        # Along each axis size/stride filters cover an output pixel; a stride beyond the size leaves one or none.
        covered = [max(1.0, size / stride) for size, stride in zip(self.size, self.stride, strict=True)]
        fans = round(channels * covered[0] * covered[1]), self.filters * self.size[0] * self.size[1]
        self._make_w(context, channels, self.filters, *self.size, fans=fans)
        self._allocate(context, products_of(context.backend, geometry, context.scratch), input_shape, shape)
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._x, z = x, self._z[x.shape[3]]
        self._products_for(x).input_gradient(self.w.matrix, x, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        products, dx = self._products_for(dy), self._input_gradient(dy)
        if dx is not None:
            products.forward(self.w.matrix, dy, dx)
        if not self.w.is_frozen:
            products.weight_gradient(dy, self._x, self.w.gradient_matrix, is_turned=dx is not None)
        return dx

    def filters_of(self, w: NDArray[Any], input_shape: Shape) -> NDArray[Any] | None:
        """Return the filters by output channel, (filters, channels, height, width)."""
        return w.swapaxes(0, 1)
