"""Check what a network is made of and asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunn.config import as_part
from gpunn.data.checks import as_array
from gpunn.errors import OptionError, ShapeError
from gpunn.nn.layers import Layer
from gpunn.scalars import positive_whole

DTYPES = ("float32", "float64")


def as_layers(layers: Any, more: tuple[Any, ...] = ()) -> list[Layer]:
    """The layers of a network, each made, or by its class or name where it needs no arguments.

    Raises:
        OptionError: no list of layers.
    """
    if isinstance(layers, Layer | type) or more:
        inside = ", ".join(map(repr, (layers, *more)))
        raise OptionError(f"a network is a list of layers: write Sequential([{inside}])")
    if not isinstance(layers, Iterable) or isinstance(layers, str | dict) or getattr(layers, "ndim", 1) == 0:
        raise OptionError(f"a network is a list of layers such as [Dense(10)], got {layers!r}")
    made = [as_part("layer", layer) for layer in layers]
    if not made:
        raise OptionError(f"a network is a list of layers such as [Dense(10)], got {layers!r}")
    return made


def as_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a sample from a number of features, or from (features,) or (height, width, channels).

    Raises:
        OptionError, ShapeError: no shape.
    """
    if isinstance(shape, str) or not isinstance(shape, Iterable) or getattr(shape, "ndim", 1) == 0:
        shape = (shape,)
    sizes = tuple(positive_whole(size, "input shape") for size in shape)
    if len(sizes) not in (1, 3):
        raise ShapeError(f"input shape must be (features,) or (height, width, channels), got {sizes}")
    return sizes


def checked_dtype(dtype: Any) -> str:
    """The name of a dtype that networks compute in, from its name or NumPy's type.

    Raises:
        OptionError: another one.
    """
    try:
        name = str(np.dtype(dtype).name)
    except (TypeError, ValueError):
        name = ""
    if dtype is None or name not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    return name


def is_of_cupy(x: Any) -> bool:
    """Whether x is an array of CuPy, which NumPy makes no array of by itself."""
    return type(x).__module__.partition(".")[0] == "cupy"


def as_batch(x: Any, shape: tuple[int, ...]) -> Any:
    """What a network is asked: an array of numbers, batch first; an array of a device stays as it is.

    Args:
        x: whatever NumPy makes an array of, or an array of CuPy.
        shape: of one sample, for a list without any.

    Raises:
        DataError: no numbers.
    """
    if is_of_cupy(x):
        return x
    array = as_array(x, "inputs")
    if array.shape == (0,):
        return array.reshape(0, *shape)
    if array.dtype.itemsize > 8 or not array.dtype.isnative:
        return array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="))
    return array
