"""Check the arguments of networks: layers, shapes, dtypes and batches."""

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from gpunn.backend.base import Shape
from gpunn.backend.devices import on_host
from gpunn.config.scalars import positive_whole
from gpunn.data.checks import as_inputs
from gpunn.data.device_inputs import DeviceInputs
from gpunn.data.formats.frame import is_frame, read_frame
from gpunn.data.loader import rows_of
from gpunn.data.tokens import as_tokens
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import OptionError, ShapeError

DTYPES = ("float32", "float64")


def as_shape(shape: Any) -> Shape:
    """Return the shape of a sample from a number of features, (features,) or (height, width, channels)."""
    if isinstance(shape, str) or not isinstance(shape, Iterable) or getattr(shape, "ndim", 1) == 0:
        shape = (shape,)
    sizes = tuple(positive_whole(size, "input shape") for size in shape)
    if len(sizes) not in (1, 3):
        raise ShapeError(f"input shape must be (features,) or (height, width, channels), got {sizes}")
    return sizes


def checked_dtype(dtype: Any) -> str:
    """Return the name of a supported dtype, from its name or NumPy's type; raise OptionError for others."""
    try:
        name = str(np.dtype(dtype).name)
    except (TypeError, ValueError):
        name = ""
    if dtype is None or name not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    return name


def as_batch(x: Any, wanted: Shape, trained_on: TrainingInputs | None, tokens: int = 0) -> Any:
    """Return inputs as an array with samples of the wanted shape; an array on a device stays there.

    With `tokens`, inputs are whole numbers below it and are checked on the host.
    """
    if tokens:
        batch = on_host(as_batch(x, wanted, trained_on))
        return as_tokens(batch, tokens) if len(batch) else batch
    if trained_on is not None and trained_on.columns is not None and is_frame(x):
        x = trained_on.columns.inputs(read_frame(x, trained_on.columns.kinds))
    elif isinstance(inputs := as_inputs(x), DeviceInputs):
        x = inputs.array
    else:
        x = inputs
        if x.shape == (0,):
            x = x.reshape(0, *wanted)
        elif x.dtype.itemsize > 8 or not x.dtype.isnative:
            x = x.astype(np.float64 if x.dtype.itemsize > 8 else x.dtype.newbyteorder("="))
    if trained_on is not None:
        x = trained_on.arranged(x)
    shape = tuple(x.shape[1:])
    if shape == wanted:
        return x
    if len(wanted) == 1 and prod(shape) == wanted[0] and x.ndim > 1:
        return rows_of(x)
    if shape == wanted[:2] and wanted[2] == 1:
        return x.reshape(*x.shape, 1)
    mend = ": x[None] makes a batch of one sample" if x.size == prod(wanted) and x.shape[:1] != (1,) else ""
    raise ShapeError(f"expected inputs (batch, {', '.join(map(str, wanted))}), got {tuple(x.shape)}{mend}")
