"""Keep parameters as named, shaped views into flat arrays, so that one launch updates, sends or saves them all."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from math import prod
from typing import Any, cast, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend, PlannedGemm, Shape
from gpunn.kernels.random import Purpose
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer

Arrays = dict[str, NDArray[Any]]  # on the host, by name
_ALIGNMENT = 16  # bytes; kernels and cuBLAS then read four floats at once


@dataclass(frozen=True)
class Memory:
    """State of a network's optimizer at the end of its training."""

    of: Any  # identity of the optimizer; see `Trainer`
    first: int  # the network's step at which this optimizer began
    arrays: dict[str, Arrays]  # by name in `Optimizer.state`, then by parameter name


@dataclass(eq=False, repr=False)
class Parameter:
    """Learned tensor of a layer.

    Attributes:
        name: Layer and letter, such as "dense1.w".
        shape: Shape of the value.
        value: View into the flat array of values.
        grad: View into the flat array of gradients; None where the parameter is frozen or `collect` updates it.
        matrix, gradient_matrix: Value and gradient as (units, everything else).
        column: Value as (size, 1), which broadcasts over (units, batch).
        place: Slice of the value in the flat array.
    """

    name: str
    shape: Shape
    initializer: Initializer
    fans: tuple[int, int]  # fan_in and fan_out
    weight_decay: bool  # whether regularizers act on it: on weights, but not on biases or BatchNorm's γ and β (22)
    is_frozen: bool = False  # see `Layer.trainable`
    is_table: bool = False  # rows are looked up: the gradient is no matrix product, so the update cannot be folded in

    def __post_init__(self) -> None:
        self.size = prod(self.shape)
        self.place = slice(0, self.size)
        self._backend: Backend | None = None

    def bind(self, backend: Backend, value: Array, grad: Array | None) -> None:
        """Take flat memory for the value, and for the gradient unless the parameter is frozen."""
        self._backend, self._product = backend, PlannedGemm(backend, transposed="b")
        self.value, self.column = value.reshape(self.shape), value.reshape(-1, 1)
        self.matrix: Array = value.reshape(self.shape[0], -1)
        self.grad: Array | None = None
        if grad is not None:
            self.gradient_matrix = grad.reshape(self.matrix.shape)
            self.keep_gradient()

    def keep_gradient(self) -> None:
        """Let `collect` write the gradient: grad := δ aᵀ."""
        self.grad = self.gradient_matrix.reshape(self.shape)
        self._target, self._alpha, self._beta = self.gradient_matrix, 1.0, 0.0

    def fold_update(self, alpha: float, beta: float) -> None:
        """Let `collect` update w directly (21): w := beta w + alpha δ aᵀ, without a gradient array."""
        self.grad = None
        self._target, self._alpha, self._beta = self.matrix, alpha, beta

    def collect(self, delta: Array, a: Array) -> None:
        """Compute ∂C/∂w = δ aᵀ (13), or update w by it; call it after ∂C/∂input, which reads w. Skip frozen ones."""
        if not self.is_frozen:
            self._product(self._alpha, delta, a, self._beta, self._target)

    def __dlpack__(self, **options: Any) -> Any:
        """Share the memory of the value with other libraries: `torch.from_dlpack(parameter)`."""
        return self.value.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return cast(tuple[int, int], self.value.__dlpack_device__())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the value as a NumPy array: its own memory on a CPU, a copy from a GPU."""
        is_copy = not isinstance(self.value, np.ndarray)
        if is_copy and copy is False:
            raise ValueError(f"the value of {self.name} lies on a GPU and reaches NumPy by a copy alone")
        held = self._backend.to_host(self.value) if is_copy and self._backend is not None else self.value
        return np.array(held, dtype=dtype, copy=None if is_copy else copy)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has its own memory and belongs to no network.
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        if (backend := self._backend) is not None:
            arrays = (None if array is None else backend.to_host(array) for array in (self.value, self.grad))
            state["_held"] = backend, *arrays
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        backend, *arrays = state.pop("_held", (None,))
        vars(self).update(state)
        self.__post_init__()
        if backend is not None:
            self.bind(backend, *(None if array is None else backend.asarray(array).reshape(-1) for array in arrays))

    def __repr__(self) -> str:
        return f"Parameter({self.name}, {self.shape})"


class Parameters(Sequence[Parameter]):
    """Parameters of a network, in layer order; the flat arrays hold decayed weights first, then others, then frozen.

    Each parameter begins at a multiple of 16 bytes; gaps between them hold zeros. Files, and optimizer state on the
    host, are packed, without gaps.

    Attributes:
        size, learned_size: Number of all values, and of those that are not frozen.
        values, learned: Flat array of all values, and its part that is not frozen.
        gradients: Flat array of gradients, in the layout of `learned`.
        decayed: Number of leading elements that regularizers act on, gaps included.
        weights: Number of these elements without gaps.
        gaps: Slices of the gaps in `learned` and `gradients`.
    """

    def __init__(self, parameters: Sequence[Parameter], backend: Backend, dtype: DTypeLike) -> None:
        self._parameters, self.backend = list(parameters), backend
        self.size, self.learned_size = sum(p.size for p in self._parameters), 0
        self._learning, self.gaps = list[Parameter](), list[slice]()  # in memory order
        unit = max(1, _ALIGNMENT // np.dtype(dtype).itemsize)
        end = learned = self.decayed = self.weights = 0
        for p in sorted(self._parameters, key=lambda p: (p.is_frozen, not p.weight_decay)):
            start = -(-end // unit) * unit
            p.place = slice(start, start + p.size)
            if not p.is_frozen:
                self.gaps += [slice(end, start)] if start > end else []
                self._learning.append(p)
                self.learned_size += p.size
                learned = p.place.stop
                if p.weight_decay:
                    self.decayed, self.weights = learned, self.learned_size
            end = p.place.stop
        self.values = backend.zeros((end,), dtype)
        self.gradients = backend.zeros((learned,), dtype)
        self.learned = self.values if learned == end else self.values[:learned]
        for p in self._parameters:
            p.bind(backend, self.values[p.place], None if p.is_frozen else self.gradients[p.place])

    def initialize(self, seed: int) -> None:
        """Set initial values, each parameter from its own random stream."""
        values = {}
        for number, p in enumerate(self._parameters):
            source = np.random.Philox(key=np.array([seed << 32 | Purpose.WEIGHTS, number], np.uint64))
            values[p.name] = p.initializer(p.shape, *p.fans, np.random.Generator(source))
        self.load(values)

    def keep_gradients(self) -> None:
        """Give every trainable parameter a gradient array (`Parameter.keep_gradient`)."""
        for p in self._learning:
            p.keep_gradient()

    def load(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Set all values from host arrays by name."""
        host = np.zeros(self.values.shape, self.values.dtype)
        for p in self._parameters:
            host[p.place] = np.reshape(values[p.name], -1)
        self.backend.assign(self.values, host)

    def to_host(self) -> Arrays:
        """Copy all values to the host, by name."""
        host = self.backend.to_host(self.values)
        return {p.name: host[p.place].reshape(p.shape) for p in self._parameters}

    @property
    def has_gaps(self) -> bool:
        """True if there are gaps between trainable parameters."""
        return self.learned_size < int(self.gradients.size)

    def _places(self) -> Iterator[tuple[Parameter, slice]]:
        """Give the trainable parameters with their slices of a packed array."""
        start = 0
        for p in self._learning:
            yield p, slice(start, start + p.size)
            start += p.size

    def packed(self, flat: Array) -> Array:
        """Return an array in the layout of `gradients` without its gaps; return any other array as it is."""
        if not self.has_gaps or flat.shape != self.gradients.shape:
            return flat
        made = flat[: self.learned_size].copy()  # an array of the same library, NumPy or CuPy
        for p, at in self._places():
            made[at] = flat[p.place]
        return made

    def spread(self, packed: Array, flat: Array) -> None:
        """Write the result of `packed(flat)` back into `flat`; the gaps stay as they are."""
        if packed is not flat:
            for p, at in self._places():
                flat[p.place] = packed[at]

    def unpack(self, packed: NDArray[Any], target: Array) -> None:
        """Set an array on the device from a packed one on the host, with zeros in the gaps."""
        host = packed
        if packed.shape != target.shape and target.shape == self.gradients.shape:
            host = np.zeros(target.shape, target.dtype)
            self.spread(packed, host)
        self.backend.assign(target, host)

    def split(self, packed: NDArray[Any]) -> Arrays:
        """Split a packed array by trainable parameter, by name."""
        return {p.name: packed[at] for p, at in self._places()}

    def join(self, parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Join the parts of `split` again, with zeros for missing parameters."""
        packed = np.zeros(self.learned_size, self.gradients.dtype)
        for p, at in self._places():
            if p.name in parts:
                packed[at] = parts[p.name]
        return packed

    def __getstate__(self) -> dict[str, Any]:
        return {"of": self._parameters, "backend": self.backend, "arrays": self.to_host(), "dtype": self.values.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        of = [copy(parameter) for parameter in state["of"]]
        Parameters.__init__(self, of, state["backend"], state["dtype"])
        self.load(state["arrays"])

    @overload
    def __getitem__(self, which: int | str) -> Parameter: ...
    @overload
    def __getitem__(self, which: slice) -> list[Parameter]: ...
    def __getitem__(self, which: int | str | slice) -> Parameter | list[Parameter]:
        if not isinstance(which, str):
            return self._parameters[which]
        named = {p.name: p for p in self._parameters}
        if which not in named:
            raise KeyError(f"no parameter {which!r}: there are {', '.join(named)}")
        return named[which]

    def __len__(self) -> int:
        return len(self._parameters)
