"""Compute a product with bias and ReLU as an epilog of cublasLt: gpunn does not use it, and is compared with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backend.cuda import CupyBackend


class LtProduct:
    """a := ReLU(w xᵀ + b)ᵀ in one call of cublasLt: (batch, units), which to it is (units, batch) by columns."""

    def __init__(self, backend: CupyBackend, w: Any, x: Any, b: Any, a: Any) -> None:
        from nvmath import CudaDataType
        from nvmath.bindings import cublas, cublasLt

        self._lt, self._stream, self._arrays = cublasLt, backend.stream, (w, x, b, a)
        real, compute = int(CudaDataType.CUDA_R_32F), int(cublas.ComputeType.COMPUTE_32F)
        self._workspace = backend.empty((2**25,), np.uint8)
        (units, inputs), batch = w.shape, len(x)
        self._scalars = np.array([1, 0], np.float32)
        with backend.cupy.cuda.Device(backend.index):
            self._handle = cublasLt.create()
            self._product = cublasLt.matmul_desc_create(compute, real)
            attribute = cublasLt.MatmulDescAttribute
            for name, kind, value in (
                (attribute.TRANSA, np.int32, cublas.Operation.T),
                (attribute.EPILOGUE, np.uint32, cublasLt.Epilogue.RELU_BIAS),
                (attribute.BIAS_POINTER, np.int64, b.data.ptr),
            ):
                held = np.array([int(value)], kind)
                cublasLt.matmul_desc_set_attribute(self._product, int(name), held.ctypes.data, held.nbytes)
            self._layouts = [
                cublasLt.matrix_layout_create(real, rows, columns, rows)
                for rows, columns in ((inputs, units), (inputs, batch), (units, batch))
            ]
            self._algorithm = self._best()

    def _best(self) -> Any:
        """The algorithm that cublasLt thinks best, asked for before a capture."""
        lt, (w, x, a) = self._lt, self._layouts
        preference = lt.matmul_preference_create()
        most = np.array([self._workspace.nbytes], np.uint64)
        name = int(lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES)
        lt.matmul_preference_set_attribute(preference, name, most.ctypes.data, most.nbytes)
        found, count = np.zeros(1, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
        lt.matmul_algo_get_heuristic(
            self._handle, self._product, w, x, a, a, preference, 1, found.ctypes.data, count.ctypes.data
        )
        lt.matmul_preference_destroy(preference)
        if not count[0]:
            raise RuntimeError("cublasLt knows no algorithm for this product with this epilog")
        return found

    def __call__(self) -> None:
        (w, x, _, a), (of_w, of_x, of_a) = self._arrays, self._layouts
        one, zero = self._scalars.ctypes.data, self._scalars.ctypes.data + 4
        self._lt.matmul(
            self._handle, self._product, one, w.data.ptr, of_w, x.data.ptr, of_x, zero, a.data.ptr, of_a,
            a.data.ptr, of_a, self._algorithm["algo"].ctypes.data, self._workspace.data.ptr, self._workspace.nbytes,
            self._stream.ptr,
        )  # fmt: skip
