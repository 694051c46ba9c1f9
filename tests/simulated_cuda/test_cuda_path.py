"""The whole CUDA path on the simulated device: networks trained, recorded, evaluated and saved as on the CPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpunn as gn
from gpunn.backend import driver
from gpunn.backend.devices import select
from gpunn.cli import doctor
from gpunn.data.loader import place
from gpunn.errors import DeviceError
from gpunn.experiments.experiment import read_experiment
from gpunn.kernels.random import epoch_order
from gpunn.train.step import Step
from gpunn.train.trainer import Trainer
from simulated_cuda.core import Core

STEPS = 50


class Network(NamedTuple):
    """What is trained on both devices for 50 steps."""

    layers: Callable[[], list[gn.Layer]]
    optimizer: Callable[[], gn.Optimizer]
    images: bool = False
    batch_size: int = 16
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    # How far float32 weights may be apart after 50 steps. Rounding differs from the first step on (sums in another
    # order), and grows with the steps; a wrong step is wrong in the first digits.
    bound: float = 1e-3


def with_batchnorm() -> list[gn.Layer]:
    return [
        *(gn.Conv2D(6, 5, padding=2), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2)),
        *(gn.Conv2D(16, 5), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2)),
        *(gn.Flatten(), gn.Dense(120), gn.ReLU(), gn.Dense(84), gn.ReLU(), gn.Dense(10)),
    ]


def in_groups() -> list[gn.Layer]:
    return [
        *(gn.Conv2D(8, 5, 3, 2), gn.ReLU(), gn.Conv2D(8, padding=1, groups="depthwise"), gn.MaxPool2D(3, 2, 1)),
        *(gn.ConvTranspose2D(4, 2, 2), gn.Tanh(), gn.Conv2D(80, 3, 2, groups=2), gn.ReLU()),
        *(gn.AveragePool2D(3, 1, "same"), gn.Flatten(), gn.Dense(10)),
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
    "784-30-10, adamw": Network(
        lambda: [gn.Dense(30), gn.Tanh(), gn.Dense(10)], lambda: gn.AdamW(gn.Cosine(0.003), 0.5), bound=5e-3
    ),
    "784-30-10, batchnorm": Network(
        lambda: [gn.Dense(30), gn.BatchNorm(), gn.LeakyReLU(), gn.Dense(10)], lambda: gn.SGD(0.05, momentum=0.9)
    ),
    "convolutions, batchnorm": Network(
        with_batchnorm, lambda: gn.SGD(0.05, momentum=0.9), images=True, batch_size=8, bound=5e-3
    ),
    "groups, transposed, padded pooling": Network(
        in_groups, lambda: gn.SGD(0.02, momentum=0.9), images=True, batch_size=8, bound=5e-3
    ),
}


def data(
    images: bool = False, samples: int = 210, validation: int = 50, shape: tuple[int, ...] = (28, 28, 1)
) -> gn.Data:
    """Blurred pictures of ten kinds, as bytes: a network learns something of them in 50 steps."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (10, *shape))
    labels = rng.integers(0, 10, samples)
    inputs = (0.6 * kinds[labels] + 0.4 * rng.integers(0, 256, (samples, *shape))).astype(np.uint8)
    return gn.Data.from_arrays(inputs if images else inputs.reshape(samples, -1), labels, validation=validation)


def trained(network: Network, device: str, dtype: str = "float32", **options: Any) -> tuple[gn.Sequential, gn.History]:
    model = gn.Sequential(network.layers())
    source = data(network.images)
    epochs = -(-STEPS // -(-len(source.train) // network.batch_size))
    history = model.fit(
        source, optimizer=network.optimizer(), batch_size=network.batch_size, device=device, dtype=dtype, seed=3,
        progress=False, **{"epochs": epochs, **network.options, **options},
    )  # fmt: skip
    return model, history


def distance(model: gn.Sequential, other: gn.Sequential) -> float:
    """The largest difference of two weights, beside the largest weight of its parameter, or 0.1 if that is more.

    For a bias before BatchNorm has no gradient but rounding, so its value is nothing but that.
    """
    ours, theirs = model.parameters.to_host(), other.parameters.to_host()
    return max(float(np.abs(ours[n] - theirs[n]).max() / max(np.abs(theirs[n]).max(), 0.1)) for n in theirs)


# The device is found


def test_the_simulated_device_is_usable_and_taken(cuda: Core) -> None:
    assert driver.cuda_advice() == ""
    assert select("auto").device == "cuda:0"
    assert select("auto").reason == "a CUDA device is there"
    assert select("cuda").description == "simulated device, 2 GiB, compute capability 9.0, CuPy 14.2.0"
    assert [f.status for f in doctor.diagnose() if f.name in ("NVIDIA driver", "GPU 0", "CuPy", "nvmath")] == ["ok"] * 4


def test_a_device_that_is_not_there_is_refused(cuda: Core) -> None:
    with pytest.raises(DeviceError, match="there is no device 1, only 1"):
        select("cuda:1")


# Trained as on the CPU


@pytest.mark.parametrize("name", [name for name in NETWORKS if not NETWORKS[name].images])
def test_fifty_steps_give_the_numbers_of_the_cpu(cuda: Core, name: str) -> None:
    network = NETWORKS[name]
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
def test_in_float64_fifty_steps_agree_to_ten_digits(cuda: Core, name: str) -> None:
    network = NETWORKS[name]
    model, _ = trained(network, "cuda", "float64")
    reference, _ = trained(network, "cpu", "float64")
    assert distance(model, reference) < 1e-10


# Used and kept as on the CPU


def test_a_network_trained_on_the_device_predicts_and_evaluates_as_on_the_cpu(cuda: Core, tmp_path: Path) -> None:
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


def test_validation_batches_larger_than_those_of_the_training_leave_its_graph_alone(cuda: Core) -> None:
    """A graph writes to addresses: buffers that are made anew between its replays must not be those it writes to."""
    network = NETWORKS["784-128-10"]._replace(batch_size=4)
    replayed, history = trained(network, "cuda", validate_every=3)
    reference, expected = trained(network, "cpu", validate_every=3)
    assert distance(replayed, reference) < network.bound
    np.testing.assert_allclose([r.train_loss for r in history], [r.train_loss for r in expected], rtol=1e-3)


# What a step asks of the device


def step_of(layers: list[gn.Layer], optimizer: gn.Optimizer, images: bool, batch_size: int) -> Step:
    source, loss = data(images), gn.SoftmaxCrossEntropy()
    model = gn.Sequential(layers)
    model.build((28, 28, 1) if images else (784,), batch_size, "cuda")
    optimizer.build(model.parameters, None, len(source.train))
    step = Step(model, place(select("cuda"), source.train, "float32"), loss, optimizer, batch_size, True)
    order = epoch_order(len(source.train), seed=0, epoch=0)
    step.start_epoch(order, np.full(step.steps_per_epoch, 0.1))
    step(batch_size)  # runs once kernel by kernel, and is recorded
    assert step.trouble == ""
    return step


def recipe(name: str, device: str, *, width: int = 1, **options: Any) -> Trainer:
    """The trainer of a recipe on 800 pictures, every layer of which is so many times narrower."""
    experiment = read_experiment(name).with_options(device=device, **options)
    narrow = tuple(
        {
            key: value // width if key in ("filters", "units") and value != "outputs" else value
            for key, value in layer.items()
        }
        for layer in experiment.layers
    )
    return replace(experiment, layers=narrow).trainer(data(images=True, samples=850), progress=False)


def test_fifty_steps_of_lenet_bn_give_the_numbers_of_the_cpu(cuda: Core) -> None:
    """The recipe with all that it has, a quarter as wide; at rates that so few samples bear.

    Even so its steps make a thousand times as much of a difference, which in float32 would leave four digits.
    """
    options: dict[str, Any] = {"width": 4, "batch_size": 32, "epochs": 2, "learning_rate": 0.02, "seed": 3}
    options["dtype"] = "float64"
    ours, theirs = (recipe("lenet-bn", device, **options) for device in ("cuda", "cpu"))
    for trainer in (ours, theirs):
        trainer.run()
    assert ours.done == STEPS
    assert ours.step.is_recorded
    assert distance(ours.model, theirs.model) < 1e-9
    costs = [[record.train_loss for record in trainer.history] for trainer in (ours, theirs)]
    np.testing.assert_allclose(*costs, rtol=1e-9)
    assert costs[0][-1] < 0.6 * costs[0][0]


LAUNCHES = {"784-128-10, SGD": 10, "`lenet`": 29, "`lenet-bn`, with BatchNorm, Dropout and augmentation": 49}
"""In a recorded step, as docs/gpu.md has them; no more than 10, 30 and 60."""


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_recorded_step_is_one_graph_of_few_launches_without_allocation_copy_or_wait(cuda: Core, name: str) -> None:
    if name.startswith("`"):
        step = recipe(name.split("`")[1], "cuda", batch_size=8).step
        step.start_epoch(np.arange(step.batches.size), np.full(step.steps_per_epoch, 0.01))
        step(8)
    else:
        step = step_of([gn.Dense(128), gn.ReLU(), gn.Dense(10)], gn.SGD(0.1), False, 8)
    cuda.reset()
    with cuda.refusing():
        step(8)
    assert cuda.count("cudaGraphLaunch") == 1
    assert cuda.launches == LAUNCHES[name]


def test_the_page_about_gpus_says_how_many_launches_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text("utf-8")
    for name, count in LAUNCHES.items():
        assert f"| {name} | {count} |" in page


@pytest.mark.parametrize("name", NETWORKS)
def test_an_eager_step_allocates_copies_and_waits_for_nothing(cuda: Core, name: str) -> None:
    network = NETWORKS[name]
    step = step_of(network.layers(), network.optimizer(), network.images, 8)
    step._graphs.clear()
    step(5)  # a short batch, as the last of an epoch: its views are made now
    with cuda.refusing():
        step(8)
        step(5)
