"""Losses, an optimizer, a schedule and a regularizer."""

from typing import Any

import gpunn as gn


class Huber(gn.Loss):
    """½ d² for |d| ≤ δ, else δ (|d| − ½ δ), d = y − t, summed over outputs."""

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def function(self, xp: Any, y: Any, t: Any) -> Any:
        d = xp.abs(y - t)
        return xp.where(d <= self.delta, d * d / 2, self.delta * (d - self.delta / 2))

    def derivative(self, xp: Any, y: Any, t: Any) -> Any:
        return xp.clip(y - t, -self.delta, self.delta)


class Narrow(gn.Loss):
    """max(0, 1 + z_k − z_label) summed over the other classes: a hinge of several classes, of labels."""

    takes_labels = True

    def _margins(self, xp: Any, y: Any, t: Any) -> Any:
        is_label = xp.arange(len(y))[:, None] == t
        margins = xp.maximum(0, 1 + y - (y * is_label).sum(axis=0))
        return xp.where(is_label, xp.zeros_like(margins), margins), is_label

    def function(self, xp: Any, y: Any, t: Any) -> Any:
        return self._margins(xp, y, t)[0].sum(axis=0)

    def derivative(self, xp: Any, y: Any, t: Any) -> Any:
        margins, is_label = self._margins(xp, y, t)
        over = (margins > 0).astype(y.dtype)
        return over - is_label * over.sum(axis=0)


class Lion(gn.Optimizer):
    """p := p − η (sign(β m + (1 − β) g) / (1 + 1/count)), m := β m + (1 − β) g."""

    remembers = ("momentum",)

    def __init__(self, learning_rate: float | gn.Schedule = 0.003, beta: float = 0.9) -> None:
        super().__init__(learning_rate)
        self.beta = beta

    def change(self, xp: Any, values: Any, gradients: Any, rate: Any, count: Any) -> Any:
        m = self.state["momentum"]
        m[...] = self.beta * m + (1 - self.beta) * gradients
        return rate * xp.sign(m) / (1 + 1 / count)


class Staircase(gn.Schedule):
    """η / (1 + number of the epoch)."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def rates(self, epochs: Any, total: float) -> Any:
        return self.rate / (1 + epochs // 1)


class SmoothL1(gn.Regularizer):
    """R = (1/n) Σ (√(1 + w²) − 1)."""

    def cost(self, weights: Any, n: float) -> float:
        return float(self.strength / n * ((1 + weights.astype(float) ** 2) ** 0.5 - 1).sum())

    def gradient(self, xp: Any, weights: Any, n: float) -> Any:
        return self.strength / n * weights / xp.sqrt(1 + weights * weights)
