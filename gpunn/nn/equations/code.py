"""Make kernels from equations: read, rewrite, derive, print and check them."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import sympy

from gpunn.errors import OptionError
from gpunn.kernels.losses import summed_over_outputs
from gpunn.kernels.record import Array, Elementwise, Host, Raw
from gpunn.nn.equations.checking import check_derivative, check_range
from gpunn.nn.equations.derive import OUTPUT, faster, slope, slope_from_output, stable
from gpunn.nn.equations.functions import Expression, softplus
from gpunn.nn.equations.grammar import read, symbol
from gpunn.nn.equations.printing import Program

_KEPT = 256  # cached equations


class ActivationCode(NamedTuple):
    """Kernels and formulas of an activation a = f(z, p)."""

    kernel: Elementwise  # (z, *parameters, a)
    gradient_kernel: Elementwise  # (∂C/∂a, a or z, *parameters, δ, and ∂C/∂p element by element)
    from_output: bool  # whether f′ is written from a
    increases: bool  # true only where it is certain
    rectifies: bool  # whether f shrinks large negative z far more than positive z, as ReLU does
    shown: tuple[tuple[str, str, str], ...]  # name, text and LaTeX of f and its derivatives


class LossCode(NamedTuple):
    """Kernels and formulas of a loss c(a, y) of one output."""

    kernel: Raw
    weighted_kernel: Raw
    shown: tuple[tuple[str, str, str], ...]


def _tree(equation: str, names: Sequence[str], needed: Sequence[str]) -> Expression:
    tree = stable(read(equation, names))
    for name in needed:
        if symbol(name) not in tree.free_symbols:
            raise OptionError(
                f"the equation {equation!r:.80} does not depend on {name}: write it in {', '.join(names)}"
            )
    return tree


def _shown(variables: Sequence[tuple[str, str, Expression]]) -> tuple[tuple[str, str, str], ...]:
    """Write f and its derivatives as (name, text, LaTeX), from (name, name in LaTeX, expression)."""
    return tuple((name, sympy.sstr(one), f"{latex} = {sympy.latex(one)}") for name, latex, one in variables)


def _name(equation: str, *names: str) -> str:
    return f"equation_{hashlib.sha256(repr((equation, names)).encode()).hexdigest()[:16]}"


def _guarded(host: Host) -> Host:
    """Return a body that maps NaN to NaN, where a comparison would lose it."""

    def body(z: Array, *others: Array) -> None:
        host(z, *others)
        np.copyto(others[-1], np.nan, where=np.isnan(z))

    return body


def _loses_nan(host: Host, columns: Sequence[Array]) -> bool:
    z = np.full((1, 1), np.nan)
    host(z, *columns, out := np.zeros((1, 1)))
    return not np.isnan(out[0, 0])


def _program(tree: Expression, names: Sequence[str]) -> tuple[Program, bool]:
    """Return the program of an activation, and whether it uses a faster form than the equation."""
    z = symbol("z")
    quick = faster(tree, z)
    return Program([z, *map(symbol, names)], [quick]), quick != tree


def activation_program(equation: str, names: Sequence[str]) -> Program:
    """Return the program that computes f(z, p) from z and the named parameters, as the kernels do."""
    return _program(_tree(equation, ("z", *names), ("z", *names)), names)[0]


@lru_cache(_KEPT)
def activation_code(equation: str, parameters: tuple[tuple[str, float], ...], check: bool) -> ActivationCode:
    """Make the kernels of an activation; `parameters` are names and initial values."""
    names = [name for name, _ in parameters]
    tree, z = _tree(equation, ("z", *names), ("z", *names)), symbol("z")
    symbols = [symbol(name) for name in names]
    places = [f"p{number}" for number in range(len(names))]
    columns = [np.full((1, 1), value) for _, value in parameters]
    slopes = [slope(tree, variable) for variable in (z, *symbols)]
    own = None if names else slope_from_output(tree, z)

    forward, is_faster = _program(tree, names)
    steps, (result,) = forward.cuda(["z", *places])
    host = forward.host(aliased=None if own is None else 0)
    if own is None and _loses_nan(host, columns):
        host, result = _guarded(host), f"z != z ? z : {result}"
    inputs = "".join(f", T {place}" for place in places)
    name = _name(equation, *names)
    kernel = Elementwise(name, f"T z{inputs}", "T out", f"{steps} out = {result};", host=host, is_listed=False)

    da, seen = symbol(" da"), z if own is None else OUTPUT
    positive = [OUTPUT] if tree == softplus(z) else []
    backward = Program(
        [da, seen, *symbols], slopes if own is None else [own], full=2, factor=da, positive=positive
    )  # fmt: skip
    steps, results = backward.cuda(["da", "z", *places])
    outputs = ["dz", *(f"g{number}" for number in range(len(names)))]
    # The first output may share an input's memory, so all outputs are written after the last read.
    locals_ = " ".join(f"T r{output} = {result};" for output, result in zip(outputs, results, strict=True))
    writes = " ".join(f"{output} = r{output};" for output in outputs)
    gradient = Elementwise(
        f"{name}_gradient", f"T da, T z{inputs}", ", ".join(f"T {output}" for output in outputs),
        f"{steps} {locals_} {writes}",
        host=backward.host(aliased=0), is_listed=False,
    )  # fmt: skip

    def both(arrays: Sequence[Array]) -> tuple[Array, list[Array]]:
        z, *columns = arrays
        a, found = np.empty_like(z), [np.empty_like(z) for _ in slopes]
        with np.errstate(all="ignore"):
            kernel.host(z, *columns, a)
            gradient.host(np.ones_like(z), z if own is None else a, *columns, *found)
        return a, found

    if check:
        variables = ["z", *names]
        check_range(equation, variables, both, [tree, *slopes], [], columns)
        check_derivative(equation, variables, both, [], columns)
    ends = np.array([[-1000.0, 1000.0]])
    low, high = both([ends, *columns])[0][0]
    shown = [("f(z)", "f(z)", tree), ("f′(z)", "f'(z)", slopes[0])]
    shown += [(f"∂f/∂{name}", rf"\frac{{\partial f}}{{\partial {sympy.latex(one)}}}", its)
              for name, one, its in zip(names, symbols, slopes[1:], strict=True)]  # fmt: skip
    rectifies = bool(high > 500 and abs(low) < high / 2)
    return ActivationCode(kernel, gradient, own is not None, own is not None or is_faster, rectifies, _shown(shown))


@lru_cache(_KEPT)
def loss_code(equation: str, check: bool) -> LossCode:
    """Make the kernels of a loss."""
    tree, a, y = _tree(equation, ("a", "y"), ("a",)), symbol("a"), symbol("y")
    derivative = slope(tree, a)
    program = Program([a, y], [tree, derivative], full=2)
    steps, (value, result) = program.cuda(["v", "y"])
    host = program.host()
    of_nan = [np.full((1, 1), np.nan), *np.zeros((3, 1, 1))]
    host(*of_nan)
    is_guarded = not np.isnan(of_nan[2][0, 0])
    value = f"(v != v ? v : {value})" if is_guarded else value

    def outputs(a: Array, targets: Array, gradient: Array) -> Array:
        losses = np.empty_like(a)
        host(a, targets, losses, gradient)
        if is_guarded:
            np.copyto(losses, np.nan, where=np.isnan(a))
        return losses

    def both(arrays: Sequence[Array]) -> tuple[Array, list[Array]]:
        a, y = np.broadcast_arrays(*arrays)
        losses, found = np.empty_like(a), np.empty_like(a)
        with np.errstate(all="ignore"):
            host(a.copy(), y.copy(), losses, found)
        return losses, [found]

    if check:
        targets: list[Any] = [np.array([[0.0], [0.5], [1.0]])]
        check_range(equation, ["a", "y"], both, [tree, derivative], targets, [])
        check_derivative(equation, ["a", "y"], both, targets, [])
    sample = f"{steps} loss += {value}; gradient[at] = w * ({result}) / T(of);"
    kernel, weighted = summed_over_outputs(_name(equation, "a", "y"), sample, outputs)
    shown = [("c(a, y)", "c(a, y)", tree), ("∂c/∂a", r"\frac{\partial c}{\partial a}", derivative)]
    return LossCode(kernel, weighted, _shown(shown))
