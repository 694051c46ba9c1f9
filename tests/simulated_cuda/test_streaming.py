"""Samples that are streamed to the device: the same bits in every order in which a device may copy and compute."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import without_pictures

import gpunn as gn
from gpunn.backend import devices as module
from gpunn.backend.devices import select
from gpunn.data import loader
from gpunn.errors import MemoryShortageError
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment
from simulated_cuda.core import AT_ONCE, LATE, WAITS, Core
from simulated_cuda.test_cuda_path import NETWORKS, Network, data, distance, trained

SMALL = Network(lambda: [gn.Dense(12), gn.ReLU(), gn.Dense(10)], lambda: gn.SGD(0.1, momentum=0.9))
AUGMENTED = Network(
    lambda: [gn.Conv2D(3, 5, stride=3), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dropout(0.2), gn.Dense(10)],
    lambda: gn.Adam(0.01),
    images=True,
    options={"augmentation": gn.Augmentation(shift=2, rotation=15), "recompute_statistics": True},
)

# As late as possible, as soon as may be, and mixed.
ORDERS = (LATE, AT_ONCE, *range(1, 13))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two batches, so that an epoch of ten has five and a short one."""
    monkeypatch.setattr(loader, "PIECE", 2 * 16 * 784)


def weights(network: Network, **options: Any) -> bytes:
    # Nobody looks before the end of an epoch: a look waits for the device, and so mends what is missing.
    model, _ = trained(network, "cuda", **{"epochs": 2, "validate_every": 1000, **options})
    return model.backend.to_host(model.parameters.values).tobytes()


# The same bits


@pytest.mark.parametrize(
    ("name", "capture"), [*((name, True) for name in NETWORKS), ("784-128-10", False), ("784-30-10, adam", False)]
)
def test_streamed_samples_train_to_the_bits_of_samples_on_the_device(cuda: Core, name: str, capture: bool) -> None:
    network = NETWORKS[name]
    options = {"epochs": 1 if network.images else 2, "capture": capture}
    resident, expected = trained(network, "cuda", **options, data_on="device")
    cuda.set_order(2)
    streamed, history = trained(network, "cuda", **options, data_on="host")
    assert distance(streamed, resident) == 0
    assert [r.train_loss for r in history] == [r.train_loss for r in expected]
    assert [r.validation_loss for r in history] == [r.validation_loss for r in expected]


@pytest.mark.parametrize("network", [SMALL, AUGMENTED], ids=["plain", "augmented"])
def test_streamed_samples_train_to_the_same_bits_in_every_order_of_copies_and_kernels(
    cuda: Core, network: Network
) -> None:
    expected = weights(network, data_on="device")
    for order in ORDERS:
        cuda.set_order(order)
        assert weights(network, data_on="host") == expected, f"order {order}"


def test_several_steps_as_one_graph_stay_within_a_piece(cuda: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights(SMALL, data_on="device")
    monkeypatch.setattr(loader, "PIECE", 9 * 16 * 784)  # of ten batches: a graph of eight, one, and one
    for order in ORDERS[:6]:
        cuda.set_order(order)
        cuda.reset()
        assert weights(SMALL, data_on="host") == expected, f"order {order}"
        assert cuda.count("cudaGraphLaunch") == 2 + 3  # the very first step is run kernel by kernel


# Larger than the device


def test_data_larger_than_the_memory_of_the_device_train_to_the_numbers_of_the_cpu(cuda: Core, said: list[str]) -> None:
    source = data(shape=(4096,), samples=1600, validation=100)

    def network() -> gn.Sequential:
        return gn.Sequential([gn.Dense(16), gn.ReLU(), gn.Dense(10)])

    options: dict[str, Any] = {"epochs": 1, "batch_size": 50, "optimizer": gn.SGD(0.01, 0.9), "progress": False}
    expected = network()
    expected.fit(source, device="cpu", **options)
    reference = expected.parameters.to_host()
    # Of which cuBLAS takes 32 MiB, the buffers for 256 samples 4 MiB, and the data would take 6.
    with cuda.memory(40 * 2**20), pytest.MonkeyPatch.context() as fresh:
        fresh.setattr(module, "_made", cache(module._made.__wrapped__))
        cuda.set_order(3)
        free = select("cuda").free_bytes()
        assert source.train.inputs.nbytes < free  # before the network is there, which takes its share
        model = network()
        model.fit(source, device="cuda", **options)
        assert said[0].startswith("data on the host: 5.9 MiB, streamed from memory to cuda:0, where ")
        for name, value in model.parameters.to_host().items():
            np.testing.assert_allclose(value, reference[name], atol=1e-4)
        assert model.evaluate(source.train).accuracy > 0.5
        with pytest.raises(MemoryShortageError, match=r'data_on="auto", which streams the data'):
            network().fit(source, device="cuda", data_on="device", **options)


@pytest.mark.parametrize("data_on", ["auto", "host"])
def test_a_run_says_where_its_data_lie_and_what_they_take(
    cuda: Core, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, data_on: str
) -> None:
    without_pictures(monkeypatch)
    experiment = read_experiment("mlp").with_options(device="cuda", epochs=1, data_on=data_on)
    experiment = replace(experiment, data=replace(experiment.data, limit=400))
    said: list[str] = []
    run.train(experiment, tmp_path / "run", said.append, progress=False)
    # 360 and 40 of 64 bytes, each with a label and a place in the order, of four bytes.
    where, on = ("cuda:0", "") if data_on == "auto" else ("the host", ", streamed from memory to cuda:0")
    assert f"data on     {where}: 25.3 KiB{on}; for validation {where}: 2.8 KiB{on}" in said
    assert f'data_on = "{data_on}"' in (tmp_path / "run" / "experiment.toml").read_text("utf-8")


# Caught


def test_a_copy_brings_what_is_there_when_it_is_made(cuda: Core) -> None:
    backend = select("cuda")
    cuda.set_order(0)
    x = backend.zeros((4,), np.float32)
    staging = backend.staging(x)
    staging.host[0][:] = 1
    staging.upload(4)
    staging.host[0][:] = 2  # without a claim: too early
    np.testing.assert_array_equal(backend.to_host(x), [2, 2, 2, 2])
    staging.claim()
    staging.host[0][:] = 3
    staging.upload(2)
    np.testing.assert_array_equal(backend.to_host(x), [3, 3, 2, 2])
    staging.host[0][:] = 4
    staging.upload(4)
    np.testing.assert_array_equal(backend.to_host(x), [4, 4, 4, 4])


# Beside the computing


def test_the_next_piece_is_gathered_while_the_device_computes(cuda: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is as slow as can be, the host is ahead of it by the steps of a piece."""
    done: list[tuple[int, int]] = []
    stage = loader.StreamingLoader._stage

    def watched(self: Any, *arguments: Any) -> None:
        if self.size == len(data().train):
            done.append((cuda.count("cudaGraphLaunch"), cuda.count("kernel momentum_sgd")))
        stage(self, *arguments)

    monkeypatch.setattr(loader.StreamingLoader, "_stage", watched)
    cuda.set_order(LATE)
    trained(SMALL, "cuda", epochs=1, data_on="host", validate_every=1000)
    assert len(done) == 5
    # But for the first piece, and the second, before which the first step's cost was read.
    assert all(given - computed >= 1 for given, computed in done[2:]), done


def test_streaming_allocates_nothing_and_waits_once_a_piece(cuda: Core) -> None:
    from gpunn.kernels.random import epoch_order
    from gpunn.train.arguments import TrainOptions
    from gpunn.train.trainer import Trainer

    source = data()
    model = gn.Sequential(SMALL.layers())
    trainer = Trainer(model, TrainOptions(batch_size=16, device="cuda", data_on="host", progress=False), source)
    step, n = trainer.step, len(source.train)
    for epoch in range(2):
        cuda.reset()
        step.start_epoch(epoch_order(n, seed=0, epoch=epoch), np.full(step.steps_per_epoch, 0.1))
        begun = cuda.count("cudaMalloc")
        for number in range(step.steps_per_epoch):
            step(min(16, n - 16 * number))
    assert cuda.count("cudaMalloc") == begun
    assert sum(cuda.counts(*WAITS).values()) == 1 + 5  # for the rates, and for each piece of two steps
    assert cuda.count("cudaGraphLaunch") == n // 16
