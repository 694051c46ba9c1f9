"""Parameters: named, shaped views into flat arrays, so that one launch updates, sends or saves all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend import Backend
from gpunn.initializers import Initializer
from gpunn.kernels.kernel import Array
from gpunn.kernels.random import Purpose
from gpunn.product import Product


class Parameter:
    """One tensor that is learned.

    Attributes:
        name: layer and letter, such as "dense1.w".
        shape: its shape.
        decays: whether regularisers act on it: weights yes, biases and BatchNorm's γ and β no (22).
        value: view into the flat array of values.
        grad: view into the flat array of gradients, which `backward` assigns. None where the update is folded into
            the product that would make it.
        matrix, gradient_matrix: value and gradient as (units, everything else).
    """

    value: Array
    grad: Array | None
    matrix: Array
    gradient_matrix: Array

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Initializer,
        fan_in: int,
        fan_out: int,
        decays: bool,
    ) -> None:
        self.name = name
        self.shape = shape
        self.size = prod(shape)
        self.decays = decays
        self.initializer = initializer
        self._fans = fan_in, fan_out

    def initial(self, generator: np.random.Generator) -> NDArray[Any]:
        """Freshly drawn values."""
        return self.initializer(self.shape, *self._fans, generator)

    def bind(self, backend: Backend, value: Array, grad: Array) -> None:
        """Take the memory that the parameter lives in."""
        self.value = value.reshape(self.shape)
        self.grad = grad.reshape(self.shape)
        self.column = value.reshape(-1, 1)  # a bias beside (units, batch)
        self._product = Product(backend, transposed="b")
        self._alpha, self._beta = 1.0, 0.0
        self.matrix = value.reshape(self.shape[0], -1)
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
        """Take ∂C/∂w = δ aᵀ (13), summed over the batch.

        This may already be the update of w: what `backward` still needs w for comes before.

        Args:
            delta: (units, batch).
            a: (inputs, batch).
        """
        self._product(self._alpha, delta, a, self._beta, self._target)

    def __repr__(self) -> str:
        return f"Parameter({self.name}, {self.shape})"


class Parameters(Sequence[Parameter]):
    """All parameters of a network, in the order of its layers; their memory is flat, decayed weights first.

    Attributes:
        values: flat array of all values.
        gradients: flat array of all gradients.
        decayed: how many of the first elements are weights that regularisers act on.
    """

    def __init__(self, parameters: Sequence[Parameter], backend: Backend, dtype: DTypeLike) -> None:
        self._parameters = list(parameters)
        self.backend = backend
        self.decayed = sum(p.size for p in self._parameters if p.decays)
        size = sum(p.size for p in self._parameters)
        self.values = backend.zeros((size,), dtype)
        self.gradients = backend.zeros((size,), dtype)
        self._places: dict[str, slice] = {}
        start = 0
        for p in sorted(self._parameters, key=lambda p: not p.decays):
            place = self._places[p.name] = slice(start, start + p.size)
            p.bind(backend, self.values[place], self.gradients[place])
            start += p.size

    def draw(self, seed: int) -> None:
        """Initial values, each parameter from a stream of its own."""
        drawn = {}
        for number, p in enumerate(self._parameters):
            source = np.random.Philox(key=np.array([seed << 32 | Purpose.WEIGHTS, number], np.uint64))
            drawn[p.name] = p.initial(np.random.Generator(source))
        self.load(drawn)

    def keep_gradients(self) -> None:
        """Let every parameter have a gradient array (`Parameter.keep_gradient`)."""
        for p in self._parameters:
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
