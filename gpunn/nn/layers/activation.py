"""Apply activation functions as layers: a = f(z), and δ = ∂C/∂a ⊙ f′(z)."""

from typing import Any, ClassVar

from gpunn.backend.array_code import NO_KERNEL, is_array_code
from gpunn.backend.base import Shape
from gpunn.config import from_config, register
from gpunn.config.scalars import real
from gpunn.errors import ShapeError
from gpunn.kernels import activations as kernels
from gpunn.kernels.record import Array, Elementwise, Raw
from gpunn.nn.initializers import Glorot, He, Initializer
from gpunn.nn.layers.base import BuildContext, Layer

__all__ = ["Activation", "LeakyReLU", "ReLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class Activation(Layer):
    """a = f(z), element by element, without a change of shape.

    Your own activation defines `function` and `derivative`, in array code that runs on NumPy and CuPy, or two kernels.
    """

    name_prefix = ""  # each subclass is named after its class
    role = "activation"
    output_is_free = False
    kernel: ClassVar[Elementwise | Raw]  # computes f: (z, *constants, a)
    gradient_kernel: ClassVar[Elementwise | Raw]  # computes δ: (∂C/∂a, a or z, *constants, δ)
    derivative_from_output: ClassVar[bool] = True  # f′ is written from a, so a may overwrite z
    weights: ClassVar[type[Initializer]] = Glorot  # distribution of "auto" weights in the layer before
    is_array_code: ClassVar[bool] = False  # whether `function` and `derivative` replace the kernels

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.is_array_code = is_array_code(cls, "function", "kernel", "gradient_kernel")
        if cls.is_array_code:
            cls.kernel = cls.gradient_kernel = NO_KERNEL
            cls.derivative_from_output, cls.output_is_free = False, True

    def function(self, xp: Any, z: Array) -> Array:
        """Return f(z), element by element, with functions of `xp`, NumPy or CuPy."""
        raise NotImplementedError

    def derivative(self, xp: Any, z: Array) -> Array:
        """Return f′(z), element by element, with functions of `xp`."""
        raise NotImplementedError

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._backend, self._run = context.backend, context.backend.run
        in_place = context.may_overwrite_input and self.derivative_from_output
        self._a = None if in_place else context.buffer(input_shape)
        self._dz = context.buffer(input_shape) if context.is_last else None
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        a = x if self._a is None else self._a[x.shape[-1]]
        if self.is_array_code:
            with (backend := self._backend).array_code():
                a[...] = self.function(backend.xp, x)
        else:
            self._run(self.kernel, x, *self._constants(), a)
        self._seen = a if self.derivative_from_output else x
        return a

    def backward(self, dy: Array) -> Array | None:
        dz = dy if self._dz is None else self._dz[dy.shape[-1]]
        if self.is_array_code:
            with (backend := self._backend).array_code():
                dz[...] = dy * self.derivative(backend.xp, self._seen)
        else:
            self._run(self.gradient_kernel, dy, self._seen, *self._constants(), dz)
        return dz

    def _constants(self) -> tuple[Any, ...]:
        return ()

    @staticmethod
    def from_equation(
        name: str, equation: str, parameters: dict[str, float] | None = None, check: bool = True
    ) -> "Activation":
        """Make an activation from its equation in z; SymPy derives it (the extra `equations`).

        An equation may contain numbers, + - * / **, parentheses, `where(z > 0, a, b)`, pi, e, and the functions exp,
        log, log1p, expm1, sqrt, tanh, sinh, cosh, sigmoid, erf, abs, max, min, sin, cos, tan, atan and sign. Exponents
        are numbers. Forms that would overflow are rewritten: log(1 + exp(z)) as max(z, 0) + log1p(exp(−|z|)), and so
        on. One activation may stand in several places of a network; an experiment file writes `type = "Equation"`.

        Args:
            name: Beginning of the layer's name: "swish" makes swish1, swish2.
            equation: Right-hand side of a = f(z), such as "z / (1 + exp(-z))".
            parameters: Initial values of learned parameters in the equation, by name, such as {"a": 0.25}. Each feature
                or channel has a value of its own, without weight decay.
            check: Whether to check f and its derivatives: finite in float32 for z from −1000 to 1000, and the
                derivatives equal to central differences.

        Raises:
            OptionError: An equation outside this grammar, without z, or failing the check; or SymPy is missing.
        """
        prefix = f"{name}_" if isinstance(name, str) and name[-1:].isdigit() else name
        made = {"type": "Equation", "equation": equation, "name_prefix": prefix, "check": check}
        if parameters is not None:
            made["parameters"] = parameters
        return from_config("layer", made)  # type: ignore[no-any-return]


@register
class Sigmoid(Activation):
    """f(z) = 1 / (1 + e⁻ᶻ), f′ = a (1 − a)."""

    increases = gives_probability = True
    kernel, gradient_kernel = kernels.sigmoid, kernels.sigmoid_gradient


@register
class Tanh(Activation):
    """f(z) = tanh z, f′ = (1 − a)(1 + a)."""

    increases = True
    kernel, gradient_kernel = kernels.tanh, kernels.tanh_gradient


@register
class ReLU(Activation):
    """f(z) = max(z, 0), f′ = 1 where z > 0, else 0."""

    increases = True
    kernel, gradient_kernel = kernels.relu, kernels.relu_gradient
    weights = He


@register
class LeakyReLU(Activation):
    """f(z) = max(z, αz), f′ = 1 where z > 0, else α.

    Args:
        alpha: Slope α for negative z, at most 1.
    """

    kernel, gradient_kernel = kernels.leaky_relu, kernels.leaky_relu_gradient
    derivative_from_output = False  # with a negative α, a does not determine the sign of z
    output_is_free = True
    weights = He
    increases = property(lambda self: self.alpha >= 0)

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = real(alpha, "alpha of LeakyReLU", ("be finite and at most 1", lambda a: float("-inf") < a <= 1))

    def _constants(self) -> tuple[Any, ...]:
        return (self.alpha,)


@register
class Softplus(Activation):
    """f(z) = ln(1 + eᶻ), f′ = sigmoid(z) = 1 − e⁻ᵃ."""

    increases = True
    kernel, gradient_kernel = kernels.softplus, kernels.softplus_gradient
    weights = He


@register
class Softmax(Activation):
    """P(k | x) = e^{z_k} / Σ_i e^{z_i}, over the outputs of a sample; ∂C/∂z = a ⊙ (∂C/∂a − Σ ∂C/∂a ⊙ a).

    As the last layer it is fused with SoftmaxCrossEntropy: the loss is computed from the logits z.

    Raises:
        ShapeError: The input is an image instead of (outputs,).
    """

    kernel, gradient_kernel = kernels.softmax, kernels.softmax_gradient

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"{self.name}: Softmax expects (outputs,), got {input_shape}: put Flatten() before it")
        return input_shape
