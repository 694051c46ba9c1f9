"""Averaged weights: what a training measures, keeps and leaves, while the weights themselves are what it changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from gpunn.kernels.averages import average_weights
from gpunn.kernels.record import Array
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays

RAW = "raw weights"  # their name among what is remembered beside the averaged ones; no optimizer calls its state so


class WeightAverage:
    """Exponential moving average of a network's weights (B. Polyak, A. Juditsky, 1992): m := d m + (1 − d) w.

    As PyTorch's `AveragedModel` with `get_ema_multi_avg_fn` has it: m = w after the first step, and no correction
    after that. BatchNorm's statistics are those of the training, as there.

    Args:
        model: Built network, whose parameters are averaged.
        decay: d, the share of the average that is kept in a step.
        begun: Step of the network after which m = w; -1 where an average is continued.

    Attributes:
        values: m, flat as the parameters are.
    """

    def __init__(self, model: Network, decay: float, begun: int) -> None:
        self._backend, self._parameters, self._clock = model._built(), model.parameters, model.clock
        p = self._parameters
        self.values, self._raw = (self._backend.empty(p.values.shape, p.values.dtype) for _ in range(2))
        self._backend.assign(self.values, p.values)
        self._settings = begun, 1 - decay
        self._is_shown = False

    def update(self) -> None:
        """Take the weights of a step; may be part of a graph."""
        self._backend.run(average_weights, self._parameters.values, *self._settings, self._clock, self.values)

    def show(self) -> None:
        """Let the network have the averaged weights."""
        if not self._is_shown:
            self._backend.assign(self._raw, self._parameters.values)
            self._backend.assign(self._parameters.values, self.values)
            self._is_shown = True

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within, the network has the averaged weights; after an error it keeps what it has then."""
        self.show()
        yield
        if self._is_shown:  # not gone back to another step meanwhile
            self._backend.assign(self._parameters.values, self._raw)
            self._is_shown = False

    def raw(self) -> NDArray[Any]:
        """Copy the weights that learn, which the training changes, to the host, packed."""
        values: Array = self._raw if self._is_shown else self._parameters.values
        p = self._parameters
        raw: NDArray[Any] = p.packed(self._backend.to_host(values[: p.learned.size]))
        return raw

    def restore(self, raw: NDArray[Any]) -> None:
        """Take the weights of the network for the averaged ones, and give it those that a training changes."""
        self._backend.assign(self.values, self._parameters.values)
        self._parameters.unpack(raw, self._parameters.learned)
        self._is_shown = False

    def load(self, arrays: Arrays) -> None:
        """Set the averaged weights from host arrays by name."""
        p, now = self._parameters, self._backend.to_host(self._parameters.values)
        p.load(arrays)
        self._backend.assign(self.values, p.values)
        self._backend.assign(p.values, now)

    def to_host(self) -> Arrays:
        """Copy the averaged weights to the host, by name."""
        flat = self._backend.to_host(self.values)
        return {p.name: flat[p.place].reshape(p.shape) for p in self._parameters}
