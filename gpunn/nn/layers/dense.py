"""The fully-connected layer, (1)–(3)."""

from __future__ import annotations

from gpunn.backend.base import Shape
from gpunn.backend.product import Product
from gpunn.config import register
from gpunn.errors import ShapeError
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer
from gpunn.nn.layers.activation import checked_weights, weights_for
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.layers.bias import Bias, checked_bias
from gpunn.nn.parameter import Parameter
from gpunn.scalars import positive_whole


@register
class Dense(Layer):
    """z = w a + b: every unit sums over all inputs (1), (2).

    Two stages: the product w a here, and the `Bias`. Backward, with δ = ∂C/∂z: ∂C/∂a = wᵀ δ (8), ∂C/∂b = δ (12),
    ∂C/∂w = δ aᵀ (13), summed over the batch.

    Args:
        units: number of outputs.
        weights: distribution of the initial weights; "auto" takes He's before a ReLU and its like, else Glorot's.
        bias: the constant that biases begin with; False for no bias.

    Shapes: (inputs,) → (units,); w is (units, inputs), b is (units,).
    """

    has_weights = takes_rows = True
    w: Parameter

    def __init__(self, units: int, weights: Initializer | str = "auto", bias: float | bool = 0.0) -> None:
        self.units = self.outputs = positive_whole(units, "units of Dense")
        self.weights = checked_weights(weights)
        self.bias = checked_bias(bias, "Dense")

    def stages(self) -> list[Layer]:
        return [self] if self.bias is False else [self, Bias(float(self.bias))]

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"{self.name}: Dense expects (features,), got {input_shape}: put Flatten() before it")
        return (self.units,)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        (inputs,) = input_shape
        self._forward = Product(context.backend)
        self._backward = Product(context.backend, transposed="a")
        weights = weights_for(self.weights, context.activation)
        self.w = context.parameter(
            "w", (self.units, inputs), weights, fan_in=inputs, fan_out=self.units, weight_decay=True
        )
        self._z = context.buffer(shape)
        self._da = context.buffer(input_shape) if context.needs_input_gradient else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._a = x
        z = self._z[x.shape[1]]
        self._forward(1.0, self.w.value, x, 0.0, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        da = None
        if self._da is not None:
            da = self._da[dy.shape[1]]
            self._backward(1.0, self.w.value, dy, 0.0, da)
        self.w.collect(dy, self._a)
        return da

    def forget_batch(self) -> None:
        self._a = None
        self._forward.forget()
