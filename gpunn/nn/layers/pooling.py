"""Pooling layers: they shrink an image by keeping one number of each window."""

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
    """Windows of an image, of each of which one number is kept."""

    name_prefix = ""  # each has its own
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
        if self.picks_largest and self.size[0] * self.size[1] > 256:  # the chosen place is kept in a byte
            raise OptionError(f"a window of {kind} has at most 256 places, got {self.size[0]}×{self.size[1]}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            expected = f"{self.name}: {type(self).__name__} expects (height, width, channels)"
            raise ShapeError(f"{expected}, got {input_shape}: put it before Flatten()")
        places = zip(input_shape, self.size, self.stride, self.pads(input_shape), strict=False)
        rows, columns = (windows.count(*along) for along in places)
        if rows < 1 or columns < 1:
            given = f"a window of {self.size[0]}×{self.size[1]} does not fit an image of {input_shape}"
            raise ShapeError(f"{self.name}: {given}: take a smaller one, or leave out this pooling")
        return rows, columns, input_shape[2]

    def pads(self, input_shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows of padding above and below an image, and the columns left and right of it."""
        return windows.around(self.padding, input_shape, self.size, self.stride)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run = context.backend.run
        pads = self.pads(input_shape)
        (top, _), (left, _) = pads
        self._window: kernels.Window = (*self.size, *self.stride, top, left)
        # Without padding both ways of counting are one.
        self._counted = self._counts(any(map(any, pads)))
        self._y = context.buffer(shape)
        # ∂C/∂x may take the memory of x, which is done with once it is pooled.
        own = context.needs_input_gradient and not context.may_overwrite_input
        self._dx = context.buffer(input_shape) if own else None
        self._choice = context.buffer(shape, np.uint8) if self.picks_largest else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        n, self._x = x.shape[3], x
        choice = () if self._choice is None else (self._choice[n],)
        self._run(self.kernel, x, self._window, *self._counted, self._y[n], *choice)
        return self._y[n]

    def backward(self, dy: Array) -> Array | None:
        n = dy.shape[3]
        dx = self._x if self._dx is None else self._dx[n]
        choice = () if self._choice is None else (self._choice[n],)
        self._run(self.gradient_kernel, dy, *choice, self._window, *self._counted, dx)
        return dx

    def _counts(self, is_padded: bool) -> tuple[bool, ...]:
        """Return what the kernels are told besides the window."""
        return ()


@register
class MaxPool2D(_Pool2D):
    """The largest of each window; its gradient goes to one place, the first of equals.

    Windows of `size` every `stride`, wholly inside the image and its padding: what is left over at the right and bottom
    edges is not looked at. Padding is never the largest, however small the numbers beside it are.

    Args:
        size: Height and width of a window, or one number for both.
        stride: Steps between windows, or one number; left out, as `size`: windows side by side. They may overlap.
        padding: "valid" for none; places of padding on each side, one or two numbers below the size; or "same" for
            ⌈height/stride⌉ rows and ⌈width/stride⌉ columns, half on each side and an odd one at the bottom and right.

    Shapes: (height, width, channels) → (rows, columns, channels), rows = ⌊(height − size + 2 padding)/stride⌋ + 1.
    """

    picks_largest = True
    kernel, gradient_kernel = kernels.max_pool, kernels.max_pool_gradient


@register
class AveragePool2D(_Pool2D):
    """The mean of each window; its gradient goes to all of its pixels alike.

    Args:
        size, stride, padding: As those of `MaxPool2D`; the shapes are the same too.
        count_include_pad: Whether padding counts as zeros, PyTorch's default; left out, a mean is of pixels alone, as
            in Keras and ONNX, so that edges do not fade.
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

    def _counts(self, is_padded: bool) -> tuple[bool, ...]:
        return (self.count_include_pad or not is_padded,)


@register
class GlobalAveragePool2D(Layer):
    """The mean of all pixels of each channel; its gradient goes to all of them alike (M. Lin, Q. Chen, S. Yan, 2013).

    It stands where `Flatten` would, between convolutions and the last `Dense`, which then has one weight for each
    channel and output, whatever the size of the images.

    Shapes: (height, width, channels) → (channels,).
    """

    role = "pooling"

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            expected = f"{self.name}: GlobalAveragePool2D expects (height, width, channels)"
            raise ShapeError(f"{expected}, got {input_shape}: put it in the place of Flatten()")
        return input_shape[2:]

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run, self._pixels = context.backend.run, float(input_shape[0] * input_shape[1])
        self._y = context.buffer(shape)
        # ∂C/∂x may take the memory of x, as in other poolings.
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
