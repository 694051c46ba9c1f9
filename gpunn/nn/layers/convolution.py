"""The convolutional layer: one small filter slid over the whole image, as matrix products over its patches."""

from gpunn.backend.base import Shape
from gpunn.backend.convolution import Extent, PatchProducts, RowProducts
from gpunn.config import register
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer
from gpunn.nn.layers.base import BuildContext
from gpunn.nn.layers.dense import Weighted
from gpunn.scalars import pair, positive_whole


@register
class Conv2D(Weighted):
    """z[f] = Σ_{c,u,v} w[f, c, u, v] a[c, i·stride + u − pad, j·stride + v − pad] + b[f].

    With the patches that the filter sees as the columns of a matrix A, it is a fully-connected layer at each place:
    Z = W A (2), ∂C/∂W = Δ Aᵀ (13), ∂C/∂A = Wᵀ Δ (8). A is made in pieces. Two stages: the products here, and `Bias`.

    Args:
        filters: Number of filters, the channels that come out.
        size: Height and width of a filter, or one number for both.
        stride: Steps between its places, down and across, or one number.
        padding: "valid" for none; the number of zeros on each side, one or two; or "same" for ⌈height/stride⌉ rows
            and ⌈width/stride⌉ columns, half of the zeros on each side and an odd one at the bottom and right.
        bias: Constant that biases begin with; False for no bias.
        weights: Distribution of the initial weights, as for `Dense`.

    Shapes: (height, width, channels) → (rows, columns, filters), rows = ⌊(height − size + 2 padding)/stride⌋ + 1; w is
    (filters, channels, size, size), b is (filters,).
    """

    counts_outputs = "filters"

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
        self.size, self.stride = pair(size, "size of Conv2D"), pair(stride, "stride of Conv2D")
        if isinstance(padding, str) and padding not in ("valid", "same"):
            raise OptionError(f"padding of Conv2D must be 'valid', 'same' or a number, got {padding!r}")
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding of Conv2D", least=0)
        super().__init__(weights, bias)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            expected = f"{self.name}: Conv2D expects (height, width, channels)"
            raise ShapeError(f"{expected}, got {input_shape}: put it before Flatten()")
        return self._extent(0, input_shape)[1], self._extent(1, input_shape)[1], self.filters

    def _extent(self, axis: int, input_shape: Shape) -> tuple[int, int]:
        """Return the padding before the image and the number of places of the filter, along one axis."""
        length, size, stride = input_shape[axis], self.size[axis], self.stride[axis]
        if self.padding == "same":
            places = -(-length // stride)
            return max(0, (places - 1) * stride + size - length) // 2, places
        pad = 0 if isinstance(self.padding, str) else self.padding[axis]
        if length + 2 * pad < size:
            given = f"a filter of {self.size[0]}×{self.size[1]} does not fit an image of {input_shape}"
            mend = "take a smaller filter or padding='same'"
            raise ShapeError(f"{self.name}: {given} with {pad} zeros on each side: {mend}")
        return pad, (length + 2 * pad - size) // stride + 1

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        rows, columns, _ = shape = self.output_shape(input_shape)
        height, width, channels = input_shape
        padding = self._extent(0, input_shape)[0], self._extent(1, input_shape)[0]
        image, batch = (channels, height, width, rows, columns), (context.capacity, context.batch_size)
        extent = Extent(self.filters, self.size, self.stride, padding, *image, *batch)
        self._make_w(context, self.filters, channels, *self.size)
        backend, scratch = context.backend, context.scratch
        self._products: PatchProducts | RowProducts
        # Where a window of rows is one with the patch there is nothing to save, and the patches need fewer products.
        if by_rows := backend.device == "cpu" and self.size[0] > 1:
            self._products = RowProducts(backend, extent, scratch, context.needs_input_gradient)
        else:
            self._products = PatchProducts(backend, extent, scratch)
        self._products_of_one = self._products
        if by_rows and not any(padding):  # the patches of one image are one copy, and its rows many short products
            self._products_of_one = PatchProducts(backend, extent._replace(capacity=1, batch_size=1), scratch)
        self._z = context.buffer(shape)
        self._dx = context.buffer(input_shape) if context.needs_input_gradient else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        n, self._a = x.shape[3], x
        z = self._z[n]
        products = self._products_of_one if n == 1 else self._products
        products.forward(self.w.matrix, x, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        n = dy.shape[3]
        products = self._products_of_one if n == 1 else self._products
        dx = None if self._dx is None else self._dx[n]
        if dx is not None:
            products.input_gradient(self.w.matrix, dy, dx)
        if not self.w.is_frozen:
            products.weight_gradient(self._a, dy, self.w.gradient_matrix)
        return dx
