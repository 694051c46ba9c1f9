"""The backend: one matrix product, arrays, devices by name, and memory for a batch."""

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.harness import DTYPES, one_line, relative_error

from gpunn.backend import blas
from gpunn.backend import devices as module
from gpunn.backend.base import Backend, Buffer
from gpunn.backend.cpu import NumpyBackend
from gpunn.backend.devices import backend_of, cuda_trouble, select
from gpunn.errors import DeviceError, OptionError

SIZE = st.integers(1, 17)
TOLERANCE = {"float32": 1e-6, "float64": 1e-15}


@pytest.fixture(params=["BLAS", "matmul"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways that the CPU has, the one without OpenBLAS too."""
    if request.param == "matmul":
        monkeypatch.setattr(blas, "_library", lambda: None)
    return request.param


def by_hand(
    alpha: float, a: NDArray[np.generic], b: NDArray[np.generic], beta: float, c: NDArray[np.generic]
) -> NDArray[np.float64]:
    """c := alpha a b + beta c, sum by sum in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    products = (a[:, :, None] * b[None, :, :]).sum(axis=1)
    return alpha * products + (beta * c.astype(np.float64) if beta else 0.0)


def laid_out(rng: np.random.Generator, shape: tuple[int, int], dtype: str, layout: str) -> NDArray[np.generic]:
    """A matrix that lies in memory as itself, transposed, or as a part of a larger one either way."""
    rows, columns = shape
    if layout == "plain":
        return rng.normal(size=shape).astype(dtype)
    if layout == "transposed":
        return rng.normal(size=(columns, rows)).astype(dtype).T
    if layout == "part":
        return rng.normal(size=(rows + 2, columns + 3)).astype(dtype)[1:-1, 2:-1]
    return rng.normal(size=(columns + 2, rows + 3)).astype(dtype)[1:-1, 2:-1].T


LAYOUTS = st.sampled_from(["plain", "transposed", "part", "part transposed"])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=60)
@given(
    SIZE, SIZE, SIZE, LAYOUTS, LAYOUTS, st.sampled_from(["plain", "part"]),
    st.sampled_from([1.0, -0.5]), st.sampled_from([0.0, 1.0, 0.75]), st.integers(0, 99),
)  # fmt: skip
def test_gemm_takes_every_layout_and_factor(
    backend: Backend, dtype: str, m: int, k: int, n: int, of_a: str, of_b: str, of_c: str, alpha: float, beta: float,
    seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    a, b, c = laid_out(rng, (m, k), dtype, of_a), laid_out(rng, (k, n), dtype, of_b), laid_out(rng, (m, n), dtype, of_c)
    expected = by_hand(alpha, a, b, beta, c)
    terms = by_hand(abs(alpha), np.abs(a), np.abs(b), beta, np.abs(c))  # what rounding is measured by
    if backend.device == "cpu":
        backend.gemm(alpha, a, b, beta, c)
        result = c
    else:
        moved = [backend.asarray(x) if x.flags.c_contiguous else backend.asarray(x.T).T for x in (a, b)]
        target = backend.asarray(c)
        backend.gemm(alpha, *moved, beta, target)
        result = backend.to_host(target)
    assert (np.abs(result - expected) <= TOLERANCE[dtype] * terms).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 5, 1), (5, 1, 5), (1, 5, 5), (5, 5, 1), (1, 1, 5), (5, 1, 1), (9, 7, 8)]
)
def test_the_product_without_openblas_gives_the_same(product: str, dtype: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    for of_a in ("plain", "part transposed"):
        for beta in (0.0, 1.0, -0.25):
            rng = np.random.default_rng(m + k + n)
            a, b, c = (laid_out(rng, s, dtype, of_a if s == (m, k) else "plain") for s in ((m, k), (k, n), (m, n)))
            c = np.ascontiguousarray(c)
            expected = by_hand(1.5, a, b, beta, c)
            blas.gemm(1.5, a, b, beta, c)
            assert relative_error(c, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gemm_ignores_what_c_held_where_beta_is_zero(product: str, dtype: str) -> None:
    a, b, c = np.ones((3, 4), dtype), np.ones((4, 2), dtype), np.full((3, 2), np.nan, dtype)
    blas.gemm(1.0, a, b, 0.0, c)
    np.testing.assert_array_equal(c, 4.0)


def test_gemm_writes_nothing_beside_its_part_of_an_array(product: str) -> None:
    whole = np.full((6, 7), 9.0)
    blas.gemm(1.0, np.ones((3, 2)), np.ones((2, 4)), 0.0, whole[1:4, 2:6])
    expected = np.full((6, 7), 9.0)
    expected[1:4, 2:6] = 2.0
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(
    ("a", "b", "c"),
    [
        (np.ones((3, 4)), np.ones((5, 2)), np.ones((3, 2))),
        (np.ones((3, 4)), np.ones((4, 2)), np.ones((2, 3))),
        (np.ones((3, 4)), np.ones((4, 2)), np.ones((4, 3, 2))[0, :, :1]),
        (np.ones((1, 4)), np.ones((4, 2)), np.ones((3, 2))),
        (np.ones((3, 4), np.float32), np.ones((4, 2)), np.ones((3, 2))),
        (np.ones((3, 4)), np.ones((4, 2)), np.ones((3, 2), np.float32)),
        (np.ones((3, 4), np.int32), np.ones((4, 2), np.int32), np.ones((3, 2), np.int32)),
        (np.ones((3, 4)), np.ones((4, 2)), np.ones((2, 3)).T),
        (np.ones((3, 4)), np.ones((4, 2)), np.ones((3, 2))[::-1]),
        (np.ones((3, 4)), np.ones((4, 2)), np.broadcast_to(np.ones(2), (3, 2))),
    ],
)
def test_gemm_refuses_what_does_not_fit(
    product: str, a: NDArray[np.generic], b: NDArray[np.generic], c: NDArray[np.generic]
) -> None:
    before = c.copy()
    with pytest.raises(ValueError, match="gemm cannot write"):
        blas.gemm(1.0, a, b, 0.0, c)
    np.testing.assert_array_equal(c, before)


@pytest.mark.parametrize(
    "a",
    [np.ones((6, 8))[::2, ::2], np.ones((3, 4))[::-1], np.ones((3, 4))[:, ::-1], np.broadcast_to(np.ones(4), (3, 4))],
)
def test_gemm_refuses_strides_that_blas_does_not_know(a: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="contiguous rows or columns"):
        blas.gemm(1.0, a, np.ones((4, 2)), 0.0, np.ones((3, 2)))
    with pytest.raises(ValueError, match="contiguous rows or columns"):
        blas.gemm(1.0, np.ones((2, 4)), a.T, 0.0, np.ones((2, 3)))


@pytest.mark.parametrize("a", [np.broadcast_to(np.ones(1), (3, 1)), np.ones((3, 1))[::-1]])
def test_gemm_refuses_a_column_that_blas_cannot_walk(a: NDArray[np.generic]) -> None:
    c = np.full((3, 2), np.nan)
    with pytest.raises(ValueError, match="contiguous rows or columns"):
        blas.gemm(1.0, a, np.ones((1, 2)), 0.0, c)
    assert np.isnan(c).all()


@pytest.mark.parametrize("product_of", ["column", "row"])
def test_gemm_takes_one_column_or_row_of_a_larger_array(product: str, product_of: str) -> None:
    whole = np.arange(12.0).reshape(3, 4)
    a, b = (whole[:, 1:2], np.ones((1, 2))) if product_of == "column" else (np.ones((2, 1)), whole[:, 1:2].T)
    c = np.full((len(a), b.shape[1]), np.nan)
    blas.gemm(1.0, a, b, 0.0, c)
    expected = np.outer([1, 5, 9], [1, 1])
    np.testing.assert_array_equal(c, expected if product_of == "column" else expected.T)


def test_nan_in_a_product_is_seen(backend: Backend) -> None:
    a = np.ones((3, 4))
    a[1, 2] = np.nan
    c = backend.zeros((3, 2), np.float64)
    backend.gemm(1.0, backend.asarray(a), backend.asarray(np.ones((4, 2))), 0.0, c)
    np.testing.assert_array_equal(np.isnan(backend.to_host(c)), [[False] * 2, [True] * 2, [False] * 2])


def test_the_blas_in_use_is_named() -> None:
    assert "OpenBLAS" in blas.description()
    assert blas.threads() >= 1


def test_without_openblas_the_description_says_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_library", lambda: None)
    assert "matmul" in blas.description()


# Arrays


def test_arrays_go_to_a_device_and_come_back(backend: Backend) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    array = backend.asarray(values.T)
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(backend.to_host(array), values.T)
    assert backend.asarray(values, np.float64).dtype == np.float64
    assert backend.empty((2, 3), np.int32).shape == (2, 3)
    assert not backend.to_host(backend.zeros((2, 3), np.float32)).any()


@pytest.mark.parametrize("dtype", ["uint8", *DTYPES])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (784, 129)])
def test_arrays_of_the_cpu_begin_where_a_cache_line_does(dtype: str, shape: tuple[int, ...]) -> None:
    backend, kept = select("cpu"), []
    for _ in range(20):
        zeros, array = backend.zeros(shape, dtype), backend.empty(shape, dtype)
        kept += [zeros, array]
        assert not zeros.any()
        for each in (zeros, array):
            assert (each.shape, each.dtype) == (shape, dtype)
            assert each.flags.carray
            assert each.ctypes.data % 64 == 0 or not each.size
    for number, each in enumerate(kept):
        each[...] = number
    for number, each in enumerate(kept):
        assert (each == number).all()


@pytest.mark.parametrize("shape", [(1 << 62,), (1 << 40, 1 << 40), (1 << 31, 1 << 31, 1 << 31), ((1 << 60) + 1,)])
def test_an_array_beyond_all_memory_is_refused_as_memory_that_ran_out(backend: Backend, shape: tuple[int, ...]) -> None:
    for make in (backend.empty, backend.zeros):
        with pytest.raises(backend.memory_error):
            make(shape, np.float32)


@pytest.mark.gpu
def test_what_a_stream_of_the_callers_own_computes_is_waited_for() -> None:
    backend = select("cuda")
    with backend.cupy.cuda.Stream(non_blocking=True):
        values = backend.cupy.full((3, 4), 3, np.float32)
        moved = backend.asarray(values.T)
        assigned = backend.zeros((3, 4), np.float32)
        backend.assign(assigned, values, 2.0)
    np.testing.assert_array_equal(backend.to_host(moved), np.full((4, 3), 3))
    np.testing.assert_array_equal(backend.to_host(assigned.T), np.full((4, 3), 6))


@pytest.mark.gpu
def test_a_bound_of_memory_is_that_of_the_device_whatever_the_precision() -> None:
    backend = select("cuda")
    pool = backend.cupy.get_default_memory_pool()
    select("cuda", "tf32").limit_memory(2**30)
    assert pool.get_limit() == 2**30
    backend.limit_memory(None)
    assert pool.get_limit() == 0


def test_a_host_copy_does_not_change_with_its_array(backend: Backend) -> None:
    array = backend.zeros((3,), np.float32)
    host = backend.to_host(array)
    backend.assign(array, 1.0)
    np.testing.assert_array_equal(host, 0.0)
    np.testing.assert_array_equal(backend.to_host(array), 1.0)
    backend.assign(array, np.array([1, 2, 3], np.float64))
    np.testing.assert_array_equal(backend.to_host(array), [1, 2, 3])


def test_an_array_knows_its_backend(backend: Backend) -> None:
    assert backend_of(backend.zeros((1,), np.float32)) is backend


def test_a_device_has_one_backend_for_each_precision_and_one_stream(backend: Backend) -> None:
    """Two streams of a device have no order between them: one would read what the other has not written yet."""
    assert select(backend.device) is select(device=backend.device, precision="float32") is backend
    if backend.device != "cpu":
        rounded = select(backend.device, "tf32")
        assert rounded is select(backend.device, precision="tf32") is not backend
        assert rounded.stream is backend.stream
        assert rounded.lock is backend.lock


def test_threads_that_ask_at_once_are_given_one_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    all_asking = threading.Barrier(2, timeout=0.2)

    class Slow(NumpyBackend):
        def __init__(self) -> None:
            with suppress(threading.BrokenBarrierError):  # nobody else comes where one waits for the other
                all_asking.wait()

    monkeypatch.setattr(module, "NumpyBackend", Slow)
    monkeypatch.setattr(module, "_made", cache(module._made.__wrapped__))
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(select, ["cpu", "cpu"])
    assert one is other


def test_a_backend_describes_its_device(backend: Backend) -> None:
    backend.synchronize()
    assert backend.free_bytes() > 0
    assert backend.description
    assert select(backend.device).reason == "asked for"


def test_a_short_batch_is_a_stretch_of_the_same_memory(backend: Backend) -> None:
    buffer = Buffer(backend, (3, 2), 5, np.float32)
    assert buffer.nbytes == 3 * 2 * 5 * 4
    full, short = buffer[5], buffer[2]
    assert full.shape == (3, 2, 5)
    assert short.shape == (3, 2, 2)
    assert short.flags.c_contiguous
    backend.assign(full, np.arange(30).reshape(3, 2, 5))
    np.testing.assert_array_equal(backend.to_host(short).ravel(), np.arange(12))
    assert buffer[2] is short


# Devices by name


def test_the_cpu_is_taken_when_asked_for() -> None:
    backend = select("cpu")
    assert (backend.device, backend.reason) == ("cpu", "asked for")
    assert backend is select("cpu")
    assert "NumPy" in backend.description


@pytest.mark.parametrize("device", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1.5", "cuda1", None, 3])
def test_an_unknown_device_is_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(OptionError, match=r"unknown device .*expected auto, cpu, cuda or cuda:N"):
        select(device)


def test_the_cpu_has_one_precision() -> None:
    with pytest.raises(OptionError, match="precision 'tf32' needs a CUDA device, and this is cpu: take float32"):
        select("cpu", "tf32")


def test_a_batch_of_more_numbers_than_kernels_count_is_refused_before_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []
    backend = NumpyBackend()
    monkeypatch.setattr(backend, "most_elements", 1000)
    monkeypatch.setattr(backend, "empty", lambda *size: taken.append(size))
    Buffer(backend, (10, 10), 10, "float32")
    with pytest.raises(OptionError, match="11 samples of 100 numbers are 1,100: take batches of at most 10") as caught:
        Buffer(backend, (10, 10), 11, "float32")
    assert "\n" not in one_line(caught.value)
    assert len(taken) == 1


def test_an_unknown_precision_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match="unknown precision 'half': expected float32, tf32, bfloat16, float16"):
        select("cpu", "half")


def test_auto_says_why_it_took_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.backend.devices.cuda_trouble", lambda index=0: "the driver is missing")
    backend = select("auto")
    assert (backend.device, backend.reason) == ("cpu", "no CUDA: the driver is missing")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_cuda_device_that_is_not_there_is_refused_with_the_reason(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpunn.backend.devices.cuda_trouble", lambda index=0: f"no device {index}")
    with pytest.raises(DeviceError) as caught:
        select(device)
    assert f"no device {int(device == 'cuda:1')}" in one_line(caught.value)
    assert "cpu" in one_line(caught.value)


def test_whether_cuda_can_be_used_is_said_in_one_line_at_most() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns at import of what it does not find
        assert "\n" not in cuda_trouble(0)
