"""cuBLAS on a stream of CuPy's, eagerly and in captures alike."""

import numpy as np

from gpunn.backend.base import layout_of
from gpunn.kernels.record import Array

_WORKSPACE_BYTES = 32 * 2**20  # what NVIDIA recommends for Hopper; older devices ask for 4 MiB
_WAYS = {"float32": "", "tf32": "_FAST_TF32", "bfloat16": "_FAST_16BF", "float16": "_FAST_16F"}  # as cuBLAS names them


class Cublas:
    """A cuBLAS handle on the stream of an address; that of CuPy refuses a stream that is being captured."""

    def __init__(self, stream: int, precision: str = "float32") -> None:
        import cupy
        from nvmath import CudaDataType
        from nvmath.bindings import cublas

        self._cublas = cublas
        self._handle = cublas.create()
        cublas.set_stream(self._handle, stream)
        self._workspace = cupy.empty(_WORKSPACE_BYTES, np.uint8)  # now: cuBLAS cannot allocate it in a capture
        cublas.set_workspace(self._handle, self._workspace.data.ptr, _WORKSPACE_BYTES)
        self._orders = int(cublas.Operation.N), int(cublas.Operation.T)
        compute = getattr(cublas.ComputeType, f"COMPUTE_32F{_WAYS[precision]}")
        self._types: dict[str, tuple[int, int, Array]] = {
            "float32": (int(CudaDataType.CUDA_R_32F), int(compute), np.zeros(2, np.float32)),
            "float64": (int(CudaDataType.CUDA_R_64F), int(cublas.ComputeType.COMPUTE_64F), np.zeros(2)),
        }

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        is_a_transposed, is_b_transposed, m, n, k, lda, ldb, ldc = layout_of(a, b, c)
        kind, compute, scalars = self._types[str(c.dtype)]
        scalars[0], scalars[1] = alpha, beta
        # cuBLAS counts by columns: to it our c is cᵀ = bᵀ aᵀ.
        self._cublas.gemm_ex(
            self._handle, self._orders[is_b_transposed], self._orders[is_a_transposed], n, m, k,
            scalars.ctypes.data, b.data.ptr, kind, ldb, a.data.ptr, kind, lda,
            scalars.ctypes.data + scalars.itemsize, c.data.ptr, kind, ldc, compute, -1,
        )  # fmt: skip
