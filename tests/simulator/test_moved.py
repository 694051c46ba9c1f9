"""The bytes that kernels read and write: no more than they must, and as many as the model of a GPU counts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulated_cuda.core import Core
from support.paths import ROOT

from gpunn.kernels import registry
from simulator.test_kernels import Checked

Arrays = Callable[..., np.ndarray]
N = 64
"""Samples: so many that an array is larger than what the simulated CUDA takes for a cache."""


def numbers(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape).astype(dtype)


THREE, TWO, NARROW = (3, 3, 1, 1, 1, 1), (2, 2, 2, 2, 0, 0), (3, 3, 2, 2, 1, 1)
CALLS: dict[str, tuple[Any, ...]] = {
    "im2col": (numbers(2, 12, 12, N), 0, 12, THREE, numbers(18, 12 * 12 * N)),
    "im2col, the middle": (numbers(2, 24, 12, N), 8, 12, THREE, numbers(18, 8 * 12 * N)),
    "im2col, every other": (numbers(2, 13, 13, N), 0, 7, NARROW, numbers(18, 7 * 7 * N)),
    "col2im": (numbers(18, 12 * 12 * N), 0, 12, 12, 12, THREE, numbers(2, 12, 12, N)),
    "col2im, the middle": (numbers(18, 8 * 12 * N), 8, 8, 24, 12, THREE, numbers(2, 24, 12, N)),
    "max_pool": (numbers(4, 12, 12, N), TWO, numbers(4, 6, 6, N), numbers(4, 6, 6, N, dtype=np.uint8)),
    "max_pool_gradient": (numbers(4, 6, 6, N), numbers(4, 6, 6, N, dtype=np.uint8), TWO, numbers(4, 12, 12, N)),
    "average_pool": (numbers(4, 12, 12, N), TWO, True, numbers(4, 6, 6, N)),
    "average_pool_gradient": (numbers(4, 6, 6, N), TWO, True, numbers(4, 12, 12, N)),
    "mean_of_pixels": (numbers(8, 6, 6, N), numbers(8, N)),
    "normalize": (numbers(4, 12_000), *numbers(2, 4), 1e-3, 0.1, *numbers(4, 4), numbers(4, 12_000)),
    "bias_relu_and_moments": (
        numbers(4, 12_000), numbers(4), 0.1, *numbers(4, 4), numbers(96), np.zeros(4, np.uint32),
    ),
    "normalize_relu_gradient_and_sums": (
        *numbers(2, 4, 12_000), *numbers(3, 4), 1e-3, 1e-3, *numbers(2, 4), numbers(4, 12_000), numbers(4), numbers(48),
        np.zeros(4, np.uint32),
    ),
    "normalize_gradient": (*numbers(2, 4, 12_000), *numbers(3, 4), 1e-3, 1e-3, *numbers(2, 4), numbers(4, 12_000)),
}  # fmt: skip


@pytest.fixture(scope="module")
def backend(checked: Core) -> Checked:
    return Checked(checked)


@pytest.mark.parametrize("what", CALLS)
def test_a_kernel_moves_the_bytes_that_are_counted_and_hardly_more_than_it_must(
    backend: Checked, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from gpu_trace import node_of

    kernel, arguments = registry[what.partition(",")[0]], CALLS[what]
    node = node_of(kernel, arguments)
    backend.called(kernel, arguments, races=False)
    # Columns that lie in the padding are counted and not read.
    assert (0.85 if kernel.name == "col2im" else 0.98) <= backend.cuda.moved / node.moved <= 1.02
    assert node.moved <= 1.1 * node.needed
