"""Layers and an activation: arrays are (features, batch), of NumPy or CuPy."""

from typing import Any

import gpunn as gn


class Standardize(gn.Layer):
    """y = γ x̂ + β, x̂ = (x − mean)/√(variance + ε) over the features of a sample: gpunn's LayerNorm, in array code."""

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = epsilon

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._xp = context.xp
        self._gamma = context.parameter("gamma", input_shape, Near(1.0))
        self._beta = context.parameter("beta", input_shape, Near())
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        self._scale = 1 / self._xp.sqrt(x.var(axis=0) + self.epsilon)
        self._normal = (x - x.mean(axis=0)) * self._scale
        return self._gamma.column * self._normal + self._beta.column

    def backward(self, dy: Any) -> Any:
        normal = self._normal
        if not self._gamma.is_frozen:
            self._gamma.grad[...] = (dy * normal).sum(axis=1)
            self._beta.grad[...] = dy.sum(axis=1)
        dy = dy * self._gamma.column
        return (dy - dy.mean(axis=0) - normal * (dy * normal).mean(axis=0)) * self._scale


class Scale(gn.Layer):
    """y = g x, one g for all, times the share of training steps done so far: a statistic that a layer remembers."""

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._g = context.parameter("g", (1,), Near(1.0))
        self._seen = context.statistic("seen", (1,), 0.0)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        if training:
            self._seen += 1  # in place, so that a graph counts on too
        self._x = x
        return x * self._g.value

    def backward(self, dy: Any) -> Any:
        if not self._g.is_frozen:
            self._g.grad[...] = (dy * self._x).sum()
        return dy * self._g.value


class Swish(gn.Activation):
    """f(z) = z sigmoid(βz)."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def function(self, xp: Any, z: Any) -> Any:
        return z / (1 + xp.exp(-self.beta * z))

    def derivative(self, xp: Any, z: Any) -> Any:
        s = 1 / (1 + xp.exp(-self.beta * z))
        return s + self.beta * z * s * (1 - s)


class Near(gn.Initializer):
    """Uniform on center ± 0.1."""

    def __init__(self, center: float = 0.0) -> None:
        self.center = center

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, generator: Any) -> Any:
        return generator.uniform(self.center - 0.1, self.center + 0.1, shape)
