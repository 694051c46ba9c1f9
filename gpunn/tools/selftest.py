"""Every kernel on a device against its NumPy twin: what `gpunn doctor` runs where there is a GPU.

Small networks of all layers, costs and optimizers are trained on the CPU. Each kernel call of theirs, and each matrix
product, is done over on the device with copies of the same arguments, and what comes out is compared. So a new kernel
is tested as soon as a network uses it, with the arguments that it really gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.cpu import NumpyBackend
from gpunn.backend.devices import select
from gpunn.config import PARTS
from gpunn.kernels import Elementwise, Raw, registry
from gpunn.kernels.random import random_bits
from gpunn.kernels.updates import end_step

# Rounding of exp and log, and sums in another order; what is wrong is wrong by much more.
_RELATIVE = {"float32": 5e-5, "float64": 1e-10}


class _Twice(NumpyBackend):
    """The CPU, with everything done over on another device and compared."""

    device = "twice"  # not "cpu": networks then take the ways that they take on a GPU

    def __init__(self, device: Backend) -> None:
        super().__init__()
        self.other = device
        self.seen: set[str] = set()
        self.wrong: dict[str, str] = {}
        product = self.gemm

        def gemm(alpha: float, a: Any, b: Any, beta: float, c: Any) -> None:
            moved = [_moved(array, device) for array in (a, b, c)]
            product(alpha, a, b, beta, c)
            try:
                device.gemm(alpha, moved[0], moved[1], beta, moved[2])
                self._compare("gemm", c, device.to_host(moved[2]), _RELATIVE[c.dtype.name])
            except Exception as error:  # noqa: BLE001 - a device that fails is what is looked for
                self._failed("gemm", error)

        self.gemm = gemm  # type: ignore[method-assign]  # as in NumpyBackend

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        self.seen.add(kernel.name)
        # An array that is given twice is one array there too: that is how kernels are run in place.
        moved = {id(array): _moved(array, self.other) for array in arguments if isinstance(array, np.ndarray)}
        super().run(kernel, *arguments)
        # A float64 sum of float32 numbers is no better than those.
        relative = max((_RELATIVE.get(array.dtype.name, 0.0) for array in arguments if id(array) in moved), default=0.0)
        try:
            self.other.run(kernel, *(moved.get(id(argument), argument) for argument in arguments))
            for array in arguments:
                if id(array) in moved:
                    self._compare(kernel.name, array, self.other.to_host(moved[id(array)]), relative)
        except Exception as error:  # noqa: BLE001 - a device that fails is what is looked for
            self._failed(kernel.name, error)

    def _compare(self, name: str, expected: NDArray[Any], got: NDArray[Any], relative: float) -> None:
        if expected.dtype.kind != "f":
            if not np.array_equal(expected, got):
                self.wrong.setdefault(name, f"{np.count_nonzero(expected != got)} of {expected.size} numbers differ")
            return
        finite = np.isfinite(expected)
        allowed = relative * max(1.0, float(np.abs(expected[finite]).max(initial=0)))
        difference = np.abs(expected - got)[finite]
        if not np.isfinite(got[finite]).all():
            self.wrong.setdefault(name, "gives numbers that are not finite")
        elif (difference > allowed).any():
            self.wrong.setdefault(name, f"differs by up to {difference.max():.2g}, allowed are {allowed:.2g}")

    def _failed(self, name: str, error: Exception) -> None:
        self.wrong.setdefault(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _moved(array: NDArray[Any], device: Backend) -> Any:
    """A copy on the device, whose axes lie in memory in the same order."""
    order = np.argsort([-stride for stride in array.strides], kind="stable")
    there = device.asarray(array.transpose(order).copy())
    return there.transpose(np.argsort(order))


def self_test(device: str | Backend, say: Callable[[str], None]) -> bool:
    """Compare every kernel of a device with its twin.

    Args:
        device: which.
        say: is given a line for each kernel that is wrong, and one about the rest.

    Returns:
        Whether all agree.
    """
    backend = device if isinstance(device, Backend) else select(device)
    both = _Twice(backend)
    for model, data, options in _trainings():
        model.fit(data, device=both, batch_size=16, epochs=1, progress=False, **options)
    bits = np.zeros(1001, np.uint32)
    both.run(end_step, np.array([1, 2], np.int32), np.zeros(2, np.int32))
    both.run(random_bits, 7, 1, np.array([3], np.int32), 2, bits)
    for name, what in sorted(both.wrong.items()):
        say(f"wrong    {name}: {what}")
    for name in sorted(set(registry) - both.seen):
        say(f"warn     {name}: not tested")
    agreeing = len(both.seen - set(both.wrong))
    product = "" if "gemm" in both.wrong else " and the matrix product"
    verdict = "wrong" if both.wrong else "ok"
    say(f"{verdict:7}  self-test on {backend.device}: {agreeing} kernels{product} agree with NumPy")
    return not both.wrong


def _trainings() -> Iterator[tuple[gn.Sequential, gn.Data, dict[str, Any]]]:
    """Make small networks that use every layer, loss and optimizer between them; new ones come from the registry."""
    rng = np.random.Generator(np.random.Philox(1))
    rows = gn.Data.from_arrays(rng.normal(size=(50, 6)), rng.integers(0, 4, 50))
    pixels = gn.Data.from_arrays(rng.integers(0, 256, (50, 9, 9, 2)).astype(np.uint8), rng.integers(0, 4, 50))
    floats = gn.Data.from_arrays(rng.normal(size=(50, 6)), rng.uniform(0, 1, (50, 3)))

    def dense(*activations: gn.Layer, outputs: int = 4) -> list[gn.Layer]:
        return [layer for activation in activations for layer in (gn.Dense(7), activation)] + [gn.Dense(outputs)]

    for optimizer in [gn.SGD(0.1, momentum=0.9, nesterov=True), *_ours("optimizer")]:
        options = {"optimizer": optimizer, "regularizer": gn.L2(0.1)}
        yield gn.Sequential(dense(*_ours("layer", gn.Activation))), rows, options
    # Not behind a bias, with which an activation is one kernel.
    alone = [gn.Dense(7, bias=False), *_ours("layer", gn.Activation), gn.Dense(4)]
    yield gn.Sequential(alone), rows, {"regularizer": gn.L1(0.1), "skip_bad_batches": True}
    for loss in _ours("loss"):
        yield gn.Sequential(dense(gn.Tanh())), rows, {"loss": loss}
        if not loss.takes_labels:
            yield gn.Sequential(dense(gn.Tanh(), outputs=3)), floats, {"loss": loss}
    first = [gn.Conv2D(3, 3, padding=1), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(3, stride=2)]
    second = [gn.Conv2D(4, 2), gn.Tanh(), gn.AveragePool2D(2, stride=1), gn.Flatten(), gn.Dropout(0.3), gn.Dense(4)]
    yield gn.Sequential([*first, *second]), pixels, {"augmentation": gn.Augmentation(shift=1, rotation=10)}
    yield gn.Sequential([gn.Flatten(), *dense(gn.ReLU())]), pixels, {"dtype": "float64"}


def _ours(kind: str, base: type = object) -> list[Any]:
    """Make each part of a kind that comes with gpunn."""
    every = [part for part in PARTS[kind].values() if part.__module__.startswith("gpunn.") and issubclass(part, base)]
    return [part() for part in every]
