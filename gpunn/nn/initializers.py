"""Distributions of initial weights, in float64 from the host: the same on every device and in every dtype."""

from abc import ABC, abstractmethod
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Shape
from gpunn.config import Part, register
from gpunn.config.scalars import FINITE, NOT_NEGATIVE, real
from gpunn.errors import OptionError

__all__ = ["Glorot", "He", "Initializer", "LeCun", "Normal"]


class Initializer(Part, ABC, kind="initializer", example="Normal(0.1)"):
    """Makes the initial values of a parameter."""

    @abstractmethod
    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        """Return values of the given shape.

        Args:
            shape: Shape of the parameter.
            fan_in: Number of inputs that one unit sums over.
            fan_out: Number of units that one input feeds.
            generator: Source of random numbers.
        """


@register
class He(Initializer):
    """N(0, √(2/fan_in)), for ReLU and its like (K. He et al., 2015)."""

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return generator.normal(0.0, sqrt(2 / fan_in), shape)


@register
class Glorot(Initializer):
    """Uniform on ±√(6/(fan_in + fan_out)), for sigmoid, tanh and outputs (X. Glorot, Y. Bengio, 2010)."""

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        limit = sqrt(6 / (fan_in + fan_out))
        return generator.uniform(-limit, limit, shape)


@register
class LeCun(Initializer):
    """N(0, 1/√fan_in) (Y. LeCun et al., 1998; the improved start of Nielsen's chapter 3)."""

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return generator.normal(0.0, 1 / sqrt(fan_in), shape)


@register
class Normal(Initializer):
    """N(0, deviation), the plain normal distribution of the textbooks, by its standard deviation."""

    def __init__(self, deviation: float = 1.0) -> None:
        self.deviation = real(deviation, "deviation of Normal", NOT_NEGATIVE)

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return generator.normal(0.0, self.deviation, shape)


@register
class Constant(Initializer):
    """One value for all elements."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = real(value, "value of Constant", FINITE)

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return np.full(shape, self.value)


# By the names that `weights` of a layer takes beside "auto".
NAMED: dict[str, type[Initializer]] = {"he": He, "glorot": Glorot, "lecun": LeCun, "normal": Normal}


def checked_weights(weights: Any) -> Initializer | str:
    """Return an initializer from itself or its class, or its name in small letters."""
    if isinstance(weights, Initializer):
        return weights
    if isinstance(weights, str) and weights.lower() in ("auto", *NAMED):
        return weights.lower()
    if isinstance(weights, type) and weights in NAMED.values():
        return weights()  # type: ignore[no-any-return]
    expected = f"auto, {', '.join(NAMED)}, or an initializer such as Normal(0.1)"
    raise OptionError(f"unknown weights {weights!r}: expected {expected}")
