"""Print expressions as code: one list of steps with shared results, written as CUDA C++ and run by NumPy.

Nothing of the text of an equation gets here: variables are numbered, and a step is one of the operations below.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import sympy

from gpunn.kernels.erf import erf
from gpunn.kernels.record import Array, Host
from gpunn.nn.equations import functions as f
from gpunn.nn.equations.functions import Expression

Operand = int | float  # the place of a variable or a result, or a number


class Step(NamedTuple):
    """One operation on earlier results."""

    operation: str
    operands: tuple[Operand, ...]


_UFUNCS: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "negative": np.negative,
    "reciprocal": np.reciprocal, "square": np.square, "sqrt": np.sqrt, "power": np.power, "exp": np.exp,
    "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "atan": np.arctan, "Abs": np.abs, "sign": np.sign,
    "maximum": np.maximum, "minimum": np.minimum, "erf": erf,
}  # fmt: skip
_COMPARED: dict[str, Any] = {
    ">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
# Of which NumPy tells no more than of the kernels that are written by hand: numbers beyond all floats.
_SOFT = {"negative", "add", "subtract", "multiply", "maximum", "minimum", "Abs", "sign", "tanh", "atan", "where"}
_SOFT |= _COMPARED.keys()
# And those of which it tells nothing where their operand has this sign.
_QUIET = {"exp": -1, "expm1": -1, "log1p": 1, "sqrt": 1}
# As in the kernels that are written by hand, NaN goes through.
_CUDA = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}", "negative": "-{}",
    "reciprocal": "T(1) / {}", "square": "{0} * {0}", "power": "pow({}, {})", "Abs": "abs({})",
    "sign": "{0} > T(0) ? T(1) : {0} < T(0) ? T(-1) : {0} + {0}",
    "maximum": "({0} < {1} || {1} != {1}) ? {1} : {0}", "minimum": "({0} > {1} || {1} != {1}) ? {1} : {0}",
    "where": "{} ? {} : {}",
}  # fmt: skip


class Program:
    """The steps that compute expressions, in the order of the expressions, from variables.

    Args:
        variables: Symbols of the inputs.
        results: Expressions to compute, each an output.
        full: Number of variables, the first ones, whose arrays have the shape of the results; others are columns.
        factor: A variable that every result is multiplied by at last.
        positive: Variables that are never negative.
    """

    def __init__(
        self,
        variables: Sequence[Expression],
        results: Sequence[Expression],
        *,
        full: int = 1,
        factor: Expression | None = None,
        positive: Sequence[Expression] = (),
    ) -> None:
        self.inputs, self._full = len(variables), full
        self._signs = [int(variable in positive) for variable in variables]
        self.steps: list[Step] = []
        self._known: dict[Any, Operand] = {variable: place for place, variable in enumerate(variables)}
        self.outputs: list[Operand] = [
            self._operand(result) if factor is None else self._product([result, factor]) for result in results
        ]

    def _step(self, operation: str, *operands: Operand) -> Operand:
        if all(isinstance(one, float) for one in operands):
            return float(self._function(operation)(*operands))
        # With the types, as place 1 is not the number 1.0 and yet equals it.
        key = operation, operands, tuple(map(type, operands))
        if key not in self._known:
            self.steps.append(Step(operation, operands))
            self._known[key] = self.inputs + len(self.steps) - 1
        return self._known[key]

    def _operand(self, x: Expression) -> Operand:
        if x not in self._known:
            self._known[x] = self._made(x) if x.free_symbols else f.value_of(x)
        return self._known[x]

    def _made(self, x: Expression) -> Operand:
        if x.is_Add:
            return self._sum(x)
        if x.is_Mul:
            return self._product(x.args)
        if x.is_Pow:
            return self._power(*x.args)
        if isinstance(x, f.Compare):
            return self._step(x.sign, *map(self._operand, x.args[1:]))
        inside = x.args[0]
        if isinstance(x, f.sigmoid):
            return self._step("reciprocal", self._step("add", self._operand(f.exp(-inside)), 1.0))
        if isinstance(x, f.softplus):
            positive = self._operand(f.maximum(inside, f.ZERO))
            return self._step("add", positive, self._operand(f.log1p(f.exp(-f.absolute(inside)))))
        if isinstance(x, f.logcosh):
            size = f.absolute(inside)
            return self._operand(size + f.log1p(f.exp(-2 * size)) - f.log(sympy.Integer(2)))
        return self._step(x.func.__name__, *map(self._operand, x.args))

    def _sum(self, x: Expression) -> Operand:
        number = float(sum(f.value_of(term) for term in x.args if not term.free_symbols))
        plus: list[Expression] = []
        minus: list[Expression] = []
        for term in x.args:
            if term.free_symbols:
                (minus if term.as_coeff_Mul()[0] < 0 else plus).append(term)
        rest = [self._operand(-term) for term in minus]
        if plus:
            total = self._operand(plus[0])
            for term in plus[1:]:
                total = self._step("add", total, self._operand(term))
        else:
            total = self._step("subtract", number, rest.pop(0))
            number = 0.0
        if not rest and number:
            return self._step("add", total, number) if number > 0 else self._step("subtract", total, -number)
        if number and len(plus) + len(minus) > 1:
            total = self._step("add", total, number)
            number = 0.0
        for operand in rest:
            total = self._step("subtract", total, operand)
        return self._step("add", total, number) if number else total

    def _product(self, factors: Sequence[Expression]) -> Operand:
        """Numbers first, then factors, then divisors; a choice of 1 and 0 is multiplied by as it is."""
        flat = [part for factor in factors for part in (factor.args if factor.is_Mul else (factor,))]
        number = 1.0
        above: list[Operand] = []
        below: list[Operand] = []
        choices: list[Expression] = []
        for factor in flat:
            if not factor.free_symbols and factor not in self._known:
                number *= f.value_of(factor)
            elif factor.is_Pow and factor.args[1].is_Rational and factor.args[1] < 0:
                below.append(self._operand(factor.args[0] ** -factor.args[1]))
            elif isinstance(factor, f.where) and factor.args[1:] == (f.ONE, f.ZERO) and len(flat) > 1:
                choices.append(factor)
            else:
                above.append(self._operand(factor))
        has_numbers = any(isinstance(operand, int) and not self._is_choice(operand) for operand in above)
        above += [self._operand(choice.args[0] if has_numbers else choice) for choice in choices]
        total: Operand | None = None if number in (1.0, -1.0) and above else number
        for operand in sorted(above, key=lambda operand: self._is_choice(operand)):
            total = operand if total is None else self._step("multiply", total, operand)
        assert total is not None
        if number == -1.0 and above:
            total = self._step("negative", total)
        for operand in below:
            total = self._step("reciprocal", operand) if total == 1.0 else self._step("divide", total, operand)
        return total

    def _is_choice(self, operand: Operand) -> bool:
        if isinstance(operand, float) or operand < self.inputs:
            return False
        return self.steps[operand - self.inputs].operation in _COMPARED

    def _power(self, base: Expression, exponent: Expression) -> Operand:
        if exponent < 0:
            return self._step("reciprocal", self._operand(base**-exponent))
        x = self._operand(base)
        if exponent == f.HALF:
            return self._step("sqrt", x)
        if not exponent.is_Integer or exponent > 16:
            return self._step("power", x, float(exponent))
        return self._to_the(x, int(exponent))

    def _to_the(self, x: Operand, exponent: int) -> Operand:
        if exponent == 1:
            return x
        half = self._step("square", self._to_the(x, exponent // 2))
        return self._step("multiply", half, x) if exponent % 2 else half

    def cuda(self, names: Sequence[str], prefix: str = "t") -> tuple[str, list[str]]:
        """Write the steps as CUDA C++ on variables of these names; return it, and the names of the results."""
        lines = []

        def named(operand: Operand) -> str:
            if isinstance(operand, float):
                return f"T({operand!r})"
            return names[operand] if operand < self.inputs else f"{prefix}{operand}"

        for place, (operation, operands) in enumerate(self.steps, self.inputs):
            words = [f"T({named(one)})" if self._is_choice(one) and operation != "where" else named(one)
                     for one in operands]  # fmt: skip
            if operation in _COMPARED:
                lines.append(f"bool {prefix}{place} = {words[0]} {operation} {words[1]};")
            else:
                form = _CUDA.get(operation, f"{operation}({{}})")
                lines.append(f"T {prefix}{place} = {form.format(*words)};")
        return " ".join(lines), [named(output) for output in self.outputs]

    def host(self, *, aliased: int | None = None) -> Host:
        """Return the NumPy function of inputs and outputs; the first output may be the very array of one input."""
        room, given = self._rooms(aliased), self._given()
        inputs, count = self.inputs, self.inputs + len(self.steps)
        # Everything is a place in one list: inputs, outputs, results of steps, numbers. What is done for each step is
        # time that a small batch feels, so as little as can be is left to do.
        after, numbers = len(self.outputs), list[float]()

        def at(operand: Operand) -> int:
            if isinstance(operand, int):
                return operand if operand < inputs else operand + after
            numbers.append(operand)
            return count + after + len(numbers) - 1

        steps: list[tuple[int, Any, Any, Any, Any, Any]] = []
        for place, (operation, operands) in enumerate(self.steps, inputs):
            places = [at(one) for one in operands]
            a, b, c = (*places, None, None)[:3]
            written = _place(room.get(place, ""), inputs, after)
            steps.append((place + after, self._function(operation), a, b, c, written))
        # The first output comes last, since it may be an input that another output is.
        copied = [
            (inputs + number, at(output))
            for number, output in reversed([*enumerate(self.outputs)])
            if not isinstance(output, int) or room.get(output) != given[number]
        ]
        kept: dict[Any, list[Any]] = {}  # by the type of the arrays, which NumPy would bring them to each time

        def body(*arrays: Any) -> None:
            if (tail := kept.get(dtype := arrays[0].dtype)) is None:
                tail = kept[dtype] = [*([None] * len(self.steps)), *map(dtype.type, numbers)]
            values = [*arrays, *tail]
            for place, function, a, b, c, out in steps:
                if c is not None:  # a choice, which makes its memory
                    values[place] = function(values[a], values[b], values[c])
                elif out is None:
                    values[place] = function(values[a]) if b is None else function(values[a], values[b])
                elif b is None:
                    values[place] = function(values[a], out=values[out])
                else:
                    values[place] = function(values[a], values[b], out=values[out])
            for to, output in copied:
                values[to][...] = values[output]

        return body if self._is_quiet() else _silent(body)

    def _is_quiet(self) -> bool:
        """Return whether no step overflows or meets what has no value, so that no warnings need be held back."""
        signs = [*self._signs]  # of each place: 1 of what is never negative, -1 of what is never positive, else 0

        def sign(operand: Operand) -> int:
            return signs[operand] if isinstance(operand, int) else 1 if operand >= 0 else -1

        for operation, operands in self.steps:
            given = [sign(one) for one in operands]
            if not (operation in _SOFT or given[0] == _QUIET.get(operation)):
                return False
            signs.append(_sign_of(operation, given))
        return True

    def _given(self) -> list[str]:
        return [f"o{number}" for number in range(len(self.outputs))]

    def _rooms(self, aliased: int | None) -> dict[int, str]:
        """Return where the steps write: in an output, or over a result that is needed no more; else in new memory."""
        places = [[one for one in step.operands if isinstance(one, int)] for step in self.steps]
        last = {operand: place for place, operands in enumerate(places, self.inputs) for operand in operands}
        outputs = {output: f"o{number}" for number, output in enumerate(self.outputs) if isinstance(output, int)}
        last |= dict.fromkeys(outputs, self.inputs + len(self.steps))
        room: dict[int, str] = {}
        free = self._given()
        for place, operands in enumerate(places, self.inputs):
            operation = self.steps[place - self.inputs].operation
            ended = [one for one in dict.fromkeys(operands) if one in room and last[one] == place]
            free = [*(room[one] for one in ended), *free]
            if operation in _COMPARED or not self._is_full(place):
                continue
            # An input that shares the memory of the first output must have been read before.
            open_ = [one for one in free if one != "o0" or aliased is None or last.get(aliased, 0) <= place]
            own = outputs.get(place, "")
            if operation == "where":  # which makes its memory
                chosen = ""
            elif own:  # no result waits in the place of another
                chosen = own if own in open_ else ""
            else:
                chosen = next(iter(open_), "")
            if chosen:
                free.remove(chosen)
            room[place] = chosen or f"v{place}"
        return {place: name for place, name in room.items() if name != f"v{place}"}

    def _is_full(self, operand: Operand) -> bool:
        """Return whether a result is of the shape of the first input, and not of parameters alone."""
        if isinstance(operand, float):
            return False
        if operand < self.inputs:
            return operand < self._full
        return any(map(self._is_full, self.steps[operand - self.inputs].operands))

    def _function(self, operation: str) -> Callable[..., Any]:
        return np.where if operation == "where" else _COMPARED.get(operation) or _UFUNCS[operation]


def _sign_of(operation: str, given: Sequence[int]) -> int:
    """Return 1 for a result that is never negative, -1 for one that is never positive, else 0."""
    if operation in ("Abs", "exp", "sqrt") or (operation == "maximum" and 1 in given):
        return 1
    if operation == "negative":
        return -given[0]
    if operation == "multiply":
        return given[0] * given[1]
    if operation == "subtract":
        given = [given[0], -given[1]]
    is_kept = operation in ("add", "subtract", "expm1", "log1p", "tanh", "atan", "sign") and len({*given}) == 1
    return given[0] if is_kept else 0


def _place(name: str, inputs: int, outputs: int) -> int | None:
    """Return the place of a result, "v3", or of an output, "o0", which stand behind the inputs; None of nothing."""
    if not name:
        return None
    return int(name[1:]) + (inputs if name[0] == "o" else outputs)


def _silent(body: Host) -> Host:
    """Return a body whose overflow, which a later step makes good, is not told."""

    def silent(*arrays: Array) -> None:
        with np.errstate(all="ignore"):
            body(*arrays)

    return silent
