"""Add and copy whole arrays, where branches of a network meet."""

import numpy as np

from gpunn.kernels.record import Array, elementwise


@elementwise("T a, T b", "T y", "y = a + b;")
def add(a: Array, b: Array, y: Array) -> None:
    """y := a + b. y may be a or b."""
    np.add(a, b, out=y)


@elementwise("T x", "T y", "y = x;")
def copy(x: Array, y: Array) -> None:
    """y := x."""
    np.copyto(y, x)
