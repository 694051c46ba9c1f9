"""The CUDA C++ that kernels share, by kernels of its own: on a device, and in every order of its threads."""

from typing import Any

import numpy as np
import pytest
from support.harness import call

from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.kernels.device_code import BLOCKS, DEVICE, LEAST, part_of_row, parts_of_row
from gpunn.kernels.record import Launch, Raw


def nothing(*_: Any) -> None: ...


def _raw(source: str, threads: int, blocks: Any = 1) -> Raw:
    """A kernel that is called `kernel` and given its arguments as they are."""
    return Raw(
        "kernel", f'extern "C" __global__ void {source}', host=nothing, preamble=DEVICE, is_listed=False,
        launch=lambda *arguments: Launch(blocks, threads, arguments),
    )  # fmt: skip


@pytest.fixture
def device() -> Backend:
    return select("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("threads", [32, 96, 128, 1024])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_a_block_adds_up_for_each_of_its_threads(device: Backend, dtype: str, threads: int) -> None:
    sums = """kernel(const T* x, T* y) {
        __shared__ T part[32];
        y[threadIdx.x] = block_sum(x[threadIdx.x], part) + block_sum(T(1), part);
    }"""
    x = np.arange(threads).astype(dtype)
    _, y = call(device, _raw(sums, threads), x, np.zeros_like(x))
    np.testing.assert_array_equal(y, x.sum() + threads)


EACH = """kernel(const T* x, const T* y, T* z, T* seen, unsigned begin, unsigned end) {
    const T* const from[2] = {x, y};
    T sum = T(0);
    each_into<AHEAD>(from, z, begin, end, [&](const T (&v)[2]) { sum += v[0]; return v[0] - v[1]; });
    T again = T(0);
    const T* const one[1] = {z};
    __syncthreads();
    each<AHEAD>(one, begin, end, [&](const T (&v)[1]) { again += v[0]; });
    seen[2 * threadIdx.x] = sum;
    seen[2 * threadIdx.x + 1] = again;
}"""


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("begin", "end"), [(0, 0), (0, 1), (0, 3), (0, 4), (0, 1024), (0, 1027), (4, 4), (4, 801), (1, 700), (3, 4)]
)
def test_each_element_is_used_once(device: Backend, begin: int, end: int, dtype: str, ahead: int) -> None:
    """From whichever element on, where the rest is shorter than 128 bits, and where addresses are not aligned."""
    kernel = _raw(EACH.replace("AHEAD", str(ahead)), 64)
    x, y = np.random.default_rng(0).integers(-9, 9, (2, 1100)).astype(dtype)
    for offset in (0, 1):  # of y: then the vectors of x are aligned alone
        given = [device.asarray(a) for a in (x, y, np.full_like(x, 7), np.zeros(128, dtype))]
        ends = np.uint32(begin), np.uint32(end)
        device.run(kernel, given[0][:1099], given[1][offset:], given[2], given[3], *ends)
        z, seen = device.to_host(given[2]), device.to_host(given[3])
        wanted = np.full_like(x, 7)
        wanted[begin:end] = x[begin:end] - y[begin + offset : end + offset]
        np.testing.assert_array_equal(z, wanted)
        assert seen[::2].sum() == x[begin:end].sum()
        assert seen[1::2].sum() == z[begin:end].sum()


@pytest.mark.gpu
def test_what_is_written_may_be_what_was_read(device: Backend) -> None:
    twice = """kernel(T* x, unsigned n) {
        const T* const from[1] = {x};
        each_into<4>(from, x, 0, n, [&](const T (&v)[1]) { return 2 * v[0]; });
    }"""
    x = np.arange(5001, dtype=np.float32)
    doubled, _ = call(device, _raw(twice, 64), x, np.uint32(x.size))
    np.testing.assert_array_equal(doubled, 2 * x)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000, 2**31 - 1])
@pytest.mark.parametrize("parts", [1, 2, 3, BLOCKS])
def test_parts_of_a_row_lie_end_to_end_and_begin_at_128_bits(device: Backend, n: int, parts: int) -> None:
    source = "kernel(T* out, unsigned size, unsigned n) { out[blockIdx.x] = part_begin(blockIdx.x, size, n); }"
    kernel = Raw(
        "kernel", f'extern "C" __global__ void {source}', host=nothing, preamble=DEVICE, is_listed=False,
        launch=lambda *arguments: Launch(parts + 1, 1, arguments),
    )  # fmt: skip
    at = call(device, kernel, np.zeros(parts + 1, np.int32), np.uint32(part_of_row(n, parts)), np.uint32(n))[0]
    assert (at[0], at[-1]) == (0, n)
    assert (np.diff(at) >= 0).all()
    assert (at[at < n] % 16 == 0).all()


LAST = """kernel(const T* x, T* parts, unsigned* tickets, T* y) {
    unsigned row = blockIdx.x, count = gridDim.y;
    parts[(row * count + blockIdx.y) * blockDim.x + threadIdx.x] = x[row * count + blockIdx.y] * (threadIdx.x + 1);
    if (!is_last_block(tickets + row, count)) return;
    T sum = T(0);
    for (int k = 0; k < count; ++k) sum += parts[(row * count + k) * blockDim.x + blockDim.x - 1 - threadIdx.x];
    y[row * blockDim.x + threadIdx.x] = sum;
}"""


@pytest.mark.gpu
def test_the_last_block_sees_what_the_others_wrote_and_the_next_launch_begins_anew(device: Backend) -> None:
    x = np.random.default_rng(0).integers(0, 99, (5, 7)).astype(np.float32)
    arrays = [device.asarray(a) for a in (x, np.zeros((35, 64), np.float32), np.zeros(5, np.uint32))]
    for _ in range(3):
        y = device.zeros((5, 64), np.float32)
        device.run(_raw(LAST, 64, (5, 7, 1)), *arrays, y)
        np.testing.assert_array_equal(device.to_host(y), x.sum(axis=1)[:, None] * np.arange(64, 0, -1))
        assert not device.to_host(arrays[2]).any()


def test_short_rows_have_a_block_each_and_long_ones_keep_a_device_busy() -> None:
    assert [parts_of_row(rows, LEAST) for rows in (1, 10, 100_000)] == [1, 1, 1]
    for rows in (1, 3, 20, 64, 264, 2000):
        for elements in (2**18, 2**22, 2**26):
            parts = parts_of_row(rows, -(-elements // rows))
            assert rows * parts >= min(264, BLOCKS)
            assert parts == 1 or rows * (parts - 1) < BLOCKS
