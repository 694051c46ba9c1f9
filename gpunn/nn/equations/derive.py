"""Rewrite equations in forms that do not overflow, and derive them, from the output where possible."""

from typing import Any

import sympy

from gpunn.nn.equations.functions import (
    HALF,
    ONE,
    ZERO,
    Compare,
    Expression,
    absolute,
    cosh,
    exp,
    expm1,
    log,
    log1p,
    logcosh,
    maximum,
    sigmoid,
    sinh,
    softplus,
    tanh,
    where,
)
from gpunn.nn.equations.grammar import symbol

OUTPUT = symbol("a")  # output of an activation, in a derivative written from it


def stable(expression: Expression) -> Expression:
    """Rewrite an expression by exact identities, so that large arguments neither overflow nor cancel."""
    return _rewritten(expression, {})


def _rewritten(expression: Expression, known: dict[Expression, Expression]) -> Expression:
    if not expression.args:
        return expression
    if expression not in known:
        arguments = [_rewritten(argument, known) for argument in expression.args]
        made = expression if arguments == list(expression.args) else expression.func(*arguments)
        rules: dict[Any, Any] = {log: _log, log1p: _log1p}
        rule = rules.get(made.func) or (
            _sum if made.is_Add else _product if made.is_Mul else _power if made.is_Pow else None
        )
        known[expression] = rule(made) if rule else made
    return known[expression]


def slope(expression: Expression, variable: Expression) -> Expression:
    """Return the derivative of a stable expression, in a stable form."""
    return stable(expression.diff(variable))


def slope_from_output(expression: Expression, z: Expression) -> Expression | None:
    """Return the derivative written from the output, for the functions that permit it; else None."""
    a = OUTPUT
    known = {
        sigmoid(z): a * (1 - a),
        tanh(z): (1 - a) * (1 + a),
        maximum(z, ZERO): where(Compare(0, a, ZERO), ONE, ZERO),
        softplus(z): -expm1(-a),
    }
    return known.get(expression)


def faster(expression: Expression, z: Expression) -> Expression:
    """Return a faster form of f with the same values: max(z, c z) instead of `where(z > 0, z, c z)`."""
    if isinstance(expression, where):
        condition, x, y = expression.args
        c, rest = y.as_coeff_Mul()
        is_positive = condition in (Compare(0, z, ZERO), Compare(1, z, ZERO))
        if is_positive and x == rest == z and ZERO < c < ONE:
            return maximum(z, y)
    return expression


def _exponent(term: Expression) -> tuple[Expression, Expression] | None:
    """Return c and u of a term c exp(u) with a number c; None for any other term."""
    c, rest = term.as_coeff_Mul()
    return (c, rest.args[0]) if isinstance(rest, exp) and rest.free_symbols else None


def _log(x: Expression) -> Expression:
    (inside,) = x.args
    if isinstance(inside, exp):
        return inside.args[0]
    if isinstance(inside, sigmoid):
        return -softplus(-inside.args[0])
    if isinstance(inside, cosh):
        return logcosh(inside.args[0])
    if inside.is_Mul and inside.free_symbols:
        c, rest = inside.as_coeff_Mul()
        if c > 0 and c != 1 and isinstance(rest, cosh | sigmoid | exp):
            return log(c) + _log(log(rest))
    if not inside.is_Add:
        return x
    one, rest = inside.as_coeff_Add()
    if one == 1:
        if isinstance(-rest, sigmoid):
            return -softplus((-rest).args[0])
        return _log1p(log1p(rest))
    terms = [_exponent(term) for term in inside.args]
    if len(terms) == 2 and all(term is not None and term[0] == 1 for term in terms):
        (_, u), (_, v) = terms  # type: ignore[misc]
        return v + softplus(u - v)
    return x


def _log1p(x: Expression) -> Expression:
    (inside,) = x.args
    if isinstance(inside, exp):
        return softplus(inside.args[0])
    return -softplus((-inside).args[0]) if isinstance(-inside, sigmoid) else x


def _sum(x: Expression) -> Expression:
    """Combine exponentials with a number to expm1, or with their inverse to sinh or cosh."""
    terms = list(x.args)
    exponentials = {pair[1]: pair[0] for term in terms if (pair := _exponent(term))}
    number = x.as_coeff_Add()[0]
    for term in terms:  # join max(u, 0) + log1p(exp(−|u|)) to softplus, which has a derivative at 0
        if isinstance(term, softplus) and isinstance(size := -term.args[0], absolute):
            for inside in (size.args[0], -size.args[0]):
                if (positive := maximum(inside, ZERO)) in terms:
                    return _sum_of([*(one for one in terms if one not in (term, positive)), softplus(inside)])
    for u, c in exponentials.items():
        if number and c == -number:
            return _sum_of([*(term for term in terms if term not in (number, c * exp(u))), c * expm1(u)])
        if (other := exponentials.get(-u)) is not None and abs(other) == abs(c):
            size, sign = (-u, -1) if u.could_extract_minus_sign() else (u, 1)
            both = 2 * c * (cosh(size) if other == c else sign * sinh(size))
            return _sum_of([*(term for term in terms if term not in (other * exp(-u), c * exp(u))), both])
    return x


def _sum_of(terms: list[Expression]) -> Expression:
    made = sympy.Add(*terms)
    return _sum(made) if made.is_Add else made


def _power(x: Expression) -> Expression:
    base, exponent = x.args
    if exponent == HALF and base.is_Pow and base.args[1] == 2:
        return absolute(base.args[0])
    if not (exponent.is_Integer and exponent < 0 and base.is_Add and len(base.args) == 2):
        return x
    number, rest = base.as_coeff_Add()
    pair = _exponent(rest)
    if pair is not None and number == pair[0] and number > 0:  # 1 / (1 + exp(u))
        return number**exponent * sigmoid(-pair[1]) ** (-exponent)
    return x


def _product(x: Expression) -> Expression:
    """Combine quotients of exponentials or hyperbolic functions into sigmoid or tanh, which do not overflow."""
    powers = x.as_powers_dict()
    for base, power in powers.items():
        if isinstance(base, exp) and power == 1 and (other := sigmoid(-base.args[0])) in powers:
            return _again(x * sigmoid(base.args[0]) / (base * other))
        if isinstance(base, sinh) and power.is_Integer and power > 0:
            other = cosh(base.args[0])
            if other in powers and powers[other] < 0:
                return _again(x * tanh(base.args[0]) * other / base)
    return x


def _again(x: Expression) -> Expression:
    return _product(x) if x.is_Mul else x
