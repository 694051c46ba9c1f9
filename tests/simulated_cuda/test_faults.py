"""Faults that a device may not show for years, put into gpunn one at a time: each is seen in some order of the work."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backend import cuda as cuda_backend
from gpunn.backend import devices as module
from gpunn.backend import pinned
from gpunn.backend.cublas import Cublas
from gpunn.backend.cuda import CupyBackend
from gpunn.backend.devices import select
from gpunn.backend.pinned import PinnedMirror, PinnedStaging
from gpunn.data import loader
from gpunn.errors import GpunnError
from gpunn.kernels import registry
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer
from simulated_cuda.core import AT_ONCE, LATE, Core

ORDERS = (AT_ONCE, LATE, *range(1, 11))


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Backends that are made within the test, and gone after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_made", cache(module._made.__wrapped__))
        yield


# What is done, and whether it comes out right


def _trained(data_on: str, pieces: int = 2, every: int = 1000) -> tuple[bytes, str, list[float]]:
    rng = np.random.default_rng(0)
    # No labels: as a place in memory nonsense would end the process.
    data = gn.Data.from_arrays(rng.normal(size=(150, 12)), rng.uniform(size=(150, 3)), validation=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "PIECE", pieces * 8 * 12 * 4)
        layers = [gn.Dense(6), gn.ReLU(), gn.Dense(3)]
        options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "validate_every": every, "optimizer": gn.SGD(0.1, 0.9)}
        options["loss"] = gn.MeanSquaredError()
        trainer = Trainer(
            gn.Sequential(layers), TrainOptions(device="cuda", data_on=data_on, progress=False, **options), data
        )
        trainer.run()
    weights = trainer.model.backend.to_host(trainer.model.parameters.values).tobytes()  # type: ignore[union-attr]
    return weights, trainer.step.trouble, [record.train_loss for record in trainer.history]


@cache
def _expected() -> bytes:
    """Trained with everything as it is, all work done at once."""
    return _trained("device")[0]


def trains(data_on: str) -> bool:
    weights, trouble, _ = _trained(data_on)
    return weights == _expected() and not trouble


def streams() -> bool:
    return trains("host")


def records() -> bool:
    return trains("device")


_numbers = count(1)
"""One after another: what the memory that is taken holds from the last time must not be right again."""


def counts_the_cost() -> bool:
    """By hand: the network on its backend, the cost on that of the arrays it is given."""
    seed, x, labels = next(_numbers), np.ones((5, 4), np.float32), np.arange(5) % 3
    cost, expected = (
        gn.SoftmaxCrossEntropy().forward(gn.Sequential([gn.Dense(3)]).build((4,), 5, on, seed=seed).forward(x), labels)
        for on in ("cuda", "cpu")
    )
    return abs(float(select("cuda").to_host(cost)) - float(expected)) < 1e-5


def keeps_what_it_recorded() -> bool:
    """A graph works on memory that nobody else may be given."""
    backend = select("cuda")
    relu, z = registry["relu"], backend.asarray(np.full((4, 64), 2, np.float32))
    backend.zeros_before = backend.zeros(z.shape, z.dtype)  # type: ignore[attr-defined]
    backend.run(relu, z, backend.zeros(z.shape, z.dtype))
    replay = backend.capture(lambda: backend.run(relu, z, backend.zeros_before))  # type: ignore[attr-defined]
    backend.zeros_before = None  # type: ignore[attr-defined]
    others = [backend.zeros(z.shape, z.dtype) for _ in range(4)]
    replay()
    return not any(backend.to_host(other).any() for other in others)


def is_read_by_default_stream() -> bool:
    """CuPy's own stream sees what ours did, without a word."""
    backend = select("cuda")
    number = next(_numbers)
    z = backend.asarray(np.full((4, 64), number, np.float32))
    backend.run(registry["relu"], z, a := backend.zeros(z.shape, z.dtype))
    return bool((backend.cupy.asnumpy(a + 1) == number + 1).all())


def takes_arrays_of_another_stream() -> bool:
    backend = select("cuda")
    number = next(_numbers)
    with backend.cupy.cuda.Stream(non_blocking=True):
        values = backend.cupy.full((3, 4), number, np.float32)
        moved = backend.asarray(values.T)
    return bool((backend.to_host(moved) == number).all())


def fills_memory_that_was_anothers() -> bool:
    backend = select("cuda")
    ones = backend.asarray(np.ones((4, 64), np.float32))
    before = backend.empty((4, 64), np.float32)
    backend.run(registry["relu"], ones, before)
    at = before.data.ptr
    del before
    array = backend.empty((4, 64), np.float32)
    assert array.data.ptr == at, "the pool gave other memory"
    made = backend.staging(array)
    made.host[0][...] = 7
    made.upload(4)
    made.claim()
    return bool((backend.to_host(array) == 7).all())


@cache
def _expected_looks() -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_is_judged_later", lambda self: False)
        return _trained("device", every=3)[2]


def looks_later() -> bool:
    """Records that are judged while the device goes on have the figures of their steps."""
    weights, _, losses = _trained("device", every=3)
    return losses == _expected_looks() and weights == _expected()


SCENARIOS: list[Callable[[], bool]] = [
    streams, records, counts_the_cost, keeps_what_it_recorded, is_read_by_default_stream,
    takes_arrays_of_another_stream, fills_memory_that_was_anothers, looks_later,
]  # fmt: skip


def is_right_in_every_order(cuda: Core, scenario: Callable[[], bool]) -> bool:
    for order in ORDERS:
        cuda.set_order(order)
        try:
            if not scenario():
                return False
        except GpunnError:  # numbers that are not finite, a capture that is refused
            return False
    return True


# The faults

Fault = Callable[[pytest.MonkeyPatch], None]


def cache_by_call(patch: pytest.MonkeyPatch) -> None:
    made = cache(lambda device, precision="float32": module._made.__wrapped__(device, precision))
    patch.setattr(module, "_backend", made)
    patch.setattr(module, "backend_of", lambda array: made(f"cuda:{array.device.id}"))


def replacing(owner: type, name: str, other: Callable[..., Any]) -> Fault:
    return lambda patch: patch.setattr(owner, name, other)


def waiting_where(waits: Callable[[Any, Any], bool]) -> Fault:
    """Streams wait for events where this says so, and nowhere else."""

    def put_in(patch: pytest.MonkeyPatch) -> None:
        stream = select("cuda").cupy.cuda.Stream  # type: ignore[attr-defined]
        wait = stream.wait_event
        changed = lambda self, event: wait(self, event) if waits(self, module._backend("cuda:0")) else None  # noqa: E731
        patch.setattr(stream, "wait_event", changed)

    return put_in


def one_pinned_memory_for_all(patch: pytest.MonkeyPatch) -> None:
    """The host changes it before the copy of what was there."""
    make, begin, kept = pinned._pinned, PinnedStaging.__init__, {}

    def changed(self: PinnedStaging, backend: CupyBackend, *arrays: Any) -> None:
        with pytest.MonkeyPatch.context() as within:
            shared = lambda cupy, like: kept.setdefault((like.shape, like.dtype), make(cupy, like))  # noqa: E731
            within.setattr(pinned, "_pinned", shared)
            begin(self, backend, *arrays)

    patch.setattr(PinnedStaging, "__init__", changed)


def waiting_for_the_wrong_stream(patch: pytest.MonkeyPatch) -> None:
    def to_host(self: CupyBackend, array: Any) -> Any:
        out = self.cupy.cuda.alloc_pinned_memory(max(1, array.nbytes))
        with self.lock, self.cupy.cuda.Device(self.index):
            array.data.copy_to_host_async(out.ptr, array.nbytes, self.stream)
            self.copies.synchronize()
        return np.frombuffer(out, array.dtype, array.size).reshape(array.shape).copy()

    patch.setattr(CupyBackend, "to_host", to_host)


def nothing_kept_of_a_capture(patch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        is_limited, recorded = False, property(lambda self: None, lambda self, value: None)
        rehearsed = None

    patch.setattr(cuda_backend, "_Shared", Forgetful)


def kernels_on_the_default_stream(patch: pytest.MonkeyPatch) -> None:
    run = CupyBackend.run

    def without_stream(self: CupyBackend, *arguments: Any) -> None:
        stream, self.stream = self.stream, self.cupy.cuda.Stream.null
        try:
            run(self, *arguments)
        finally:
            self.stream = stream

    patch.setattr(CupyBackend, "run", without_stream)


def products_without_a_workspace(patch: pytest.MonkeyPatch) -> None:
    make = Cublas.__init__

    def without(self: Any, stream: int, *precision: str) -> None:
        make(self, stream, *precision)
        self._lt = None  # which is given the workspace at each call
        self._cublas.set_stream(self._handle, stream)  # which takes the workspace away

    patch.setattr(Cublas, "__init__", without)


def a_stream_that_does_not_block(patch: pytest.MonkeyPatch) -> None:
    make = CupyBackend.__init__

    def changed(self: CupyBackend, index: int) -> None:
        make(self, index)
        self.stream = self.cupy.cuda.Stream(non_blocking=True)
        self.cublas = Cublas(self.stream.ptr)

    patch.setattr(CupyBackend, "__init__", changed)


def no_wait_for_who_had_the_memory(patch: pytest.MonkeyPatch) -> None:
    make = PinnedStaging.__init__

    def without(self: PinnedStaging, backend: CupyBackend, *arrays: Any) -> None:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(type(backend.stream), "synchronize", lambda stream: None)
            make(self, backend, *arrays)

    patch.setattr(PinnedStaging, "__init__", without)


def looks_by_the_wrong_stream(patch: pytest.MonkeyPatch) -> None:
    fetch = PinnedMirror.fetch

    def changed(self: PinnedMirror) -> None:
        stream, self._stream = self._stream, self._backend.copies
        try:
            fetch(self)
        finally:
            self._stream = stream

    patch.setattr(PinnedMirror, "fetch", changed)


make_cublas = Cublas.__init__
FAULTS: dict[str, tuple[Fault, Callable[[], bool]]] = {
    "cache by call": (cache_by_call, counts_the_cost),
    "no wait for the copy": (waiting_where(lambda stream, backend: stream.ptr == backend.copies.ptr), streams),
    "no wait for the reader": (waiting_where(lambda stream, backend: stream.ptr != backend.copies.ptr), streams),
    "no claim": (replacing(PinnedStaging, "claim", lambda self: None), streams),
    "no release": (replacing(PinnedStaging, "release", lambda self: None), streams),
    "release by the wrong stream": (
        replacing(PinnedStaging, "release", lambda self: self._read.record(self._copies)), streams
    ),
    "one pinned memory for all": (one_pinned_memory_for_all, streams),
    "waiting for the wrong stream": (waiting_for_the_wrong_stream, records),
    "nothing kept of a capture": (nothing_kept_of_a_capture, keeps_what_it_recorded),
    "kernels on the default stream": (kernels_on_the_default_stream, records),
    "products on the default stream": (
        replacing(Cublas, "__init__", lambda self, stream, *precision: make_cublas(self, 0, *precision)), records
    ),
    "products without a workspace": (products_without_a_workspace, records),
    "a stream that does not block": (a_stream_that_does_not_block, is_read_by_default_stream),
    "no wait for the caller's stream": (
        replacing(CupyBackend, "_ours", lambda self, values: values), takes_arrays_of_another_stream
    ),
    "no wait for who had the memory": (no_wait_for_who_had_the_memory, fills_memory_that_was_anothers),
    "no wait for what is looked at": (replacing(PinnedMirror, "_wait", lambda self: None), looks_later),
    "looks by the wrong stream": (looks_by_the_wrong_stream, looks_later),
}  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_gpunn_is_right_in_every_order(cuda: Core, scenario: Callable[[], bool]) -> None:
    _expected()
    _expected_looks()
    assert is_right_in_every_order(cuda, scenario), f"order {cuda.order}"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_in_some_order(cuda: Core, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put_in, scenario = FAULTS[name]
    cuda.set_order(AT_ONCE)
    _expected()
    _expected_looks()
    module._made.cache_clear()
    put_in(monkeypatch)
    assert not is_right_in_every_order(cuda, scenario)
