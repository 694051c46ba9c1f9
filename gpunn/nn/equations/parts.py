"""Check the arguments of an activation or loss defined by an equation, and show it."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpunn.config.scalars import FINITE, real
from gpunn.errors import OptionError

if TYPE_CHECKING:
    from gpunn.nn.equations.code import ActivationCode, LossCode

MOST_PARAMETERS = 8
_TAKEN = ("z", "y", "e", "pi")


def checked_name(name: Any) -> str:
    """Return the name of an equation; raise OptionError unless it is made of letters, digits and _."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name, re.ASCII):
        wanted = "at most 40 letters, digits and _, a letter first"
        raise OptionError(f"the name of an equation must be {wanted}, got {name!r:.60}")
    return name


def checked_prefix(prefix: Any) -> str:
    """Return the prefix of layer names such as swish1; raise OptionError for a digit at its end, next to the number."""
    if checked_name(prefix)[-1].isdigit():
        raise OptionError(f"name_prefix of an equation must not end in a digit, got {prefix!r}: write {prefix + '_'!r}")
    return str(prefix)


def checked_parameters(parameters: Any) -> dict[str, float] | None:
    """Return the initial values of learned parameters by name, or None."""
    if parameters is None:
        return None
    if not isinstance(parameters, Mapping) or len(parameters) > MOST_PARAMETERS:
        wanted = f'a table of at most {MOST_PARAMETERS} initial values, such as {{"a": 0.25}}'
        raise OptionError(f"parameters of an equation must be {wanted}, got {parameters!r:.60}")
    for name in parameters:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,19}", name) or name in _TAKEN:
            wanted = f"letters, digits and _, a letter first, and not {', '.join(_TAKEN)}"
            raise OptionError(f"a parameter of an equation must be named by {wanted}, got {name!r:.40}")
    return {name: real(value, f"parameter {name}", FINITE) for name, value in parameters.items()} or None


def code_of_activation(equation: str, parameters: Mapping[str, float] | None, check: bool) -> "ActivationCode":
    """Return the kernels of an activation; OptionError where SymPy is missing or the equation is refused."""
    values = tuple((parameters or {}).items())
    return _made(equation, lambda code: code.activation_code(equation, values, check))  # type: ignore[no-any-return]


def code_of_loss(equation: str, check: bool) -> "LossCode":
    """Return the kernels of a loss; OptionError where SymPy is missing or the equation is refused."""
    return _made(equation, lambda code: code.loss_code(equation, check))  # type: ignore[no-any-return]


def _made(equation: Any, make: Callable[[Any], Any]) -> Any:
    if not isinstance(equation, str):
        raise OptionError(f"an equation must be a text such as 'z / (1 + exp(-z))', got {equation!r:.60}")
    try:
        import sympy  # noqa: F401 - takes half a second, so only equations import it
    except ImportError:
        mend = "pip install 'gpunn[equations]'"
        raise OptionError(f"an equation is derived by SymPy, which is not installed: {mend}") from None
    from gpunn.nn.equations import code

    try:
        return make(code)
    except OptionError:
        raise
    except RecursionError:
        raise OptionError(
            f"the equation {equation!r:.80} is nested too deeply: write it with fewer functions inside of each other"
        ) from None
    except (ArithmeticError, ValueError) as error:
        raise OptionError(
            f"the equation {equation!r:.80} has a number that is not finite or not real: {error}"
        ) from None


def written(kind: str, name: str, equation: str, parameters: Mapping[str, float] | None, check: bool) -> str:
    """Write the Python expression of a part."""
    more = f", parameters={dict(parameters)}" if parameters else ""
    return f"{kind}.from_equation({name!r}, {equation!r}{more}{'' if check else ', check=False'})"


def in_lines(name: str, shown: Sequence[tuple[str, str, str]]) -> str:
    """Write a formula and its derivatives, one a line."""
    return "\n".join([name, *(f"  {left} = {text}" for left, text, _ in shown)])


def in_latex(shown: Sequence[tuple[str, str, str]]) -> str:
    """Write a formula and its derivatives in LaTeX, for a notebook."""
    return "$\\displaystyle " + r",\quad ".join(latex for _, _, latex in shown) + "$"
