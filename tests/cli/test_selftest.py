"""The doctor's self-test: it reaches every kernel, and finds one that is wrong."""

from typing import Any

import numpy as np
import pytest

from gpunn.backend.cpu import NumpyBackend
from gpunn.cli.selftest import self_test
from gpunn.kernels import Elementwise, Raw, registry


class Wrong(NumpyBackend):
    """A device on which one thing goes wrong."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__()
        self.name, self.how = name, how
        product = self.gemm

        def gemm(alpha: float, a: Any, b: Any, beta: float, c: Any) -> None:
            product(alpha, a, b, beta, c)
            if name == "gemm":
                c[0, 0] += 1e-2

        self.gemm = gemm  # type: ignore[method-assign]

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        super().run(kernel, *arguments)
        if kernel.name != self.name:
            return
        if self.how == "fails":
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered\nat line 3")
        arguments[-1][...] = arguments[-1] + (np.nan if self.how == "nan" else 1)


def test_every_kernel_is_tested() -> None:
    said: list[str] = []
    assert self_test(NumpyBackend(), said.append)
    assert said == [f"ok       self-test on cpu: {len(registry)} kernels and the matrix product agree with NumPy"]


@pytest.mark.parametrize(
    ("name", "how", "word"),
    [
        ("relu", "off", "wrong    relu: differs by up to 1"),
        ("sigmoid", "nan", "wrong    sigmoid: gives numbers that are not finite"),
        ("momentum_sgd", "off", "wrong    momentum_sgd: 4 of 4 numbers differ"),
        ("gather", "off", "wrong    gather:"),
        ("row_sums", "fails", "wrong    row_sums: RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("gemm", "off", "wrong    gemm: differs"),
    ],
)
def test_a_kernel_that_is_wrong_is_named_and_no_other(name: str, how: str, word: str) -> None:
    said: list[str] = []
    assert not self_test(Wrong(name, how), said.append)
    assert said[0].startswith(word)
    assert len(said) == 2
    assert all("\n" not in line for line in said)


@pytest.mark.gpu
def test_the_kernels_of_this_gpu_agree_with_their_twins() -> None:
    said: list[str] = []
    assert self_test("cuda", said.append), said
