"""`nvmath.bindings.cublas` on a simulated machine: the product itself is NumPy's, its rules are cuBLAS's."""

import ctypes
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.launching import KernelError
from simulator.machine import CUDARuntimeError, Machine
from simulator.memory import is_poisoned


class CudaDataType(enum.IntEnum):
    """Types of elements."""

    CUDA_R_32F = 0
    CUDA_R_64F = 1
    CUDA_R_16F = 2


class ComputeType(enum.IntEnum):
    """What products are computed in."""

    COMPUTE_32F = 68
    COMPUTE_32F_PEDANTIC = 69
    COMPUTE_64F = 70
    COMPUTE_64F_PEDANTIC = 71
    COMPUTE_32F_FAST_16F = 74
    COMPUTE_32F_FAST_16BF = 75
    COMPUTE_32F_FAST_TF32 = 77


class Operation(enum.IntEnum):
    """How an operand is read."""

    N = 0
    T = 1
    C = 2


class CublasError(RuntimeError):
    """What cuBLAS reports."""


_DTYPES = {
    CudaDataType.CUDA_R_32F: np.float32,
    CudaDataType.CUDA_R_64F: np.float64,
    CudaDataType.CUDA_R_16F: np.float16,
}
_SCALARS = {
    ComputeType.COMPUTE_32F: np.float32,
    ComputeType.COMPUTE_32F_PEDANTIC: np.float32,
    ComputeType.COMPUTE_32F_FAST_16F: np.float32,
    ComputeType.COMPUTE_32F_FAST_16BF: np.float32,
    ComputeType.COMPUTE_32F_FAST_TF32: np.float32,
    ComputeType.COMPUTE_64F: np.float64,
    ComputeType.COMPUTE_64F_PEDANTIC: np.float64,
}


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    """Float32 numbers with the 10 bits of mantissa that TF32 has, rounded to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def rounded_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Float32 numbers with the 7 bits of mantissa that bfloat16 has, rounded to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


@dataclass
class _Handle:
    stream: int = 0
    workspace: tuple[int, int] | None = None


class Cublas:
    """The library, its handles and their state."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._handles: dict[int, _Handle] = {}

    def module(self, make: Callable[..., Any]) -> Any:
        """It as a module."""
        functions = ("create", "destroy", "set_stream", "set_workspace", "gemm_ex")
        return make(
            "nvmath.bindings.cublas",
            ComputeType=ComputeType,
            Operation=Operation,
            cuBLASError=CublasError,
            **{name: getattr(self, name) for name in functions},
        )

    def create(self) -> int:
        self._machine.refuse("cublasCreate")
        handle = 0xB1A50000 + len(self._handles) * 64
        self._handles[handle] = _Handle()
        return handle

    def destroy(self, handle: int) -> None:
        del self._handles[handle]

    def set_stream(self, handle: int, stream: int) -> None:
        self._handles[handle].stream = stream
        self._handles[handle].workspace = None  # cuBLAS goes back to a workspace of its own

    def set_workspace(self, handle: int, workspace: int, size: int) -> None:
        if workspace % 256:
            raise CublasError("the workspace must be aligned to 256 bytes")
        self._machine.block_at(workspace, workspace + size, "the workspace")
        self._handles[handle].workspace = (workspace, size)

    def gemm_ex(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int,
        alpha: int, a: int, atype: int, lda: int, b: int, btype: int, ldb: int,
        beta: int, c: int, ctype: int, ldc: int, compute_type: int, algo: int,
    ) -> None:  # fmt: skip
        """C := alpha op(A) op(B) + beta C, all counted by columns."""
        if handle not in self._handles:
            raise CublasError("CUBLAS_STATUS_NOT_INITIALIZED")
        state = self._handles[handle]
        if self._machine.capture is not None:
            if state.stream != self._machine.capture.stream.ptr:
                raise CUDARuntimeError(
                    "cudaErrorStreamCaptureImplicit: cuBLAS works on another stream than is captured"
                )
            if state.workspace is None:
                self._machine.refuse("an allocation of cuBLAS, which has no workspace of its own")
        if min(m, n, k) <= 0 or algo != -1:
            raise CublasError("CUBLAS_STATUS_INVALID_VALUE")
        scalar = _SCALARS[ComputeType(compute_type)]
        # Pointers to the host: they are read now, also in a capture.
        factor, keep = (scalar(np.ctypeslib.as_array((_C[scalar] * 1).from_address(p))[0]) for p in (alpha, beta))
        left = self._operand("A", a, atype, lda, transa, m, k)
        right = self._operand("B", b, btype, ldb, transb, k, n)
        result = self._operand("C", c, ctype, ldc, Operation.N, m, n)
        if compute_type in (ComputeType.COMPUTE_64F, ComputeType.COMPUTE_64F_PEDANTIC):
            if not left.dtype == right.dtype == result.dtype == np.float64:
                raise CublasError("CUBLAS_STATUS_NOT_SUPPORTED")
        elif left.dtype != right.dtype or np.float64 in (left.dtype, right.dtype, result.dtype):
            raise CublasError("CUBLAS_STATUS_NOT_SUPPORTED")
        if np.may_share_memory(result, left) or np.may_share_memory(result, right):
            raise KernelError("gemm writes into one of its operands")

        def run() -> tuple[int, int]:
            for name, operand in (("A", left), ("B", right), *([("C", result)] if keep else [])):
                if is_poisoned(operand):
                    raise KernelError(f"gemm reads an element of {name} that was never written")
            p, q = left.astype(scalar, copy=False), right.astype(scalar, copy=False)
            if compute_type == ComputeType.COMPUTE_32F_FAST_TF32:
                p, q = rounded_to_tf32(p), rounded_to_tf32(q)
            if compute_type == ComputeType.COMPUTE_32F_FAST_16BF:
                p, q = rounded_to_bfloat16(p), rounded_to_bfloat16(q)
            if compute_type == ComputeType.COMPUTE_32F_FAST_16F:
                with np.errstate(over="ignore"):
                    p, q = (each.astype(np.float16).astype(np.float32) for each in (p, q))
            product = (p @ q) * factor
            if keep:
                product += keep * result
            result[...] = product
            return left.nbytes + right.nbytes + (result.nbytes if keep else 0), result.nbytes

        stream = self._machine.blocking.get(state.stream)
        self._machine.submit("gemm", run, [left, right, result], stream)

    def _operand(
        self, name: str, address: int, kind: int, ld: int, operation: int, rows: int, columns: int
    ) -> np.ndarray:
        """A matrix of the device as op() of it is (rows, columns)."""
        dtype = np.dtype(_DTYPES[CudaDataType(kind)])
        if operation != Operation.N:
            rows, columns = columns, rows
        if ld < max(1, rows):
            raise CublasError(f"CUBLAS_STATUS_INVALID_VALUE: leading dimension {ld} of {name} with {rows} rows")
        if address % dtype.itemsize:
            raise CublasError(f"{name} is not aligned")
        end = address + ((columns - 1) * ld + rows) * dtype.itemsize
        block = self._machine.block_at(address, end, f"operand {name} of gemm")
        strides = (dtype.itemsize, ld * dtype.itemsize)
        matrix: np.ndarray = np.ndarray((rows, columns), dtype, block.bytes, address - block.address, strides)
        return matrix if operation == Operation.N else matrix.T


_C = {np.float32: ctypes.c_float, np.float64: ctypes.c_double}
