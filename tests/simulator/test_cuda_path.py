"""The whole CUDA path on the simulated device: networks trained, recorded, evaluated and saved as on the CPU."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpunn as gn
import gpunn.kernels
from gpunn import doctor
from gpunn.backend import select
from gpunn.batches import Batches
from gpunn.errors import DeviceError
from gpunn.kernels.random import epoch_order
from gpunn.selftest import self_test
from gpunn.step import Step
from simulator.machine import CUDARuntimeError, Machine, OutOfMemoryError

STEPS = 50


class Network(NamedTuple):
    """What is trained on both devices for 50 steps."""

    layers: Callable[[], list[gn.layers.Layer]]
    optimizer: Callable[[], gn.optimizers.Optimizer]
    images: bool = False
    batch_size: int = 16
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    # How far float32 weights may be apart after 50 steps. Rounding differs from the first step on (sums in another
    # order), and grows with the steps; a wrong step is wrong in the first digits.
    bound: float = 1e-3


def lenet_bn() -> list[gn.layers.Layer]:
    return [
        *(gn.Conv2D(6, 5, padding=2), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2)),
        *(gn.Conv2D(16, 5), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2)),
        *(gn.Flatten(), gn.Dense(120), gn.ReLU(), gn.Dense(84), gn.ReLU(), gn.Dense(10)),
    ]


NETWORKS = {
    "784-30-10, sigmoid": Network(
        lambda: [gn.Dense(30), gn.Sigmoid(), gn.Dense(10), gn.Sigmoid()],
        lambda: gn.SGD(0.5),
        options={"loss": gn.BinaryCrossEntropy(), "regularizer": gn.L2(0.1)},
    ),
    "784-128-10": Network(
        lambda: [gn.Dense(128), gn.ReLU(), gn.Dense(10)], lambda: gn.SGD(gn.Cosine(0.1), momentum=0.9, nesterov=True)
    ),
    "784-30-10, adam": Network(
        lambda: [gn.Dense(30), gn.Tanh(), gn.Dropout(0.3), gn.Dense(10)],
        lambda: gn.Adam(0.003),
        bound=5e-3,
    ),
    "784-30-10, batchnorm": Network(
        lambda: [gn.Dense(30), gn.BatchNorm(), gn.LeakyReLU(), gn.Dense(10)], lambda: gn.SGD(0.05, momentum=0.9)
    ),
    "lenet-bn": Network(lenet_bn, lambda: gn.SGD(0.05, momentum=0.9), images=True, batch_size=8, bound=5e-3),
}


def data(images: bool = False, samples: int = 210) -> gn.Data:
    """Blurred pictures of ten kinds, as bytes: a network learns something of them in 50 steps."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (10, 28, 28, 1))
    labels = rng.integers(0, 10, samples)
    inputs = (0.6 * kinds[labels] + 0.4 * rng.integers(0, 256, (samples, 28, 28, 1))).astype(np.uint8)
    return gn.Data.from_arrays(inputs if images else inputs.reshape(samples, -1), labels, validation=50)


def trained(network: Network, device: str, dtype: str = "float32", **options: Any) -> tuple[gn.Sequential, gn.History]:
    model = gn.Sequential(network.layers())
    source = data(network.images)
    epochs = -(-STEPS // -(-len(source.train) // network.batch_size))
    history = model.fit(
        source, optimizer=network.optimizer(), epochs=epochs, batch_size=network.batch_size, device=device, dtype=dtype,
        seed=3, progress=False, **{**network.options, **options},
    )  # fmt: skip
    return model, history


def distance(model: gn.Sequential, other: gn.Sequential) -> float:
    """The largest difference of two weights, beside the largest weight of its parameter, or 0.1 if that is more.

    For a bias before BatchNorm has no gradient but rounding, so its value is nothing but that.
    """
    ours, theirs = model.parameters.to_host(), other.parameters.to_host()
    return max(float(np.abs(ours[n] - theirs[n]).max() / max(np.abs(theirs[n]).max(), 0.1)) for n in theirs)


# The device is found


def test_the_simulated_device_is_usable_and_taken(machine: Machine) -> None:
    assert doctor.cuda_advice() == ""
    assert select("auto").device == "cuda:0"
    assert select("auto").reason == "a CUDA device is there"
    assert select("cuda").description == "simulated device, 2 GiB, compute capability 9.0, CuPy 14.2.0"
    assert [f.status for f in doctor.diagnose() if f.name in ("NVIDIA driver", "GPU 0", "CuPy", "nvmath")] == ["ok"] * 4


def test_a_device_that_is_not_there_is_refused(machine: Machine) -> None:
    with pytest.raises(DeviceError, match="there is no device 1, only 1"):
        select("cuda:1")


# Trained as on the CPU


@pytest.mark.parametrize("name", NETWORKS)
def test_fifty_steps_give_the_numbers_of_the_cpu(machine: Machine, name: str) -> None:
    network = NETWORKS[name]
    machine.scheduling.races = False
    model, history = trained(network, "cuda")
    reference, expected = trained(network, "cpu")
    assert history[-1].step >= STEPS
    assert distance(model, reference) < network.bound
    for ours, theirs in zip(history, expected, strict=True):
        np.testing.assert_allclose(ours.train_loss, theirs.train_loss, rtol=10 * network.bound)
        np.testing.assert_allclose(ours.validation_loss, theirs.validation_loss, rtol=10 * network.bound)
    # Something was learned: that two networks which stand still agree would say nothing.
    assert history[-1].train_loss < 0.8 * history[0].train_loss


@pytest.mark.parametrize("name", NETWORKS)
def test_in_float64_fifty_steps_agree_to_ten_digits(machine: Machine, name: str) -> None:
    network = NETWORKS[name]
    machine.scheduling.races = False
    model, _ = trained(network, "cuda", "float64")
    reference, _ = trained(network, "cpu", "float64")
    assert distance(model, reference) < 1e-10


def test_a_training_has_no_race_in_any_order_of_its_threads(machine: Machine) -> None:
    network = NETWORKS["784-128-10"]._replace(batch_size=33)
    results = []
    for seed in (0, 1001):
        machine.scheduling.seed = seed
        model, _ = trained(network, "cuda")
        results.append(model.parameters.to_host())
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name], err_msg=f"{name}: not the same bits in another order")


def test_a_recorded_step_gives_the_bits_of_an_eager_one(machine: Machine) -> None:
    machine.scheduling.races = False
    for name in ("784-128-10", "784-30-10, adam"):
        replayed, _ = trained(NETWORKS[name], "cuda")
        assert machine.counts.graphs > STEPS // 2
        machine.reset_counts()
        eager, _ = trained(NETWORKS[name], "cuda", capture=False)
        assert machine.counts.graphs == 0
        assert distance(replayed, eager) == 0


def test_shuffles_are_the_same_bit_for_bit(machine: Machine) -> None:
    model, source = gn.Sequential([gn.Dense(10)]), data()
    model.build((784,), 16, "cuda")
    optimizer, loss = gn.SGD(0.1), gn.SoftmaxCrossEntropy()
    optimizer.build(model.parameters)
    batches = Batches(select("cuda"), source.train, "float32")
    step = Step(model, batches, loss, optimizer, 16)
    order = epoch_order(len(source.train), seed=5, epoch=2)
    step.start_epoch(order, np.full(step.steps_per_epoch, 0.1))
    np.testing.assert_array_equal(select("cuda").to_host(step.order), epoch_order(len(source.train), seed=5, epoch=2))
    for number in range(step.steps_per_epoch):
        n = min(16, len(source.train) - 16 * number)
        step(n)
        seen = select("cuda").to_host(model.input.views(n)[0])
        picked = source.train.inputs[order[16 * number :][:n]]
        np.testing.assert_array_equal(seen, picked.reshape(n, -1) * np.float32(source.train.scale))


def test_dropout_and_initial_weights_are_the_same_bit_for_bit(machine: Machine) -> None:
    outputs, weights = [], []
    x = np.random.default_rng(0).normal(size=(33, 20)).astype(np.float32)
    for device in ("cpu", "cuda"):
        model = gn.Sequential([gn.Dropout(0.4)]).build((20,), 33, device, seed=9)
        outputs.append(model.backend.to_host(model.forward(x, training=True)))
        weights.append(gn.Sequential([gn.Dense(7)]).build((20,), 33, device, seed=9).parameters.to_host()["dense1.w"])
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(*weights)
    assert 0.3 < np.mean(outputs[0] == 0) < 0.5


# Used and kept as on the CPU


def test_a_network_trained_on_the_device_predicts_and_evaluates_as_on_the_cpu(machine: Machine, tmp_path: Path) -> None:
    machine.scheduling.races = False
    layers = [gn.Conv2D(4, 5, stride=2), gn.BatchNorm(), gn.ReLU(), gn.AveragePool2D(2), gn.Flatten(), gn.Dense(10)]
    source = data(images=True)
    model = gn.Sequential(layers)
    model.fit(source, batch_size=16, epochs=1, device="cuda", progress=False)
    model.save(tmp_path / "model.safetensors")
    probabilities, evaluation = model.predict_proba(source.validation.inputs), model.evaluate(source.validation)
    for device in ("cpu", "cuda"):
        loaded = gn.load_model(tmp_path / "model.safetensors", device=device)
        np.testing.assert_allclose(loaded.predict_proba(source.validation.inputs), probabilities, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(loaded.evaluate(source.validation).loss, evaluation.loss, rtol=1e-5)
        assert loaded.evaluate(source.validation).right == evaluation.right


def test_validation_batches_larger_than_those_of_the_training_leave_its_graph_alone(machine: Machine) -> None:
    """A graph writes to addresses: buffers that are made anew between its replays must not be those it writes to."""
    machine.scheduling.races = False
    network = NETWORKS["784-128-10"]._replace(batch_size=4)
    replayed, history = trained(network, "cuda", validate_every=3)
    reference, expected = trained(network, "cpu", validate_every=3)
    assert distance(replayed, reference) < network.bound
    np.testing.assert_allclose([r.train_loss for r in history], [r.train_loss for r in expected], rtol=1e-3)


def test_the_doctors_self_test_finds_every_kernel_right(machine: Machine) -> None:
    machine.scheduling.races = False
    said: list[str] = []
    assert self_test("cuda", said.append)
    assert [line for line in said if not line.startswith("ok")] == []


# What a step asks of the device


def step_of(layers: list[gn.layers.Layer], optimizer: gn.optimizers.Optimizer, images: bool, batch_size: int) -> Step:
    source, loss = data(images), gn.SoftmaxCrossEntropy()
    model = gn.Sequential(layers)
    model.build((28, 28, 1) if images else (784,), batch_size, "cuda")
    optimizer.build(model.parameters, None, len(source.train))
    step = Step(model, Batches(select("cuda"), source.train, "float32"), loss, optimizer, batch_size)
    order = epoch_order(len(source.train), seed=0, epoch=0)
    step.start_epoch(order, np.full(step.steps_per_epoch, 0.1))
    step(batch_size)  # runs once kernel by kernel, and is recorded
    assert step.trouble == ""
    return step


def launches(machine: Machine, step: Step) -> int:
    machine.reset_counts()
    with machine.refusing():
        step(step.batch_size)
    assert machine.counts.graphs == 1
    return machine.counts.launches


@pytest.mark.parametrize(
    ("layers", "optimizer", "images", "most"),
    [
        (lambda: [gn.Dense(128), gn.ReLU(), gn.Dense(10)], lambda: gn.SGD(0.1), False, 10),
        (lenet_bn, lambda: gn.SGD(0.1, momentum=0.9), True, 60),
    ],
    ids=["784-128-10", "lenet-bn"],
)
def test_a_recorded_step_is_one_graph_of_few_launches_without_allocation_copy_or_wait(
    machine: Machine, layers: Any, optimizer: Any, images: bool, most: int
) -> None:
    machine.scheduling.races = False
    count = launches(machine, step_of(layers(), optimizer(), images, 8))
    assert count <= most, machine.counts.kernels


@pytest.mark.parametrize("name", NETWORKS)
def test_an_eager_step_allocates_copies_and_waits_for_nothing(machine: Machine, name: str) -> None:
    machine.scheduling.races = False
    network = NETWORKS[name]
    step = step_of(network.layers(), network.optimizer(), network.images, 8)
    step._replay, step._is_to_capture = None, False
    step(5)  # a short batch, as the last of an epoch: its views are made now
    with machine.refusing("an eager step"):
        step(8)
        step(5)


def test_elementwise_kernels_move_hardly_more_bytes_than_they_must(machine: Machine) -> None:
    backend = select("cuda")
    z, a, da = (backend.asarray(np.ones((100, 64), np.float32)) for _ in range(3))
    column = backend.asarray(np.ones((100, 1), np.float32))
    kernels = gn.kernels.registry
    # Each array once in and once out: the least that can be.
    for name, arguments, least in (
        ("relu", (z, a), 2 * z.nbytes),
        ("relu", (z, z), 2 * z.nbytes),
        ("sigmoid", (z, a), 2 * z.nbytes),
        ("relu_gradient", (da, a, da), 3 * z.nbytes),
        ("add_bias", (column, z), 2 * z.nbytes + column.nbytes),
        ("normalize_as_remembered", (z, column, column, column, column, 1e-5, a), 2 * z.nbytes + 4 * column.nbytes),
    ):
        machine.reset_counts()
        backend.run(kernels[name], *arguments)
        assert machine.counts.launches == 1
        moved = machine.counts.bytes_read + machine.counts.bytes_written
        assert least <= moved <= 1.5 * least, name


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
    from gpunn.errors import CaptureError

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
    import gc

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
