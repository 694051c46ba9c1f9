"""Layers that only look at the same numbers in another shape."""

from math import prod

from gpunn.backend.base import Shape, inside
from gpunn.config import register
from gpunn.kernels.record import Array
from gpunn.nn.layers.base import BuildContext, Layer


@register
class Flatten(Layer):
    """(height, width, channels) → (features,), in the order channel, height, width, as PyTorch and ONNX have it."""

    aliases_gradient = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return (prod(input_shape),)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._inside = inside(input_shape)
        self._x: Array = None
        self.output_is_free = context.may_overwrite_input
        return self.output_shape(input_shape)

    def forward(self, x: Array, training: bool) -> Array:
        if x is not self._x:  # the same view each time, for which the products that follow are planned
            self._x, self._y = x, x.reshape(-1, x.shape[-1])
        return self._y

    def backward(self, dy: Array) -> Array | None:
        return dy.reshape(*self._inside, dy.shape[-1])
