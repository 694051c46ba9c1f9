"""c := alpha a b + beta c on a CUDA device, through NVIDIA's own bindings of cuBLAS.

CuPy refuses cuBLAS on a stream that is being captured into a graph, so the handle, its stream and its workspace are
ours: all set once, before any capture, since cuBLAS may otherwise allocate in the middle of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.kernels.record import Array

_WORKSPACE_BYTES = 32 * 2**20  # what NVIDIA recommends for Hopper; older devices ask for 4 MiB

_COMPUTE_TYPES = {
    "float32": "COMPUTE_32F",
    "tf32": "COMPUTE_32F_FAST_TF32",
    "bfloat16": "COMPUTE_32F_FAST_16BF",
    "float16": "COMPUTE_32F_FAST_16F",
}


class Cublas:
    """A cuBLAS handle that works on one stream.

    Args:
        stream: address of the CUDA stream; the device it belongs to must be current.
        precision: what products of float32 are computed in. Sums are float32 always; "tf32" rounds the factors to 10
            bits of mantissa, "bfloat16" to 7, "float16" to 10 and to its range, and all three use the tensor cores.
    """

    def __init__(self, stream: int, precision: str = "float32") -> None:
        import cupy
        from nvmath import CudaDataType
        from nvmath.bindings import cublas

        self._cublas = cublas
        self._handle = cublas.create()
        cublas.set_stream(self._handle, stream)
        self._workspace = cupy.empty(_WORKSPACE_BYTES, np.uint8)
        cublas.set_workspace(self._handle, self._workspace.data.ptr, _WORKSPACE_BYTES)
        self._types: dict[str, tuple[int, int, Any]] = {
            "float32": (
                int(CudaDataType.CUDA_R_32F),
                int(getattr(cublas.ComputeType, _COMPUTE_TYPES[precision])),
                np.zeros(2, np.float32),
            ),
            "float64": (
                int(CudaDataType.CUDA_R_64F),
                int(cublas.ComputeType.COMPUTE_64F),
                np.zeros(2, np.float64),
            ),
        }

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        """c := alpha a b + beta c; see `Backend.gemm`."""
        (m, k), (inner, n) = a.shape, b.shape
        if inner != k or c.shape != (m, n) or not a.dtype == b.dtype == c.dtype:
            raise ValueError(f"gemm cannot write {a.shape} {a.dtype} times {b.shape} {b.dtype} to {c.shape} {c.dtype}")
        if n > 1 and c.strides[1] != c.itemsize:
            raise ValueError(f"gemm writes rows that are contiguous, got strides {c.strides}")
        kind, compute, scalars = self._types[str(c.dtype)]
        scalars[0], scalars[1] = alpha, beta
        transpose_a, lda = self._order(a)
        transpose_b, ldb = self._order(b)
        # cuBLAS counts by columns: to it our c is cᵀ = bᵀ aᵀ.
        self._cublas.gemm_ex(
            self._handle, transpose_b, transpose_a, n, m, k,
            scalars.ctypes.data, b.data.ptr, kind, ldb, a.data.ptr, kind, lda,
            scalars.ctypes.data + scalars.itemsize, c.data.ptr, kind, max(c.strides[0] // c.itemsize, n),
            compute, -1,
        )  # fmt: skip

    def _order(self, x: Any) -> tuple[int, int]:
        """cuBLAS's transpose flag of a matrix, and its leading dimension."""
        rows, columns = x.strides
        operation = self._cublas.Operation
        if columns == x.itemsize or x.shape[1] == 1:
            return int(operation.N), max(rows // x.itemsize, x.shape[1])
        if rows == x.itemsize or x.shape[0] == 1:
            return int(operation.T), max(columns // x.itemsize, x.shape[0])
        raise ValueError(f"gemm takes matrices with contiguous rows or columns, got strides {x.strides}")
