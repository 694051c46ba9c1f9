"""Check a new equation: finite from −1000 to 1000, and its derivatives against central differences."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from gpunn.errors import OptionError
from gpunn.kernels.record import Array
from gpunn.nn.equations import functions as f
from gpunn.nn.equations.functions import Expression
from gpunn.nn.equations.grammar import symbol
from gpunn.nn.equations.printing import Program

Both = Callable[[Sequence[Array]], tuple[Array, list[Array]]]  # from variables to f and its derivatives

_NEAR = np.geomspace(1e-30, 0.4, 60)
_RANGE = np.r_[0.0, np.linspace(-1000, 1000, 4001), _NEAR, -_NEAR]
_WITHIN = np.linspace(-6, 6, 101) + 0.0123456789  # offset, to miss the kinks of equations in round numbers
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
_TOLERANCE = 1e-4
_MOST_PARTS = 400


def check_range(
    equation: str,
    names: Sequence[str],
    both: Both,
    trees: Sequence[Expression],
    others: Sequence[Array],
    columns: Sequence[Array],
) -> None:
    """Raise OptionError where f or a derivative is infinite or NaN in float32, and suggest another form."""
    arrays = [np.asarray(array, np.float32) for array in (_RANGE[None, :], *others, *columns)]
    value, slopes = both(arrays)
    for tree, found in zip(trees, (value, *slopes), strict=True):
        bad = ~np.isfinite(found)
        if not bad.any():
            continue
        row, column = (int(place[0]) for place in np.nonzero(bad))
        point = [float(np.broadcast_to(array, found.shape)[row, column]) for array in arrays]
        what = "" if tree is trees[0] else "the derivative of "
        where = ", ".join(f"{name} = {number:g}" for name, number in zip(names, point, strict=True))
        mend = f"{_mend(tree, names, point)}, or allow it by check=False"
        raise OptionError(f"{what}the equation {equation!r:.80} is {found[row, column]:g} at {where}: {mend}")


def _mend(tree: Expression, names: Sequence[str], point: Sequence[float]) -> str:
    """Return a suggestion for the innermost part that is not finite."""
    variables = [symbol(name) for name in names]
    arrays = [np.full((1, 1), number, np.float32) for number in point]
    for number, part in enumerate(sympy.postorder_traversal(tree)):
        if number == _MOST_PARTS:
            break
        if isinstance(part, f.Compare) or not part.free_symbols or not part.args:
            continue
        out = np.zeros((1, 1), np.float32)
        with np.errstate(all="ignore"):
            Program(variables, [part]).host()(*arrays, out)
        if not np.isfinite(out[0, 0]):
            return _advice(part)
    return "limit z by min(max(z, -80), 80)"


def _advice(part: Any) -> str:
    inside = str(part.args[0])
    inside = inside if len(inside) <= 60 else "..."
    if isinstance(part, f.exp | f.expm1 | f.sinh | f.cosh):
        name = type(part).__name__
        return f"write {name}(min({inside}, 80)), or a form with exp(-abs(...)), which does not overflow"
    if isinstance(part, f.log):
        return f"write log(max({inside}, 1e-7))"
    if isinstance(part, f.log1p):
        return f"write log1p(max({inside}, -0.999999))"
    if part.is_Pow and not part.args[1].is_Integer:
        root = "sqrt({})" if abs(part.args[1]) == f.HALF else f"({{}})**({abs(part.args[1])})"
        return "write " + root.format(f"max({inside}, 1e-7)")
    if part.is_Pow and part.args[1] < 0:
        return f"add a small number to the divisor, as in 1 / (1e-7 + abs({inside}))"
    if part.is_Pow:
        return f"limit the power, as in min(max({inside}, -10), 10)**{part.args[1]}"
    return f"limit the large values in {str(part)[:60]}, for example by min(..., 80)"


def check_derivative(
    equation: str, names: Sequence[str], both: Both, others: Sequence[Array], columns: Sequence[Array]
) -> None:
    """Raise OptionError where a derivative differs from central differences of f."""
    arrays: list[Array] = [_WITHIN[None, :], *others, *columns]
    _, slopes = both(arrays)
    places = [0, *range(len(arrays) - len(columns), len(arrays))]
    for place, found in zip(places, slopes, strict=True):
        wrong = np.full(found.shape, np.inf)
        for step in _STEPS:
            up, down = ([*arrays[:place], arrays[place] + h, *arrays[place + 1 :]] for h in (step, -step))
            with np.errstate(all="ignore"):
                difference = (both(up)[0] - both(down)[0]) / (2 * step)
                wrong = np.fmin(wrong, np.abs(difference - found) / np.maximum(1, np.abs(found)))
        at = int(np.argmax(wrong))
        if not wrong.flat[at] <= _TOLERANCE:
            z = float(np.broadcast_to(arrays[0], found.shape).flat[at])
            mend = "it must neither jump nor oscillate so fast; write it smoother, or allow it by check=False"
            told = (
                f"the derivative {found.flat[at]:g} by {names[place]} is not that of differences at {names[0]} = {z:g}"
            )
            raise OptionError(f"the equation {equation!r:.80}: {told}: {mend}")
