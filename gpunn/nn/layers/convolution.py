"""Slide small filters over an image, as matrix products over its patches: the convolutional layer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Shape
from gpunn.backend.convolution_shape import ConvolutionShape, Products
from gpunn.backend.grouped_convolution import products_of
from gpunn.config import register
from gpunn.config.scalars import pair, positive_whole
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer
from gpunn.nn.layers import windows
from gpunn.nn.layers.base import BuildContext
from gpunn.nn.layers.dense import Weighted


class Convolution(Weighted):
    """Hold the matrix products of a convolution and the buffers for its output and ∂C/∂input."""

    name_prefix = ""  # each subclass is named after its class
    counts_outputs = "filters"

    def _allocate(
        self, context: BuildContext, products: tuple[Products, Products], input_shape: Shape, shape: Shape
    ) -> None:
        self._products, self._products_of_one = products
        self._z = context.buffer(shape)
        self._dx = context.buffer(input_shape) if context.needs_input_gradient else None

    def _products_for(self, batch: Array) -> Products:
        return self._products_of_one if batch.shape[3] == 1 else self._products

    def _input_gradient(self, dy: Array) -> Array | None:
        """Return the array for ∂C/∂input; None where no earlier layer learns."""
        return None if self._dx is None else self._dx[dy.shape[3]]


@register
class Conv2D(Convolution):
    """z[f] = Σ_{c,u,v} w[f, c, u, v] a[c, i·stride + u − pad, j·stride + v − pad] + b[f].

    With the patches under the filter as the columns of a matrix A, it is a fully-connected layer at each place:
    Z = W A (2), ∂C/∂W = Δ Aᵀ (13), ∂C/∂A = Wᵀ Δ (8). A is computed in pieces. The layer runs as two stages, the
    products and the `Bias`.

    `groups` splits channels and filters into that many groups, in order. A filter sees only the channels of its own
    group, so weights and work shrink by that factor. One channel a group is a depthwise convolution; a
    `Conv2D(filters, 1)` after it mixes the channels.

    Args:
        filters: Number of filters, which is the number of output channels.
        size: Height and width of a filter, or one number for both.
        stride: Vertical and horizontal step between filter positions, or one number for both.
        padding: "valid" for none; the number of zeros on each side, one or two numbers; or "same" for ⌈height/stride⌉
            rows and ⌈width/stride⌉ columns, with half of the zeros on each side and an odd one at the bottom and right.
        bias: Initial value of the biases; False for no bias.
        weights: Distribution of the initial weights, as for `Dense`.
        groups: Number of groups, a divisor of channels and filters; "depthwise" for one group a channel.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: Not an image, smaller than the filter, or a number of channels that the groups do not divide.

    Shapes: (height, width, channels) → (rows, columns, filters), rows = ⌊(height − size + 2 padding)/stride⌋ + 1; w is
    (filters, channels/groups, size, size), b is (filters,).
    """

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
        windows.check_image(self, input_shape)
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
        """Return the rows of zeros above and below an image, and the columns of zeros left and right."""
        return windows.image_padding(self.padding, input_shape, self.size, self.stride)

    def groups_of(self, channels: int) -> int:
        """Return the number of groups for images of this many channels; raise ShapeError where it is no divisor."""
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
        geometry = ConvolutionShape(self.filters, self.size, self.stride, (top, left), *image, *batch)
        fans = channels // groups * places, self.filters // groups * places
        self._make_w(context, self.filters, channels // groups, *self.size, fans=fans)
        products = products_of(context.backend, geometry, context.scratch, context.needs_input_gradient, groups)
        self._allocate(context, products, input_shape, shape)
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._x, z = x, self._z[x.shape[3]]
        self._products_for(x).forward(self.w.matrix, x, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        products, dx = self._products_for(dy), self._input_gradient(dy)
        if dx is not None:
            products.input_gradient(self.w.matrix, dy, dx)
        if not self.w.is_frozen:
            products.weight_gradient(self._x, dy, self.w.gradient_matrix)
        return dx

    def filters_of(self, w: NDArray[Any], input_shape: Shape) -> NDArray[Any] | None:
        """Return the filters over all channels, with zeros for those of other groups."""
        _, channels, *size = w.shape
        groups = self.groups_of(input_shape[2])
        filters = np.zeros((groups, len(w) // groups, groups, channels, *size), w.dtype)
        each = np.arange(groups)
        filters[each, :, each] = w.reshape(groups, -1, channels, *size)
        return filters.reshape(len(w), groups * channels, *size)
