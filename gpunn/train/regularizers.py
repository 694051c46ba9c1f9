"""Regularisation (17): C = C₀ + λ R(w), over weights only, n the size of the training set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config import base_of_kind, register
from gpunn.errors import OptionError
from gpunn.scalars import real

__all__ = ["L1", "L2", "Regularizer"]


@base_of_kind("regularizer", "L2(5.0)")
class Regularizer(ABC):
    """A penalty on large weights.

    Args:
        strength: λ of (17).
    """

    def __init__(self, strength: float) -> None:
        self.strength = real(strength, f"strength of {type(self).__name__}")
        if not 0 <= self.strength < float("inf"):
            raise OptionError(f"strength of {type(self).__name__} must be at least 0, got {strength!r}")

    @abstractmethod
    def coefficients(self, n: int) -> tuple[float, float]:
        """λ/n as (for sign w, for w): what the gradient of each weight gains."""

    @abstractmethod
    def cost(self, weights: NDArray[Any], n: int) -> float:
        """λ R of the weights, one flat array in host memory."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strength:g})"


@register
class L2(Regularizer):
    """R = (1/2n) Σ w² (18), so ∂C/∂w gains (λ/n) w (19)."""

    def coefficients(self, n: int) -> tuple[float, float]:
        return 0.0, self.strength / n

    def cost(self, weights: NDArray[Any], n: int) -> float:
        return self.strength / (2 * n) * float(np.square(weights, dtype=np.float64).sum())


@register
class L1(Regularizer):
    """R = (1/n) Σ |w|, so ∂C/∂w gains (λ/n) sign w, 0 at w = 0."""

    def coefficients(self, n: int) -> tuple[float, float]:
        return self.strength / n, 0.0

    def cost(self, weights: NDArray[Any], n: int) -> float:
        return self.strength / n * float(np.abs(weights).sum(dtype=np.float64))
