"""The simulator itself: what a kernel does wrong is caught, what it does right is not."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gpunn.backend import cuda_source
from gpunn.kernels import registry
from simulator.compiler import CompilerError, Program, missing_compiler, raw_program
from simulator.launching import KernelError, ScalarArgument, Scheduling, array_argument, launch
from simulator.memory import is_poisoned, poison, unset

ROW_SUMS = cuda_source(registry["row_sums"], {"T": np.dtype(np.float32)})
BARRIERS = ["    part[threadIdx.x] = sum;\n    __syncthreads();", "half];\n        __syncthreads();"]


def run(
    source: str | Program,
    *arguments: Any,
    blocks: Sequence[int] = (1,),
    threads: Sequence[int] = (64,),
    schedules: int = 8,
    races: bool = True,
) -> None:
    """Run a kernel called `kernel` in several orders; arrays are as they were left by the order before."""
    program = source if isinstance(source, Program) else raw_program(f'extern "C" __global__ void {source}', "kernel")
    packed = [
        array_argument(p.name, a, not p.is_const) if isinstance(a, np.ndarray) else ScalarArgument(a)
        for p, a in zip(program.parameters, arguments, strict=True)
    ]
    scheduling = Scheduling(races=races)
    for _ in range(schedules):
        launch(program, blocks, threads, packed, scheduling)


def sums(source: str, x: np.ndarray, schedules: int = 8, races: bool = True) -> np.ndarray:
    total = unset((len(x),), np.float32)
    program = raw_program(source, "row_sums")
    run(program, x, total, np.int32(x.shape[1]), blocks=(len(x),), threads=(128,), schedules=schedules, races=races)
    return total


X = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32)


# Barriers


@pytest.mark.parametrize("barrier", BARRIERS)
@pytest.mark.parametrize("schedule", range(8))
def test_a_removed_barrier_is_caught_under_every_schedule(barrier: str, schedule: int) -> None:
    assert ROW_SUMS.count(barrier) == 1
    program = raw_program(ROW_SUMS.replace(barrier, barrier.replace("__syncthreads();", "")), "row_sums")
    arguments = [
        array_argument("x", X, False),
        array_argument("total", unset((3,), np.float32), True),
        ScalarArgument(np.int32(300)),
    ]
    with pytest.raises(KernelError, match=r"row_sums, schedule \d: block .*(race: it|reads element \d+ of `part`)"):
        launch(program, (3,), (128,), arguments, Scheduling(seed=schedule))


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_removed_barrier_is_caught_by_its_numbers_too_where_races_are_not_looked_for(barrier: str) -> None:
    """In most orders: that is what the orders are for where a kernel is too large for a look at every access."""
    program, caught = ROW_SUMS.replace(barrier, barrier.replace("__syncthreads();", "")), 0
    for schedule in range(16):
        total = unset((3,), np.float32)
        arguments = [array_argument("x", X, False), array_argument("total", total, True), ScalarArgument(np.int32(300))]
        try:
            launch(raw_program(program, "row_sums"), (3,), (128,), arguments, Scheduling(seed=schedule, races=False))
            caught += not np.allclose(total, X.sum(axis=1), rtol=1e-4)
        except KernelError:
            caught += 1
    assert caught >= 10


def test_a_kernel_as_it_is_meant_is_right_under_every_schedule() -> None:
    np.testing.assert_allclose(sums(ROW_SUMS, X, schedules=100), X.sum(axis=1), rtol=1e-5)


def test_a_barrier_that_not_all_threads_reach_is_caught() -> None:
    with pytest.raises(
        KernelError, match="barrier divergence: 10 of 64 threads wait at __syncthreads, the others have"
    ):
        run("kernel(float* x) { if (threadIdx.x < 10) __syncthreads(); x[threadIdx.x] = 1.0f; }", np.zeros(64, "f4"))


def test_two_barriers_of_two_branches_are_caught() -> None:
    with pytest.raises(KernelError, match="barrier divergence: threads of a block wait at different __syncthreads"):
        run("kernel(int n) { if (threadIdx.x < n) { __syncthreads(); } else { __syncthreads(); } }", np.int32(10))


def test_a_warp_function_that_a_named_lane_does_not_reach_is_caught() -> None:
    with pytest.raises(KernelError, match="warp divergence: lane 31 has ended"):
        run(
            "kernel(int* x) { if (threadIdx.x % 32 < 31) x[threadIdx.x] = __ballot_sync(0xffffffffu, 1); }",
            np.zeros(64, "i4"),
        )


def test_a_deadlock_is_caught() -> None:
    source = "kernel() { if (threadIdx.x == 0) __syncwarp(); else __syncthreads(); }"
    with pytest.raises(KernelError, match="deadlock: no thread of the block can go on"):
        run(source)


# Memory


def test_a_write_out_of_bounds_is_caught_and_says_which() -> None:
    x = np.zeros(100, np.float32)
    with pytest.raises(
        KernelError, match=r"thread \(\d+, 0, 0\): writes element 1\d\d of `x`, which has 100: out of bounds"
    ):
        run("kernel(float* x) { x[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f; }", x, blocks=(2,))


@pytest.mark.parametrize(("expression", "element"), [("x[-1]", "-1"), ("*(x + 100)", "100"), ("(x + 50)[60]", "110")])
def test_a_read_out_of_bounds_is_caught(expression: str, element: str) -> None:
    with pytest.raises(KernelError, match=f"reads element {element} of `x`, which has 100"):
        run(
            f"kernel(const float* x, float* y) {{ y[0] = {expression}; }}",
            np.zeros(100, "f4"),
            np.zeros(1, "f4"),
            threads=(1,),
        )


def test_the_bounds_are_those_of_the_view_not_of_the_memory_round_it() -> None:
    memory = np.zeros((10, 10), np.float32)
    with pytest.raises(KernelError, match="writes element 20 of `x`, which has 20"):
        run("kernel(float* x) { x[20] = 1.0f; }", memory[2:4], threads=(1,))
    assert not memory.any()


def test_an_index_outside_of_a_shared_or_a_local_array_is_caught() -> None:
    with pytest.raises(KernelError, match="index 64 of shared array `part` lies outside of 64"):
        run("kernel() { __shared__ float part[64]; part[threadIdx.x + 1] = 1.0f; }")
    with pytest.raises(KernelError, match="index 4 of shared array `tile` lies outside of 4"):
        run("kernel(int i) { __shared__ float tile[8][4]; tile[0][i] = 1.0f; }", np.int32(4))
    with pytest.raises(KernelError, match="index outside of a local array"):
        run("kernel(int i) { int four[4] = {0, 0, 0, 0}; four[i] += 1; }", np.int32(4))


def test_memory_that_was_never_written_is_caught_when_it_is_read() -> None:
    for dtype, name in ((np.float32, "float"), (np.float64, "double"), (np.int32, "int")):
        with pytest.raises(KernelError, match=r"reads element \d+ of `x`, which was never written"):
            run(
                f"kernel(const {name}* x, {name}* y) {{ y[threadIdx.x] = x[threadIdx.x]; }}",
                unset((64,), dtype),
                np.zeros(64, dtype),
            )
    with pytest.raises(KernelError, match="reads element 3 of `part`, which was never written"):
        run("kernel(float* x) { __shared__ float part[4]; x[0] = part[3]; }", np.zeros(1, "f4"), threads=(1,))


def test_shared_memory_of_one_block_is_unset_again_for_the_next() -> None:
    source = "kernel(float* x) { __shared__ float s[1]; if (blockIdx.x == 0) s[0] = 1.0f; x[blockIdx.x] = s[0]; }"
    with pytest.raises(KernelError, match="never written"):
        run(source, np.zeros(2, "f4"), blocks=(2,), threads=(1,))


def test_poison_is_found_where_it_is_and_nowhere_else() -> None:
    x = np.array([0.0, np.nan, np.inf, 1.0])
    assert not is_poisoned(x)
    poison(x[1:2])
    assert is_poisoned(x)
    assert is_poisoned(unset((3,), np.float32))


# Races


def test_two_blocks_that_write_one_element_are_a_race() -> None:
    with pytest.raises(KernelError, match="race: it writes element 0 of `x`, which thread 0 of a block wrote"):
        run("kernel(float* x) { x[threadIdx.x] = 1.0f; }", np.zeros(64, "f4"), blocks=(2,))


def test_a_thread_that_reads_what_its_neighbour_writes_is_a_race() -> None:
    with pytest.raises(KernelError, match=r"race: it (reads|writes) element \d+ of `x`"):
        run("kernel(float* x) { x[threadIdx.x] = x[(threadIdx.x + 1) % 64]; }", np.zeros(64, "f4"))


def test_two_arguments_with_one_memory_race_too() -> None:
    x = np.zeros(65, np.float32)
    with pytest.raises(KernelError, match="race"):
        run("kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }", x[:64], x[1:])


def test_a_barrier_orders_and_a_thread_may_do_with_its_own_what_it_likes() -> None:
    x = np.zeros(64, np.float32)
    run(
        "kernel(float* x) { x[threadIdx.x] += 1.0f; __syncthreads(); float v = x[63 - threadIdx.x];"
        " __syncthreads(); x[threadIdx.x] = v; }",
        x,
    )
    np.testing.assert_array_equal(x, 8)


def test_a_warp_barrier_orders_its_warp_and_a_shuffle_does_not() -> None:
    source = (
        "kernel(float* x) {{ __shared__ float s[64]; s[threadIdx.x] = threadIdx.x; {}"
        " x[threadIdx.x] = s[threadIdx.x ^ {}]; }}"
    )
    x = np.zeros(64, np.float32)
    run(source.format("__syncwarp();", 5), x)
    np.testing.assert_array_equal(x, np.arange(64) ^ 5)
    for between, lanes in (("__shfl_sync(0xffffffffu, 1, 0);", 5), ("__syncwarp();", 32)):
        with pytest.raises(KernelError, match=r"race|never written"):
            run(source.format(between, lanes), x)


# What CUDA has


def test_indices_count_in_three_dimensions() -> None:
    out = np.full((2, 3, 2, 4, 3, 2), -1, np.int32)  # blocks z y x, threads z y x
    run(
        "kernel(int* out) {"
        " int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;"
        " int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;"
        " out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread; }",
        out,
        blocks=(2, 3, 2),
        threads=(2, 3, 4),
    )
    np.testing.assert_array_equal(out.reshape(12, 24), np.arange(12)[:, None] * 1000 + np.arange(24))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("__shfl_sync(all, v, 5)", lambda i: i // 32 * 32 + 5),
        ("__shfl_sync(all, v, 3, 8)", lambda i: i // 8 * 8 + 3),
        ("__shfl_down_sync(all, v, 4)", lambda i: i + 4 if i % 32 < 28 else i),
        ("__shfl_down_sync(all, v, 2, 4)", lambda i: i + 2 if i % 4 < 2 else i),
        ("__shfl_up_sync(all, v, 3)", lambda i: i - 3 if i % 32 >= 3 else i),
        ("__shfl_xor_sync(all, v, 16)", lambda i: i ^ 16),
        ("__ballot_sync(all, threadIdx.x % 3 == 0)", lambda i: sum((k % 3 == i // 32 % 3) << k for k in range(32))),
        ("__any_sync(all, threadIdx.x == 40)", lambda i: i >= 32),
        ("__all_sync(all, threadIdx.x < 40)", lambda i: i < 32),
        ("__syncthreads_count(threadIdx.x < 7)", lambda i: 7),
        ("__syncthreads_or(threadIdx.x == 9)", lambda i: 1),
        ("__syncthreads_and(threadIdx.x != 9)", lambda i: 0),
    ],
)  # fmt: skip
def test_warps_and_blocks_exchange_as_the_programming_guide_says(call: str, expected: Any) -> None:
    out = np.zeros(64, np.uint32)
    run(f"kernel(unsigned* out) {{ unsigned all = 0xffffffffu, v = threadIdx.x; out[threadIdx.x] = {call}; }}", out)
    np.testing.assert_array_equal(out, [int(expected(i)) for i in range(64)])


def test_a_warp_reduction_by_shuffles_is_right_in_float32_and_float64() -> None:
    for dtype, name in ((np.float32, "float"), (np.float64, "double")):
        x, out = np.random.default_rng(1).normal(size=64).astype(dtype), np.zeros(2, dtype)
        run(
            f"kernel(const {name}* x, {name}* out) {{ {name} v = x[threadIdx.x];"
            " for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);"
            " if (threadIdx.x % 32 == 0) out[threadIdx.x / 32] = v; }",
            x,
            out,
        )
        np.testing.assert_allclose(out, x.reshape(2, 32).sum(axis=1), rtol=1e-6)


def test_a_shuffle_from_a_lane_that_is_not_there_is_caught() -> None:
    with pytest.raises(KernelError, match="a shuffle reads lane 20"):
        run("kernel(int* x) { x[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 20); }", np.zeros(16, "i4"), threads=(16,))


def test_atomics_add_up_in_every_order() -> None:
    count, total, largest = np.zeros(1, np.int32), np.zeros(1, np.float64), np.full(1, -1, np.int32)
    run(
        "kernel(int* count, double* total, int* largest) { __shared__ int in_block;"
        " if (threadIdx.x == 0) in_block = 0; __syncthreads(); atomicAdd(&in_block, 1); __syncthreads();"
        " if (threadIdx.x == 0) atomicAdd(count, in_block);"
        " atomicAdd(&total[0], 0.5); atomicMax(largest, (int)(blockIdx.x * 64 + threadIdx.x)); }",
        count,
        total,
        largest,
        blocks=(5,),
        schedules=8,
    )
    assert (count[0], total[0], largest[0]) == (8 * 320, 8 * 160, 319)


def test_vectors_are_loaded_whole_and_must_be_aligned() -> None:
    x, y = np.arange(9, dtype=np.float32), np.zeros(8, np.float32)
    source = (
        "kernel(const float* x, float* y) { float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x];"
        " y[4 * threadIdx.x] = v.x + v.y + v.z + v.w; y[4 * threadIdx.x + 1] = v.w; }"
    )
    run(source, x[:8], y, threads=(2,))
    assert (y[0], y[4], y[5]) == (6, 22, 7)
    with pytest.raises(KernelError, match="not aligned"):
        run(source, x[1:], y, threads=(2,))


def test_functions_round_in_the_type_of_their_argument() -> None:
    out, wide = np.zeros(5, np.float32), np.zeros(5, np.float64)
    body = "out[0] = exp(v); out[1] = log1p(v); out[2] = expm1(v); out[3] = rsqrt(v); out[4] = max(min(v, w), tanh(v));"
    run(f"kernel(float* out, float v, float w) {{ {body} }}", out, np.float32(0.3), np.float32(0.2), threads=(1,))
    run(f"kernel(double* out, double v, double w) {{ {body} }}", wide, np.float64(0.3), np.float64(0.2), threads=(1,))
    for got, dtype, rtol in ((out, np.float32, 3e-7), (wide, np.float64, 1e-15)):
        v = dtype(0.3)
        expected = [np.exp(v), np.log1p(v), np.expm1(v), 1 / np.sqrt(v), np.tanh(v)]
        np.testing.assert_allclose(got, expected, rtol=rtol)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x[0] = 1 / n;", "integer division by zero"),
        ("x[0] = x[0] + 2147483647;", "integer overflow in an addition"),
        ("x[0] = 1 << (n + 40);", "shift by too many bits"),
        ("x[0] = x[0] * 65536 * 65536;", "integer overflow in a multiplication"),
    ],
)
def test_undefined_arithmetic_is_caught_with_its_line(body: str, message: str) -> None:
    with pytest.raises(KernelError, match=rf"line 1: {message}"):
        run(f"kernel(int* x, int n) {{ {body} }}", np.ones(1, "i4"), np.int32(0), threads=(1,))


def test_a_grid_that_no_device_starts_is_refused() -> None:
    for grid, block in (((1,), (1025,)), ((1, 70000), (1,)), ((1,), (0,))):
        with pytest.raises(KernelError, match="no device starts"):
            run("kernel() { }", blocks=grid, threads=block)


def test_a_source_that_the_simulator_does_not_know_is_refused_and_not_misread() -> None:
    with pytest.raises(CompilerError, match="does not know `auto`"):
        raw_program('extern "C" __global__ void kernel(float* x) { auto v = x[0]; }', "kernel")
    with pytest.raises(CompilerError, match="no `__global__ void kernel"):
        raw_program("__device__ int kernel() { return 1; }", "kernel")


def test_a_kernel_that_does_not_compile_says_what_the_compiler_says() -> None:
    with pytest.raises(CompilerError, match=r"g\+\+ does not compile kernel:(.|\n)*no_such_function"):
        run("kernel(float* x) { x[0] = no_such_function(); }", np.zeros(1, "f4"))


def test_a_failed_launch_leaves_the_next_one_alone() -> None:
    x = np.zeros(64, np.float32)
    for _ in range(3):
        with pytest.raises(KernelError):
            run("kernel(float* x) { if (threadIdx.x == 3) __syncthreads(); }", x)
        np.testing.assert_allclose(sums(ROW_SUMS, X), X.sum(axis=1), rtol=1e-5)


def test_without_a_compiler_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "needs g++: install it" in missing_compiler()


@pytest.mark.parametrize(("required", "code", "outcome"), [("", 0, "1 skipped"), ("1", 1, "must not be skipped")])
def test_without_a_compiler_a_test_is_skipped_here_and_fails_in_ci(required: str, code: int, outcome: str) -> None:
    test = f"{__file__}::test_poison_is_found_where_it_is_and_nowhere_else"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**os.environ, "PATH": "", "GPUNN_REQUIRE_ALL": required},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout
    assert outcome in done.stdout
    assert "needs g++: install it" in done.stdout
