"""Shrink an image by pooling: keep one number for each window."""

from types import MappingProxyType
from typing import ClassVar

import numpy as np

from gpunn.backend.base import Shape
from gpunn.config import register
from gpunn.config.scalars import flag, pair
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import pooling as kernels
from gpunn.kernels.record import Array, Raw
from gpunn.nn.layers import windows
from gpunn.nn.layers.base import BuildContext, Layer


class _Pool2D(Layer):
    """Reduce each window of an image to one number."""

    name_prefix = ""  # each subclass is named after its class
    role = "pooling"
    defaults_to = MappingProxyType({"stride": "size"})
    kernel: ClassVar[Raw]
    gradient_kernel: ClassVar[Raw]

    def __init__(
        self,
        size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] | str = "valid",
    ) -> None:
        kind = type(self).__name__
        self.size = pair(size, f"size of {kind}")
        self.stride = self.size if stride is None else pair(stride, f"stride of {kind}")
        self.padding = windows.checked_padding(padding, kind)
        if isinstance(self.padding, tuple) and any(
            pad >= size for pad, size in zip(self.padding, self.size, strict=True)
        ):
            expected = f"padding of {kind} must be below its size {self.size}"
            raise OptionError(f"{expected}, got {padding!r}: a window of padding alone has no pixel")
        if self.picks_largest and self.size[0] * self.size[1] > 256:  # a byte holds the place of the largest
            raise OptionError(f"a window of {kind} has at most 256 places, got {self.size[0]}×{self.size[1]}")

    def output_shape(self, input_shape: Shape) -> Shape:
        windows.check_image(self, input_shape)
        places = zip(input_shape, self.size, self.stride, self.pads(input_shape), strict=False)
        rows, columns = (windows.count(*along) for along in places)
        if rows < 1 or columns < 1:
            given = f"a window of {self.size[0]}×{self.size[1]} does not fit an image of {input_shape}"
            raise ShapeError(f"{self.name}: {given}: take a smaller one, or leave out this pooling")
        return rows, columns, input_shape[2]

    def pads(self, input_shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the padded rows above and below an image, and the padded columns left and right."""
        return windows.image_padding(self.padding, input_shape, self.size, self.stride)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run = context.backend.run
        pads = self.pads(input_shape)
        (top, _), (left, _) = pads
        self._window: kernels.Window = (*self.size, *self.stride, top, left)
        self._counting = self._counting_arguments(is_padded=any(map(any, pads)))
        self._y = context.buffer(shape)
        # ∂C/∂x may take the memory of x: nothing reads x after pooling.
        own = context.needs_input_gradient and not context.may_overwrite_input
        self._dx = context.buffer(input_shape) if own else None
        self._choice = context.buffer(shape, np.uint8) if self.picks_largest else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        n, self._x = x.shape[3], x
        choice = () if self._choice is None else (self._choice[n],)
        self._run(self.kernel, x, self._window, *self._counting, self._y[n], *choice)
        return self._y[n]

    def backward(self, dy: Array) -> Array | None:
        n = dy.shape[3]
        dx = self._x if self._dx is None else self._dx[n]
        choice = () if self._choice is None else (self._choice[n],)
        self._run(self.gradient_kernel, dy, *choice, self._window, *self._counting, dx)
        return dx

    def _counting_arguments(self, is_padded: bool) -> tuple[bool, ...]:
        """Return further kernel arguments: for a mean, whether padding counts."""
        return ()


@register
class MaxPool2D(_Pool2D):
    """y = max of each window; the gradient goes to one place, the first of equal maxima.

    Windows of `size` pixels lie `stride` apart, wholly inside the padded image: pixels left over at the right and
    bottom edges are ignored. Padding is never the maximum, however small its neighbours are.

    Args:
        size: Height and width of a window, or one number for both.
        stride: Vertical and horizontal step between windows, or one number for both; by default `size`, so that windows
            lie side by side. Windows may overlap.
        padding: "valid" for none; the padding on each side, one or two numbers below the size; or "same" for
            ⌈height/stride⌉ rows and ⌈width/stride⌉ columns, half on each side and an odd one at the bottom and right.

    Raises:
        OptionError: An argument out of its range, or a window of more than 256 places.
        ShapeError: Not an image, or smaller than the window.

    Shapes: (height, width, channels) → (rows, columns, channels), rows = ⌊(height − size + 2 padding)/stride⌋ + 1.
    """

    picks_largest = True
    kernel, gradient_kernel = kernels.max_pool, kernels.max_pool_gradient


@register
class AveragePool2D(_Pool2D):
    """y = mean of each window; its pixels share the gradient equally.

    Args:
        size, stride, padding: Window, step and padding, with the same shapes as in `MaxPool2D`.
        count_include_pad: Whether the mean counts padding as zeros, PyTorch's default. By default it is over pixels
            only, as in Keras and ONNX, so that edges do not fade.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: Not an image, or smaller than the window.
    """

    kernel, gradient_kernel = kernels.average_pool, kernels.average_pool_gradient

    def __init__(
        self,
        size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] | str = "valid",
        count_include_pad: bool = False,
    ) -> None:
        self.count_include_pad = flag(count_include_pad, "count_include_pad of AveragePool2D")
        super().__init__(size, stride, padding)

    def _counting_arguments(self, is_padded: bool) -> tuple[bool, ...]:
        return (self.count_include_pad or not is_padded,)  # without padding the faster way gives the same


@register
class GlobalAveragePool2D(Layer):
    """y = mean of all pixels of a channel, which share the gradient equally (M. Lin, Q. Chen, S. Yan, 2013).

    It replaces `Flatten` between convolutions and the last `Dense`, which then has one weight for each channel and
    output, whatever the size of the images.

    Raises:
        ShapeError: The input is not an image.

    Shapes: (height, width, channels) → (channels,).
    """

    role = "pooling"

    def output_shape(self, input_shape: Shape) -> Shape:
        windows.check_image(self, input_shape, "put it in the place of Flatten()")
        return input_shape[2:]

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run, self._pixels = context.backend.run, float(input_shape[0] * input_shape[1])
        self._y = context.buffer(shape)
        # ∂C/∂x may take the memory of x: nothing reads x after pooling.
        own = context.needs_input_gradient and not context.may_overwrite_input
        self._dx = context.buffer(input_shape) if own else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._x, y = x, self._y[x.shape[3]]
        self._run(kernels.mean_of_pixels, x, y)
        return y

    def backward(self, dy: Array) -> Array | None:
        dx = self._x if self._dx is None else self._dx[dy.shape[1]]
        self._run(kernels.mean_of_pixels_gradient, dy[:, None, None], self._pixels, dx)
        return dx
