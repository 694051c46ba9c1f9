"""The fully-connected layer, (1)–(3)."""

from __future__ import annotations

from gpunn.errors import ShapeError
from gpunn.initializers import Constant, Initializer
from gpunn.kernels.kernel import Array
from gpunn.kernels.linear import add_bias, row_sums
from gpunn.layers.activation import weights_for
from gpunn.layers.base import BuildContext, Layer, Shape, positive_whole


class Dense(Layer):
    """z = w a + b: every unit sums over all inputs (1), (2).

    Backward, with δ = ∂C/∂z: ∂C/∂a = wᵀ δ (8), ∂C/∂b = δ (12), ∂C/∂w = δ aᵀ (13), summed over the batch.

    Args:
        units: number of outputs.
        weights: distribution of the initial weights; "auto" takes He's before a ReLU and its like, else Glorot's.
        bias: the constant that biases begin with.

    Shapes: (inputs,) → (units,); w is (units, inputs), b is (units,).
    """

    family = "dense"

    def __init__(self, units: int, weights: Initializer | str = "auto", bias: float = 0.0) -> None:
        self.units = positive_whole(units, "units of Dense")
        self.weights = weights
        self.bias = bias

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"{context.name}: Dense expects (features,), got {input_shape}: put Flatten() before it")
        inputs = input_shape[0]
        self._run = context.backend.run
        self._gemm = context.backend.gemm
        weights = weights_for(self.weights, context.following)
        self.w = context.parameter("w", (self.units, inputs), weights, fan_in=inputs, fan_out=self.units, decays=True)
        self.b = context.parameter("b", (self.units,), Constant(self.bias))
        self._z = context.buffer((self.units,))
        self._da = context.buffer(input_shape) if context.needs_input_gradient else None
        return (self.units,)

    def forward(self, x: Array, training: bool) -> Array:
        self._a = x
        z = self._z[x.shape[1]]
        self._gemm(1.0, self.w.value, x, 0.0, z)
        self._run(add_bias, self.b.column, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        da = None
        if self._da is not None:
            da = self._da[dy.shape[1]]
            self._gemm(1.0, self.w.value.T, dy, 0.0, da)
        self._run(row_sums, dy, self.b.grad)
        self.w.collect(dy, self._a)
        return da
