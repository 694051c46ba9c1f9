"""Run small experiments that need a GPU; print a table and write JSON.

python benchmarks/gpu_questions.py [--small] [FOLDER]     # the JSON goes to FOLDER, else to benchmarks/results
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lt_product import LtProduct
from machine import RESULTS, command, machine, write_result
from workloads import dense, layers_of, recipe

import gpunn as gn
from gpunn.backend.cuda import CupyBackend
from gpunn.backend.devices import select
from gpunn.backend.nccl import Communicator
from gpunn.data.loader import PIECE
from gpunn.errors import DeviceError
from gpunn.kernels import activations, bias
from gpunn.kernels.random import epoch_order
from gpunn.kernels.record import Launch, Raw
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

Answer = tuple[str, float | None, str]
"""A question, a figure and its unit; NaN where it failed, None where it could not be asked."""

SIZES = (1024, 8192)
COPIED = 2**28
IMAGES = 20_000
STEPS = 96
STEPS_PER_GRAPH = (1, 2, 4, 8, 16, 32)
ROUNDS = 5
"""How large the experiments are, and of how many rounds the median is taken."""


def shrink() -> None:
    """Make all experiments so small that they show no more than that they run: a round, and in it work is done once."""
    globals().update(SIZES=(64, 512), COPIED=1 << 16, IMAGES=600, STEPS=4, STEPS_PER_GRAPH=(1, 4), PIECE=1 << 16)
    globals().update(ROUNDS=1, networks=lambda: {"784-16-10": [gn.Dense(16), gn.ReLU(), gn.Dense(10)]})


def seconds(backend: CupyBackend, work: Callable[[], Any], times: int) -> float:
    """Of one call among many, from start to the end of the work on the device; the median of the rounds."""
    return _median_round(backend, work, times, backend.synchronize)


def host_seconds(backend: CupyBackend, work: Callable[[], Any], times: int) -> float:
    """What one call costs the host, which does not wait for the device."""
    return _median_round(backend, work, times, lambda: None)


def _median_round(backend: CupyBackend, work: Callable[[], Any], times: int, end: Callable[[], None]) -> float:
    work()
    rounds, times = [], times if ROUNDS > 1 else 1
    for _ in range(ROUNDS):
        backend.synchronize()
        begun = time.perf_counter()
        for _ in range(times):
            work()
        end()
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
    for size in SIZES:
        x, y = (backend.asarray(rng.normal(size=(size, size)), np.float32) for _ in range(2))
        z = backend.zeros((size, size), np.float32)
        for precision in ("float32", "tf32", "bfloat16", "float16"):
            there = select(backend.device, precision)
            took = seconds(backend, lambda there=there, x=x, y=y, z=z: there.gemm(1.0, x, y, 0.0, z), 5)
            yield f"product of {size}² in {precision}", 2 * size**3 / took / 1e12, "TFLOP/s"


def launches(backend: CupyBackend) -> Iterator[Answer]:
    """What do launches and replays cost?"""
    z = backend.zeros((128, 128), np.float32)
    total, parts = backend.zeros((128,), np.float32), backend.zeros((128,), np.float32)
    tickets = backend.zeros((128,), np.uint32)

    def elementwise() -> None:
        backend.run(activations.relu, z, z)

    def raw() -> None:
        backend.run(bias.row_sums, z, total, parts, tickets)

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
    x, y = (backend.zeros((COPIED // 4,), np.float32) for _ in range(2))
    copy = seconds(backend, lambda: backend.assign(y, x), 10)
    what = f"of {COPIED >> 20} MiB"
    yield f"copy {what}, read + written", 2 * x.nbytes / copy / 1e9, "GB/s"
    for kernel in (activations.relu, activations.sigmoid):
        took = seconds(backend, lambda kernel=kernel: backend.run(kernel, x, y), 10)
        yield f"{kernel.name} {what}, share of the copy's bandwidth", copy / took, ""


CHASE = """
extern "C" __global__ void chase(const int* next, int steps, int* end) {
    int at = 0;
    for (int step = 0; step < steps; ++step) at = next[at];
    *end = at;
}
"""


def constants(backend: CupyBackend) -> Iterator[Answer]:
    """What are the constants of gpu_model.py here? Others are those of `launches`, `bandwidth` and `products`."""
    attributes = backend.current.attributes
    yield "multiprocessors", float(attributes["MultiProcessorCount"]), ""
    yield "clock", attributes["ClockRate"] / 1e6, "GHz"
    yield "second-level cache", attributes["L2CacheSize"] / 1e6, "MB"
    chase = Raw(
        "chase", CHASE, launch=lambda *given: Launch(1, 1, given), host=lambda *_: None, types={}, is_listed=False
    )
    end = backend.zeros((1,), np.int32)
    for place, size in (("the cache", COPIED // 128), ("memory", COPIED)):
        count, steps = size // 4, min(20_000, size // 512)
        # Each number is 128 bytes and some pages behind the one before, so that none was fetched beside it.
        following = (np.arange(count, dtype=np.int64) + 32 * 1021) % count
        chain = backend.asarray(following, np.int32)
        took = seconds(backend, lambda chain=chain, steps=steps: backend.run(chase, chain, steps, end), 3) / steps
        yield f"a load from {place} that another waits for", took * 1e6, "µs"
    x = backend.zeros((COPIED // 128,), np.float32)
    replay = backend.capture(lambda: [backend.run(activations.relu, x, x) for _ in range(10)] and None)
    yield "bandwidth of the cache, read + written", 2 * x.nbytes * 10 / seconds(backend, replay, 20) / 1e9, "GB/s"
    one = backend.zeros((1, 1), np.float32)
    replay = backend.capture(lambda: [backend.run(activations.relu, one, one) for _ in range(100)] and None)
    yield "a kernel of one number and the gap before it", seconds(backend, replay, 20) / 100 * 1e6, "µs"
    for what, m, k in (
        ("one tile", 64, 64),
        ("tiles for all multiprocessors", SIZES[0], 512),
        ("a cut sum", 64, 65_536),
    ):
        a, b = backend.zeros((m, k), np.float32), backend.zeros((k, m), np.float32)
        c = backend.zeros((m, m), np.float32)
        took = seconds(backend, lambda a=a, b=b, c=c: backend.gemm(1.0, a, b, 0.0, c), 20)
        yield f"product of {m}×{m}×{k}: {what}", 2 * m * m * k / took / 1e12, "TFLOP/s"


def digits() -> gn.Data:
    """As many bytes as MNIST has, nearly; what they show is all one."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 28, 28, 1)).astype(np.uint8)
    return gn.Data.from_arrays(images, rng.integers(0, 10, len(images)), validation=0)


def networks() -> dict[str, list[Any]]:
    """Build the layers of each network."""
    made = {"784-128-10": dense(128, 10), "784-512-512-10": dense(512, 512, 10), "lenet": recipe("lenet")}
    return {name: layers_of(layers) for name, layers in made.items()}


def time_of_a_step(
    backend: CupyBackend, layers: list[Any], data: gn.Data, at_once: int = 1, **options: Any
) -> tuple[float, str]:
    """Seconds of a step of 128 samples, so many given to the device at once; and what could not be recorded."""
    model = gn.Sequential(layers)
    trainer = Trainer(
        model, TrainOptions(optimizer=gn.SGD(0.01), batch_size=128, device=backend, progress=False, **options), data
    )
    step = trainer.step
    step.steps_per_graph = at_once
    order = epoch_order(len(data.train), seed=0, epoch=0)

    def epoch() -> None:
        step.start_epoch(order, np.full(step.steps_per_epoch, 0.01))
        for _ in range(STEPS // at_once):
            step(128 * at_once)

    epoch()  # the first step is run kernel by kernel
    took = seconds(backend, epoch, 1) / STEPS
    model.backend = None
    return took, step.trouble


def steps(backend: CupyBackend) -> Iterator[Answer]:
    """What does a training step cost, kernel by kernel and replayed?"""
    data = digits()
    for name, layers in networks().items():
        for capture in (False, True):
            took, trouble = time_of_a_step(backend, layers, data, capture=capture)
            how = "replayed" if capture else "kernel by kernel"
            yield f"step of {name}, batch 128, {how}", took * 1e6, "µs"
            if trouble:
                yield f"{name}: {trouble}", float("nan"), ""


def graphs(backend: CupyBackend) -> Iterator[Answer]:
    """How many steps should one graph have? `gpunn.train.step.STEPS_PER_GRAPH` is what is taken now."""
    data = digits()
    for name, layers in networks().items():
        for count in STEPS_PER_GRAPH:
            took, trouble = time_of_a_step(backend, layers, data, count)
            yield f"step of {name}, {count} in a graph", took * 1e6, "µs"
            if trouble:
                yield f"{name}: {trouble}", float("nan"), ""


def streamed(backend: CupyBackend) -> Iterator[Answer]:
    """What does it cost to stream the data, and does the copy go on beside the computing?"""
    piece = backend.zeros((PIECE,), np.uint8)
    staging = backend.staging(piece)

    def upload() -> None:
        staging.claim()
        staging.upload(PIECE)
        staging.release()

    yield f"copy of {PIECE >> 20} MiB from pinned memory", PIECE / seconds(backend, upload, 20) / 1e9, "GB/s"
    data = digits()
    for name, layers in networks().items():
        for place in ("device", "host"):
            took, _ = time_of_a_step(backend, layers, data, 8, data_on=place)
            yield f"step of {name}, data on the {place}", took * 1e6, "µs"


def epilogs(backend: CupyBackend) -> Iterator[Answer]:
    """Would bias and ReLU as an epilog of cublasLt be faster than in a kernel of their own, where they can be had?

    The epilog wants the bias along the contiguous axis of the result, so batch-first memory, which ours is not.
    """
    rng = np.random.default_rng(0)
    for units, inputs, batch in ((128, 784, 128), (512, 784, 128), (512, 512, 128), (4096, 4096, 1024)):
        if units > SIZES[-1]:
            continue
        w, x, b = (
            backend.asarray(rng.normal(size=s), np.float32) for s in ((units, inputs), (batch, inputs), (units, 1))
        )
        ours = backend.zeros((units, batch), np.float32)
        theirs = backend.zeros((batch, units), np.float32)

        def in_two(w: Any = w, x: Any = x, b: Any = b, ours: Any = ours) -> None:
            backend.gemm(1.0, w, x.T, 0.0, ours)
            backend.run(bias.with_bias[activations.relu].forward, b, ours)

        product = LtProduct(backend, w, x, b, theirs)
        in_two()
        product()
        expected = backend.to_host(ours).T
        scale = float(np.abs(expected).max())
        off = float(np.abs(backend.to_host(theirs) - expected).max()) / scale
        shape = f"{units}×{inputs} by batch {batch}"
        yield f"{shape}: largest difference of the epilog, of the largest value", off, ""
        for how, work in (("product, then bias and ReLU", in_two), ("cublasLt with epilog", product)):
            replay = backend.capture(lambda work=work: [work() for _ in range(10)] and None)
            yield f"{shape}: {how}, replayed", seconds(backend, replay, 50) / 10 * 1e6, "µs"


def sums(backend: CupyBackend) -> Iterator[Answer]:
    """Does a graph hold a sum over ranks by NCCL, here of one rank, and what does it cost?"""
    try:
        with backend.current:
            communicator = Communicator(backend.index)
    except DeviceError as error:
        yield f"sums over ranks were not tried: {error}", None, ""
        return
    for size in (1, 25_000, 101_770, 2_500_000):
        x = backend.asarray(np.arange(size) % 7, np.float32)

        def work(x: Any = x) -> None:
            with backend.current:
                communicator.all_reduce(x, backend.stream)

        work()
        communicator.wait(backend.stream)
        replay = backend.capture(lambda work=work: [work() for _ in range(10)] and None)
        took = seconds(backend, replay, 20) / 10
        difference = np.abs(backend.to_host(x) - np.arange(size, dtype=np.float32) % 7).max()
        yield f"sum of {4 * size} bytes over one rank, captured: largest difference", float(difference), ""
        yield f"sum of {4 * size} bytes over one rank, replayed", took * 1e6, "µs"


QUESTIONS = (products, launches, bandwidth, constants, steps, graphs, streamed, epilogs, sums)


def ask(backend: CupyBackend) -> Iterator[Answer]:
    """All answers; of a question that fails the reason, and the others all the same."""
    for question in QUESTIONS:
        try:
            yield from question(backend)
        except Exception as error:  # noqa: BLE001 - one question that fails must not silence the others
            yield f"{question.__name__} failed: {type(error).__name__}: {error}", float("nan"), ""


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--small", action="store_true", help="to see that it runs: its times say nothing")
    options = parser.parse_args()
    if options.small:
        shrink()
    backend = select("cuda")
    assert isinstance(backend, CupyBackend)
    answers, failed, skipped = [], [], []
    for what, value, unit in ask(backend):
        if value is None:
            print(what, flush=True)
            skipped.append(what)
            continue
        print(f"{what:85} {value:12.4g} {unit}", flush=True)
        if value == value:
            answers.append({"what": what, "value": value, "unit": unit})
        else:
            failed.append(what)
    about = machine() | {"device": backend.description}
    result = {"command": command(), "machine": about, "answers": answers, "failed": failed, "skipped": skipped}
    write_result(options.folder / "gpu-questions.json", result)
    return "; ".join(failed) or None


if __name__ == "__main__":
    sys.exit(main())
