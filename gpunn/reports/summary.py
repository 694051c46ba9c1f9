"""The table of a network: its layers, what comes out of them, what they learn, and the memory it all takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpunn.model import Sequential


def summary(model: Sequential) -> str:
    """Layers, shapes of their outputs for one sample, parameters and bytes, as a table in plain text."""
    model._built()
    head = ("layer", "output shape", "parameters", "buffers")
    rows = [("input", _shape(model.input_shape), "", "")]
    for layer, shape in zip(model.layers, model.shapes, strict=True):
        learned = sum(p.size for p in model.parameters if p.name.startswith(f"{layer.name}."))
        nbytes = model.buffer_bytes.get(layer.name, 0)
        rows.append((repr(layer), _shape(shape), f"{learned:,}" if learned else "", size(nbytes) if nbytes else ""))
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    line = "  ".join("─" * width for width in widths)

    def text(row: tuple[str, ...]) -> str:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
        return f"{left}  {right}".rstrip()

    total = model.parameters.values.size
    item = np.dtype(model.dtype).itemsize
    buffers = sum(model.buffer_bytes.values())
    last = (
        f"{total:,} parameters, {size(2 * total * item)} with their gradients; {size(buffers)} of buffers for "
        f"batches of up to {model.capacity}; {model.dtype} on {model._built().device}"
    )
    return "\n".join([text(head), line, *map(text, rows), line, last])


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def size(nbytes: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"
