"""Products that are planned once: the same numbers as `gemm`, whatever arrays come."""

from __future__ import annotations

import numpy as np
import pytest
from harness import DTYPES

from gpunn import blas
from gpunn.backend import Backend
from gpunn.product import Product


def drawn(backend: Backend, *shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return backend.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", ["", "a", "b"])
def test_a_planned_product_is_that_of_gemm_to_the_bit(backend: Backend, transposed: str, dtype: str) -> None:
    a = drawn(backend, *((5, 3) if transposed == "a" else (3, 5)), dtype=dtype)
    b = drawn(backend, *((4, 5) if transposed == "b" else (5, 4)), dtype=dtype, seed=1)
    expected, c = (drawn(backend, 3, 4, dtype=dtype, seed=2) for _ in range(2))
    product = Product(backend, transposed)
    for alpha, beta in ((1.0, 0.0), (-0.5, 0.75), (2.0, 1.0)):
        backend.gemm(alpha, a.T if transposed == "a" else a, b.T if transposed == "b" else b, beta, expected)
        product(alpha, a, b, beta, c)
        np.testing.assert_array_equal(backend.to_host(c), backend.to_host(expected))


def test_a_planned_product_sees_new_values_and_new_arrays(backend: Backend) -> None:
    product = Product(backend)
    a, b, c = drawn(backend, 3, 5), drawn(backend, 5, 4, seed=1), backend.zeros((3, 4), np.float32)
    product(1.0, a, b, 0.0, c)
    first = backend.to_host(c)
    backend.assign(a, 2 * backend.to_host(a))
    product(1.0, a, b, 0.0, c)
    np.testing.assert_array_equal(backend.to_host(c), 2 * first)
    for changed in range(3):
        arrays = [drawn(backend, *x.shape, seed=7 + changed) if at == changed else x for at, x in enumerate((a, b, c))]
        product(1.0, arrays[0], arrays[1], 0.0, arrays[2])
        expected = backend.zeros((3, 4), np.float32)
        backend.gemm(1.0, arrays[0], arrays[1], 0.0, expected)
        np.testing.assert_array_equal(backend.to_host(arrays[2]), backend.to_host(expected))


def test_a_planned_product_is_checked_as_any_other() -> None:
    with pytest.raises(ValueError, match="gemm cannot write"):
        blas.planned(np.ones((3, 2)), np.ones((3, 4)), np.ones((3, 4)))


def test_arrays_that_cannot_be_written_can_be_factors() -> None:
    a, b, c = np.ones((3, 2)), np.ones((2, 4)), np.zeros((3, 4))
    a.flags.writeable = b.flags.writeable = False
    blas.gemm(1.0, a, b, 0.0, c)
    blas.gemm(1.0, b.T, a.T, 0.0, turned := np.zeros((4, 3)))
    assert (c == 2).all()
    assert (turned == 2).all()
