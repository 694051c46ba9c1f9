"""Draw initial weights, in float64 on the host, so that every device and dtype begins with the same."""

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
    """Draw the initial values of a parameter."""

    @abstractmethod
    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        """Return initial values, an array of the given shape.

        Args:
            shape: Shape of the parameter.
            fan_in: Number of inputs to one unit.
            fan_out: Number of units that one input feeds.
            generator: Random number generator.
        """


@register
class He(Initializer):
    """w ~ N(0, σ) with standard deviation σ = √(2/fan_in), for ReLU and similar (K. He et al., 2015)."""

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return generator.normal(0.0, sqrt(2 / fan_in), shape)


@register
class Glorot(Initializer):
    """w ~ U(−r, r), r = √(6/(fan_in + fan_out)), for sigmoid, tanh and outputs (X. Glorot, Y. Bengio, 2010)."""

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        limit = sqrt(6 / (fan_in + fan_out))
        return generator.uniform(-limit, limit, shape)


@register
class LeCun(Initializer):
    """w ~ N(0, σ) with standard deviation σ = 1/√fan_in (Y. LeCun et al., 1998; Nielsen, chapter 3)."""

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return generator.normal(0.0, 1 / sqrt(fan_in), shape)


@register
class Normal(Initializer):
    """w ~ N(0, σ) with standard deviation σ = `deviation`.

    Args:
        deviation: Standard deviation σ, at least 0.
    """

    def __init__(self, deviation: float = 1.0) -> None:
        self.deviation = real(deviation, "deviation of Normal", NOT_NEGATIVE)

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return generator.normal(0.0, self.deviation, shape)


@register
class Constant(Initializer):
    """w = value for all elements."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = real(value, "value of Constant", FINITE)

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return np.full(shape, self.value)


# Names that a layer's `weights` accepts besides "auto".
NAMED: dict[str, type[Initializer]] = {"he": He, "glorot": Glorot, "lecun": LeCun, "normal": Normal}


def checked_weights(weights: Any) -> Initializer | str:
    """Return a given initializer, an instance of a given class, or a name in lower case; OptionError for others."""
    if isinstance(weights, Initializer):
        return weights
    if isinstance(weights, str) and weights.lower() in ("auto", *NAMED):
        return weights.lower()
    if isinstance(weights, type) and weights in NAMED.values():
        return weights()  # type: ignore[no-any-return]
    expected = f"auto, {', '.join(NAMED)}, or an initializer such as Normal(0.1)"
    raise OptionError(f"unknown weights {weights!r}: expected {expected}")
