"""The bias as a stage of its own, so that pooling can come between a product and its bias."""

from __future__ import annotations

from gpunn.initializers import Constant
from gpunn.kernels.kernel import Array
from gpunn.kernels.linear import add_bias, row_sums
from gpunn.layers.base import BuildContext, Layer, Shape


class Bias(Layer):
    """z := z + b, one b a unit or filter; ∂C/∂b = δ (12), summed over the batch: second stage of a layer with weights.

    Args:
        value: the constant that biases begin with.
    """

    family = "bias"
    hands_gradient_on = True

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._run = context.backend.run
        self._units = input_shape[-1]
        self.b = context.parameter("b", (self._units,), Constant(self.value))
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        self._run(add_bias, self.b.column, x.reshape(self._units, -1))
        return x

    def backward(self, dy: Array) -> Array | None:
        self._run(row_sums, dy, self.b.grad)
        return dy
