"""Parameters: named, shaped views into flat arrays, so that one launch updates, sends or saves all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend
from gpunn.backend.product import Product
from gpunn.kernels.random import Purpose
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer

Arrays = dict[str, NDArray[Any]]
"""Arrays on the host, by name."""


@dataclass(frozen=True)
class Memory:
    """What a network's optimizer remembered when its training ended.

    Attributes:
        of: which optimizer it was; see `Trainer`.
        first: step of the network that was its first.
        arrays: for each name of `Optimizer.state`, what was remembered of each parameter by its name.
    """

    of: Any
    first: int
    arrays: dict[str, Arrays]


class Parameter:
    """One tensor that is learned.

    Attributes:
        name: layer and letter, such as "dense1.w".
        shape: its shape.
        weight_decay: whether regularisers act on it: weights yes, biases and BatchNorm's γ and β no (22).
        is_frozen: whether it stays as it is; see `Layer.trainable`.
        value: view into the flat array of values.
        grad: view into the flat array of gradients, which `backward` assigns. None where the update is folded into
            the product that would make it, and where the parameter is frozen.
        matrix, gradient_matrix: value and gradient as (units, everything else).
    """

    value: Array
    grad: Array | None
    matrix: Array
    gradient_matrix: Array
    _backend: Backend | None = None

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Initializer,
        fan_in: int,
        fan_out: int,
        weight_decay: bool,
        *,
        is_frozen: bool = False,
    ) -> None:
        self.name = name
        self.shape = shape
        self.size = prod(shape)
        self.weight_decay = weight_decay
        self.is_frozen = is_frozen
        self.initializer = initializer
        self._fans = fan_in, fan_out

    def initial(self, generator: np.random.Generator) -> NDArray[Any]:
        """Freshly drawn values."""
        return self.initializer(self.shape, *self._fans, generator)

    def bind(self, backend: Backend, value: Array, grad: Array | None) -> None:
        """Take the memory that the parameter lives in; there is none for the gradient of a frozen one."""
        self._backend = backend
        self.value = value.reshape(self.shape)
        self.grad = None
        self.column = value.reshape(-1, 1)  # a bias beside (units, batch)
        self._product = Product(backend, transposed="b")
        self._alpha, self._beta = 1.0, 0.0
        self.matrix = value.reshape(self.shape[0], -1)
        if grad is not None:
            self.gradient_matrix = grad.reshape(self.matrix.shape)
            self.keep_gradient(grad)

    def keep_gradient(self, grad: Array) -> None:
        """Let `collect` write the gradient: grad := δ aᵀ."""
        self.grad = grad.reshape(self.shape)
        self._target = self.gradient_matrix
        self._alpha, self._beta = 1.0, 0.0

    def fold_update(self, alpha: float, beta: float) -> None:
        """Let `collect` do the update itself (21): w := beta w + alpha δ aᵀ, with no gradient array between."""
        self.grad = None
        self._target = self.matrix
        self._alpha, self._beta = alpha, beta

    def collect(self, delta: Array, a: Array) -> None:
        """Take ∂C/∂w = δ aᵀ (13), summed over the batch; not where the parameter is frozen.

        This may already be the update of w: what `backward` still needs w for comes before.

        Args:
            delta: (units, batch).
            a: (inputs, batch).
        """
        if not self.is_frozen:
            self._product(self._alpha, delta, a, self._beta, self._target)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has memory of its own, and is a part of no network.
        made = {
            name: vars(self)[name]
            for name in ("name", "shape", "size", "weight_decay", "is_frozen", "initializer", "_fans")
        }
        if self._backend is None:
            return made
        to_host = self._backend.to_host
        return made | {"_held": (self._backend, to_host(self.value), None if self.grad is None else to_host(self.grad))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = dict(state)
        held = made.pop("_held", None)
        vars(self).update(made)
        if held is not None:
            backend, value, grad = held
            value = backend.asarray(value).reshape(-1)
            self.bind(backend, value, None if grad is None else backend.asarray(grad).reshape(-1))

    def __repr__(self) -> str:
        return f"Parameter({self.name}, {self.shape})"


class Parameters(Sequence[Parameter]):
    """All parameters of a network, in the order of its layers; their memory is flat, decayed weights first.

    What is frozen lies last, so that an optimizer's stretch of memory ends before it.

    Attributes:
        values: flat array of all values.
        learned: those of them that are not frozen.
        gradients: flat array of the gradients of these.
        decayed: how many of the first elements are weights that regularisers act on.
    """

    def __init__(self, parameters: Sequence[Parameter], backend: Backend, dtype: DTypeLike) -> None:
        self._parameters = list(parameters)
        self.backend = backend
        self.decayed = sum(p.size for p in self._parameters if p.weight_decay and not p.is_frozen)
        size = sum(p.size for p in self._parameters)
        learned = sum(p.size for p in self._parameters if not p.is_frozen)
        self.values = backend.zeros((size,), dtype)
        self.gradients = backend.zeros((learned,), dtype)
        self.learned = self.values if learned == size else self.values[:learned]
        self._places: dict[str, slice] = {}
        start = 0
        for p in sorted(self._parameters, key=lambda p: (p.is_frozen, not p.weight_decay)):
            place = self._places[p.name] = slice(start, start + p.size)
            p.bind(backend, self.values[place], None if p.is_frozen else self.gradients[place])
            start += p.size

    def initialize(self, seed: int) -> None:
        """Initial values, each parameter from a stream of its own."""
        drawn = {}
        for number, p in enumerate(self._parameters):
            source = np.random.Philox(key=np.array([seed << 32 | Purpose.WEIGHTS, number], np.uint64))
            drawn[p.name] = p.initial(np.random.Generator(source))
        self.load(drawn)

    def keep_gradients(self) -> None:
        """Let every parameter have a gradient array (`Parameter.keep_gradient`)."""
        for p in self._parameters:
            if not p.is_frozen:
                p.keep_gradient(self.gradients[self._places[p.name]])

    def load(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Set all values from host arrays by name."""
        host = np.empty(self.values.shape, self.values.dtype)
        for p in self._parameters:
            host[self._places[p.name]] = np.reshape(values[p.name], -1)
        self.backend.assign(self.values, host)

    def to_host(self) -> dict[str, NDArray[Any]]:
        """Copies of all values, by name."""
        host = self.backend.to_host(self.values)
        return {p.name: host[self._places[p.name]].reshape(p.shape) for p in self._parameters}

    def split(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What an array has of each learned parameter, by name; it lies as `learned` does."""
        return {p.name: flat[self._places[p.name]] for p in self._parameters if not p.is_frozen}

    def join(self, parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """`split` undone; zeros for a parameter that is not among the parts."""
        flat = np.zeros(self.gradients.shape, self.gradients.dtype)
        for p in self._parameters:
            if not p.is_frozen and p.name in parts:
                flat[self._places[p.name]] = parts[p.name]
        return flat

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
        if isinstance(which, str):
            for p in self._parameters:
                if p.name == which:
                    return p
            raise KeyError(f"no parameter {which!r}: there are {', '.join(self._places)}")
        return self._parameters[which]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters)
