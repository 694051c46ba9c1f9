"""Define an activation by its equation, with optional learned parameters."""

from math import prod
from typing import TYPE_CHECKING

from gpunn.backend.base import Shape, channels_first
from gpunn.config import register
from gpunn.config.scalars import flag
from gpunn.kernels.bias import row_sums
from gpunn.kernels.record import Array, Elementwise
from gpunn.nn.equations import parts
from gpunn.nn.initializers import Constant, Glorot, He
from gpunn.nn.layers.activation import Activation
from gpunn.nn.layers.base import BuildContext

if TYPE_CHECKING:
    from gpunn.nn.equations.code import ActivationCode


@register
class Equation(Activation):
    """a = f(z, p) as an equation in z, δ = ∂C/∂a ⊙ f′(z), ∂C/∂p = Σ ∂C/∂a ⊙ ∂f/∂p; see `Activation.from_equation`.

    A parameter p has one learned value for each feature or channel, without weight decay.
    """

    name_prefix = "equation"
    may_repeat = True

    def __init__(
        self,
        equation: str,
        name_prefix: str = "equation",
        parameters: dict[str, float] | None = None,
        check: bool = True,
    ) -> None:
        self.equation, self.name_prefix = equation, parts.checked_prefix(name_prefix)  # type: ignore[misc]
        self.parameters, self.check = parts.checked_parameters(parameters), flag(check, "check")
        code = self._code
        self.derivative_from_output = code.from_output  # type: ignore[misc]
        self.output_is_free = not code.from_output
        self.increases = code.increases  # type: ignore[misc]
        self.weights = He if code.rectifies else Glorot  # type: ignore[misc]

    @property
    def _code(self) -> "ActivationCode":
        return parts.code_of_activation(self.equation, self.parameters, self.check)

    @property
    def kernel(self) -> Elementwise:  # type: ignore[override]
        """Kernel of f with arguments (z, *p, a)."""
        return self._code.kernel

    @property
    def gradient_kernel(self) -> Elementwise:  # type: ignore[override]
        """Kernel of δ with arguments (∂C/∂a, a or z, *p, δ, *∂C/∂p of each element)."""
        return self._code.gradient_kernel

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._kernels = self._code.kernel, self._code.gradient_kernel
        units = input_shape[-1]
        self._learned = [
            context.parameter(name, (units,), Constant(value)) for name, value in (self.parameters or {}).items()
        ]
        self._shares = [context.buffer(input_shape) for _ in self._learned]
        self._scratch = context.shared_rows(units, prod(input_shape[:-1]) * context.capacity)
        self._units, self._inside = units, channels_first(input_shape)
        return super().build(context, input_shape)

    def forward(self, x: Array, training: bool) -> Array:
        a = x if self._a is None else self._a[x.shape[-1]]
        self._run(self._kernels[0], *self._flat(x), *self._columns(), *self._flat(a))
        self._seen = a if self.derivative_from_output else x
        return a

    def backward(self, dy: Array) -> Array | None:
        dz = dy if self._dz is None else self._dz[dy.shape[-1]]
        shares = self._flat(*(share[dy.shape[-1]] for share in self._shares))
        self._run(self._kernels[1], *self._flat(dy, self._seen), *self._columns(), *self._flat(dz), *shares)
        for share, parameter in zip(shares, self._learned, strict=True):
            if not parameter.is_frozen:
                self._run(row_sums, share, parameter.grad, *self._scratch)
        return dz

    def _columns(self) -> list[Array]:
        return [parameter.column for parameter in self._learned]

    def _flat(self, *arrays: Array) -> list[Array]:
        """Return arrays as one row for each feature or channel if there are parameters, else unchanged."""
        return [array.reshape(self._units, -1) for array in arrays] if self._learned else list(arrays)

    def __repr__(self) -> str:
        return parts.written("Activation", self.name_prefix.rstrip("_"), self.equation, self.parameters, self.check)

    def __str__(self) -> str:
        return parts.in_lines(self.name_prefix.rstrip("_"), self._code.shown)

    def _repr_latex_(self) -> str:
        return parts.in_latex(self._code.shown)
