"""The table of a network: its layers, what comes out of them, what they learn, and the memory it all takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backend.limits import size
from gpunn.config import arguments_of
from gpunn.nn.layers import Layer
from gpunn.nn.network import Network


def summary(model: Network) -> str:
    """Layers, shapes of their outputs for one sample, parameters and bytes, as a table in plain text."""
    model._built()
    head = ("layer", "output shape", "parameters", "buffers")
    rows = [("input", _shape(model.input_shape), "", "")]
    for layer, shape in zip(model.layers, model.shapes, strict=True):
        learned = sum(p.size for p in model.parameters if p.name.startswith(f"{layer.name}."))
        nbytes = model.buffer_bytes.get(layer.name, 0)
        frozen = ", frozen" if not layer.trainable else ""
        rows.append(
            (_words(layer) + frozen, _shape(shape), f"{learned:,}" if learned else "", size(nbytes) if nbytes else "")
        )
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    line = "  ".join("─" * width for width in widths)

    def text(row: tuple[str, ...]) -> str:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
        return f"{left}  {right}".rstrip()

    total = model.parameters.values.size
    item = np.dtype(model.dtype).itemsize
    buffers = sum(model.buffer_bytes.values())
    still = {layer.name for layer in model.layers if not layer.trainable}
    learned = sum(p.size for p in model.parameters if p.name.split(".")[0] not in still)
    frozen = f" ({total - learned:,} frozen)" if learned < total else ""
    last = (
        f"{total:,} parameters{frozen}, {size((total + learned) * item)} with their gradients; {size(buffers)} of "
        f"buffers for batches of up to {model.capacity}; {model.dtype} on {model._built().device}"
    )
    return "\n".join([text(head), line, *map(text, rows), line, last])


def _words(layer: Layer) -> str:
    """A layer as one writes it: a pair of equals as one number; the size of a window, and what was set."""
    shown = arguments_of(layer, without_defaults=True)
    values = {name: value for name, value in arguments_of(layer).items() if name in shown or name == "size"}
    return f"{type(layer).__name__}({', '.join(f'{name}={_short(value)}' for name, value in values.items())})"


def _short(value: Any) -> str:
    equals = isinstance(value, tuple) and len(set(value)) == 1
    return repr(value[0] if equals else value)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
