"""Import CuPy and open a CUDA device, with errors that say what to do."""

import sys
import warnings
from typing import Any

from gpunn.backend import compiling, limits
from gpunn.backend.cuda_errors import Gate
from gpunn.backend.driver import reinstall_command
from gpunn.errors import DeviceError


def import_cupy() -> Any:
    """Import CuPy and nvmath's bindings of cuBLAS, or raise `DeviceError` if a part is missing."""
    try:
        if "cupy" not in sys.modules:
            compiling.prepare_cache()
        # CuPy warns each time; where it matters, for streamed data, the training says it once.
        warnings.filterwarnings("ignore", "Using synchronous transfer as pinned memory")
        import cupy
        from nvmath.bindings import cublas  # noqa: F401

        _ = cupy.ndarray, cupy.cuda.Device, cupy.RawKernel  # an incomplete package lacks some
        compiling.tolerate(getattr(cupy.cuda, "compiler", None))
    except Exception as error:
        # CuPy wraps the loader's message in advice of its own.
        first = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        said = " ".join(str(first).split())[:200]
        if "GLIBCXX" in said or "CXXABI" in said:
            where = "take its folder out of LD_LIBRARY_PATH, or in conda install libstdcxx-ng"
            mend = f"another, older libstdc++ is found first: {where}"
        elif "GLIBC_" in said:
            mend = "this system is older than CuPy's wheels are made for: use a newer one, or the CPU"
        else:
            mend = reinstall_command()
        raise DeviceError(f"CuPy cannot be imported ({type(error).__name__}: {said}): {mend}", mend) from error
    return cupy


def open_device(index: int) -> str:
    """Open a context on a CUDA device and return its free memory in words; raise `DeviceError` on failure."""
    cupy = import_cupy()
    with Gate():
        if index >= (devices := int(cupy.cuda.runtime.getDeviceCount())):
            raise DeviceError(f"there is no device {index}, only {devices}: the first is cuda:0")
        with cupy.cuda.Device(index):
            free, whole = cupy.cuda.runtime.memGetInfo()
    return f"{limits.size(free)} of {limits.size(whole)} free"
