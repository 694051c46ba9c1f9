"""Define the workloads: networks, batches, weights and orders, written to a folder that every worker reads.

No measured library draws anything here: weights come from NumPy, the order of the samples from
`gpunn.kernels.random.epoch_order`, so all peers do the same arithmetic on the same samples.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config import from_config
from gpunn.data import load_data
from gpunn.data.download import user_cache
from gpunn.errors import GpunnError
from gpunn.experiments.experiment import read_experiment, with_units
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Layer
from gpunn.train.schedules import OneCycle

Shape = tuple[int, int, int]
CHECKED = 2_000
"""Samples whose cost is compared after the work."""
OURS = ("apart", "scale", "agreement", "accuracy_agreement")
"""What of a workload is no business of the workers."""
AVAILABLE = {(28, 28, 1): 60_000, (32, 32, 3): 10_000}
"""Training images of each shape."""


@dataclass(frozen=True)
class Workload:
    """Something that every peer does.

    Args:
        name: of the work.
        group: what `bench.py` is asked for.
        kind: "steps" (training steps, the gather of the batch from bytes included), "predict" (answers for `samples`
            images, `steps` times over), or "train" (from bytes in host memory to the test result; a seed a round).
        layers: as in experiment files.
        shape: (height, width, channels) of an image.
        batch: samples of a minibatch.
        steps: that are timed together.
        samples: of the data set; 0 for as many as the steps need.
        rate: η.
        momentum: Nesterov's, 0 for plain gradient descent.
        decay: λ/n of L2, for weights only.
        peak: of a one-cycle schedule, in place of `rate`.
        agreement: how far the cost after the work may lie from the middle of all peers, as a share.
        accuracy_agreement: how far the accuracy after the work may.
        apart: a fresh process for every round, timed from its start to the end of the work.
    """

    name: str
    group: str
    layers: tuple[dict[str, Any], ...]
    kind: str = "steps"
    shape: Shape = (28, 28, 1)
    batch: int = 128
    steps: int = 468
    samples: int = 0
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0
    peak: float = 0.0
    agreement: float = 0.01
    accuracy_agreement: float = 0.01
    apart: bool = False
    scale: dict[str, float] = field(default_factory=dict)
    """For work that is one point of a curve: the quantities that grow, such as {"width": 512}."""

    @property
    def is_profiled(self) -> bool:
        """Whether the docs show where the time of its steps goes: not for every point of a curve."""
        return self.kind != "predict" and not self.apart and not self.scale


def dense(*units: int) -> tuple[dict[str, Any], ...]:
    """Build fully-connected layers with ReLU between them."""
    layers: list[dict[str, Any]] = []
    for size in units:
        layers += [{"type": "Dense", "units": size}, {"type": "ReLU"}]
    return tuple(layers[:-1])


def recipe(name: str) -> tuple[dict[str, Any], ...]:
    """Read the layers of a recipe, for ten classes."""
    return tuple(with_units(layer, 10) for layer in read_experiment(name).layers)


def layers_of(layers: Sequence[dict[str, Any]]) -> list[Layer]:
    """Build layers from their tables in an experiment file."""
    return [from_config("layer", layer) for layer in layers]


def padded_alike(layers: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Layers whose strides pad by one number on each side: "same" puts zeros where PyTorch's convolutions have none."""
    found = []
    for layer in layers:
        inner = {"layers": list(padded_alike(layer["layers"]))} if "layers" in layer else {}
        strided = {"padding": layer["size"] // 2} if layer.get("stride", 1) > 1 else {}
        found.append({**layer, **inner, **strided})
    return tuple(found)


def three_by_three() -> tuple[dict[str, Any], ...]:
    """3×3 convolutions of 64, 128 and 256 filters, each with ReLU, BatchNorm and pooling."""
    layers: list[dict[str, Any]] = []
    for filters in (64, 128, 256):
        layers.append({"type": "Conv2D", "filters": filters, "size": 3, "padding": "same"})
        layers += [{"type": "ReLU"}, {"type": "BatchNorm"}, {"type": "MaxPool2D"}]
    return (*layers, {"type": "Flatten"}, {"type": "Dense", "units": 10})


def separable() -> tuple[dict[str, Any], ...]:
    """Depthwise filters of 3×3, each followed by 1×1 that mix the channels, as in a MobileNet, with BatchNorm."""
    layers: list[dict[str, Any]] = [{"type": "Conv2D", "filters": 32, "size": 3, "padding": "same"}]
    channels = 32
    for filters in (64, 128, 256):
        layers += [{"type": "BatchNorm"}, {"type": "ReLU"}, {"type": "MaxPool2D"}]
        layers.append({"type": "Conv2D", "filters": channels, "size": 3, "padding": "same", "groups": channels})
        layers += [{"type": "BatchNorm"}, {"type": "ReLU"}, {"type": "Conv2D", "filters": filters, "size": 1}]
        channels = filters
    return (*layers, {"type": "BatchNorm"}, {"type": "ReLU"}, {"type": "Flatten"}, {"type": "Dense", "units": 10})


def workloads() -> list[Workload]:
    """List all workloads, the quick ones first."""
    nets = {"784-30-10": dense(30, 10), "784-128-10": dense(128, 10), "784-512-512-10": dense(512, 512, 10)}
    found = [Workload(f"{name}, batch 128", "dense", layers) for name, layers in nets.items()]
    found += [
        Workload(f"{name}, batch 1024", "dense", layers, batch=1024, steps=58, rate=0.2)
        for name, layers in nets.items()
    ]
    lenet, lenet_bn = recipe("lenet"), recipe("lenet-bn")
    # What is dropped out differs from library to library, so what they learn agrees only roughly.
    thinned = {"agreement": 0.25, "accuracy_agreement": 0.05}
    found += [
        Workload("lenet, batch 128", "conv", lenet, steps=40, rate=0.05),
        Workload("lenet-bn, batch 128", "conv", lenet_bn, steps=24, rate=0.05, **thinned),
        Workload("lenet, batch 1024", "conv1024", lenet, batch=1024, steps=4, rate=0.1),
        Workload("lenet-bn, batch 1024", "conv1024", lenet_bn, batch=1024, steps=3, rate=0.1, **thinned),
        Workload(
            "3×3 64-128-256 on 32×32×3, batch 128", "deep", three_by_three(), shape=(32, 32, 3), steps=4, rate=0.02,
            agreement=0.05, accuracy_agreement=0.05,
        ),
        Workload(
            "depthwise 3×3 and 1×1, 64-128-256 on 32×32×3, batch 128", "deep", separable(), shape=(32, 32, 3), steps=8,
            rate=0.02, agreement=0.05, accuracy_agreement=0.05,
        ),
        Workload(
            "resnet on 32×32×3, batch 128", "resnet", padded_alike(recipe("resnet")), shape=(32, 32, 3), steps=6,
            rate=0.02, agreement=0.05, accuracy_agreement=0.05,
        ),
    ]  # fmt: skip
    for name, layers, times in (("784-128-10", nets["784-128-10"], 2000), ("lenet", lenet, 300)):
        found += [
            Workload(f"{name}, predicting one image", "predict", layers, "predict", samples=1, steps=times),
            Workload(f"{name}, predicting 10,000", "predict", layers, "predict", samples=10_000, steps=times // 100),
        ]
    found.append(Workload("start to the first step, 784-128-10", "start", nets["784-128-10"], steps=1, apart=True))
    fast = read_experiment("fast99")
    assert fast.regularizer is not None
    found.append(
        Workload(
            "fast99: MNIST from bytes to the test result", "fast99", recipe("fast99"), "train",
            batch=fast.training.batch_size, samples=60_000, momentum=fast.optimizer["momentum"],
            peak=fast.optimizer["learning_rate"]["peak"], decay=fast.regularizer["strength"] / 60_000, agreement=0.25,
            accuracy_agreement=0.003,
        )
    )  # fmt: skip
    return found + growing()


def on_device(workload: Workload, device: str) -> Workload:
    """Set the number of steps to time on a device: on a GPU an epoch, of convolutions too."""
    if device == "cpu" or workload.kind != "steps" or workload.apart or workload.scale:
        return workload
    return replace(workload, steps=AVAILABLE[workload.shape] // workload.batch)


def quickened(workload: Workload) -> Workload:
    """Cut the work to a twentieth, to see that it runs; its times mean nothing."""
    steps, samples = max(1, workload.steps // 20), workload.samples // 20 or workload.samples
    # After so few steps accuracies lie further apart where something was dropped out.
    return replace(workload, steps=steps, samples=samples, accuracy_agreement=max(0.2, workload.accuracy_agreement))


def growing() -> list[Workload]:
    """784-128-10 at batch 128, with one quantity growing at a time; about as many images each."""

    def one(what: str, value: int, layers: tuple[dict[str, Any], ...], batch: int, steps: int) -> Workload:
        name = f"growth with {what}: {value:,}"
        return Workload(
            name,
            "growth",
            layers,
            batch=batch,
            steps=steps,
            rate=0.02,
            scale={what: value},
            agreement=0.05,
            accuracy_agreement=0.05,
        )

    found = [one("batch", b, dense(128, 10), b, max(4, 16_384 // b)) for b in (16, 64, 256, 1024, 4096)]
    found += [one("width", w, dense(w, 10), 128, max(8, 12_800 // w)) for w in (32, 128, 512, 2048)]
    found += [one("depth", d, dense(*[128] * d, 10), 128, max(16, 128 // d)) for d in (1, 2, 4, 8, 16)]
    return found + [one("data", n, dense(128, 10), 128, n // 128) for n in (1024, 4096, 16_384, 57_344)]


def images(shape: Shape) -> tuple[dict[str, NDArray[Any]], str]:
    """Training and test images as bytes with their labels, and what they are: MNIST where it is found, else random."""
    # Only where it lies already: nobody's benchmark begins with a download.
    if shape == (28, 28, 1) and (os.environ.get("GPUNN_DATA") or (user_cache() / "mnist").is_dir()):
        with suppress(GpunnError):
            data = load_data("mnist", validation=0)
            assert data.test is not None
            found = {
                "inputs": data.train.inputs,
                "labels": data.train.targets,
                "test-inputs": data.test.inputs,
                "test-labels": data.test.targets,
            }
            return found, "MNIST"
    rng = np.random.Generator(np.random.Philox(7))
    made = {}
    for name, count in (("", AVAILABLE[shape]), ("test-", 10_000)):
        made[f"{name}inputs"] = rng.integers(0, 256, (count, *shape), np.uint8)
        made[f"{name}labels"] = rng.integers(0, 10, count, np.int32)
    return made, "random bytes (speed does not depend on the values)"


def is_of_images(layers: Sequence[dict[str, Any]]) -> bool:
    """Return whether a network takes images, not features."""
    return any(layer["type"] in ("Flatten", "GlobalAveragePool2D") for layer in layers)


def weights(layers: Sequence[dict[str, Any]], shape: Shape, seed: int) -> dict[str, NDArray[np.float32]]:
    """He's initial weights, biases 0, BatchNorm's γ 1 and β 0, by the place of the layer: "0.w", "0.b", "3.0.w", …"""
    rng = np.random.Generator(np.random.Philox(seed))
    made: dict[str, NDArray[np.float32]] = {}

    def draw(place: str, has_bias: bool, *size: int) -> None:
        deviation = math.sqrt(2 / math.prod(size[1:]))
        made[f"{place}.w"] = (rng.standard_normal(size) * deviation).astype(np.float32)
        if has_bias:
            made[f"{place}.b"] = np.zeros(size[0], np.float32)

    def of(layers: Sequence[dict[str, Any]], shape: tuple[int, ...], before: str) -> tuple[int, ...]:
        for number, layer in enumerate(layers):
            place, kind = f"{before}{number}", layer["type"]
            if kind == "Dense":
                draw(place, True, layer["units"], *shape)
                shape = (layer["units"],)
            elif kind == "Conv2D":
                filters, size, stride = layer["filters"], layer["size"], layer.get("stride", 1)
                draw(place, layer.get("bias") is not False, filters, shape[-1] // layer.get("groups", 1), size, size)
                padding = layer.get("padding", 0)
                cut = 0 if padding == "same" else size - 1 - 2 * padding
                shape = (*(-(-(side - cut) // stride) for side in shape[:2]), filters)
            elif kind == "MaxPool2D":
                shape = (shape[0] // 2, shape[1] // 2, shape[2])
            elif kind == "Flatten":
                shape = (math.prod(shape),)
            elif kind == "GlobalAveragePool2D":
                shape = shape[2:]
            elif kind == "BatchNorm":
                made[f"{place}.gamma"] = np.ones(shape[-1], np.float32)
                made[f"{place}.beta"] = np.zeros(shape[-1], np.float32)
            elif kind == "Residual":
                inner = of(layer["layers"], shape, f"{place}.")
                if inner != shape:
                    draw(f"{place}.projection", False, inner[-1], shape[-1], 1, 1)
                shape = inner
        return shape

    of(layers, shape if is_of_images(layers) else (math.prod(shape),), "")
    return made


def prepare(workload: Workload, folder: Path, seeds: Sequence[int], data: dict[str, NDArray[Any]]) -> None:
    """Write everything that a worker needs into a folder."""
    count = workload.samples or workload.batch * workload.steps
    if workload.kind == "predict":
        count = min(count, len(data["test-inputs"]))
        np.save(folder / "inputs.npy", data["test-inputs"][:count])
        np.save(folder / "labels.npy", data["test-labels"][:count])
    else:
        count = min(count, len(data["inputs"]))
        np.save(folder / "inputs.npy", data["inputs"][:count])
        np.save(folder / "labels.npy", data["labels"][:count])
    if workload.kind == "train":
        np.save(folder / "test-inputs.npy", data["test-inputs"])
        np.save(folder / "test-labels.npy", data["test-labels"])
    steps = -(-count // workload.batch)
    rates = np.full(steps, workload.rate)
    if workload.peak:
        rates = OneCycle(workload.peak).rates(np.arange(steps) / steps, 1)
    np.save(folder / "rates.npy", rates)
    for seed in seeds:
        np.save(folder / f"order-{seed}.npy", epoch_order(count, seed=seed, epoch=0))
        np.savez(folder / f"weights-{seed}.npz", **weights(workload.layers, workload.shape, seed))
    task = {key: value for key, value in asdict(workload).items() if key not in OURS}
    (folder / "task.json").write_text(json.dumps(task | {"checked": CHECKED}), "utf-8")
