"""The fully-connected layer, (1)–(3)."""

from gpunn.backend.base import Product, Shape
from gpunn.config import register
from gpunn.errors import ShapeError
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer
from gpunn.nn.layers.base import BuildContext
from gpunn.nn.layers.bias import Weighted
from gpunn.scalars import positive_whole


@register
class Dense(Weighted):
    """z = w a + b: every unit sums over all inputs (1), (2).

    Two stages: the product w a here, and the `Bias`. Backward, with δ = ∂C/∂z: ∂C/∂a = wᵀ δ (8), ∂C/∂b = δ (12),
    ∂C/∂w = δ aᵀ (13), summed over the batch.

    Args:
        units: Number of outputs.
        weights: Distribution of the initial weights; "auto" takes He's before a ReLU and its like, else Glorot's.
        bias: Constant that biases begin with; False for no bias.

    Shapes: (inputs,) → (units,); w is (units, inputs), b is (units,).
    """

    takes_rows = True

    def __init__(self, units: int, weights: Initializer | str = "auto", bias: float | bool = 0.0) -> None:
        self.units = self.outputs = positive_whole(units, "units of Dense")
        super().__init__(weights, bias)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"{self.name}: Dense expects (features,), got {input_shape}: put Flatten() before it")
        return (self.units,)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._forward, self._backward = Product(context.backend), Product(context.backend, transposed="a")
        self._make_w(context, self.units, *input_shape)
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
        self.w.collect(dy, self._a)  # which may already be the update of w (21)
        return da

    def forget_batch(self) -> None:
        self._a = None
        self._forward.forget()
