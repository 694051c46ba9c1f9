"""Arrays of other libraries that lie on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np


def on_host(values: Any) -> Any:
    """An array of CuPy, or a tensor of PyTorch or another library on a CUDA device, as NumPy's; all else as it is.

    Raises:
        DeviceError: the device does not answer, or CuPy cannot be imported.
    """
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "detach"):  # PyTorch gives away no memory of a tensor that wants a gradient
        values = values.detach()
    if not hasattr(values, "__cuda_array_interface__"):
        return values
    from gpunn.backend.cuda import import_cupy
    from gpunn.backend.gate import Gate

    cupy = import_cupy()
    with Gate(MemoryError, is_lock=False):
        return cupy.asnumpy(cupy.asarray(values))
