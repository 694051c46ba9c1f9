"""`nvmath.bindings.cublasLt` on a simulated machine, as far as an experiment with its epilogs needs it."""

import ctypes
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from simulator.cublas import Cublas, CublasError, CudaDataType, Operation
from simulator.machine import Machine


class Epilogue(enum.IntEnum):
    """What is done to a product before it is written."""

    DEFAULT = 1
    RELU = 2
    BIAS = 4
    RELU_BIAS = 6


class MatmulDescAttribute(enum.IntEnum):
    """What a description of a product holds, each in a type of its own."""

    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8


class MatmulPreferenceAttribute(enum.IntEnum):
    """What an algorithm is asked to keep to."""

    MAX_WORKSPACE_BYTES = 1


_TYPES = {
    MatmulDescAttribute.TRANSA: ctypes.c_int32,
    MatmulDescAttribute.TRANSB: ctypes.c_int32,
    MatmulDescAttribute.EPILOGUE: ctypes.c_uint32,
    MatmulDescAttribute.BIAS_POINTER: ctypes.c_int64,
}
_FOUND = np.dtype([("algo", np.uint64, (8,)), ("workspace_size", np.uint64), ("state", np.int32)])
_BEST = 0xA160


class CublasLt:
    """Products of float32 by columns, the bias one value a row."""

    def __init__(self, machine: Machine, cublas: Cublas) -> None:
        self._machine, self._cublas = machine, cublas
        self._made: list[Any] = [None]

    def module(self, make: Callable[..., Any]) -> Any:
        """It as a module."""
        functions = (
            "create", "matmul", "matmul_desc_create", "matmul_desc_set_attribute", "matrix_layout_create",
            "matmul_preference_create", "matmul_preference_set_attribute", "matmul_preference_destroy",
            "matmul_algo_get_heuristic",
        )  # fmt: skip
        return make(
            "nvmath.bindings.cublasLt",
            Epilogue=Epilogue,
            MatmulDescAttribute=MatmulDescAttribute,
            MatmulPreferenceAttribute=MatmulPreferenceAttribute,
            matmul_heuristic_result_dtype=_FOUND,
            **{name: getattr(self, name) for name in functions},
        )

    def _new(self, made: Any) -> int:
        self._machine.refuse("a call of cublasLt that allocates")
        self._made.append(made)
        return len(self._made) - 1

    def create(self) -> int:
        return self._new("handle")

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        return self._new({MatmulDescAttribute.EPILOGUE: Epilogue.DEFAULT})

    def matrix_layout_create(self, kind: int, rows: int, columns: int, ld: int) -> int:
        return self._new((kind, rows, columns, ld))

    def matmul_preference_create(self) -> int:
        return self._new({})

    def matmul_preference_destroy(self, preference: int) -> None:
        self._made[preference] = None

    def matmul_preference_set_attribute(self, preference: int, name: int, value: int, size: int) -> None:
        assert (MatmulPreferenceAttribute(name), size) == (MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES, 8)

    def matmul_desc_set_attribute(self, product: int, name: int, value: int, size: int) -> None:
        kind = _TYPES[MatmulDescAttribute(name)]
        if size != ctypes.sizeof(kind):
            raise CublasError("CUBLAS_STATUS_INVALID_VALUE")
        self._made[product][MatmulDescAttribute(name)] = kind.from_address(value).value

    def matmul_algo_get_heuristic(
        self, handle: int, product: int, a: int, b: int, c: int, d: int, preference: int, wanted: int, found: int,
        count: int,
    ) -> None:  # fmt: skip
        self._machine.refuse("a search for an algorithm")
        ctypes.c_uint64.from_address(found).value = _BEST
        ctypes.c_int32.from_address(count).value = 1

    def matmul(
        self, handle: int, product: int, alpha: int, a: int, of_a: int, b: int, of_b: int, beta: int, c: int, of_c: int,
        d: int, of_d: int, algorithm: int, workspace: int, workspace_size: int, stream: int,
    ) -> None:  # fmt: skip
        """D := epilog(alpha op(A) op(B)), all counted by columns."""
        assert self._made[handle] == "handle"
        if ctypes.c_uint64.from_address(algorithm).value != _BEST:
            raise CublasError("CUBLAS_STATUS_NOT_SUPPORTED")
        self._machine.block_at(workspace, workspace + workspace_size, "the workspace")
        described = self._made[product]
        turned = (described.get(MatmulDescAttribute.TRANSA, 0), described.get(MatmulDescAttribute.TRANSB, 0))
        kind, m, n, _ = self._made[of_d]
        k = self._made[of_a][2 if turned[0] == Operation.N else 1]
        left = self._operand("A", a, of_a, turned[0], (m, k))
        right = self._operand("B", b, of_b, turned[1], (k, n))
        result = self._operand("D", d, of_d, Operation.N, (m, n))
        scales = [ctypes.c_float.from_address(scale).value for scale in (alpha, beta)]
        if scales[1] != 0 or kind != CudaDataType.CUDA_R_32F:
            raise CublasError("CUBLAS_STATUS_NOT_SUPPORTED by this stand-in")
        epilog = described[MatmulDescAttribute.EPILOGUE]
        operands = [left, right, result]
        bias = None
        if epilog & Epilogue.BIAS:
            address = described[MatmulDescAttribute.BIAS_POINTER]
            block = self._machine.block_at(address, address + 4 * m, "the bias")
            bias = np.ndarray((m, 1), np.float32, block.bytes, address - block.address)
            operands.append(bias)

        def run() -> tuple[int, int]:
            value = scales[0] * (left @ right)
            if bias is not None:
                value += bias
            result[...] = np.maximum(value, 0) if epilog & Epilogue.RELU else value
            return left.nbytes + right.nbytes, result.nbytes

        self._machine.submit("matmul", run, operands, self._machine.blocking.get(stream))

    def _operand(self, name: str, address: int, layout: int, operation: int, shape: tuple[int, int]) -> np.ndarray:
        kind, rows, columns, ld = self._made[layout]
        if (rows, columns) != (shape if operation == Operation.N else shape[::-1]):
            raise CublasError(f"CUBLAS_STATUS_INVALID_VALUE: {name} is {rows} by {columns}")
        return self._cublas._operand(name, address, kind, ld, operation, *shape)
