"""What is said when the memory of the simulated device runs out, and what can be done afterwards."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from backend.test_limits import OPTIMIZERS

import gpunn as gn
from gpunn.backend import limits
from gpunn.backend.devices import select
from gpunn.data.loader import place
from gpunn.errors import MemoryShortageError
from gpunn.nn.footprint import count_network
from simulated_cuda.core import Core


def _network() -> gn.Sequential:
    return gn.Sequential([gn.Conv2D(8, 3), gn.ReLU(), gn.MaxPool2D(), gn.Flatten(), gn.Dense(10)])


def _images() -> gn.Data:
    rng = np.random.default_rng(0)
    return gn.Data.from_arrays(
        rng.integers(0, 256, (1000, 28, 28, 1)).astype(np.uint8), rng.integers(0, 10, 1000), validation=0
    )


def test_the_bytes_of_a_network_are_counted_without_taking_any(cuda: Core) -> None:
    backend = select("cuda")
    used = backend.cupy.get_default_memory_pool().used_bytes
    gc.collect()  # what tests before have left is not given back meanwhile
    before = used()
    layers = _network().layers
    counted = count_network(layers, (8, 8, 1), 1000, backend, "float32").nbytes
    assert used() == before
    model = gn.Sequential(layers).build((8, 8, 1), 1000, backend)
    assert model.backend is backend
    taken = used() - before
    assert taken == pytest.approx(counted, rel=0.02)
    assert count_network(layers, (8, 8, 1), 10**6, backend, "float32").nbytes > 500 * counted


def test_a_batch_that_does_not_fit_is_refused_with_one_that_would(cuda: Core) -> None:
    data = _images()
    select("cuda")  # what a device takes once and for good is not part of what is free below
    with cuda.memory(32 * 2**20):
        with pytest.raises(MemoryShortageError) as caught:
            _network().fit(data, epochs=1, batch_size=1000, device="cuda", progress=False)
        message = str(caught.value)
        found = re.fullmatch(
            r"out of memory on cuda:0: batches of 1000 need about ([\d.]+) MiB, ([\d.]+) MiB were free: "
            r"a batch size of (\d+) would fit \(Out of memory .*\)",
            message,
        )
        assert found, message
        assert float(found[1]) > float(found[2])
        del caught
        # What was advised does fit, and the device is usable as before.
        history = _network().fit(data, epochs=1, batch_size=int(found[3]), device="cuda", progress=False)
        assert len(history) > 0


MOVED = gn.Augmentation(shift=1, rotation=10, scale=0.1)
OPTIONS: dict[str, dict[str, Any]] = {
    "auto": {},
    "best weights": {"patience": 2, "regularizer": gn.L1(1.0)},
    "skipping": {"skip_bad_batches": True, "regularizer": gn.L2(1.0)},
    "on the device": {"data_on": "device", "skip_bad_batches": True},
    "images": {"augmentation": MOVED, "recompute_statistics": True, "skip_bad_batches": True},
}


def _deep() -> gn.Sequential:
    blocks = [gn.Conv2D(2, 3), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(), gn.Flatten(), gn.Dropout(0.3), gn.Dense(10)]
    return gn.Sequential(blocks)


def _wide() -> gn.Sequential:
    blocks = [gn.Dense(300), gn.BatchNorm(), gn.ReLU(), gn.Dense(300), gn.Dropout(0.5), gn.Tanh(), gn.Dense(10)]
    return gn.Sequential(blocks)


@pytest.mark.parametrize(
    ("optimizer", "how"),
    [*((name, "auto") for name in OPTIMIZERS), *(("Adam", how) for how in OPTIONS if how != "auto")],
)
def test_whatever_memory_there_is_the_advice_is_followed_once(cuda: Core, optimizer: str, how: str) -> None:
    rng, make = np.random.default_rng(0), _deep if how == "images" else _wide
    images = rng.integers(0, 256, (450, 12, 12, 1)).astype(np.uint8)
    rows = 6750 if how == "skipping" else 1350  # which would take the room of the weights that are held
    flat = rng.normal(size=(rows, 64)).astype(np.float32)
    inputs = images if how == "images" else flat
    data = gn.Data.from_arrays(inputs, np.arange(len(inputs)) % 10, validation=len(inputs) // 9)
    backend, trainer = select("cuda"), {"epochs": 1, "device": "cuda", "progress": False}
    shape = (12, 12, 1) if how == "images" else (64,)
    skips = "skip_bad_batches" in OPTIONS[how]
    asked = 300 if how == "images" else 600
    least, whole = (
        count_network(make().layers, shape, size, backend, "float32", None, OPTIMIZERS[optimizer](), skips).nbytes
        for size in (1, asked)
    )
    ends, refused = [], []
    for share in (0.7, 1.1, 1.5):
        with cuda.memory(int(share * whole)):
            size = asked
            for attempt in range(3):
                try:
                    made = OPTIMIZERS[optimizer]()
                    make().fit(data, batch_size=size, optimizer=made, **trainer, **OPTIONS[how])
                    ends.append((share, attempt, size))
                    break
                except MemoryShortageError as error:
                    found = re.search(r"a batch size of (\d+) would fit", str(error))
                    if found is None:
                        refused.append(share)
                        break
                    size = int(found[1])
    # No batch is said to fit only where that is so, or all data are to lie there too.
    assert how == "on the device" or all(0.9 * share * whole < least for share in refused), refused
    assert all(attempt <= 1 for _, attempt, _ in ends), ends
    # Where there is room for the batch it is taken at once, and the data stay on the host where they would fill it.
    assert all(attempt == 0 for share, attempt, _ in ends if share > 1) or how == "on the device", ends
    assert any(attempt == 0 and size == asked for _, attempt, size in ends), ends


def test_a_limit_bounds_the_pool_of_the_device(cuda: Core) -> None:
    with cuda.memory(2**40):
        pool = select("cuda").cupy.get_default_memory_pool()
        gn.set_memory_limit(limits.resident_bytes() + 2**26)
        try:
            backend, limit = select("cuda"), limits.memory_limit()
            assert pool.get_limit() == limit
            assert backend.free_bytes() <= limit
            with pytest.raises(MemoryError, match="Out of memory"):
                backend.empty((limit + 1,), np.uint8)
        finally:
            gn.set_memory_limit(None)
        assert select("cuda").empty((limit + 1,), np.uint8).nbytes == limit + 1
        assert pool.get_limit() == 0


@contextmanager
def _pieces(cuda: Core, stream: str, limit: int = 0) -> Iterator[Any]:
    """40 MiB of memory, 24 of them in the pool and free, but for a piece of 512 bytes: no other array is given them."""
    backend = select("cuda")
    with cuda.memory(40 * 2**20):
        backend.cupy.get_default_memory_pool().set_limit(size=limit)
        with backend.stream if stream == "the same" else backend.cupy.cuda.Stream():
            whole = backend.cupy.empty((24 * 2**20,), np.uint8)
            del whole
            piece = backend.cupy.empty((512,), np.uint8)
        yield backend
        del piece


@pytest.mark.parametrize("limit", [0, 32 * 2**20])
@pytest.mark.parametrize("stream", ["the same", "another"])
def test_memory_is_free_that_one_array_can_take(cuda: Core, stream: str, limit: int) -> None:
    with _pieces(cuda, stream, limit) as backend:
        free = backend.free_bytes()
        assert free == (limit or 40 * 2**20) - 24 * 2**20
        assert backend.empty((free,), np.uint8).nbytes == free


def test_data_that_fit_in_no_piece_of_the_free_memory_are_streamed(cuda: Core) -> None:
    inputs = np.zeros((20, 2**20), np.uint8)
    samples = gn.Samples(inputs, np.zeros(20, np.int64), classes=2)
    with _pieces(cuda, "another") as backend:
        batches = place(backend, samples, "float32")
        assert batches.placement == "the host: 20.0 MiB, streamed from memory to cuda:0, where 16.0 MiB are free"
        del batches


def test_memory_of_the_host_that_runs_out_is_not_said_to_be_the_devices(
    cuda: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate 7 TiB")

    model = _network().build((28, 28, 1), 10, "cuda")
    monkeypatch.setattr("gpunn.train.evaluator.place", fail)
    with pytest.raises(MemoryShortageError, match=r"out of memory on the host, where .*Unable to allocate 7 TiB"):
        model.evaluate(_images().train)
