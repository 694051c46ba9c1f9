"""The convolutional layer: one small filter slid over the whole image, as matrix products over its patches."""

from typing import Any

import numpy as np
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
class Conv2D(Weighted):
    """z[f] = Σ_{c,u,v} w[f, c, u, v] a[c, i·stride + u − pad, j·stride + v − pad] + b[f].

    With the patches that the filter sees as the columns of a matrix A, it is a fully-connected layer at each place:
    Z = W A (2), ∂C/∂W = Δ Aᵀ (13), ∂C/∂A = Wᵀ Δ (8). A is made in pieces. Two stages: the products here, and `Bias`.

    With `groups`, channels and filters are cut into as many groups, in their order, and a filter sees the channels of
    its own group alone: a `groups`-th of the weights and of the work. One channel in each group is a depthwise
    convolution; a `Conv2D(filters, 1)` after it mixes the channels.

    Args:
        filters: Number of filters, the channels that come out.
        size: Height and width of a filter, or one number for both.
        stride: Steps between its places, down and across, or one number.
        padding: "valid" for none; the number of zeros on each side, one or two; or "same" for ⌈height/stride⌉ rows
            and ⌈width/stride⌉ columns, half of the zeros on each side and an odd one at the bottom and right.
        bias: Constant that biases begin with; False for no bias.
        weights: Distribution of the initial weights, as for `Dense`.
        groups: Number of groups, which divides the channels and the filters; "depthwise" for as many as channels.

    Shapes: (height, width, channels) → (rows, columns, filters), rows = ⌊(height − size + 2 padding)/stride⌋ + 1; w is
    (filters, channels/groups, size, size), b is (filters,).
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
        groups: int | str = 1,
    ) -> None:
        self.filters = positive_whole(filters, "filters of Conv2D")
        self.size, self.stride = pair(size, "size of Conv2D"), pair(stride, "stride of Conv2D")
        self.padding = windows.checked_padding(padding, "Conv2D")
        if isinstance(groups, str) and groups != "depthwise":
            raise OptionError(f"groups of Conv2D must be a number or 'depthwise', got {groups!r}")
        self.groups = groups if isinstance(groups, str) else positive_whole(groups, "groups of Conv2D")
        if isinstance(self.groups, int) and self.filters % self.groups:
            expected = f"filters of Conv2D must be a multiple of its {self.groups} groups"
            raise OptionError(f"{expected}, got {self.filters}")
        super().__init__(weights, bias)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            expected = f"{self.name}: Conv2D expects (height, width, channels)"
            raise ShapeError(f"{expected}, got {input_shape}: put it before Flatten()")
        self.groups_of(input_shape[2])
        lengths = []
        for length, size, stride, padded in zip(
            input_shape, self.size, self.stride, self.pads(input_shape), strict=False
        ):
            if length + sum(padded) < size:
                given = f"a filter of {self.size[0]}×{self.size[1]} does not fit an image of {input_shape}"
                mend = "take a smaller filter or padding='same'"
                raise ShapeError(f"{self.name}: {given} with {padded[0]} zeros on each side: {mend}")
            lengths.append(windows.count(length, size, stride, padded))
        return lengths[0], lengths[1], self.filters

    def pads(self, input_shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the zeros above and below an image, and those left and right of it."""
        return windows.around(self.padding, input_shape, self.size, self.stride)

    def groups_of(self, channels: int) -> int:
        """Return the number of groups for images of so many channels; raise ShapeError where it divides not all."""
        groups = channels if isinstance(self.groups, str) else self.groups
        for given, count in (("channels", channels), ("filters", self.filters)):
            if count % groups:
                mend = f"take a divisor of {channels} and {self.filters} for groups, or other filters"
                raise ShapeError(f"{self.name}: {groups} groups do not divide {count} {given}: {mend}")
        return groups

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        rows, columns, _ = shape = self.output_shape(input_shape)
        height, width, channels = input_shape
        (top, _), (left, _) = self.pads(input_shape)
        groups, places = self.groups_of(channels), self.size[0] * self.size[1]
        image, batch = (channels, height, width, rows, columns), (context.capacity, context.batch_size)
        of_products = ConvolutionShape(self.filters, self.size, self.stride, (top, left), *image, *batch)
        fans = channels // groups * places, self.filters // groups * places
        self._make_w(context, self.filters, channels // groups, *self.size, fans=fans)
        made = products_of(context.backend, of_products, context.scratch, context.needs_input_gradient, groups)
        self._products, self._products_of_one = made
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

    def filters_of(self, w: NDArray[Any], input_shape: Shape) -> NDArray[Any] | None:
        """Return the filters over all channels, 0 for those of other groups."""
        _, channels, *size = w.shape
        groups = self.groups_of(input_shape[2])
        filters = np.zeros((groups, len(w) // groups, groups, channels, *size), w.dtype)
        each = np.arange(groups)
        filters[each, :, each] = w.reshape(groups, -1, channels, *size)
        return filters.reshape(len(w), groups * channels, *size)
