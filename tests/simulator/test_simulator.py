"""The checks themselves: what a kernel does wrong is caught, what it does right is not."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from simulated_cuda.core import KernelError, core
from support.kernel_cases import unset

from gpunn.backend.compiling import cuda_source
from gpunn.kernels import registry
from gpunn.kernels.device_code import BLOCK_SUM

pytestmark = pytest.mark.usefixtures("checked")


def run(
    source: str, *arguments: Any, blocks: tuple[int, ...] = (1,), threads: tuple[int, ...] = (64,),
    schedules: Sequence[int] = range(8), races: bool = True,
) -> None:  # fmt: skip
    """Run a kernel in several orders of its threads, on arrays as they were left by the order before.

    Args:
        source: of a kernel that is called `kernel`, from that name on, or whole, of one that is called `row_sums`.
    """
    of_kernel = (f'extern "C" __global__ void {source}', "kernel")
    kernel = core().cupy.RawKernel(*((source, "row_sums") if "__global__" in source else of_kernel))
    given = tuple(core().cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments)
    for schedule in schedules:
        with core().checks(schedule, races):
            kernel(blocks, threads, given)
    for host, device in zip(arguments, given, strict=True):
        if isinstance(host, np.ndarray):
            host[...] = device.get()


# Row sums, with and without what orders their threads and blocks

X = np.random.default_rng(0).normal(size=(3, 1500)).astype(np.float32)
ROW_SUMS = cuda_source(registry["row_sums"], {"T": np.dtype(np.float32)})  # type: ignore[arg-type]
# Two sums one after the other, in the same shared memory: only then does every barrier matter.
TWO_SUMS = (
    BLOCK_SUM
    + """
extern "C" __global__ void row_sums(const float* x, float* total, float*, unsigned*, int n, int) {
    __shared__ float part[4];
    float sum = 0.0f;
    for (int j = blockIdx.y * blockDim.x + threadIdx.x; j < n; j += blockDim.x) sum += x[blockIdx.x * n + j] / 2;
    float half = block_sum(sum, part);
    sum = half + block_sum(sum, part);
    if (threadIdx.x == 0 && blockIdx.y == 0) total[blockIdx.x] = sum;
}
"""
)
BARRIERS = ["= values[k];\n    }\n    __syncthreads();", "part[warp * count + k];\n    }\n    __syncthreads();"]
# The parts are written by another thread than the one that takes the ticket.
WRITES_PARTS = "if (threadIdx.x == 0)\n        for (int k = 0; k < count; ++k) parts["
ROW_SUMS_OF_TWO = ROW_SUMS.replace(WRITES_PARTS, WRITES_PARTS.replace("== 0", "== 64", 1))
BETWEEN_BLOCKS = [
    "__shared__ bool is_last;\n    __syncthreads();",
    "__threadfence();\n        is_last",
    "count - 1;\n        __threadfence();",
    "    if (!is_last_block(tickets + blockIdx.x, gridDim.y)) return false;\n",
]


def are_right(source: str, schedules: Sequence[int] = range(8), races: bool = True) -> bool:
    total, parts, tickets = unset((len(X),), np.float32), unset((3 * len(X),), np.float32), np.zeros(3, np.uint32)
    arrays = X, total, parts, tickets, np.int32(X.shape[1]), np.int32(512)
    run(source, *arrays, blocks=(len(X), 3), threads=(128,), schedules=schedules, races=races)
    return np.allclose(total, X.sum(axis=1), rtol=1e-5, atol=1e-5) and not tickets.any()


def without(order: str, source: str) -> str:
    assert source.count(order) == 1
    left = order
    for what in ("__syncthreads();", "__threadfence();", BETWEEN_BLOCKS[-1].strip()):
        left = left.replace(what, "")
    return source.replace(order, left)


@pytest.mark.parametrize("barrier", BARRIERS)
@pytest.mark.parametrize("schedule", range(8))
def test_a_removed_barrier_is_caught_under_every_schedule(barrier: str, schedule: int) -> None:
    with pytest.raises(KernelError, match=r"row_sums, schedule \d: block .*(race: it|reads element \d+ of `part`)"):
        are_right(without(barrier, TWO_SUMS), [schedule])


@pytest.mark.parametrize("order", BETWEEN_BLOCKS)
@pytest.mark.parametrize("schedule", range(8))
def test_what_orders_two_blocks_is_missed_under_every_schedule(order: str, schedule: int) -> None:
    """A barrier before the ticket, a fence before it, a fence after it, and the ticket itself."""
    with pytest.raises(KernelError, match=r"race: it \w+ element \d+ of `(parts|total)`|`parts`, which was never"):
        are_right(without(order, ROW_SUMS_OF_TWO), [schedule])


@pytest.mark.parametrize("barrier", BARRIERS[:1])  # the second would hand over the same number again
def test_a_removed_barrier_is_caught_by_its_numbers_too_where_races_are_not_looked_for(barrier: str) -> None:
    """In most orders: that is what the orders are for where a kernel is too large for a look at every access."""
    caught = 0
    for schedule in range(16):
        try:
            caught += not are_right(without(barrier, TWO_SUMS), [schedule], races=False)
        except KernelError:
            caught += 1
    assert caught >= 10


def test_a_kernel_as_it_is_meant_is_right_under_every_schedule() -> None:
    assert ROW_SUMS_OF_TWO != ROW_SUMS
    assert are_right(ROW_SUMS, range(100))
    assert are_right(ROW_SUMS_OF_TWO, range(100))
    assert are_right(TWO_SUMS, range(100))


# What is wrong


class Fault(NamedTuple):
    """A kernel that does wrong, what it is run on, and what is said of it."""

    source: str
    message: str
    arguments: tuple[Any, ...] = ()
    blocks: int = 1
    threads: int = 64


def _of_x(source: str, message: str, size: int = 64, dtype: str = "f4", **launch: int) -> Fault:
    kind = {"f4": "float", "f8": "double", "i4": "int"}[dtype]
    return Fault(f"kernel({kind}* x) {{ {source} }}", message, (np.zeros(size, dtype),), **launch)


def _of_n(source: str, message: str, n: int) -> Fault:
    return Fault(f"kernel(int n) {{ {source} }}", message, (np.int32(n),))


def _read(element: str, message: str, x: np.ndarray | None = None, kind: str = "float") -> Fault:
    x = np.zeros(100, "f4") if x is None else x
    return Fault(f"kernel(const {kind}* x, {kind}* y) {{ y[0] = {element}; }}", message, (x, x[:1].copy()), threads=1)


def _undefined(value: str, message: str) -> Fault:
    source = f"kernel(int* x, int n) {{ x[0] = {value}; }}"
    return Fault(source, f"line 1: {message}", (np.ones(1, "i4"), np.int32(0)), threads=1)


_S = "__shared__ float s[64]; s[threadIdx.x] = threadIdx.x;"
_TWO = "__shared__ float s[64], t[64]; float* p = s; p[threadIdx.x + 1] = t[threadIdx.x] = 1.0f;"
FAULTS = {
    # Barriers
    "a barrier that not all threads reach": _of_x(
        "if (threadIdx.x < 10) __syncthreads(); x[threadIdx.x] = 1.0f;",
        "barrier divergence: 10 of 64 threads wait at __syncthreads, the others have",
    ),
    "two barriers of two branches": _of_n(
        "if (threadIdx.x < n) { __syncthreads(); } else { __syncthreads(); }",
        "barrier divergence: threads of a block wait at different __syncthreads", 10,
    ),
    "a warp function that a named lane does not reach": _of_x(
        "if (threadIdx.x % 32 < 31) x[threadIdx.x] = __ballot_sync(0xffffffffu, 1);",
        "warp divergence: lane 31 has ended",
    ),
    "two warp functions of two branches": _of_x(
        "if (threadIdx.x < 9) x[0] = __any_sync(0xffffffffu, 1); else x[1] = __all_sync(0xffffffffu, 1);",
        "warp divergence: lanes 0 and 9 wait at different warp functions",
    ),
    "a mask that leaves the lane out": _of_x("__syncwarp(1);", "lane 1 calls a warp function whose mask 00000001"),
    "a deadlock": Fault(
        "kernel() { if (threadIdx.x == 0) __syncwarp(); else __syncthreads(); }",
        "deadlock: no thread of the block can go on",
    ),
    "a shuffle from a lane that is not there": _of_x(
        "x[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 20);", "a shuffle reads lane 20", threads=16
    ),
    # Memory
    "a write out of bounds": _of_x(
        "x[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;",
        r"thread \(\d+, 0, 0\): writes element 1\d\d of `x`, which has 100: out of bounds", size=100, blocks=2,
    ),
    "a read before the first": _read("x[-1]", "reads element -1 of `x`, which has 100"),
    "a read behind the last": _read("*(x + 100)", "reads element 100 of `x`, which has 100"),
    "a read far behind": _read("(x + 50)[60]", "reads element 110 of `x`, which has 100"),
    "a null pointer": _of_x("*(float*)threadIdx.y = x[0];", "writes through a null pointer"),
    "a write behind a view": Fault(
        "kernel(float* x) { x[20] = 1.0f; }", "writes element 20 of `x`, which has 20", (np.zeros((10, 10), "f4")[2:4],)
    ),
    "an index of a shared array": _of_n(
        "__shared__ float s[64]; s[threadIdx.x + 1] = 1.0f;", r"line 1: index 64 lies outside of 'float \[64\]'", 0
    ),
    "an inner index": _of_n("__shared__ float t[8][4]; t[0][n] = 1.0f;", r"index 4 lies outside of 'float \[4\]'", 4),
    "an index of a local array": _of_n("int v[4] = {0}; v[n] += 1;", r"index -1 lies outside of 'int \[4\]'", -1),
    "a pointer past a shared array": _of_n(_TWO, "writes element 64 of `s`, which has 64", 0),
    "floats never written": _read("x[7]", "reads element 7 of `x`, which was never written", unset((64,), "f4")),
    "doubles never written": _read("x[7]", "reads element 7 of `x`, which was never", unset((64,), "f8"), "double"),
    "integers never written": _read("x[7]", "reads element 7 of `x`, which was never", unset((64,), "i4"), "int"),
    "shared memory never written": _of_x("__shared__ float s[4]; x[0] = s[3];", "reads element 3 of `s`, which was"),
    "shared memory of the block before": _of_x(
        "__shared__ float s[1]; if (blockIdx.x == 0) s[0] = 1.0f; x[blockIdx.x] = s[0];",
        "never written", blocks=2, threads=1,
    ),
    # Races
    "two blocks that write one element": _of_x(
        "x[threadIdx.x] = 1.0f;", r"race: it writes element \d+ of `x`, which thread \d+ of a block wrote", blocks=2
    ),
    "a neighbour that is read": _of_x(
        "x[threadIdx.x] = x[(threadIdx.x + 1) % 64];", r"race: it (reads|writes) element \d+ of `x`"
    ),
    "a shuffle that is no barrier": _of_x(
        f"{_S} __shfl_sync(0xffffffffu, 1, 0); x[threadIdx.x] = s[threadIdx.x ^ 5];", "race|never written"
    ),
    "another warp than the barrier's": _of_x(
        f"{_S} __syncwarp(); x[threadIdx.x] = s[threadIdx.x ^ 32];", "race|never written"
    ),
    # Arithmetic
    "a division": _undefined("1 / n", "integer division by zero"),
    "a sum": _undefined("x[0] + 2147483647", "integer overflow in an addition"),
    "a product": _undefined("x[0] * 65536 * 65536", "integer overflow in a multiplication"),
    "a shift": _undefined("1 << (n + 40)", "shift by too many bits"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_caught_and_said(what: str) -> None:
    fault = FAULTS[what]
    with pytest.raises(KernelError, match=fault.message):
        run(fault.source, *fault.arguments, blocks=(fault.blocks,), threads=(fault.threads,))


def test_two_arguments_with_one_memory_race_too() -> None:
    x = core().cupy.zeros(65, np.float32)
    with pytest.raises(KernelError, match="race"):
        run("kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }", x[:64], x[1:])


def test_vectors_are_loaded_whole_and_must_be_aligned() -> None:
    x, y = core().cupy.arange(9, dtype=np.float32), np.zeros(8, np.float32)
    source = """kernel(const float* x, float* y) {
        float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x];
        y[4 * threadIdx.x] = v.x + v.y + v.z + v.w; y[4 * threadIdx.x + 1] = v.w; }"""
    run(source, x[:8], y, threads=(2,))
    assert (y[0], y[4], y[5]) == (6, 22, 7)
    with pytest.raises(KernelError, match=r"line 2: address of .*float4.* is not aligned"):
        run(source, x[1:], y, threads=(2,))


def test_a_failed_launch_leaves_the_next_one_alone() -> None:
    for _ in range(3):
        with pytest.raises(KernelError):
            run("kernel(float* x) { if (threadIdx.x == 3) __syncthreads(); }", np.zeros(64, np.float32))
        assert are_right(ROW_SUMS)


def test_a_grid_that_no_device_starts_is_refused() -> None:
    for grid, block in (((1,), (1025,)), ((1, 70000), (1,)), ((1, 1, 70000), (1,))):
        with pytest.raises(core().cupy.cuda.driver.CUDADriverError, match="invalid argument"):
            run("kernel() { }", blocks=grid, threads=block)


@pytest.mark.parametrize("source", ["x[0] = no_such_function();", "extern __shared__ float no_such_function[];"])
def test_a_source_that_is_wrong_or_not_known_is_refused_and_not_misread(source: str) -> None:
    with pytest.raises(core().cupy.cuda.compiler.CompileException, match="no_such_function"):
        run(f"kernel(float* x) {{ {source} }}", np.zeros(1, "f4"))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("y = x[i + 1]", "reads element 64 of `x`, which has 64: out of bounds"),
        ("y = x[i]; if (i > 0) y += (&y)[-1]", r"(race: it reads|race: it writes|reads) element \d+ of `y`"),
        ("y += x[i]", "reads element 0 of `y`, which was never written"),
    ],
)
def test_a_fault_of_an_elementwise_kernel_is_caught_in_what_cupy_makes_of_it(operation: str, message: str) -> None:
    kernel = core().cupy.ElementwiseKernel("raw T x", "T y", operation)
    x, y = core().cupy.zeros(64, "f4"), core().cupy.empty(64, "f4")
    with pytest.raises(KernelError, match=message), core().checks():
        kernel(x, y)


def test_a_reduction_of_cupy_is_right_in_every_order_and_caught_where_it_is_not() -> None:
    total = core().cupy.ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "total")
    wrong = core().cupy.ReductionKernel("T x", "T y", "x", "a + b", "y = a + (&y)[1]", "0", "wrong")
    x, y = core().cupy.asarray(X), core().cupy.empty(3, "f4")
    for schedule in range(8):
        with core().checks(schedule):
            total(x, axis=1, out=y)
        np.testing.assert_allclose(y.get(), X.sum(axis=1), rtol=1e-5)
        with pytest.raises(KernelError, match=r"element \d of `y`"), core().checks(schedule):
            wrong(x, axis=1, out=y)


# What is right


def test_a_barrier_orders_and_a_thread_may_do_with_its_own_what_it_likes() -> None:
    x = np.zeros(64, np.float32)
    run("""kernel(float* x) {
        x[threadIdx.x] += 1.0f; __syncthreads();
        float v = x[63 - threadIdx.x]; __syncthreads();
        x[threadIdx.x] = v; }""", x)  # fmt: skip
    np.testing.assert_array_equal(x, 8)


def test_a_warp_barrier_orders_its_warp() -> None:
    x = np.zeros(64, np.float32)
    run(f"kernel(float* x) {{ {_S} __syncwarp(); x[threadIdx.x] = s[threadIdx.x ^ 5]; }}", x)
    np.testing.assert_array_equal(x, np.arange(64) ^ 5)


def test_indices_count_in_three_dimensions() -> None:
    out = np.full((2, 3, 2, 4, 3, 2), -1, np.int32)  # blocks z y x, threads z y x
    source = """kernel(int* out) {
        int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread; }"""
    run(source, out, blocks=(2, 3, 2), threads=(2, 3, 4))
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


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "float"), (np.float64, "double")])
def test_a_warp_reduction_by_shuffles_is_right(dtype: type, kind: str) -> None:
    x, out = np.random.default_rng(1).normal(size=64).astype(dtype), np.zeros(2, dtype)
    source = f"""kernel(const {kind}* x, {kind}* out) {{
        {kind} v = x[threadIdx.x];
        for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);
        if (threadIdx.x % 32 == 0) out[threadIdx.x / 32] = v; }}"""
    run(source, x, out)
    np.testing.assert_allclose(out, x.reshape(2, 32).sum(axis=1), rtol=1e-6)


def test_atomics_add_up_in_every_order() -> None:
    count, total, largest = np.zeros(1, np.int32), np.zeros(1, np.float64), np.full(1, -1, np.int32)
    source = """kernel(int* count, double* total, int* largest) {
        __shared__ int in_block;
        if (threadIdx.x == 0) in_block = 0; __syncthreads(); atomicAdd(&in_block, 1); __syncthreads();
        if (threadIdx.x == 0) atomicAdd(count, in_block);
        atomicAdd(&total[0], 0.5); atomicMax(largest, (int)(blockIdx.x * 64 + threadIdx.x)); }"""
    run(source, count, total, largest, blocks=(5,))
    assert (count[0], total[0], largest[0]) == (8 * 320, 8 * 160, 319)


@pytest.mark.parametrize(("dtype", "kind", "rtol"), [(np.float32, "float", 3e-7), (np.float64, "double", 1e-15)])
def test_functions_round_in_the_type_of_their_argument(dtype: type, kind: str, rtol: float) -> None:
    out, v = np.zeros(5, dtype), dtype(0.3)
    body = "out[0] = exp(v); out[1] = log1p(v); out[2] = expm1(v); out[3] = rsqrt(v); out[4] = max(min(v, w), tanh(v));"
    run(f"kernel({kind}* out, {kind} v, {kind} w) {{ {body} }}", out, v, dtype(0.2), threads=(1,))
    np.testing.assert_allclose(out, [np.exp(v), np.log1p(v), np.expm1(v), 1 / np.sqrt(v), np.tanh(v)], rtol=rtol)


def test_a_kernel_without_checks_does_not_pass_for_one_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core().compiler, "checks", False)
    with pytest.raises(KernelError, match="it was compiled without checks"):
        run("kernel(float* x) { x[threadIdx.x] = -1.0f; }", np.zeros(64, np.float32))


def test_outside_of_checks_kernels_are_left_alone() -> None:
    y = core().cupy.empty(64, "f4")
    core().cupy.ElementwiseKernel("raw T x", "T y", "y = x[i]")(core().cupy.empty(64, "f4"), y)
    assert np.isfinite(y.get()).all()


@pytest.mark.parametrize(
    ("simulates", "code", "outcome"), [("", 0, r"pip install '.\[cuda13\]'"), ("1", 4, r"needs g\+\+: install it")]
)
def test_where_it_cannot_run_one_line_says_how_to_get_it(simulates: str, code: int, outcome: str) -> None:
    test = f"{__file__}::test_a_fault_is_caught_and_said"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    switches = {"PATH": "", "GPUNN_SIMULATED_CUDA": simulates, "GPUNN_REQUIRE_ALL": ""}
    done = subprocess.run(command, env=os.environ | switches, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout
    assert re.search(outcome, done.stdout + done.stderr)
