"""Define a loss by its equation, summed over the outputs."""

from typing import TYPE_CHECKING

from gpunn.config import register
from gpunn.config.scalars import flag
from gpunn.kernels.record import Raw
from gpunn.nn.equations import parts
from gpunn.nn.losses import Loss

if TYPE_CHECKING:
    from gpunn.nn.equations.code import LossCode


@register
class Equation(Loss):
    """C = (1/n) Σ Σ_k c(a_k, y_k) with c as an equation in output a and target y; see `Loss.from_equation`."""

    def __init__(self, equation: str, name: str = "equation", check: bool = True) -> None:
        self.equation, self.name, self.check = equation, parts.checked_name(name), flag(check, "check")
        assert self._code  # raises OptionError for a wrong equation

    @property
    def _code(self) -> "LossCode":
        return parts.code_of_loss(self.equation, self.check)

    @property
    def kernel(self) -> Raw:  # type: ignore[override]
        """Kernel for unweighted samples."""
        return self._code.kernel

    def weighing_kernel(self) -> Raw:
        return self._code.weighted_kernel

    def __repr__(self) -> str:
        return parts.written("Loss", self.name, self.equation, None, self.check)

    def __str__(self) -> str:
        return parts.in_lines(self.name, self._code.shown)

    def _repr_latex_(self) -> str:
        return parts.in_latex(self._code.shown)
