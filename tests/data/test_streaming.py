"""Samples that are streamed, from memory or from a file: the same bits as samples that lie on the device."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.data import loader
from gpunn.data.loader import DataLoader, StreamingLoader, place
from gpunn.data.memmap import is_mapped
from gpunn.errors import OptionError
from gpunn.kernels.gather import NEXT_STEP


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two or three batches."""
    monkeypatch.setattr(loader, "PIECE", 900)


def samples(kind: str, n: int = 61) -> gn.Samples:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    if kind == "bytes":
        return gn.Samples(rng.integers(0, 256, (n, 20)).astype(np.uint8), labels, 1 / 255)
    if kind == "doubles":
        return gn.Samples(rng.normal(size=(n, 20)), labels)
    if kind == "colours":
        return gn.Samples(rng.integers(0, 256, (n, 4, 5, 3)).astype(np.uint8), labels, 1 / 255)
    assert kind == "regression"
    x = rng.normal(size=(n, 20)).astype(np.float32)
    return gn.Samples(x, x[:, :3] ** 2)


def network(kind: str) -> gn.Sequential:
    if kind == "colours":
        return gn.Sequential([gn.Conv2D(4, 3), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dense(3)])
    return gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(3)])


def fitted(backend: Backend, source: gn.Samples, kind: str, data_on: str, **options: Any) -> tuple[Any, ...]:
    model = network(kind)
    usual: dict[str, Any] = {"epochs": 3, "batch_size": 8, "device": backend, "progress": False, "seed": 2}
    data = gn.Data.from_samples(source, validation=13)
    history = model.fit(data, data_on=data_on, **usual | options)
    figures = [(r.train_loss, r.train_accuracy, r.validation_loss, r.validation_accuracy) for r in history]
    statistics = {name: backend.to_host(array).tobytes() for name, array in model.statistics.items()}
    return backend.to_host(model.parameters.values).tobytes(), np.array(figures).tobytes(), statistics


# The same bits


@pytest.mark.parametrize("kind", ["bytes", "doubles", "colours", "regression"])
def test_streamed_samples_give_the_same_training_to_the_bit(backend: Backend, kind: str) -> None:
    options: dict[str, Any] = {"optimizer": gn.Adam(0.01)}
    if kind == "colours":
        options |= {"augmentation": gn.Augmentation(shift=1), "recompute_statistics": True, "optimizer": gn.SGD(0.1)}
    streamed, resident = (fitted(backend, samples(kind), kind, place, **options) for place in ("host", "device"))
    assert streamed == resident


@pytest.mark.parametrize("kind", ["bytes", "doubles", "colours"])
def test_samples_of_a_file_give_the_same_training_to_the_bit(backend: Backend, tmp_path: Path, kind: str) -> None:
    source = samples(kind)
    # As in a .npz file, where arrays begin anywhere: not aligned to their elements.
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc" + source.inputs.tobytes())
    inputs = np.memmap(path, source.inputs.dtype, "r", 3, source.inputs.shape)
    mapped = gn.Samples(inputs, source.targets, source.scale)
    assert is_mapped(mapped.inputs)
    expected = fitted(backend, source, kind, "device")
    for place_name in ("auto", "device", "host"):
        assert fitted(backend, mapped, kind, place_name) == expected


@pytest.mark.parametrize("first", [0, 1, 2, 3, 7])
def test_an_epoch_may_begin_with_any_batch(backend: Backend, first: int) -> None:
    source, n, size = samples("bytes"), 61, 8
    order = np.random.default_rng(1).permutation(n).astype(np.int32)
    batches = StreamingLoader(backend, source, "float32")
    clock = backend.zeros((4,), np.int32)
    rows = backend.zeros((size, 20), np.float32)
    for _ in range(2):  # the second time after an epoch that was broken off
        batches.start(size, order, first)
        for number in range(first, 8):
            count = min(size, n - number * size)
            assert batches.available >= count
            backend.assign(clock[NEXT_STEP : NEXT_STEP + 1], number)
            targets = batches.take(clock, count, rows[:count])
            picked = order[number * size :][:count]
            expected = source.inputs[picked] * np.float32(source.scale)
            np.testing.assert_array_equal(backend.to_host(rows[:count]), expected)
            np.testing.assert_array_equal(backend.to_host(targets), source.targets[picked])
            batches.advance(count)


def test_an_evaluation_is_the_same_from_a_file(backend: Backend, tmp_path: Path) -> None:
    source = samples("bytes", 700)  # more than go through a network at once
    np.save(tmp_path / "x.npy", source.inputs)
    mapped = gn.Samples(np.load(tmp_path / "x.npy", mmap_mode="r"), source.targets, source.scale)
    model = network("bytes").build((20,), 8, backend)
    model.fit(source, epochs=1, device=backend, progress=False)
    expected = model.evaluate(source)
    assert model.evaluate(mapped) == expected
    assert model.evaluate(mapped.subset(np.arange(700))) == expected


# Where


def test_samples_in_memory_lie_on_the_device_and_those_of_a_file_are_streamed_on_the_cpu(tmp_path: Path) -> None:
    cpu, source = select("cpu"), samples("bytes")
    batches = place(cpu, source, "float32")
    assert type(batches) is DataLoader
    assert np.shares_memory(batches.rows, source.inputs)  # not copied
    assert batches.placement == ""
    np.save(tmp_path / "x.npy", source.inputs)
    mapped = gn.Samples(np.load(tmp_path / "x.npy", mmap_mode="r"), source.targets, source.scale)
    batches = place(cpu, mapped, "float32")
    assert isinstance(batches, StreamingLoader)
    assert batches.placement == "the host: 1.7 KiB, read from their file as they are used"


def test_an_unknown_place_is_refused_with_those_there_are(backend: Backend) -> None:
    with pytest.raises(OptionError, match="data_on is 'auto', 'device' or 'host', got 'disk'") as caught:
        fitted(backend, samples("bytes"), "bytes", "disk")
    one_line(caught.value)


def test_training_from_a_file_takes_the_memory_of_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MiB of images in a file, and a tenth of it in memory."""
    monkeypatch.setattr(loader, "PIECE", 1 << 20)
    n, features = 1 << 15, 1 << 12
    path = tmp_path / "x.bin"
    with path.open("wb") as file:
        file.truncate(n * features)
        for row in range(0, n, 8):
            file.seek(row * features)
            file.write(bytes([255]) * 100)
    inputs = np.memmap(path, np.uint8, "r", 0, (n, features))
    few = gn.Data.from_arrays(np.asarray(inputs[:256]), np.arange(256) % 8)  # the first training loads what it uses
    gn.Sequential([gn.Dense(8)]).fit(few, epochs=1, batch_size=64, device="cpu", optimizer=gn.SGD(0.1), progress=False)
    tracemalloc.start()
    try:
        data = gn.Data.from_arrays(inputs, (np.arange(n) % 8 == 0).astype(int))
        model = gn.Sequential([gn.Dense(2)])
        model.fit(data, epochs=1, batch_size=64, device="cpu", optimizer=gn.SGD(0.1), progress=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.evaluate(data.validation).accuracy > 0.99  # seven of eight have another label
    assert peak < n * features / 10
