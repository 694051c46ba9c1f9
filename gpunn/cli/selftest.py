"""Compare every kernel of a device with its NumPy code, as `gpunn doctor` does on a GPU.

Small networks of all registered parts train on the CPU. Each kernel call and matrix product is repeated on the device
with copies of the arguments, so a new part is tested without a change here.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend, Shape
from gpunn.backend.cpu import NumpyBackend
from gpunn.backend.devices import select
from gpunn.config import PARTS, needed_by
from gpunn.data import Data
from gpunn.data.augmentation import Augmentation
from gpunn.kernels import Elementwise, Raw, registry
from gpunn.kernels.bias_normalization import joined
from gpunn.kernels.normalization import merge_moments
from gpunn.kernels.updates import end_step
from gpunn.nn import layers as nn
from gpunn.nn.losses import SoftmaxCrossEntropy
from gpunn.sequential import Sequential
from gpunn.train.optimizers import L1, L2, SGD

_RELATIVE = {"float32": 5e-5, "float64": 1e-10}  # for rounding and another order of sums; faults are much larger


class _ComparingBackend(NumpyBackend):
    """Compute on the CPU, repeat everything on another device, and compare."""

    device = "twice"  # not "cpu", so that networks compute as on a GPU

    def __init__(self, device: Backend) -> None:
        super().__init__()
        self.other = device
        self.seen: set[str] = set()
        self.wrong: dict[str, str] = {}
        product = self.gemm

        def gemm(alpha: float, a: Any, b: Any, beta: float, c: Any) -> None:
            a_there, b_there, c_there = (_copy_to(array, device) for array in (a, b, c))
            product(alpha, a, b, beta, c)
            self._compare("gemm", partial(device.gemm, alpha, a_there, b_there, beta, c_there), [(c, c_there)])

        self.gemm = gemm  # as in NumpyBackend

    def empty(self, shape: Shape, dtype: DTypeLike) -> Any:
        """Make an array of NaNs; scratch memory that only the device writes stays NaN, and is not compared."""
        array = super().empty(shape, dtype)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    def run(self, kernel: Elementwise | Raw, *arguments: Any) -> None:
        self.seen.add(kernel.name)
        # An array given twice is one array there too, as for kernels in place.
        arrays = {id(array): array for array in arguments if isinstance(array, np.ndarray)}
        moved = {key: _copy_to(array, self.other) for key, array in arrays.items()}
        super().run(kernel, *arguments)
        there = [moved.get(id(argument), argument) for argument in arguments]
        pairs = [(array, moved[key]) for key, array in arrays.items()]
        self._compare(kernel.name, partial(self.other.run, kernel, *there), pairs)

    def _compare(self, name: str, work: Callable[[], None], pairs: list[tuple[NDArray[Any], Any]]) -> None:
        """Do some work on the device; record the first difference or failure under a name."""
        # A float64 sum of float32 values is no more precise than they are.
        relative = max((_RELATIVE.get(here.dtype.name, 0.0) for here, _ in pairs), default=0.0)
        try:
            work()
            troubles = [_difference(here, self.other.to_host(there), relative) for here, there in pairs]
        except Exception as error:  # noqa: BLE001 - any failure of the device is a result
            troubles = [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"]
        for trouble in filter(None, troubles):
            self.wrong.setdefault(name, trouble)


def _difference(expected: NDArray[Any], got: NDArray[Any], relative: float) -> str:
    """Describe how two arrays differ; "" if they agree."""
    if expected.dtype.kind != "f":
        differing = np.count_nonzero(expected != got)
        return f"{differing} of {expected.size} numbers differ" if differing else ""
    finite = np.isfinite(expected)
    if not np.isfinite(got[finite]).all():
        return "gives numbers that are not finite"
    allowed = relative * max(1.0, float(np.abs(expected[finite]).max(initial=0)))
    difference = float(np.abs(expected - got)[finite].max(initial=0))
    return f"differs by up to {difference:.2g}, allowed are {allowed:.2g}" if difference > allowed else ""


def _copy_to(array: NDArray[Any], device: Backend) -> Any:
    """Copy an array to the device with the same memory order of its axes."""
    order = np.argsort([-stride for stride in array.strides], kind="stable")
    return device.asarray(array.transpose(order).copy()).transpose(np.argsort(order))


def self_test(device: str | Backend, say: Callable[[str], None]) -> bool:
    """Compare every kernel of a device with its NumPy code; show the wrong ones; return whether all agree."""
    both = _ComparingBackend(device if isinstance(device, Backend) else select(device))
    for layers, data, options in _trainings():
        Sequential(layers).fit(data, device=both, batch_size=16, epochs=1, progress=False, **options)
    both.run(end_step, np.array([1, 2], np.int32), np.zeros(2, np.int32))
    of_ranks = np.arange(18, dtype=np.float32).reshape(3, 2, 3)  # a kernel that only several processes run
    both.run(merge_moments, of_ranks, 0.1, 7, 4, *np.zeros((4, 3), np.float32))
    for name, what in sorted(both.wrong.items()):
        say(f"wrong    {name}: {what}")
    for name in sorted(set(registry) - both.seen):
        say(f"warn     {name}: not tested")
    products = "" if "gemm" in both.wrong else " and the matrix product"
    agreeing = f"{len(both.seen.difference(both.wrong))} kernels{products}"
    say(f"{'wrong' if both.wrong else 'ok':7}  self-test on {both.other.device}: {agreeing} agree with NumPy")
    return not both.wrong


def _trainings() -> Iterator[tuple[list[nn.Layer], Data, dict[str, Any]]]:
    """Make small networks that together use every layer, loss and optimizer; new ones come from the registry."""
    rng = np.random.Generator(np.random.Philox(1))
    rows = Data.from_arrays(rng.normal(size=(50, 6)), rng.integers(0, 4, 50))
    pixels = Data.from_arrays(rng.integers(0, 256, (50, 9, 9, 2), np.uint8), rng.integers(0, 4, 50))
    floats = Data.from_arrays(rng.normal(size=(50, 6)), rng.uniform(0, 1, (50, 3)))

    def dense(*activations: nn.Layer, outputs: int = 4) -> list[nn.Layer]:
        return [layer for activation in activations for layer in (nn.Dense(7), activation)] + [nn.Dense(outputs)]

    for optimizer in [SGD(0.1, momentum=0.9, nesterov=True), *_ours("optimizer")]:
        yield dense(*_ours("layer", nn.Activation)), rows, {"optimizer": optimizer, "regularizer": L2(0.1)}
    # Activations without a bias before them, with which they would be one kernel.
    alone = [nn.Dense(7, bias=False), *_ours("layer", nn.Activation), nn.Dense(4)]
    yield alone, rows, {"regularizer": L1(0.1), "skip_bad_batches": True, "average": 0.9}
    for loss in [*_ours("loss"), SoftmaxCrossEntropy(label_smoothing=0.1)]:
        yield dense(nn.Tanh()), rows, {"loss": loss}
        if loss.weighted_kernel is not None:
            yield dense(nn.Tanh()), rows, {"loss": loss, "class_weight": "balanced"}
        if not loss.takes_labels:
            yield dense(nn.Tanh(), outputs=3), floats, {"loss": loss}
    first = [nn.Conv2D(3, 3, padding=1), nn.BatchNorm(), nn.ReLU(), nn.MaxPool2D(3, stride=2)]
    second = [nn.Conv2D(4, 2), nn.Tanh(), nn.AveragePool2D(2, stride=1), nn.Flatten(), nn.Dropout(0.3), nn.Dense(4)]
    yield [*first, *second], pixels, {"augmentation": Augmentation(shift=1, rotation=10, flip=0.5, cutout=3)}
    yield (
        [nn.Conv2D(4, 3, groups=2), nn.ReLU(), nn.Conv2D(4, groups="depthwise"), nn.Flatten(), nn.Dense(4)],
        pixels,
        {},
    )
    # With so many channels, several blocks share each.
    for before in [[], *([each] for each in _ours("layer", nn.Activation) if each.kernel in joined)]:
        yield [nn.Conv2D(208, 1), *before, nn.BatchNorm(), nn.GlobalAveragePool2D(), nn.Dense(4)], pixels, {}
    yield [nn.MaxPool2D(3, 2, 1), nn.AveragePool2D(2, 1, "same"), nn.Flatten(), nn.Dense(4)], pixels, {}
    yield [nn.ConvTranspose2D(3, stride=2), nn.ReLU(), nn.Conv2D(2), nn.ReLU(), nn.Flatten(), nn.Dense(4)], pixels, {}
    yield [nn.Conv2D(3, 3), nn.LayerNorm(), nn.GlobalAveragePool2D(), nn.LayerNorm(), nn.Dense(4)], pixels, {}
    branches = nn.Concatenate(
        [], [nn.Conv2D(3, 3, padding="same")], [nn.MaxPool2D(3, stride=1), nn.Conv2D(2, 3, padding=2)]
    )
    yield [branches, nn.Residual([nn.Conv2D(4, 3, stride=2, padding="same")]), nn.Flatten(), nn.Dense(4)], pixels, {}
    yield [nn.Flatten(), *dense(nn.ReLU())], pixels, {"dtype": "float64"}
    tokens = Data.from_arrays(rng.integers(0, 9, (50, 6)), rng.integers(0, 4, 50), tokens=9)
    yield [nn.Embedding(9, 18), nn.Flatten(), nn.Dense(4)], tokens, {}


def _ours(kind: str, base: type = object) -> list[Any]:
    """Make each part of a kind in gpunn whose constructor needs no arguments."""
    ours = [part for part in PARTS[kind].values() if part.__module__.startswith("gpunn.") and issubclass(part, base)]
    return [part() for part in ours if not needed_by(part)]
