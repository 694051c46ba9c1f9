"""What only a GPU can answer about gpunn, as small experiments; prints a table and writes JSON.

python benchmarks/gpu_questions.py [FOLDER]     # the JSON goes to FOLDER, else to $OUT, else to benchmarks/results
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import command, machine

import gpunn as gn
from gpunn.backend import CupyBackend, select
from gpunn.kernels import activations, linear
from gpunn.kernels.random import epoch_order
from gpunn.training import Trainer

Answer = tuple[str, float, str]
"""A question, a figure and its unit."""


def seconds(backend: CupyBackend, work: Callable[[], Any], times: int) -> float:
    """Of one call among many, from start to the end of the work on the device; the median of five rounds."""
    work()
    rounds = []
    for _ in range(5):
        backend.synchronize()
        begun = time.perf_counter()
        for _ in range(times):
            work()
        backend.synchronize()
        rounds.append((time.perf_counter() - begun) / times)
    return median(rounds)


def host_seconds(backend: CupyBackend, work: Callable[[], Any], times: int) -> float:
    """What one call costs the host, which does not wait for the device."""
    work()
    rounds = []
    for _ in range(5):
        backend.synchronize()
        begun = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append((time.perf_counter() - begun) / times)
        backend.synchronize()
    return median(rounds)


def products(backend: CupyBackend) -> Iterator[Answer]:
    """Is a product of cuBLAS captured on a stream of CuPy, and does its replay give the same numbers?"""
    rng = np.random.default_rng(0)
    a, b = (backend.asarray(rng.normal(size=(128, 128)), np.float32) for _ in range(2))
    eager, replayed = backend.zeros((128, 128), np.float32), backend.zeros((128, 128), np.float32)
    backend.gemm(1.0, a, b, 0.0, eager)
    replay = backend.capture(lambda: backend.gemm(1.0, a, b, 0.0, replayed))
    replay()
    backend.assign(a, 2 * backend.to_host(a))  # a replay reads what is there now, not what was there
    replay()
    difference = np.abs(backend.to_host(replayed) - 2 * backend.to_host(eager)).max()
    yield "captured product: largest difference from an eager one", float(difference), ""
    for size in (1024, 8192):
        x, y = (backend.asarray(rng.normal(size=(size, size)), np.float32) for _ in range(2))
        z = backend.zeros((size, size), np.float32)
        for precision in ("float32", "tf32", "bfloat16"):
            there = select(backend.device, precision)
            took = seconds(backend, lambda there=there, x=x, y=y, z=z: there.gemm(1.0, x, y, 0.0, z), 5)
            yield f"product of {size}² in {precision}", 2 * size**3 / took / 1e12, "TFLOP/s"


def launches(backend: CupyBackend) -> Iterator[Answer]:
    """What do launches and replays cost?"""
    z = backend.zeros((128, 128), np.float32)
    total = backend.zeros((128,), np.float32)

    def elementwise() -> None:
        backend.run(activations.relu, z, z)

    def raw() -> None:
        backend.run(linear.row_sums, z, total)

    def product() -> None:
        backend.gemm(1.0, z, z.T, 0.0, other)

    other = backend.zeros((128, 128), np.float32)
    for name, work in (("element-wise kernel", elementwise), ("raw kernel", raw), ("product", product)):
        yield f"host time of one {name}", host_seconds(backend, work, 200) * 1e6, "µs"
    costs = []
    for nodes in (1, 10, 100):
        elementwise()
        replay = backend.capture(lambda nodes=nodes: [elementwise() for _ in range(nodes)] and None)
        costs.append(seconds(backend, replay, 200))
        yield f"replay of a graph of {nodes} kernels", costs[-1] * 1e6, "µs"
    yield "one node more in a replay", (costs[2] - costs[1]) / 90 * 1e6, "µs"


def bandwidth(backend: CupyBackend) -> Iterator[Answer]:
    """How near do element-wise kernels come to a copy?"""
    size = 2**26  # 256 MB of float32
    x, y = (backend.zeros((size,), np.float32) for _ in range(2))
    copy = seconds(backend, lambda: backend.assign(y, x), 10)
    yield "copy of 256 MB, read + written", 2 * x.nbytes / copy / 1e9, "GB/s"
    for kernel in (activations.relu, activations.sigmoid):
        took = seconds(backend, lambda kernel=kernel: backend.run(kernel, x, y), 10)
        yield f"{kernel.name} of 256 MB, share of the copy's bandwidth", copy / took, ""


def steps(backend: CupyBackend) -> Iterator[Answer]:
    """What does a training step cost, kernel by kernel and replayed?"""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20_000, 28, 28, 1)).astype(np.uint8)
    data = gn.Data.from_arrays(images, rng.integers(0, 10, len(images)), validation=0)
    conv = [gn.Conv2D(20, 5), gn.ReLU(), gn.MaxPool2D(), gn.Conv2D(40, 5), gn.ReLU(), gn.MaxPool2D(), gn.Flatten()]
    networks: dict[str, list[Any]] = {
        "784-128-10": [gn.Dense(128), gn.ReLU(), gn.Dense(10)],
        "784-512-512-10": [gn.Dense(512), gn.ReLU(), gn.Dense(512), gn.ReLU(), gn.Dense(10)],
        "lenet": [*conv, gn.Dense(100), gn.ReLU(), gn.Dense(10)],
    }
    for name, layers in networks.items():
        for capture in (False, True):
            model = gn.Sequential(layers)
            trainer = Trainer(
                model, data, optimizer=gn.SGD(0.01), batch_size=128, device=backend, capture=capture, progress=False
            )
            step = trainer.step

            def epoch(step: Any = step) -> None:
                step.start_epoch(epoch_order(len(images), seed=0, epoch=0), np.full(step.steps_per_epoch, 0.01))
                for _ in range(100):
                    step(128)

            took = seconds(backend, epoch, 1) / 100
            how = "replayed" if capture else "kernel by kernel"
            yield f"step of {name}, batch 128, {how}", took * 1e6, "µs"
            if step.trouble:
                yield f"{name} could not be captured: {step.trouble}", float("nan"), ""
            model.backend = None


def main() -> None:
    backend = select("cuda")
    assert isinstance(backend, CupyBackend)
    answers: list[Answer] = []
    for question in (products, launches, bandwidth, steps):
        try:
            answers += question(backend)
        except Exception as error:  # noqa: BLE001 - one question that fails must not silence the others
            answers.append((f"{question.__name__} failed: {type(error).__name__}: {error}", float("nan"), ""))
    for what, value, unit in answers:
        print(f"{what:70} {value:12.4g} {unit}")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("OUT", Path(__file__).parent / "results"))
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "command": command(),
        "machine": machine() | {"device": backend.description},
        "answers": [{"what": what, "value": value, "unit": unit} for what, value, unit in answers],
    }
    (folder / "gpu-questions.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
