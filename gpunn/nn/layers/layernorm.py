"""Normalize each sample, or each pixel of an image, by its own mean and variance."""

from math import prod

from gpunn.backend.base import Shape
from gpunn.config import register
from gpunn.config.scalars import POSITIVE, real
from gpunn.errors import ShapeError
from gpunn.kernels import layer_normalization as kernels
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Constant
from gpunn.nn.layers.base import BuildContext, Layer


@register
class LayerNorm(Layer):
    """x̂ = (x − x̄)/√(σ² + ε), y = γ x̂ + β, over the features of a sample (J. Ba, J. Kiros, G. Hinton, 2016).

    x̄ and σ² are over the last axis: all features, or the channels of one pixel, as PyTorch's `LayerNorm(channels)` on
    images with channels last. γ and β are learned for each feature or channel, without weight decay. Samples do not
    depend on each other, so the output is the same for every batch size, in training and after it.

    Args:
        epsilon: ε, added to the variance.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: A single feature or channel: its output would always be β.

    Shapes: (features,) or (height, width, channels), unchanged; γ and β are (features,) or (channels,).
    """

    is_pictured = False
    role = "normalization"

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = real(epsilon, "epsilon of LayerNorm", POSITIVE)

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape[-1] < 2:
            needed = "LayerNorm needs at least two features, or channels of an image"
            raise ShapeError(f"{self.name}: {needed}, got {input_shape}: put it behind Flatten(), or take BatchNorm()")
        return input_shape

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run, self._features = context.backend.run, shape[-1]
        self.gamma = context.parameter("gamma", (self._features,), Constant(1.0))
        self.beta = context.parameter("beta", (self._features,), Constant(0.0))
        self._mean, self._scale = (context.buffer((*shape[:-1], 1)) for _ in range(2))
        self._scratch = context.shared_rows(self._features, prod(shape[:-1]) * context.capacity, 2)
        self._y = context.buffer(shape)
        self._dx = context.buffer(shape) if context.is_last else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        n = x.shape[-1]
        self._x, y = x, self._y[n]
        self._of_columns = self._mean[n].reshape(-1), self._scale[n].reshape(-1)
        columns, out = (array.reshape(self._features, -1) for array in (x, y))
        parameters = self.gamma.value, self.beta.value, self.epsilon
        self._run(kernels.normalize_columns, columns, *parameters, *self._of_columns, out)
        return y

    def backward(self, dy: Array) -> Array | None:
        dx = dy if self._dx is None else self._dx[dy.shape[-1]]
        delta, x = (array.reshape(self._features, -1) for array in (dy, self._x))
        out = delta if dx is dy else dx.reshape(delta.shape)
        if self.gamma.grad is not None and self.beta.grad is not None:  # first, since dx may overwrite dy
            gradients = self.gamma.grad, self.beta.grad
            self._run(kernels.normalize_columns_sums, delta, x, *self._of_columns, *gradients, *self._scratch)
        self._run(kernels.normalize_columns_gradient, delta, x, self.gamma.value, *self._of_columns, out)
        return dx
