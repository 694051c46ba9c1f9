"""Define the fully-connected layer, (1)–(3), Flatten, and the weights and biases shared with convolutions."""

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from gpunn.backend.base import PlannedGemm, Shape, channels_first
from gpunn.config import register
from gpunn.config.scalars import positive_whole, real
from gpunn.errors import ShapeError
from gpunn.kernels.bias import add_bias, row_sums, with_bias
from gpunn.kernels.record import Array
from gpunn.nn.initializers import NAMED, Constant, Glorot, Initializer, checked_weights
from gpunn.nn.layers.activation import Activation
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.parameter import Parameter


class Weighted(Layer):
    """Multiply inputs by weights `w`; the bias is a separate stage, so that pooling can run between the two."""

    name_prefix = ""  # each subclass is named after its class
    has_weights = True
    counts_outputs: ClassVar[str] = ""  # name of the argument for the number of units or filters
    w: Parameter

    def __init__(self, weights: Initializer | str, bias: float | bool) -> None:
        self.weights = checked_weights(weights)
        if isinstance(bias, bool | np.bool_):
            self.bias: float | bool = 0.0 if bias else False  # True is the usual bias, initially 0
        else:
            self.bias = real(bias, f"bias of {type(self).__name__}", ("be finite, or False for none", math.isfinite))

    def resized(self, outputs: int) -> Layer:
        if not self.counts_outputs:
            return super().resized(outputs)
        made = self.unbuilt()
        setattr(made, self.counts_outputs, outputs)
        if made.outputs is not None:
            made.outputs = outputs
        return made

    def stages(self) -> list[Layer]:
        return [self] if self.bias is False else [self, Bias(float(self.bias))]

    def _make_w(self, context: BuildContext, *shape: int, fans: tuple[int, int] | None = None) -> None:
        """Make the weights (units, …); by default fan_in and fan_out are those of a dense layer or full convolution."""
        weights = self.weights
        if isinstance(weights, str):
            following = context.activation.weights if isinstance(context.activation, Activation) else Glorot
            weights = NAMED.get(weights, following)()
        places = math.prod(shape[2:])
        fan_in, fan_out = fans or (shape[1] * places, shape[0] * places)
        self.w = context.parameter("w", shape, weights, fan_in=fan_in, fan_out=fan_out, weight_decay=True)


@register
class Dense(Weighted):
    """z = w a + b: every unit sums over all inputs (1), (2).

    It runs as two stages, the product w a and the `Bias`. Backward, with δ = ∂C/∂z: ∂C/∂a = wᵀ δ (8), ∂C/∂b = δ (12),
    ∂C/∂w = δ aᵀ (13), summed over the batch.

    Args:
        units: Number of outputs.
        weights: Distribution of the initial weights; "auto" is He before ReLU and similar activations, else Glorot.
        bias: Initial value of the biases; False for no bias.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: The input is an image: put `Flatten` before it.

    Shapes: (inputs,) → (units,); w is (units, inputs), b is (units,).
    """

    takes_rows = True
    counts_outputs = "units"

    def __init__(self, units: int, weights: Initializer | str = "auto", bias: float | bool = 0.0) -> None:
        self.units = self.outputs = positive_whole(units, "units of Dense")
        super().__init__(weights, bias)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"{self.name}: Dense expects (features,), got {input_shape}: put Flatten() before it")
        return (self.units,)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._forward, self._backward = PlannedGemm(context.backend), PlannedGemm(context.backend, transposed="a")
        self._make_w(context, self.units, *input_shape)
        self._z = context.buffer(shape)
        self._da = context.buffer(input_shape) if context.needs_input_gradient else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._a, z = x, self._z[x.shape[1]]
        self._forward(1.0, self.w.value, x, 0.0, z)
        return z

    def backward(self, dy: Array) -> Array | None:
        da = None if self._da is None else self._da[dy.shape[1]]
        if da is not None:
            self._backward(1.0, self.w.value, dy, 0.0, da)
        self.w.collect(dy, self._a)  # may update w in place (21), so it follows ∂C/∂a
        return da

    def forget_batch(self) -> None:
        self._a = None
        self._forward.forget()


@register
class Flatten(Layer):
    """(height, width, channels) → (features,), in PyTorch's and ONNX's order: channel, height, width."""

    aliases_gradient = True
    only_reshapes = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._inside = channels_first(input_shape)
        self._x: Array = None
        self.output_is_free = context.may_overwrite_input
        return self.output_shape(input_shape)

    def forward(self, x: Array, training: bool) -> Array:
        if x is not self._x:  # keep the same view each time: later products are planned for its memory
            self._x, self._y = x, x.reshape(-1, x.shape[-1])
        return self._y

    def backward(self, dy: Array) -> Array | None:
        return dy.reshape(*self._inside, dy.shape[-1])


class Bias(Layer):
    """z := z + b, with one b for each unit or filter; ∂C/∂b = δ (12), summed over the batch."""

    increases = True

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._run, self._units = context.backend.run, input_shape[-1]
        self.scratch = context.shared_rows(self._units, math.prod(input_shape[:-1]) * context.capacity)
        self.b = self.bias_for_loss = context.parameter("b", (self._units,), Constant(self.value))
        return input_shape

    def fused_with(self, following: Layer) -> Layer | None:
        if not isinstance(following, Activation) or (both := with_bias.get(following.kernel)) is None:
            return None
        # A user's activation may borrow one of these kernels, yet have a forward, backward or derivative of its own.
        kind = type(following)
        is_plain = kind.forward is Activation.forward and kind.backward is Activation.backward
        return BiasActivation(self, following) if is_plain and both.gradient is kind.gradient_kernel else None

    def forward(self, x: Array, training: bool) -> Array:
        self._run(add_bias, self.b.column, x.reshape(self._units, -1))
        return x

    def backward(self, dy: Array) -> Array | None:
        if not self.b.is_frozen:
            self._run(row_sums, dy, self.b.grad, *self.scratch)
        return dy


class BiasActivation(Layer):
    """a = f(z + b) in one pass; δ = ∂C/∂a ⊙ f′(z), with f′ written from a, and its sum ∂C/∂b in another.

    Attributes:
        left_to: Function (x, training) of the next stage: true where that stage computes bias and activation itself,
            forward and backward.
    """

    name_prefix = "bias"
    output_is_free = False

    def __init__(self, bias: Bias, activation: Activation) -> None:
        self.bias, self.name = bias, bias.name
        self.activation = self.fused = activation
        self._kernels = with_bias[activation.kernel]

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self.left_to: Callable[[Array, bool], bool] | None = None
        self._is_left = False
        self._dz = context.buffer(input_shape) if context.is_last else None
        return self.bias.build(context, input_shape)

    def without(self, link: type[Layer]) -> list[Layer]:
        return [self.bias] if isinstance(self.activation, link) else [self]

    def forward(self, x: Array, training: bool) -> Array:
        self._is_left = self.left_to is not None and self.left_to(x, training)
        if self._is_left:
            return x
        b = self.bias.b
        self.bias._run(self._kernels.forward, b.column, x.reshape(b.size, -1))
        self._a = x
        return x

    def backward(self, dy: Array) -> Array | None:
        if self._is_left:
            return dy
        dz = dy if self._dz is None else self._dz[dy.shape[-1]]
        if self.bias.b.is_frozen:
            self.bias._run(self.activation.gradient_kernel, dy, self._a, dz)
        else:
            bias = self.bias
            bias._run(self._kernels.backward, dy, self._a, dz, bias.b.grad, *bias.scratch)
        return dz
