"""Define the functions of equations for SymPy, each with its derivative and without automatic simplification.

SymPy's own `exp`, `Abs` and so on simplify at construction, in ways and times that depend on their arguments. These
functions stay as written; only sums, products and powers are reordered.
"""

import math
from collections.abc import Callable
from typing import Any

import sympy

Expression = Any  # a `sympy.Expr`; SymPy has no type hints
ZERO, ONE, HALF = sympy.Integer(0), sympy.Integer(1), sympy.Rational(1, 2)


class Elementary(sympy.Function):  # type: ignore[misc]
    """Function of one number, with its derivative as an expression."""

    slope: Callable[[Expression], Expression]
    of_number: Callable[[float], float]

    def fdiff(self, argindex: int = 1) -> Expression:
        return type(self).slope(self.args[0])

    def _sympystr(self, printer: Any) -> str:
        return f"{type(self).__name__.lower()}({printer._print(self.args[0])})"


def _elementary(
    name: str, of_number: Callable[[float], float], slope: Callable[[Expression], Expression]
) -> type[Elementary]:
    return type(name, (Elementary,), {"slope": staticmethod(slope), "of_number": staticmethod(of_number)})


exp: type[Elementary] = _elementary("exp", math.exp, lambda x: exp(x))
expm1: type[Elementary] = _elementary("expm1", math.expm1, lambda x: exp(x))
log: type[Elementary] = _elementary("log", math.log, lambda x: 1 / x)
log1p: type[Elementary] = _elementary("log1p", math.log1p, lambda x: 1 / (1 + x))
tanh: type[Elementary] = _elementary("tanh", math.tanh, lambda x: (1 - tanh(x)) * (1 + tanh(x)))
sinh: type[Elementary] = _elementary("sinh", math.sinh, lambda x: cosh(x))
cosh: type[Elementary] = _elementary("cosh", math.cosh, lambda x: sinh(x))
erf: type[Elementary] = _elementary("erf", math.erf, lambda x: 2 / sympy.sqrt(sympy.pi) * exp(-(x**2)))
sin: type[Elementary] = _elementary("sin", math.sin, lambda x: cos(x))
cos: type[Elementary] = _elementary("cos", math.cos, lambda x: -sin(x))
tan: type[Elementary] = _elementary("tan", math.tan, lambda x: 1 + tan(x) ** 2)
atan: type[Elementary] = _elementary("atan", math.atan, lambda x: 1 / (1 + x**2))
sign: type[Elementary] = _elementary("sign", lambda x: (x > 0) - (x < 0), lambda _: ZERO)
absolute: type[Elementary] = _elementary("Abs", abs, lambda x: sign(x))
sigmoid: type[Elementary] = _elementary(
    "sigmoid", lambda x: 1 / (1 + math.exp(-x)), lambda x: sigmoid(x) * (1 - sigmoid(x))
)
# Not in the grammar: stable forms of log(1 + exp(x)) and log(cosh(x)), made by rewriting.
softplus: type[Elementary] = _elementary(
    "softplus", lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))), lambda x: sigmoid(x)
)
logcosh: type[Elementary] = _elementary(
    "logcosh", lambda x: abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2), lambda x: tanh(x)
)

NAMED: dict[str, type[Elementary]] = {"abs": absolute}
NAMED |= {one.__name__: one for one in (exp, log, log1p, expm1, tanh, sinh, cosh, sigmoid, erf, sin, cos, tan, atan)}
NAMED["sign"] = sign


def _raised(latex: str, exponent: str) -> str:
    return f"{latex}^{{{exponent}}}" if exponent else latex


class Compare(sympy.Function):  # type: ignore[misc]
    """Comparison of two numbers, only within `where`; its first argument is its index in SIGNS."""

    SIGNS = (">", ">=", "<", "<=", "==", "!=")

    @property
    def sign(self) -> str:
        return self.SIGNS[int(self.args[0])]

    def _sympystr(self, printer: Any) -> str:
        return f"{printer._print(self.args[1])} {self.sign} {printer._print(self.args[2])}"

    def _latex(self, printer: Any) -> str:
        sign = {">=": r"\geq", "<=": r"\leq", "==": "=", "!=": r"\neq"}.get(self.sign, self.sign)
        return f"{printer._print(self.args[1])} {sign} {printer._print(self.args[2])}"


class where(sympy.Function):  # type: ignore[misc]  # noqa: N801 - the name in equations
    """Second argument where the first, a comparison, holds, else the third."""

    @classmethod
    def eval(cls, *arguments: Expression) -> Expression | None:
        return arguments[1] if arguments[1] == arguments[2] else None

    def _eval_derivative(self, symbol: Expression) -> Expression:
        return where(self.args[0], self.args[1].diff(symbol), self.args[2].diff(symbol))

    def _latex(self, printer: Any, exp: str = "") -> str:
        condition, x, y = map(printer._print, self.args)
        cases = rf"\begin{{cases}} {x} & \text{{if}}\; {condition} \\ {y} & \text{{else}} \end{{cases}}"
        return _raised(rf"\left({cases}\right)", exp) if exp else cases


class _Extreme(sympy.Function):  # type: ignore[misc]
    sign: str

    @classmethod
    def eval(cls, x: Expression, y: Expression) -> Expression | None:
        if x == y:
            return x
        # A number comes second: for equal arguments the derivative is that of the second.
        return cls(y, x) if x.is_number and not y.is_number else None

    def _eval_derivative(self, symbol: Expression) -> Expression:
        x, y = self.args
        return where(Compare(Compare.SIGNS.index(self.sign), x, y), x.diff(symbol), y.diff(symbol))

    def _sympystr(self, printer: Any) -> str:
        return f"{type(self).__name__[:3]}({', '.join(map(printer._print, self.args))})"

    def _latex(self, printer: Any, exp: str = "") -> str:
        name = _raised(rf"\{type(self).__name__[:3]}", exp)
        return rf"{name}\left({', '.join(map(printer._print, self.args))}\right)"


class maximum(_Extreme):  # noqa: N801 - nearly the name in equations
    """Larger of two numbers; for equal ones the derivative is that of the second."""

    sign = ">"


class minimum(_Extreme):  # noqa: N801 - nearly the name in equations
    """Smaller of two numbers; for equal ones the derivative is that of the second."""

    sign = "<"


def value_of(expression: Expression) -> float:
    """Return the value of an expression without variables; raise ArithmeticError or ValueError where it has none."""
    if expression.is_Rational:
        return int(expression.p) / int(expression.q)
    if expression == sympy.pi:
        return math.pi
    if isinstance(expression, where):
        return value_of(expression.args[1 if value_of(expression.args[0]) else 2])
    if isinstance(expression, Compare):
        x, y = map(value_of, expression.args[1:])
        return float((x > y, x >= y, x < y, x <= y, x == y, x != y)[int(expression.args[0])])
    values = list(map(value_of, expression.args))
    if isinstance(expression, Elementary):
        return float(type(expression).of_number(*values))
    if expression.is_Pow:
        return math.pow(*values)
    if isinstance(expression, _Extreme):
        return float((max if isinstance(expression, maximum) else min)(values))
    if expression.is_Add:
        return math.fsum(values)
    if expression.is_Mul:
        return float(math.prod(values))
    raise ValueError(f"{expression} is no number")
