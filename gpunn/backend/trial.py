"""A CUDA device tried before it is used: what fails here would end a training later."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backend.cuda_errors import meaning, told
from gpunn.errors import DeviceError, GpunnError, in_one_line
from gpunn.kernels.rollback import mark_not_finite


def trouble_in(error: Exception) -> tuple[str, str]:
    """What a step that failed says of the device, and what mends it."""
    if isinstance(error, MemoryError):
        return told("CUDA", 2, str(error)), meaning("CUDA", 2).mend
    if not isinstance(error, GpunnError):  # of a CuPy or driver that is not as it should be
        from gpunn.backend.driver import reinstall_command

        said = in_one_line(" ".join(str(error).split()))
        return f"{type(error).__name__}: {said:.200}", f"install CuPy again ({reinstall_command()}), or the driver"
    mend = getattr(error, "mend", "")
    whole = str(error)
    if mend and whole.endswith(f": {mend}"):
        return whole.removesuffix(f": {mend}"), mend
    what, _, mend = whole.rpartition(": ")
    return (what, mend) if what else (mend, "run gpunn doctor")


def kernel(backend: Any) -> str:
    """Run a kernel on a backend."""
    # One that every training uses, so that nothing is compiled for this alone.
    flag = backend.zeros((1,), np.int32)
    backend.run(mark_not_finite, backend.asarray(np.array([1, np.nan], np.float32)), flag)
    return _compared(float(backend.to_host(flag)[0]), 1, "a kernel")


def product(backend: Any) -> str:
    """Compute a product on a backend."""
    a, b = (backend.asarray(np.array(rows, np.float32)) for rows in ([[1, 2], [3, 4]], [[5, 6], [7, 8]]))
    c = backend.zeros((2, 2), np.float32)
    backend.gemm(1.0, a, b, 0.0, c)
    return _compared(float(backend.to_host(c).sum()), 134, "a product")


def _compared(got: float, expected: float, what: str) -> str:
    if got != expected:
        raise DeviceError(
            f"{what} gave {got:g} and not {expected:g}: run gpunn doctor; the GPU or its driver is faulty"
        )
    return "right"
