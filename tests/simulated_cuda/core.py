"""What the simulated CUDA of this process can be asked: what was done, and in which order work is to be done."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from simulated_cuda.compiling import Compiler
from simulated_cuda.installing import install

AT_ONCE, LATE = -1, 0
"""Orders of work; any other number is the seed of a random one."""

WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
TAKES = ("cudaMalloc", "cudaHostAlloc", "cudaFree", "cudaFreeHost")
COPIES = ("cudaMemcpy", "cudaMemcpyAsync", "cudaMemcpyPeerAsync")


class KernelError(AssertionError):
    """What a kernel did wrong: a race, a barrier that not all threads reach, an access outside of an array, ..."""


class Core:
    """The simulated CUDA of this process."""

    def __init__(self) -> None:
        self._library = install()
        import cupy

        self.cupy = cupy
        self.compiler: Compiler = self._library.compiler  # type: ignore[attr-defined]
        self.order = int(os.environ.get("FAKECUDA_ORDER", AT_ONCE))

    def count(self, what: str) -> int:
        """How often a function was called, or "kernels", "products" or "kernel NAME" were run, since `reset`."""
        return int(self._library.simulated_count(what.encode()))

    def counts(self, *names: str) -> dict[str, int]:
        """Those that are not 0."""
        return {name: count for name in names if (count := self.count(name))}

    def reset(self) -> None:
        """Finish all enqueued work, then count anew."""
        self.set_order(self.order)
        self._library.simulated_reset()

    def set_order(self, order: int) -> None:
        """Finish all enqueued work, and do later work in this order."""
        self._library.simulated_order(order)
        self.order = order

    @property
    def launches(self) -> int:
        """Number of kernels and products since `reset`, after all enqueued work is finished."""
        self.set_order(self.order)
        return self.count("kernels") + self.count("products")

    @contextmanager
    def compiling_checks(self) -> Iterator[None]:
        """Within it CuPy has every kernel compiled anew, with checks, and every array is memory of its own."""
        from cupy.cuda import compiler

        kept = compiler._DiskKernelCacheBackend(str(self.compiler.folder / "cupy-checks"))
        with pytest.MonkeyPatch.context() as patch, self.cupy.cuda.using_allocator(None):
            patch.setattr(compiler, "_kernel_cache_backend", kept)
            patch.setattr(self.compiler, "checks", True)
            self.cupy.clear_memo()
            yield
            self.cupy.clear_memo()

    @contextmanager
    def checks(self, schedule: int = 0, races: bool = True) -> Iterator[None]:
        """Within it kernels that were compiled with checks run in an order of their threads by number."""
        self.set_order(self.order)  # what was given before is done
        self._library.simulated_checks(True, ctypes.c_ulonglong(schedule), races)
        try:
            yield
            self.set_order(self.order)
            if problem := self._library.simulated_problem():
                raise KernelError(problem.decode())
        finally:
            self._library.simulated_checks(False, ctypes.c_ulonglong(0), False)

    @property
    def moved(self) -> int:
        """Bytes that the last kernel with checks read and wrote."""
        return int(self._library.simulated_moved())

    @contextmanager
    def memory(self, nbytes: int) -> Iterator[None]:
        """Within it the device has so much memory that is free, and a pool that has no pieces of it yet."""
        cupy = self.cupy
        free, total = cupy.cuda.runtime.memGetInfo()
        before = self._library.simulated_memory(ctypes.c_size_t(total - free + nbytes))
        pool, usual = cupy.cuda.MemoryPool(), cupy.get_default_memory_pool
        cupy.cuda.set_allocator(pool.malloc)
        cupy.get_default_memory_pool = lambda: pool
        try:
            yield
        finally:
            cupy.get_default_memory_pool = usual
            cupy.cuda.set_allocator(usual().malloc)
            gc.collect()  # what an error still holds would count as in use
            pool.free_all_blocks()
            self._library.simulated_memory(ctypes.c_size_t(before))

    @contextmanager
    def refusing(self, *names: str) -> Iterator[None]:
        """Within it none of these functions may be called; left out, none that takes memory, copies or waits."""
        names = names or (*WAITS, *TAKES, *COPIES)
        before = {name: self.count(name) for name in names}
        yield
        called = {name: more for name in names if (more := self.count(name) - before[name])}
        assert not called, f"called where it must not be: {called}"


@cache
def core() -> Core:
    """The one there is."""
    return Core()
