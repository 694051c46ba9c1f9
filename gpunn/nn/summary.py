"""Write the summary of a network: layers, output shapes, parameters and memory."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from gpunn.backend.base import Shape
from gpunn.backend.limits import size
from gpunn.config import arguments_of
from gpunn.display.html import html_table
from gpunn.errors import GpunnError
from gpunn.nn.layers import Layer
from gpunn.nn.network import Network

_MOST_NAMES = 8  # class names to show


def summary(model: Network) -> str:
    """Write layers, output shapes of one sample, parameters and bytes as a table in plain text."""
    rows, last = _table(model)
    a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
    head, *lines = (f"{row[0]:<{a}}  {row[1]:<{b}}  {row[2]:>{c}}  {row[3]:>{d}}".rstrip() for row in rows)
    line = "  ".join("─" * width for width in (a, b, c, d))
    return "\n".join([head, line, *lines, line, last])


def summary_html(model: Network) -> str:
    """Write the summary as an HTML table with the training so far; before `build`, only the layers."""
    kind = type(model).__name__
    try:
        rows, last = _table(model)
    except GpunnError as error:
        layers = [(_named(layer, depth),) for layer, depth in _levels(model.layers)]
        return html_table(("layer",), [layers], title=kind, notes=[str(error)])
    return html_table(rows[0], [rows[1:]], title=kind, notes=[last, _trained(model)], texts=2)


def _trained(model: Network) -> str:
    """Write the epochs, steps, loss and classes of the training so far."""
    if not model.steps_trained:
        return "not trained yet"
    epochs, steps = model.epochs_trained, model.steps_trained
    told = [f"trained for {epochs:g} epoch{'s' if epochs != 1 else ''}, {steps:,} step{'s' if steps != 1 else ''}"]
    if model.loss is not None:
        told.append(f"by {model.loss!r}")
    if names := model.class_names:
        more = ", …" if len(names) > _MOST_NAMES else ""
        told.append(f"on {len(names):,} classes: {', '.join(names[:_MOST_NAMES])}{more}")
    return " ".join(told)


def _table(model: Network) -> tuple[list[tuple[str, str, str, str]], str]:
    """Return the rows of the table, header first, and the line below it."""
    device, counts = model._built().device, Counter[str]()
    for p in model.parameters:
        counts[p.name.rpartition(".")[0]] += p.size
    rows = [("layer", "output shape", "parameters", "buffers"), ("input", _written(model.input_shape), "", "")]
    for layer, shape, depth in _nested(model.layers, model.input_shape):
        count, nbytes = counts[layer.name], model.buffer_bytes.get(layer.name)
        rows.append(
            (_named(layer, depth), _written(shape), f"{count:,}" if count else "", size(nbytes) if nbytes else "")
        )
    total = model.parameters.size
    learned = sum(p.size for p in model.parameters if not p.is_frozen)
    frozen = f" ({total - learned:,} frozen)" if learned < total else ""
    nbytes = (total + learned) * np.dtype(model.dtype).itemsize
    buffers = f"{size(sum(model.buffer_bytes.values()))} of buffers for batches of up to {model.capacity}"
    last = f"{total:,} parameters{frozen}, {size(nbytes)} with their gradients; {buffers}; {model.dtype} on {device}"
    return rows, last


def _levels(layers: Sequence[Layer], depth: int = 0) -> Iterator[tuple[Layer, int]]:
    """Give each layer and its nesting depth, inner layers after the outer one."""
    for layer in layers:
        yield layer, depth
        for branch in layer.branches:
            yield from _levels(branch, depth + 1)


def _nested(layers: Sequence[Layer], shape: Shape, depth: int = 0) -> Iterator[tuple[Layer, Shape, int]]:
    """Give each layer with its output shape and nesting depth, inner layers after the outer one."""
    for layer in layers:
        before, shape = shape, layer.output_shape(shape)
        yield layer, shape, depth
        for branch in layer.branches:
            yield from _nested(branch, before, depth + 1)


def _written(shape: Shape) -> str:
    return " × ".join(map(str, shape))


def _named(layer: Layer, depth: int) -> str:
    return "  " * depth + _words(layer) + ("" if layer.trainable else ", frozen")


def _words(layer: Layer) -> str:
    """Write a layer with its size and its non-default arguments, a pair of equal numbers as one."""
    shown = arguments_of(layer, without_defaults=True)
    words = []
    for name, value in arguments_of(layer).items():
        if layer.branches and isinstance(value, list | Layer):  # inner layers have rows of their own
            continue
        if name in shown or name == "size":
            equals = isinstance(value, tuple) and len(set(value)) == 1
            words.append(f"{name}={value[0] if equals else value!r}")
    return f"{type(layer).__name__}({', '.join(words)})"
