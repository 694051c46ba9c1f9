"""Print expressions as code: a list of steps with shared results, written as CUDA C++ and run by NumPy.

No text of an equation reaches this code: variables are numbered, and a step is one of the operations below.
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
    """Operation on variables and earlier results."""

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
# NumPy warns of these only for numbers beyond all floats, as in the handwritten kernels.
_SOFT = {"negative", "add", "subtract", "multiply", "maximum", "minimum", "Abs", "sign", "tanh", "atan", "where"}
_SOFT |= _COMPARED.keys()
# NumPy does not warn of these where the operand has this sign.
_QUIET = {"exp": -1, "expm1": -1, "log1p": 1, "sqrt": 1}
# NaN propagates, as in the handwritten kernels.
_CUDA = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}", "negative": "-{}",
    "reciprocal": "T(1) / {}", "square": "{0} * {0}", "power": "pow({}, {})", "Abs": "abs({})",
    "sign": "{0} > T(0) ? T(1) : {0} < T(0) ? T(-1) : {0} + {0}",
    "maximum": "({0} < {1} || {1} != {1}) ? {1} : {0}", "minimum": "({0} > {1} || {1} != {1}) ? {1} : {0}",
    "where": "{} ? {} : {}",
}  # fmt: skip


class Program:
    """Compile expressions into steps that compute them in order.

    Args:
        variables: Symbols of the inputs.
        results: Expressions to compute, one for each output.
        full: Number of leading variables with arrays of the results' shape; the others are columns.
        factor: Variable that multiplies every result, or None.
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
        # The types distinguish place 1 from the number 1.0, which compare as equal.
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
        """Multiply numbers, then factors, then divide; a condition of `where(…, 1, 0)` is a factor itself."""
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
        """Write the steps as CUDA C++ on variables of these names; return the code and the names of the results."""
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
        """Return a NumPy function of inputs and outputs; the first output may be the input number `aliased`."""
        room = self._rooms(aliased)
        inputs, count = self.inputs, self.inputs + len(self.steps)
        # One list holds everything: inputs, outputs, results of steps, numbers. A small batch feels any overhead,
        # so as much as possible is prepared here.
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
            steps.append((place + after, self._function(operation), a, b, c, room.get(place)))
        # The first output is copied last: it may be an input that another output equals.
        copied = [
            (inputs + number, at(output))
            for number, output in reversed([*enumerate(self.outputs)])
            if not isinstance(output, int) or room.get(output) != inputs + number
        ]
        kept: dict[Any, list[Any]] = {}  # numbers by dtype, which NumPy would otherwise convert each time

        def body(*arrays: Any) -> None:
            if (tail := kept.get(dtype := arrays[0].dtype)) is None:
                tail = kept[dtype] = [*([None] * len(self.steps)), *map(dtype.type, numbers)]
            values = [*arrays, *tail]
            for place, function, a, b, c, out in steps:
                if c is not None:  # np.where has no `out`
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
        """Return whether no step overflows or has an invalid operand, so that there are no warnings to suppress."""
        signs = [*self._signs]  # of each place: 1 if never negative, -1 if never positive, else 0

        def sign(operand: Operand) -> int:
            return signs[operand] if isinstance(operand, int) else 1 if operand >= 0 else -1

        for operation, operands in self.steps:
            given = [sign(one) for one in operands]
            if not (operation in _SOFT or given[0] == _QUIET.get(operation)):
                return False
            signs.append(_sign_of(operation, given))
        return True

    def _rooms(self, aliased: int | None) -> dict[int, int]:
        """Return where steps write, an output or a result no longer needed, as places in the list of `host`.

        A step that is missing here allocates memory.
        """
        places = [[one for one in step.operands if isinstance(one, int)] for step in self.steps]
        last = {operand: place for place, operands in enumerate(places, self.inputs) for operand in operands}
        first, after = self.inputs, len(self.outputs)
        outputs = {output: number for number, output in enumerate(self.outputs, first) if isinstance(output, int)}
        last |= dict.fromkeys(outputs, self.inputs + len(self.steps))
        room: dict[int, int] = {}
        free = [*range(first, first + after)]
        for place, operands in enumerate(places, self.inputs):
            operation = self.steps[place - self.inputs].operation
            ended = [one for one in dict.fromkeys(operands) if one in room and last[one] == place]
            free = [*(room[one] for one in ended), *free]
            if operation in _COMPARED or not self._is_full(place):
                continue
            # The first output is free only after the last read of the input that shares its memory.
            open_ = [one for one in free if one != first or aliased is None or last.get(aliased, 0) <= place]
            if operation == "where":  # np.where has no `out`
                open_ = []
            elif place in outputs:  # an output goes to its own place only
                open_ = [one for one in open_ if one == outputs[place]]
            if open_:
                free.remove(open_[0])
            room[place] = open_[0] if open_ else place + after
        return {place: target for place, target in room.items() if target != place + after}

    def _is_full(self, operand: Operand) -> bool:
        """Return whether a result has the shape of the first input rather than of a column."""
        if isinstance(operand, float):
            return False
        if operand < self.inputs:
            return operand < self._full
        return any(map(self._is_full, self.steps[operand - self.inputs].operands))

    def _function(self, operation: str) -> Callable[..., Any]:
        return np.where if operation == "where" else _COMPARED.get(operation) or _UFUNCS[operation]


def _sign_of(operation: str, given: Sequence[int]) -> int:
    """Return 1 for a result that is never negative, -1 for one never positive, else 0."""
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


def _silent(body: Host) -> Host:
    """Return a body without overflow warnings: a later step handles the infinite values."""

    def silent(*arrays: Array) -> None:
        with np.errstate(all="ignore"):
            body(*arrays)

    return silent
