"""Fold constants: compute every node of a graph that has constant inputs only."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.saving.onnx.parsing import OnnxFile, Operator

_MOST = 1 << 16  # values to compute, beside four for each value of the file
_MOST_OF_SHAPES = 64  # values of an array computed from shapes
_DTYPES = {1: "float32", 11: "float64", 6: "int32", 7: "int64", 9: "bool", 2: "uint8"}


def fold(file: OnnxFile) -> list[Operator]:
    """Return the operators on activations; compute all others, and add their outputs to the constants."""
    constants, left = file.constants, []
    budget = 4 * sum(values.size for values in constants.values()) + _MOST  # values left to compute
    for node in file.operators:
        folded = _FOLDED.get(node.kind)
        given = [constants.get(name) for name in node.inputs]
        if folded is None or not given or any(values is None for values in given) or len(node.outputs) != 1:
            left.append(node)
            continue
        made = _computed(node, folded, [values for values in given if values is not None], budget)
        if made is None:
            left.append(node)
        else:
            constants[node.outputs[0]], budget = made, budget - made.size
    return left


def fold_shape(
    node: Operator, axes: Sequence[int], constants: dict[str, NDArray[Any]], users: Mapping[str, Sequence[Operator]]
) -> None:
    """Fold a Shape and the nodes behind it, such as the (batch, -1) of `x.view(x.size(0), -1)`.

    The batch size is free, and stands as 0, by which Reshape keeps the size of its input. Arrays with the batch size
    may be indexed and concatenated, but not computed with. `users` are the nodes that take each name.
    """
    start, end = node.take("start", 0), node.take("end", len(axes) + 1)
    constants[node.outputs[0]] = np.array([0, *axes], "int64")[start:end]
    open_ = [node.outputs[0]]
    while open_:
        name = open_.pop()
        for user in users.get(name, ()):
            if not constants[name].all() and not _takes_batch(user, name):
                raise user.refusal("its inputs", "expected values without the batch size")
            given = [constants[name] for name in user.inputs if name in constants]
            if len(given) < len(user.inputs) or len(user.outputs) != 1 or user.outputs[0] in constants:
                continue
            holds_batch = not all(values.all() for values in given)
            folded = _OF_SHAPES.get(user.kind, None if holds_batch else _OF_TWO.get(user.kind))
            made = None if folded is None else _computed(user, folded, given, _MOST_OF_SHAPES)
            if made is not None:
                constants[user.outputs[0]] = made
                open_.append(user.outputs[0])


def _takes_batch(node: Operator, name: str) -> bool:
    """Return whether an input of a node may hold the batch size: as a shape, or to be indexed or concatenated."""
    if node.kind == "Reshape":
        return name not in (*node.inputs[:1], *node.inputs[2:])
    return node.kind == "Concat" or (node.kind in _OF_SHAPES and name not in node.inputs[1:])


def _computed(
    node: Operator, folded: Callable[..., Any], given: list[NDArray[Any]], budget: int
) -> NDArray[Any] | None:
    """Compute a node from constants; None where that fails or exceeds the budget."""
    attributes = dict(node.attributes)
    try:
        if _size(node.kind, given) > budget:
            return None
        with np.errstate(all="ignore"):
            made = np.asarray(folded(*given, **attributes))
    except (TypeError, ValueError, IndexError, KeyError, OverflowError, np.exceptions.AxisError):
        return None  # the reader refuses the node later, and names it
    return made


def _size(kind: str, given: list[NDArray[Any]]) -> int:
    """Return the greatest size that a result can have."""
    if kind in _OF_TWO:
        return prod(np.broadcast_shapes(*(values.shape for values in given)))
    return sum(values.size for values in given)


def _reshape(x: NDArray[Any], shape: NDArray[Any], allowzero: int = 0) -> NDArray[Any]:
    sizes = [x.shape[at] if size == 0 and not allowzero else int(size) for at, size in enumerate(shape.tolist())]
    return x.reshape(sizes)


def _axes(more: NDArray[Any] | None, axes: list[int] | None) -> tuple[int, ...]:
    return tuple(int(axis) for axis in (axes if more is None else more.tolist()) or ())


def _unsqueeze(x: NDArray[Any], more: NDArray[Any] | None = None, axes: list[int] | None = None) -> NDArray[Any]:
    return np.expand_dims(x, _axes(more, axes))


def _squeeze(x: NDArray[Any], more: NDArray[Any] | None = None, axes: list[int] | None = None) -> NDArray[Any]:
    return np.squeeze(x, _axes(more, axes) or None)


def _gather(x: NDArray[Any], at: NDArray[Any], axis: int = 0) -> NDArray[Any]:
    if x.ndim != 1:
        raise ValueError("shapes have one axis")
    return np.take(x, at, axis)


def _slice(
    x: NDArray[Any],
    starts: NDArray[Any],
    ends: NDArray[Any],
    axes: NDArray[Any] | None = None,
    steps: NDArray[Any] | None = None,
) -> NDArray[Any]:
    if x.ndim != 1 or len(starts) != 1 or (axes is not None and axes.tolist() not in ([0], [-1])):
        raise ValueError("shapes have one axis")
    return x[slice(int(starts[0]), int(ends[0]), None if steps is None else int(steps[0]))]


def _divide(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind != "f":
        raise TypeError("whole numbers are divided in another way")
    return np.asarray(x / y)


_OF_TWO: dict[str, Callable[..., Any]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide}
_FOLDED: dict[str, Callable[..., Any]] = {
    **_OF_TWO, "Reshape": _reshape, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze,
    "Neg": np.negative, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal,
    "Identity": lambda x: x,
    "Transpose": lambda x, perm=None: x.transpose(perm),
    "Flatten": lambda x, axis=1: x.reshape(prod(x.shape[:axis]), -1),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Cast": lambda x, to: x.astype(_DTYPES[to]),
    "CastLike": lambda x, like: x.astype(like.dtype),
}  # fmt: skip
_OF_SHAPES: dict[str, Callable[..., Any]] = {
    "Gather": _gather, "Slice": _slice,
    **{kind: _FOLDED[kind] for kind in ("Identity", "Unsqueeze", "Squeeze", "Cast", "Concat")},
}  # fmt: skip
