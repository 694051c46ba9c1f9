"""The stand-ins for CuPy and cuBLAS: what a device refuses they refuse, and what a capture must not hold is caught."""

import gc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
import gpunn.kernels
from gpunn.backend import CupyBackend, select
from gpunn.errors import CaptureError
from simulator.machine import CUDARuntimeError, Machine, OutOfMemoryError
from simulator.test_cuda_path import NETWORKS, distance, trained

# What is caught


def test_a_host_copy_in_a_step_is_caught(machine: Machine) -> None:
    backend = select("cuda")
    x = backend.zeros((3,), np.float32)
    with machine.refusing("a step"), pytest.raises(AssertionError, match="a copy of 12 bytes to the host in a step"):
        backend.to_host(x)
    with machine.refusing("a step"), pytest.raises(AssertionError, match="a copy of 4 bytes to the host in a step"):
        float(x[0])
    with machine.refusing("a step"), pytest.raises(AssertionError, match="an allocation of 40 bytes in a step"):
        backend.zeros((10,), np.float32)
    with machine.refusing("a step"), pytest.raises(AssertionError, match="a synchronisation in a step"):
        backend.synchronize()


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda backend, x: backend.empty((10,), np.float32), "an allocation of 40 bytes"),
        (lambda backend, x: backend.to_host(x), "a copy of 16 bytes to the host"),
        (lambda backend, x: float(x[0]), "a copy of 4 bytes to the host"),
        (lambda backend, x: backend.assign(x, np.ones(4, np.float32)), "a copy of 16 bytes from the host"),
        (lambda backend, x: backend.synchronize(), "a synchronisation"),
        (lambda backend, x: backend.asarray(x.reshape(2, 2).T), "an allocation of 16 bytes"),
    ],
)
def test_what_a_graph_cannot_hold_is_caught_in_its_capture(machine: Machine, work: Any, message: str) -> None:
    backend = select("cuda")
    x = backend.zeros((4,), np.float32)
    with pytest.raises(CaptureError, match=f"operation not permitted when stream is capturing: {message}"):
        backend.capture(lambda: work(backend, x))
    # The device is usable after.
    backend.run(gn.kernels.registry["relu"], x, x)
    assert not backend.to_host(x).any()


def test_a_step_that_cannot_be_recorded_says_why_and_trains_kernel_by_kernel(machine: Machine) -> None:
    class Looking(gn.Dropout):
        def forward(self, x: Any, training: bool) -> Any:
            select("cuda").to_host(x)
            return super().forward(x, training)

    machine.scheduling.races = False
    said: list[str] = []
    network = NETWORKS["784-128-10"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpunn.progress.Progress.say", lambda self, text: said.append(text))
        watched, _ = trained(
            network._replace(layers=lambda: [gn.Dense(128), gn.ReLU(), Looking(0), gn.Dense(10)]), "cuda"
        )
    assert machine.counts.graphs == 0
    assert any("kernel by kernel, not by graph" in text and "to the host" in text for text in said)
    with_dropout = network._replace(layers=lambda: [gn.Dense(128), gn.ReLU(), gn.Dropout(0), gn.Dense(10)])
    assert distance(watched, trained(with_dropout, "cuda")[0]) == 0


def test_several_steps_that_cannot_be_recorded_are_replayed_one_by_one(machine: Machine) -> None:
    machine.scheduling.races = False
    said: list[str] = []
    network = NETWORKS["784-128-10"]
    expected, _ = trained(network, "cuda", validate_every=1000)
    capture = CupyBackend.capture
    graphs: list[int] = []

    def only_one(self: CupyBackend, work: Any) -> Any:
        graphs.append(1)
        if len(graphs) > 1:
            raise CaptureError("no memory for so large a graph")
        return capture(self, work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpunn.progress.Progress.say", lambda self, text: said.append(text))
        patch.setattr(CupyBackend, "capture", only_one)
        model, history = trained(network, "cuda", validate_every=1000)
    assert "training with a graph a step, not one for 8: no memory for so large a graph" in said
    assert len(graphs) == 2  # and not tried again
    assert distance(model, expected) == 0
    assert history[-1].step >= 50


def test_a_graph_that_outlives_its_memory_is_caught(machine: Machine) -> None:
    backend = select("cuda")
    x = backend.zeros((4,), np.float32)
    stream = backend.stream
    with stream:
        stream.begin_capture()
        backend._elementwise(gn.kernels.registry["relu"])(x, x)
        graph = stream.end_capture()
    graph.launch(stream)
    del x
    with pytest.raises(CUDARuntimeError, match="a graph replays relu on memory that was given back"):
        graph.launch(stream)


def test_what_is_captured_is_not_done_until_it_is_launched(machine: Machine) -> None:
    backend = select("cuda")
    x = backend.asarray(np.array([-1.0, 2.0], np.float32))
    replay = backend.capture(lambda: backend.run(gn.kernels.registry["relu"], x, x))
    np.testing.assert_array_equal(backend.to_host(x), [-1, 2])
    replay()
    np.testing.assert_array_equal(backend.to_host(x), [0, 2])


def test_a_capture_that_is_broken_off_leaves_the_device_usable(machine: Machine) -> None:
    backend = select("cuda")
    x = backend.zeros((4,), np.float32)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.capture(stop)
    assert not backend.to_host(x).any()


def test_a_product_into_a_transposed_matrix_is_refused(machine: Machine) -> None:
    backend = select("cuda")
    a = backend.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="gemm writes rows that are contiguous"):
        backend.gemm(1.0, a, a, 0.0, backend.zeros((2, 2), np.float32).T)


def test_running_out_of_memory_is_an_error_and_the_device_is_usable_after(machine: Machine) -> None:
    backend = select("cuda")
    used = machine.used
    with pytest.raises(OutOfMemoryError, match="Out of memory allocating"):
        backend.empty((machine.memory,), np.float32)
    assert machine.used == used
    assert backend.to_host(backend.zeros((3,), np.float32)).tolist() == [0, 0, 0]


def test_a_training_gives_all_its_memory_back(machine: Machine) -> None:
    machine.scheduling.races = False
    select("cuda")
    before = machine.used
    trained(NETWORKS["784-128-10"], "cuda")
    gc.collect()
    assert machine.used == before


# The stand-ins keep CuPy's and cuBLAS's rules


def test_an_array_of_the_device_never_becomes_one_of_numpy_by_itself(machine: Machine) -> None:
    x = select("cuda").zeros((3,), np.float32)
    for convert in (
        np.asarray,
        np.sum,
        lambda a: np.add(a, 1),
        lambda a: np.zeros(3) + a,
        lambda a: np.zeros(3).dot(a),
    ):
        with pytest.raises(TypeError):
            convert(x)
    with pytest.raises(TypeError, match="give it to cupy"):
        x[...] = np.zeros(3)


def test_a_kernel_is_given_exactly_what_it_declares(machine: Machine) -> None:
    import cupy

    kernel = cupy.RawKernel('extern "C" __global__ void kernel(const float* x, double a, int n) { }', "kernel")
    x = cupy.zeros((3, 4), np.float32)
    kernel((1,), (1,), (x, np.float64(1), np.int32(3)))
    for arguments, message in (
        ((x, np.float32(1), np.int32(3)), r"`double a`, got np.float32\(1.0\)"),
        ((x, np.float64(1), 3), "`int n`, got 3"),
        ((x, np.float64(1), np.int64(3)), "`int n`, got"),
        ((x.view(np.int32), np.float64(1), np.int32(3)), r"`float\* x`, got an array of int32"),
        ((x.T, np.float64(1), np.int32(3)), "`x` is not contiguous"),
        ((x, np.float64(1)), "takes 3 arguments, got 2"),
    ):
        with pytest.raises(AssertionError, match=message):
            kernel((1,), (1,), arguments)


def test_elementwise_kernels_take_any_strides_and_broadcast(machine: Machine) -> None:
    import cupy

    kernel = cupy.ElementwiseKernel(
        "T x, T y, raw T table, int32 n", "T out", "out = x * y + table[i % n] + n;", "kernel"
    )
    x, y, table = np.arange(12.0).reshape(3, 4), np.arange(4.0), np.array([[10.0, 20.0], [30.0, 40.0]])
    moved = cupy.asarray(x.T.copy()).T
    out = cupy.empty((4, 3), np.float64).T
    kernel(moved, cupy.asarray(y), cupy.asarray(table.T.copy()).T, 4, out)
    expected = x * y + np.arange(10.0, 50.0, 10.0)[np.arange(12) % 4].reshape(3, 4) + 4
    np.testing.assert_array_equal(out.get(), expected)
    for arguments, message in (
        ((moved, cupy.asarray(y), cupy.asarray(table), 4, cupy.empty((4, 3), np.float64)), "mismatch|broadcast"),
        ((moved, cupy.asarray(y.astype("f4")), cupy.asarray(table), 4, out), "Type is mismatched"),
        ((moved, cupy.asarray(y), cupy.asarray(table), 4), "Wrong number of arguments"),
        ((1.0, 2.0, cupy.asarray(table), 4, 3.0), "Output arguments"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            kernel(*arguments)


def test_a_product_is_that_of_numpy_for_every_transpose_alpha_and_beta(machine: Machine) -> None:
    backend, rng = select("cuda"), np.random.default_rng(0)
    for dtype, rtol in ((np.float32, 1e-5), (np.float64, 1e-13)):
        for m, k, n in ((3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)):
            for turned in ((False, False), (True, False), (False, True), (True, True)):
                a, b, c = (rng.normal(size=s).astype(dtype) for s in ((m, k), (k, n), (m, n)))
                left, right = (
                    backend.asarray(x.T.copy()).T if turn else backend.asarray(x)
                    for x, turn in zip((a, b), turned, strict=True)
                )
                for alpha, beta in ((1.0, 0.0), (-0.5, 2.0)):
                    result = backend.asarray(c) if beta else backend.empty((m, n), dtype)
                    backend.gemm(alpha, left, right, beta, result)
                    np.testing.assert_allclose(backend.to_host(result), alpha * a @ b + beta * c, rtol=rtol, atol=rtol)


def test_cublas_refuses_what_would_write_elsewhere(machine: Machine) -> None:
    import cupy
    from nvmath import CudaDataType
    from nvmath.bindings import cublas

    handle, real, single = cublas.create(), int(CudaDataType.CUDA_R_32F), int(cublas.ComputeType.COMPUTE_32F)
    one = np.ones(1, np.float32)
    a, b, c = (cupy.zeros((n,), np.float32) for n in (6, 6, 4))

    def product(lda: int = 2, ldc: int = 2, c_at: int = 0, out: Any = c) -> None:
        scale = one.ctypes.data
        cublas.gemm_ex(handle, 0, 0, 2, 2, 3, scale, a.data.ptr, real, lda, b.data.ptr, real, 3, scale,
                       out.data.ptr + c_at, real, ldc, single, -1)  # fmt: skip

    product()
    for wrong in ({"lda": 1}, {"ldc": 1}):
        with pytest.raises(RuntimeError, match="leading dimension"):
            product(**wrong)
    for beyond in ({"lda": 3}, {"ldc": 3}, {"c_at": 4}):
        with pytest.raises(CUDARuntimeError, match=r"operand [AC] of gemm lies outside of the memory in use"):
            product(**beyond)
    with pytest.raises(AssertionError, match="gemm writes into one of its operands"):
        product(out=a)
    with pytest.raises(AssertionError, match="gemm reads an element of C that was never written"):
        product(out=cupy.empty((4,), np.float32))


def test_cublas_is_captured_only_with_a_stream_and_a_workspace_of_its_own(machine: Machine) -> None:
    backend = select("cuda")
    a = backend.zeros((2, 2), np.float32)
    c = backend.zeros((2, 2), np.float32)
    handle, library = backend.cublas._handle, backend.cublas._cublas
    backend.capture(lambda: backend.gemm(1.0, a, a, 0.0, c))()
    library.set_stream(handle, backend.stream.ptr)  # which takes the workspace away
    with pytest.raises(RuntimeError, match="has no workspace of its own"):
        backend.capture(lambda: backend.gemm(1.0, a, a, 0.0, c))
    library.set_stream(handle, 0)
    with pytest.raises(RuntimeError, match="works on another stream than is captured"):
        backend.capture(lambda: backend.gemm(1.0, a, a, 0.0, c))


def test_launches_are_counted_and_take_one_schedule_after_another(machine: Machine) -> None:
    backend = select("cuda")
    x = backend.zeros((4,), np.float32)
    machine.reset_counts()
    seeds = []
    for _ in range(3):
        backend.run(gn.kernels.registry["relu"], x, x)
        seeds.append(machine.scheduling.seed)
    assert machine.counts.kernels == {"relu": 3}
    assert [b - a for a, b in pairwise(seeds)] == [1, 1]
