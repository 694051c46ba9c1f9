"""What a CUDA device promises beside its kernels: the numbers of the CPU, by graph and without, no memory taken."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.data.loader import DataLoader
from gpunn.errors import MemoryShortageError
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Layer
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def backend() -> Backend:
    """The CUDA device; tests/simulated_cuda puts a simulated one under CuPy."""
    return select("cuda")


def dense() -> list[Layer]:
    return [gn.Dense(24), gn.Tanh(), gn.Dropout(0.2), gn.Dense(10)]


def convolutional() -> list[Layer]:
    # Without a bias: before BatchNorm its gradient is nothing but rounding, of which Adam makes steps.
    first = [gn.Conv2D(4, 3, padding=1, bias=False), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2)]
    return [*first, gn.Flatten(), gn.Dropout(0.2), gn.Dense(10)]


NETWORKS: dict[str, tuple[Callable[[], list[Layer]], dict[str, Any]]] = {
    "dense, momentum": (dense, {"optimizer": lambda: gn.SGD(gn.OneCycle(0.05), momentum=0.9), "regularizer": gn.L2(1)}),
    "convolutional, Adam": (
        convolutional,
        {"optimizer": lambda: gn.Adam(0.002), "augmentation": gn.Augmentation(shift=0.5, rotation=10)},
    ),
}


def trainer(name: str, device: str | Backend, dtype: str = "float32", **options: Any) -> Trainer:
    """Of 410 digits in batches of 20: 20 steps and a short one an epoch, 210 in ten."""
    layers, usual = NETWORKS[name]
    usual = usual | {"optimizer": usual["optimizer"](), "epochs": 10, "batch_size": 20, "validate_every": 30}
    data = gn.Data.from_samples(gn.load_data("digits").train.first(460), validation=50)
    return Trainer(
        gn.Sequential(layers()),
        TrainOptions(device=device, dtype=dtype, seed=4, progress=False, **usual | options),
        data,
    )


def trained(name: str, device: str | Backend, dtype: str = "float32", **options: Any) -> Trainer:
    made = trainer(name, device, dtype, **options)
    made.run()
    assert made.done == 210
    assert made.step.trouble == ""
    return made


def everything(made: Trainer) -> bytes:
    """Weights, what BatchNorm and the optimizer remember, and the costs on the way."""
    to_host = made.step.backend.to_host
    arrays = [*made.model.arrays().values(), *(to_host(array) for array in made.optimizer.state.values())]
    figures = [(r.train_loss, r.train_accuracy, r.validation_loss) for r in made.history]
    return b"".join(array.tobytes() for array in [*arrays, np.array(figures)])


# 200 steps


@pytest.mark.parametrize("name", NETWORKS)
def test_two_hundred_steps_by_graph_are_those_kernel_by_kernel_to_the_bit(backend: Backend, name: str) -> None:
    recorded, eager = (trained(name, backend, capture=capture) for capture in (True, False))
    assert recorded.step.is_recorded
    assert not eager.step.is_recorded
    assert everything(recorded) == everything(eager)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_runs_of_two_hundred_steps_are_equal_to_the_bit(backend: Backend, name: str) -> None:
    assert everything(trained(name, backend)) == everything(trained(name, backend))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("float64", 1e-10)])
def test_two_hundred_steps_give_the_numbers_of_the_cpu(backend: Backend, name: str, dtype: str, bound: float) -> None:
    """Sums are made in another order, and what that changes in the last digit grows from step to step."""
    ours, theirs = (trained(name, device, dtype) for device in (backend, "cpu"))
    expected = theirs.model.parameters.to_host()
    for parameter, value in ours.model.parameters.to_host().items():
        size = max(float(np.abs(expected[parameter]).max()), 0.1)
        assert np.abs(value - expected[parameter]).max() < bound * size, parameter
    costs = np.array([[r.train_loss for r in made.history] for made in (ours, theirs)])
    np.testing.assert_allclose(costs[0], costs[1], rtol=bound)
    assert costs[0][-1] < 0.6 * costs[0][0]  # that two networks which stand still agree would say nothing


@pytest.mark.parametrize("steps", [2, 3, 8, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_several_steps_as_one_graph_are_those_of_one_each_to_the_bit(backend: Backend, name: str, steps: int) -> None:
    """Also past the end of a graph, of an epoch, and to a look at the network."""
    results = []
    for count in (1, steps):
        made = trainer(name, backend, epochs=3, validate_every=17)
        made.step.steps_per_graph = count
        made.run()
        assert made.step.trouble == ""
        results.append(everything(made))
    assert results[0] == results[1]


# The same bits as on the CPU


def test_what_is_drawn_is_the_same_on_both_devices_to_the_bit(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(33, 20)).astype(np.float32)
    drawn = []
    for device in (select("cpu"), backend):
        dropout = gn.Sequential([gn.Dropout(0.4)]).build((20,), 33, device, seed=9)
        weights = gn.Sequential([gn.Dense(7), gn.ReLU(), gn.Dense(3)]).build((20,), 33, device, seed=9)
        drawn.append([device.to_host(dropout.forward(x, training=True)), *weights.parameters.to_host().values()])
    for ours, theirs in zip(*drawn, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert 0.3 < np.mean(drawn[0][0] == 0) < 0.5


@pytest.mark.parametrize("augmentation", [None, gn.Augmentation(shift=1, rotation=20, scale=0.1, shear=0.1)])
def test_shuffled_batches_are_the_same_on_both_devices_to_the_bit(backend: Backend, augmentation: Any) -> None:
    samples = gn.load_data("digits").train.first(70)
    order = epoch_order(70, seed=5, epoch=2)
    seen = []
    for device in (select("cpu"), backend):
        batches = DataLoader(device, samples, "float32", augmentation, 3)
        batches.start(16, order)
        clock = device.asarray(np.array([-1, -1, 2, 12], np.int32))
        rows = device.zeros((16, 64), np.float32)
        targets = batches.take(clock, 16, rows)
        seen.append((device.to_host(rows), device.to_host(targets), device.to_host(clock)))
    for ours, theirs in zip(*seen, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(seen[1][1], samples.targets[order[32:48]])


# Precision and memory

BOUNDS = {"float32": 2.0**-20, "tf32": 2.0**-10, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def error_of_a_product(backend: Backend, precision: str) -> float:
    """The largest, as a share of the sum of its absolute terms."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(64, 64)).astype(np.float32) for _ in range(2))
    c = backend.zeros((64, 64), np.float32)
    select(backend.device, precision).gemm(1.0, backend.asarray(a), backend.asarray(b), 0.0, c)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    terms = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    return float(np.max(np.abs(backend.to_host(c) - exact) / terms))


@pytest.mark.parametrize("precision", BOUNDS)
def test_the_error_of_a_product_is_that_of_its_precision(backend: Backend, precision: str) -> None:
    assert error_of_a_product(backend, precision) <= BOUNDS[precision]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_takes_no_memory(backend: Backend, name: str) -> None:
    made = trainer(name, backend)
    step, n = made.step, len(made.data.train)
    for rate in (0.1, 0.01):  # in which everything is made: by graph and without, and for a short batch
        step.start_epoch(epoch_order(n, seed=0, epoch=0), np.full(step.steps_per_epoch, rate))
        step(20)
        step(n - 20)
    step.start_epoch(epoch_order(n, seed=0, epoch=1), np.full(step.steps_per_epoch, 0.01))

    def refuse(nbytes: int) -> Any:
        raise AssertionError(f"{nbytes} bytes were asked for in a step")

    with backend.cupy.cuda.using_allocator(refuse):  # type: ignore[attr-defined]
        step(20)
        step.compute(20)
        step.batches.advance(20)
        step(n - 40)
        with pytest.raises(AssertionError, match="40 bytes were asked for in a step"):
            backend.empty((10,), np.float32)


def test_a_network_that_does_not_fit_is_refused_in_one_line_and_the_device_is_usable_after(backend: Backend) -> None:
    data = gn.load_data("digits")
    huge = gn.Sequential([gn.Dense(1 << 22), gn.ReLU(), gn.Dense(1 << 22), gn.ReLU(), gn.Dense(10)])
    with pytest.raises(MemoryShortageError, match=r"out of memory on cuda:0: .* GiB were free: take a ") as caught:
        huge.fit(data, device=backend, progress=False)
    one_line(caught.value)
    model = gn.Sequential(dense())
    model.fit(gn.Data.from_samples(data.train.first(100), validation=0), epochs=1, device=backend, batch_size=50,
              progress=False)  # fmt: skip
    assert np.isfinite(model.predict_proba(data.validation.inputs[:5] / 16)).all()
