"""The arithmetic of a kernel is that of a device: what CuPy's options make of it, float32 and float64 apart."""

import numpy as np
import pytest

from simulated_cuda.core import Core

SUBNORMAL = {"f4": 1e-42, "f8": 1e-310}


@pytest.mark.parametrize("operation", ["y = x > 0", "y = x * 3", "y = x + x", "y = x / 2", "y = max(x, -x)"])
def test_float32_is_flushed_to_zero_and_float64_is_not(cuda: Core, operation: str) -> None:
    kernel = cuda.cupy.ElementwiseKernel("T x", "T y", operation)
    for dtype, tiny in SUBNORMAL.items():
        got = cuda.cupy.asnumpy(kernel(cuda.cupy.asarray([tiny, -tiny, 1.5], dtype)))
        assert got[:2].any() == (dtype == "f8"), dtype
        assert got[2] != 0


def test_a_kernel_of_both_flushes_the_one_and_keeps_the_other(cuda: Core) -> None:
    both = cuda.cupy.ElementwiseKernel(
        "float32 a, float64 b", "float32 x, float64 y, float64 z", "x = a * 2; y = b * 2; z = exp(b * 0 - 720);"
    )
    x, y, z = (r.get()[0] for r in both(cuda.cupy.asarray([1e-42], "f4"), cuda.cupy.asarray([1e-310], "f8")))
    assert x == 0
    assert y == 2e-310
    assert 0 < z < 1e-312


def test_what_is_smaller_than_float32_holds_becomes_zero(cuda: Core) -> None:
    narrow = cuda.cupy.ElementwiseKernel("float64 x", "float32 y", "y = (float)x")
    assert cuda.cupy.asnumpy(narrow(cuda.cupy.asarray([1e-40, 1e-30], "f8"))).tolist() == [0, float(np.float32(1e-30))]


@pytest.mark.parametrize(("options", "rounds"), [((), 1), (("--fmad=false",), 2)])
def test_a_product_and_a_sum_are_rounded_once_unless_told_otherwise(
    cuda: Core, options: tuple[str, ...], rounds: int
) -> None:
    code = 'extern "C" __global__ void f(const float* x, float* y) { y[0] = x[0] * x[1] + x[2]; }'
    a = np.float32(1 + 2**-12)
    x, y = cuda.cupy.asarray([a, a, -1], "f4"), cuda.cupy.zeros(1, "f4")
    cuda.cupy.RawKernel(code, "f", options=options)((1,), (1,), (x, y))
    exact = 2**-11 + 2**-24
    assert float(y[0]) == (exact if rounds == 1 else 2**-11)
