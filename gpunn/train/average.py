"""Average the weights over the steps: records, checkpoints and the trained network have the averaged ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from gpunn.kernels.averages import average_weights
from gpunn.kernels.record import Array
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays

RAW = "raw weights"  # their key beside the optimizer's state; no optimizer has state of this name


class WeightAverage:
    """Exponential moving average of a network's weights (B. Polyak, A. Juditsky, 1992): m := d m + (1 − d) w.

    It is PyTorch's `AveragedModel` with `get_ema_multi_avg_fn`: m = w after the first step, without bias correction.
    BatchNorm's statistics are not averaged, neither here nor there.

    Args:
        model: Built network.
        decay: d, the share of the average that a step keeps.
        begun: Step of the network after which m = w; -1 to continue an average.

    Attributes:
        values: m, flat like the parameters.
    """

    def __init__(self, model: Network, decay: float, begun: int) -> None:
        self._backend, self._parameters, self._clock = model._built(), model.parameters, model.clock
        p = self._parameters
        self.values, self._raw = (self._backend.empty(p.values.shape, p.values.dtype) for _ in range(2))
        self._backend.assign(self.values, p.values)
        self._settings = begun, 1 - decay
        self._is_applied = False

    def update(self) -> None:
        """Add the weights of a step to the average; may be part of a graph."""
        self._backend.run(average_weights, self._parameters.values, *self._settings, self._clock, self.values)

    def apply(self) -> None:
        """Load the averaged weights into the network."""
        if not self._is_applied:
            self._backend.assign(self._raw, self._parameters.values)
            self._backend.assign(self._parameters.values, self.values)
            self._is_applied = True

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lend the network the averaged weights; after an error they stay."""
        self.apply()
        yield
        if self._is_applied:  # the training has not rewound meanwhile
            self._backend.assign(self._parameters.values, self._raw)
            self._is_applied = False

    def raw(self) -> NDArray[Any]:
        """Copy the trainable weights themselves, not their average, to the host, packed."""
        values: Array = self._raw if self._is_applied else self._parameters.values
        p = self._parameters
        raw: NDArray[Any] = p.packed(self._backend.to_host(values[: p.learned.size]))
        return raw

    def restore(self, raw: NDArray[Any]) -> None:
        """Take the network's weights as the average, and load the raw ones into the network."""
        self._backend.assign(self.values, self._parameters.values)
        self._parameters.unpack(raw, self._parameters.learned)
        self._is_applied = False

    def load(self, arrays: Arrays) -> None:
        """Set the averaged weights from host arrays, by name."""
        p, now = self._parameters, self._backend.to_host(self._parameters.values)
        p.load(arrays)
        self._backend.assign(self.values, p.values)
        self._backend.assign(p.values, now)

    def to_host(self) -> Arrays:
        """Copy the averaged weights to the host, by name."""
        flat = self._backend.to_host(self.values)
        return {p.name: flat[p.place].reshape(p.shape) for p in self._parameters}
