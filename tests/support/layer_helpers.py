"""One layer by itself, in float64 and batch first, to be compared with equations, differences and other libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from support.harness import central_differences, relative_error

from gpunn.backend.base import Backend
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.parameter import Parameters

ERROR = 1e-6


class Alone:
    """A layer that is built as if something before it learned, unless it is the first, and nothing came after it."""

    def __init__(
        self,
        layer: Layer,
        shape: tuple[int, ...],
        backend: Backend,
        *,
        first: bool = False,
        dtype: str = "float64",
        capacity: int = 8,
        seed: int = 0,
    ) -> None:
        self.backend, self.dtype, self.stages = backend, dtype, layer.stages()
        layer.name = f"{layer.name_prefix}1"
        layer.name_inner_layers()
        self.count = backend.zeros((1,), np.int32)
        self.context = BuildContext(backend, dtype, capacity, batch_size=4, seed=seed, count=self.count)
        for number, stage in enumerate(self.stages):
            stage.name = self.context.name = f"{layer.name_prefix}1"
            self.context.number = number
            self.context.needs_input_gradient = not first or number > 0
            self.context.is_last = all(later.aliases_gradient for later in self.stages[number + 1 :])
            shape = stage.build(self.context, shape)
        self.shape = shape
        self.parameters = Parameters(self.context.parameters, backend, dtype)
        self.parameters.initialize(seed)

    def set(self, **values: Any) -> Self:
        """Give parameters and statistics their values, by the last word of their names."""
        for word, value in values.items():
            arrays = {p.name: p.value for p in self.parameters} | self.context.statistics
            (array,) = (a for name, a in arrays.items() if name.endswith(f".{word}"))
            self.backend.assign(array, np.asarray(value, self.dtype))
        return self

    def draw(self, rng: np.random.Generator) -> Self:
        """Give every parameter random values."""
        for p in self.parameters:
            self.backend.assign(p.value, rng.normal(size=p.shape).astype(self.dtype))
        return self

    def value(self, word: str) -> NDArray[Any]:
        """A parameter or statistic by the last word of its name."""
        arrays = {p.name: p.value for p in self.parameters} | self.context.statistics
        return self.backend.to_host(next(array for name, array in arrays.items() if name.endswith(f".{word}")))

    def grad(self, word: str) -> NDArray[Any]:
        """The gradient of a parameter."""
        return self.backend.to_host(next(p.grad for p in self.parameters if p.name.endswith(f".{word}")))

    def forward(self, x: NDArray[Any], training: bool = True) -> NDArray[Any]:
        """Batch first in, batch first out."""
        y = self.backend.asarray(samples_last(np.asarray(x, self.dtype)))
        for stage in self.stages:
            y = stage.forward(y, training)
        return batch_first(self.backend.to_host(y))

    def backward(self, dy: NDArray[Any]) -> NDArray[Any] | None:
        """From ∂C/∂y to ∂C/∂x."""
        gradient: Any = self.backend.asarray(samples_last(np.asarray(dy, self.dtype)))
        for stage in reversed(self.stages):
            gradient = stage.backward(gradient)
        return None if gradient is None else batch_first(self.backend.to_host(gradient))


class AsIs(Layer):
    """The identity, with memory of its own: what stands before and after it shares none, and is not put together."""

    name_prefix = "asis"

    def build(self, context: BuildContext, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._backend, self._buffer = context.backend, context.buffer(input_shape)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        y = self._buffer[x.shape[-1]]
        self._backend.assign(y, x)
        return y

    def backward(self, dy: Any) -> Any:
        return dy


def samples_last(x: NDArray[Any]) -> NDArray[Any]:
    """(batch, height, width, channels) → (channels, height, width, batch); (batch, features) → (features, batch)."""
    return np.ascontiguousarray(x.transpose(3, 1, 2, 0) if x.ndim == 4 else x.T)


def batch_first(x: NDArray[Any]) -> NDArray[Any]:
    """`samples_last` undone."""
    return np.ascontiguousarray(x.transpose(3, 1, 2, 0) if x.ndim == 4 else x.T)


def assert_gradients(
    alone: Alone, x: NDArray[Any], rng: np.random.Generator, training: bool = True, directions: int | None = None
) -> None:
    """Back-propagation of a layer gives the central differences of C = Σ v ⊙ y, by its inputs and its parameters.

    Element by element; or in so many random directions, each of which sees an error in any element.
    """
    x = np.array(x, np.float64)
    v = rng.normal(size=alone.forward(x, training).shape)
    dx = alone.backward(v)
    gradients = {p.name: alone.backend.to_host(p.grad) for p in alone.parameters}

    def cost() -> float:
        return float((v * alone.forward(x, training)).sum())

    def compare(gradient: NDArray[Any], function: Any, at: NDArray[Any], what: str) -> None:
        if directions is None:
            assert_close(gradient, central_differences(function, at), what)
            return
        for _ in range(directions):
            assert_close_along(gradient, function, at, rng, what)

    assert dx is not None
    compare(dx, cost, x, "inputs")
    for p in alone.parameters:
        values = alone.backend.to_host(p.value)

        def cost_by_parameter(p: Any = p, values: NDArray[Any] = values) -> float:
            alone.backend.assign(p.value, values)
            return cost()

        compare(gradients[p.name], cost_by_parameter, values, p.name)
        alone.backend.assign(p.value, values)


def assert_close(actual: NDArray[Any], numeric: NDArray[Any], what: str) -> None:
    """Within the error that central differences have."""
    # Where the gradient itself is no more than rounding of the cost, nothing can be said of its digits.
    if max(np.abs(numeric).max(initial=0), np.abs(actual).max(initial=0)) > 1e-8:
        assert relative_error(actual, numeric) <= ERROR, what


def assert_close_along(
    gradient: NDArray[Any], function: Any, at: NDArray[Any], rng: np.random.Generator, what: str, h: float = 1e-5
) -> None:
    """The derivative in a random direction is the gradient's; `at` is changed in place and put back."""
    direction = rng.normal(size=at.shape)
    direction /= np.sqrt(np.square(direction).sum())
    kept = at.copy()
    at[...] = kept + h * direction
    above = function()
    at[...] = kept - h * direction
    numeric = (above - function()) / (2 * h)
    at[...] = kept
    size = np.sqrt(np.square(gradient).sum())
    # Rounding of the cost itself, which may be large beside its change.
    noise = 4 * np.finfo(np.float64).eps * max(abs(above), 1.0) / h
    assert abs(numeric - (gradient * direction).sum()) <= ERROR * size + noise, what


@contextmanager
def blocks_of(backend: Backend, elements: int | None) -> Iterator[None]:
    """Layers that are built inside work in blocks of so many elements; None leaves the backend its own."""
    before = backend.block_elements
    if elements is not None:
        backend.block_elements = elements
    try:
        yield
    finally:
        backend.block_elements = before
