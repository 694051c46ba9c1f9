"""Read an equation in a closed grammar, node by node of Python's syntax tree, without executing any of it."""

import ast
import re
import warnings
from collections.abc import Collection
from fractions import Fraction

import sympy

from gpunn.config import nearest
from gpunn.errors import OptionError
from gpunn.nn.equations.functions import NAMED, Compare, Expression, exp, maximum, minimum, value_of, where

MOST_CHARACTERS = 4096
MOST_NODES = 200  # numbers, names, operations and calls
MOST_EXPONENT = 64
_MOST_DIGITS, _MOST_BITS, _LARGEST = 40, 512, 1e30
_CONSTANTS = {"pi": sympy.pi, "e": exp(sympy.Integer(1))}
_SEVERAL = {"max": 2, "min": 2, "where": 3}
FUNCTIONS = (*NAMED, "sqrt", *_SEVERAL)
_MEANT = {"ln": "log", "relu": "max(z, 0)", "pow": "**", "arctan": "atan", "fabs": "abs", "maximum": "max"}
_MEANT |= {"minimum": "min", "clip": "min(max(z, -1), 1)", "softplus": "log(1 + exp(z))", "x": "z", "t": "y"}
_SIGNS = dict(zip((ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq, ast.NotEq), range(6), strict=True))
_ALLOWED = "numbers, + - * / **, parentheses, where(z > 0, a, b), pi, e, " + " ".join(FUNCTIONS)


def symbol(name: str) -> Expression:
    """Return a variable as a SymPy symbol."""
    return sympy.Symbol(name)


def read(text: str, names: Collection[str]) -> Expression:
    """Return the tree of an equation in the variables `names`; raise OptionError with the place for any other."""
    if not isinstance(text, str):
        raise OptionError(f"an equation must be a text such as 'z / (1 + exp(-z))', got {text!r:.60}")
    if len(text) > MOST_CHARACTERS:
        raise OptionError(f"an equation must have at most {MOST_CHARACTERS:,} characters, got {len(text):,}")
    if strange := re.search(r"[^\w\s.+\-*/(),<>=!]|[^\x00-\x7f]", text):
        raise _refusal(text, strange.start(), f"has {strange[0]!r}")
    line = re.sub(r"\s", " ", text)
    begin = len(line) - len(line.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(line.strip(), mode="eval").body
    except SyntaxError as error:
        raise _refusal(text, begin + (error.offset or 1) - 1, f"cannot be read ({error.msg})") from None
    except (ValueError, RecursionError, MemoryError):
        raise _refusal(text, begin, "is nested too deeply or has too long numbers") from None
    return _Reader(text, begin, names).read(tree)


def _refusal(text: str, place: int, wrong: str) -> OptionError:
    shown = text if len(text) <= 60 else f"{text[max(0, place - 25) : place + 25]}…"
    return OptionError(f"the equation {shown!r} {wrong} at character {place + 1}: write {_ALLOWED}")


class _Reader:
    """Translate Python's syntax tree of one equation to SymPy."""

    def __init__(self, text: str, begin: int, names: Collection[str]) -> None:
        self._text, self._begin, self._names, self._nodes = text, begin, names, 0

    def read(self, node: ast.AST) -> Expression:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise self._wrong(node, f"has more than {MOST_NODES} numbers, names and operations")
        made = self._made(node)
        if made.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I):
            raise self._wrong(node, "has a number that is not finite or not real")
        if not made.free_symbols:
            self._check_number(node, made)
        return made

    def _made(self, node: ast.AST) -> Expression:
        if isinstance(node, ast.Constant):
            return self._number(node)
        if isinstance(node, ast.Name):
            return self._variable(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self.read(node.operand)
            return -inner if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._wrong(node, f"has {_WORDS.get(type(node), 'something else')}")

    def _number(self, node: ast.Constant) -> Expression:
        start = self._begin + node.col_offset
        text = self._text[start : self._begin + (node.end_col_offset or 0)]
        if not re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", text, re.ASCII):
            raise self._wrong(node, f"has {text!r:.20}, which is no plain number below {_LARGEST:g},")
        if len(text) > _MOST_DIGITS:
            raise self._wrong(node, f"has a number of more than {_MOST_DIGITS} digits")
        number = Fraction(text)
        return sympy.Rational(number.numerator, number.denominator)

    def _variable(self, node: ast.Name) -> Expression:
        if node.id in self._names:
            return symbol(node.id)
        if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        if node.id in FUNCTIONS:
            raise self._wrong(node, f"has {node.id} without its arguments in parentheses")
        raise self._unknown(node, node.id, (*self._names, *_CONSTANTS))

    def _unknown(self, node: ast.AST, name: str, known: Collection[str]) -> OptionError:
        meant = _MEANT.get(name.lower(), "")
        is_known = meant in known or len(meant) > 1
        guess = f", did you mean {meant}?" if is_known else nearest(name, known, ", did you mean {}?")
        variables = ", ".join(self._names)
        return self._wrong(node, f"has the unknown name {name[:40]!r} (variables: {variables}{guess})")

    def _operation(self, node: ast.BinOp) -> Expression:
        if isinstance(node.op, ast.Pow):
            return self._power(node)
        if not isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            raise self._wrong(node, "has another operation")
        x, y = self.read(node.left), self.read(node.right)
        if isinstance(node.op, ast.Div) and _is_zero(y):
            raise self._wrong(node, "divides by 0")
        if isinstance(node.op, ast.Add | ast.Sub):
            return x + y if isinstance(node.op, ast.Add) else x - y
        return x * y if isinstance(node.op, ast.Mult) else x / y

    def _power(self, node: ast.BinOp) -> Expression:
        exponent = self.read(node.right)
        if isinstance(node.left, ast.Name) and node.left.id == "e" and "e" not in self._names:
            return exp(exponent)
        base = self.read(node.left)
        if not exponent.is_Rational:
            raise self._wrong(node, "has an exponent that is no number (x**y is exp(y * log(x)))")
        if abs(exponent) > MOST_EXPONENT or exponent.q > 1000:
            raise self._wrong(node, f"has an exponent beyond {MOST_EXPONENT}")
        return self._raised(node, base, exponent)

    def _raised(self, node: ast.AST, base: Expression, exponent: Expression) -> Expression:
        if base.is_Rational:
            if base <= 0 and (exponent < 0 or exponent.q > 1) and not (base < 0 and exponent.q == 1):
                raise self._wrong(node, "has a root of a negative number, or divides by 0,")
            bits = max(int(base.p).bit_length(), int(base.q).bit_length())
            if bits * abs(exponent) > _MOST_BITS:
                raise self._wrong(node, "has a power that is too large")
        elif not base.free_symbols and value_of(base) < 0 and exponent.q > 1:
            raise self._wrong(node, "has a root of a negative number")
        elif exponent < 0 and _is_zero(base):
            raise self._wrong(node, "divides by 0")
        return base**exponent

    def _call(self, node: ast.Call) -> Expression:
        if not isinstance(node.func, ast.Name):
            raise self._wrong(node, "calls something that is no function")
        name = node.func.id
        if name not in FUNCTIONS:
            raise self._unknown(node, name, FUNCTIONS)
        wanted = _SEVERAL.get(name, 1)
        if node.keywords or len(node.args) != wanted:
            raise self._wrong(node, f"gives {name} other arguments than {wanted}")
        if name == "where":
            return where(self._condition(node.args[0]), *map(self.read, node.args[1:]))
        arguments = list(map(self.read, node.args))
        if name == "sqrt":
            return self._raised(node, arguments[0], sympy.Rational(1, 2))
        made = {"max": maximum, "min": minimum}.get(name) or NAMED[name]
        return made(*arguments)

    def _condition(self, node: ast.AST) -> Expression:
        if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in _SIGNS:
            raise self._wrong(node, "has no single comparison as the first argument of where")
        x, y = self.read(node.left), self.read(node.comparators[0])
        return Compare(_SIGNS[type(node.ops[0])], x, y)

    def _check_number(self, node: ast.AST, made: Expression) -> None:
        try:
            value = value_of(made)
        except (ArithmeticError, ValueError):
            raise self._wrong(node, "has a number that is not finite or not real") from None
        rational = made if made.is_Rational else sympy.Integer(0)
        bits = max(int(rational.p).bit_length(), int(rational.q).bit_length())
        if not abs(value) < _LARGEST or (value and abs(value) < 1 / _LARGEST) or bits > _MOST_BITS:
            raise self._wrong(node, f"has a number beyond {_LARGEST:g}")

    def _wrong(self, node: ast.AST, wrong: str) -> OptionError:
        return _refusal(self._text, self._begin + getattr(node, "col_offset", 0), wrong)


def _is_zero(x: Expression) -> bool:
    return not x.free_symbols and value_of(x) == 0


_WORDS = {
    ast.Attribute: "an attribute", ast.Subscript: "an index", ast.Compare: "a comparison outside of where",
    ast.BoolOp: "and, or", ast.UnaryOp: "another sign", ast.IfExp: "an if (write where)", ast.Lambda: "a lambda",
    ast.Tuple: "a comma outside of a function", ast.Starred: "a star", ast.NamedExpr: "an assignment",
}  # fmt: skip
