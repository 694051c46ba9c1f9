"""Multiply matrices on a stream of CuPy's, in captures too: by cublasLt, or by an algorithm that cuBLAS chooses."""

import logging

import numpy as np

from gpunn.backend.algorithms import ITSELF, Config, Key, decode, encode
from gpunn.backend.base import layout_of
from gpunn.backend.cublaslt import CublasLt, Plan
from gpunn.errors import in_one_line
from gpunn.kernels.record import Array

log = logging.getLogger(__name__)

_WORKSPACE_BYTES = 32 * 2**20  # what NVIDIA recommends for Hopper; older devices ask for 4 MiB
_WAYS = {"float32": "", "tf32": "_FAST_TF32", "bfloat16": "_FAST_16BF", "float16": "_FAST_16F"}  # as cuBLAS names them
_MOST_PLANS = 4096
_ALIGNMENT = 16  # bytes of the widest load of a thread; larger alignments differ from run to run


class Cublas:
    """Multiply with a handle of cuBLAS on one stream; CuPy's handle refuses a stream that is being captured.

    cublasLt is asked for an algorithm once for each layout of a product. If it cannot be used, or knows none, cuBLAS
    chooses at each call, and `trouble` says why.
    """

    def __init__(self, stream: int, precision: str = "float32") -> None:
        import cupy
        from nvmath import CudaDataType
        from nvmath.bindings import cublas

        self._cublas, self._stream = cublas, stream
        self._handle = cublas.create()
        cublas.set_stream(self._handle, stream)
        self._workspace = cupy.empty(_WORKSPACE_BYTES, np.uint8)  # allocated now: cuBLAS cannot do so in a capture
        cublas.set_workspace(self._handle, self._workspace.data.ptr, _WORKSPACE_BYTES)
        self._orders = int(cublas.Operation.N), int(cublas.Operation.T)
        compute = getattr(cublas.ComputeType, f"COMPUTE_32F{_WAYS[precision]}")
        self._types: dict[int, tuple[int, int, Array]] = {
            4: (int(CudaDataType.CUDA_R_32F), int(compute), np.zeros(2, np.float32)),
            8: (int(CudaDataType.CUDA_R_64F), int(cublas.ComputeType.COMPUTE_64F), np.zeros(2)),
        }
        self._plans: dict[Key, Plan | None] = {}  # least recently used first
        self._wanted: dict[Key, Config] = {}  # from a checkpoint
        self.trouble = ""
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        processors = int(properties["multiProcessorCount"])
        self._lt: CublasLt | None = None
        library = "cuBLAS itself"
        try:
            kinds = {size: (kind, way) for size, (kind, way, _) in self._types.items()}
            self._lt = CublasLt(kinds, _WORKSPACE_BYTES, processors)
            library = f"cublasLt {self._lt.version}"
        except Exception as error:  # noqa: BLE001 - whatever fails, cuBLAS alone can multiply
            self._complain(f"cublasLt cannot be used ({type(error).__name__}: {in_one_line(str(error)):.200})")
        name = properties["name"].decode().replace(";", ",")  # which separates the parts of a record
        self.environment = f"{name}, {processors} multiprocessors, {library}, {precision}"
        self._library = library

    @property
    def by(self) -> str:
        """Library that chooses the algorithms, in words."""
        return f"by algorithms of {self._library}{f'; {self.trouble}' if self.trouble else ''}"

    def gemm(self, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        layout = layout_of(a, b, c)
        key = (*map(int, layout), c.itemsize, *(_alignment(x.data.ptr) for x in (a, b, c)))
        scalars = self._types[c.itemsize][2]
        scalars[0], scalars[1] = alpha, beta
        at, size = scalars.ctypes.data, scalars.itemsize
        if (plan := self._plan(key)) is not None and self._lt is not None:
            pointers = at, a.data.ptr, b.data.ptr, at + size, c.data.ptr, self._workspace.data.ptr, self._stream
            try:
                self._lt.run(plan, *pointers)
                return
            except self._lt.error as error:
                if not self._lt.is_refusal(error):
                    raise
                self._lt.forget(plan)
                self._plans[key] = None
                said = in_one_line(str(error))
                self._complain(f"cublasLt refused an algorithm of its own for {_words(key)} ({said:.200})")
        is_a_transposed, is_b_transposed, m, n, k, lda, ldb, ldc = layout
        kind, compute, _ = self._types[size]
        # cuBLAS counts by columns: to it our c is cᵀ = bᵀ aᵀ.
        self._cublas.gemm_ex(
            self._handle, self._orders[is_b_transposed], self._orders[is_a_transposed], n, m, k,
            at, b.data.ptr, kind, ldb, a.data.ptr, kind, lda, at + size, c.data.ptr, kind, ldc, compute, -1,
        )  # fmt: skip

    def _plan(self, key: Key) -> Plan | None:
        """Return the plan of a layout: the one in use, the recorded one, or a new choice; None if cuBLAS chooses."""
        if self._lt is None or 0 in key[2:5]:
            return None
        if key in self._plans:
            plan = self._plans[key] = self._plans.pop(key)
            return plan
        wanted = self._wanted.get(key)
        plan = None if wanted == ITSELF else self._lt.plan(key, wanted)
        if plan is None and wanted:
            log.warning("not the same to the last bit: the recorded algorithm of %s is not available here", _words(key))
            plan = self._lt.plan(key, None)
        if plan is None and wanted != ITSELF:
            self._complain(f"cublasLt knows no algorithm for {_words(key)}")
        if len(self._plans) == _MOST_PLANS and (oldest := self._plans.pop(next(iter(self._plans)))) is not None:
            self._lt.forget(oldest)
        self._plans[key] = plan
        return plan

    def algorithms(self) -> str:
        """Return the algorithms used last and the environment that chose them, as text for `repeat`."""
        chosen = {key: ITSELF if plan is None else plan.config for key, plan in self._plans.items()}
        return encode(self.environment, chosen)

    def repeat(self, algorithms: str) -> str:
        """Use recorded algorithms from now on; return why new ones are chosen instead, or ""."""
        if not algorithms:
            return "none are recorded"
        try:
            environment, chosen = decode(algorithms)
        except ValueError as error:
            return f"their record cannot be read ({error})"
        if environment != self.environment:
            return f"those recorded are of {environment:.120}, and this is {self.environment}"
        for key in chosen.keys() & self._plans.keys():
            plan = self._plans[key]
            if chosen[key] != (ITSELF if plan is None else plan.config):
                del self._plans[key]
                if plan is not None and self._lt is not None:
                    self._lt.forget(plan)
        self._wanted |= chosen
        return ""

    def _complain(self, what: str) -> None:
        """Warn once that cuBLAS chooses algorithms itself, and why."""
        if not self.trouble:
            self.trouble = what
            log.warning("%s: cuBLAS chooses algorithms of products itself", what)


def _alignment(address: int) -> int:
    """Return the alignment of an address in bytes, at most `_ALIGNMENT`."""
    return min(_ALIGNMENT, address & -address) or _ALIGNMENT


def _words(key: Key) -> str:
    _, _, m, n, k, *_ = key
    return f"a product of {m}×{k} by {k}×{n}"
