"""The transposed convolution, which makes images larger: the input gradient of a convolution as a layer."""

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
from gpunn.nn.layers.dense import Weighted


@register
class ConvTranspose2D(Weighted):
    """z[f, i·stride + u − pad, j·stride + v − pad] = Σ w[c, f, u, v] a[c, i, j] + b[f], over all c, i, j, u, v of it.

    Each pixel lays its filter, times its value, over `size` pixels of the output, and the next one `stride` further. It
    is the input gradient (8) of a `Conv2D` of these arguments from the output's shape to the input's, and its own input
    gradient is that convolution. Two stages: the products here, and `Bias`. `size` a multiple of `stride` covers every
    pixel as often as the next, so no chequered pattern comes of it.

    Args:
        filters: Number of channels that come out.
        size: Height and width of a filter, or one number for both.
        stride: Steps between its places in the output, down and across, or one number.
        padding: "valid" for none; the number of rows and columns that are cut off on each side, one or two; or "same"
            for height · stride rows and width · stride columns, as Keras has it, an odd one cut off at the bottom and
            right.
        output_padding: Rows and columns added at the bottom and right, fewer than the stride; not with "same". A
            convolution with a stride makes one size of several, and this says which of them to make again.
        bias: Constant that biases begin with; False for no bias.
        weights: Distribution of the initial weights, as for `Dense`; a pixel sums over size²/stride² of each channel.

    Shapes: (height, width, channels) → (rows, columns, filters), rows = (height − 1) stride − 2 padding + size +
    output_padding; w is (channels, filters, size, size), as in PyTorch, b is (filters,).
    """

    counts_outputs = "filters"

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
        if len(input_shape) != 3:
            expected = f"{self.name}: ConvTranspose2D expects (height, width, channels)"
            raise ShapeError(f"{expected}, got {input_shape}: put it before Flatten()")
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
        """Return the rows cut off above and below, and the columns left and right: `Conv2D`'s zeros on the way back."""
        same = input_shape[0] * self.stride[0], input_shape[1] * self.stride[1]  # the output where it is "same"
        return windows.around(self.padding, same, self.size, self.stride)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        rows, columns, _ = shape = self.output_shape(input_shape)
        height, width, channels = input_shape
        (top, _), (left, _) = self.pads(input_shape)
        sizes, batch = (self.filters, rows, columns, height, width), (context.capacity, context.batch_size)
        # Of the convolution whose input gradient this is: it leads from the output to the input.
        of_products = ConvolutionShape(channels, self.size, self.stride, (top, left), *sizes, *batch)
        # A pixel is covered size/stride times, down and across; with gaps between, by one filter or none.
        covered = [max(1.0, size / stride) for size, stride in zip(self.size, self.stride, strict=True)]
        fans = round(channels * covered[0] * covered[1]), self.filters * self.size[0] * self.size[1]
        self._make_w(context, channels, self.filters, *self.size, fans=fans)
        self._products, self._products_of_one = products_of(context.backend, of_products, context.scratch)
        self._z = context.buffer(shape)
        self._da = context.buffer(input_shape) if context.needs_input_gradient else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        n, self._a = x.shape[3], x
        z = self._z[n]
        products = self._products_of_one if n == 1 else self._products
        products.input_gradient(self.w.matrix, x, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        n = dy.shape[3]
        products = self._products_of_one if n == 1 else self._products
        da = None if self._da is None else self._da[n]
        if da is not None:
            products.forward(self.w.matrix, dy, da)
        if not self.w.is_frozen:
            products.weight_gradient(dy, self._a, self.w.gradient_matrix, is_turned=da is not None)
        return da

    def filters_of(self, w: NDArray[Any], input_shape: Shape) -> NDArray[Any] | None:
        """Return the filters as what each output channel is made of, (filters, channels, height, width)."""
        return w.swapaxes(0, 1)
