"""Products that are planned once: the same numbers as `gemm`, whatever arrays come."""

import itertools
import os
import subprocess
import sys
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.harness import DTYPES

from gpunn.backend import blas
from gpunn.backend.base import Backend, PlannedGemm


def drawn(backend: Backend, *shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return backend.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", ["", "a", "b"])
def test_a_planned_product_is_that_of_gemm_to_the_bit(backend: Backend, transposed: str, dtype: str) -> None:
    a = drawn(backend, *((5, 3) if transposed == "a" else (3, 5)), dtype=dtype)
    b = drawn(backend, *((4, 5) if transposed == "b" else (5, 4)), dtype=dtype, seed=1)
    expected, c = (drawn(backend, 3, 4, dtype=dtype, seed=2) for _ in range(2))
    product = PlannedGemm(backend, transposed)
    for alpha, beta in ((1.0, 0.0), (-0.5, 0.75), (2.0, 1.0)):
        backend.gemm(alpha, a.T if transposed == "a" else a, b.T if transposed == "b" else b, beta, expected)
        product(alpha, a, b, beta, c)
        np.testing.assert_array_equal(backend.to_host(c), backend.to_host(expected))


def test_a_planned_product_sees_new_values_and_new_arrays(backend: Backend) -> None:
    product = PlannedGemm(backend)
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


@st.composite
def many_products(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Sizes (m, k, n) of a few products, among them some on both sides of what OpenBLAS calls small."""
    small = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
    large = st.tuples(st.integers(1, 130), st.integers(90, 130), st.integers(90, 130))
    return draw(st.lists(st.one_of(small, large), min_size=1, max_size=6))


@settings(deadline=None, max_examples=60)
@given(sizes=many_products(), transposed=st.sampled_from(["", "a", "b"]), dtype=st.sampled_from(DTYPES))
@example(sizes=[(100, 100, 100)] * 3, transposed="", dtype="float32")
@example(sizes=[(101, 100, 100)] * 3, transposed="", dtype="float32")
@example(sizes=[(1, 1001, 1000), (1000, 1001, 1), (1000, 2, 1000)], transposed="b", dtype="float64")
def test_many_products_in_one_call_are_those_of_one_after_another(
    backend: Backend, sizes: list[tuple[int, int, int]], transposed: str, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    left, right, results, expected = [], [], [], []
    for m, k, n in sizes:
        a = backend.asarray(rng.standard_normal((k, m) if transposed == "a" else (m, k)), dtype)
        b = backend.asarray(rng.standard_normal((n, k) if transposed == "b" else (k, n)), dtype)
        left.append(a.T if transposed == "a" else a)
        right.append(b.T if transposed == "b" else b)
        wider = backend.asarray(rng.standard_normal((m, n + 3)), dtype)
        results.append(wider[:, 1 : n + 1])
        expected.append(backend.to_host(wider))
    products = blas.planned_all(left, right, results) if backend.device == "cpu" else None
    for alpha, beta in ((1.0, 0.0), (-0.5, 0.75)):
        for a, b, c in zip(left, right, expected, strict=True):
            c[:, 1:-2] = alpha * (backend.to_host(a) @ backend.to_host(b)) + beta * c[:, 1:-2]
        if products is not None:
            products(alpha, beta)
        else:  # only the CPU has a call for many
            for factors in zip(left, right, results, strict=True):
                backend.gemm(alpha, *factors[:2], beta, factors[2])
    bound = {"float32": 1e-5, "float64": 1e-13}[dtype]
    for (m, k, n), c, want in zip(sizes, results, expected, strict=True):
        whole = backend.to_host(c.base if isinstance(c, np.ndarray) else c)
        shown = want if whole.shape == (m, n + 3) else want[:, 1:-2]
        np.testing.assert_allclose(whole, shown, rtol=bound, atol=bound * k)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), [(30, 784, 128), (30, 128, 784), (101, 200, 151), (128, 784, 64), (7, 3, 9)])
def test_a_product_is_the_same_in_however_many_parts(
    monkeypatch: pytest.MonkeyPatch, m: int, k: int, n: int, dtype: str, threads: int
) -> None:
    library = blas._library()
    if library is None:
        pytest.skip("NumPy came without OpenBLAS")
    monkeypatch.setattr(blas, "_library", lambda: library._replace(threads=lambda: threads))
    rng = np.random.default_rng(0)
    a, b, wider = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (m, n + 2)))
    expected = wider.copy()
    expected[:, 1:-1] = 2 * (a @ b) - 0.5 * wider[:, 1:-1]
    blas.gemm(2.0, a, b, -0.5, wider[:, 1:-1])
    bound = {"float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(wider, expected, rtol=bound, atol=bound * k)


def test_products_are_cut_along_their_longer_side_into_parts_that_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = with_batches()
    monkeypatch.setattr(blas, "cores", lambda: 64)

    def widths(m: int, k: int, n: int, threads: int) -> list[int]:
        return [part.stop - part.start for part in blas._parts(m, n, k, library._replace(threads=lambda: threads))]

    assert widths(30, 784, 128, 2) == [64, 64]
    assert widths(30, 784, 128, 16) == [64, 64]  # thirds would be small
    assert widths(100, 128, 784, 16) == [87, 87, 87, 87, 87, 87, 87, 87, 88]
    assert widths(256, 784, 128, 16) == [51, 51, 51, 51, 52]
    assert widths(784, 30, 128, 2) == [392, 392]
    assert widths(512, 512, 128, 2) == [256, 256]
    assert widths(30, 784, 128, 1) == [128]
    assert widths(10, 30, 128, 2) == [128]
    assert widths(30, 600, 100, 2) == [100]
    assert widths(30, 300, 100, 2) == [50, 50]  # not for two threads, but such as OpenBLAS leaves to one
    assert widths(1, 600_000, 1, 2) == [1]
    monkeypatch.setattr(blas, "cores", lambda: 3)
    assert widths(100, 128, 784, 16) == [261, 261, 262]


def with_batches() -> blas._Library:
    library = blas._library()
    if library is None or not library.batch:
        pytest.skip("NumPy's BLAS has no batches of products")
    return library


class Free:
    """A machine on which others leave so many cores."""

    def __init__(self, *counts: int) -> None:
        self._counts = itertools.cycle(counts)

    def free(self) -> int:
        return next(self._counts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "k", "n"), [(30, 784, 128), (128, 784, 128), (512, 784, 128), (64, 64, 128), (65, 500, 77), (700, 701, 702)]
)
def test_a_busy_machine_changes_no_bit(monkeypatch: pytest.MonkeyPatch, m: int, k: int, n: int, dtype: str) -> None:
    with_batches()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    results = []
    for free in (Free(2), Free(1), Free(1, 2)):
        monkeypatch.setattr(blas, "load_monitor", free)
        c = np.ones((m, n), dtype)
        product = blas.planned(a, b, c)
        for _ in range(3):
            product(0.5, 0.5)
        results.append(c.tobytes())
    assert results[0] == results[1] == results[2]


def recorded(monkeypatch: pytest.MonkeyPatch, threads: int) -> tuple[list[int], list[int]]:
    """Let BLAS compute nothing: the products in each batch, and the m n k of each product that is none of a batch."""
    library, batches, alone = with_batches(), [], []
    monkeypatch.setattr(blas, "cores", lambda: threads)

    def batch(*arguments: Any) -> None:
        batches.append(arguments[-2].value)

    def product(*arguments: Any) -> None:
        alone.append(prod(argument.value for argument in arguments[3:6]))

    recording = {"batch": {4: batch, 8: batch}, "gemm": {4: product, 8: product}}
    changed = library._replace(threads=lambda: threads, **recording)
    monkeypatch.setattr(blas, "_library", lambda: changed)
    return batches, alone


@pytest.mark.parametrize(("free", "calls"), [(9, [4]), (4, [4]), (3, [2, 2]), (2, [2, 2]), (1, [1, 1, 1, 1])])
def test_no_more_parts_at_once_than_others_leave_cores(
    monkeypatch: pytest.MonkeyPatch, free: int, calls: list[int]
) -> None:
    """OpenBLAS takes as many threads as a batch has products."""
    batches, alone = recorded(monkeypatch, 4)
    monkeypatch.setattr(blas, "load_monitor", Free(free))
    blas.planned(np.ones((200, 784)), np.ones((784, 128)), np.ones((200, 128)))(1.0, 0.0)
    assert batches == calls
    assert alone == []


@settings(deadline=None, max_examples=60)
@given(m=st.integers(1, 300), k=st.integers(1, 3000), n=st.integers(1, 300))
@example(m=100, k=784, n=10)
@example(m=64, k=64, n=128)
@example(m=100, k=100, n=100)
@example(m=3, k=100_000, n=3)
def test_a_product_is_left_to_openblas_only_where_it_takes_one_thread(m: int, k: int, n: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        batches, alone = recorded(monkeypatch, 2)
        monkeypatch.setattr(blas, "load_monitor", Free(1))
        blas.gemm(1.0, np.ones((m, k)), np.ones((k, n)), 0.0, np.ones((m, n)))
    assert set(batches) <= {1}
    assert all(size < 2**19 for size in alone)
    assert bool(batches) == (m * k * n > 100**3)


def test_python_threads_that_multiply_at_once_take_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, _ = recorded(monkeypatch, 2)
    monkeypatch.setattr(blas, "load_monitor", Free(2))
    factors = np.ones((200, 784)), np.ones((784, 128)), np.ones((200, 128))
    product = blas.planned(*factors)
    monkeypatch.setattr(blas, "_computing", {-1})  # another one is inside
    product(1.0, 0.0)
    assert batches == [1, 1]
    assert blas._computing == {-1}
    blas._computing.clear()  # it has left
    product(1.0, 0.0)
    assert batches == [1, 1, 2]


def test_an_interrupted_product_leaves_the_threads_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    library = with_batches()

    def interrupted(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(blas, "_library", lambda: library._replace(batch={8: interrupted}))
    with pytest.raises(KeyboardInterrupt):
        blas.gemm(1.0, np.ones((200, 784)), np.ones((784, 128)), 0.0, np.ones((200, 128)))
    assert blas._computing == set()


@pytest.mark.parametrize("size", [0, 1, 100_000, 100_001, 670_000])
def test_a_sum_too_is_of_one_thread(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    library, sizes = with_batches(), []

    def dasum(count: Any, *others: Any) -> float:
        sizes.append(count.value)
        return library.asum[8](count, *others)

    monkeypatch.setattr(blas, "_library", lambda: library._replace(asum={8: dasum}))
    x = np.full(size, -0.5)
    assert blas.planned_magnitude(x)() == size / 2
    assert max(sizes, default=0) <= 100_000
    if size:
        x[-1] = np.nan
        assert np.isnan(blas.planned_magnitude(x)())


@pytest.mark.parametrize(("setting", "said"), [("1", "1 thread"), ("2", "up to 2 threads"), ("", "up to 2 threads")])
def test_the_threads_asked_for_are_the_most(setting: str, said: str) -> None:
    with_batches()
    code = "from gpunn.backend import blas; from gpunn.kernels import cores; print(cores.cores(), blas.description())"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"OPENBLAS_NUM_THREADS": setting} if setting else {}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    count, description = answer.stdout.strip().split(" ", 1)
    if count == "1":
        said = "1 thread"
    elif not setting:
        said = f"up to {count} threads"
    assert description.endswith(f", {said}")


def test_no_more_threads_than_the_container_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    with_batches()
    monkeypatch.setattr(blas, "cores", lambda: 1)
    assert blas.threads() == 1
    assert blas.description().endswith(", 1 thread")


@pytest.mark.parametrize(
    ("m", "n", "part"),
    [(30, 128, (30, 64)), (128, 30, (64, 30)), (128, 128, (128, 64))],  # a square between columns
)
def test_it_is_the_longer_side_that_is_cut(
    monkeypatch: pytest.MonkeyPatch, m: int, n: int, part: tuple[int, int]
) -> None:
    library = with_batches()
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(blas, "_library", lambda: library._replace(threads=lambda: 2))
    monkeypatch.setattr(blas, "planned_all", lambda a, b, c: shapes.extend(each.shape for each in c))
    blas.planned(np.empty((m, 784)), np.empty((784, n)), np.empty((m, n)))
    assert shapes == [part, part]


def test_many_products_are_checked_each() -> None:
    fits, fits_not = np.ones((3, 3)), np.ones((3, 2))
    with pytest.raises(ValueError, match="gemm cannot write"):
        blas.planned_all([fits, fits_not], [fits, fits], [np.ones((3, 3)), np.ones((3, 3))])


def test_many_products_without_openblas_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_library", lambda: None)
    c = [np.ones((2, 2)), np.ones((2, 2))]
    blas.planned_all([np.eye(2), 2 * np.eye(2)], [np.ones((2, 2))] * 2, c)(1.0, 1.0)
    assert [x.tolist() for x in c] == [[[2, 2], [2, 2]], [[3, 3], [3, 3]]]
